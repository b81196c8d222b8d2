//! The rule language of mappings, as Keystone has it: what a rule asks of an assertion, and what it then says.
//!
//! ```text
//! rules: [{remote: [{type, any_one_of | not_any_of | blacklist | whitelist, regex}], local: [{user, group, groups, group_ids, projects, domain}]}]
//! ```
//! A rule is read here and checked when it is written, so that a login never meets one that makes no sense. Patterns are those of the
//! `regex` crate: they take linear time, and know no look-around.
use regex::Regex;
use resource::{Error, Map, Result};
use serde_json::Value;

/// Longer patterns and more rules are refused.
const MOST: usize = 1000;
const LONGEST: usize = 1000;

/// One rule.
pub(crate) struct Rule {
    pub(crate) remote: Vec<Requirement>,
    pub(crate) local: Vec<Map>,
}

/// What an assertion must have.
pub(crate) struct Requirement {
    pub(crate) attribute: String,
    pub(crate) test: Test,
}

pub(crate) enum Test {
    /// It is there; its values can be put into what the rule says.
    There,
    AnyOneOf(Values),
    NotAnyOf(Values),
    /// Only the values that are not, or are, among these can be put into it.
    Blacklist(Values),
    Whitelist(Values),
}

pub(crate) enum Values {
    Exact(Vec<String>),
    Regex(Vec<Regex>),
}

impl Values {
    pub(crate) fn have(&self, value: &str) -> bool {
        match self {
            Self::Exact(all) => all.iter().any(|v| v == value),
            Self::Regex(all) => all.iter().any(|r| r.is_match(value)),
        }
    }
}

fn wrong(what: impl Into<String>) -> Error {
    Error::bad_request(what)
}

fn object<'a>(value: &'a Value, what: &str, known: &[&str]) -> Result<&'a Map> {
    let map = value.as_object().ok_or_else(|| wrong(format!("{value} is not of type 'object': {what} of a mapping")))?;
    match map.keys().find(|k| !known.contains(&k.as_str())) {
        Some(key) => Err(wrong(format!("Additional properties are not allowed ('{key}' was unexpected) in {what} of a mapping"))),
        None => Ok(map),
    }
}

fn array<'a>(map: &'a Map, key: &str) -> Result<&'a [Value]> {
    match map.get(key) {
        None => Err(wrong(format!("'{key}' is a required property of a mapping's rule"))),
        Some(Value::Array(list)) if list.len() <= MOST => Ok(list),
        Some(_) => Err(wrong(format!("'{key}' of a mapping's rule is not a list of at most {MOST}"))),
    }
}

fn texts(map: &Map, what: &str, keys: &[&str]) -> Result<()> {
    match keys.iter().find(|k| map.get(**k).is_some_and(|v| !v.is_string())) {
        Some(key) => Err(wrong(format!("'{key}' of {what} in a mapping is not of type 'string'"))),
        None => Ok(()),
    }
}

/// `{"id": ...}` or `{"name": ...}`
fn domain(value: Option<&Value>, what: &str) -> Result<()> {
    let Some(value) = value else { return Ok(()) };
    let domain = object(value, &format!("the domain of {what}"), &["id", "name"])?;
    texts(domain, "a domain", &["id", "name"])?;
    if domain.is_empty() {
        return Err(wrong(format!("The domain of {what} in a mapping needs an 'id' or a 'name'")));
    }
    Ok(())
}

fn local(value: &Value, version: &str) -> Result<Map> {
    let local = object(value, "'local'", &["user", "projects", "group", "groups", "group_ids", "domain"])?;
    texts(local, "'local'", &["groups", "group_ids"])?;
    domain(local.get("domain"), "'local'")?;
    if let Some(user) = local.get("user") {
        let user = object(user, "'user'", &["id", "name", "email", "domain", "type"])?;
        texts(user, "'user'", &["id", "name", "email"])?;
        domain(user.get("domain"), "'user'")?;
        if user.get("type").is_some_and(|t| t != "ephemeral" && t != "local") {
            return Err(wrong("'type' of 'user' in a mapping is not one of ['ephemeral', 'local']"));
        }
    }
    if let Some(group) = local.get("group") {
        let group = object(group, "'group'", &["id", "name", "domain"])?;
        texts(group, "'group'", &["id", "name"])?;
        domain(group.get("domain"), "'group'")?;
        let by_id = group.contains_key("id") && group.len() == 1;
        let by_name = group.contains_key("name") && group.contains_key("domain") && group.len() == 2;
        if !by_id && !by_name {
            return Err(wrong("'group' in a mapping needs an 'id', or a 'name' and a 'domain'"));
        }
    }
    if local.contains_key("projects") {
        let known: &[&str] = if version == "1.0" { &["name", "roles"] } else { &["name", "roles", "domain"] };
        for project in array(local, "projects")? {
            let project = object(project, "'projects'", known)?;
            texts(project, "'projects'", &["name"])?;
            domain(project.get("domain"), "'projects'")?;
            if !project.contains_key("name") {
                return Err(wrong("'name' is a required property of 'projects' in a mapping"));
            }
            for role in array(project, "roles")? {
                let role = object(role, "'roles'", &["name"])?;
                if !role.get("name").is_some_and(Value::is_string) {
                    return Err(wrong("'name' is a required property of 'roles' in a mapping"));
                }
            }
        }
    }
    Ok(local.clone())
}

