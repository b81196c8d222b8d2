//! `os-services` and `os-hosts`: one compute service per node, and the controller's own.
use crate::{
    common::{PROVIDERS, at, flag, int, map, object, text},
    nodes::save_node,
    resources::{Node, Server},
    shape::{self, Shape, opt, req},
    zones,
};
use api::{Access, Call, Error, Map, Reply, Result, Route};
use resource::{Object, Resource};
use serde_json::{Value, json};

/// Host of the services that are no nodes.
pub(crate) const CONTROLLER: &str = "controller";
const BINARIES: [(&str, i64); 2] = [("nova-scheduler", 1), ("nova-conductor", 2)];
/// Numbers of compute services follow those of the controller's.
const FIRST_COMPUTE: i64 = 10;

pub(crate) fn id_of(binary: &str, host: &str) -> String {
    base::id::named(&format!("{binary}@{host}"))
}

struct Service {
    binary: &'static str,
    host: String,
    zone: String,
    number: i64,
    up: bool,
    disabled: bool,
    reason: Value,
    forced_down: bool,
    updated_at: base::Timestamp,
}

fn all(call: &Call) -> Vec<Service> {
    let reader = call.reader();
    let now = call.cloud.db.now();
    let controller = BINARIES.iter().map(|(binary, number)| Service {
        binary,
        host: CONTROLLER.to_owned(),
        zone: zones::INTERNAL.to_owned(),
        number: *number,
        up: true,
        disabled: false,
        reason: Value::Null,
        forced_down: false,
        updated_at: now,
    });
    let nodes = reader.all(&Node::DEF.table).map(|row| {
        let node = object(row);
        let up = text(node, "state") == "up" && !flag(node, "forced_down");
        Service {
            binary: "nova-compute",
            host: text(node, "host").to_owned(),
            zone: zones::zone_of(&reader, text(node, "host")),
            number: FIRST_COMPUTE + int(node, "number"),
            up,
            disabled: flag(node, "disabled"),
            reason: node.get("disabled_reason").cloned().unwrap_or(Value::Null),
            forced_down: flag(node, "forced_down"),
            updated_at: if up { now } else { base::Timestamp(int(node, "last_seen")) },
        }
    });
    controller.chain(nodes).collect()
}

fn shown(call: &Call, s: &Service) -> Map {
    let id: Value = if at(&call.cx, 53) { id_of(s.binary, &s.host).into() } else { s.number.into() };
    let mut out = map(json!({
        "id": id, "binary": s.binary, "host": s.host, "zone": s.zone, "status": if s.disabled { "disabled" } else { "enabled" },
        "state": if s.up { "up" } else { "down" }, "updated_at": s.updated_at.micros(), "disabled_reason": s.reason,
    }));
    if at(&call.cx, 11) {
        out.insert("forced_down".into(), s.forced_down.into());
    }
    out
}

async fn list(call: Call) -> Result<Reply> {
    let query = &call.cx.query;
    if let Some(key) = query.keys().find(|k| !matches!(*k, "host" | "binary"))
        && at(&call.cx, 75)
    {
        return Err(Error::bad_request(format!("Additional properties are not allowed ('{key}' was unexpected)")));
    }
    let fits = |s: &&Service| query.get("host").is_none_or(|h| h == s.host) && query.get("binary").is_none_or(|b| b == s.binary);
    let services: Vec<Map> = all(&call).iter().filter(fits).map(|s| shown(&call, s)).collect();
    Ok(Reply::ok(json!({ "services": services })))
}

/// Changes the node of a compute service.
async fn change<F>(call: &Call, host: &str, mut how: F) -> Result<()>
where
    F: FnMut(&mut Node) + Send + 'static,
{
    let missing = |host: &str| Error::not_found(format!("Could not find binary nova-compute on host {host}."));
    let id = {
        let reader = call.reader();
        let row = reader.find(&Node::DEF.table, "host", host);
        row.first().map(|r| r.id().to_owned()).ok_or_else(|| missing(host))?
    };
    let host = host.to_owned();
    call.transact(move |_, tx| {
        let node: Option<Object<Node>> = resource::load(tx, &id)?;
        let mut node = node.ok_or_else(|| missing(&host))?;
        how(&mut node.body);
        save_node(tx, node)
    })
    .await
}

const SERVICE: Shape = Shape::Object(&[
    req("host", &shape::FQDN),
    req("binary", &Shape::Text { min: 1, max: 255 }),
    opt("disabled_reason", &Shape::Text { min: 1, max: 255 }),
    opt("forced_down", &Shape::Bool).since(11),
]);

