//! Who may do what: rules are data, in the language of oslo.policy, and operators can override each of them.
//!
//! A service has one [`PolicyBook`]: its defaults plus the operator's file. All of it is parsed and cross-checked when it
//! is loaded, so that a wrong rule stops the start with its position and never surprises a request.
//! Three things are stricter than oslo.policy: a rule that cannot be read is an error (there: silently denied), so is a
//! reference to a rule that does not exist, and an attribute the caller does not have never equals a target (there, a
//! caller without a project matches a target whose project is null).
use crate::Error;
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
};

mod explain;
mod file;
mod rule;

pub use explain::Explained;
pub use file::parse_overrides;
pub use rule::Rule;

/// The caller, as rules see it; [`Caller::subject`](crate::Caller::subject) makes one.
#[derive(Clone, Debug, Default)]
pub struct Subject<'a> {
    pub user_id: &'a str,
    pub user_domain_id: Option<&'a str>,
    pub project_id: Option<&'a str>,
    pub project_domain_id: Option<&'a str>,
    pub domain_id: Option<&'a str>,
    /// `Some("all")` for a system-scoped caller.
    pub system_scope: Option<&'a str>,
    /// Names, expanded and in lower case.
    pub roles: &'a [String],
    pub is_admin: bool,
    pub is_admin_project: bool,
    pub service_user_id: Option<&'a str>,
    pub service_project_id: Option<&'a str>,
    pub service_roles: &'a [String],
}

/// What `%(key)s` stands for. An absent key makes its check false; a null is `Some("None")`, booleans are `True` and `False`.
pub type Target<'a> = dyn Fn(&str) -> Option<Cow<'a, str>> + 'a;

/// The target of a request that acts on nothing in particular.
pub fn no_target(_: &str) -> Option<Cow<'static, str>> {
    None
}

/// Reads a target from JSON: a member of that very name first, then the path along the dots.
pub fn json_target<'a>(value: &'a serde_json::Value) -> impl Fn(&str) -> Option<Cow<'a, str>> + 'a {
    use serde_json::Value;
    move |key| {
        let found = value.get(key).or_else(|| key.split('.').try_fold(value, |v, part| v.get(part)))?;
        match found {
            Value::Null => Some(Cow::Borrowed("None")),
            Value::Bool(true) => Some(Cow::Borrowed("True")),
            Value::Bool(false) => Some(Cow::Borrowed("False")),
            Value::Number(n) => Some(Cow::Owned(n.to_string())),
            Value::String(s) => Some(Cow::Borrowed(s)),
            Value::Array(_) | Value::Object(_) => None,
        }
    }
}

/// The rules of one service, by name.
#[derive(Debug, Default)]
pub struct PolicyBook {
    entries: BTreeMap<Cow<'static, str>, Entry>,
    unused: Vec<String>,
}

#[derive(Debug)]
struct Entry {
    text: Cow<'static, str>,
    rule: Rule,
    overridden: bool,
}

impl PolicyBook {
    /// Defaults as `(name, rule)`, replaced and extended by the operator's `overrides` (see [`parse_overrides`]).
    pub fn new(
        defaults: impl IntoIterator<Item = (&'static str, &'static str)>,
        overrides: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        let mut entries: BTreeMap<Cow<'static, str>, Entry> = BTreeMap::new();
        for (name, text) in defaults {
            let entry = Entry { text: Cow::Borrowed(text), rule: parse(name, text)?, overridden: false };
            if let Some(before) = entries.insert(Cow::Borrowed(name), entry)
                && before.text != text
            {
                return Err(Error::RuleTwice { name: name.to_owned() });
            }
        }
        let known: HashSet<Cow<'static, str>> = entries.keys().cloned().collect();
        for (name, text) in overrides {
            let entry = Entry { rule: parse(&name, &text)?, text: Cow::Owned(text), overridden: true };
            entries.insert(Cow::Owned(name), entry);
        }
        let mut book = Self { entries, unused: Vec::new() };
        book.check_references()?;
        let used: HashSet<&str> = book.entries.values().flat_map(|e| e.rule.references()).collect();
        let unused = book.entries.keys().filter(|n| !known.contains(*n) && !used.contains(n.as_ref()));
        book.unused = unused.map(|n| n.to_string()).collect();
        Ok(book)
    }

    /// Does the rule of that name hold? A name without a rule never does.
    pub fn allows(&self, name: &str, subject: &Subject<'_>, target: &Target<'_>) -> bool {
        self.entries.get(name).is_some_and(|e| e.rule.holds(subject, target, &|name| self.rule(name)))
    }
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }
    /// Every rule in order of name: name, text, and whether the operator wrote it.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, bool)> {
        self.entries.iter().map(|(name, e)| (name.as_ref(), e.text.as_ref(), e.overridden))
    }
    /// Overrides that replace no default and that no rule refers to: probably misspelt, worth a warning.
    pub fn unused_overrides(&self) -> &[String] {
        &self.unused
    }

    fn rule(&self, name: &str) -> Option<&Rule> {
        self.entries.get(name).map(|e| &e.rule)
    }

    fn check_references(&self) -> Result<(), Error> {
        let mut done = HashSet::new();
        self.entries.keys().try_for_each(|name| self.walk(name, &mut Vec::new(), &mut done))
    }

    fn walk<'a>(&'a self, name: &'a str, path: &mut Vec<&'a str>, done: &mut HashSet<&'a str>) -> Result<(), Error> {
        if path.contains(&name) {
            path.push(name);
            return Err(Error::RuleCircle { name: name.to_owned(), path: path.join(" -> ") });
        }
        let Some(entry) = self.entries.get(name) else {
            let name_of_user = path.last().copied().unwrap_or_default();
            return Err(Error::RuleMissing { name: name_of_user.to_owned(), missing: name.to_owned() });
        };
        if done.contains(name) {
            return Ok(());
        }
        path.push(name);
        for next in entry.rule.references() {
            self.walk(next, path, done)?;
        }
        path.pop();
        done.insert(name);
        Ok(())
    }
}

fn parse(name: &str, text: &str) -> Result<Rule, Error> {
    Rule::parse(text).map_err(|e| Error::RuleOf { name: name.to_owned(), source: Box::new(e) })
}

/// The roles and all that they imply, directly or not: `(prior, implied)` pairs by name or by id. Circles do no harm.
pub fn expand<R: AsRef<str>, I: AsRef<str>>(roles: &[R], implications: &[(I, I)]) -> Vec<String> {
    let mut all: Vec<String> = Vec::with_capacity(roles.len());
    let add = |all: &mut Vec<String>, role: &str| {
        if !all.iter().any(|r| r == role) {
            all.push(role.to_owned());
        }
    };
    roles.iter().for_each(|r| add(&mut all, r.as_ref()));
    let mut next = 0;
    while next < all.len() {
        let prior = all[next].clone();
        implications.iter().filter(|(p, _)| p.as_ref() == prior).for_each(|(_, implied)| add(&mut all, implied.as_ref()));
        next += 1;
    }
    all
}

#[cfg(test)]
mod tests;
