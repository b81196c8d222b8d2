//! A host's report becomes its node's row and its resource provider.
use crate::{
    common::{PROVIDERS, next_number, object, touch},
    resources::Node,
};
use api::{Map, Result};
use assign::HostReport;
use resource::{Object, Resource, Row, engine};
use serde_json::{Value, json};
use std::time::Duration;
use store::{Reader, Tx};

/// Memory that is kept for the host itself, MiB.
const RESERVED_MEMORY: u64 = 512;
/// What every node can do, in the words of os-traits.
const TRAITS: [&str; 9] = [
    "COMPUTE_DEVICE_TAGGING",
    "COMPUTE_IMAGE_TYPE_ISO",
    "COMPUTE_IMAGE_TYPE_QCOW2",
    "COMPUTE_IMAGE_TYPE_RAW",
    "COMPUTE_NET_ATTACH_INTERFACE",
    "COMPUTE_NET_ATTACH_INTERFACE_WITH_TAG",
    "COMPUTE_NET_VIF_MODEL_VIRTIO",
    "COMPUTE_NODE",
    "COMPUTE_STORAGE_BUS_VIRTIO",
];

/// The id of a host's node, and of its provider.
pub(crate) fn node_id(host: &str) -> String {
    base::id::named(&format!("node/{host}"))
}

/// Writes what the host says of itself, where it is new. A host that speaks is up.
pub(super) fn seen(tx: &mut Tx<'_>, host: &str, seat: &str, report: &HostReport) -> Result<()> {
    let id = node_id(host);
    let old = resource::load_any::<Node>(tx, &id)?;
    let news = match &old {
        None => Some("joined"),
        Some(node) if node.state != "up" => Some("came back"),
        Some(node) if node.boot_id != report.boot_id => Some("was booted anew"),
        Some(_) => None,
    };
    let before = old.as_ref().map(|node| node.clone().into_map()).transpose()?;
    let mut node = match old {
        Some(node) => node,
        None => {
            let body = Node { host: host.to_owned(), number: next_number(tx, "hypervisors"), ..Node::default() };
            Object::new(id.as_str(), None, body, tx.now, "")
        }
    };
    note(&mut node.body, report);
    node.seat = seat.to_owned();
    if before.as_ref() != Some(&node.clone().into_map()?) {
        node.last_seen = tx.now.0;
        node.save(tx)?;
    }
    if let Some(news) = news {
        let size = format!("{} CPUs, {} MiB, {} GiB, {}", report.vcpus, report.memory_mib, report.disk_gib, report.accelerator);
        engine::tell(tx, &id, "", &format!("Host {host} {news}: {size}"));
    }
    provide(tx, host, &id, report);
    Ok(())
}

fn note(node: &mut Node, report: &HostReport) {
    node.state = "up".to_owned();
    node.boot_id.clone_from(&report.boot_id);
    node.hypervisor_type.clone_from(&report.hypervisor_type);
    node.hypervisor_version = report.hypervisor_version;
    node.accelerator.clone_from(&report.accelerator);
    node.cpu_model.clone_from(&report.cpu_model);
    node.vcpus = report.vcpus;
    node.memory_mib = report.memory_mib;
    node.disk_gib = report.disk_gib;
    node.disk_free_gib = report.disk_free_gib;
    node.volume_gib = report.volume_gib;
    node.volume_free_gib = report.volume_free_gib;
    node.host_ip.clone_from(&report.host_ip);
    node.physical_networks.clone_from(&report.physical_networks);
}

/// The process that the host's agent talks to is a member under another id now.
pub(super) fn take_seat(tx: &mut Tx<'_>, host: &str, from: &str, to: &str) -> Result<()> {
    let Some(mut node) = resource::load_any::<Node>(tx, &node_id(host))?.filter(|n| n.seat == from) else { return Ok(()) };
    node.seat = to.to_owned();
    node.save(tx)
}

/// Nobody hears of the host any more, unless it took another seat meanwhile.
pub(super) fn mark_down(tx: &mut Tx<'_>, host: &str, seat: &str) -> Result<()> {
    let Some(mut node) = resource::load_any::<Node>(tx, &node_id(host))? else { return Ok(()) };
    if node.state == "down" || node.seat != seat {
        return Ok(());
    }
    node.state = "down".to_owned();
    node.last_seen = tx.now.0;
    node.save(tx)?;
    engine::tell(tx, &node.id, "", &format!("Host {host} is down: its agent is gone"));
    Ok(())
}

/// Is the host's node down for at least this long, or unknown?
pub(super) fn is_down_for(reader: &Reader<'_>, host: &str, time: Duration, now: base::Timestamp) -> bool {
    let Some(row) = reader.get(&Node::DEF.table, &node_id(host)) else { return true };
    let since = base::Timestamp(row.field("last_seen").as_i64().unwrap_or(0));
    row.text("state") == "down" && now.since(since) >= time
}

/// The provider's row. What operators set (ratios, reserves, other classes, traits, aggregates) stays.
fn provide(tx: &mut Tx<'_>, host: &str, id: &str, report: &HostReport) {
    let old = tx.get(&PROVIDERS, id).map(|r: std::sync::Arc<Row>| object(&r).clone());
    let is_new = old.is_none();
    let mut row = old.clone().unwrap_or_else(|| new_provider(host, id, tx.now));
    let mut inventories = row.get("inventories").and_then(Value::as_object).cloned().unwrap_or_default();
    let reserved = RESERVED_MEMORY.min(report.memory_mib / 2);
    for (class, total, reserved, ratio) in [
        ("VCPU", u64::from(report.vcpus), 0, 16.0),
        ("MEMORY_MB", report.memory_mib, reserved, 1.0),
        ("DISK_GB", report.disk_gib, 0, 1.0),
    ] {
        if total == 0 {
            inventories.remove(class);
            continue;
        }
        let kept = inventories.get(class).and_then(Value::as_object).cloned();
        let mut inventory = kept.unwrap_or_else(|| {
            crate::common::map(json!({ "reserved": reserved, "min_unit": 1, "step_size": 1, "allocation_ratio": ratio }))
        });
        inventory.insert("total".into(), total.into());
        inventory.insert("max_unit".into(), total.into());
        inventories.insert(class.to_owned(), inventory.into());
    }
    row.insert("inventories".into(), inventories.into());
    if old.as_ref() == Some(&row) {
        return;
    }
    if !is_new {
        let generation = row.get("generation").and_then(Value::as_u64).unwrap_or(0);
        row.insert("generation".into(), (generation + 1).into());
        touch(&mut row, tx.now, "");
    }
    tx.put(&PROVIDERS, id, row.into());
}

fn new_provider(host: &str, id: &str, now: base::Timestamp) -> Map {
    crate::common::map(json!({
        "id": id, "v": 1, "uuid": id, "name": host, "generation": 0, "parent_provider_uuid": null, "root_provider_uuid": id,
        "inventories": {}, "traits": TRAITS, "aggregates": [], "used": {},
        "created_at": now.0, "updated_at": null, "revision": 0, "request_id": "",
    }))
}
