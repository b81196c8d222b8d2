//! The resources of Keystone v3, one table each.
mod access_rule;
mod app_credential;
mod consumer;
mod credential;
mod domain;
mod endpoint;
mod endpoint_group;
mod group;
mod identity_provider;
mod limit;
mod mapping;
mod policy;
mod project;
mod region;
mod role;
mod service;
mod service_provider;
mod trust;
mod user;

pub(crate) use identity_provider::find as find_identity_provider;
pub use limit::LimitModel;
pub(crate) use project::check_tags;
pub(crate) use user::Expiry;

use crate::{
    directory,
    rows::{self, Rows, domain_row},
};
use resource::{Cx, Error, Kind, Map, Reader, Resource, ResourceDef, Result};
use serde_json::Value;

pub(crate) const ACCESS_RULE: &ResourceDef = access_rule::AccessRule::DEF;
pub(crate) const APP_CREDENTIAL: &ResourceDef = app_credential::ApplicationCredential::DEF;
pub(crate) const CONSUMER: &ResourceDef = consumer::Consumer::DEF;
pub(crate) const CREDENTIAL: &ResourceDef = credential::Credential::DEF;
pub(crate) const DOMAIN: &ResourceDef = domain::Domain::DEF;
pub(crate) const ENDPOINT: &ResourceDef = endpoint::Endpoint::DEF;
pub(crate) const ENDPOINT_GROUP: &ResourceDef = endpoint_group::EndpointGroup::DEF;
pub(crate) const GROUP: &ResourceDef = group::Group::DEF;
pub(crate) const IDENTITY_PROVIDER: &ResourceDef = identity_provider::IdentityProvider::DEF;
pub(crate) const LIMIT: &ResourceDef = limit::Limit::DEF;
pub(crate) const MAPPING: &ResourceDef = mapping::Mapping::DEF;
pub(crate) const POLICY: &ResourceDef = policy::Policy::DEF;
pub(crate) const PROJECT: &ResourceDef = project::Project::DEF;
pub(crate) const REGION: &ResourceDef = region::Region::DEF;
pub(crate) const REGISTERED_LIMIT: &ResourceDef = limit::RegisteredLimit::DEF;
pub(crate) const ROLE: &ResourceDef = role::Role::DEF;
pub(crate) const SERVICE: &ResourceDef = service::Service::DEF;
pub(crate) const SERVICE_PROVIDER: &ResourceDef = service_provider::ServiceProvider::DEF;
pub(crate) const TRUST: &ResourceDef = trust::Trust::DEF;
pub(crate) const USER: &ResourceDef = user::User::DEF;

/// All of them. Projects come before domains: both are rows of one table.
pub(crate) fn all() -> Vec<&'static ResourceDef> {
    vec![
        PROJECT,
        DOMAIN,
        USER,
        GROUP,
        ROLE,
        REGION,
        SERVICE,
        ENDPOINT,
        ENDPOINT_GROUP,
        POLICY,
        CREDENTIAL,
        APP_CREDENTIAL,
        ACCESS_RULE,
        TRUST,
        REGISTERED_LIMIT,
        LIMIT,
        CONSUMER,
        IDENTITY_PROVIDER,
        MAPPING,
        SERVICE_PROVIDER,
    ]
}

/// Rules that the tables' policies name: who manages and reads what is the whole cloud's, readers of what is in any domain, and readers
/// and managers of one domain. As in Keystone, a token for a domain does nothing with what is of no domain, whatever its roles are.
pub(crate) const RULES: [(&str, &str); 11] = [
    ("identity:cloud_admin", "rule:admin and domain_id:None"),
    ("identity:system_reader", "rule:identity:cloud_admin or (role:reader and system_scope:all)"),
    ("identity:any_reader", "rule:admin or (role:reader and system_scope:all)"),
    ("identity:domain_reader", "rule:identity:any_reader or (role:reader and domain_id:%(domain_id)s)"),
    ("identity:domain_manager", "rule:admin or (role:manager and domain_id:%(domain_id)s)"),
    ("identity:domain_lister", "rule:identity:any_reader or (role:reader and not domain_id:None)"),
    ("identity:owner", "rule:identity:system_reader or user_id:%(user_id)s"),
    ("identity:access_rule_reader", "(role:reader and system_scope:all) or user_id:%(user_id)s"),
    ("identity:credential_reader", "rule:identity:any_reader or user_id:%(user_id)s"),
    (
        "identity:limit_reader",
        "rule:identity:any_reader or project_id:%(project_id)s or project_domain_id:%(domain_id)s or (role:reader and not domain_id:None)",
    ),
    // What a manager of a domain may see and hand out.
    ("identity:managed_role", "None:%(domain_id)s and ('manager':%(name)s or 'member':%(name)s or 'reader':%(name)s)"),
];

/// The domain that a new user, group or project is in when nobody says it: the caller's.
pub(crate) fn home_domain(cx: &Cx) -> String {
    let project = cx.caller.scope.project().map(|p| p.domain.id.as_str());
    cx.caller.domain_id().or(project).unwrap_or("default").to_owned()
}

/// Fails with 404 unless there is such a domain.
pub(crate) fn check_domain(rows: &mut dyn Rows, id: &str) -> Result<()> {
    match domain_row(rows, id) {
        Some(_) => Ok(()),
        None => Err(Error::not_found(format!("Could not find domain: {id}."))),
    }
}

