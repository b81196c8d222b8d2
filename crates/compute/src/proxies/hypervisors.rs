//! Hypervisors (Nova api-ref, `os-hypervisors`): nodes with what they have and what is used of it.
use super::{check_query, page, services};
use crate::{
    common::{PROVIDERS, at, by_index, map},
    resources::{Node, Server},
    shape,
};
use api::{Access, Call, Cx, Error, Map, Reply, Result, Route};
use base::Timestamp;
use resource::{Object, Reader, Resource};
use serde_json::{Value, json};

/// What is used of a node, counted by its resource provider and its servers.
#[derive(Default)]
pub(super) struct Use {
    pub(super) vcpus: i64,
    pub(super) memory_mb: i64,
    pub(super) local_gb: i64,
    running: i64,
    busy: i64,
}

pub(super) fn used(reader: &Reader<'_>, node: &Object<Node>) -> Use {
    let servers = by_index(reader, &Server::DEF.table, "node_id", &node.id);
    let busy = servers.iter().filter(|r| r.field("task_state").is_string()).count();
    let provider = reader.get(&PROVIDERS, &node.id);
    let count = |class: &str| provider.as_ref().and_then(|p| p.field("used").get(class).and_then(Value::as_i64)).unwrap_or(0);
    Use {
        vcpus: count("VCPU"),
        memory_mb: count("MEMORY_MB"),
        local_gb: count("DISK_GB"),
        running: servers.len() as i64,
        busy: busy as i64,
    }
}

/// How long a host is up, in the form of uptime(1) without what nobody measured; `None` while it is down.
fn uptime_of(node: &Node, now: Timestamp) -> Option<String> {
    if !node.is_up() {
        return None;
    }
    let seconds = now.since(Timestamp(node.up_since)).as_secs();
    let clock = now.seconds_z();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    Some(format!(" {} up {days} days, {hours:2}:{minutes:02}", clock.get(11..19).unwrap_or_default()))
}

/// The numbers that went with 2.88.
fn numbers(node: &Node, used: &Use) -> Map {
    let (memory, disk) = (node.memory_mib as i64, node.disk_gib as i64);
    map(json!({
        "vcpus": node.vcpus, "memory_mb": memory, "local_gb": disk,
        "vcpus_used": used.vcpus, "memory_mb_used": used.memory_mb, "local_gb_used": used.local_gb,
        "free_ram_mb": memory - used.memory_mb, "free_disk_gb": disk - used.local_gb, "disk_available_least": node.disk_free_gib,
        "current_workload": used.busy, "running_vms": used.running,
    }))
}

#[derive(Clone, Copy)]
struct Show {
    detail: bool,
    servers: bool,
    now: Timestamp,
}

fn view(cx: &Cx, reader: &Reader<'_>, node: &Object<Node>, show: Show) -> Map {
    let mut out = map(json!({
        "id": services::id(cx, node.number, &node.id), "hypervisor_hostname": node.host,
        "state": if node.is_up() { "up" } else { "down" }, "status": if node.disabled { "disabled" } else { "enabled" },
    }));
    if show.detail {
        out.extend(map(json!({
            "hypervisor_type": node.hypervisor_type, "hypervisor_version": node.hypervisor_version, "host_ip": node.host_ip,
            "service": {
                "id": services::id(cx, services::number_of(node), &services::uuid_of(&node.id)), "host": node.host,
                "disabled_reason": node.disabled_reason,
            },
        })));
        if at(cx, 88) {
            out.insert("uptime".into(), json!(uptime_of(node, show.now)));
        } else {
            out.extend(numbers(node, &used(reader, node)));
            let cpu = json!({ "model": node.cpu_model });
            out.insert("cpu_info".into(), if at(cx, 28) { cpu } else { cpu.to_string().into() });
        }
    }
    if show.servers {
        let servers: Vec<Value> = by_index(reader, &Server::DEF.table, "node_id", &node.id)
            .iter()
            .map(|r| json!({ "name": crate::server::view::instance_name(r.id()), "uuid": r.id() }))
            .collect();
        if !servers.is_empty() || at(cx, 75) {
            out.insert("servers".into(), servers.into());
        }
    }
    out
}

