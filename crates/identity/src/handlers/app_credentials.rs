//! Making application credentials: a part of the caller's roles, on the project of the token.
use super::{allow, auth, created, forbidden, password_error};
use crate::{
    grants::{self, Target},
    resources::{ACCESS_RULE, APP_CREDENTIAL, ROLE},
    rows::{self, Rows as _},
};
use api::{Access, Call, Error, Map, Reply, Result, Route, dialect::IDENTITY};
use base::Timestamp;
use resource::{Cx, ResourceDef, engine};
use serde_json::{Value, json};
use store::Tx;

pub(super) fn routes() -> Vec<Route> {
    let any = Access::Authenticated;
    let (credentials, rules) = ("/v3/users/{user_id}/application_credentials", "/v3/users/{user_id}/access_rules");
    vec![
        Route::new("POST", credentials, any, create),
        Route::new("GET", credentials, any, |call: Call| async move { of_user(APP_CREDENTIAL, &call) }),
        Route::new("GET", rules, any, |call: Call| async move { of_user(ACCESS_RULE, &call) }),
    ]
}

/// A list that belongs to the user of the path.
fn of_user(def: &'static ResourceDef, call: &Call) -> Result<Reply> {
    let asked = json!({"user_id": call.param("user_id")});
    allow(call, &format!("list_{}", def.plural), asked.as_object())?;
    api::listing_reply(def, &IDENTITY, call, false)
}

async fn create(call: Call) -> Result<Reply> {
    let asked = json!({"user_id": call.param("user_id")});
    allow(&call, "create_application_credential", asked.as_object())?;
    if !call.cx.caller.is_unrestricted() || call.cx.caller.trust_id.is_some() {
        return Err(forbidden("create_application_credential"));
    }
    call.cx.project()?;
    let mut input = api::body_of(APP_CREDENTIAL, &IDENTITY, call.json())?.clone();
    let secret = match input.shift_remove("secret") {
        None | Some(Value::Null) => super::random_secret(),
        Some(Value::String(s)) if !s.is_empty() => s,
        Some(_) => return Err(Error::bad_request("Invalid input for field 'secret': it is not a string.")),
    };
    let hash = auth(&call)?.passwords.hash(&secret).await.map_err(|e| password_error(&e))?;
    let row = call.transact(move |cx, tx| insert(cx, tx, input.clone(), &hash)).await?;
    let mut reply = created(APP_CREDENTIAL, &row, &call);
    if let api::ReplyBody::Json(body) = &mut reply.body {
        body["application_credential"]["secret"] = secret.into();
    }
    Ok(reply)
}

/// Reads a time that is still to come.
pub(super) fn future(value: Option<Value>, now: Timestamp) -> Result<Value> {
    match value {
        None | Some(Value::Null) => Ok(Value::Null),
        Some(Value::String(s)) => match Timestamp::parse(&s) {
            Some(at) if at > now => Ok(at.0.into()),
            Some(_) => Err(Error::bad_request("Invalid input for field 'expires_at': the time is in the past.")),
            None => Err(Error::bad_request(format!("Invalid input for field 'expires_at': '{s}' is not a time."))),
        },
        Some(_) => Err(Error::bad_request("Invalid input for field 'expires_at': it is not a string.")),
    }
}

/// Ids of the roles that a body names by id or by name.
pub(super) fn role_ids(tx: &mut Tx<'_>, list: &Value) -> Result<Vec<String>> {
    let wrong = || Error::bad_request("Invalid input for field 'roles': it is not a list of objects with an id or a name.");
    let roles = list.as_array().ok_or_else(wrong)?;
    roles
        .iter()
        .map(|role| match (role.get("id").and_then(Value::as_str), role.get("name").and_then(Value::as_str)) {
            (Some(id), _) => Ok(id.to_owned()),
            (None, Some(name)) => {
                let domain = role.pointer("/domain/id").or_else(|| role.get("domain_id")).and_then(Value::as_str);
                rows::by_name(tx, &ROLE.table, domain, name)
                    .ok_or_else(|| Error::not_found(format!("Could not find role: {name}.")))
            }
            (None, None) => Err(wrong()),
        })
        .collect()
}

