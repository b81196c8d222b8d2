//! Interfaces and extra routes of routers: `add_router_interface` and its relatives.
use crate::{
    admit, fail, ports,
    resources::{FixedIp, FloatingIp, Hop, Network, Port, Router, Subnet, router},
    sharing,
};
use api::{Access, Call, Cx, Error, Map, Reply, Result, Route};
use resource::{Object, Resource, Tx, engine, load};
use serde_json::{Value, json};

pub(crate) fn routes() -> Vec<Route> {
    let any = Access::Authenticated;
    vec![
        Route::new("PUT", "/v2.0/routers/{id}/add_router_interface", any, |call| interface(call, true)),
        Route::new("PUT", "/v2.0/routers/{id}/remove_router_interface", any, |call| interface(call, false)),
        Route::new("PUT", "/v2.0/routers/{id}/add_extraroutes", any, |call| extra_routes(call, true)),
        Route::new("PUT", "/v2.0/routers/{id}/remove_extraroutes", any, |call| extra_routes(call, false)),
    ]
}

fn bad(reason: impl std::fmt::Display) -> Error {
    fail::bad("router", reason)
}

async fn interface(call: Call, adding: bool) -> Result<Reply> {
    let id = admit::changeable(Router::DEF, &call)?;
    let body = call.object().map_err(|_| bad("Either subnet_id or port_id must be specified"))?;
    let named = |key: &str| -> Result<Option<String>> {
        match body.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(s)) => Ok(Some(s.clone())),
            Some(_) => Err(Error::invalid(key, "it is not a string")),
        }
    };
    let (subnet, port) = (named("subnet_id")?, named("port_id")?);
    if subnet.is_none() && port.is_none() {
        return Err(bad("Either subnet_id or port_id must be specified"));
    }
    if adding && subnet.is_some() && port.is_some() {
        return Err(bad("Cannot specify both subnet-id and port-id"));
    }
    let answer = call
        .transact(move |cx, tx| {
            let router: Object<Router> = load(tx, &id)?.ok_or_else(|| fail::router_missing(&id))?;
            let answer = match (adding, &subnet, &port) {
                (true, Some(subnet), _) => add_by_subnet(tx, cx, &router, subnet)?,
                (true, None, port) => add_by_port(tx, cx, &router, port.as_deref().unwrap_or_default())?,
                (false, subnet, port) => remove(tx, &router, subnet.as_deref(), port.as_deref())?,
            };
            // Writing the router makes two changes at once take turns, and stops its deletion.
            router.save(tx)?;
            Ok(answer)
        })
        .await?;
    Ok(Reply::ok(answer))
}

fn described(router: &Object<Router>, port: &Object<Port>, subnet: &str) -> Value {
    let subnets: Vec<&str> = port.addresses().map(|(s, _)| s).collect();
    let subnets = if subnets.is_empty() { vec![subnet] } else { subnets };
    json!({
        "id": router.id, "tenant_id": router.project_id(), "project_id": router.project_id(),
        "port_id": port.id, "network_id": port.network_id, "subnet_id": subnet, "subnet_ids": subnets,
    })
}

/// No two subnets of a router overlap, and none is joined twice.
fn check_room(tx: &mut Tx<'_>, router: &Object<Router>, subnet: &Object<Subnet>) -> Result<()> {
    let joined = router::reach(tx, &router.id)?.subnets;
    let net = subnet.net()?;
    for other in joined {
        if other.id == subnet.id {
            return Err(bad(format!("Router already has a port on subnet {}", subnet.id)));
        }
        let theirs = other.net()?;
        if crate::ipam::range::overlap(&theirs, &net) {
            return Err(bad(format!("Cidr {net} of subnet {} overlaps with cidr {theirs} of subnet {}", subnet.id, other.id)));
        }
    }
    Ok(())
}

