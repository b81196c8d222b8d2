//! What is asked for: groups of resources, traits and aggregates, and what holds for the request as a whole.
use crate::{
    query::{self, Aggregates, Traits},
    rest, schema,
};
use api::{Cx, Error, Result};
use resource::Reader;
use std::collections::BTreeSet;

/// One group. Its suffix is empty for the group that may be spread over a tree.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Group {
    pub(crate) suffix: String,
    pub(crate) resources: Vec<(String, i64)>,
    pub(crate) traits: Traits,
    pub(crate) aggregates: Aggregates,
    pub(crate) in_tree: Option<String>,
}

impl Group {
    /// Must one provider give all of it?
    pub(crate) fn is_granular(&self) -> bool {
        !self.suffix.is_empty()
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Request {
    pub(crate) groups: Vec<Group>,
    /// Each granular group from a provider of its own.
    pub(crate) isolate: bool,
    pub(crate) limit: Option<usize>,
    /// What the root of the tree must be like.
    pub(crate) root: Traits,
    /// Sets of suffixes whose providers must be below one of them.
    pub(crate) subtrees: Vec<BTreeSet<String>>,
}

const NUMBERED: &str = "^(resources|required|member_of|in_tree)([1-9][0-9]*)?$";
const NAMED: &str = "^(resources|required|member_of|in_tree)([a-zA-Z0-9_-]{1,64})?$";
const KINDS: [&str; 4] = ["resources", "required", "member_of", "in_tree"];

/// A parameter of a group: its kind and suffix.
fn of_group<'k>(cx: &Cx, key: &'k str) -> Option<(&'static str, &'k str)> {
    let (kind, suffix) = KINDS.iter().find_map(|kind| Some((*kind, key.strip_prefix(kind)?)))?;
    let numbered = || suffix.bytes().all(|b| b.is_ascii_digit()) && !suffix.starts_with('0');
    let named = || suffix.len() <= 64 && suffix.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let since = match kind {
        "resources" => 10,
        "required" => 17,
        "member_of" => 21,
        _ => 31,
    };
    let fits = match suffix {
        "" => rest::at(cx, since),
        _ if rest::at(cx, 33) => named(),
        _ => rest::at(cx, since.max(25)) && numbered(),
    };
    fits.then_some((kind, suffix))
}

fn bad_value(message: String) -> Error {
    Error::bad_request(message).code("placement.query.bad_value")
}

impl Request {
    pub(crate) fn read(cx: &Cx, reader: &Reader<'_>) -> Result<Self> {
        let pattern = rest::at(cx, 25).then_some(if rest::at(cx, 33) { NAMED } else { NUMBERED });
        query::check_keys(cx, pattern, |key| {
            let since = match key {
                "limit" => 16,
                "group_policy" => 25,
                "root_required" => 35,
                "same_subtree" => 36,
                _ => return of_group(cx, key).is_some(),
            };
            rest::at(cx, since)
        })?;
        if !rest::at(cx, 25) && cx.query.get("resources").is_none() {
            return Err(query::bad("'resources' is a required property"));
        }
        let limit = limit(cx)?;
        let policy = policy(cx)?;
        let root = root(cx)?;
        let subtrees = subtrees(cx)?;
        let groups = groups(cx)?;
        let request = Self { groups, isolate: policy == Some(true), limit, root, subtrees };
        request.check(cx)?;
        if policy.is_none() && request.groups.iter().filter(|g| g.is_granular()).count() > 1 {
            return Err(Error::bad_request(
                "The \"group_policy\" parameter is required when specifying more than one \"resources{N}\" parameter.",
            ));
        }
        for group in &request.groups {
            query::known_classes(reader, group.resources.iter().map(|(class, _)| class.as_str()))?;
        }
        for group in &request.groups {
            group.traits.known(reader)?;
        }
        request.root.known(reader)?;
        Ok(request)
    }

    fn check(&self, cx: &Cx) -> Result<()> {
        let hollow = || self.groups.iter().filter(|g| g.resources.is_empty());
        if rest::at(cx, 36) {
            self.check_subtrees()?;
        } else {
            let orphans = |named: fn(&Group) -> bool, kind: &str| -> Vec<String> {
                hollow().filter(|g| named(g)).map(|g| format!("{kind}{}", g.suffix)).collect()
            };
            let traits = orphans(|g| !g.traits.required.is_empty(), "required");
            if !traits.is_empty() {
                return Err(Error::bad_request(format!(
                    "All traits parameters must be associated with resources.  Found the following orphaned traits keys: {}",
                    traits.join(", ")
                )));
            }
            let aggregates = orphans(|g| g.aggregates != Aggregates::default(), "member_of");
            if !aggregates.is_empty() {
                return Err(Error::bad_request(format!(
                    "All member_of parameters must be associated with resources. Found the following orphaned member_of keys: {}",
                    aggregates.join(", ")
                )));
            }
            if hollow().next().is_some() {
                return Err(Error::bad_request("All request groups must specify resources."));
            }
            if self.groups.is_empty() {
                return Err(Error::bad_request("At least one request group (`resources` or `resources{$S}`) is required."));
            }
        }
        let forbidden = |g: &&Group| g.traits.required.iter().any(|any| any.is_subset(&g.traits.forbidden));
        let conflicts: Vec<String> = self
            .groups
            .iter()
            .filter(forbidden)
            .map(|g| {
                let both = g.traits.required.iter().filter(|any| any.is_subset(&g.traits.forbidden)).flatten();
                format!("required{}: ({})", g.suffix, both.map(String::as_str).collect::<Vec<_>>().join(", "))
            })
            .collect();
        if conflicts.is_empty() {
            return Ok(());
        }
        Err(Error::bad_request(format!(
            "Conflicting required and forbidden traits found in the following traits keys: {}",
            conflicts.join(", ")
        )))
    }

