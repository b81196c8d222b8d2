//! The query of allocation candidates: groups of resources, and what holds for all of them.
use crate::{
    answer::{BAD_VALUE, DUPLICATE_KEY, MISSING_VALUE, since},
    body::clip_text,
    query::{self, Aggregates, Traits},
};
use api::Call;
use resource::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Resources that go together. The group without a suffix may be spread over a tree; each other one is on one provider.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Group {
    pub(super) resources: BTreeMap<String, i64>,
    pub(super) traits: Traits,
    pub(super) aggregates: Aggregates,
    pub(super) in_tree: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Request {
    /// By suffix; "" has none.
    pub(super) groups: BTreeMap<String, Group>,
    /// Must all suffixed groups be on different providers?
    pub(super) isolate: bool,
    pub(super) limit: Option<usize>,
    pub(super) root_traits: Traits,
    pub(super) same_subtrees: Vec<BTreeSet<String>>,
}

const PREFIXES: [&str; 4] = ["resources", "required", "member_of", "in_tree"];

/// `resources1` is `resources` and `1`. Which suffixes there are depends on the microversion.
fn split<'a>(call: &Call, key: &'a str) -> Option<(&'static str, &'a str)> {
    let prefix = PREFIXES.into_iter().find(|p| key.starts_with(p))?;
    let suffix = &key[prefix.len()..];
    let known = match prefix {
        "required" => since(call, "1.17"),
        "member_of" => since(call, "1.21"),
        "in_tree" => since(call, "1.31"),
        _ => true,
    };
    let number = || !suffix.starts_with('0') && suffix.bytes().all(|b| b.is_ascii_digit());
    let word = || suffix.len() <= 64 && suffix.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    let fits = suffix.is_empty() || (since(call, "1.33") && word()) || (since(call, "1.25") && number());
    (known && fits).then_some((prefix, suffix))
}

impl Request {
    pub(super) fn parse(call: &Call) -> Result<Self> {
        let wide = |key: &str| match key {
            "limit" => since(call, "1.16"),
            "group_policy" => since(call, "1.25"),
            "root_required" => since(call, "1.35"),
            "same_subtree" => since(call, "1.36"),
            _ => false,
        };
        query::only(call, &|key| wide(key) || split(call, key).is_some())?;
        let mut request = Self { groups: groups(call)?, ..Self::default() };
        request.isolate = match query::last(call, "group_policy") {
            None | Some("none") => false,
            Some("isolate") => true,
            Some(other) => return Err(bad(&format!("'{}' is not one of ['none', 'isolate']", clip_text(other)))),
        };
        request.limit = match query::last(call, "limit") {
            None => None,
            Some(text) => match text.parse::<usize>() {
                Ok(n) if n > 0 && !text.starts_with(['0', '+']) => Some(n),
                _ => return Err(bad(&format!("'{}' does not match '^[1-9][0-9]*$'", clip_text(text)))),
            },
        };
        request.root_traits = root_traits(call)?;
        request.same_subtrees = same_subtrees(call)?;
        request.check(call)?;
        Ok(request)
    }

    pub(super) fn classes(&self) -> impl Iterator<Item = &str> {
        self.groups.values().flat_map(|g| g.resources.keys()).map(String::as_str)
    }

    pub(super) fn traits(&self) -> BTreeSet<&str> {
        self.groups.values().flat_map(|g| g.traits.names()).chain(self.root_traits.names()).collect()
    }

    fn check(&self, call: &Call) -> Result<()> {
        if since(call, "1.36") {
            self.check_subtrees()?;
        } else {
            self.check_orphans(call)?;
        }
        for (suffix, group) in &self.groups {
            if let Some(set) = group.traits.any_of.iter().find(|set| set.iter().all(|t| group.traits.none_of.contains(t))) {
                let names: Vec<&str> = set.iter().map(String::as_str).collect();
                return Err(Error::bad_request(format!(
                    "Conflicting required and forbidden traits found in the following traits keys: required{suffix}: ({})",
                    names.join(", ")
                )));
            }
        }
        let suffixed = self.groups.keys().filter(|s| !s.is_empty()).count();
        if suffixed > 1 && query::last(call, "group_policy").is_none() {
            return Err(Error::bad_request(
                "The \"group_policy\" parameter is required when specifying more than one \"resources{N}\" parameter.",
            ));
        }
        Ok(())
    }

