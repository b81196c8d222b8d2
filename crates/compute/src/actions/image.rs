//! `createImage` and `createBackup`: an image of the root disk. The row is made at once; the node fills it.
use super::{Wish, wish};
use crate::{
    common::{SNAPSHOTS, at, elevated, int, map, object, text, touch},
    quota,
    resources::Server,
    server::{
        records,
        state::{Needs, task, vm},
    },
    shape::{self, Shape, opt, req},
};
use api::{Call, Cx, Error, Map, Reply, Result};
use resource::{Object, engine};
use serde_json::{Value, json};
use store::Tx;

pub(super) const CREATE_IMAGE: Shape = Shape::Object(&[req("name", &shape::NAME), opt("metadata", &shape::METADATA)]);
pub(super) const CREATE_BACKUP: Shape = Shape::Object(&[
    req("name", &shape::NAME),
    req("backup_type", &Shape::Text { min: 0, max: 255 }),
    req("rotation", &shape::NOT_NEGATIVE),
    opt("metadata", &shape::METADATA),
]);

const STATES: &[&str] = &[vm::ACTIVE, vm::STOPPED, vm::PAUSED, vm::SUSPENDED];
/// Properties of images that their snapshots do not inherit (Nova's `non_inheritable_image_properties`).
const OWN: [&str; 6] = [
    "cache_in_nova",
    "bittorrent",
    "img_signature_hash_method",
    "img_signature",
    "img_signature_key_type",
    "img_signature_certificate_uuid",
];

/// What an image of a server is called and marked with.
#[derive(Clone)]
pub(super) struct Making {
    pub(super) name: String,
    /// `snapshot`, `backup` or `shelve`.
    pub(super) kind: &'static str,
    pub(super) backup_type: String,
    pub(super) rotation: i64,
    pub(super) metadata: std::collections::BTreeMap<String, String>,
}

/// Makes the image's row, waiting for its data.
pub(super) fn begin(tx: &mut Tx<'_>, cx: &Cx, server: &mut Object<Server>, making: &Making) -> Result<String> {
    let images = cx.registry.get("image/images")?;
    let cx = elevated(cx);
    let base = server.root.clone().unwrap_or_default();
    let input = map(json!({
        "name": making.name, "visibility": "private", "container_format": "bare", "disk_format": "qcow2",
        "min_disk": base.min_disk.max(server.flavor.disk), "min_ram": base.min_ram,
    }));
    let mut row = engine::create(tx, images, &cx, &input)?;
    let mut properties: Map =
        base.properties.iter().filter(|(k, _)| !OWN.contains(&k.as_str())).map(|(k, v)| (k.clone(), v.as_str().into())).collect();
    properties.extend(map(json!({
        "image_type": if making.kind == "backup" { "backup" } else { "snapshot" }, "instance_uuid": server.id, "user_id": server.user_id,
        "base_image_ref": server.image_id, "owner_id": server.project_id(), "image_location": "snapshot", "image_state": "available",
    })));
    if making.kind == "backup" {
        properties.insert("backup_type".into(), making.backup_type.as_str().into());
    }
    properties.extend(making.metadata.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))));
    row.insert("properties".into(), properties.into());
    row.insert("status".into(), "saving".into());
    let id = text(&row, "id").to_owned();
    tx.put(&images.table, &id, row.into());
    server.snapshot = Some(id.clone());
    let work = json!({
        "server_id": server.id, "node_id": server.node_id, "format": "qcow2", "request_id": &*cx.request_id, "kind": making.kind,
        "backup_type": making.backup_type, "rotation": making.rotation,
    });
    if making.kind != "shelve" {
        tx.put(&SNAPSHOTS, &id, work);
    }
    Ok(id)
}

fn reply(call: &Call, id: &str) -> Reply {
    if at(&call.cx, 45) {
        return Reply::json(202, json!({ "image_id": id }));
    }
    let endpoint = call.cx.settings.public_endpoint.trim_end_matches('/');
    Reply::empty(202).header("location", format!("{endpoint}/image/v2/images/{id}"))
}

