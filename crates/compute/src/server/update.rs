//! `GET` and `PUT /servers/{id}`.
use super::{change, request, state, view::Show};
use crate::{
    common::{at, object, text, visible},
    resources::Server,
    shape::{self, Shape, opt, req},
};
use api::{Call, Reply, Result};
use resource::Object;
use serde_json::{Value, json};

const UPDATE: Shape = Shape::Object(&[req(
    "server",
    &Shape::Object(&[
        opt("name", &shape::NAME),
        opt("OS-DCF:diskConfig", &shape::DISK_CONFIG),
        opt("accessIPv4", &shape::IPV4),
        opt("accessIPv6", &shape::IPV6),
        opt("description", &shape::DESCRIPTION).since(19),
        opt("hostname", &shape::HOSTNAME).since(90).until(93),
        opt("hostname", &shape::FQDN).since(94),
    ]),
)]);

pub(crate) async fn show(call: Call) -> Result<Reply> {
    let server: Object<Server> = visible(&call, call.param("id"))?;
    call.require("os_compute_api:servers:show", Some(&server.map))?;
    let reader = call.reader();
    Ok(Reply::ok(json!({ "server": Show::new(&call.cx, &reader).server(&server.map) })))
}

pub(crate) async fn update(call: Call) -> Result<Reply> {
    let server: Object<Server> = visible(&call, call.param("id"))?;
    call.require("os_compute_api:servers:update", Some(&server.map))?;
    UPDATE.check(call.json(), &call.cx)?;
    let input = call.inner("server")?.clone();
    let (row, ()) = change(&call, &server.id, move |_, _, server| {
        let text = |key: &str| input.get(key).and_then(Value::as_str).map(str::to_owned);
        if let Some(name) = text("name") {
            server.name = name.trim().to_owned();
        }
        if let Some(description) = input.get("description") {
            server.description = description.as_str().map(str::to_owned);
        }
        if let Some(hostname) = text("hostname") {
            server.hostname = hostname;
        }
        if let Some(config) = text("OS-DCF:diskConfig") {
            server.disk_config = config;
        }
        if let Some(address) = text("accessIPv4") {
            server.access_ipv4 = address;
        }
        if let Some(address) = text("accessIPv6") {
            server.access_ipv6 = address;
        }
        Ok(())
    })
    .await?;
    let reader = call.reader();
    Ok(Reply::ok(json!({ "server": Show::new(&call.cx, &reader).update().server(&row) })))
}

/// `GET /servers/{id}/ips` and one network of it.
pub(crate) async fn addresses(call: Call) -> Result<Reply> {
    let server: Object<Server> = visible(&call, call.param("id"))?;
    let reader = call.reader();
    let all = Show::new(&call.cx, &reader).addresses(&server.id);
    let network = call.param("network");
    if network.is_empty() {
        return Ok(Reply::ok(json!({ "addresses": all })));
    }
    match all.get(network) {
        Some(list) => Ok(Reply::ok(json!({ network: list }))),
        None => Err(api::Error::not_found("Instance is not a member of specified network")),
    }
}

/// `GET /servers/{id}/os-security-groups`: the groups of its ports, as Nova showed groups.
pub(crate) async fn security_groups(call: Call) -> Result<Reply> {
    let server: Object<Server> = visible(&call, call.param("id"))?;
    let reader = call.reader();
    let groups = call.cx.registry.get("network/security_groups")?;
    let ports = call.cx.registry.get("network/ports")?;
    let mut out: Vec<Value> = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    for port in crate::common::by_index(&reader, &ports.table, "device_id", &server.id) {
        for id in request::strings(port.value().get("security_groups")) {
            if seen.contains(&id) {
                continue;
            }
            if let Some(row) = reader.get(&groups.table, &id) {
                out.push(crate::proxies::security_groups::view(&call, &reader, object(&row)));
            }
            seen.push(id);
        }
    }
    Ok(Reply::ok(json!({ "security_groups": out })))
}

