//! Policy for operators: what is in force, an own file above it, and why somebody may or may not.
use api::{Call, Error, Map, Reply, Result, Supposed, policy};
use resource::Cx;
use serde_json::{Value, json};
use std::sync::Arc;

/// The operator's file at most; rows are small, and rules are few.
const LONGEST: usize = 256 * 1024;

fn shown(call: &Call) -> Value {
    let reader = call.reader();
    let in_force = call.cloud.policy.in_force(&reader);
    let rules: Vec<Value> = in_force
        .book
        .iter()
        .map(|(name, rule, overridden)| json!({"name": name, "rule": rule, "overridden": overridden}))
        .collect();
    let file = reader.get(&policy::OVERRIDES, policy::FILE);
    let of = |name: &str| file.as_ref().map_or(Value::Null, |f| f.field(name).clone());
    let broken: Vec<Value> = in_force.broken.iter().map(|(name, why)| json!({"name": name, "why": why})).collect();
    json!({"policy": {
        "rules": rules, "file": of("text"), "set_by": of("set_by"), "set_at": of("set_at"), "broken": broken,
        "unused": in_force.book.unused_overrides(),
    }})
}

/// `GET /v1/policy`
pub(crate) async fn show(call: Call) -> Result<Reply> {
    Ok(Reply::ok(shown(&call)))
}

/// `PUT /v1/policy`: `{"policy": {"file": "…", "dry_run": false}}`. The whole file is checked, and taken as a whole.
pub(crate) async fn put(call: Call) -> Result<Reply> {
    let input = call.inner("policy")?;
    let text = input.get("file").and_then(Value::as_str);
    let text = text.ok_or_else(|| Error::bad_request("'file' must be the text of a policy file, YAML or JSON."))?.to_owned();
    if text.len() > LONGEST {
        return Err(Error::too_large(format!(
            "The policy file is larger than {LONGEST} bytes; leave out what is as the defaults are."
        )));
    }
    let book = call.cloud.policy.with_file(&text).map_err(|e| Error::bad_request(format!("{}.", base::chain(&e))))?;
    let mine = Cx { policy: Arc::new(book), ..call.cx.clone() };
    if !mine.may(policy::MAY_CHANGE, None) {
        return Err(Error::conflict(format!(
            "With this file you could not change the policy any more: {} would not hold for you. Change that rule.",
            policy::MAY_CHANGE
        )));
    }
    if input.get("dry_run") == Some(&Value::Bool(true)) {
        return Ok(Reply::ok(json!({"policy": {"unused": mine.policy.unused_overrides()}})));
    }
    call.transact(move |cx, tx| {
        let row = json!({"text": text, "set_by": cx.caller.user_id(), "set_at": tx.now.0, "v": 1});
        tx.put(&policy::OVERRIDES, policy::FILE, row);
        Ok(())
    })
    .await?;
    Ok(Reply::ok(shown(&call)))
}

/// `DELETE /v1/policy`: back to the defaults.
pub(crate) async fn delete(call: Call) -> Result<Reply> {
    call.transact(|_, tx| {
        tx.delete(&policy::OVERRIDES, policy::FILE);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

/// `POST /v1/policy/decisions`: `{"decision": {"action": "…", "user": "…", "project": "…", "target": {…}}}`
///
/// Without a target it is the caller's own: what belongs to this user and its project.
pub(crate) async fn decide(call: Call) -> Result<Reply> {
    let input = call.inner("decision")?.clone();
    let text = |name: &str| input.get(name).and_then(Value::as_str).map(str::to_owned);
    let need = |name: &str| text(name).ok_or_else(|| Error::bad_request(format!("'{name}' is a required property")));
    let (action, user) = (need("action")?, need("user")?);
    let supposed = Supposed {
        user,
        user_domain: text("user_domain"),
        project: text("project"),
        project_domain: text("project_domain"),
        domain: text("domain"),
        system: input.get("system") == Some(&Value::Bool(true)),
    };
    let caller = call.cloud.authenticator.suppose(&supposed)?;
    let book = call.cx.policy.clone();
    let Some((_, rule, overridden)) = book.iter().find(|(name, ..)| *name == action) else {
        return Err(Error::not_found(format!("There is no rule {action}; drover policy list shows all.")));
    };
    let target = match input.get("target") {
        Some(Value::Object(target)) => target.clone(),
        _ => own(&caller.subject().user_id.to_owned(), caller.project_id(), caller.domain_id()),
    };
    let as_them = Cx { caller: caller.clone(), ..call.cx.clone() };
    let why = as_them.explain(&action, Some(&target));
    let roles: Vec<&str> = caller.roles.iter().map(|r| r.name.as_str()).collect();
    Ok(Reply::ok(json!({"decision": {
        "action": action, "rule": rule, "overridden": overridden, "allowed": as_them.may(&action, Some(&target)),
        "caller": {"user_id": caller.user_id(), "project_id": caller.project_id(), "domain_id": caller.domain_id(),
            "system": caller.scope.is_system(), "roles": roles},
        "target": target, "why": why,
    }})))
}

fn own(user: &str, project: Option<&str>, domain: Option<&str>) -> Map {
    let mut target = Map::new();
    target.insert("user_id".into(), user.into());
    for (name, value) in [("project_id", project), ("tenant_id", project), ("domain_id", domain)] {
        if let Some(value) = value {
            target.insert(name.into(), value.into());
        }
    }
    target
}
