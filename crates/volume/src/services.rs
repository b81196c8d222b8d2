//! The service as operators see it: `/os-services`, `/os-hosts`, `/scheduler-stats/get_pools`, `/capabilities` and `/clusters`.
use crate::{
    common::{at, map, object, text},
    hosts::{self, SERVICES, StorageHost, ZONE, host_of},
    input::Input,
    resources::{Snapshot, Volume},
};
use api::{Access, Call, Cx, Error, Map, Reply, Result, Route};
use resource::Resource as _;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Where requests are decided: every API process is a scheduler.
const CONTROLLER: &str = "controller";
const SCHEDULER: &str = "cinder-scheduler";
const VOLUME: &str = "cinder-volume";

pub(crate) fn routes() -> Vec<Route> {
    let admin = |name| Access::Rule(name, "admin");
    let (read, write) = (admin("volume_extension:services:index"), admin("volume_extension:services:update"));
    let hosts = admin("volume_extension:hosts");
    let pools = admin("scheduler_extension:scheduler_stats:get_pools");
    let clusters = admin("clusters:get_all");
    vec![
        Route::new("GET", "/v3/os-services", read, |call| async move { list(&call) }),
        Route::new("PUT", "/v3/os-services/{action}", write, act),
        Route::new("GET", "/v3/os-hosts", hosts, |call| async move { list_hosts(&call) }),
        Route::new("GET", "/v3/os-hosts/{host}", hosts, |call| async move { show_host(&call) }),
        Route::new("GET", "/v3/scheduler-stats/get_pools", pools, |call| async move { get_pools(&call) }),
        Route::new("GET", "/v3/capabilities/{host}", admin("volume_extension:capabilities"), |call| async move {
            capabilities(&call)
        }),
        Route::new("GET", "/v3/clusters", clusters, no_clusters).since("3.7"),
        Route::new("GET", "/v3/clusters/detail", clusters, no_clusters).since("3.7"),
    ]
}

/// Backends of this cloud are of one host each.
async fn no_clusters(_: Call) -> Result<Reply> {
    Ok(Reply::ok(json!({ "clusters": [] })))
}

fn view(cx: &Cx, host: &StorageHost, now: base::Timestamp) -> Map {
    let mut out = map(json!({
        "binary": VOLUME, "host": host.backend(), "zone": ZONE, "status": if host.disabled { "disabled" } else { "enabled" },
        "state": if host.is_up { "up" } else { "down" }, "updated_at": host.heard_of(now).micros(),
        "disabled_reason": host.disabled_reason, "replication_status": "disabled", "active_backend_id": null, "frozen": host.frozen,
    }));
    if at(cx, 7) {
        out.insert("cluster".into(), Value::Null);
    }
    if at(cx, 49) {
        out.insert("backend_state".into(), if host.is_up { "up" } else { "down" }.into());
    }
    out
}

fn scheduler(call: &Call) -> Map {
    let mut out = map(json!({
        "binary": SCHEDULER, "host": CONTROLLER, "zone": ZONE, "status": "enabled", "state": "up",
        "updated_at": call.cloud.db.now().micros(), "disabled_reason": null,
    }));
    if at(&call.cx, 7) {
        out.insert("cluster".into(), Value::Null);
    }
    out
}

fn list(call: &Call) -> Result<Reply> {
    let cx = &call.cx;
    let (volumes, now) = (hosts::all(&call.reader()), call.cloud.db.now());
    let all = std::iter::once(scheduler(call)).chain(volumes.iter().map(|h| view(cx, h, now)));
    let wanted = |key: &str| cx.query.get(key).filter(|v| !v.is_empty());
    let fits = |s: &Map| {
        wanted("binary").or_else(|| wanted("service")).is_none_or(|b| b == text(s, "binary"))
            && wanted("host").is_none_or(|h| h == text(s, "host") || h == host_of(text(s, "host")))
    };
    let shown: Vec<Value> = all.filter(fits).map(Value::from).collect();
    Ok(Reply::ok(json!({ "services": shown })))
}

fn unknown(host: &str) -> Error {
    Error::not_found(format!("Service {VOLUME} could not be found on host {host}."))
}

/// The storage host that a name means.
fn find(call: &Call, name: &str) -> Option<StorageHost> {
    hosts::all(&call.reader()).into_iter().find(|h| h.host == host_of(name))
}

async fn note(call: &Call, host: &str, with: impl Fn(&mut Map) + Send + 'static) -> Result<()> {
    let host = host.to_owned();
    call.transact(move |_, tx| {
        let mut row = tx.get(&SERVICES, &host).map(|r| object(&r).clone()).unwrap_or_default();
        with(&mut row);
        tx.put(&SERVICES, &host, row.into());
        Ok(())
    })
    .await
}

async fn act(call: Call) -> Result<Reply> {
    let action = call.param("action").to_owned();
    match action.as_str() {
        "enable" | "disable" | "disable-log-reason" => switch(call, &action).await,
        "freeze" | "thaw" => {
            let name = Input::new(call.object()?, &["host"])?.required("host")?.to_owned();
            let host = find(&call, &name).ok_or_else(|| Error::bad_request(format!("Host {name} keeps no volumes.")))?;
            let frozen = action == "freeze";
            note(&call, &host.host, move |row| drop(row.insert("frozen".into(), frozen.into()))).await?;
            Ok(Reply::empty(200))
        }
        "failover" | "failover_host" => {
            Err(Error::bad_request("Volumes of this cloud are not replicated to another host; there is nothing to fail over to."))
        }
        "get-log" | "set-log" if at(&call.cx, 32) => {
            Err(Error::bad_request("Log levels are those of the process: set DROVER_LOG and start it again."))
        }
        _ => Err(Error::not_found("The resource could not be found.")),
    }
}