async fn make(call: Call, server: Object<Server>, making: Making, action: &'static str, task: &'static str) -> Result<Reply> {
    if !at(&call.cx, 39) {
        let reader = call.reader();
        let limit = quota::limits_of(&reader, &call.cx, server.project_id(), None)("metadata_items");
        quota::check_metadata(limit, making.metadata.len())?;
    }
    if server.boot_volume {
        return Err(Error::bad_request(format!(
            "Instance {} boots from a volume and has no disk of its own to make an image of; make a snapshot of the volume.",
            server.id
        )));
    }
    let (method, event) = if task == task::IMAGE_BACKUP {
        ("backup", "compute_backup_instance")
    } else {
        ("snapshot", "compute_snapshot_instance")
    };
    let asked = Wish { method, action, event, needs: Needs::vm(STATES), task };
    let row = wish(&call, &server, asked, move |cx, tx, s| {
        if s.node_id.is_none() {
            return Err(Error::conflict(format!("Instance {} has no host.", s.id)));
        }
        begin(tx, cx, s, &making)?;
        // The node's work on the guest itself goes on as it was.
        s.intent -= 1;
        Ok(())
    })
    .await?;
    Ok(reply(&call, text(&row, "snapshot")))
}

pub(super) async fn create(call: Call, server: Object<Server>, body: Value) -> Result<Reply> {
    let making = Making {
        name: body["name"].as_str().unwrap_or_default().trim().to_owned(),
        kind: "snapshot",
        backup_type: String::new(),
        rotation: 0,
        metadata: crate::server::request::metadata(body.get("metadata")),
    };
    make(call, server, making, "createImage", task::IMAGE_SNAPSHOT).await
}

pub(super) async fn backup(call: Call, server: Object<Server>, body: Value) -> Result<Reply> {
    let making = Making {
        name: body["name"].as_str().unwrap_or_default().trim().to_owned(),
        kind: "backup",
        backup_type: body["backup_type"].as_str().unwrap_or_default().to_owned(),
        rotation: shape::as_int(&body["rotation"]).unwrap_or(0),
        metadata: crate::server::request::metadata(body.get("metadata")),
    };
    make(call, server, making, "createBackup", task::IMAGE_BACKUP).await
}

/// Deletes the oldest backups of a kind beyond the number that is kept.
pub(crate) fn rotate(tx: &mut Tx<'_>, cx: &Cx, server_id: &str, backup_type: &str, rotation: i64) -> Result<()> {
    let images = cx.registry.get("image/images")?;
    let is =
        |row: &Map, key: &str, want: &str| row.get("properties").and_then(|p| p.get(key)).and_then(Value::as_str) == Some(want);
    let mut backups: Vec<(i64, String)> = tx
        .all(&images.table)
        .iter()
        .map(|r| object(r))
        .filter(|r| is(r, "instance_uuid", server_id) && is(r, "image_type", "backup") && is(r, "backup_type", backup_type))
        .filter(|r| text(r, "status") == "active")
        .map(|r| (int(r, "created_at"), text(r, "id").to_owned()))
        .collect();
    backups.sort();
    let keep = usize::try_from(rotation).unwrap_or(0);
    let excess = backups.len().saturating_sub(keep);
    for (_, id) in backups.iter().take(excess) {
        records::drop_image(tx, cx, id)?;
    }
    Ok(())
}

/// Fills the image's row with what the node stored.
pub(crate) fn fill(row: &Map, blob: &assign::BlobInfo, now: base::Timestamp, request_id: &str) -> Map {
    let mut row = row.clone();
    let values = map(json!({
        "status": "active", "size": blob.size, "virtual_size": blob.virtual_size, "checksum": blob.checksum, "os_hash_algo": "sha512",
        "os_hash_value": blob.blob, "disk_format": blob.format,
    }));
    row.extend(values);
    touch(&mut row, now, request_id);
    row
}