pub(crate) fn add_by_subnet(tx: &mut Tx<'_>, cx: &Cx, router: &Object<Router>, id: &str) -> Result<Value> {
    let subnet: Object<Subnet> = load(tx, id)?.ok_or_else(|| fail::subnet_missing(id))?;
    let network: Object<Network> = load(tx, &subnet.network_id)?.ok_or_else(|| fail::network_missing(&subnet.network_id))?;
    if !sharing::owns(&subnet.map, cx) && !sharing::may_use(tx, cx, &network.map, sharing::SHARED) {
        return Err(fail::subnet_missing(id));
    }
    let gateway = subnet.gateway().ok_or_else(|| bad("Subnet for router interface must have a gateway IP"))?;
    check_room(tx, router, &subnet)?;
    let fixed = FixedIp { subnet_id: Some(subnet.id.clone()), ip_address: Some(gateway.to_string()) };
    if subnet.ip_version == 6
        && let Some(mut port) = sixth(tx, router, &subnet.network_id)?
    {
        // IPv6 subnets of one network share the router's port.
        let old = port.clone();
        port.fixed_ips.get_or_insert_default().push(fixed);
        ports::place(tx, &network, &mut port, Some(&old))?;
        port.save(tx)?;
        return Ok(described(router, &port, id));
    }
    let spec = ports::Internal {
        id: base::id::uuid(),
        network: &network,
        project: router.project_id(),
        owner: ports::INTERFACE_OWNER,
        device: router.id.clone(),
        mac: None,
        fixed_ips: Some(vec![fixed]),
    };
    let port = ports::create(tx, Some(cx), spec)?;
    Ok(described(router, &port, id))
}

/// The router's port for IPv6 on a network.
fn sixth(tx: &mut Tx<'_>, router: &Object<Router>, network: &str) -> Result<Option<Object<Port>>> {
    let held: Vec<Object<Port>> = resource::find(tx, "device_id", &router.id)?;
    let is_six = |p: &Object<Port>| p.addresses().any(|(_, ip)| ip.contains(':'));
    Ok(held.into_iter().find(|p| p.device_owner == ports::INTERFACE_OWNER && p.network_id == network && is_six(p)))
}

fn add_by_port(tx: &mut Tx<'_>, cx: &Cx, router: &Object<Router>, id: &str) -> Result<Value> {
    let mut port: Object<Port> =
        load(tx, id)?.filter(|p: &Object<Port>| sharing::owns(&p.map, cx)).ok_or_else(|| fail::port_missing(id))?;
    if !port.device_id.is_empty() {
        return Err(fail::port_in_use(id, &port.network_id, &port.device_id));
    }
    let mut subnets: Vec<Object<Subnet>> = Vec::new();
    for subnet in port.addresses().map(|(s, _)| s.to_owned()).collect::<Vec<_>>() {
        subnets.extend(load(tx, &subnet)?);
    }
    let first = subnets.first().map(|s| s.id.clone()).ok_or_else(|| bad("Router port must have at least one fixed IP"))?;
    if subnets.iter().filter(|s| s.ip_version == 4).count() > 1 {
        return Err(bad("Cannot have multiple IPv4 subnets on router port"));
    }
    for subnet in &subnets {
        check_room(tx, router, subnet)?;
    }
    port.device_id.clone_from(&router.id);
    port.device_owner = ports::INTERFACE_OWNER.into();
    // A router answers for others: the protections of a guest's port are not for it.
    port.security_groups = Some(Vec::new());
    port.allowed_address_pairs = Some(Vec::new());
    port.port_security_enabled = Some(false);
    ports::note_routed(&mut port);
    port.save(tx)?;
    Ok(described(router, &port, &first))
}