    /// From 1.36 a group may have no resources, if it is part of a subtree.
    fn check_subtrees(&self) -> Result<()> {
        let empty: Vec<&str> = self.groups.iter().filter(|(_, g)| g.resources.is_empty()).map(|(s, _)| s.as_str()).collect();
        if empty.len() == self.groups.len() {
            return Err(Error::bad_request("There must be at least one resources or resources[$S] parameter.").code(MISSING_VALUE));
        }
        let named: BTreeSet<&str> = self.same_subtrees.iter().flatten().map(String::as_str).collect();
        let stray: Vec<&str> = empty.into_iter().filter(|s| !named.contains(s)).collect();
        if !stray.is_empty() {
            return Err(Error::bad_request(format!(
                "Resourceless suffixed group request should be specified in `same_subtree` query param: bad group(s) - {stray:?}."
            ))
            .code(BAD_VALUE));
        }
        let unknown: Vec<&str> = named.into_iter().filter(|s| !self.groups.contains_key(*s)).collect();
        if !unknown.is_empty() {
            let real: Vec<&String> = self.groups.keys().collect();
            return Err(Error::bad_request(format!("Real suffixes should be specified in `same_subtree`: {unknown:?} not found in {real:?}."))
                .code(BAD_VALUE));
        }
        Ok(())
    }

    fn check_orphans(&self, call: &Call) -> Result<()> {
        if self.groups.is_empty() {
            let text = "At least one request group (`resources` or `resources{$S}`) is required.";
            let old = "Invalid query string parameters: 'resources' is a required property";
            return Err(Error::bad_request(if since(call, "1.25") { text } else { old }));
        }
        let empty = || self.groups.iter().filter(|(_, g)| g.resources.is_empty());
        if let Some((s, _)) = empty().find(|(_, g)| !g.traits.any_of.is_empty()) {
            return Err(Error::bad_request(format!(
                "All traits parameters must be associated with resources.  Found the following orphaned traits keys: required{s}"
            )));
        }
        if let Some((s, _)) = empty().find(|(_, g)| !g.aggregates.is_empty()) {
            return Err(Error::bad_request(format!(
                "All member_of parameters must be associated with resources. Found the following orphaned member_of keys: member_of{s}"
            )));
        }
        if empty().next().is_some() {
            return Err(Error::bad_request("All request groups must specify resources."));
        }
        Ok(())
    }
}

fn bad(text: &str) -> Error {
    Error::bad_request(format!("Invalid query string parameters: {text}"))
}

fn groups(call: &Call) -> Result<BTreeMap<String, Group>> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for key in call.cx.query.keys() {
        let Some((prefix, suffix)) = split(call, key) else { continue };
        let group = groups.entry(suffix.to_owned()).or_default();
        match prefix {
            "resources" => group.resources = query::resources(query::last(call, key).unwrap_or_default())?,
            "required" => group.traits = query::traits(call, key)?,
            "member_of" => group.aggregates = query::member_of(call, key)?,
            _ => {
                let value = query::last(call, key).unwrap_or_default();
                let uuid = crate::body::dashed(value);
                group.in_tree = Some(uuid.ok_or_else(|| {
                    bad(&format!("Expected 'in_tree' parameter to be a format of uuid. Got: {}", clip_text(value)))
                })?);
            }
        }
    }
    Ok(groups)
}

fn root_traits(call: &Call) -> Result<Traits> {
    let mut values = call.cx.query.all("root_required");
    let Some(value) = values.next() else { return Ok(Traits::default()) };
    if values.next().is_some() {
        let text = "Query parameter \"root_required\" may be specified at most once.";
        return Err(Error::bad_request(text).code(DUPLICATE_KEY));
    }
    if value.starts_with("in:") {
        return Err(bad(&format!("The format 'in:HW_CPU_X86_VMX,CUSTOM_MAGIC' is not supported by 'root_required'. Got: {}", clip_text(value))));
    }
    let traits = query::traits(call, "root_required")?;
    if let Some(set) = traits.any_of.iter().find(|set| set.iter().all(|t| traits.none_of.contains(t))) {
        let names: Vec<&str> = set.iter().map(String::as_str).collect();
        let text = format!("Conflicting required and forbidden traits found in root_required: {}", names.join(", "));
        return Err(Error::bad_request(text).code(BAD_VALUE));
    }
    Ok(traits)
}

fn same_subtrees(call: &Call) -> Result<Vec<BTreeSet<String>>> {
    let mut out = Vec::new();
    for value in call.cx.query.all("same_subtree") {
        let set: BTreeSet<String> = value.split(',').map(|s| s.trim().to_owned()).collect();
        if set.contains("") {
            let text = format!("Empty string (unsuffixed group) can not be specified in `same_subtree`. Got: {}", clip_text(value));
            return Err(Error::bad_request(text).code(BAD_VALUE));
        }
        out.push(set);
    }
    Ok(out)
}