/// `PUT /os-services/enable` and its siblings, until 2.52.
async fn old_update(call: Call, what: &'static str) -> Result<Reply> {
    SERVICE.check(call.json(), &call.cx)?;
    let body = call.object()?;
    let (host, binary) = (text(body, "host").to_owned(), text(body, "binary").to_owned());
    if binary != "nova-compute" {
        return Err(Error::not_found(format!("Could not find binary {binary} on host {host}.")));
    }
    let reason = body.get("disabled_reason").and_then(Value::as_str).map(str::to_owned);
    let forced = body.get("forced_down").and_then(shape::as_bool);
    let mut out = map(json!({ "host": host, "binary": binary }));
    match what {
        "force-down" => {
            let forced = forced.ok_or_else(|| Error::bad_request("Missing forced_down field"))?;
            out.insert("forced_down".into(), forced.into());
            change(&call, &host, move |n| n.forced_down = forced).await?;
        }
        "enable" => {
            out.insert("status".into(), "enabled".into());
            change(&call, &host, |n| {
                n.disabled = false;
                n.disabled_reason = None;
            })
            .await?;
        }
        _ => {
            if what == "disable-log-reason" {
                let reason = reason.clone().ok_or_else(|| Error::bad_request("Missing disabled reason field"))?;
                out.insert("disabled_reason".into(), reason.into());
            }
            out.insert("status".into(), "disabled".into());
            let reason = reason.filter(|_| what == "disable-log-reason");
            change(&call, &host, move |n| {
                n.disabled = true;
                n.disabled_reason.clone_from(&reason);
            })
            .await?;
        }
    }
    Ok(Reply::ok(json!({ "service": out })))
}

const UPDATE: Shape = Shape::Object(&[
    opt("status", &Shape::Choice(&["enabled", "disabled"])),
    opt("disabled_reason", &Shape::Text { min: 1, max: 255 }),
    opt("forced_down", &Shape::Bool),
]);

/// The service named by the path: a UUID from 2.53, a number before.
fn named(call: &Call) -> Result<Service> {
    let id = call.param("id");
    if at(&call.cx, 53) && !base::id::is_uuid(id) {
        return Err(Error::bad_request(format!("Invalid uuid {id}")));
    }
    let found = all(call).into_iter().find(|s| if at(&call.cx, 53) { id_of(s.binary, &s.host) == id } else { s.number.to_string() == id });
    found.ok_or_else(|| Error::not_found(format!("Service {id} could not be found.")))
}

async fn update(call: Call) -> Result<Reply> {
    UPDATE.check(call.json(), &call.cx)?;
    let body = call.object()?.clone();
    let status = body.get("status").and_then(Value::as_str).map(str::to_owned);
    let reason = body.get("disabled_reason").and_then(Value::as_str).map(str::to_owned);
    let forced = body.get("forced_down").and_then(shape::as_bool);
    if status.is_none() && forced.is_none() {
        return Err(Error::bad_request("No updates were requested. Fields 'status' or 'forced_down' should be specified."));
    }
    if reason.is_some() && status.as_deref() != Some("disabled") {
        return Err(Error::bad_request("Specifying disabled_reason when the service is not disabled is not supported."));
    }
    let service = named(&call)?;
    if service.binary != "nova-compute" {
        return Err(Error::bad_request("Updating a non-compute service is not supported."));
    }
    change(&call, &service.host, move |n| {
        if let Some(status) = &status {
            n.disabled = status == "disabled";
            n.disabled_reason.clone_from(&reason);
        }
        if let Some(forced) = forced {
            n.forced_down = forced;
        }
    })
    .await?;
    let changed = named(&call)?;
    Ok(Reply::ok(json!({ "service": shown(&call, &changed) })))
}

