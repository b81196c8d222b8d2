//! How full networks are (`/network-ip-availabilities`), and the hosts that carry them (`/agents`). Both are computed on each read.
use crate::{
    fail,
    ipam::{ALLOCATIONS, Range},
    resources::{Network, Subnet},
};
use api::{Access, Call, Map, Reply, Result, Route};
use resource::{Object, Reader, Resource};
use serde_json::{Value, json};
use store::{Row, Table};

/// The nodes of the cloud; compute owns the rows.
static NODES: Table = Table { name: "compute/nodes", indexes: &[] };

pub(crate) fn routes() -> Vec<Route> {
    let admin = |name| Access::Rule(name, "admin");
    vec![
        Route::new("GET", "/v2.0/network-ip-availabilities", admin("get_network_ip_availabilities"), |call| async move {
            list(&call)
        }),
        Route::new("GET", "/v2.0/network-ip-availabilities/{id}", admin("get_network_ip_availability"), |call| async move {
            show(&call)
        }),
        Route::new("GET", "/v2.0/agents", Access::Authenticated, |call| async move { agents(&call) }),
        Route::new("GET", "/v2.0/agents/{id}", admin("get_agent"), |call| async move { agent(&call) }),
    ]
}

fn availability(reader: &Reader<'_>, network: &Row, version: Option<&str>) -> Value {
    let (mut total, mut used, mut subnets) = (0u128, 0usize, Vec::new());
    for row in reader.find(&Subnet::DEF.table, "network_id", network.id()) {
        let Ok(subnet) = Object::<Subnet>::from_row(&row) else { continue };
        if version.is_some_and(|v| v != subnet.ip_version.to_string()) {
            continue;
        }
        let all = subnet.pools().iter().map(Range::size).fold(0u128, u128::saturating_add);
        let taken = reader.find(&ALLOCATIONS, "subnet_id", &subnet.id).len();
        total = total.saturating_add(all);
        used += taken;
        subnets.push(json!({
            "subnet_id": subnet.id, "subnet_name": subnet.name, "cidr": subnet.cidr, "ip_version": subnet.ip_version,
            "total_ips": number(all), "used_ips": taken,
        }));
    }
    json!({
        "network_id": network.id(), "network_name": network.text("name"),
        "project_id": network.text("project_id"), "tenant_id": network.text("project_id"),
        "total_ips": number(total), "used_ips": used, "subnet_ip_availability": subnets,
    })
}

/// IPv6 counts do not fit the numbers of JSON libraries: the largest that does stands for them.
fn number(n: u128) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn list(call: &Call) -> Result<Reply> {
    let reader = call.reader();
    let query = &call.cx.query;
    let fits = |key: &str, value: &str| query.get(key).is_none() || query.all(key).any(|v| v == value);
    let networks = reader.all(&Network::DEF.table).filter(|n| {
        let project = n.text("project_id");
        fits("network_id", n.id())
            && fits("network_name", n.text("name"))
            && fits("project_id", project)
            && fits("tenant_id", project)
    });
    let rows: Vec<Value> = networks.map(|n| availability(&reader, n, query.get("ip_version"))).collect();
    Ok(Reply::ok(json!({ "network_ip_availabilities": rows })))
}

fn show(call: &Call) -> Result<Reply> {
    let reader = call.reader();
    let id = call.param("id");
    let network = reader.get(&Network::DEF.table, id).ok_or_else(|| fail::network_missing(id))?;
    Ok(Reply::ok(json!({ "network_ip_availability": availability(&reader, &network, None) })))
}

/// Each node runs `ovn-controller` and serves metadata itself.
fn described(node: &Row) -> Map {
    let host = node.text("host");
    let alive = node.text("state") == "up" && node.field("forced_down") != true;
    let time = |field: &str| {
        let text = |t| base::Timestamp(t).seconds_z().replace('T', " ").replace('Z', "");
        node.field(field).as_i64().filter(|t| *t > 0).map(text)
    };
    let agent = json!({
        "id": base::id::named(&format!("network/agent/{}", node.id())), "agent_type": "OVN Controller agent",
        "binary": "ovn-controller", "host": host, "topic": "n/a", "admin_state_up": node.field("disabled") != true, "alive": alive,
        "availability_zone": "", "description": "", "configurations": {}, "created_at": time("up_since"),
        "started_at": time("up_since"), "heartbeat_timestamp": time("last_seen"), "resources_synced": null,
    });
    agent.as_object().cloned().unwrap_or_default()
}

fn agents(call: &Call) -> Result<Reply> {
    let mut rows = Vec::new();
    if call.cx.is_admin() {
        let reader = call.reader();
        let fields: Vec<&str> = call.cx.query.all("fields").collect();
        for mut agent in reader.all(&NODES).map(|n| described(n)) {
            let fits = |(k, v): &(String, String)| match agent.get(k) {
                Some(Value::String(s)) => s == v,
                Some(Value::Bool(b)) => v.eq_ignore_ascii_case(if *b { "true" } else { "false" }),
                _ => true,
            };
            if call.cx.query.0.iter().all(fits) {
                agent.retain(|k, _| fields.is_empty() || fields.contains(&k.as_str()));
                rows.push(Value::from(agent));
            }
        }
    }
    Ok(Reply::ok(json!({ "agents": rows })))
}

fn agent(call: &Call) -> Result<Reply> {
    let id = call.param("id");
    let reader = call.reader();
    let found = reader.all(&NODES).map(|n| described(n)).find(|a| a.get("id").and_then(Value::as_str) == Some(id));
    let found = found.ok_or_else(|| fail::missing("AgentNotFound", format!("Agent {id} could not be found.")))?;
    Ok(Reply::ok(json!({ "agent": found })))
}
