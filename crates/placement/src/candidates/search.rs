//! The search: for each tree, every way to satisfy each group, and every combination of these that fits together.
use super::request::{Group, Request};
use crate::{
    consumer::Amounts,
    provider::{Forest, Provider},
};
use std::collections::{BTreeMap, BTreeSet};

/// Providers with this trait serve all trees that share an aggregate with them.
const SHARES: &str = "MISC_SHARES_VIA_AGGREGATE";
/// A request that fits in more ways is answered with so many of them.
const MOST: usize = 10_000;

/// One way to satisfy the request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    pub(super) amounts: Amounts,
    /// Providers by the suffix of the group that they serve.
    pub(super) mappings: BTreeMap<String, Vec<String>>,
}

/// One way to satisfy one group: which provider gives which class.
type Choice<'f> = BTreeMap<&'f str, BTreeSet<&'f str>>;

/// All ways, in a stable order. Without `nested`, no two providers of one tree give something.
pub(super) fn candidates(forest: &Forest, request: &Request, nested: bool) -> Vec<Candidate> {
    let most = request.limit.unwrap_or(MOST).min(MOST);
    let mut found: Vec<Candidate> = Vec::new();
    let mut seen: BTreeSet<Candidate> = BTreeSet::new();
    let roots: BTreeSet<&str> = forest.all.keys().map(|uuid| forest.root(uuid)).collect();
    for root in roots {
        if !forest.all.get(root).is_some_and(|p| request.root_traits.fits(&p.traits)) {
            continue;
        }
        let tree = Tree::new(forest, root);
        let mut choices: Vec<(&str, Vec<Choice<'_>>)> = Vec::new();
        for (suffix, group) in &request.groups {
            choices.push((suffix, if suffix.is_empty() { tree.spread(group) } else { tree.single(group) }));
        }
        let mut search = Search { forest, request, nested, most, picked: Vec::new(), found: &mut found, seen: &mut seen };
        search.combine(&choices);
        if found.len() >= most {
            break;
        }
    }
    found
}

/// What one tree and those that share with it have.
struct Tree<'f> {
    forest: &'f Forest,
    providers: Vec<&'f Provider>,
}

impl<'f> Tree<'f> {
    fn new(forest: &'f Forest, root: &'f str) -> Self {
        let mut providers: Vec<&Provider> = forest.tree(root).collect();
        let aggregates: BTreeSet<&String> = providers.iter().flat_map(|p| &p.aggregates).collect();
        let shares = |p: &&Provider| p.traits.contains(SHARES) && p.aggregates.iter().any(|a| aggregates.contains(a));
        let sharing = forest.all.values().filter(|p| forest.root(&p.uuid) != root).filter(shares);
        providers.extend(sharing);
        Self { forest, providers }
    }

    fn in_tree(&self, provider: &Provider, wanted: Option<&String>) -> bool {
        wanted.is_none_or(|uuid| self.forest.root(&provider.uuid) == self.forest.root(uuid))
    }