fn remove(tx: &mut Tx<'_>, router: &Object<Router>, subnet: Option<&str>, port: Option<&str>) -> Result<Value> {
    let router::Reach { ports: held, subnets: joined } = router::reach(tx, &router.id)?;
    let mut interfaces = held.into_iter().filter(|p| p.device_owner == ports::INTERFACE_OWNER);
    let found = match (port, subnet) {
        (Some(id), _) => interfaces.find(|p| p.id == id).ok_or_else(|| {
            fail::missing("RouterInterfaceNotFound", format!("Router {} does not have an interface with id {id}", router.id))
        })?,
        (None, subnet) => {
            let id = subnet.unwrap_or_default();
            // A subnet of another project might as well not exist.
            let known = tx.get(&Subnet::DEF.table, id).is_some_and(|s| s.text("project_id") == router.project_id());
            interfaces.find(|p| p.routed_subnets.iter().any(|s| s == id)).ok_or_else(|| match known {
                false => fail::subnet_missing(id),
                true => fail::missing(
                    "RouterInterfaceNotFoundForSubnet",
                    format!("Router {} has no interface on subnet {id}", router.id),
                ),
            })?
        }
    };
    if let (Some(_), Some(subnet)) = (port, subnet)
        && !found.routed_subnets.iter().any(|s| s == subnet)
    {
        let text = format!("Subnet on port {} does not match the requested subnet {subnet}.", found.id);
        return Err(fail::refused("SubnetMismatchForPort", text));
    }
    let first = found.routed_subnets.first().cloned().unwrap_or_default();
    let leaving: Vec<String> = match (port, subnet) {
        (None, Some(subnet)) => vec![subnet.to_owned()],
        _ => found.routed_subnets.clone(),
    };
    check_unneeded(tx, router, &leaving, &joined)?;
    let answer = described(router, &found, subnet.unwrap_or(&first));
    if leaving.len() < found.routed_subnets.len() {
        let network: Object<Network> = load(tx, &found.network_id)?.ok_or_else(|| fail::network_missing(&found.network_id))?;
        let mut kept = found.clone();
        kept.fixed_ips.get_or_insert_default().retain(|f| f.subnet_id.as_ref().is_some_and(|s| !leaving.contains(s)));
        ports::place(tx, &network, &mut kept, Some(&found))?;
        kept.save(tx)?;
    } else {
        ports::remove(tx, &found)?;
    }
    Ok(answer)
}

/// Neither floating addresses nor routes need the subnets that leave.
fn check_unneeded(tx: &mut Tx<'_>, router: &Object<Router>, leaving: &[String], joined: &[Object<Subnet>]) -> Result<()> {
    let floating = tx.children(&FloatingIp::DEF.table, "router_id", &router.id);
    for subnet in joined.iter().filter(|s| leaving.contains(&s.id)) {
        let net = subnet.net()?;
        let inside = |f: &store::Row| f.text("fixed_ip_address").parse::<std::net::IpAddr>().is_ok_and(|ip| net.contains(&ip));
        let what = format!(
            "Router interface for subnet {} on router {} cannot be deleted, as it is required by one or more",
            subnet.id, router.id
        );
        if floating.iter().any(|f| inside(f)) {
            return Err(fail::refused("RouterInterfaceInUseByFloatingIP", format!("{what} floating IPs.")));
        }
        let others: Vec<Object<Subnet>> = joined.iter().filter(|s| !leaving.contains(&s.id)).cloned().collect();
        if router::routes_through(router, net, &others) {
            return Err(fail::refused("RouterInterfaceInUseByRoute", format!("{what} routes.")));
        }
    }
    Ok(())
}

async fn extra_routes(call: Call, adding: bool) -> Result<Reply> {
    let id = admit::changeable(Router::DEF, &call)?;
    let wanted = call.inner("router")?.get("routes").cloned().unwrap_or_default();
    let wanted: Vec<Hop> =
        serde_json::from_value(wanted).map_err(|e| fail::wrong("InvalidRoutes", format!("Invalid format for routes: {e}")))?;
    let row = call
        .transact(move |cx, tx| {
            let old = engine::existing(tx, Router::DEF, &id)?;
            let router: Object<Router> = Object::from_map(old.clone())?;
            let mut routes = router.routes.clone().unwrap_or_default();
            if adding {
                routes.extend(wanted.iter().filter(|w| !routes.contains(w)).cloned().collect::<Vec<_>>());
            } else {
                routes.retain(|r| !wanted.contains(r));
            }
            let mut row = resource::update_row(Router::DEF, cx, &old, &Map::new(), tx.now)?;
            row.insert("routes".into(), resource::json(routes));
            engine::replace(tx, Router::DEF, cx, &old, row)
        })
        .await?;
    Ok(Reply::ok(api::show_one(Router::DEF, &api::dialect::NETWORK, &row, &call.cx, &call.reader())))
}
