//! Options of a domain (Keystone api-ref, `v3/domains/{id}/config`). With `[identity] driver = ldap` its users and groups come from a
//! directory: see [`crate::directory`].
use super::{auth, get};
use crate::{
    directory,
    resources::DOMAIN,
    rows::{DOMAIN_CONFIGS, Rows as _},
};
use api::{Access, Call, Error, Map, Reply, Result, Route};
use resource::engine;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// Options of each group with their defaults; what is not here cannot be set.
static DEFAULTS: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("domain_config.json")).expect("a test reads it"));
/// An option that may be set and is never shown.
const SECRET: (&str, &str) = ("ldap", "password");
/// The domain of the cloud's own users.
const HOME: &str = "default";

pub(super) fn routes() -> Vec<Route> {
    let mut out = Vec::new();
    for path in [
        "/v3/domains/{domain_id}/config",
        "/v3/domains/{domain_id}/config/{group}",
        "/v3/domains/{domain_id}/config/{group}/{option}",
    ] {
        out.push(Route::new("GET", path, Access::Rule("identity:get_domain_config", "rule:identity:system_reader"), show));
        out.push(Route::new("PATCH", path, Access::Rule("identity:update_domain_config", "rule:identity:cloud_admin"), update));
        out.push(Route::new("DELETE", path, Access::Rule("identity:delete_domain_config", "rule:identity:cloud_admin"), delete));
    }
    out.push(Route::new(
        "PUT",
        "/v3/domains/{domain_id}/config",
        Access::Rule("identity:create_domain_config", "rule:identity:cloud_admin"),
        create,
    ));
    // Who is to choose a password may know what it must be like.
    let strength = Access::Rule("identity:get_security_compliance_domain_config", "any");
    for path in
        ["/v3/domains/{domain_id}/config/security_compliance", "/v3/domains/{domain_id}/config/security_compliance/{option}"]
    {
        out.push(Route::new("GET", path, strength, compliance));
    }
    let reads = Access::Rule("identity:get_domain_config_default", "rule:identity:system_reader");
    for path in
        ["/v3/domains/config/default", "/v3/domains/config/{group}/default", "/v3/domains/config/{group}/{option}/default"]
    {
        out.push(Route::new("GET", path, reads, defaults));
    }
    out
}

fn known(group: &str, option: Option<&str>) -> Result<()> {
    let found = DEFAULTS.get(group).and_then(|g| option.map_or(Some(g), |o| g.get(o)));
    if found.is_some() || option.is_some_and(|o| (group, o) == SECRET) {
        return Ok(());
    }
    let option = option.map_or_else(String::new, |o| format!(" and option {o}"));
    Err(Error::forbidden(format!("Invalid domain specific configuration: group {group}{option} is not supported.")))
}

/// Checks groups and options of a body.
fn checked(config: &Map, domain_id: &str) -> Result<()> {
    if config.is_empty() {
        return Err(Error::forbidden("Invalid domain specific configuration: no options specified."));
    }
    for (group, options) in config {
        known(group, None)?;
        let options = options
            .as_object()
            .ok_or_else(|| Error::forbidden(format!("Invalid domain specific configuration: group {group} is not an object.")))?;
        options.keys().try_for_each(|o| known(group, Some(o)))?;
    }
    let option = |group: &str, name: &str| config.get(group).and_then(|g| g.get(name));
    if option(SECRET.0, SECRET.1).is_some_and(|p| !p.is_string()) {
        return Err(Error::bad_request("Invalid input for field 'password': it is not a string."));
    }
    // The cloud's own users are there, and must get in whatever a directory does.
    if domain_id == HOME && option("identity", "driver").is_some_and(|d| d == "ldap") {
        return Err(Error::forbidden("The default domain holds the cloud's own users; use another domain for a directory."));
    }
    Ok(())
}

fn part<'a>(call: &'a Call, name: &str) -> Option<&'a str> {
    Some(call.param(name)).filter(|p| !p.is_empty())
}

fn lost(call: &Call) -> Error {
    let what = match (part(call, "group"), part(call, "option")) {
        (Some(g), Some(o)) => format!("group {g} and option {o} of "),
        (Some(g), None) => format!("group {g} of "),
        _ => String::new(),
    };
    Error::not_found(format!("Could not find {what}domain configuration for domain {}.", call.param("domain_id")))
}

/// What the path names of a configuration, as the API shows it.
fn select(config: &Value, call: &Call) -> Option<Value> {
    match (part(call, "group"), part(call, "option")) {
        (None, _) => Some(config.clone()),
        (Some(g), None) => Some(json!({g: config.get(g)?})),
        (Some(g), Some(o)) => Some(json!({o: config.get(g)?.get(o)?})),
    }
}

fn without_secret(config: &Value) -> Value {
    let mut out = config.clone();
    if let Some(group) = out.get_mut(SECRET.0).and_then(Value::as_object_mut) {
        group.shift_remove(SECRET.1);
    }
    out
}

fn reply(status: u16, config: &Value, call: &Call) -> Result<Reply> {
    let shown = select(&without_secret(config), call).ok_or_else(|| lost(call))?;
    Ok(Reply::json(status, json!({ "config": shown })))
}

async fn defaults(call: Call) -> Result<Reply> {
    if let Some(group) = part(&call, "group") {
        known(group, part(&call, "option"))?;
    }
    reply(200, &DEFAULTS, &call)
}

