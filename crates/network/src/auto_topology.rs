//! The auto-allocated topology (api-ref `v2/auto-allocated-topology`): a network with a way out, made on first demand. It is what
//! `openstack server create --network auto` uses.
use crate::{
    fail, interfaces, ports,
    resources::{Network, Port, Router, Subnet, SubnetPool},
};
use api::{Access, Call, Cx, Map, Reply, Result, Route};
use resource::{Object, Resource, Tx, engine, load};
use serde_json::{Value, json};
use store::Table;

/// Project to its topology.
pub(crate) static TOPOLOGIES: Table = Table { name: "network/auto_topologies", indexes: &[] };

/// Where there is no default pool to cut from; it overlaps with nothing, for nobody else is on this network.
const BLOCK: &str = "10.0.0.0/24";

pub(crate) fn routes() -> Vec<Route> {
    let any = Access::Authenticated;
    vec![
        Route::new("GET", "/v2.0/auto-allocated-topology/{project}", any, show),
        Route::new("DELETE", "/v2.0/auto-allocated-topology/{project}", any, delete),
    ]
}

/// The project of the path; a caller acts for its own, an administrator for all.
fn project(call: &Call) -> Result<String> {
    let named = call.param("project");
    let own = call.cx.caller.project_id();
    match named {
        "None" | "null" => call.cx.project(),
        named if Some(named) == own || call.cx.is_admin() => Ok(named.to_owned()),
        _ => Err(fail::forbidden("get_auto_allocated_topology")),
    }
}

async fn show(call: Call) -> Result<Reply> {
    let project = project(&call)?;
    let dry = call.cx.query.all("fields").any(|f| f == "dry-run");
    if !dry {
        call.require("member", None)?;
    }
    let owner = project.clone();
    let id = call.transact(move |cx, tx| if dry { check(tx) } else { ensure(tx, cx, &owner) }).await?;
    Ok(Reply::ok(json!({ "auto_allocated_topology": { "id": id, "tenant_id": project, "project_id": project } })))
}

async fn delete(call: Call) -> Result<Reply> {
    let project = project(&call)?;
    call.require("member", None)?;
    call.transact(move |cx, tx| remove(tx, cx, &project)).await?;
    Ok(Reply::empty(204))
}

fn impossible(reason: &str) -> api::Error {
    fail::refused("AutoAllocationFailure", format!("Deployment error: {reason}."))
}

/// The external network to lead out by: the default one, or the only one.
fn way_out(tx: &Tx<'_>) -> Result<String> {
    let external: Vec<_> = tx.all(&Network::DEF.table).into_iter().filter(|n| n.field("router:external") == true).collect();
    match (external.iter().find(|n| n.field("is_default") == true), external.as_slice()) {
        (Some(default), _) => Ok(default.id().to_owned()),
        (None, [only]) => Ok(only.id().to_owned()),
        (None, _) => Err(impossible("No default router:external network; an administrator must mark one as default")),
    }
}

fn check(tx: &mut Tx<'_>) -> Result<String> {
    way_out(tx)?;
    Ok("dry-run=pass".into())
}

fn object(value: Value) -> Map {
    value.as_object().cloned().unwrap_or_default()
}

fn made(row: &Map) -> String {
    row.get("id").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The network of the project's topology; makes it if there is none.
fn ensure(tx: &mut Tx<'_>, cx: &Cx, project: &str) -> Result<String> {
    if let Some(row) = tx.get(&TOPOLOGIES, project) {
        let network = row.text("network_id").to_owned();
        if load::<Network>(tx, &network)?.is_some() {
            return Ok(network);
        }
    }
    let out = way_out(tx)?;
    let network = object(json!({ "name": "auto_allocated_network", "project_id": project }));
    let network = made(&engine::create(tx, Network::DEF, cx, &network)?);
    let pooled = tx.all(&SubnetPool::DEF.table).iter().any(|p| p.field("is_default") == true && *p.field("ip_version") == 4);
    let mut subnet =
        object(json!({ "name": "auto_allocated_subnet_v4", "network_id": network, "ip_version": 4, "project_id": project }));
    if pooled {
        subnet.insert("use_default_subnetpool".into(), true.into());
    } else {
        subnet.insert("cidr".into(), BLOCK.into());
    }
    let subnet = made(&engine::create(tx, Subnet::DEF, cx, &subnet)?);
    let router =
        json!({ "name": "auto_allocated_router", "project_id": project, "external_gateway_info": { "network_id": out } });
    let router = made(&engine::create(tx, Router::DEF, cx, &object(router))?);
    let row: Object<Router> = load(tx, &router)?.ok_or_else(|| fail::router_missing(&router))?;
    interfaces::add_by_subnet(tx, cx, &row, &subnet)?;
    tx.put(&TOPOLOGIES, project, json!({ "network_id": network, "router_id": router }));
    Ok(network)
}

/// Takes the topology away; a port in use keeps it.
fn remove(tx: &mut Tx<'_>, cx: &Cx, project: &str) -> Result<()> {
    let Some(row) = tx.get(&TOPOLOGIES, project) else {
        return Err(fail::missing("AutoAllocatedTopologyNotFound", format!("Project {project} has no auto-allocated topology.")));
    };
    let (network, router) = (row.text("network_id").to_owned(), row.text("router_id").to_owned());
    for port in tx.children(&Port::DEF.table, "device_id", &router) {
        let port: Object<Port> = Object::from_row(&port)?;
        if port.device_owner == ports::INTERFACE_OWNER && port.network_id == network {
            ports::remove(tx, &port)?;
        }
    }
    if load::<Router>(tx, &router)?.is_some() {
        engine::delete(tx, Router::DEF, cx, &router)?;
    }
    if load::<Network>(tx, &network)?.is_some() {
        engine::delete(tx, Network::DEF, cx, &network)?;
    }
    tx.delete(&TOPOLOGIES, project);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::BLOCK;

    #[test]
    fn the_block_is_one() {
        assert_eq!(BLOCK.parse::<ipnet::IpNet>().map(|n| n.to_string()).as_deref(), Ok(BLOCK));
    }
}
