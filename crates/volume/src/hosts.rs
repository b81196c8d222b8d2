//! Hosts that keep volumes, as their rows tell, and the choice of one for a new volume.
//!
//! Volumes are thin: they take room as they are written. So a host may promise [`OVERCOMMIT`] times what it has, as Cinder's thin
//! backends do by default, while there is free room at all. The host with the most room left, in promises, is taken.
use crate::{
    common::{flag, is_own, object, text},
    resources::Volume,
};
use base::Timestamp;
use resource::{Cx, Map, Reader, Resource as _, Row, Tx};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};
use store::{Index, Table};

/// The one zone that volumes are in.
pub(crate) const ZONE: &str = "nova";
/// Name of the one backend of a host, and of its one pool.
pub(crate) const BACKEND: &str = "nbd";
pub(crate) const VENDOR: &str = "Drover";
pub(crate) const PROTOCOL: &str = "nbd";
/// Protocols that a type may ask for. What types of other clouds ask for most is served too: consumers are plugged by us, so the
/// protocol on the way there is no concern of a type.
const PROTOCOLS: [&str; 3] = [PROTOCOL, "NBD", "iSCSI"];
/// GiB promised per GiB that is there (Cinder's `max_over_subscription_ratio`).
pub(crate) const OVERCOMMIT: u64 = 20;

/// Rows of the compute service: one per host.
pub(crate) static NODES: Table = Table { name: "compute/nodes", indexes: &[Index { name: "host", path: "/host" }] };
/// What operators said of the volume service on a host, by host.
pub(crate) static SERVICES: Table = Table { name: "volume/services", indexes: &[] };

/// A host that keeps volumes.
#[derive(Clone, Debug)]
pub(crate) struct StorageHost {
    pub(crate) host: String,
    pub(crate) is_up: bool,
    pub(crate) disabled: bool,
    pub(crate) disabled_reason: Option<String>,
    pub(crate) frozen: bool,
    /// GiB.
    pub(crate) total: u64,
    pub(crate) free: u64,
    /// Microseconds since the epoch: when it went down, or last said something new while it is up.
    seen_at: i64,
}

impl StorageHost {
    fn of(node: &Row, service: Option<&Row>) -> Option<Self> {
        let node = object(node);
        let gib = |key: &str| node.get(key).and_then(Value::as_u64).unwrap_or(0);
        let said = service.map(object);
        let is = |key: &str| said.is_some_and(|s| flag(s, key));
        (gib("volume_gib") > 0).then(|| Self {
            host: text(node, "host").to_owned(),
            is_up: text(node, "state") == "up" && !flag(node, "forced_down"),
            disabled: is("disabled"),
            disabled_reason: said.map(|s| text(s, "disabled_reason").to_owned()).filter(|r| !r.is_empty()),
            frozen: is("frozen"),
            total: gib("volume_gib"),
            free: gib("volume_free_gib"),
            seen_at: crate::common::int(node, "last_seen"),
        })
    }
    /// The pool's name, Cinder's `host@backend#pool`.
    pub(crate) fn pool(&self) -> String {
        pool_of(&self.host)
    }
    pub(crate) fn backend(&self) -> String {
        format!("{}@{BACKEND}", self.host)
    }
    /// When it was last known to live. One that is up is heard of all the time, whether it says something new or not.
    pub(crate) fn heard_of(&self, now: Timestamp) -> Timestamp {
        if self.is_up { now } else { Timestamp(self.seen_at) }
    }
    /// What types may ask for in their extra specs, and `get_pools` shows.
    pub(crate) fn capabilities(&self, provisioned: u64, volumes: usize, now: Timestamp) -> Map {
        crate::common::map(json!({
            "volume_backend_name": BACKEND, "pool_name": BACKEND, "vendor_name": VENDOR, "driver_version": env!("CARGO_PKG_VERSION"),
            "storage_protocol": PROTOCOL, "total_capacity_gb": self.total, "free_capacity_gb": self.free,
            "provisioned_capacity_gb": provisioned, "allocated_capacity_gb": provisioned, "total_volumes": volumes,
            "reserved_percentage": 0, "max_over_subscription_ratio": OVERCOMMIT.to_string(), "thin_provisioning_support": true,
            "thick_provisioning_support": false, "multiattach": true, "QoS_support": false, "online_extend_support": true,
            "sparse_copy_volume": true, "replication_enabled": false, "location_info": self.host,
            "backend_state": if self.is_up { "up" } else { "down" },
            "timestamp": self.heard_of(now).micros(),
        }))
    }
}

pub(crate) fn pool_of(host: &str) -> String {
    format!("{host}@{BACKEND}#{BACKEND}")
}

/// The host in `host@backend#pool`, or in any of its parts.
pub(crate) fn host_of(name: &str) -> &str {
    name.split(['@', '#']).next().unwrap_or_default()
}

/// All hosts that keep volumes, by name.
pub(crate) fn all(reader: &Reader<'_>) -> Vec<StorageHost> {
    let mut hosts: Vec<StorageHost> = reader
        .all(&NODES)
        .filter_map(|node| StorageHost::of(node, reader.get(&SERVICES, node.text("host")).as_deref()))
        .collect();
    hosts.sort_by(|a, b| a.host.cmp(&b.host));
    hosts
}

/// GiB promised on a host, and how many volumes.
pub(crate) fn promised(volumes: &[Arc<Row>]) -> (u64, usize) {
    let sizes = volumes.iter().map(|v| v.field("size").as_u64().unwrap_or(0));
    (sizes.sum(), volumes.len())
}

