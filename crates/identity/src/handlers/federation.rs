//! OS-FEDERATION (Keystone api-ref, `v3-ext/federation`): providers, protocols, mappings and service providers, which are made by `PUT`.
//!
//! A protocol has one field of our own, `oidc`: how it speaks OpenID Connect ([`crate::federation::oidc`]).
use super::{auth, created, list, need_text};
use crate::{
    federation::{oidc, protocol_key},
    resources::{IDENTITY_PROVIDER, MAPPING, SERVICE_PROVIDER, find_identity_provider},
    rows::{PROTOCOLS, Rows as _, text},
};
use api::{Access, Call, Error, Map, Reply, Result, Route, dialect::IDENTITY};
use resource::{ResourceDef, engine};
use serde_json::{Value, json};
use store::Row;

const ONE: &str = "/v3/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}";
const ALL: &str = "/v3/OS-FEDERATION/identity_providers/{idp_id}/protocols";

pub(super) fn routes() -> Vec<Route> {
    let put = |path, rule, def: &'static ResourceDef| {
        Route::new("PUT", path, Access::Rule(rule, "rule:identity:cloud_admin"), move |call| put(def, call))
    };
    vec![
        put("/v3/OS-FEDERATION/identity_providers/{id}", "identity:create_identity_provider", IDENTITY_PROVIDER),
        put("/v3/OS-FEDERATION/mappings/{id}", "identity:create_mapping", MAPPING),
        put("/v3/OS-FEDERATION/service_providers/{id}", "identity:create_service_provider", SERVICE_PROVIDER),
        Route::new("GET", ALL, Access::Rule("identity:list_protocols", "rule:identity:system_reader"), protocols),
        Route::new("GET", ONE, Access::Rule("identity:get_protocol", "rule:identity:system_reader"), protocol),
        Route::new("PUT", ONE, Access::Rule("identity:create_protocol", "rule:identity:cloud_admin"), create_protocol),
        Route::new("PATCH", ONE, Access::Rule("identity:update_protocol", "rule:identity:cloud_admin"), update_protocol),
        Route::new("DELETE", ONE, Access::Rule("identity:delete_protocol", "rule:identity:cloud_admin"), delete_protocol),
    ]
}

/// What is named by whoever makes it.
fn check_id(what: &str, id: &str) -> Result<()> {
    if id.chars().count() <= 64 && !id.contains(['/', '\0']) {
        return Ok(());
    }
    Err(Error::bad_request(format!("Invalid input for field '{what}': it is not 1 to 64 characters without a slash.")))
}

async fn put(def: &'static ResourceDef, call: Call) -> Result<Reply> {
    let id = call.param("id").to_owned();
    check_id("id", &id)?;
    let mut input = api::body_of(def, &IDENTITY, call.json())?.clone();
    if input.shift_remove("id").is_some_and(|given| given != id.as_str()) {
        return Err(Error::bad_request("The id in the request is not the one of the URL; make them the same."));
    }
    input.insert("id".into(), id.into());
    let row = call.transact(move |cx, tx| engine::create(tx, def, cx, &input)).await?;
    Ok(created(def, &row, &call))
}

fn lost(call: &Call) -> Error {
    let (idp, protocol) = (call.param("idp_id"), call.param("protocol_id"));
    Error::not_found(format!("Could not find federated protocol {protocol} for Identity Provider: {idp}."))
}

fn shown(call: &Call, row: &Row) -> Value {
    let (idp, id) = (row.text("idp_id"), row.text("protocol_id"));
    let base = format!("{}/v3/OS-FEDERATION/identity_providers/{idp}", call.cx.public);
    let mut out = json!({
        "id": id, "mapping_id": text(row, "mapping_id"), "remote_id_attribute": text(row, "remote_id_attribute"),
        "links": {"self": format!("{base}/protocols/{id}"), "identity_provider": base},
    });
    if row.field("oidc").is_object() {
        out["oidc"] = oidc::shown(row.field("oidc"));
    }
    out
}

async fn protocols(call: Call) -> Result<Reply> {
    let reader = call.reader();
    find_identity_provider(&mut &reader, call.param("idp_id"))?;
    let all = (&reader).rows(&PROTOCOLS, "idp_id", call.param("idp_id"));
    let mut shown: Vec<Value> = all.iter().map(|row| shown(&call, row)).collect();
    // One alone is shown without it.
    shown.iter_mut().for_each(|protocol| protocol["idp_id"] = call.param("idp_id").into());
    Ok(list(&call, "protocols", shown))
}

