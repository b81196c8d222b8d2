//! Volumes between rows and nodes: what the node that keeps one has to do, what a server's node has to plug, and what both have seen.
//!
//! The block storage service owns the rows; it is reached by the names of its tables only. Two tables are written here and nowhere
//! else: what was last reported of each volume, and which attachments a server's node holds.
use super::{Nodes, build::Look, effects};
use crate::{
    common::{flag, object, text},
    resources::Server,
    server::{plan, state::task},
};
use api::{Cx, Map, Result};
use assign::{AttachedVolume, Export, Keep, LiveExport, ServerReport, VolumeAssignment, VolumeReport, VolumeState, VolumeUpload};
use resource::{Reader, Row, engine};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};
use store::{Index, Table, Tx};

pub(crate) static VOLUMES: Table = Table { name: "volume/volumes", indexes: &[Index { name: "host", path: "/host" }] };
pub(crate) static ATTACHMENTS: Table = Table {
    name: "volume/attachments",
    indexes: &[Index { name: "volume_id", path: "/volume_id" }, Index { name: "instance", path: "/instance" }],
};
pub(super) static SNAPSHOTS: Table =
    Table { name: "volume/snapshots", indexes: &[Index { name: "volume_id", path: "/volume_id" }] };
pub(super) static UPLOADS: Table = Table { name: "volume/uploads", indexes: &[Index { name: "volume_id", path: "/volume_id" }] };
/// What a storage node reported of a volume, by volume id.
pub(super) static SEEN: Table = Table { name: "volume/seen", indexes: &[Index { name: "host", path: "/host" }] };
/// Attachments that a server holds, by attachment id.
pub(crate) static PLUGGED: Table = Table { name: "volume/plugged", indexes: &[Index { name: "server_id", path: "/server_id" }] };

#[cfg(test)]
pub(super) fn tables() -> [&'static Table; 6] {
    [&VOLUMES, &ATTACHMENTS, &SNAPSHOTS, &UPLOADS, &SEEN, &PLUGGED]
}

fn number(row: &Map, key: &str) -> u64 {
    row.get(key).and_then(Value::as_u64).unwrap_or(0)
}

/// A volume's assignment and its host; nothing for one that no host keeps.
pub(super) fn volume(look: &mut Look<'_>, id: &str) -> Option<(String, VolumeAssignment)> {
    let row = look.any(&VOLUMES, id)?;
    let volume = object(&row);
    let host = Some(text(volume, "host")).filter(|h| !h.is_empty())?.to_owned();
    let source = volume.get("source").cloned().unwrap_or_default();
    let source = match serde_json::from_value(source) {
        Ok(source) => source,
        Err(error) => {
            tracing::error!(volume = id, %error, "The source of a volume cannot be read; its node is not told of it");
            return None;
        }
    };
    let mut snapshots: Vec<String> = look
        .find(&SNAPSHOTS, "volume_id", id)
        .iter()
        .filter(|s| s.text("keep") == "present")
        .map(|s| s.id().to_owned())
        .collect();
    snapshots.sort();
    let mut exports = Vec::new();
    for row in look.find(&ATTACHMENTS, "volume_id", id) {
        let a = object(&row);
        let is_held = look.any(&PLUGGED, row.id()).is_some();
        if flag(a, "wanted") || is_held {
            let read_only = text(a, "attach_mode") == "ro";
            exports.push(Export { attachment_id: row.id().to_owned(), epoch: number(a, "epoch"), read_only });
        }
    }
    exports.sort_by(|a, b| a.attachment_id.cmp(&b.attachment_id));
    let upload = |row: &Arc<Row>| VolumeUpload { image_id: row.id().to_owned(), format: row.text("format").to_owned() };
    let mut uploads: Vec<VolumeUpload> = look.find(&UPLOADS, "volume_id", id).iter().map(upload).collect();
    uploads.sort_by(|a, b| a.image_id.cmp(&b.image_id));
    let assignment = VolumeAssignment {
        id: id.to_owned(),
        revision: number(volume, "intent"),
        request_id: text(volume, "request_id").to_owned(),
        keep: if text(volume, "keep") == "deleted" { Keep::Deleted } else { Keep::Present },
        size_gib: number(volume, "size"),
        source,
        generation: number(volume, "generation"),
        snapshots,
        exports,
        uploads,
    };
    Some((host, assignment))
}