/// Fails with 403 unless users and groups of the domain are ours to write. `directory` is that of a row that exists.
pub(crate) fn check_own(rows: &mut dyn Rows, domain_id: &str, directory: Option<&Value>) -> Result<()> {
    if directory.is_some_and(Value::is_object) || rows::has_directory(rows, domain_id) {
        return Err(Error::forbidden(directory::READ_ONLY));
    }
    Ok(())
}

/// Is the user or group among those of its domain?
pub(crate) fn is_there(row: &Map, mut reader: &Reader<'_>) -> bool {
    let domain = row.get("domain_id").and_then(Value::as_str).unwrap_or_default();
    rows::counts(&mut reader, domain, row.get("directory").unwrap_or(&Value::Null))
}

/// May the caller see a row of a domain? Administrators and system readers see all.
pub(crate) fn in_sight(row: &Map, cx: &Cx) -> bool {
    let domain = row.get("domain_id").and_then(Value::as_str);
    cx.may("identity:any_reader", None) || (domain.is_some() && domain == cx.caller.domain_id())
}

/// May the caller see what belongs to a user?
pub(crate) fn own(row: &Map, cx: &Cx) -> bool {
    cx.may("identity:owner", Some(row))
}

/// `name__contains=` and its like, of any text field.
pub(crate) fn inexact(row: &Map, key: &str, values: &[&str], fields: &[&str]) -> Option<bool> {
    let (field, how) = key.split_once("__")?;
    if !fields.contains(&field) {
        return None;
    }
    let value = row.get(field).and_then(Value::as_str).unwrap_or_default();
    let lower = value.to_lowercase();
    let any = |fits: &dyn Fn(&str) -> bool| Some(values.iter().any(|v| fits(v)));
    match how {
        "contains" => any(&|v| value.contains(v)),
        "icontains" => any(&|v| lower.contains(&v.to_lowercase())),
        "startswith" => any(&|v| value.starts_with(v)),
        "istartswith" => any(&|v| lower.starts_with(&v.to_lowercase())),
        "endswith" => any(&|v| value.ends_with(v)),
        "iendswith" => any(&|v| lower.ends_with(&v.to_lowercase())),
        _ => None,
    }
}

/// Checks attributes that no field names, where they are given.
pub(crate) fn check_extra(row: &Map, kinds: &[(&str, Kind)]) -> Result<()> {
    let extra = row.get("extra").and_then(Value::as_object);
    let given = kinds.iter().filter_map(|(name, kind)| Some((name, kind, extra?.get(*name)?)));
    for (name, kind, value) in given {
        kind.check(value).map_err(|reason| Error::invalid(name, reason))?;
    }
    Ok(())
}

/// Takes an attribute that no field names out of a row: it is a word to the rules, not to be kept.
pub(crate) fn take_extra(row: &mut Map, name: &str) -> Option<Value> {
    row.get_mut("extra").and_then(Value::as_object_mut)?.shift_remove(name)
}

/// Which values an option may have.
enum OptionForm {
    Flag,
    Rules,
}

const IMMUTABLE: (&str, OptionForm) = ("immutable", OptionForm::Flag);
const USER_OPTIONS: [(&str, OptionForm); 7] = [
    ("ignore_change_password_upon_first_use", OptionForm::Flag),
    ("ignore_password_expiry", OptionForm::Flag),
    ("ignore_lockout_failure_attempts", OptionForm::Flag),
    ("ignore_user_inactivity", OptionForm::Flag),
    ("lock_password", OptionForm::Flag),
    ("multi_factor_auth_enabled", OptionForm::Flag),
    ("multi_factor_auth_rules", OptionForm::Rules),
];

/// Lists of names of methods: none is empty, and nothing is said twice.
fn are_rules(value: &Value) -> bool {
    fn distinct(list: &[Value]) -> bool {
        list.iter().enumerate().all(|(i, v)| !list[..i].contains(v))
    }
    let is_rule = |rule: &Value| {
        rule.as_array().is_some_and(|names| !names.is_empty() && names.iter().all(Value::is_string) && distinct(names))
    };
    value.as_array().is_some_and(|rules| rules.iter().all(is_rule) && distinct(rules))
}

/// Merges resource options: what is null is taken away, what is not known is refused.
pub(crate) fn merge_options(def: &ResourceDef, old: &Map, new: &Map) -> Result<Map> {
    let known: &[(&str, OptionForm)] = if def.name == "user" { &USER_OPTIONS } else { &[IMMUTABLE] };
    let mut out = old.clone();
    for (name, value) in new {
        let form = known.iter().find(|(n, _)| n == name).map(|(_, f)| f);
        let right = match form {
            None => return Err(Error::bad_request(format!("Additional properties are not allowed ('{name}' was unexpected)"))),
            Some(OptionForm::Flag) => value.is_boolean(),
            Some(OptionForm::Rules) => are_rules(value),
        };
        match value {
            Value::Null => {
                out.shift_remove(name);
            }
            value if right => {
                out.insert(name.clone(), value.clone());
            }
            value => {
                return Err(Error::bad_request(format!("Invalid input for field '{name}': {value} is not of the right type.")));
            }
        }
    }
    Ok(out)
}

/// Fails with 403 when a row must not change; the option itself may be taken off.
pub(crate) fn check_mutable(def: &ResourceDef, id: &str, old: &Map, new: Option<&Map>) -> Result<()> {
    let set = |options: &Map| options.get("immutable") == Some(&Value::Bool(true));
    if !set(old) || new.is_some_and(|new| !set(new)) {
        return Ok(());
    }
    let what = if new.is_some() { "update" } else { "delete" };
    Err(Error::forbidden(format!("Cannot {what} immutable {}: {id}. Set its option immutable to false first.", def.name)))
}
