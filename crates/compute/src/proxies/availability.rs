//! Availability zones (Nova api-ref, `os-availability-zone`).
use super::{
    check_query,
    services::{self, Service},
};
use crate::zones;
use api::{Access, Call, Reply, Result, Route};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Services by zone. A zone is available when one of its services is not disabled.
fn by_zone(all: &[Service]) -> BTreeMap<&str, Vec<&Service>> {
    let mut zones: BTreeMap<&str, Vec<&Service>> = BTreeMap::new();
    for service in all {
        zones.entry(&service.zone).or_default().push(service);
    }
    zones
}

/// Zones in Nova's order: those that are available first.
fn info(all: &[Service], detail: bool) -> Vec<Value> {
    let (mut open, mut shut) = (Vec::new(), Vec::new());
    for (zone, members) in by_zone(all) {
        let available = members.iter().any(|s| !s.disabled);
        if zone == zones::INTERNAL && !detail {
            continue;
        }
        let hosts = if detail && available { hosts(&members) } else { Value::Null };
        let view = json!({ "zoneName": zone, "zoneState": { "available": available }, "hosts": hosts });
        if available { open.push(view) } else { shut.push(view) }
    }
    open.append(&mut shut);
    open
}

fn hosts(members: &[&Service]) -> Value {
    let mut hosts = Map::new();
    for s in members.iter().filter(|s| !s.disabled) {
        let host = hosts.entry(s.host.clone()).or_insert_with(|| json!({}));
        host[s.binary] = json!({ "available": s.up, "active": !s.disabled, "updated_at": s.updated_at.micros() });
    }
    hosts.into()
}

fn answer(call: &Call, detail: bool) -> Result<Reply> {
    check_query(&call.cx, 102, &[])?;
    let all = services::all(&call.reader(), call.cloud.db.now())?;
    Ok(Reply::ok(json!({ "availabilityZoneInfo": info(&all, detail) })))
}

async fn list(call: Call) -> Result<Reply> {
    answer(&call, false)
}
async fn detail(call: Call) -> Result<Reply> {
    answer(&call, true)
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new("GET", "/v2.1/os-availability-zone", Access::Rule("os_compute_api:os-availability-zone:list", "reader"), list),
        Route::new(
            "GET",
            "/v2.1/os-availability-zone/detail",
            Access::Rule("os_compute_api:os-availability-zone:detail", "admin"),
            detail,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Timestamp;

    fn service(host: &str, zone: &str, disabled: bool) -> Service {
        Service {
            number: 1,
            uuid: String::new(),
            binary: services::COMPUTE,
            host: host.into(),
            zone: zone.into(),
            disabled,
            disabled_reason: None,
            forced_down: false,
            up: true,
            updated_at: Timestamp(0),
        }
    }

    #[test]
    fn zones_without_an_enabled_host_come_last() {
        let all =
            [service("c", "internal", false), service("h1", "a", true), service("h2", "b", false), service("h3", "b", true)];
        let names =
            |l: &[Value]| l.iter().map(|z| format!("{} {}", z["zoneName"], z["zoneState"]["available"])).collect::<Vec<_>>();
        assert_eq!(names(&info(&all, false)), ["\"b\" true", "\"a\" false"]);
        let detail = info(&all, true);
        assert_eq!(names(&detail), ["\"b\" true", "\"internal\" true", "\"a\" false"]);
        assert_eq!(detail[0]["hosts"].as_object().map(|h| h.keys().cloned().collect::<Vec<_>>()), Some(vec!["h2".to_owned()]));
        assert!(detail[2]["hosts"].is_null());
    }
}