/// The volumes that a server's node has to plug, in the guest's order: each that is wanted and served. One that is plugged stays so
/// while its storage daemon is away for a moment.
pub(super) fn attached(look: &mut Look<'_>, server: &str) -> Vec<AttachedVolume> {
    let mut rows = look.find(&ATTACHMENTS, "instance", server);
    rows.retain(|row| flag(object(row), "wanted") && !flag(object(row), "deleting"));
    rows.sort_by_key(|row| order(row));
    rows.iter().filter_map(|row| one_attached(look, row)).collect()
}

/// `/dev/vdb` before `/dev/vdaa`.
fn order(row: &Row) -> (usize, String, String) {
    let point = row.text("mountpoint");
    (point.len(), point.to_owned(), row.id().to_owned())
}

fn one_attached(look: &mut Look<'_>, row: &Row) -> Option<AttachedVolume> {
    let a = object(row);
    let (volume_id, epoch) = (text(a, "volume_id").to_owned(), number(a, "epoch"));
    let seen = look.any(&SEEN, &volume_id);
    let report = seen.as_ref().and_then(|r| r.decode::<VolumeReport>().ok());
    let is_ours = |e: &&LiveExport| e.attachment_id == row.id() && e.epoch == epoch;
    let live = report.as_ref().and_then(|r| r.exports.iter().find(is_ours).cloned());
    let (endpoint, export) = match live {
        Some(live) => (live.endpoint, live.export),
        None => {
            let held = look.any(&PLUGGED, row.id()).filter(|p| number(object(p), "epoch") == epoch)?;
            (held.text("endpoint").to_owned(), held.text("export").to_owned())
        }
    };
    Some(AttachedVolume {
        attachment_id: row.id().to_owned(),
        volume_id,
        epoch,
        endpoint,
        export,
        size_gib: report.map_or(0, |r| r.size_gib),
        read_only: text(a, "attach_mode") == "ro",
        boot: flag(a, "boot"),
    })
}

/// The volume that a row of the block storage service is about.
pub(super) fn volume_of(reader: &Reader<'_>, table: &str, id: &str) -> Option<String> {
    if table == VOLUMES.name {
        return Some(id.to_owned());
    }
    let table = [&ATTACHMENTS, &SNAPSHOTS, &UPLOADS].into_iter().find(|t| t.name == table)?;
    reader.get(table, id).map(|row| row.text("volume_id").to_owned())
}

/// The server that an attachment is about.
pub(super) fn server_of(reader: &Reader<'_>, table: &str, id: &str) -> Option<String> {
    let row = (table == ATTACHMENTS.name).then(|| reader.get(&ATTACHMENTS, id)).flatten()?;
    Some(row.text("instance").to_owned()).filter(|s| !s.is_empty())
}

/// All volumes that there are.
pub(super) fn all(reader: &Reader<'_>) -> Vec<String> {
    reader.all(&VOLUMES).map(|r| r.id().to_owned()).collect()
}

/// Writes what a storage node saw. A node speaks only for volumes that it keeps.
pub(super) fn seen(tx: &mut Tx<'_>, cx: &Cx, host: &str, report: &VolumeReport) -> Result<()> {
    if tx.get(&VOLUMES, &report.id).is_none_or(|v| v.text("host") != host) {
        return Ok(());
    }
    let mut value = serde_json::to_value(report).map_err(|e| api::Error::internal(format!("a volume's report: {e}")))?;
    value["host"] = host.into();
    if tx.get(&SEEN, &report.id).is_none_or(|old| *old.value() != value) {
        tx.put(&SEEN, &report.id, value);
    }
    if report.state == VolumeState::Failed {
        fail_boots(tx, cx, report)?;
    }
    Ok(())
}

/// A server that waits for a root disk which will not come is in error.
fn fail_boots(tx: &mut Tx<'_>, cx: &Cx, report: &VolumeReport) -> Result<()> {
    for row in tx.find(&ATTACHMENTS, "volume_id", &report.id) {
        let a = object(&row);
        if !(flag(a, "boot") && flag(a, "wanted")) {
            continue;
        }
        let Some(mut server) = resource::load_any::<Server>(tx, text(a, "instance"))? else { continue };
        if server.deleting() || server.task_state.as_deref() != Some(task::SPAWNING) {
            continue;
        }
        let before = server.clone().into_map()?;
        let cause = report.cause.as_deref().unwrap_or("Its storage node gave no reason.");
        let cause = format!("Build of instance {} aborted: Volume {} could not be made. {cause}", server.id, report.id);
        let done = plan::fail(&mut server.body, &cause, tx.now);
        effects::carry_out(tx, cx, server, &before, done, "")?;
    }
    Ok(())
}

