//! Metadata of volumes and snapshots: the same requests on two kinds of rows.
use crate::{
    common::{own, require, visible},
    create::check_metadata,
    resources::{Snapshot, Volume},
};
use api::{Access, Call, Error, Map, Reply, Result, Route};
use resource::{Object, Resource};
use serde_json::{Value, json};
use std::collections::BTreeMap;

type Metadata = BTreeMap<String, String>;

/// A row that has metadata.
trait Described: Resource + Send + 'static {
    const READ: &'static str;
    const RULE: &'static str;
    fn metadata(&mut self) -> &mut Metadata;
}
impl Described for Volume {
    const READ: &'static str = "volume:get_volume_metadata";
    const RULE: &'static str = "volume:update_volume_metadata";
    fn metadata(&mut self) -> &mut Metadata {
        &mut self.metadata
    }
}
impl Described for Snapshot {
    const READ: &'static str = "volume:get_snapshot_metadata";
    const RULE: &'static str = "volume:update_snapshot_metadata";
    fn metadata(&mut self) -> &mut Metadata {
        &mut self.metadata
    }
}

fn look<T: Described>(call: &Call) -> Result<(Object<T>, Metadata)> {
    let mut found: Object<T> = visible(call, call.param("id"))?;
    require(call, T::READ, &found.map)?;
    let metadata = found.body.metadata().clone();
    Ok((found, metadata))
}

fn show<T: Described>(call: &Call) -> Result<Reply> {
    Ok(Reply::ok(json!({ "metadata": look::<T>(call)?.1 })))
}

fn given(call: &Call, key: &str) -> Result<Metadata> {
    let map: Option<&Map> = call.object()?.get(key).and_then(Value::as_object);
    let map = map.ok_or_else(|| Error::bad_request(format!("Invalid input: the body must hold an object '{key}'.")))?;
    let texts: Option<Metadata> = map.iter().map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect();
    let metadata =
        texts.ok_or_else(|| Error::bad_request("Invalid input for field/attribute metadata: values must be strings."))?;
    check_metadata(&metadata)?;
    Ok(metadata)
}

async fn change<T: Described>(call: &Call, with: impl Fn(&mut Metadata) -> Result<()> + Send + 'static) -> Result<Metadata> {
    let (found, _) = look::<T>(call)?;
    require(call, T::RULE, &found.map)?;
    let id = found.id;
    call.transact(move |cx, tx| {
        let mut row: Object<T> = own(tx, cx, &id)?;
        with(row.body.metadata())?;
        row.save(tx)?;
        Ok(row.body.metadata().clone())
    })
    .await
}

async fn add<T: Described>(call: Call) -> Result<Reply> {
    let more = given(&call, "metadata")?;
    let all = change::<T>(&call, move |m| {
        m.extend(more.clone());
        Ok(())
    })
    .await?;
    Ok(Reply::ok(json!({ "metadata": all })))
}

async fn replace<T: Described>(call: Call) -> Result<Reply> {
    let new = given(&call, "metadata")?;
    let all = change::<T>(&call, move |m| {
        m.clone_from(&new);
        Ok(())
    })
    .await?;
    Ok(Reply::ok(json!({ "metadata": all })))
}

fn unknown(key: &str) -> Error {
    Error::not_found(format!("Metadata item {key} was not found."))
}

fn show_item<T: Described>(call: &Call) -> Result<Reply> {
    let key = call.param("key");
    let (_, metadata) = look::<T>(call)?;
    let value = metadata.get(key).ok_or_else(|| unknown(key))?;
    Ok(Reply::ok(json!({ "meta": { key: value } })))
}

async fn put_item<T: Described>(call: Call) -> Result<Reply> {
    let key = call.param("key").to_owned();
    let item = given(&call, "meta")?;
    let Some(value) = item.get(&key).filter(|_| item.len() == 1).cloned() else {
        return Err(Error::bad_request("Request body and URI mismatch: the body must hold the one item that the path names."));
    };
    let name = key.clone();
    change::<T>(&call, move |m| {
        m.insert(name.clone(), value.clone());
        Ok(())
    })
    .await?;
    Ok(Reply::ok(json!({ "meta": item })))
}

async fn drop_item<T: Described>(call: Call) -> Result<Reply> {
    let key = call.param("key").to_owned();
    change::<T>(&call, move |m| m.remove(&key).map(|_| ()).ok_or_else(|| unknown(&key))).await?;
    Ok(Reply::empty(200))
}

fn of<T: Described>(all: &'static str, one: &'static str) -> Vec<Route> {
    // The row decides: see `change`.
    let any = Access::Authenticated;
    vec![
        Route::new("GET", all, any, |call| async move { show::<T>(&call) }),
        Route::new("POST", all, any, add::<T>),
        Route::new("PUT", all, any, replace::<T>),
        Route::new("GET", one, any, |call| async move { show_item::<T>(&call) }),
        Route::new("PUT", one, any, put_item::<T>),
        Route::new("DELETE", one, any, drop_item::<T>),
    ]
}

pub(crate) fn routes() -> Vec<Route> {
    let volumes = of::<Volume>("/v3/volumes/{id}/metadata", "/v3/volumes/{id}/metadata/{key}");
    volumes.into_iter().chain(of::<Snapshot>("/v3/snapshots/{id}/metadata", "/v3/snapshots/{id}/metadata/{key}")).collect()
}

/// Rules of what the routes ask.
pub(crate) const RULES: [(&str, &str); 4] =
    [(Volume::READ, "reader"), (Volume::RULE, "member"), (Snapshot::READ, "reader"), (Snapshot::RULE, "member")];
