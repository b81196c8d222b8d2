//! Routers (api-ref `v2/routers`). Interfaces are ports, see [`crate::interfaces`]; the gateway is a port, see [`crate::gateway`].
use super::{OBJECTS, Port, Subnet};
use crate::{fail, gateway, ipam::range, ports, tags};
use api::{Cx, Map, Result};
use ipnet::IpNet;
use resource::{Deletion, Kind, Object, Reader, Resource, Rules, Tx, load};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::net::IpAddr;

const MOST_ROUTES: usize = 30;

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExternalFixedIp {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subnet_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ip_address: Option<String>,
}

/// The way out. `{}` says the same as null: none.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct GatewayInfo {
    #[serde(default)]
    pub(crate) network_id: Option<String>,
    #[serde(default)]
    pub(crate) external_fixed_ips: Option<Vec<ExternalFixedIp>>,
    #[serde(default)]
    pub(crate) enable_snat: Option<bool>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hop {
    pub(crate) destination: IpNet,
    pub(crate) nexthop: IpAddr,
}

/// Joins networks.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "network", path = "/v2.0/routers", owner = "project", quota = "router", stamps)]
#[policy(
    list = "reader",
    show = "reader",
    create = "member",
    update = "rule:network_row_owner",
    delete = "rule:network_row_owner"
)]
pub(crate) struct Router {
    #[field(create, update, filter, sort, default = "")]
    pub(crate) name: String,
    #[field(create, update, filter, default = "")]
    pub(crate) description: String,
    #[field(create, update, filter, sort, default = true)]
    pub(crate) admin_state_up: bool,
    #[field(filter, sort, default = "ACTIVE")]
    pub(crate) status: String,
    #[field(create, update, kind = Kind::Optional(&Kind::Object))]
    pub(crate) external_gateway_info: Option<GatewayInfo>,
    #[field(update, kind = OBJECTS)]
    pub(crate) routes: Option<Vec<Hop>>,
    /// Floating addresses answer on the host of their port.
    #[field(create, update, filter, policy = "admin", read_policy = "admin", default = false)]
    pub(crate) distributed: bool,
    /// The gateway moves to another host when its own fails.
    #[field(create, update, filter, policy = "admin", read_policy = "admin", default = true)]
    pub(crate) ha: bool,
    #[field(create, default = Vec::<String>::new())]
    pub(crate) availability_zone_hints: Vec<String>,
    #[field(hidden, index)]
    pub(crate) gw_port_id: Option<String>,
    #[field(default = Vec::<String>::new())]
    pub(crate) tags: Vec<String>,
}

impl Rules for Router {
    fn create(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        row.routes.get_or_insert_default();
        gateway::settle(row, None, cx, tx)
    }

    fn update(row: &mut Object<Self>, old: &Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        row.routes.get_or_insert_default();
        if row.external_gateway_info != old.external_gateway_info {
            gateway::settle(row, Some(old), cx, tx)?;
        }
        if row.routes != old.routes {
            check_routes(row, tx)?;
        }
        Ok(())
    }

    fn delete(row: &mut Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        for port in tx.children(&Port::DEF.table, "device_id", &row.id) {
            match port.text("device_owner") {
                ports::INTERFACE_OWNER => {
                    return Err(fail::refused("RouterInUse", format!("Router {} still has ports", row.id)));
                }
                ports::GATEWAY_OWNER => ports::remove(tx, &Object::from_row(&port)?)?,
                _ => {}
            }
        }
        Ok(Deletion::Now)
    }

    fn view(row: &Map, out: &mut Map, _cx: &Cx, _reader: &Reader<'_>) {
        if row.get("external_gateway_info").is_none_or(Value::is_null) {
            out.insert("external_gateway_info".into(), Value::Null);
        }
        out.insert("availability_zones".into(), Value::Array(Vec::new()));
    }

    fn filter(row: &Map, key: &str, values: &[&str], _cx: &Cx) -> Option<bool> {
        tags::filter(row, key, values)
    }
}

/// A router's interfaces and gateway.
pub(crate) struct Reach {
    pub(crate) ports: Vec<Object<Port>>,
    /// The subnets that they are on.
    pub(crate) subnets: Vec<Object<Subnet>>,
}

pub(crate) fn reach(tx: &mut Tx<'_>, router: &str) -> Result<Reach> {
    let mut held: Vec<Object<Port>> = resource::find(tx, "device_id", router)?;
    held.retain(|p| matches!(p.device_owner.as_str(), ports::INTERFACE_OWNER | ports::GATEWAY_OWNER));
    let mut subnets: Vec<Object<Subnet>> = Vec::new();
    for port in &held {
        for (subnet, _) in port.addresses() {
            if !subnets.iter().any(|s| s.id == subnet) {
                subnets.extend(load(tx, subnet)?);
            }
        }
    }
    Ok(Reach { ports: held, subnets })
}

fn check_routes(router: &Object<Router>, tx: &mut Tx<'_>) -> Result<()> {
    let routes = router.routes.as_deref().unwrap_or_default();
    if routes.len() > MOST_ROUTES {
        let text =
            format!("Unable to complete operation for {}. The number of routes exceeds the maximum {MOST_ROUTES}.", router.id);
        return Err(fail::wrong("RoutesExhausted", text));
    }
    if routes.is_empty() {
        return Ok(());
    }
    let Reach { ports, subnets } = reach(tx, &router.id)?;
    let no = |hop: &Hop, reason: &str| {
        let shown = format!("{{'destination': '{}', 'nexthop': '{}'}}", hop.destination, hop.nexthop);
        Err(fail::wrong("InvalidRoutes", format!("Invalid format for routes: {shown}, {reason}")))
    };
    for (i, hop) in routes.iter().enumerate() {
        if hop.destination.addr().is_ipv4() != hop.nexthop.is_ipv4() {
            return no(hop, "the destination and the nexthop are not of one IP version");
        }
        if routes[..i].contains(hop) {
            return no(hop, "the route is given twice");
        }
        if !subnets.iter().any(|s| s.cidr.is_some_and(|c| c.contains(&hop.nexthop))) {
            return no(hop, "the nexthop is not connected with router");
        }
        let text = hop.nexthop.to_string();
        if ports.iter().any(|p| p.addresses().any(|(_, ip)| ip == text)) {
            return no(hop, "the nexthop is used by router");
        }
    }
    Ok(())
}

/// Does a route of the router go through this subnet, and through no other?
pub(crate) fn routes_through(router: &Router, subnet: IpNet, others: &[Object<Subnet>]) -> bool {
    let elsewhere = |ip: &IpAddr| others.iter().any(|s| s.cidr.is_some_and(|c| c.contains(ip) && !range::overlap(&c, &subnet)));
    router.routes.iter().flatten().any(|r| subnet.contains(&r.nexthop) && !elsewhere(&r.nexthop))
}