/// Does one extra spec fit? Specs of other scopes than `capabilities:` are for drivers and quality of service.
fn fits(key: &str, wanted: &str, capabilities: &Map) -> bool {
    let key = match key.split_once(':') {
        Some(("capabilities", key)) => key,
        Some(_) => return true,
        None => key,
    };
    if key == "storage_protocol" {
        return wanted.split("<or>").any(|w| PROTOCOLS.contains(&w.trim().trim_start_matches("<in>").trim()));
    }
    let Some(value) = capabilities.get(key) else { return false };
    let shown = match value {
        Value::String(s) => s.clone(),
        v => v.to_string(),
    };
    let number = |text: &str| text.trim().parse::<f64>().ok();
    let parts: Vec<&str> = wanted.split_whitespace().collect();
    match parts.as_slice() {
        ["<is>", word] => word.eq_ignore_ascii_case(&shown),
        ["<in>", ..] => shown.contains(parts[1..].join(" ").as_str()),
        ["<or>", ..] => wanted.split("<or>").any(|w| w.trim() == shown),
        [operator @ ("=" | "==" | ">=" | "<=" | ">" | "<" | "!="), bound] => match (number(&shown), number(bound), *operator) {
            (Some(v), Some(b), "=" | ">=") => v >= b,
            (Some(v), Some(b), "<=") => v <= b,
            (Some(v), Some(b), ">") => v > b,
            (Some(v), Some(b), "<") => v < b,
            (Some(v), Some(b), "!=") => (v - b).abs() > f64::EPSILON,
            (Some(v), Some(b), _) => (v - b).abs() <= f64::EPSILON,
            _ => false,
        },
        ["s==", text] => shown == *text,
        ["s!=", text] => shown != *text,
        _ => wanted == shown || wanted.eq_ignore_ascii_case(&shown),
    }
}

/// Hosts of the caller's volumes that are wanted or to be avoided, by scheduler hint. Other projects' volumes tell nothing.
fn hinted(tx: &Tx<'_>, cx: &Cx, hints: &Map, hint: &str) -> Vec<String> {
    let ids: Vec<&str> = match hints.get(hint) {
        Some(Value::String(id)) => vec![id],
        Some(Value::Array(ids)) => ids.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let own = |id: &str| tx.before().get(&Volume::DEF.table, id).filter(|v| is_own(cx, v.text("project_id")));
    let volume = |id: &str| own(id).map(|v| v.text("host").to_owned());
    ids.into_iter().filter_map(volume).filter(|h| !h.is_empty()).collect()
}

/// The host for a new volume; none when no host has room and fits.
pub(crate) fn pick(tx: &mut Tx<'_>, cx: &Cx, specs: &BTreeMap<String, String>, size: u64, hints: &Map) -> Option<String> {
    let (same, different) = (hinted(tx, cx, hints, "same_host"), hinted(tx, cx, hints, "different_host"));
    let services: BTreeMap<String, Arc<Row>> = tx.all(&SERVICES).into_iter().map(|r| (r.id().to_owned(), r)).collect();
    let nodes = tx.all(&NODES);
    let mut best: Option<(u64, String)> = None;
    for node in &nodes {
        let service = services.get(node.text("host")).map(|r| &**r);
        let Some(host) = StorageHost::of(node, service) else { continue };
        let (provisioned, volumes) = promised(&tx.find(&Volume::DEF.table, "host", &host.host));
        let room = (host.total * OVERCOMMIT).saturating_sub(provisioned);
        let fit = host.is_up
            && !host.disabled
            && !host.frozen
            && host.free > 0
            && room >= size
            && (same.is_empty() || same.contains(&host.host))
            && !different.contains(&host.host)
            && {
                let capabilities = host.capabilities(provisioned, volumes, tx.now);
                specs.iter().all(|(key, wanted)| fits(key, wanted, &capabilities))
            };
        // By name among equals, so that the choice can be told again.
        if fit && best.as_ref().is_none_or(|(most, name)| room > *most || (room == *most && host.host < *name)) {
            best = Some((room, host.host));
        }
    }
    best.map(|(_, host)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_specs_are_read_as_the_capabilities_filter_does() {
        let host = StorageHost {
            host: "h".into(),
            is_up: true,
            disabled: false,
            disabled_reason: None,
            frozen: false,
            total: 100,
            free: 50,
            seen_at: 0,
        };
        let capabilities = host.capabilities(7, 1, Timestamp(0));
        for (key, wanted, is) in [
            ("volume_backend_name", "nbd", true),
            ("volume_backend_name", "lvm", false),
            ("capabilities:vendor_name", "Drover", true),
            ("vendor_name", "Somebody", false),
            ("storage_protocol", "iSCSI", true),
            ("storage_protocol", "storage_protocol-1", false),
            ("multiattach", "<is> True", true),
            ("replication_enabled", "<is> True", false),
            ("total_capacity_gb", ">= 100", true),
            ("free_capacity_gb", "> 50", false),
            ("volume_backend_name", "<or> lvm <or> nbd", true),
            ("lvm:stripes", "4", true),
            ("unheard_of", "1", false),
        ] {
            assert_eq!(fits(key, wanted, &capabilities), is, "{key} {wanted}");
        }
        assert_eq!((host_of(&host.pool()), host_of("h")), ("h", "h"));
    }
}