/// Writes which attachments the server's node holds. `keep` are held whatever the node says: by a server that is on no node.
pub(super) fn plugged(tx: &mut Tx<'_>, host: &str, report: &ServerReport, keep: &BTreeSet<String>) {
    let now: BTreeSet<&str> = report.volumes.iter().map(String::as_str).collect();
    for old in tx.find(&PLUGGED, "server_id", &report.id) {
        if !now.contains(old.id()) && !keep.contains(old.id()) {
            tx.delete(&PLUGGED, old.id());
        }
    }
    for id in now {
        let Some(attachment) = tx.get(&ATTACHMENTS, id).filter(|a| a.text("instance") == report.id) else { continue };
        hold(tx, &attachment, host);
    }
}

/// Notes that the attachment's server holds it. The way to it is kept, for when its storage node is away.
pub(crate) fn hold(tx: &mut Tx<'_>, attachment: &Row, host: &str) {
    let (a, id) = (object(attachment), attachment.id().to_owned());
    let report = tx.get(&SEEN, text(a, "volume_id")).and_then(|r| r.decode::<VolumeReport>().ok());
    let live = report.and_then(|r| r.exports.into_iter().find(|e| e.attachment_id == id));
    let old = tx.get(&PLUGGED, &id);
    let of = |new: Option<&String>, key: &str| {
        new.cloned().or_else(|| old.as_ref().map(|o| o.text(key).to_owned())).unwrap_or_default()
    };
    let value = json!({
        "server_id": a.get("instance"), "host": host, "epoch": a.get("epoch"),
        "endpoint": of(live.as_ref().map(|l| &l.endpoint), "endpoint"), "export": of(live.as_ref().map(|l| &l.export), "export"),
    });
    if old.is_none_or(|old| *old.value() != value) {
        tx.put(&PLUGGED, &id, value);
    }
}

/// The attachments of a server.
pub(crate) fn of_server(tx: &mut Tx<'_>, server: &str) -> Vec<Arc<Row>> {
    tx.find(&ATTACHMENTS, "instance", server)
}

/// The server is placed anew: its attachments get its epoch, so that whoever had them before is shut out.
pub(crate) fn move_all(tx: &mut Tx<'_>, cx: &Cx, server: &str, epoch: u64) -> Result<()> {
    let rows = of_server(tx, server);
    if rows.is_empty() {
        return Ok(());
    }
    let def = cx.registry.get(ATTACHMENTS.name)?;
    let cx = crate::common::elevated(cx);
    for row in rows.iter().filter(|r| flag(object(r), "wanted")) {
        let input = crate::common::map(json!({ "epoch": epoch }));
        engine::update(tx, def, &cx, row.id(), &input)?;
    }
    Ok(())
}

/// The server goes, or is gone: its attachments end. With `gone` nobody holds them any more.
pub(crate) fn end_all(tx: &mut Tx<'_>, cx: &Cx, server: &str, gone: bool) -> Result<()> {
    let rows = of_server(tx, server);
    if rows.is_empty() {
        return Ok(());
    }
    let def = cx.registry.get(ATTACHMENTS.name)?;
    let cx = crate::common::elevated(cx);
    for row in rows {
        if gone {
            tx.delete(&PLUGGED, row.id());
        }
        if !flag(object(&row), "deleting") {
            engine::delete(tx, def, &cx, row.id())?;
        }
    }
    Ok(())
}

impl Nodes {
    /// Reports of volumes that say nothing new are not worth a transaction.
    pub(super) fn is_news(&self, host: &str, report: &VolumeReport) -> bool {
        let reader = self.db.read();
        let old = reader.get(&SEEN, &report.id).filter(|r| r.text("host") == host);
        old.and_then(|r| r.decode::<VolumeReport>().ok()).as_ref() != Some(report)
    }
}