async fn show(call: Call) -> Result<Reply> {
    get(&call.reader(), DOMAIN, call.param("domain_id"))?;
    if let Some(group) = part(&call, "group") {
        known(group, part(&call, "option"))?;
    }
    let row = call.reader().get(&DOMAIN_CONFIGS, call.param("domain_id")).ok_or_else(|| lost(&call))?;
    reply(200, row.field("config"), &call)
}

/// The rule for passwords is the cloud's; Keystone tells it of the default domain only.
async fn compliance(call: Call) -> Result<Reply> {
    let refused = |why: &str| Err(Error::forbidden(format!("Invalid domain specific configuration: {why}")));
    if call.param("domain_id") != "default" {
        return refused(
            "Reading security compliance information for any domain other than the default domain is not allowed or supported.",
        );
    }
    let set = &auth(&call)?.compliance.set;
    let all = json!({"password_regex": set.password_regex, "password_regex_description": set.password_regex_description});
    match part(&call, "option") {
        None => Ok(Reply::ok(json!({"config": {"security_compliance": all}}))),
        Some(option) => match all.get(option) {
            Some(value) => Ok(Reply::ok(json!({"config": {option: value}}))),
            None => refused(
                "Reading security compliance values other than password_regex and password_regex_description is not allowed.",
            ),
        },
    }
}

async fn create(call: Call) -> Result<Reply> {
    let config = call.inner("config")?.clone();
    let domain = call.param("domain_id").to_owned();
    checked(&config, &domain)?;
    get(&call.reader(), DOMAIN, &domain)?;
    let before = call.reader().get(&DOMAIN_CONFIGS, &domain).is_some();
    let config = Value::Object(config);
    let mut stored = config.clone();
    directory::seal(&mut stored, &domain, &auth(&call)?.secret_box());
    call.transact(move |_, tx| {
        tx.row(&DOMAIN.table, &domain).ok_or_else(|| engine::not_found(DOMAIN, &domain))?;
        tx.put(&DOMAIN_CONFIGS, &domain, json!({"config": stored, "v": 1}));
        Ok(())
    })
    .await?;
    reply(if before { 200 } else { 201 }, &config, &call)
}

async fn update(call: Call) -> Result<Reply> {
    let mut config = call.inner("config")?.clone();
    if let (Some(group), Some(option)) = (part(&call, "group"), part(&call, "option")) {
        // Of one option the body is {"config": {"<option>": value}}.
        let value = config.get(option).cloned();
        let value = value.ok_or_else(|| Error::forbidden(format!("The option {option} is not in the request; name it.")))?;
        config = json!({group: {option: value}}).as_object().cloned().unwrap_or_default();
    }
    let domain = call.param("domain_id").to_owned();
    checked(&config, &domain)?;
    if part(&call, "group").is_some_and(|g| config.len() != 1 || !config.contains_key(g)) {
        return Err(Error::forbidden("The group in the request is not the one of the URL; make them the same."));
    }
    let mut config = Value::Object(config);
    directory::seal(&mut config, &domain, &auth(&call)?.secret_box());
    let config = config.as_object().cloned().unwrap_or_default();
    let missing = lost(&call);
    let merged = call
        .transact(move |_, tx| {
            let row = tx.row(&DOMAIN_CONFIGS, &domain).ok_or_else(|| missing.clone())?;
            let mut all = row.field("config").as_object().cloned().unwrap_or_default();
            for (group, options) in &config {
                let into = all.entry(group.clone()).or_insert_with(|| json!({}));
                if let (Some(into), Some(options)) = (into.as_object_mut(), options.as_object()) {
                    into.extend(options.clone());
                }
            }
            tx.put(&DOMAIN_CONFIGS, &domain, json!({"config": all, "v": 1}));
            Ok(Value::Object(all))
        })
        .await?;
    // An update of a part answers with the groups that it named.
    let shown = without_secret(&merged);
    match part(&call, "group") {
        Some(group) if part(&call, "option").is_some() => Ok(Reply::ok(json!({"config": {group: shown.get(group)}}))),
        _ => reply(200, &shown, &call),
    }
}

async fn delete(call: Call) -> Result<Reply> {
    let domain = call.param("domain_id").to_owned();
    let (group, option) = (part(&call, "group").map(str::to_owned), part(&call, "option").map(str::to_owned));
    let missing = lost(&call);
    call.transact(move |_, tx| {
        let row = tx.row(&DOMAIN_CONFIGS, &domain).ok_or_else(|| missing.clone())?;
        let mut config = row.field("config").as_object().cloned().unwrap_or_default();
        let gone = match (&group, &option) {
            (None, _) => {
                config.clear();
                true
            }
            (Some(g), None) => config.shift_remove(g).is_some(),
            (Some(g), Some(o)) => config.get_mut(g).and_then(Value::as_object_mut).is_some_and(|m| m.shift_remove(o).is_some()),
        };
        if !gone {
            return Err(missing.clone());
        }
        config.retain(|_, options| options.as_object().is_some_and(|o| !o.is_empty()));
        if config.is_empty() {
            tx.delete(&DOMAIN_CONFIGS, &domain);
        } else {
            tx.put(&DOMAIN_CONFIGS, &domain, json!({"config": config, "v": 1}));
        }
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_read() {
        assert_eq!(DEFAULTS["identity"]["driver"], "sql");
        assert!(known("ldap", Some("url")).is_ok() && known("ldap", Some("password")).is_ok());
        assert!(known("ldap", Some("passwords")).is_err() && known("sql", None).is_err());
    }
}