async fn protocol(call: Call) -> Result<Reply> {
    let row = call.reader().get(&PROTOCOLS, &protocol_key(call.param("idp_id"), call.param("protocol_id")));
    let row = row.ok_or_else(|| lost(&call))?;
    Ok(Reply::ok(json!({"protocol": shown(&call, &row)})))
}

/// Fields of a protocol; what is null is taken away.
fn fields(input: &Map) -> Result<Map> {
    let mut out = Map::new();
    for (name, value) in input {
        let most = match name.as_str() {
            "mapping_id" | "remote_id_attribute" => 64,
            "id" => continue,
            "oidc" => {
                if !value.is_null() {
                    oidc::check(value)?;
                }
                out.insert(name.clone(), value.clone());
                continue;
            }
            _ => return Err(Error::bad_request(format!("Additional properties are not allowed ('{name}' was unexpected)"))),
        };
        let fits = match value {
            Value::String(s) => (1..=most).contains(&s.chars().count()),
            Value::Null => name != "mapping_id",
            _ => false,
        };
        if !fits {
            return Err(Error::bad_request(format!(
                "Invalid input for field '{name}': it is not a string of 1 to {most} characters."
            )));
        }
        out.insert(name.clone(), value.clone());
    }
    Ok(out)
}

/// Secrets are sealed before they get near a row.
fn seal(call: &Call, fields: &mut Map, key: &str) -> Result<()> {
    if let Some(settings) = fields.get_mut("oidc") {
        oidc::seal(settings, key, &auth(call)?.secret_box());
    }
    Ok(())
}

fn check_mapping(tx: &mut store::Tx<'_>, fields: &Map) -> Result<()> {
    match fields.get("mapping_id").and_then(Value::as_str) {
        Some(id) if tx.row(&MAPPING.table, id).is_none() => Err(Error::bad_request(format!("Invalid mapping id: {id}"))),
        _ => Ok(()),
    }
}

async fn create_protocol(call: Call) -> Result<Reply> {
    let (idp, id) = (call.param("idp_id").to_owned(), call.param("protocol_id").to_owned());
    check_id("protocol_id", &id)?;
    let input = call.inner("protocol")?;
    need_text(input, "mapping_id")?;
    let mut fields = fields(input)?;
    let key = protocol_key(&idp, &id);
    seal(&call, &mut fields, &key)?;
    let made = key.clone();
    call.transact(move |_, tx| {
        find_identity_provider(tx, &idp)?;
        check_mapping(tx, &fields)?;
        if tx.row(&PROTOCOLS, &key).is_some() {
            return Err(Error::conflict(format!(
                "Conflict occurred attempting to store federation_protocol - Duplicate entry found with ID {id}."
            )));
        }
        let mut row = fields.clone();
        row.extend([
            ("idp_id".to_owned(), idp.as_str().into()),
            ("protocol_id".to_owned(), id.as_str().into()),
            ("created_at".to_owned(), tx.now.0.into()),
            ("v".to_owned(), 1.into()),
        ]);
        tx.put(&PROTOCOLS, &key, row.into());
        Ok(())
    })
    .await?;
    let row = call.reader().get(&PROTOCOLS, &made).ok_or_else(|| lost(&call))?;
    Ok(Reply::json(201, json!({"protocol": shown(&call, &row)})))
}

async fn update_protocol(call: Call) -> Result<Reply> {
    let mut fields = fields(call.inner("protocol")?)?;
    let key = protocol_key(call.param("idp_id"), call.param("protocol_id"));
    seal(&call, &mut fields, &key)?;
    let (changed, missing) = (key.clone(), lost(&call));
    call.transact(move |_, tx| {
        let row = tx.row(&PROTOCOLS, &key).ok_or_else(|| missing.clone())?;
        check_mapping(tx, &fields)?;
        let mut row = super::object(&row)?.clone();
        row.extend(fields.clone());
        tx.put(&PROTOCOLS, &key, row.into());
        Ok(())
    })
    .await?;
    let row = call.reader().get(&PROTOCOLS, &changed).ok_or_else(|| lost(&call))?;
    Ok(Reply::ok(json!({"protocol": shown(&call, &row)})))
}

async fn delete_protocol(call: Call) -> Result<Reply> {
    let key = protocol_key(call.param("idp_id"), call.param("protocol_id"));
    let missing = lost(&call);
    call.transact(move |_, tx| {
        tx.row(&PROTOCOLS, &key).ok_or_else(|| missing.clone())?;
        tx.delete(&PROTOCOLS, &key);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}
