//! Handlers: what tables alone do not say. Each file has the routes of one part of the API.
mod app_credentials;
mod consumers;
mod credentials;
mod directories;
mod discovery;
mod domain_config;
mod ec2tokens;
mod endpoint_filter;
mod endpoint_policy;
mod factors;
mod federated_login;
mod federation;
mod grants;
pub(crate) mod groups;
mod home;
pub(crate) mod implied;
mod limits;
mod login;
mod oauth1;
mod projects;
mod regions;
mod role_assignments;
mod s3tokens;
mod scopes;
mod tokens;
pub(crate) mod trusts;
pub(crate) mod users;

use crate::{
    Auth,
    resources::{RULES, home_domain},
};
use api::{Call, Error, Map, Reply, Result, Route, dialect::IDENTITY};
use resource::{Reader, ResourceDef, engine};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Row;

/// Every route that no table yields.
pub(crate) fn routes() -> Vec<Route> {
    let mut all = discovery::routes();
    for part in [
        login::routes(),
        tokens::routes(),
        scopes::routes(),
        directories::routes(),
        users::routes(),
        groups::routes(),
        projects::routes(),
        regions::routes(),
        implied::routes(),
        grants::routes(),
        role_assignments::routes(),
        credentials::routes(),
        ec2tokens::routes(),
        s3tokens::routes(),
        app_credentials::routes(),
        trusts::routes(),
        limits::routes(),
        consumers::routes(),
        oauth1::routes(),
        domain_config::routes(),
        endpoint_filter::routes(),
        endpoint_policy::routes(),
        federated_login::routes(),
        federation::routes(),
    ] {
        all.extend(part);
    }
    all
}

/// Named rules of the service besides those of tables and routes.
pub(crate) fn rules() -> Vec<(&'static str, &'static str)> {
    let parts: [&[(&str, &str)]; 10] = [
        &RULES,
        &tokens::RULES,
        &scopes::RULES,
        &groups::RULES,
        &projects::RULES,
        &grants::RULES,
        &role_assignments::RULES,
        &credentials::RULES,
        &trusts::RULES,
        &oauth1::RULES,
    ];
    parts.concat()
}

fn auth(call: &Call) -> Result<Arc<Auth>> {
    call.cx.state::<Auth>()
}

/// Fails with Keystone's 403 unless the rule `identity:<action>` holds for the row.
fn allow(call: &Call, action: &str, row: Option<&Map>) -> Result<()> {
    if call.cx.may(&format!("identity:{action}"), row) {
        return Ok(());
    }
    Err(forbidden(action))
}

fn forbidden(action: &str) -> Error {
    Error::forbidden(format!("You are not authorized to perform the requested action: identity:{action}."))
}

fn object(row: &Row) -> Result<&Map> {
    row.value().as_object().ok_or_else(|| Error::internal(format!("row {} is not an object", row.key)))
}

fn get(reader: &Reader<'_>, def: &ResourceDef, id: &str) -> Result<Map> {
    let row = reader.get(&def.table, id).ok_or_else(|| engine::not_found(def, id))?;
    object(&row).cloned()
}

/// A row as the API shows it.
fn view(def: &ResourceDef, row: &Map, call: &Call, reader: &Reader<'_>) -> Value {
    api::view_row(def, &IDENTITY, row, &call.cx, reader, false).into()
}

/// `{"<plural>": [...], "links": {...}}`
fn list(call: &Call, plural: &str, rows: Vec<Value>) -> Reply {
    Reply::ok(json!({plural: rows, "links": {"next": null, "self": call.here(), "previous": null}}))
}

/// 201 with a row under its name.
fn created(def: &'static ResourceDef, row: &Map, call: &Call) -> Reply {
    Reply::json(201, json!({def.name: view(def, row, call, &call.reader())}))
}

/// Creates in the caller's domain when the body names none.
async fn create_at_home(def: &'static ResourceDef, call: Call) -> Result<Reply> {
    let mut input = api::body_of(def, &IDENTITY, call.json())?.clone();
    let elsewhere = input.get("is_domain") == Some(&Value::Bool(true)) || input.get("parent_id").is_some_and(Value::is_string);
    if !elsewhere && input.get("domain_id").is_none_or(Value::is_null) {
        input.insert("domain_id".into(), home_domain(&call.cx).into());
    }
    allow(&call, &format!("create_{}", def.name), Some(&input))?;
    let row = call.transact(move |cx, tx| engine::create(tx, def, cx, &input)).await?;
    Ok(created(def, &row, &call))
}

/// A required text inside a body.
fn need_text<'a>(map: &'a Map, key: &str) -> Result<&'a str> {
    match map.get(key) {
        Some(Value::String(s)) => Ok(s),
        Some(_) => Err(Error::bad_request(format!("Invalid input for field '{key}': it is not a string."))),
        None => Err(Error::bad_request(format!("'{key}' is a required property"))),
    }
}

/// A required object inside a body.
fn need_object<'a>(map: &'a Map, key: &str) -> Result<&'a Map> {
    match map.get(key) {
        Some(Value::Object(o)) => Ok(o),
        Some(_) => Err(Error::bad_request(format!("Invalid input for field '{key}': it is not an object."))),
        None => Err(Error::bad_request(format!("'{key}' is a required property"))),
    }
}

/// Errors of [`auth::Passwords`]: too long is the caller's, the rest is load or ours.
fn password_error(e: &auth::Error) -> Error {
    match e {
        auth::Error::PasswordTooLong { .. } => Error::bad_request(format!("Invalid input for field 'password': {e}.")),
        auth::Error::PasswordsBusy => Error::unavailable("Too many passwords are being checked; try again in a moment."),
        _ => Error::internal(base::chain(e)),
    }
}

/// 32 random bytes as text, for secrets that programs carry.
fn random_secret() -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}