async fn switch(call: Call, action: &str) -> Result<Reply> {
    let input = Input::new(call.object()?, &["host", "binary", "service", "disabled_reason", "cluster"])?;
    let name = input.required("host")?.to_owned();
    let binary = input.text("binary")?.or(input.text("service")?).unwrap_or(VOLUME).to_owned();
    let with_reason = action == "disable-log-reason";
    let reason = if with_reason { Some(input.required("disabled_reason")?.to_owned()) } else { None };
    let host = find(&call, &name).filter(|_| binary == VOLUME).ok_or_else(|| unknown(&name))?;
    let disabled = action != "enable";
    let kept = reason.clone();
    note(&call, &host.host, move |row| {
        row.insert("disabled".into(), disabled.into());
        row.insert("disabled_reason".into(), kept.clone().into());
    })
    .await?;
    let mut out = map(json!({
        "host": name, "service": binary, "binary": binary, "status": if disabled { "disabled" } else { "enabled" },
        "disabled": disabled,
    }));
    if with_reason || !disabled {
        out.insert("disabled_reason".into(), reason.into());
    }
    Ok(Reply::ok(out.into()))
}

fn list_hosts(call: &Call) -> Result<Reply> {
    let one = |name: &str, service: &str, up: bool, disabled: bool, seen: base::Timestamp| {
        json!({
            "host_name": name, "service": service, "zone": ZONE, "service-status": if up { "available" } else { "unavailable" },
            "service-state": if disabled { "disabled" } else { "enabled" }, "last-update": seen.micros(),
        })
    };
    let now = call.cloud.db.now();
    let scheduler = one(CONTROLLER, SCHEDULER, true, false, now);
    let volumes = hosts::all(&call.reader());
    let all = volumes.iter().map(|h| one(&h.backend(), VOLUME, h.is_up, h.disabled, h.heard_of(now)));
    let shown: Vec<Value> = std::iter::once(scheduler).chain(all).collect();
    Ok(Reply::ok(json!({ "hosts": shown })))
}

/// What a host keeps, in all and by project.
fn show_host(call: &Call) -> Result<Reply> {
    let name = call.param("host");
    let host = find(call, name).ok_or_else(|| Error::not_found(format!("Host {name} could not be found.")))?;
    let reader = call.reader();
    let mut by_project: BTreeMap<String, [u64; 4]> = BTreeMap::new();
    for row in reader.find(&Volume::DEF.table, "host", &host.host) {
        let project = row.text("project_id").to_owned();
        let size = row.field("size").as_u64().unwrap_or(0);
        let snapshots = reader.find(&Snapshot::DEF.table, "volume_id", row.id());
        let in_snapshots: u64 = snapshots.iter().map(|s| s.field("volume_size").as_u64().unwrap_or(0)).sum();
        for key in ["(total)".to_owned(), project] {
            let sums = by_project.entry(key).or_default();
            for (sum, more) in sums.iter_mut().zip([1, size, snapshots.len() as u64, in_snapshots]) {
                *sum += more;
            }
        }
    }
    by_project.entry("(total)".to_owned()).or_default();
    let list: Vec<Value> = by_project
        .iter()
        .map(|(project, [volumes, gib, snapshots, in_snapshots])| {
            json!({ "resource": {
                "host": name, "project": project, "volume_count": volumes.to_string(), "total_volume_gb": gib.to_string(),
                "snapshot_count": snapshots.to_string(), "total_snapshot_gb": in_snapshots.to_string(),
            }})
        })
        .collect();
    Ok(Reply::ok(json!({ "host": list })))
}

fn get_pools(call: &Call) -> Result<Reply> {
    let reader = call.reader();
    let detail = call.cx.query.flag("detail");
    let wanted = call.cx.query.get("name");
    let mut pools = Vec::new();
    for host in hosts::all(&reader).iter().filter(|h| wanted.is_none_or(|w| w == h.pool())) {
        let mut pool = map(json!({ "name": host.pool() }));
        if detail {
            let (provisioned, volumes) = hosts::promised(&reader.find(&Volume::DEF.table, "host", &host.host));
            pool.insert("capabilities".into(), host.capabilities(provisioned, volumes, call.cloud.db.now()).into());
        }
        pools.push(Value::from(pool));
    }
    Ok(Reply::ok(json!({ "pools": pools })))
}

fn capabilities(call: &Call) -> Result<Reply> {
    let name = call.param("host");
    let host = find(call, name).ok_or_else(|| Error::not_found(format!("Host {name} could not be found.")))?;
    let property = |title: &str, description: &str| json!({ "title": title, "description": description, "type": "boolean" });
    Ok(Reply::ok(json!({
        "namespace": format!("OS::Storage::Capabilities::{}", host.backend()), "vendor_name": hosts::VENDOR,
        "volume_backend_name": hosts::BACKEND, "pool_name": hosts::BACKEND, "driver_version": env!("CARGO_PKG_VERSION"),
        "storage_protocol": hosts::PROTOCOL, "display_name": null, "visibility": null, "replication_targets": [],
        "description": "Files on the host, served by one engine process per consumer",
        "properties": {
            "thin_provisioning": property("Thin Provisioning", "Sets thin provisioning."),
            "compression": property("Compression", "Enables compression."),
            "qos": property("QoS", "Enables QoS."),
            "replication_enabled": property("Replication", "Enables replication."),
        },
    })))
}
