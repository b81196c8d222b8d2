//! Reports of nodes into rows: one transaction per batch, and no write where nothing changed.
use super::{save_node, service_cx};
use crate::{
    actions,
    common::{PROVIDERS, SNAPSHOTS, object, text},
    resources::{Node, Server},
    server::{
        plan::{self, Effect},
        records,
        state::{task, vm},
    },
};
use api::{Cloud, Cx, Map, Result};
use assign::{HostReport, Report, ServerReport, SnapshotReport};
use resource::{Object, engine};
use serde_json::{Value, json};
use store::Tx;

/// Applies a batch from a node.
pub(super) async fn apply(cloud: &Cloud, node_id: &str, reports: Vec<Report>) -> Result<()> {
    let cx = service_cx(cloud, &base::id::request_id());
    let node = node_id.to_owned();
    cloud
        .db
        .transact(move |tx| -> Result<()> {
            for report in &reports {
                match report {
                    Report::Host(r) => host(tx, &node, r)?,
                    Report::Server(r) => server(tx, &cx, &node, r)?,
                    Report::Snapshot(r) => snapshot(tx, &cx, &node, r)?,
                }
            }
            Ok(())
        })
        .await?;
    Ok(())
}

fn host(tx: &mut Tx<'_>, node_id: &str, r: &HostReport) -> Result<()> {
    let node: Option<Object<Node>> = resource::load_any(tx, node_id)?;
    let Some(mut node) = node else { return Ok(()) };
    let before = node.map.clone();
    if node.boot_id != r.boot_id {
        node.up_since = tx.now.0;
    }
    node.boot_id.clone_from(&r.boot_id);
    node.hypervisor_type.clone_from(&r.hypervisor_type);
    node.hypervisor_version = r.hypervisor_version;
    node.accelerator.clone_from(&r.accelerator);
    node.cpu_model.clone_from(&r.cpu_model);
    (node.vcpus, node.memory_mib, node.disk_gib, node.disk_free_gib) = (r.vcpus, r.memory_mib, r.disk_gib, r.disk_free_gib);
    node.host_ip.clone_from(&r.host_ip);
    node.state = "up".to_owned();
    let name = node.host.clone();
    let after = node.clone().into_map()?;
    if after != before {
        node.last_seen = tx.now.0;
        save_node(tx, node)?;
    }
    provider(tx, node_id, &name, r);
    Ok(())
}

/// The node's resource provider. Ratios and reserves that an operator set are kept.
fn provider(tx: &mut Tx<'_>, node_id: &str, name: &str, r: &HostReport) {
    let old = tx.get(&PROVIDERS, node_id);
    let mut row = old.as_ref().map(|r| object(r).clone()).unwrap_or_else(|| {
        crate::common::map(json!({
            "id": node_id, "uuid": node_id, "name": name, "generation": 0, "parent_provider_uuid": null, "root_provider_uuid": node_id,
            "inventories": {}, "traits": [], "aggregates": [], "used": {}, "created_at": tx.now.0, "updated_at": null,
        }))
    });
    let mut inventories = row.get("inventories").and_then(Value::as_object).cloned().unwrap_or_default();
    let totals = [("VCPU", i64::from(r.vcpus), 16.0), ("MEMORY_MB", to_i64(r.memory_mib), 1.0), ("DISK_GB", to_i64(r.disk_gib), 1.0)];
    for (class, total, ratio) in totals {
        let mut inventory = inventories.get(class).and_then(Value::as_object).cloned().unwrap_or_else(|| {
            crate::common::map(json!({ "total": 0, "reserved": 0, "min_unit": 1, "max_unit": 0, "step_size": 1, "allocation_ratio": ratio }))
        });
        inventory.insert("total".into(), total.into());
        inventory.insert("max_unit".into(), total.into());
        inventories.insert(class.into(), inventory.into());
    }
    if row.get("inventories") == Some(&Value::Object(inventories.clone())) && old.is_some() {
        return;
    }
    let generation = row.get("generation").and_then(Value::as_i64).unwrap_or(0);
    row.insert("inventories".into(), inventories.into());
    row.insert("generation".into(), (generation + 1).into());
    tx.put(&PROVIDERS, node_id, row.into());
}