    fn check_subtrees(&self) -> Result<()> {
        if self.groups.iter().all(|g| g.resources.is_empty()) {
            return Err(Error::bad_request("There must be at least one resources or resources[$S] parameter.")
                .code("placement.query.missing_value"));
        }
        let named: BTreeSet<&String> = self.subtrees.iter().flatten().collect();
        let alone: Vec<&str> = self
            .groups
            .iter()
            .filter(|g| g.resources.is_empty() && !named.contains(&g.suffix))
            .map(|g| g.suffix.as_str())
            .collect();
        if !alone.is_empty() {
            return Err(bad_value(format!(
                "Resourceless suffixed group request should be specified in `same_subtree` query param: bad group(s) - {alone:?}."
            )));
        }
        let unknown: Vec<&str> =
            named.into_iter().filter(|s| !self.groups.iter().any(|g| g.suffix == **s)).map(String::as_str).collect();
        if !unknown.is_empty() {
            let known: Vec<&str> = self.groups.iter().map(|g| g.suffix.as_str()).collect();
            return Err(bad_value(format!(
                "Real suffixes should be specified in `same_subtree`: {unknown:?} not found in {known:?}."
            )));
        }
        Ok(())
    }
}

fn limit(cx: &Cx) -> Result<Option<usize>> {
    // Of several, upstream takes the first.
    let Some(text) = cx.query.get("limit") else { return Ok(None) };
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    if !plain {
        return Err(query::bad(schema::failed("pattern", format!("'{text}' does not match '^[1-9][0-9]*$'"))));
    }
    Ok(Some(text.parse().unwrap_or(usize::MAX)))
}

/// Some(true) is "isolate".
fn policy(cx: &Cx) -> Result<Option<bool>> {
    match cx.query.get("group_policy") {
        None => Ok(None),
        Some("none") => Ok(Some(false)),
        Some("isolate") => Ok(Some(true)),
        Some(other) => Err(query::bad(schema::failed("enum", format!("'{other}' is not one of ['none', 'isolate']")))),
    }
}

fn root(cx: &Cx) -> Result<Traits> {
    let mut traits = Traits::default();
    let mut given = cx.query.all("root_required");
    let Some(text) = given.next() else { return Ok(traits) };
    if given.next().is_some() {
        return Err(Error::bad_request("Query parameter 'root_required' may be specified only once.")
            .code("placement.query.duplicate_key"));
    }
    traits.add(text, true, false)?;
    let both: Vec<&str> =
        traits.required.iter().flatten().filter(|t| traits.forbidden.contains(*t)).map(String::as_str).collect();
    if !both.is_empty() {
        return Err(bad_value(format!("Conflicting required and forbidden traits found in root_required: {}", both.join(", "))));
    }
    Ok(traits)
}

fn subtrees(cx: &Cx) -> Result<Vec<BTreeSet<String>>> {
    let read = |text: &str| {
        let suffixes: BTreeSet<String> = text.split(',').map(|s| s.trim().to_owned()).collect();
        match suffixes.contains("") {
            true => Err(bad_value("Empty string (unsuffixed group) can not be specified in `same_subtree`".to_owned())),
            false => Ok(suffixes),
        }
    };
    cx.query.all("same_subtree").map(read).collect()
}

fn groups(cx: &Cx) -> Result<Vec<Group>> {
    let mut out: Vec<Group> = Vec::new();
    for (key, value) in &cx.query.0 {
        let Some((kind, suffix)) = of_group(cx, key) else { continue };
        let at = out.iter().position(|g| g.suffix == suffix).unwrap_or_else(|| {
            out.push(Group { suffix: suffix.to_owned(), ..Group::default() });
            out.len() - 1
        });
        match kind {
            "resources" => out[at].resources = query::resources(value)?,
            "required" => out[at].traits = Traits::read(cx, key)?,
            "member_of" => out[at].aggregates = Aggregates::read(cx, key)?,
            _ => {
                let uuid = value.trim();
                if !base::id::is_uuid(uuid) {
                    return Err(Error::bad_request(format!(
                        "Invalid query string parameters: Expected 'in_tree' parameter to be a format of uuid. Got: {value}"
                    )));
                }
                out[at].in_tree = Some(uuid.to_owned());
            }
        }
    }
    Ok(out)
}
