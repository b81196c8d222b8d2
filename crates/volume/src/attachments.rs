//! `/attachments`: how a service besides the compute service gets a volume (since 3.27).
//!
//! A reservation names the consumer; with a connector, the storage node exports the volume and the answer says where. The consumer plugs
//! by itself and tells when it is done (`os-complete`).
use crate::{
    common::{SEEN, at, object, own, require, text, visible},
    listing,
    resources::{Attachment, Volume},
};
use api::{Access, Call, Error, Map, Reply, Result, Route};
use resource::{Object, Resource as _, engine};
use serde_json::{Value, json};
use std::time::Duration;

/// How long a request waits for the export that it asked for.
const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) fn routes() -> Vec<Route> {
    let list = Access::Rule("volume:get_all_attachments", "reader");
    let any = Access::Authenticated;
    [
        Route::new("GET", "/v3/attachments", list, |call| async move { listing::reply(Attachment::DEF, &call, false, brief) }),
        Route::new("GET", "/v3/attachments/detail", list, |call| async move {
            listing::reply(Attachment::DEF, &call, false, listing::plain)
        }),
        Route::new("POST", "/v3/attachments", any, create),
        Route::new("GET", "/v3/attachments/{id}", any, show),
        Route::new("PUT", "/v3/attachments/{id}", any, update),
        Route::new("DELETE", "/v3/attachments/{id}", any, remove),
        Route::new("POST", "/v3/attachments/{id}/action", any, act),
    ]
    .into_iter()
    .map(|r| r.since("3.27"))
    .collect()
}

fn brief(_row: &Map, out: &mut Map, _cx: &api::Cx) {
    out.retain(|key, _| matches!(key.as_str(), "id" | "status" | "instance" | "volume_id"));
}

async fn show(call: Call) -> Result<Reply> {
    let found: Object<Attachment> = visible(&call, call.param("id"))?;
    require(&call, "volume:get_attachment", &found.map)?;
    Ok(Reply::ok(listing::wrapped(Attachment::DEF, &call, &found.map, listing::plain)))
}

fn connector(given: &Map) -> Result<Option<Map>> {
    match given.get("connector") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(c)) if c.is_empty() => Ok(None),
        Some(Value::Object(c)) => Ok(Some(c.clone())),
        Some(_) => Err(Error::bad_request("Invalid input for field/attribute connector: it must be an object.")),
    }
}

/// Asks for the export.
fn connect(a: &mut Object<Attachment>, connector: Map, mode: Option<&str>) {
    a.mountpoint = connector.get("mountpoint").and_then(Value::as_str).map(str::to_owned);
    a.attached_host = connector.get("host").and_then(Value::as_str).map(str::to_owned);
    let mode = mode.or_else(|| connector.get("mode").and_then(Value::as_str));
    a.attach_mode = if mode == Some("ro") { "ro" } else { "rw" }.to_owned();
    a.connector = Some(connector);
    a.wanted = true;
}

async fn create(call: Call) -> Result<Reply> {
    let given = call.inner("attachment")?.clone();
    require(&call, "volume:attachment_create", &given)?;
    let volume = text(&given, "volume_uuid").to_owned();
    if !base::id::is_uuid(&volume) {
        return Err(Error::bad_request("Invalid input for field/attribute volume_uuid: it must be the id of a volume."));
    }
    let consumer = match given.get("instance_uuid") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(id)) if base::id::is_uuid(id) => id.clone(),
        Some(_) => return Err(Error::bad_request("Invalid input for field/attribute instance_uuid: it must be a UUID.")),
    };
    let mode = given.get("mode").and_then(Value::as_str).filter(|_| at(&call.cx, 54)).map(str::to_owned);
    if mode.as_deref().is_some_and(|m| !matches!(m, "rw" | "ro")) {
        return Err(Error::bad_request("Invalid input for field/attribute mode: it must be rw or ro."));
    }
    let connector = connector(&given)?;
    let connected = connector.is_some();
    let row = call
        .transact(move |cx, tx| {
            let body = Attachment { volume_id: volume.clone(), consumer: Some(consumer.clone()), ..Attachment::default() };
            let project = cx.caller.project_id();
            let mut a = Object::new(base::id::uuid(), project, body, tx.now, &cx.request_id);
            a.attach_mode = mode.clone().unwrap_or_else(|| "rw".to_owned());
            if let Some(connector) = connector.clone() {
                connect(&mut a, connector, mode.as_deref());
            }
            engine::insert(tx, Attachment::DEF, cx, a.into_map()?)
        })
        .await?;
    if connected {
        exported(&call, &row).await?;
    }
    Ok(Reply::ok(listing::wrapped(Attachment::DEF, &call, &row, listing::plain)))
}

