//! What is known about a request, for rules, actions and views.
use auth::Caller;
use base::Version;
use std::{
    any::{Any, TypeId},
    collections::HashMap,
    sync::Arc,
};

/// Query parameters in order, repeated ones kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(pub Vec<(String, String)>);
impl Query {
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }
    /// `?x`, `?x=1`, `?x=true` are true.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|v| matches!(v.to_ascii_lowercase().as_str(), "" | "1" | "true" | "yes" | "on" | "t"))
    }
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(k, _)| k.as_str())
    }
}

/// What the operator configured that rules need.
#[derive(Clone, Debug)]
pub struct Settings {
    pub region: String,
    /// Default limit of each quota, by `service:name`; -1 is unlimited.
    pub quotas: HashMap<String, i64>,
    /// `http://host:port` that clients use; request headers of a trusted front door may override it.
    pub public_endpoint: String,
}

/// Rules that tables name in short (`create = "member"`). Roles imply the ones below: admin, manager, member, reader.
pub const BASE_RULES: [(&str, &str); 9] = [
    ("admin", "role:admin"),
    ("manager", "role:manager"),
    ("member", "role:member"),
    ("reader", "role:reader"),
    ("service", "role:service or role:admin"),
    ("any", "@"),
    ("nobody", "!"),
    ("self", "user_id:%(user_id)s"),
    ("admin_or_self", "role:admin or user_id:%(user_id)s"),
];

/// The policy book of all services: base rules, what tables and routes name, and the operator's overrides.
pub fn policy_book(
    rules: Vec<(&'static str, &'static str)>,
    overrides: Vec<(String, String)>,
) -> Result<auth::PolicyBook, auth::Error> {
    let full = |(name, text): (&'static str, &'static str)| match BASE_RULES.iter().find(|(base, _)| *base == text) {
        // A table's `reader` means the base rule, so that an override of it reaches every action.
        Some((base, _)) if *base != name => (name, reference(base)),
        _ => (name, text),
    };
    let mut all: Vec<(&'static str, &'static str)> = BASE_RULES.to_vec();
    for rule in rules.into_iter().map(full) {
        if !all.iter().any(|(n, _)| *n == rule.0) {
            all.push(rule);
        }
    }
    auth::PolicyBook::new(all, overrides)
}

fn reference(base: &str) -> &'static str {
    match base {
        "admin" => "rule:admin",
        "manager" => "rule:manager",
        "member" => "rule:member",
        "reader" => "rule:reader",
        "service" => "rule:service",
        "any" => "rule:any",
        "self" => "rule:self",
        "admin_or_self" => "rule:admin_or_self",
        _ => "!",
    }
}

impl Settings {
    pub fn quota(&self, service: &str, name: &str) -> i64 {
        self.quotas.get(&format!("{service}:{name}")).copied().unwrap_or(-1)
    }
}

/// Things that services share with their handlers: one value of each type.
#[derive(Default)]
pub struct StateMap(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);
impl StateMap {
    pub fn insert<T: Any + Send + Sync>(&mut self, value: Arc<T>) {
        self.0.insert(TypeId::of::<T>(), value);
    }
    pub fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.0.get(&TypeId::of::<T>()).and_then(|v| v.clone().downcast::<T>().ok())
    }
}

/// The request as rules see it. Cheap to clone.
#[derive(Clone)]
pub struct Cx {
    pub caller: Arc<Caller>,
    pub version: Version,
    pub request_id: Arc<str>,
    pub query: Arc<Query>,
    pub settings: Arc<Settings>,
    pub policy: Arc<auth::PolicyBook>,
    /// `http://host:port/network` as the client wrote it; links are built from it.
    pub public: Arc<str>,
    /// Parameters of the path.
    pub params: Arc<[(String, String)]>,
    pub state: Arc<StateMap>,
    /// Every resource of the cloud: how services meet without knowing each other.
    pub registry: Arc<Registry>,
}

/// All resource tables by `service/plural`.
#[derive(Default)]
pub struct Registry(Vec<&'static crate::ResourceDef>);
impl Registry {
    pub fn new(defs: Vec<&'static crate::ResourceDef>) -> Self {
        Self(defs)
    }
    pub fn get(&self, table: &str) -> crate::Result<&'static crate::ResourceDef> {
        self.0
            .iter()
            .copied()
            .find(|d| d.table.name == table)
            .ok_or_else(|| crate::Error::internal(format!("no resource {table}")))
    }
    pub fn iter(&self) -> impl Iterator<Item = &'static crate::ResourceDef> + '_ {
        self.0.iter().copied()
    }
}

/// What `%(key)s` stands for: a field of the row.
fn target<'r>(row: Option<&'r crate::Map>, key: &str) -> Option<std::borrow::Cow<'r, str>> {
    let key = key.strip_prefix("target.").unwrap_or(key);
    match row?.get(key)? {
        serde_json::Value::String(s) => Some(s.as_str().into()),
        serde_json::Value::Null => Some("None".into()),
        serde_json::Value::Bool(b) => Some(if *b { "True" } else { "False" }.into()),
        v => Some(v.to_string().into()),
    }
}

impl Cx {
    /// Does the caller satisfy a named rule of the policy book for this row? An unknown rule is not satisfied.
    pub fn may(&self, rule: &str, row: Option<&crate::Map>) -> bool {
        let target = |key: &str| target(row, key);
        self.policy.allows(rule.strip_prefix("rule:").unwrap_or(rule), &self.caller.subject(), &target)
    }
    /// Why the caller satisfies a named rule for this row, or does not; nothing for an unknown rule.
    pub fn explain(&self, rule: &str, row: Option<&crate::Map>) -> Option<auth::policy::Explained> {
        let target = |key: &str| target(row, key);
        self.policy.explain(rule.strip_prefix("rule:").unwrap_or(rule), &self.caller.subject(), &target)
    }
    pub fn is_admin(&self) -> bool {
        self.may("admin", None)
    }
    pub fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(k, _)| k == name).map_or("", |(_, v)| v.as_str())
    }
    /// The caller's project, or an error that says that one is needed.
    pub fn project(&self) -> crate::Result<String> {
        self.caller
            .project_id()
            .map(str::to_owned)
            .ok_or_else(|| crate::Error::forbidden("This needs a token that is scoped to a project; authenticate with one."))
    }
    pub fn state<T: Any + Send + Sync>(&self) -> crate::Result<Arc<T>> {
        self.state.get::<T>().ok_or_else(|| crate::Error::internal(format!("no state of type {}", std::any::type_name::<T>())))
    }
}
