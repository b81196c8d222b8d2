//! The search for candidates: pure, over providers in memory.
//!
//! A candidate belongs to one tree, its anchor: each group of the request is given by providers of that tree, or by sharing ones that
//! have an aggregate in common with a provider of that tree. Per anchor, each group has its solutions; a candidate is one solution per
//! group, as long as all together fit.
use super::request::{Group, Request};
use crate::{
    rows::{Amounts, PROVIDERS, Provider},
    standard::SHARES,
};
use api::Result;
use resource::Reader;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Candidates that are found at most: a request that leaves too much open must end, too.
const MOST: usize = 10_000;
/// Steps of the search at most, for requests that have few solutions among many combinations.
const STEPS: usize = 200_000;

/// Place of a provider in [`Forest`].
pub(crate) type At = usize;

/// All providers as trees.
pub(crate) struct Forest {
    providers: Vec<Provider>,
    parents: Vec<Option<At>>,
    roots: Vec<At>,
    by_uuid: HashMap<String, At>,
    trees: BTreeMap<At, Vec<At>>,
}

impl Forest {
    pub(crate) fn read(reader: &Reader<'_>) -> Result<Self> {
        Ok(Self::new(reader.all(&PROVIDERS).map(|r| Provider::from_row(r)).collect::<Result<_>>()?))
    }

    pub(crate) fn new(providers: Vec<Provider>) -> Self {
        let by_uuid: HashMap<String, At> = providers.iter().enumerate().map(|(at, p)| (p.uuid.clone(), at)).collect();
        let parents: Vec<Option<At>> =
            providers.iter().map(|p| p.parent_provider_uuid.as_ref().and_then(|u| by_uuid.get(u).copied())).collect();
        let root = |mut at: At| {
            // No tree is deeper than there are providers.
            for _ in 0..parents.len() {
                match parents[at] {
                    Some(above) => at = above,
                    None => break,
                }
            }
            at
        };
        let roots: Vec<At> = (0..providers.len()).map(root).collect();
        let mut trees: BTreeMap<At, Vec<At>> = BTreeMap::new();
        for (at, root) in roots.iter().enumerate() {
            trees.entry(*root).or_default().push(at);
        }
        Self { providers, parents, roots, by_uuid, trees }
    }

    pub(crate) fn provider(&self, at: At) -> &Provider {
        &self.providers[at]
    }
    pub(crate) fn root_uuid(&self, at: At) -> &str {
        &self.providers[self.roots[at]].uuid
    }
    fn tree_of(&self, uuid: &str) -> Option<At> {
        self.by_uuid.get(uuid).map(|at| self.roots[*at])
    }
    /// Is `at` the provider `above`, or below it?
    fn is_below(&self, at: At, above: At) -> bool {
        std::iter::successors(Some(at), |at| self.parents[*at]).take(self.parents.len() + 1).any(|a| a == above)
    }

    /// Sharing providers by aggregate.
    fn sharing(&self) -> HashMap<&str, Vec<At>> {
        let mut out: HashMap<&str, Vec<At>> = HashMap::new();
        for (at, p) in self.providers.iter().enumerate().filter(|(_, p)| p.traits.contains(SHARES)) {
            for aggregate in &p.aggregates {
                out.entry(aggregate).or_default().push(at);
            }
        }
        out
    }
}

/// Amounts by provider and class.
type Taken = BTreeMap<At, Amounts>;

/// One way to give one group: who gives how much, and who answers the group (also where it asks for no resources).
#[derive(Clone, Debug)]
struct Solution {
    gives: Vec<(At, String, i64)>,
    answers: BTreeSet<At>,
}

/// One way to give all that is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Candidate {
    taken: Taken,
    mappings: BTreeMap<String, BTreeSet<At>>,
}

impl Candidate {
    pub(crate) fn resources<'f>(&'f self, forest: &'f Forest) -> Vec<(&'f str, &'f Amounts)> {
        self.taken.iter().map(|(at, amounts)| (forest.provider(*at).uuid.as_str(), amounts)).collect()
    }
    pub(crate) fn mappings<'f>(&'f self, forest: &'f Forest) -> BTreeMap<&'f str, Vec<&'f str>> {
        let uuids = |answers: &BTreeSet<At>| answers.iter().map(|at| forest.provider(*at).uuid.as_str()).collect();
        self.mappings.iter().map(|(suffix, answers)| (suffix.as_str(), uuids(answers))).collect()
    }
}