/// Waits until the storage node serves the attachment.
async fn exported(call: &Call, row: &Map) -> Result<()> {
    let (id, volume) = (text(row, "id"), text(row, "volume_id"));
    let serves = || {
        let seen = call.reader().get(&SEEN, volume);
        let exports = seen.as_ref().and_then(|s| s.field("exports").as_array().cloned()).unwrap_or_default();
        exports.iter().any(|e| e["attachment_id"] == id)
    };
    let mut changes = call.cloud.db.view.changes();
    let wait = async {
        while !serves() {
            if changes.recv().await.is_err() {
                // Missed some: look again.
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.map_err(|_| {
        Error::unavailable(format!(
            "Volume {volume} is not exported yet; its attachment {id} waits. Update it again, or delete it."
        ))
    })
}

async fn update(call: Call) -> Result<Reply> {
    let id = call.param("id").to_owned();
    let found: Object<Attachment> = visible(&call, &id)?;
    require(&call, "volume:attachment_update", &found.map)?;
    let given = call.inner("attachment")?.clone();
    let Some(connector) = connector(&given)? else {
        return Err(Error::bad_request("Invalid input for field/attribute connector: it is required."));
    };
    let mode = found.attach_mode.clone();
    let row = call
        .transact(move |cx, tx| {
            let a: Object<Attachment> = own(tx, cx, &id)?;
            if a.consumer.is_none() {
                return Err(Error::bad_request(format!(
                    "Attachment {id} is that of a server; detach it through the compute API."
                )));
            }
            let old = a.clone().into_map()?;
            let mut a = a;
            connect(&mut a, connector.clone(), Some(&mode));
            let mut row = a.into_map()?;
            crate::common::touch(&mut row, tx.now, &cx.request_id);
            engine::replace(tx, Attachment::DEF, cx, &old, row)
        })
        .await?;
    exported(&call, &row).await?;
    Ok(Reply::ok(listing::wrapped(Attachment::DEF, &call, &row, listing::plain)))
}

async fn remove(call: Call) -> Result<Reply> {
    let id = call.param("id").to_owned();
    let found: Object<Attachment> = visible(&call, &id)?;
    require(&call, "volume:attachment_delete", &found.map)?;
    let volume = found.volume_id.clone();
    call.transact(move |cx, tx| engine::delete(tx, Attachment::DEF, cx, &id)).await?;
    let reader = call.reader();
    let left: Vec<Value> = reader
        .find(&Attachment::DEF.table, "volume_id", &volume)
        .iter()
        .map(|r| object(r))
        .filter(|a| !crate::common::flag(a, "deleting"))
        .map(|a| listing::one(Attachment::DEF, a, &call.cx, &reader, false, brief).into())
        .collect();
    Ok(Reply::ok(json!({ "attachments": left })))
}

/// `os-complete`: the consumer has plugged it.
async fn act(call: Call) -> Result<Reply> {
    let id = call.param("id").to_owned();
    let found: Object<Attachment> = visible(&call, &id)?;
    if !at(&call.cx, 44) || call.object()?.get("os-complete").is_none() {
        return Err(Error::bad_request("There is no such action; attachments know os-complete (since 3.44)."));
    }
    require(&call, "volume:attachment_complete", &found.map)?;
    call.transact(move |cx, tx| {
        let mut a: Object<Attachment> = own(tx, cx, &id)?;
        if a.consumer.is_none() {
            return Err(Error::bad_request(format!("Attachment {id} is that of a server; its node tells when it is plugged.")));
        }
        if !matches!(a.attach_status.as_str(), "attaching" | "attached") {
            return Err(Error::bad_request(format!(
                "Invalid attachment: Volume attachment {id} is {}; update it with a connector first.",
                a.attach_status
            )));
        }
        a.attach_status = "attached".to_owned();
        a.attached_at = Some(tx.now.0);
        a.deadline = None;
        a.save(tx)?;
        crate::attach::mark(tx, &a)
    })
    .await?;
    Ok(Reply::empty(204))
}

/// A record that somebody has the volume, without a data path of ours (`os-attach`).
pub(crate) fn record(
    tx: &mut resource::Tx<'_>,
    cx: &api::Cx,
    volume: &mut Object<Volume>,
    consumer: &str,
    mountpoint: &str,
    host: Option<&str>,
    mode: &str,
) -> Result<()> {
    let body = Attachment {
        volume_id: volume.id.clone(),
        consumer: Some(consumer.to_owned()),
        attach_status: "attached".to_owned(),
        attach_mode: mode.to_owned(),
        mountpoint: Some(mountpoint.to_owned()),
        attached_host: host.map(str::to_owned),
        attached_at: Some(tx.now.0),
        ..Attachment::default()
    };
    let a = Object::new(base::id::uuid(), Some(volume.project_id()), body, tx.now, &cx.request_id);
    let id = a.id.clone();
    let row = a.into_map()?;
    tx.put(&Attachment::DEF.table, &id, row.into());
    volume.admin_metadata.insert("attached_mode".to_owned(), mode.to_owned());
    engine::tell(tx, &volume.id, &cx.request_id, &format!("{consumer} has it, as was said by its user"));
    Ok(())
}
