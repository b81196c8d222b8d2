//! The gateway of a router: a port of nobody on an external network.
use crate::{
    fail, ports,
    resources::{ExternalFixedIp, FixedIp, FloatingIp, GatewayInfo, Network, Port, Router, Subnet},
    sharing,
};
use api::{Cx, Map, Result};
use resource::{Object, Resource, Tx, load};

/// Makes the gateway port what `external_gateway_info` says, and completes that.
pub(crate) fn settle(router: &mut Object<Router>, old: Option<&Object<Router>>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
    let wanted = router.external_gateway_info.take().filter(|g| g.network_id.is_some());
    let held: Option<Object<Port>> = match old.and_then(|o| o.gw_port_id.as_deref()) {
        Some(id) => load(tx, id)?,
        None => None,
    };
    let before = old.and_then(|o| o.external_gateway_info.clone());
    let Some(wanted) = wanted else {
        if let Some(port) = held {
            check_unused(tx, &router.id, &port.network_id)?;
            check_routes_stay(router, &port, tx)?;
            ports::remove(tx, &port)?;
        }
        router.gw_port_id = None;
        return Ok(());
    };
    admit(&wanted, before.as_ref(), cx)?;
    let id = wanted.network_id.clone().unwrap_or_default();
    let network: Object<Network> = load(tx, &id)?.ok_or_else(|| fail::network_missing(&id))?;
    if !sharing::may_see(tx, cx, &network.map) {
        return Err(fail::network_missing(&id));
    }
    if !is_external(tx, cx, &network) {
        return Err(fail::bad("router", format!("Network {id} is not an external network")));
    }
    let asked = wanted.external_fixed_ips.clone().filter(|f| !f.is_empty());
    let port = match held {
        Some(port) if port.network_id == id => match &asked {
            Some(list) => moved(tx, &network, port, list)?,
            None => port,
        },
        other => {
            if let Some(port) = other {
                check_unused(tx, &router.id, &port.network_id)?;
                ports::remove(tx, &port)?;
            }
            make(tx, cx, router, &network, asked)?
        }
    };
    check_overlap(router, &port, tx)?;
    let default = before.filter(|b| b.network_id.as_ref() == Some(&id)).and_then(|b| b.enable_snat).unwrap_or(true);
    router.external_gateway_info = Some(GatewayInfo {
        network_id: Some(id),
        external_fixed_ips: Some(shown(&port)),
        enable_snat: Some(wanted.enable_snat.unwrap_or(default)),
    });
    router.gw_port_id = Some(port.id.clone());
    Ok(())
}

pub(crate) fn is_external(tx: &Tx<'_>, cx: &Cx, network: &Object<Network>) -> bool {
    network.external || {
        let mut foreign = Map::new();
        foreign.insert("id".into(), network.id.as_str().into());
        !cx.is_admin() && sharing::may_use(tx, cx, &foreign, sharing::EXTERNAL)
    }
}

/// Neutron's `create_router:external_gateway_info:…`: addresses and SNAT are an administrator's to choose.
fn admit(wanted: &GatewayInfo, before: Option<&GatewayInfo>, cx: &Cx) -> Result<()> {
    if cx.is_admin() {
        return Ok(());
    }
    let no = |attribute: &str| Err(fail::forbidden(&format!("(update_router:external_gateway_info:{attribute})")));
    if wanted.enable_snat.is_some_and(|s| s != before.and_then(|b| b.enable_snat).unwrap_or(true)) {
        return no("enable_snat");
    }
    let addresses = wanted.external_fixed_ips.as_deref().unwrap_or_default();
    if !addresses.is_empty() && before.and_then(|b| b.external_fixed_ips.as_deref()) != Some(addresses) {
        return no("external_fixed_ips");
    }
    Ok(())
}

fn shown(port: &Object<Port>) -> Vec<ExternalFixedIp> {
    let of = |f: &FixedIp| ExternalFixedIp { subnet_id: f.subnet_id.clone(), ip_address: f.ip_address.clone() };
    port.fixed_ips.iter().flatten().map(of).collect()
}

fn as_fixed(list: &[ExternalFixedIp]) -> Vec<FixedIp> {
    list.iter().map(|f| FixedIp { subnet_id: f.subnet_id.clone(), ip_address: f.ip_address.clone() }).collect()
}

fn make(
    tx: &mut Tx<'_>,
    cx: &Cx,
    router: &Object<Router>,
    network: &Object<Network>,
    asked: Option<Vec<ExternalFixedIp>>,
) -> Result<Object<Port>> {
    let spec = ports::Internal {
        id: base::id::uuid(),
        network,
        project: "",
        owner: ports::GATEWAY_OWNER,
        device: router.id.clone(),
        mac: None,
        fixed_ips: asked.as_deref().map(as_fixed),
    };
    let port = ports::create(tx, Some(cx), spec)?;
    if port.fixed_ips.as_ref().is_none_or(Vec::is_empty) {
        return Err(fail::bad("router", format!("No IPs available for external network {}", network.id)));
    }
    Ok(port)
}

fn moved(tx: &mut Tx<'_>, network: &Object<Network>, old: Object<Port>, list: &[ExternalFixedIp]) -> Result<Object<Port>> {
    let mut port = old.clone();
    port.fixed_ips = Some(as_fixed(list));
    if port.fixed_ips != old.fixed_ips {
        ports::place(tx, network, &mut port, Some(&old))?;
        port.save(tx)?;
    }
    Ok(port)
}

/// Floating addresses need the gateway that they go through.
fn check_unused(tx: &mut Tx<'_>, router: &str, network: &str) -> Result<()> {
    let floating = tx.children(&FloatingIp::DEF.table, "router_id", router);
    if floating.iter().any(|f| f.text("floating_network_id") == network) {
        let text = format!("since a gateway to external network {network} is required by one or more floating IPs");
        let text = format!("Gateway cannot be updated for router {router}, {text}.");
        return Err(fail::refused("RouterExternalGatewayInUseByFloatingIp", text));
    }
    Ok(())
}

/// Routes that lead through the gateway need it.
fn check_routes_stay(router: &Object<Router>, port: &Object<Port>, tx: &mut Tx<'_>) -> Result<()> {
    for (subnet, _) in port.addresses() {
        let Some(net) = load::<Subnet>(tx, subnet)?.and_then(|s| s.cidr) else { continue };
        if router.routes.iter().flatten().any(|r| net.contains(&r.nexthop)) {
            let text = format!(
                "Gateway cannot be updated for router {}, since a route leads through it; remove the route first.",
                router.id
            );
            return Err(fail::refused("RouterInterfaceInUseByRoute", text));
        }
    }
    Ok(())
}

/// The gateway's subnets must not be those of an interface.
fn check_overlap(router: &Object<Router>, port: &Object<Port>, tx: &mut Tx<'_>) -> Result<()> {
    let interfaces: Vec<Object<Port>> = resource::find(tx, "device_id", &router.id)?;
    for (subnet, _) in port.addresses() {
        if interfaces.iter().any(|i| i.routed_subnets.iter().any(|s| s == subnet)) {
            let text = format!("Router already has a port on subnet {subnet}");
            return Err(fail::bad("router", text));
        }
    }
    Ok(())
}
