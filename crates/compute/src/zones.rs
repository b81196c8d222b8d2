//! Availability zones: names that aggregates give to their hosts.
use crate::{
    common::{object, text},
    resources::{Aggregate, Node},
    server::request::strings,
};
use api::{Access, Call, Reply, Result, Route};
use resource::{Reader, Resource};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Zone of hosts that no aggregate names one for.
pub(crate) const DEFAULT: &str = "nova";
/// Zone of the services that are no hosts.
pub(crate) const INTERNAL: &str = "internal";

pub(crate) fn zone_of(reader: &Reader<'_>, host: &str) -> String {
    let named = reader.all(&Aggregate::DEF.table).find_map(|row| {
        let zone = row.field("availability_zone").as_str()?;
        strings(row.value().get("hosts")).iter().any(|h| h == host).then(|| zone.to_owned())
    });
    named.unwrap_or_else(|| DEFAULT.to_owned())
}

/// Hosts by zone.
pub(crate) fn all(reader: &Reader<'_>) -> BTreeMap<String, Vec<(String, bool, bool, i64)>> {
    let mut out: BTreeMap<String, Vec<(String, bool, bool, i64)>> = BTreeMap::new();
    for row in reader.all(&Node::DEF.table) {
        let node = object(row);
        let host = text(node, "host");
        let up = text(node, "state") == "up" && !crate::common::flag(node, "forced_down");
        let enabled = !crate::common::flag(node, "disabled");
        out.entry(zone_of(reader, host)).or_default().push((host.to_owned(), up, enabled, crate::common::int(node, "last_seen")));
    }
    out
}

pub(crate) fn names(reader: &Reader<'_>) -> Vec<String> {
    let mut out: Vec<String> = all(reader).into_keys().collect();
    if out.is_empty() {
        out.push(DEFAULT.to_owned());
    }
    out
}

pub(crate) fn hosts(reader: &Reader<'_>) -> Vec<String> {
    reader.all(&Node::DEF.table).map(|r| r.text("host").to_owned()).collect()
}

async fn list(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let mut zones: Vec<Value> = all(&reader)
        .into_iter()
        .map(|(name, hosts)| {
            let available = hosts.iter().any(|(_, up, enabled, _)| *up && *enabled);
            json!({ "zoneName": name, "zoneState": { "available": available }, "hosts": null })
        })
        .collect();
    if zones.is_empty() {
        zones.push(json!({ "zoneName": DEFAULT, "zoneState": { "available": false }, "hosts": null }));
    }
    Ok(Reply::ok(json!({ "availabilityZoneInfo": zones })))
}

async fn detail(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let now = call.cloud.db.now();
    let service = |active: bool, available: bool, seen: i64| {
        let seen = if available { now } else { base::Timestamp(seen) };
        json!({ "active": active, "available": available, "updated_at": seen.micros() })
    };
    let mut zones: Vec<Value> = vec![json!({
        "zoneName": INTERNAL, "zoneState": { "available": true },
        "hosts": { crate::services::CONTROLLER: { "nova-conductor": service(true, true, 0), "nova-scheduler": service(true, true, 0) } },
    })];
    for (name, hosts) in all(&reader) {
        let available = hosts.iter().any(|(_, up, enabled, _)| *up && *enabled);
        let hosts: BTreeMap<String, Value> = hosts
            .into_iter()
            .map(|(host, up, enabled, seen)| (host, json!({ "nova-compute": service(enabled, up, seen) })))
            .collect();
        zones.push(json!({ "zoneName": name, "zoneState": { "available": available }, "hosts": hosts }));
    }
    Ok(Reply::ok(json!({ "availabilityZoneInfo": zones })))
}

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::new("GET", "/v2.1/os-availability-zone", Access::Rule("os_compute_api:os-availability-zone:list", "reader"), list),
        Route::new("GET", "/v2.1/os-availability-zone/detail", Access::Rule("os_compute_api:os-availability-zone:detail", "admin"), detail),
    ]
}
