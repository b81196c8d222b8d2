//! Images made from servers: what is asked of the node, and what becomes of its answer.
use crate::{
    actions,
    common::{SNAPSHOTS, object},
    resources::Server,
    server::{
        records,
        state::{task, vm},
    },
};
use api::{Cx, Result};
use assign::{BlobInfo, SnapshotReport};
use resource::{Object, engine};
use serde_json::json;
use store::Tx;

/// Asks the node of a server that is being shelved, and is off by now, for the image. The image's row exists already.
pub(crate) fn request(tx: &mut Tx<'_>, server: &Object<Server>, image_id: &str) {
    let row = json!({
        "server_id": server.id, "node_id": server.node_id, "request_id": server.request_id(), "format": "qcow2",
        "kind": "shelve",
    });
    tx.put(&SNAPSHOTS, image_id, row);
}

/// The node's answer. One that is not waited for any more changes nothing.
pub(super) fn done(tx: &mut Tx<'_>, cx: &Cx, host: &str, report: &SnapshotReport) -> Result<()> {
    let image = report.image_id.as_str();
    let Some(asked) = tx.get(&SNAPSHOTS, image) else { return Ok(()) };
    let server = resource::load_any::<Server>(tx, asked.text("server_id"))?;
    if server.as_ref().is_some_and(|s| s.host.as_deref() != Some(host)) {
        return Ok(());
    }
    let request = asked.text("request_id").to_owned();
    let cx = &Cx { request_id: request.as_str().into(), ..cx.clone() };
    tx.delete(&SNAPSHOTS, image);
    let failed = match &report.result {
        Ok(blob) => activate(tx, cx, image, blob)?,
        Err(cause) => Some(cause.clone()),
    };
    if failed.is_some() {
        records::drop_image(tx, cx, image)?;
    } else if asked.text("kind") == "backup" {
        let rotation = asked.field("rotation").as_i64().unwrap_or(0);
        actions::rotate(tx, cx, asked.text("server_id"), asked.text("backup_type"), rotation)?;
    }
    match server {
        Some(server) if !server.deleting() => settle(tx, cx, server, image, failed.as_deref()),
        Some(_) | None => Ok(()),
    }
}

/// Makes the image active; gives the cause when there is none to make so.
fn activate(tx: &mut Tx<'_>, cx: &Cx, image: &str, blob: &BlobInfo) -> Result<Option<String>> {
    let table = &cx.registry.get("image/images")?.table;
    let row = tx.get(table, image).filter(|r| r.field("deleting") != true);
    let Some(row) = row else { return Ok(Some(format!("Image {image} was deleted while it was made."))) };
    let row = actions::fill(object(&row), blob, tx.now, &cx.request_id);
    tx.put(table, image, row.into());
    engine::tell(tx, image, &cx.request_id, "It was made from a server's disk");
    Ok(None)
}

/// Ends the server's task that waits for this image. A shelved server then leaves its node.
fn settle(tx: &mut Tx<'_>, cx: &Cx, mut server: Object<Server>, image: &str, failed: Option<&str>) -> Result<()> {
    let task = server.task_state.clone().unwrap_or_default();
    let is_waiting = matches!(task.as_str(), task::IMAGE_SNAPSHOT | task::IMAGE_BACKUP | task::SHELVING_UPLOADING);
    if !is_waiting || server.snapshot.as_deref().is_some_and(|i| i != image) {
        return Ok(());
    }
    server.snapshot = None;
    server.task_state = None;
    server.deadline = None;
    let shelving = task == task::SHELVING_UPLOADING;
    match failed {
        None if shelving => {
            server.vm_state = vm::SHELVED.to_owned();
            server.shelved_image = Some(image.to_owned());
            records::begin(&mut server.body, cx, task::OFFLOADING, tx.now);
        }
        Some(_) if shelving => {
            server.vm_state = vm::STOPPED.to_owned();
            server.shelved_image = None;
        }
        None | Some(_) => {}
    }
    let text = match failed {
        None => format!("Image {image} was made from its disk"),
        Some(cause) => format!("Image {image} was not made: {cause}"),
    };
    engine::tell(tx, &server.id, &cx.request_id, &text);
    // The action of a shelve ends when the server has left its node.
    if !(shelving && failed.is_none()) {
        records::finish_action(tx, &mut server.body, failed);
    }
    records::save(tx, server, &cx.request_id).map(drop)
}