    /// The group on one provider.
    fn single(&self, group: &'f Group) -> Vec<Choice<'f>> {
        let fits = |p: &&&Provider| {
            self.in_tree(p, group.in_tree.as_ref())
                && group.traits.fits(&p.traits)
                && group.aggregates.fits(&|a| p.aggregates.contains(a))
                && group.resources.iter().all(|(class, amount)| p.has_room(class, *amount))
        };
        let one = |p: &&'f Provider| BTreeMap::from([(p.uuid.as_str(), group.resources.keys().map(String::as_str).collect())]);
        self.providers.iter().filter(fits).map(one).collect()
    }

    /// The group over the tree: each class from any provider, the traits from all of them together.
    fn spread(&self, group: &'f Group) -> Vec<Choice<'f>> {
        // The aggregates of a root span its tree.
        let has = |p: &Provider, a: &str| {
            p.aggregates.contains(a) || self.forest.all.get(self.forest.root(&p.uuid)).is_some_and(|r| r.aggregates.contains(a))
        };
        let usable: Vec<&'f Provider> = self
            .providers
            .iter()
            .copied()
            .filter(|p| self.in_tree(p, group.in_tree.as_ref()))
            .filter(|p| !group.traits.forbids(&p.traits) && group.aggregates.fits(&|a| has(p, a)))
            .collect();
        let mut partial: Vec<Choice<'f>> = vec![BTreeMap::new()];
        for (class, amount) in &group.resources {
            let givers: Vec<&str> = usable.iter().filter(|p| p.has_room(class, *amount)).map(|p| p.uuid.as_str()).collect();
            let mut next = Vec::new();
            'all: for choice in &partial {
                for giver in &givers {
                    let mut more = choice.clone();
                    more.entry(giver).or_default().insert(class.as_str());
                    next.push(more);
                    if next.len() >= MOST {
                        break 'all;
                    }
                }
            }
            partial = next;
        }
        partial.retain(|choice| {
            let traits = |t: &str| choice.keys().any(|uuid| self.forest.all.get(*uuid).is_some_and(|p| p.traits.contains(t)));
            group.traits.wanted_in(&traits)
        });
        partial
    }
}

struct Search<'s, 'f> {
    forest: &'f Forest,
    request: &'f Request,
    nested: bool,
    most: usize,
    picked: Vec<(&'f str, Choice<'f>)>,
    found: &'s mut Vec<Candidate>,
    seen: &'s mut BTreeSet<Candidate>,
}

impl<'f> Search<'_, 'f> {
    /// Picks one choice of each group in turn; a pick that cannot fit is not followed.
    fn combine(&mut self, choices: &[(&'f str, Vec<Choice<'f>>)]) {
        let Some(((suffix, here), rest)) = choices.split_first() else {
            self.admit();
            return;
        };
        for choice in here {
            if self.found.len() >= self.most {
                return;
            }
            if self.request.isolate && !suffix.is_empty() && self.is_taken(choice) {
                continue;
            }
            self.picked.push((suffix, choice.clone()));
            if self.fits() {
                self.combine(rest);
            }
            self.picked.pop();
        }
    }

    fn is_taken(&self, choice: &Choice<'_>) -> bool {
        self.picked.iter().any(|(suffix, other)| !suffix.is_empty() && other.keys().any(|uuid| choice.contains_key(uuid)))
    }

    fn amounts(&self) -> Amounts {
        let mut out = Amounts::new();
        for (suffix, choice) in &self.picked {
            let Some(group) = self.request.groups.get(*suffix) else { continue };
            for (uuid, classes) in choice {
                for class in classes {
                    let amount = group.resources.get(*class).copied().unwrap_or_default();
                    *out.entry((*uuid).to_owned()).or_default().entry((*class).to_owned()).or_default() += amount;
                }
            }
        }
        out
    }

    /// Is there room for what several groups take from one provider together?
    fn fits(&self) -> bool {
        self.amounts().iter().all(|(uuid, resources)| {
            let provider = self.forest.all.get(uuid);
            resources.iter().all(|(class, amount)| {
                let inventory = provider.and_then(|p| p.inventories.get(class).map(|i| (p, i)));
                inventory.is_some_and(|(p, i)| *amount <= i.max_unit && p.used(class).saturating_add(*amount) <= i.capacity())
            })
        })
    }

    fn admit(&mut self) {
        let amounts: Amounts = self.amounts().into_iter().filter(|(_, resources)| !resources.is_empty()).collect();
        let mappings: BTreeMap<String, Vec<String>> = self
            .picked
            .iter()
            .map(|(suffix, choice)| ((*suffix).to_owned(), choice.keys().map(|uuid| (*uuid).to_owned()).collect()))
            .collect();
        let candidate = Candidate { amounts, mappings };
        let wanted = !candidate.amounts.is_empty() && self.keeps_subtrees(&candidate) && (self.nested || self.is_flat(&candidate));
        if wanted && self.seen.insert(candidate.clone()) {
            self.found.push(candidate);
        }
    }

    /// Of each subtree, one provider is above all others.
    fn keeps_subtrees(&self, candidate: &Candidate) -> bool {
        self.request.same_subtrees.iter().all(|suffixes| {
            let providers: BTreeSet<&String> = suffixes.iter().filter_map(|s| candidate.mappings.get(s)).flatten().collect();
            let paths: Vec<BTreeSet<String>> = providers.iter().map(|uuid| self.forest.ancestors(uuid)).collect();
            providers.iter().any(|top| paths.iter().all(|path| path.contains(*top)))
        })
    }

    fn is_flat(&self, candidate: &Candidate) -> bool {
        let roots: BTreeSet<&str> = candidate.amounts.keys().map(|uuid| self.forest.root(uuid)).collect();
        roots.len() == candidate.amounts.len()
    }
}