fn matching(reader: &Reader<'_>, pattern: &str) -> Result<Vec<Object<Node>>> {
    let nodes: Vec<_> = services::nodes(reader)?.into_iter().filter(|n| n.host.contains(pattern)).collect();
    if nodes.is_empty() {
        return Err(Error::not_found(format!("No hypervisor matching '{pattern}' could be found.")));
    }
    Ok(nodes)
}

/// `with_servers`, since 2.53.
fn with_servers(cx: &Cx) -> Result<bool> {
    let Some(text) = cx.query.get("with_servers").filter(|_| at(cx, 53)) else { return Ok(false) };
    shape::as_bool(&text.into()).ok_or_else(|| {
        Error::bad_request(format!("Invalid input for query parameters with_servers. Value: {text}. '{text}' is not a boolean"))
    })
}

fn answer(call: &Call, detail: bool) -> Result<Reply> {
    let cx = &call.cx;
    check_query(cx, 53, &["limit", "marker", "hypervisor_hostname_pattern", "with_servers"])?;
    let show = Show { detail, servers: with_servers(cx)?, now: call.cloud.db.now() };
    let reader = call.reader();
    let mut link = None;
    let nodes = match cx.query.get("hypervisor_hostname_pattern").filter(|_| at(cx, 53)) {
        Some(_) if cx.query.get("limit").is_some() || cx.query.get("marker").is_some() => {
            return Err(Error::bad_request(
                "Paging over hypervisors with the hypervisor_hostname_pattern query parameter is not supported.",
            ));
        }
        Some(pattern) => matching(&reader, pattern)?,
        None if at(cx, 33) => {
            let path = if detail { "/v2.1/os-hypervisors/detail" } else { "/v2.1/os-hypervisors" };
            let id = |n: &Object<Node>| if at(cx, 53) { n.id.clone() } else { n.number.to_string() };
            let marked: Vec<(String, Object<Node>)> = services::nodes(&reader)?.into_iter().map(|n| (id(&n), n)).collect();
            let (found, next) = page(cx, marked, path, |(id, _)| id)?;
            link = next;
            found.into_iter().map(|(_, n)| n).collect()
        }
        None => services::nodes(&reader)?,
    };
    let list: Vec<Value> = nodes.iter().map(|n| view(cx, &reader, n, show).into()).collect();
    let mut body = map(json!({ "hypervisors": list }));
    if let Some(link) = link {
        body.insert("hypervisors_links".into(), link);
    }
    Ok(Reply::ok(body.into()))
}

async fn list(call: Call) -> Result<Reply> {
    answer(&call, false)
}
async fn detail(call: Call) -> Result<Reply> {
    answer(&call, true)
}

/// The node by the id that the version knows.
fn look(call: &Call, reader: &Reader<'_>) -> Result<Object<Node>> {
    let id = call.param("id");
    let uuids = at(&call.cx, 53);
    if uuids && !base::id::is_uuid(id) {
        return Err(Error::bad_request(format!("Invalid uuid {id}")));
    }
    let is_it = |n: &Object<Node>| if uuids { n.id == id } else { n.number.to_string() == id };
    let missing = || Error::not_found(format!("Hypervisor with ID '{id}' could not be found."));
    services::nodes(reader)?.into_iter().find(is_it).ok_or_else(missing)
}

async fn show(call: Call) -> Result<Reply> {
    check_query(&call.cx, 53, &["with_servers"])?;
    let show = Show { detail: true, servers: with_servers(&call.cx)?, now: call.cloud.db.now() };
    let reader = call.reader();
    let node = look(&call, &reader)?;
    Ok(Reply::ok(json!({ "hypervisor": view(&call.cx, &reader, &node, show) })))
}

