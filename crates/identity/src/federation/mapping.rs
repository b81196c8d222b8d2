//! From an assertion to what it means here, by a mapping's rules. Pure.
//!
//! Where Keystone carries lists as texts of Python and reads them again, lists here stay lists: a value that only looks like a list of
//! groups is one name of a group, whoever chose it.
use super::rules::{Requirement, Rule, Test};
use resource::Map;
use serde_json::Value;
use std::collections::HashMap;

/// What a provider says of somebody: attributes and their values.
pub(crate) type Assertion = HashMap<String, Vec<String>>;

/// A domain as a rule names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DomainKey {
    Id(String),
    Name(String),
}

/// A group by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupName {
    pub(crate) name: String,
    pub(crate) domain: DomainKey,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProjectRoles {
    pub(crate) name: String,
    pub(crate) domain: Option<DomainKey>,
    pub(crate) roles: Vec<String>,
}

/// What the rules say together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mapped {
    pub(crate) id: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) email: Option<String>,
    pub(crate) domain: Option<DomainKey>,
    /// A user of ours, not one that is made for the assertion.
    pub(crate) local: bool,
    pub(crate) group_ids: Vec<String>,
    pub(crate) groups: Vec<GroupName>,
    pub(crate) projects: Vec<ProjectRoles>,
}

/// Why nobody comes of it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unmapped {
    #[error("no rule of the mapping applies")]
    NoRule,
    #[error("a rule says '{0}', which is not among the values that it asks for")]
    NoSuchValue(String),
    #[error("a rule gives groups by name without a domain")]
    NoDomain,
    #[error("a value that begins with JSON: names no group and domain")]
    NotAGroup,
}

/// The values that a rule may put into what it says; `None` when the assertion is not as the rule asks.
fn fulfilled(remote: &[Requirement], assertion: &Assertion) -> Option<Vec<Vec<String>>> {
    let mut direct = Vec::new();
    for requirement in remote {
        let values = assertion.get(&requirement.attribute).filter(|v| !v.is_empty())?;
        let keep = |keep: &dyn Fn(&String) -> bool| values.iter().filter(|v| keep(v)).cloned().collect::<Vec<_>>();
        match &requirement.test {
            Test::There => direct.push(values.clone()),
            Test::AnyOneOf(wanted) => values.iter().any(|v| wanted.have(v)).then_some(())?,
            Test::NotAnyOf(unwanted) => (!values.iter().any(|v| unwanted.have(v))).then_some(())?,
            Test::Blacklist(unwanted) => direct.push(keep(&|v| !unwanted.have(v))),
            Test::Whitelist(wanted) => direct.push(keep(&|v| wanted.have(v))),
        }
    }
    Some(direct)
}

/// A text with `{0}` and its like filled in. A text that is nothing but one of them becomes all of its values.
fn fill(template: &str, direct: &[Vec<String>]) -> Result<Value, Unmapped> {
    let missing = || Unmapped::NoSuchValue(template.to_owned());
    let value = |name: &str, next: &mut usize| -> Result<&Vec<String>, Unmapped> {
        let at = if name.is_empty() {
            *next += 1;
            *next - 1
        } else {
            name.parse::<usize>().map_err(|_| missing())?
        };
        direct.get(at).ok_or_else(missing)
    };
    let mut next = 0;
    if let Some(name) = template.strip_prefix('{').and_then(|t| t.strip_suffix('}'))
        && !name.contains(['{', '}'])
    {
        let values = value(name, &mut next)?;
        return Ok(if values.len() == 1 { values[0].clone().into() } else { values.clone().into() });
    }
    let (mut out, mut rest) = (String::new(), template);
    while let Some(at) = rest.find(['{', '}']) {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        if let Some(tail) = after.strip_prefix("{{").or_else(|| after.strip_prefix("}}")) {
            out.push_str(&after[..1]);
            rest = tail;
            continue;
        }
        let (name, tail) = after.strip_prefix('{').and_then(|a| a.split_once('}')).ok_or_else(missing)?;
        out.push_str(&value(name, &mut next)?.join(";"));
        rest = tail;
    }
    out.push_str(rest);
    Ok(out.into())
}

fn fill_all(value: &Value, direct: &[Vec<String>]) -> Result<Value, Unmapped> {
    Ok(match value {
        Value::String(text) => fill(text, direct)?,
        Value::Array(list) => list.iter().map(|v| fill_all(v, direct)).collect::<Result<Vec<_>, _>>()?.into(),
        Value::Object(map) => fill_map(map, direct)?.into(),
        other => other.clone(),
    })
}

