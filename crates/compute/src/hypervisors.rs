//! `os-hypervisors`: nodes with what they have and what of it is used.
use crate::{
    common::{PROVIDERS, at, flag, int, map, object, paged, text},
    resources::{Node, Server},
};
use api::{Access, Call, Error, Map, Reply, Result, Route};
use resource::{Reader, Resource, Row};
use serde_json::{Value, json};
use std::sync::Arc;

fn id(call: &Call, node: &Map) -> Value {
    if at(&call.cx, 53) { text(node, "id").into() } else { int(node, "number").into() }
}

fn service_id(call: &Call, node: &Map) -> Value {
    if at(&call.cx, 53) { crate::services::id_of("nova-compute", text(node, "host")).into() } else { int(node, "number").into() }
}

fn is_up(node: &Map) -> bool {
    text(node, "state") == "up" && !flag(node, "forced_down")
}

fn brief(call: &Call, node: &Map) -> Map {
    map(json!({
        "id": id(call, node), "hypervisor_hostname": node.get("host"), "state": if is_up(node) { "up" } else { "down" },
        "status": if flag(node, "disabled") { "disabled" } else { "enabled" },
    }))
}

/// Used vCPUs, MiB and GiB, and the number of servers.
fn used(reader: &Reader<'_>, node: &Map) -> (i64, i64, i64, i64) {
    let provider = reader.get(&PROVIDERS, text(node, "id"));
    let of = |class: &str| provider.as_ref().and_then(|p| p.field("used").get(class)).and_then(Value::as_i64).unwrap_or(0);
    let servers = reader.find(&Server::DEF.table, "node_id", text(node, "id")).len();
    (of("VCPU"), of("MEMORY_MB"), of("DISK_GB"), i64::try_from(servers).unwrap_or(0))
}

/// `18:20:01 up 3 days, 4:05`, as the host's own command would say it.
fn uptime(call: &Call, node: &Map) -> Value {
    if !is_up(node) {
        return Value::Null;
    }
    let now = call.cloud.db.now();
    let seconds = now.since(base::Timestamp(int(node, "up_since"))).as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let clock = now.seconds_z();
    let clock = clock.get(11..19).unwrap_or_default();
    format!(" {clock} up {days} days, {hours:2}:{minutes:02},  0 users,  load average: 0.00, 0.00, 0.00").into()
}

fn detail(call: &Call, reader: &Reader<'_>, node: &Map) -> Map {
    let cx = &call.cx;
    let mut out = brief(call, node);
    out.extend(map(json!({
        "hypervisor_type": node.get("hypervisor_type"), "hypervisor_version": node.get("hypervisor_version"),
        "host_ip": if text(node, "host_ip").is_empty() { "127.0.0.1" } else { text(node, "host_ip") },
        "service": { "id": service_id(call, node), "host": node.get("host"), "disabled_reason": node.get("disabled_reason") },
    })));
    if at(cx, 88) {
        out.insert("uptime".into(), uptime(call, node));
        return out;
    }
    let (vcpus, ram, disk, servers) = used(reader, node);
    let cpu = json!({ "arch": "x86_64", "model": text(node, "cpu_model"), "vendor": "", "features": [], "topology": { "sockets": 1, "cores": int(node, "vcpus"), "threads": 1 } });
    out.extend(map(json!({
        "vcpus": int(node, "vcpus"), "memory_mb": int(node, "memory_mib"), "local_gb": int(node, "disk_gib"), "vcpus_used": vcpus,
        "memory_mb_used": ram, "local_gb_used": disk, "free_ram_mb": int(node, "memory_mib") - ram, "free_disk_gb": int(node, "disk_gib") - disk,
        "current_workload": 0, "running_vms": servers, "disk_available_least": int(node, "disk_free_gib"),
        "cpu_info": if at(cx, 28) { cpu } else { cpu.to_string().into() },
    })));
    out
}

fn servers(reader: &Reader<'_>, node: &Map) -> Vec<Value> {
    let rows = reader.find(&Server::DEF.table, "node_id", text(node, "id"));
    rows.iter().map(|s| json!({ "uuid": s.id(), "name": s.text("name") })).collect()
}

fn add_servers(call: &Call, reader: &Reader<'_>, node: &Map, out: &mut Map, wanted: bool) {
    if wanted {
        let list = servers(reader, node);
        if !list.is_empty() || at(&call.cx, 75) {
            out.insert("servers".into(), list.into());
        }
    }
}

fn matching(reader: &Reader<'_>, pattern: &str) -> Result<Vec<Arc<Row>>> {
    let found: Vec<Arc<Row>> = reader.all(&Node::DEF.table).filter(|n| n.text("host").contains(pattern)).cloned().collect();
    if found.is_empty() {
        return Err(Error::not_found(format!("No hypervisor matching '{pattern}' could be found.")));
    }
    Ok(found)
}

fn with_servers(call: &Call) -> Result<bool> {
    match call.cx.query.get("with_servers").filter(|_| at(&call.cx, 53)) {
        None => Ok(false),
        Some(text) => crate::shape::as_bool(&Value::String(text.to_owned()))
            .ok_or_else(|| Error::bad_request(format!("Invalid input for query parameters with_servers. Value: {text}. It is not a boolean."))),
    }
}