/// A view of its own until 2.87; later it is an attribute.
async fn uptime(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let node = look(&call, &reader)?;
    let show = Show { detail: false, servers: false, now: call.cloud.db.now() };
    let uptime = uptime_of(&node, show.now)
        .ok_or_else(|| Error::bad_request(format!("Compute service of {} is unavailable at this time.", node.host)))?;
    let mut out = view(&call.cx, &reader, &node, show);
    out.insert("uptime".into(), uptime.into());
    Ok(Reply::ok(json!({ "hypervisor": out })))
}

async fn search(call: Call) -> Result<Reply> {
    by_pattern(&call, false)
}
async fn servers(call: Call) -> Result<Reply> {
    by_pattern(&call, true)
}
fn by_pattern(call: &Call, servers: bool) -> Result<Reply> {
    let show = Show { detail: false, servers, now: call.cloud.db.now() };
    let reader = call.reader();
    let list: Vec<Value> = matching(&reader, call.param("id"))?.iter().map(|n| view(&call.cx, &reader, n, show).into()).collect();
    Ok(Reply::ok(json!({ "hypervisors": list })))
}

async fn statistics(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let nodes = services::nodes(&reader)?;
    let counted: Vec<&Object<Node>> = nodes.iter().filter(|n| !n.disabled).collect();
    let mut sum = map(json!({
        "vcpus": 0, "memory_mb": 0, "local_gb": 0, "vcpus_used": 0, "memory_mb_used": 0, "local_gb_used": 0, "free_ram_mb": 0,
        "free_disk_gb": 0, "disk_available_least": 0, "current_workload": 0, "running_vms": 0,
    }));
    for node in &counted {
        for (key, value) in numbers(node, &used(&reader, node)) {
            let now = sum.get(&key).and_then(Value::as_i64).unwrap_or(0);
            sum.insert(key, (now + value.as_i64().unwrap_or(0)).into());
        }
    }
    sum.insert("count".into(), counted.len().into());
    Ok(Reply::ok(json!({ "hypervisor_statistics": sum })))
}

pub(super) fn routes() -> Vec<Route> {
    let admin = |name| Access::Rule(name, "admin");
    let all = "/v2.1/os-hypervisors";
    vec![
        Route::new("GET", all, admin("os_compute_api:os-hypervisors:list"), list),
        Route::new("GET", "/v2.1/os-hypervisors/detail", admin("os_compute_api:os-hypervisors:list-detail"), detail),
        Route::new("GET", "/v2.1/os-hypervisors/statistics", admin("os_compute_api:os-hypervisors:statistics"), statistics)
            .until("2.87"),
        Route::new("GET", "/v2.1/os-hypervisors/{id}", admin("os_compute_api:os-hypervisors:show"), show),
        Route::new("GET", "/v2.1/os-hypervisors/{id}/uptime", admin("os_compute_api:os-hypervisors:uptime"), uptime)
            .until("2.87"),
        Route::new("GET", "/v2.1/os-hypervisors/{id}/search", admin("os_compute_api:os-hypervisors:search"), search)
            .until("2.52"),
        Route::new("GET", "/v2.1/os-hypervisors/{id}/servers", admin("os_compute_api:os-hypervisors:servers"), servers)
            .until("2.52"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_is_that_of_a_host_that_is_up() {
        let now = Timestamp::from_unix(200_000);
        let node = |state: &str| Node { state: state.into(), up_since: Timestamp::from_unix(100_000).0, ..Node::default() };
        assert_eq!(uptime_of(&node("up"), now).as_deref(), Some(" 07:33:20 up 1 days,  3:46"));
        assert_eq!(uptime_of(&node("down"), now), None);
    }

    #[test]
    fn free_is_what_there_is_without_what_is_used() {
        let node = Node { vcpus: 4, memory_mib: 8192, disk_gib: 100, disk_free_gib: 60, ..Node::default() };
        let used = Use { vcpus: 3, memory_mb: 1024, local_gb: 10, running: 2, busy: 1 };
        let n = numbers(&node, &used);
        assert_eq!((&n["free_ram_mb"], &n["free_disk_gb"], &n["disk_available_least"]), (&json!(7168), &json!(90), &json!(60)));
        assert_eq!((&n["running_vms"], &n["current_workload"], n.len()), (&json!(2), &json!(1), 11));
    }
}