fn to_i64(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn server(tx: &mut Tx<'_>, cx: &Cx, node_id: &str, r: &ServerReport) -> Result<()> {
    let server: Option<Object<Server>> = resource::load_any(tx, &r.id)?;
    // A node speaks only of its own servers.
    let Some(mut server) = server.filter(|s| s.node_id.as_deref() == Some(node_id)) else { return Ok(()) };
    let before = server.map.clone();
    let deleting = server.deleting();
    let effects = plan::on_report(&mut server.body, deleting, r, tx.now);
    carry_out(tx, cx, server, &before, effects)
}

/// Writes the changed row and does what else a change asks for.
pub(super) fn carry_out(tx: &mut Tx<'_>, cx: &Cx, mut server: Object<Server>, before: &Map, effects: Vec<Effect>) -> Result<()> {
    let request = text(before, "request_id").to_owned();
    for effect in effects {
        match effect {
            Effect::Remove => {
                engine::tell(tx, &server.id, &request, "Its node has removed it");
                return records::remove(tx, cx, server);
            }
            Effect::Done => {
                records::finish_action(tx, &mut server.body, None);
                let state = format!("It is {} now", server.vm_state);
                engine::tell(tx, &server.id, &request, &state);
            }
            Effect::Failed(cause) => {
                records::finish_action(tx, &mut server.body, Some(&cause));
                engine::tell(tx, &server.id, &request, &cause);
            }
            Effect::Offloaded => {
                records::deallocate(tx, &server.id);
                crate::server::networks::rebind(tx, cx, &server)?;
            }
            Effect::Snapshot => begin_shelved_image(tx, cx, &mut server)?,
            Effect::DropShelvedImage => {
                if let Some(image) = server.shelved_image.take() {
                    records::drop_image(tx, cx, &image)?;
                }
            }
            Effect::Tell(text) => engine::tell(tx, &server.id, &request, &text),
        }
    }
    save_if_changed(tx, server, before)
}

fn save_if_changed(tx: &mut Tx<'_>, server: Object<Server>, before: &Map) -> Result<()> {
    let request = text(before, "request_id").to_owned();
    if server.clone().into_map()? != *before {
        records::save(tx, server, &request)?;
    }
    Ok(())
}

fn begin_shelved_image(tx: &mut Tx<'_>, cx: &Cx, server: &mut Object<Server>) -> Result<()> {
    let Some(image) = server.shelved_image.clone() else { return Ok(()) };
    records::begin(&mut server.body, cx, task::SHELVING_UPLOADING, tx.now);
    let row = json!({ "server_id": server.id, "node_id": server.node_id, "format": "qcow2", "request_id": &*cx.request_id, "kind": "shelve" });
    tx.put(&SNAPSHOTS, &image, row);
    Ok(())
}

fn snapshot(tx: &mut Tx<'_>, cx: &Cx, node_id: &str, r: &SnapshotReport) -> Result<()> {
    let Some(work) = tx.get(&SNAPSHOTS, &r.image_id).filter(|w| w.text("node_id") == node_id) else { return Ok(()) };
    tx.delete(&SNAPSHOTS, &r.image_id);
    let images = &cx.registry.get("image/images")?.table;
    let image = tx.get(images, &r.image_id).filter(|i| i.field("deleting") != &Value::Bool(true));
    let failed: Option<String> = match (&r.result, &image) {
        (Ok(blob), Some(row)) => {
            let request = work.text("request_id").to_owned();
            let filled = actions::fill(object(row), blob, tx.now, &request);
            tx.put(images, &r.image_id, filled.into());
            None
        }
        (Ok(_), None) => Some("The image was deleted while it was being made.".to_owned()),
        (Err(cause), _) => {
            records::drop_image(tx, cx, &r.image_id)?;
            Some(cause.clone())
        }
    };
    let server: Option<Object<Server>> = resource::load_any(tx, work.text("server_id"))?;
    let Some(mut server) = server.filter(|s| !s.deleting() && s.snapshot.as_deref() == Some(r.image_id.as_str())) else { return Ok(()) };
    let before = server.map.clone();
    server.snapshot = None;
    server.task_state = None;
    server.deadline = None;
    let is_shelving = work.text("kind") == "shelve";
    match &failed {
        None if is_shelving => {
            server.vm_state = vm::SHELVED.to_owned();
            records::begin(&mut server.body, cx, task::OFFLOADING, tx.now);
        }
        None => {
            records::finish_action(tx, &mut server.body, None);
            if work.text("kind") == "backup" {
                actions::rotate(tx, cx, &server.id, work.text("backup_type"), work.field("rotation").as_i64().unwrap_or(0))?;
            }
        }
        Some(cause) => {
            if is_shelving {
                server.shelved_image = None;
                server.vm_state = vm::STOPPED.to_owned();
            }
            records::finish_action(tx, &mut server.body, Some(cause));
            let text = format!("Its image {} was not made: {cause}", r.image_id);
            engine::tell(tx, &server.id, work.text("request_id"), &text);
        }
    }
    save_if_changed(tx, server, &before)
}
