//! How volumes of a type shall be encrypted. It is kept and shown; a type that has it gets no volumes, since nothing here encrypts yet.
use crate::{
    common::{map, visible},
    input::Input,
    resources::{Volume, VolumeType, volume_type::Encryption},
    type_routes::change,
};
use api::{Access, Call, Error, Map, Reply, Result, Route};
use resource::{Object, Resource as _};
use serde_json::{Value, json};

pub(crate) fn routes() -> Vec<Route> {
    let admin = Access::Rule("volume_extension:volume_type_encryption", "admin");
    vec![
        Route::new("GET", "/v3/types/{id}/encryption", admin, |call| async move { show(&call) }),
        Route::new("POST", "/v3/types/{id}/encryption", admin, create),
        Route::new("GET", "/v3/types/{id}/encryption/{key}", admin, |call| async move { item(&call) }),
        Route::new("PUT", "/v3/types/{id}/encryption/{key}", admin, update),
        Route::new("DELETE", "/v3/types/{id}/encryption/{key}", admin, remove),
        Route::new("GET", "/v3/volumes/{id}/encryption", Access::Authenticated, |call| async move { of_volume(&call) }),
        Route::new(
            "GET",
            "/v3/volumes/{id}/encryption/{key}",
            Access::Authenticated,
            |call| async move { of_volume_item(&call) },
        ),
    ]
}

fn look(call: &Call) -> Result<(Object<VolumeType>, Option<Encryption>)> {
    let kind: Object<VolumeType> = visible(call, call.param("id"))?;
    let encryption = kind.encryption.clone();
    Ok((kind, encryption))
}

fn view(kind: &str, e: &Encryption) -> Map {
    let time = |t: i64| base::Timestamp(t).micros();
    map(json!({
        "volume_type_id": kind, "encryption_id": e.encryption_id, "provider": e.provider, "control_location": e.control_location,
        "cipher": e.cipher, "key_size": e.key_size, "deleted": false, "deleted_at": null, "created_at": time(e.created_at),
        "updated_at": e.updated_at.map(time),
    }))
}

fn show(call: &Call) -> Result<Reply> {
    let (kind, encryption) = look(call)?;
    Ok(Reply::ok(encryption.map_or_else(|| json!({}), |e| view(&kind.id, &e).into())))
}

fn item(call: &Call) -> Result<Reply> {
    let (kind, encryption) = look(call)?;
    let key = call.param("key");
    let shown = encryption.map(|e| view(&kind.id, &e)).unwrap_or_default();
    match shown.get(key).filter(|v| !v.is_null()) {
        Some(value) => Ok(Reply::ok(json!({ key: value }))),
        None => Err(Error::not_found(format!("Volume type {} has no encryption with key {key}.", kind.id))),
    }
}

const KEYS: [&str; 4] = ["provider", "control_location", "cipher", "key_size"];

/// What is given replaces what was.
fn take(into: &mut Encryption, given: &Map) -> Result<()> {
    let input = Input::new(given, &KEYS)?;
    if let Some(provider) = input.text("provider")? {
        if provider.trim().is_empty() {
            return Err(Error::bad_request("provider must be defined."));
        }
        into.provider = provider.to_owned();
    }
    if let Some(location) = input.choice("control_location", &["front-end", "back-end"])? {
        into.control_location = location.to_owned();
    }
    if let Some(cipher) = input.text("cipher")? {
        into.cipher = Some(cipher.to_owned());
    }
    if let Some(size) = input.int("key_size", 0, i64::from(i32::MAX))? {
        into.key_size = Some(size);
    }
    Ok(())
}

/// A type that volumes have keeps what it says of encryption.
fn check_unused(tx: &mut resource::Tx<'_>, kind: &Object<VolumeType>, what: &str) -> Result<()> {
    if tx.children(&Volume::DEF.table, "volume_type_id", &kind.id).is_empty() {
        return Ok(());
    }
    Err(Error::bad_request(format!("Cannot {what} encryption specs. Volume type in use.")))
}

async fn create(call: Call) -> Result<Reply> {
    look(&call)?;
    let given = call.inner("encryption")?.clone();
    Input::new(&given, &KEYS)?.required("provider")?;
    let (id, e) = change(&call, move |tx, kind| {
        if kind.encryption.is_some() {
            return Err(Error::bad_request(format!("Volume type encryption for type {} already exists.", kind.id)));
        }
        check_unused(tx, kind, "create")?;
        let mut new = Encryption {
            encryption_id: base::id::uuid(),
            control_location: "front-end".to_owned(),
            created_at: tx.now.0,
            ..Encryption::default()
        };
        take(&mut new, &given)?;
        kind.encryption = Some(new.clone());
        Ok((kind.id.clone(), new))
    })
    .await?;
    let mut shown = view(&id, &e);
    shown.retain(|key, _| KEYS.contains(&key.as_str()) || matches!(key.as_str(), "volume_type_id" | "encryption_id"));
    Ok(Reply::ok(json!({ "encryption": shown })))
}

fn none(call: &Call) -> Error {
    Error::not_found(format!("Volume type encryption for type {} does not exist.", call.param("id")))
}

async fn update(call: Call) -> Result<Reply> {
    let (missing, named) = (none(&call), call.param("key").to_owned());
    let given = call.inner("encryption")?.clone();
    let changed = given.clone();
    change(&call, move |tx, kind| {
        check_unused(tx, kind, "update")?;
        let now = tx.now.0;
        let e = kind.encryption.as_mut().filter(|e| e.encryption_id == named).ok_or_else(|| missing.clone())?;
        take(e, &given)?;
        e.updated_at = Some(now);
        Ok(())
    })
    .await?;
    Ok(Reply::ok(json!({ "encryption": changed })))
}

async fn remove(call: Call) -> Result<Reply> {
    let (missing, named) = (none(&call), call.param("key").to_owned());
    change(&call, move |tx, kind| {
        check_unused(tx, kind, "delete")?;
        match kind.encryption.take_if(|e| e.encryption_id == named) {
            Some(_) => Ok(()),
            None => Err(missing.clone()),
        }
    })
    .await?;
    Ok(Reply::empty(202))
}

fn of_volume(call: &Call) -> Result<Reply> {
    let volume: Object<Volume> = visible(call, call.param("id"))?;
    call.require("volume:get", Some(&volume.map))?;
    // No volume here is encrypted: see `create`.
    Ok(Reply::ok(json!({ "encryption_key_id": Value::Null })))
}

fn of_volume_item(call: &Call) -> Result<Reply> {
    of_volume(call)?;
    match call.param("key") {
        "encryption_key_id" => Ok(Reply::ok(Value::Null)),
        key => Err(Error::not_found(format!("Volume {} has no encryption with key {key}.", call.param("id")))),
    }
}
