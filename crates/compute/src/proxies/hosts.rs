//! Hosts (Nova api-ref, `os-hosts`), until 2.42: an older view of services and hypervisors.
use super::{hypervisors, services};
use crate::{
    common::{by_index, int, map, object, text},
    resources::{Node, Server},
    shape::{Shape, opt},
};
use api::{Access, Call, Error, Map, Reply, Result, Route};
use resource::{Object, Reader, Resource};
use serde_json::{Value, json};

const WORDS: Shape = Shape::Choice(&["enable", "disable", "Enable", "Disable", "ENABLE", "DISABLE"]);
const UPDATE: Shape = Shape::Object(&[opt("status", &WORDS), opt("maintenance_mode", &WORDS)]);

async fn list(call: Call) -> Result<Reply> {
    let zone = call.cx.query.get("zone").filter(|z| !z.is_empty());
    let all = services::all(&call.reader(), call.cloud.db.now())?;
    let shown: Vec<Value> = all
        .iter()
        .filter(|s| !s.disabled && zone.is_none_or(|z| s.zone == z))
        .map(|s| json!({ "host_name": s.host, "service": s.binary.trim_start_matches("nova-"), "zone": s.zone }))
        .collect();
    Ok(Reply::ok(json!({ "hosts": shown })))
}

fn look(call: &Call, reader: &Reader<'_>) -> Result<Object<Node>> {
    let host = call.param("id");
    let node = services::nodes(reader)?.into_iter().find(|n| n.host == host);
    node.ok_or_else(|| Error::not_found(format!("Compute host {host} could not be found.")))
}

fn resource(host: &str, project: &str, cpu: i64, memory_mb: i64, disk_gb: i64) -> Value {
    json!({ "resource": { "host": host, "project": project, "cpu": cpu, "memory_mb": memory_mb, "disk_gb": disk_gb } })
}

/// What servers take, by project in the order of first sight, and in all.
fn shares(servers: &[Map]) -> ([i64; 3], Vec<(String, [i64; 3])>) {
    let (mut sum, mut projects) = ([0; 3], Vec::<(String, [i64; 3])>::new());
    for server in servers {
        let flavor = server.get("flavor").and_then(Value::as_object).cloned().unwrap_or_default();
        let takes = [int(&flavor, "vcpus"), int(&flavor, "ram"), int(&flavor, "disk") + int(&flavor, "ephemeral")];
        let project = text(server, "project_id");
        let at = projects.iter().position(|(p, _)| p == project).unwrap_or_else(|| {
            projects.push((project.to_owned(), [0; 3]));
            projects.len() - 1
        });
        for (i, n) in takes.into_iter().enumerate() {
            sum[i] += n;
            projects[at].1[i] += n;
        }
    }
    (sum, projects)
}

async fn show(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let node = look(&call, &reader)?;
    let host = node.host.as_str();
    let servers: Vec<Map> = by_index(&reader, &Server::DEF.table, "host", host).iter().map(|r| object(r).clone()).collect();
    let used = hypervisors::used(&reader, &node);
    let ([cpu, memory, disk], projects) = shares(&servers);
    let mut out = vec![
        resource(host, "(total)", i64::from(node.vcpus), node.memory_mib as i64, node.disk_gib as i64),
        resource(host, "(used_now)", used.vcpus, used.memory_mb, used.local_gb),
        resource(host, "(used_max)", cpu, memory, disk),
    ];
    out.extend(projects.iter().map(|(project, [cpu, memory, disk])| resource(host, project, *cpu, *memory, *disk)));
    Ok(Reply::ok(json!({ "host": out })))
}

async fn update(call: Call) -> Result<Reply> {
    UPDATE.check(call.json(), &call.cx)?;
    let input = call.object()?;
    if input.is_empty() {
        return Err(Error::bad_request(
            "Invalid input for field/attribute host. Either 'status' or 'maintenance_mode' is a required property",
        ));
    }
    let enabled = input.get("status").and_then(Value::as_str).map(|s| s.eq_ignore_ascii_case("enable"));
    let host = look(&call, &call.reader())?.host.clone();
    if input.contains_key("maintenance_mode") {
        return Err(crate::common::unsupported());
    }
    let mut out = map(json!({ "host": host }));
    if let Some(enabled) = enabled {
        out.insert("status".into(), if enabled { "enabled" } else { "disabled" }.into());
        let wish = services::Wish { disabled: Some((!enabled, None)), ..services::Wish::default() };
        call.transact(move |cx, tx| {
            let missing = || Error::not_found(format!("Compute host {host} could not be found."));
            let mut node = services::by_host(tx, &host)?.ok_or_else(missing)?;
            services::apply(tx, cx, &mut node, &wish)
        })
        .await?;
    }
    Ok(Reply::ok(out.into()))
}

/// Hosts are not powered through this API: fencing has its own roads.
async fn power(call: Call) -> Result<Reply> {
    look(&call, &call.reader())?;
    Err(crate::common::unsupported())
}

pub(super) fn routes() -> Vec<Route> {
    let admin = |name| Access::Rule(name, "admin");
    let one = "/v2.1/os-hosts/{id}";
    let routes = vec![
        Route::new("GET", "/v2.1/os-hosts", admin("os_compute_api:os-hosts:list"), list),
        Route::new("GET", one, admin("os_compute_api:os-hosts:show"), show),
        Route::new("PUT", one, admin("os_compute_api:os-hosts:update"), update),
        Route::new("GET", "/v2.1/os-hosts/{id}/reboot", admin("os_compute_api:os-hosts:reboot"), power),
        Route::new("GET", "/v2.1/os-hosts/{id}/shutdown", admin("os_compute_api:os-hosts:shutdown"), power),
        Route::new("GET", "/v2.1/os-hosts/{id}/startup", admin("os_compute_api:os-hosts:start"), power),
    ];
    routes.into_iter().map(|r| r.until("2.42")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        let server = |p: &str| map(json!({"project_id": p, "flavor": {"vcpus": 2, "ram": 512, "disk": 1, "ephemeral": 3}}));
        let (sum, projects) = shares(&[server("a"), server("b"), server("a")]);
        assert_eq!(sum, [6, 1536, 12]);
        assert_eq!(projects, [("a".to_owned(), [4, 1024, 8]), ("b".to_owned(), [2, 512, 4])]);
    }
}