fn values(list: &Value, regex: bool) -> Result<Values> {
    let list = list.as_array().filter(|l| l.len() <= MOST).ok_or_else(|| wrong("The values of a requirement are not a list"))?;
    let text = |v: &Value| match v {
        Value::String(s) if s.len() <= LONGEST => Ok(s.clone()),
        Value::Number(n) => Ok(n.to_string()),
        Value::Bool(b) => Ok(if *b { "1" } else { "0" }.to_owned()),
        _ => Err(wrong(format!("A value of a requirement is not a string of at most {LONGEST} characters"))),
    };
    let all = list.iter().map(text).collect::<Result<Vec<_>>>()?;
    if !regex {
        return Ok(Values::Exact(all));
    }
    let compiled = all.iter().map(|pattern| {
        let bad = |_| wrong(format!("'{pattern}' is not a pattern of regular expressions that can be used here"));
        regex::RegexBuilder::new(pattern).size_limit(1 << 20).build().map_err(bad)
    });
    Ok(Values::Regex(compiled.collect::<Result<_>>()?))
}

fn requirement(value: &Value) -> Result<Requirement> {
    let tests = ["any_one_of", "not_any_of", "blacklist", "whitelist"];
    let map = object(value, "'remote'", &["type", "regex", tests[0], tests[1], tests[2], tests[3]])?;
    let attribute = map.get("type").and_then(Value::as_str).ok_or_else(|| wrong("'type' is a required property of 'remote'"))?;
    let regex = match map.get("regex") {
        None => false,
        Some(Value::Bool(regex)) => *regex,
        Some(_) => return Err(wrong("'regex' of 'remote' is not of type 'boolean'")),
    };
    let asked: Vec<&str> = tests.into_iter().filter(|t| map.contains_key(*t)).collect();
    let test = match asked[..] {
        [] if map.len() == 1 => Test::There,
        [name] => {
            let values = values(&map[name], regex)?;
            match name {
                "any_one_of" => Test::AnyOneOf(values),
                "not_any_of" => Test::NotAnyOf(values),
                "blacklist" => Test::Blacklist(values),
                _ => Test::Whitelist(values),
            }
        }
        _ => return Err(wrong(format!("{value} of 'remote' is not valid: it has one of {}", tests.join(", ")))),
    };
    Ok(Requirement { attribute: attribute.to_owned(), test })
}

/// Reads rules; fails with 400.
pub(crate) fn read(rules: &Value, version: &str) -> Result<Vec<Rule>> {
    let all = rules.as_array().filter(|r| !r.is_empty() && r.len() <= MOST);
    let all = all.ok_or_else(|| wrong(format!("'rules' of a mapping is not a list of 1 to {MOST} rules")))?;
    let one = |rule: &Value| {
        let rule = object(rule, "a rule", &["local", "remote"])?;
        let remote = array(rule, "remote")?;
        if remote.is_empty() {
            return Err(wrong("'remote' of a mapping's rule is too short"));
        }
        Ok(Rule {
            remote: remote.iter().map(requirement).collect::<Result<_>>()?,
            local: array(rule, "local")?.iter().map(|l| local(l, version)).collect::<Result<_>>()?,
        })
    };
    all.iter().map(one).collect()
}

/// Fails with 400 unless these are rules.
pub(crate) fn check(rules: &Value, version: &str) -> Result<()> {
    read(rules, version).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn one(local: Value, remote: Value) -> Value {
        json!([{"local": [local], "remote": [remote]}])
    }

    #[test]
    fn rules_are_read() {
        let name = json!({"type": "UserName"});
        for local in [
            json!({}),
            json!({"user": {"name": "{0}", "type": "local", "domain": {"id": "d"}}}),
            json!({"group": {"id": "g"}}),
            json!({"group": {"name": "g", "domain": {"name": "d"}}}),
            json!({"groups": "{0}", "domain": {"name": "d"}}),
            json!({"projects": [{"name": "p", "roles": [{"name": "member"}]}]}),
        ] {
            assert!(check(&one(local.clone(), name.clone()), "1.0").is_ok(), "{local}");
        }
        let with_domain = one(json!({"projects": [{"name": "p", "roles": [], "domain": {"id": "d"}}]}), name);
        assert!(check(&with_domain, "1.0").is_err() && check(&with_domain, "2.0").is_ok());
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        let name = json!({"type": "UserName"});
        for rules in [
            json!([]),
            json!({}),
            json!([{"local": []}]),
            json!([{"local": [], "remote": []}]),
            json!([{"local": [], "remote": [name], "more": 1}]),
            one(json!({"user": "x"}), name.clone()),
            one(json!({"user": {"nick": "x"}}), name.clone()),
            one(json!({"user": {"type": "ghost"}}), name.clone()),
            one(json!({"group": {"name": "x"}}), name.clone()),
            one(json!({"group": {"id": "x", "name": "y"}}), name.clone()),
            one(json!({"groups": ["x"]}), name.clone()),
            one(json!({"projects": [{"name": "p"}]}), name.clone()),
            one(json!({"domain": {}}), name),
            one(json!({}), json!({"any_one_of": ["x"]})),
            one(json!({}), json!({"type": "a", "regex": true})),
            one(json!({}), json!({"type": "a", "any_one_of": ["x"], "whitelist": ["y"]})),
            one(json!({}), json!({"type": "a", "any_one_of": "x"})),
            one(json!({}), json!({"type": "a", "any_one_of": ["("], "regex": true})),
            one(json!({}), json!({"type": "a", "any_one_of": ["(?=x)"], "regex": true})),
        ] {
            assert!(check(&rules, "2.0").is_err(), "{rules}");
        }
    }
}