async fn list(call: Call, whole: bool) -> Result<Reply> {
    let cx = &call.cx;
    let wanted = with_servers(&call)?;
    let reader = call.reader();
    let pattern = cx.query.get("hypervisor_hostname_pattern").filter(|_| at(cx, 53));
    let mut rows: Vec<Arc<Row>> = match pattern {
        Some(p) => {
            if cx.query.get("limit").is_some() || cx.query.get("marker").is_some() {
                return Err(Error::bad_request("Paging over hypervisors with the hypervisor_hostname_pattern query parameter is not supported."));
            }
            matching(&reader, p)?
        }
        None => reader.all(&Node::DEF.table).cloned().collect(),
    };
    rows.sort_by_key(|r| r.field("number").as_i64());
    let numbers: Vec<(String, Arc<Row>)> = rows
        .into_iter()
        .map(|r| (if at(cx, 53) { r.id().to_owned() } else { r.field("number").to_string() }, r))
        .collect();
    let (rows, more) = if at(cx, 33) { paged(cx, numbers, 1000, |(id, _)| id)? } else { (numbers, false) };
    let list: Vec<Map> = rows
        .iter()
        .map(|(_, r)| {
            let mut out = if whole { detail(&call, &reader, object(r)) } else { brief(&call, object(r)) };
            add_servers(&call, &reader, object(r), &mut out, wanted);
            out
        })
        .collect();
    let mut body = map(json!({ "hypervisors": list }));
    if let (true, Some((last, _))) = (more, rows.last()) {
        let path = if whole { "/v2.1/os-hypervisors/detail" } else { "/v2.1/os-hypervisors" };
        body.insert("hypervisors_links".into(), json!([{ "rel": "next", "href": crate::server::list::next_link(cx, path, last) }]));
    }
    Ok(Reply::ok(body.into()))
}

fn find(call: &Call, reader: &Reader<'_>) -> Result<Arc<Row>> {
    let wanted = call.param("id");
    if at(&call.cx, 53) && !base::id::is_uuid(wanted) {
        return Err(Error::bad_request(format!("Invalid uuid {wanted}")));
    }
    let is = |r: &&Arc<Row>| if at(&call.cx, 53) { r.id() == wanted } else { r.field("number").to_string() == wanted };
    let row = reader.all(&Node::DEF.table).find(is).cloned();
    row.ok_or_else(|| Error::not_found(format!("Hypervisor with ID '{wanted}' could not be found.")))
}

async fn show(call: Call) -> Result<Reply> {
    let wanted = with_servers(&call)?;
    let reader = call.reader();
    let row = find(&call, &reader)?;
    let mut out = detail(&call, &reader, object(&row));
    add_servers(&call, &reader, object(&row), &mut out, wanted);
    Ok(Reply::ok(json!({ "hypervisor": out })))
}

async fn show_uptime(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let row = find(&call, &reader)?;
    let uptime = uptime(&call, object(&row));
    if uptime.is_null() {
        return Err(Error::bad_request(format!("Compute service of {} is unavailable at this time.", row.text("host"))));
    }
    let mut out = brief(&call, object(&row));
    out.insert("uptime".into(), uptime);
    Ok(Reply::ok(json!({ "hypervisor": out })))
}

async fn search(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let list: Vec<Map> = matching(&reader, call.param("id"))?.iter().map(|r| brief(&call, object(r))).collect();
    Ok(Reply::ok(json!({ "hypervisors": list })))
}

async fn servers_of(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let list: Vec<Map> = matching(&reader, call.param("id"))?
        .iter()
        .map(|r| {
            let mut out = brief(&call, object(r));
            let servers = servers(&reader, object(r));
            if !servers.is_empty() {
                out.insert("servers".into(), servers.into());
            }
            out
        })
        .collect();
    Ok(Reply::ok(json!({ "hypervisors": list })))
}

async fn statistics(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let mut sums = [0i64; 10];
    for row in reader.all(&Node::DEF.table).filter(|r| !flag(object(r), "disabled")) {
        let node = object(row);
        let (vcpus, ram, disk, servers) = used(&reader, node);
        let (all_ram, all_disk) = (int(node, "memory_mib"), int(node, "disk_gib"));
        let one = [1, int(node, "vcpus"), all_ram, all_disk, vcpus, ram, disk, servers, all_ram - ram, int(node, "disk_free_gib")];
        sums.iter_mut().zip(one).for_each(|(s, n)| *s += n);
    }
    let [count, vcpus, ram, disk, vcpus_used, ram_used, disk_used, servers, free_ram, least] = sums;
    Ok(Reply::ok(json!({ "hypervisor_statistics": {
        "count": count, "vcpus": vcpus, "memory_mb": ram, "local_gb": disk, "vcpus_used": vcpus_used, "memory_mb_used": ram_used,
        "local_gb_used": disk_used, "running_vms": servers, "free_ram_mb": free_ram, "free_disk_gb": disk - disk_used,
        "current_workload": 0, "disk_available_least": least,
    } })))
}

pub(crate) fn routes() -> Vec<Route> {
    let admin = |name| Access::Rule(name, "admin");
    vec![
        Route::new("GET", "/v2.1/os-hypervisors", admin("os_compute_api:os-hypervisors:list"), |c| list(c, false)),
        Route::new("GET", "/v2.1/os-hypervisors/detail", admin("os_compute_api:os-hypervisors:list-detail"), |c| list(c, true)),
        Route::new("GET", "/v2.1/os-hypervisors/statistics", admin("os_compute_api:os-hypervisors:statistics"), statistics).until("2.87"),
        Route::new("GET", "/v2.1/os-hypervisors/{id}", admin("os_compute_api:os-hypervisors:show"), show),
        Route::new("GET", "/v2.1/os-hypervisors/{id}/uptime", admin("os_compute_api:os-hypervisors:uptime"), show_uptime).until("2.87"),
        Route::new("GET", "/v2.1/os-hypervisors/{id}/search", admin("os_compute_api:os-hypervisors:search"), search).until("2.52"),
        Route::new("GET", "/v2.1/os-hypervisors/{id}/servers", admin("os_compute_api:os-hypervisors:servers"), servers_of).until("2.52"),
    ]
}