pub(crate) struct Found {
    pub(crate) candidates: Vec<Candidate>,
    /// Providers that the answer tells about: those of all trees that give something.
    pub(crate) summarised: Vec<At>,
}

/// Finds candidates. Callers that do not know trees (`nested` is false) get those that take from one provider of a tree only.
pub(crate) fn search(forest: &Forest, request: &Request, nested: bool) -> Found {
    let limit = request.limit.unwrap_or(MOST).min(MOST);
    let sharing = forest.sharing();
    let mut merge = Merge { forest, request, nested, limit, steps: 0, seen: HashSet::new(), found: Vec::new() };
    for (root, tree) in &forest.trees {
        if merge.is_done() {
            break;
        }
        if !request.root.admit(&forest.provider(*root).traits) {
            continue;
        }
        let anchor = Anchor::new(forest, *root, tree, &sharing);
        // Groups of one provider first: they have fewer solutions, so that what cannot fit shows early.
        let mut groups: Vec<&Group> = request.groups.iter().collect();
        groups.sort_by_key(|g| !g.is_granular());
        let solutions: Vec<Vec<Solution>> = groups.iter().map(|g| anchor.solutions(g)).collect();
        if solutions.iter().all(|s| !s.is_empty()) {
            merge.descend(&groups, &solutions, &mut Vec::new(), &mut Taken::new());
        }
    }
    let candidates = merge.found;
    let given: BTreeSet<At> = candidates.iter().flat_map(|c| c.taken.keys().copied()).collect();
    let is_flat = forest.trees.values().all(|t| t.len() == 1);
    let summarised = if nested || is_flat {
        let trees: BTreeSet<At> = given.iter().map(|at| forest.roots[*at]).collect();
        trees.iter().flat_map(|root| forest.trees[root].iter().copied()).collect()
    } else {
        given.into_iter().collect()
    };
    Found { candidates, summarised }
}

/// A tree, and who shares with it.
struct Anchor<'f> {
    forest: &'f Forest,
    root: At,
    members: Vec<At>,
}

impl<'f> Anchor<'f> {
    fn new(forest: &'f Forest, root: At, tree: &[At], sharing: &HashMap<&str, Vec<At>>) -> Self {
        let mut members = tree.to_vec();
        for aggregate in tree.iter().flat_map(|at| &forest.provider(*at).aggregates) {
            for at in sharing.get(aggregate.as_str()).into_iter().flatten() {
                if !members.contains(at) {
                    members.push(*at);
                }
            }
        }
        Self { forest, root, members }
    }

    fn is_own(&self, at: At) -> bool {
        self.forest.roots[at] == self.root
    }

    fn solutions(&self, group: &Group) -> Vec<Solution> {
        if group.is_granular() { self.by_one(group) } else { self.by_tree(group) }
    }

    /// Is the provider in the tree that the group asks for?
    fn in_tree(&self, group: &Group, at: At) -> bool {
        group.in_tree.as_ref().is_none_or(|uuid| self.forest.tree_of(uuid) == Some(self.forest.roots[at]))
    }

    /// All from one provider.
    fn by_one(&self, group: &Group) -> Vec<Solution> {
        let fits = |at: &At| {
            let p = self.forest.provider(*at);
            self.in_tree(group, *at)
                && group.aggregates.admit(&p.aggregates)
                && group.traits.admit(&p.traits)
                && group.resources.iter().all(|(class, amount)| p.has_room(class, *amount))
        };
        let solution = |at: At| Solution {
            gives: group.resources.iter().map(|(class, amount)| (at, class.clone(), *amount)).collect(),
            answers: BTreeSet::from([at]),
        };
        self.members.iter().copied().filter(fits).map(solution).collect()
    }