/// Forgets a node that has no servers and is down.
async fn delete(call: Call) -> Result<Reply> {
    let service = named(&call)?;
    if service.binary != "nova-compute" {
        return Err(Error::bad_request("The controller's own services cannot be deleted."));
    }
    if service.up {
        return Err(Error::conflict(format!("Compute service of {} is up; stop it before it is deleted.", service.host)));
    }
    call.transact(move |_, tx| {
        let rows = tx.find(&Node::DEF.table, "host", &service.host);
        let Some(row) = rows.first() else { return Ok(()) };
        if !tx.children(&Server::DEF.table, "node_id", row.id()).is_empty() {
            return Err(Error::conflict("Unable to delete compute service that is hosting instances. Migrate or delete the instances first."));
        }
        tx.delete(&PROVIDERS, row.id());
        tx.delete(&Node::DEF.table, row.id());
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

// --- os-hosts, until 2.42 ---

async fn hosts(call: Call) -> Result<Reply> {
    let zone = call.cx.query.get("zone").filter(|z| !z.is_empty());
    let list: Vec<Value> = all(&call)
        .iter()
        .filter(|s| zone.is_none_or(|z| z == s.zone))
        .map(|s| json!({ "host_name": s.host, "service": s.binary.trim_start_matches("nova-"), "zone": s.zone }))
        .collect();
    Ok(Reply::ok(json!({ "hosts": list })))
}

fn host_node(call: &Call) -> Result<Map> {
    let reader = call.reader();
    let host = call.param("id");
    let rows = reader.find(&Node::DEF.table, "host", host);
    rows.first().map(|r| object(r).clone()).ok_or_else(|| Error::not_found(format!("Compute host {host} could not be found.")))
}

async fn host(call: Call) -> Result<Reply> {
    let node = host_node(&call)?;
    let reader = call.reader();
    let name = text(&node, "host");
    let resource = |project: &str, cpu: i64, ram: i64, disk: i64| {
        json!({ "resource": { "host": name, "project": project, "cpu": cpu, "memory_mb": ram, "disk_gb": disk } })
    };
    let mut out = vec![resource("(total)", int(&node, "vcpus"), int(&node, "memory_mib"), int(&node, "disk_gib"))];
    let (mut sum, mut projects) = ([0i64; 3], std::collections::BTreeMap::<String, [i64; 3]>::new());
    for row in reader.find(&Server::DEF.table, "node_id", text(&node, "id")) {
        let flavor = row.field("flavor");
        let of = |key: &str| flavor[key].as_i64().unwrap_or(0);
        let one = [of("vcpus"), of("ram"), of("disk") + of("ephemeral")];
        let project = projects.entry(row.text("project_id").to_owned()).or_default();
        sum.iter_mut().zip(one).for_each(|(s, n)| *s += n);
        project.iter_mut().zip(one).for_each(|(s, n)| *s += n);
    }
    out.push(resource("(used_now)", sum[0], sum[1], sum[2]));
    out.push(resource("(used_max)", sum[0], sum[1], sum[2]));
    out.extend(projects.iter().map(|(p, [cpu, ram, disk])| resource(p, *cpu, *ram, *disk)));
    Ok(Reply::ok(json!({ "host": out })))
}

const UPDATE_HOST: Shape =
    Shape::Object(&[opt("status", &WORD), opt("maintenance_mode", &WORD)]);
const WORD: Shape = Shape::Choice(&["enable", "disable", "Enable", "Disable", "ENABLE", "DISABLE"]);

async fn update_host(call: Call) -> Result<Reply> {
    UPDATE_HOST.check(call.json(), &call.cx)?;
    let body = call.object()?.clone();
    if body.is_empty() {
        return Err(Error::bad_request("Invalid input: status or maintenance_mode is required."));
    }
    let node = host_node(&call)?;
    let name = text(&node, "host").to_owned();
    let mut out = map(json!({ "host": name }));
    if let Some(status) = body.get("status").and_then(Value::as_str) {
        let disable = status.eq_ignore_ascii_case("disable");
        out.insert("status".into(), if disable { "disabled" } else { "enabled" }.into());
        change(&call, &name, move |n| n.disabled = disable).await?;
    }
    if body.contains_key("maintenance_mode") {
        return Err(crate::common::unsupported());
    }
    Ok(Reply::ok(out.into()))
}

/// Power of hosts belongs to their operators.
async fn host_power(call: Call) -> Result<Reply> {
    host_node(&call)?;
    Err(crate::common::unsupported())
}

pub(crate) fn routes() -> Vec<Route> {
    let admin = |name| Access::Rule(name, "admin");
    let mut out = vec![
        Route::new("GET", "/v2.1/os-services", admin("os_compute_api:os-services:list"), list),
        Route::new("PUT", "/v2.1/os-services/{id}", admin("os_compute_api:os-services:update"), update).since("2.53"),
        Route::new("DELETE", "/v2.1/os-services/{id}", admin("os_compute_api:os-services:delete"), delete),
        Route::new("GET", "/v2.1/os-hosts", admin("os_compute_api:os-hosts:list"), hosts).until("2.42"),
        Route::new("GET", "/v2.1/os-hosts/{id}", admin("os_compute_api:os-hosts:show"), host).until("2.42"),
        Route::new("PUT", "/v2.1/os-hosts/{id}", admin("os_compute_api:os-hosts:update"), update_host).until("2.42"),
        Route::new("GET", "/v2.1/os-hosts/{id}/startup", admin("os_compute_api:os-hosts:start"), host_power).until("2.42"),
        Route::new("GET", "/v2.1/os-hosts/{id}/shutdown", admin("os_compute_api:os-hosts:shutdown"), host_power).until("2.42"),
        Route::new("GET", "/v2.1/os-hosts/{id}/reboot", admin("os_compute_api:os-hosts:reboot"), host_power).until("2.42"),
    ];
    let update = admin("os_compute_api:os-services:update");
    out.extend([
        Route::new("PUT", "/v2.1/os-services/enable", update, |c| old_update(c, "enable")).until("2.52"),
        Route::new("PUT", "/v2.1/os-services/disable", update, |c| old_update(c, "disable")).until("2.52"),
        Route::new("PUT", "/v2.1/os-services/disable-log-reason", update, |c| old_update(c, "disable-log-reason")).until("2.52"),
        Route::new("PUT", "/v2.1/os-services/force-down", update, |c| old_update(c, "force-down")).since("2.11").until("2.52"),
    ]);
    out
}