fn fill_map(map: &Map, direct: &[Vec<String>]) -> Result<Map, Unmapped> {
    map.iter().map(|(k, v)| Ok((k.clone(), fill_all(v, direct)?))).collect()
}

/// One text, also of several values.
fn text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(s) => Some(s.clone()),
        Value::Array(list) => Some(list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(";")),
        _ => None,
    }
    .filter(|s| !s.is_empty())
}

/// Several texts: values, or what a rule itself wrote as a list of Python's or JSON's.
fn several(filled: &Value, template: &str) -> Vec<String> {
    match filled {
        Value::Array(list) => list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect(),
        Value::String(s) if template.starts_with('[') => {
            let inner = s.trim().trim_start_matches('[').trim_end_matches(']');
            inner.split(',').map(|p| p.trim().trim_matches(['\'', '"']).to_owned()).filter(|p| !p.is_empty()).collect()
        }
        Value::String(s) if !s.is_empty() => vec![s.clone()],
        _ => Vec::new(),
    }
}

fn domain(value: Option<&Value>) -> Option<DomainKey> {
    let domain = value?;
    text(domain.get("id")).map(DomainKey::Id).or_else(|| text(domain.get("name")).map(DomainKey::Name))
}

/// Groups by name: with the rule's domain, or as JSON objects that name one, which a rule without a domain accepts.
fn groups(names: Vec<String>, of: Option<DomainKey>) -> Result<Vec<GroupName>, Unmapped> {
    let one = |name: String| match (&of, name.strip_prefix("JSON:")) {
        (Some(domain), _) => Ok(GroupName { name, domain: domain.clone() }),
        (None, None) => Err(Unmapped::NoDomain),
        (None, Some(json)) => {
            let group: Value = serde_json::from_str(json).map_err(|_| Unmapped::NotAGroup)?;
            let named = text(group.get("name")).zip(domain(group.get("domain")));
            named.map(|(name, domain)| GroupName { name, domain }).ok_or(Unmapped::NotAGroup)
        }
    };
    names.into_iter().map(one).collect()
}

fn add<T: PartialEq>(all: &mut Vec<T>, more: impl IntoIterator<Item = T>) {
    for one in more {
        if !all.contains(&one) {
            all.push(one);
        }
    }
}

/// What the rules say of an assertion. `honours_domain`: version 2.0, where a rule's domain is that of its user and projects, too.
pub(crate) fn evaluate(rules: &[Rule], honours_domain: bool, assertion: &Assertion) -> Result<Mapped, Unmapped> {
    let mut out = Mapped::default();
    let (mut any, mut has_user) = (false, false);
    for rule in rules {
        let Some(direct) = fulfilled(&rule.remote, assertion) else { continue };
        for template in &rule.local {
            any = true;
            let local = fill_map(template, &direct)?;
            let of_rule = domain(local.get("domain"));
            let written = |key: &str| template.get(key).and_then(Value::as_str).unwrap_or_default();
            // The first user counts.
            if let Some(user) = local.get("user").filter(|_| !has_user) {
                has_user = true;
                (out.id, out.name, out.email) = (text(user.get("id")), text(user.get("name")), text(user.get("email")));
                out.domain = domain(user.get("domain")).or(of_rule.clone().filter(|_| honours_domain));
                out.local = user.get("type").is_some_and(|t| t == "local");
            }
            if let Some(group) = local.get("group") {
                match (text(group.get("id")), text(group.get("name")), domain(group.get("domain"))) {
                    (Some(id), _, _) => add(&mut out.group_ids, [id]),
                    (None, Some(name), Some(domain)) => add(&mut out.groups, [GroupName { name, domain }]),
                    _ => {}
                }
            }
            if let Some(names) = local.get("groups") {
                add(&mut out.groups, groups(several(names, written("groups")), of_rule.clone())?);
            }
            if let Some(ids) = local.get("group_ids") {
                add(&mut out.group_ids, several(ids, written("group_ids")));
            }
            if let Some(Value::Array(projects)) = local.get("projects") {
                let one = |p: &Value| {
                    let roles = p.get("roles").and_then(Value::as_array).into_iter().flatten();
                    let domain = domain(p.get("domain")).or(of_rule.clone().filter(|_| honours_domain));
                    Some(ProjectRoles {
                        name: text(p.get("name"))?,
                        domain,
                        roles: roles.filter_map(|r| text(r.get("name"))).collect(),
                    })
                };
                add(&mut out.projects, projects.iter().filter_map(one));
            }
        }
    }
    if any { Ok(out) } else { Err(Unmapped::NoRule) }
}

#[cfg(test)]
mod tests;