    /// Each class from any provider; the traits from all of them together. Aggregates of the root count for its whole tree.
    fn by_tree(&self, group: &Group) -> Vec<Solution> {
        let root = &self.forest.provider(self.root).aggregates;
        let fits = |at: At, class: &str, amount: i64| {
            let p = self.forest.provider(at);
            let (own, asked) = (self.is_own(at), &group.aggregates);
            // One set may be met by the provider and another one by the root only where one of both meets all.
            let member = asked.requires(&p.aggregates) || (own && asked.requires(root));
            p.has_room(class, amount)
                && self.in_tree(group, at)
                && (own || group.in_tree.is_none())
                && member
                && !asked.forbids(&p.aggregates)
                && !asked.forbids(root)
                && group.traits.forbids_none(&p.traits)
        };
        let mut partial: Vec<Vec<(At, String, i64)>> = vec![Vec::new()];
        for (class, amount) in &group.resources {
            let givers: Vec<At> = self.members.iter().copied().filter(|at| fits(*at, class, *amount)).collect();
            let extended = partial.iter().flat_map(|before| {
                givers.iter().map(move |at| before.iter().cloned().chain([(*at, class.clone(), *amount)]).collect::<Vec<_>>())
            });
            partial = extended.take(MOST).collect();
        }
        let has_traits = |gives: &Vec<(At, String, i64)>| {
            group.traits.satisfied_by(|name| gives.iter().any(|(at, _, _)| self.forest.provider(*at).traits.contains(name)))
        };
        let solution = |gives: Vec<(At, String, i64)>| Solution { answers: gives.iter().map(|(at, _, _)| *at).collect(), gives };
        partial.into_iter().filter(has_traits).map(solution).collect()
    }
}

/// Puts one solution of each group together.
struct Merge<'f> {
    forest: &'f Forest,
    request: &'f Request,
    nested: bool,
    limit: usize,
    steps: usize,
    seen: HashSet<Candidate>,
    found: Vec<Candidate>,
}

impl Merge<'_> {
    fn is_done(&self) -> bool {
        self.found.len() >= self.limit || self.steps >= STEPS
    }

    fn descend<'s>(
        &mut self,
        groups: &[&Group],
        solutions: &'s [Vec<Solution>],
        chosen: &mut Vec<&'s Solution>,
        taken: &mut Taken,
    ) {
        let Some(next) = solutions.get(chosen.len()) else { return self.finish(groups, chosen, taken) };
        for solution in next {
            self.steps += 1;
            if self.is_done() {
                return;
            }
            let alone = !self.request.isolate
                || !groups[chosen.len()].is_granular()
                || chosen.iter().zip(groups).all(|(c, g)| !g.is_granular() || c.answers.is_disjoint(&solution.answers));
            if !alone {
                continue;
            }
            let mut with = taken.clone();
            if self.add(&mut with, solution) {
                chosen.push(solution);
                self.descend(groups, solutions, chosen, &mut with);
                chosen.pop();
            }
        }
    }

    /// Adds what the solution takes; false where that is too much.
    fn add(&self, taken: &mut Taken, solution: &Solution) -> bool {
        solution.gives.iter().all(|(at, class, amount)| {
            let sum = taken.entry(*at).or_default().entry(class.clone()).or_default();
            *sum = sum.saturating_add(*amount);
            let provider = self.forest.provider(*at);
            let inventory = provider.inventories.get(class);
            inventory.is_some_and(|i| provider.used(class).saturating_add(*sum) <= i.capacity() && *sum <= i.max_unit)
        })
    }

    fn finish(&mut self, groups: &[&Group], chosen: &[&Solution], taken: &Taken) {
        let mappings: BTreeMap<String, BTreeSet<At>> =
            groups.iter().zip(chosen).map(|(g, c)| (g.suffix.clone(), c.answers.clone())).collect();
        let rooted = self.request.subtrees.iter().all(|suffixes| {
            let all: BTreeSet<At> = suffixes.iter().filter_map(|s| mappings.get(s)).flatten().copied().collect();
            all.iter().any(|top| all.iter().all(|at| self.forest.is_below(*at, *top)))
        });
        let trees: HashSet<At> = taken.keys().map(|at| self.forest.roots[*at]).collect();
        if !rooted || (!self.nested && trees.len() < taken.len()) {
            return;
        }
        let candidate = Candidate { taken: taken.clone(), mappings };
        if self.seen.insert(candidate.clone()) {
            self.found.push(candidate);
        }
    }
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