fn insert(cx: &Cx, tx: &mut Tx<'_>, mut input: Map, hash: &str) -> Result<Map> {
    let (user, project) = (cx.caller.user_id().to_owned(), cx.project()?);
    let expires_at = future(input.shift_remove("expires_at"), tx.now)?;
    let holder = grants::Holder::user(&user, tx.now);
    let given = grants::given(tx, holder, Target::Project, &project);
    let held = grants::expand(tx, given);
    let own: Vec<String> = cx.caller.roles.ids().map(|id| id.as_str().to_owned()).collect();
    let roles = match input.shift_remove("roles") {
        None => own.clone(),
        Some(Value::Array(list)) if list.is_empty() => own.clone(),
        Some(list) => role_ids(tx, &list)?,
    };
    // An application credential that makes another hands on no more than it has.
    let may_give = |id: &String| held.contains(id) && (cx.caller.app_credential.is_none() || own.contains(id));
    if let Some(id) = roles.iter().find(|id| !may_give(id)) {
        return Err(Error::bad_request(format!(
            "Could not find role assignment with role: {id}, user: {user}, project: {project}."
        )));
    }
    let rules = input.shift_remove("access_rules");
    let mut row = resource::create_row(APP_CREDENTIAL, cx, &input, tx.now)?;
    row.insert("access_rules".into(), access_rules(cx, tx, &user, rules)?);
    for (field, value) in
        [("expires_at", expires_at), ("project_id", project.into()), ("role_ids", json!(roles)), ("secret_hash", hash.into())]
    {
        row.insert(field.into(), value);
    }
    engine::insert(tx, APP_CREDENTIAL, cx, row)
}

/// Rules as the credential keeps them; new ones get rows of their own, so that they can be used again.
fn access_rules(cx: &Cx, tx: &mut Tx<'_>, user: &str, rules: Option<Value>) -> Result<Value> {
    let Some(rules) = rules.filter(|r| !r.is_null() && r.as_array().is_none_or(|l| !l.is_empty())) else {
        // What an application credential with rules makes has the same ones.
        let inherited = cx.caller.app_credential.as_ref().and_then(|a| a.access_rules.as_ref());
        return Ok(inherited.map_or(Value::Null, |rules| json!(rules)));
    };
    if cx.caller.app_credential.as_ref().is_some_and(|a| a.access_rules.is_some()) {
        return Err(forbidden("create_application_credential"));
    }
    let wrong =
        || Error::bad_request("Invalid input for field 'access_rules': each has a service, a method and a path, or an id.");
    let mut out = Vec::new();
    for rule in rules.as_array().ok_or_else(wrong)? {
        let text = |field: &str| rule.get(field).and_then(Value::as_str);
        if let Some(id) = text("id") {
            let known = tx.row(&ACCESS_RULE.table, id).filter(|r| r.text("user_id") == user);
            let known = known.ok_or_else(|| engine::not_found(ACCESS_RULE, id))?;
            out.push(
                json!({"id": id, "service": known.text("service"), "method": known.text("method"), "path": known.text("path")}),
            );
            continue;
        }
        let (Some(service), Some(method), Some(path)) = (text("service"), text("method"), text("path")) else {
            return Err(wrong());
        };
        if !path.starts_with('/') || !["POST", "GET", "HEAD", "PATCH", "PUT", "DELETE"].contains(&method) {
            return Err(wrong());
        }
        let same = |r: &store::Row| r.text("service") == service && r.text("method") == method && r.text("path") == path;
        let known = tx.rows(&ACCESS_RULE.table, "user_id", user).iter().find(|r| same(r)).map(|r| r.id().to_owned());
        let id = known.unwrap_or_else(base::id::hex);
        let mut row = resource::create_row(ACCESS_RULE, cx, &Map::new(), tx.now)?;
        row.extend(
            json!({"id": id, "service": service, "method": method, "path": path, "user_id": user})
                .as_object()
                .cloned()
                .unwrap_or_default(),
        );
        tx.put(&ACCESS_RULE.table, &id, row.into());
        out.push(json!({"id": id, "service": service, "method": method, "path": path}));
    }
    Ok(out.into())
}