/// `GET /servers/{id}/os-server-password`: what the guest posted to the metadata service.
pub(crate) async fn password(call: Call) -> Result<Reply> {
    let server: Object<Server> = visible(&call, call.param("id"))?;
    Ok(Reply::ok(json!({ "password": server.password })))
}
/// `DELETE /servers/{id}/os-server-password`: the guest may post another.
pub(crate) async fn clear_password(call: Call) -> Result<Reply> {
    let server: Object<Server> = visible(&call, call.param("id"))?;
    call.require("os_compute_api:os-server-password:clear", Some(&server.map))?;
    if !server.password.is_empty() {
        change(&call, &server.id, |_, _, server| {
            server.password.clear();
            Ok(())
        })
        .await?;
    }
    Ok(Reply::empty(204))
}

/// `GET /servers/{id}/diagnostics`, from the node.
pub(crate) async fn diagnostics(call: Call) -> Result<Reply> {
    let server: Object<Server> = visible(&call, call.param("id"))?;
    call.require("os_compute_api:os-server-diagnostics", Some(&server.map))?;
    if !matches!(server.vm_state.as_str(), state::vm::ACTIVE | state::vm::PAUSED | state::vm::RESCUED | state::vm::RESIZED) {
        return Err(api::Error::conflict(format!(
            "Cannot 'get_diagnostics' instance {} while it is in vm_state {}",
            server.id, server.vm_state
        )));
    }
    let answer = crate::nodes::ask(&call, &server, assign::Query::Diagnostics { server_id: server.id.clone() }).await?;
    let assign::Answer::Json(value) = answer else { return Err(api::Error::internal("diagnostics are no JSON")) };
    Ok(Reply::ok(if at(&call.cx, 48) { value } else { flat(&value) }))
}

/// The form before 2.48: whatever the driver had, in one object.
fn flat(value: &Value) -> Value {
    let list = |key: &str| value[key].as_array().cloned().unwrap_or_default();
    let mut out = api::Map::new();
    for (i, cpu) in list("cpu_details").iter().enumerate() {
        out.insert(format!("cpu{i}_time"), cpu["time"].clone());
    }
    for nic in list("nic_details") {
        let name = format!("tap-{}", nic["mac_address"].as_str().unwrap_or_default());
        for (old, new) in [("rx", "rx_octets"), ("rx_packets", "rx_packets"), ("tx", "tx_octets"), ("tx_packets", "tx_packets")] {
            out.insert(format!("{name}_{old}"), nic[new].clone());
        }
    }
    for (i, disk) in list("disk_details").iter().enumerate() {
        let name = format!("vd{}", char::from(b'a' + (i % 26) as u8));
        for (old, new) in
            [("read_req", "read_requests"), ("read", "read_bytes"), ("write_req", "write_requests"), ("write", "write_bytes")]
        {
            out.insert(format!("{name}_{old}"), disk[new].clone());
        }
    }
    let memory = value["memory_details"]["maximum"].as_i64().unwrap_or(0);
    out.insert("memory".into(), (memory * 1024).into());
    out.into()
}

/// `GET /servers/{id}/topology`: no NUMA placement is made, so there are no nodes to show.
pub(crate) async fn topology(call: Call) -> Result<Reply> {
    let server: Object<Server> = visible(&call, call.param("id"))?;
    call.require("compute:server:topology:index", Some(&server.map))?;
    Ok(Reply::ok(json!({ "nodes": [], "pagesize_kb": null })))
}

/// `GET /servers/{id}/migrations`: live migrations under way. There are none.
pub(crate) async fn migrations(call: Call) -> Result<Reply> {
    let _server: Object<Server> = visible(&call, call.param("id"))?;
    Ok(Reply::ok(json!({ "migrations": [] })))
}
pub(crate) async fn migration(call: Call) -> Result<Reply> {
    let server: Object<Server> = visible(&call, call.param("id"))?;
    let id = call.param("migration");
    Err(api::Error::not_found(format!("In-progress live migration {id} is not found for server {}.", text(&server.map, "id"))))
}
