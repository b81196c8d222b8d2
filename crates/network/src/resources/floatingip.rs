//! Floating IPs (api-ref `v2/floatingips`).
use super::{FixedIp, Network, Port, Router, Subnet};
use crate::{fail, gateway, ports, sharing, tags};
use api::{Cx, Map, Result};
use resource::{Deletion, Kind, Object, Reader, Resource, Rules, Tx, engine, load};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::net::IpAddr;
use store::Table;

/// `<port>:<fixed address>:<network>` to the floating IP: one each.
pub(crate) static ASSOCIATIONS: Table = Table { name: "network/associations", indexes: &[] };

/// An external address that leads to a port's own.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "network", path = "/v2.0/floatingips", name = "floatingip", owner = "project", quota = "floatingip", stamps)]
#[policy(
    list = "reader",
    show = "reader",
    create = "member",
    update = "rule:network_row_owner",
    delete = "rule:network_row_owner"
)]
pub(crate) struct FloatingIp {
    #[field(create, update, filter, default = "")]
    pub(crate) description: String,
    #[field(create, required, filter, sort, index)]
    pub(crate) floating_network_id: String,
    #[field(create, filter, sort, policy = "admin", kind = Kind::Optional(&Kind::Ip))]
    pub(crate) floating_ip_address: Option<String>,
    /// Where to take the address from.
    #[field(create, hidden)]
    pub(crate) subnet_id: Option<String>,
    #[field(create, update, filter, sort, index)]
    pub(crate) port_id: Option<String>,
    #[field(create, update, filter, sort, kind = Kind::Optional(&Kind::Ip))]
    pub(crate) fixed_ip_address: Option<String>,
    #[field(filter, sort, index)]
    pub(crate) router_id: Option<String>,
    #[field(filter, sort, default = "DOWN")]
    pub(crate) status: String,
    #[field(create, filter, default = "")]
    pub(crate) dns_name: String,
    #[field(create, filter, default = "")]
    pub(crate) dns_domain: String,
    /// The port that holds the address.
    #[field(hidden)]
    pub(crate) floating_port_id: Option<String>,
    #[field(default = Vec::<String>::new())]
    pub(crate) tags: Vec<String>,
}

impl FloatingIp {
    fn association(&self) -> Option<String> {
        Some(format!("{}:{}:{}", self.port_id.as_ref()?, self.fixed_ip_address.as_ref()?, self.floating_network_id))
    }
    fn let_go(&mut self, tx: &mut Tx<'_>) {
        if let Some(key) = self.association() {
            tx.delete(&ASSOCIATIONS, &key);
        }
        self.lead_nowhere();
    }
    /// Clears where it leads; what is claimed stays claimed.
    fn lead_nowhere(&mut self) {
        self.port_id = None;
        self.fixed_ip_address = None;
        self.router_id = None;
        self.status = "DOWN".into();
    }
}

impl Rules for FloatingIp {
    fn create(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        let id = row.floating_network_id.clone();
        let network: Object<Network> = load(tx, &id)?.ok_or_else(|| fail::network_missing(&id))?;
        if !sharing::may_see(tx, cx, &network.map) {
            return Err(fail::network_missing(&id));
        }
        if !gateway::is_external(tx, cx, &network) {
            return Err(fail::bad("floatingip", format!("Network {id} is not a valid external network")));
        }
        take_address(row, &network, cx, tx)?;
        if row.port_id.is_none() && row.fixed_ip_address.is_some() {
            return Err(fail::bad("floatingip", "fixed_ip_address cannot be specified without a port_id"));
        }
        associate(row, cx, tx)
    }

    fn update(row: &mut Object<Self>, old: &Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        if row.port_id == old.port_id && row.fixed_ip_address == old.fixed_ip_address {
            return Ok(());
        }
        let (port, fixed) = (row.port_id.clone(), row.fixed_ip_address.clone());
        // What `row` now names may be claimed by another floating IP: only the old association is ours to free.
        old.clone().let_go(tx);
        row.lead_nowhere();
        let Some(port) = port else {
            if fixed.is_some() && fixed != old.fixed_ip_address {
                return Err(fail::bad("floatingip", "fixed_ip_address cannot be specified without a port_id"));
            }
            return Ok(());
        };
        // An address that was not named again is that of the old port.
        row.fixed_ip_address = fixed.filter(|f| old.port_id.as_ref() == Some(&port) || old.fixed_ip_address.as_ref() != Some(f));
        row.port_id = Some(port);
        associate(row, cx, tx)
    }

    fn delete(row: &mut Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        give_back(row, tx)?;
        Ok(Deletion::Now)
    }

    fn view(row: &Map, out: &mut Map, _cx: &Cx, reader: &Reader<'_>) {
        let port = row.get("port_id").and_then(Value::as_str).and_then(|id| reader.get(&Port::DEF.table, id));
        let details = port.map_or(Value::Null, |p| {
            let fields = ["name", "network_id", "mac_address", "admin_state_up", "status", "device_id", "device_owner"];
            Value::Object(fields.iter().map(|f| ((*f).to_owned(), p.field(f).clone())).collect())
        });
        out.insert("port_details".into(), details);
    }

    fn filter(row: &Map, key: &str, values: &[&str], _cx: &Cx) -> Option<bool> {
        tags::filter(row, key, values)
    }
}

/// Takes the address: a port of nobody on the external network holds it.
fn take_address(row: &mut Object<FloatingIp>, network: &Object<Network>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
    let subnets: Vec<Object<Subnet>> = resource::find(tx, "network_id", &network.id)?;
    let v4 = subnets.iter().filter(|s| s.ip_version == 4);
    let wanted: Vec<FixedIp> = match (&row.floating_ip_address, &row.subnet_id) {
        (None, None) => v4.map(|s| FixedIp { subnet_id: Some(s.id.clone()), ip_address: None }).collect(),
        (ip, subnet) => vec![FixedIp { subnet_id: subnet.clone(), ip_address: ip.clone() }],
    };
    if wanted.is_empty() {
        return Err(fail::bad("floatingip", format!("Network {} does not contain any IPv4 subnet", network.id)));
    }
    let mut last = fail::no_address(&network.id);
    for want in wanted {
        let spec = ports::Internal {
            id: base::id::uuid(),
            network,
            project: "",
            owner: ports::FLOATING_OWNER,
            device: row.id.clone(),
            mac: None,
            fixed_ips: Some(vec![want]),
        };
        match ports::create(tx, Some(cx), spec) {
            Ok(port) => {
                row.floating_ip_address = port.addresses().next().map(|(_, ip)| ip.to_owned());
                row.floating_port_id = Some(port.id.clone());
                return Ok(());
            }
            // The next subnet may have one left.
            Err(e) if e.code.as_deref() == Some("IpAddressGenerationFailure") => last = e,
            Err(e) => return Err(e),
        }
    }
    Err(last)
}

/// Leads the address to the named port, if one is named.
fn associate(row: &mut Object<FloatingIp>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
    let Some(id) = row.port_id.clone() else { return Ok(()) };
    let port: Object<Port> = load(tx, &id)?.ok_or_else(|| fail::port_missing(&id))?;
    if !sharing::owns(&port.map, cx) {
        return Err(fail::port_missing(&id));
    }
    if !cx.is_admin() && port.project_id() != row.project_id() {
        let text =
            format!("Cannot process floating IP association with Port {id}, since that port is owned by a different tenant");
        return Err(fail::bad("floatingip", text));
    }
    let v4: Vec<(&str, &str)> = port.addresses().filter(|(_, ip)| ip.parse::<IpAddr>().is_ok_and(|a| a.is_ipv4())).collect();
    let address = row.floating_ip_address.clone().unwrap_or_default();
    let (subnet, fixed) = match &row.fixed_ip_address {
        Some(wanted) => *v4
            .iter()
            .find(|(_, ip)| ip == wanted)
            .ok_or_else(|| fail::bad("floatingip", format!("Port {id} does not have fixed ip {wanted}")))?,
        None => match v4.as_slice() {
            [] => {
                let text = format!("Cannot add floating IP {address} to port {id} that has no fixed IPv4 addresses");
                return Err(fail::bad("floatingip", text));
            }
            [one] => *one,
            _ => {
                let text = format!(
                    "Port {id} has multiple fixed IPv4 addresses.  Must provide a specific IPv4 address when assigning a floating IP"
                );
                return Err(fail::bad("floatingip", text));
            }
        },
    };
    let router = router_for(tx, subnet, &row.floating_network_id)?.ok_or_else(|| {
        let net = &row.floating_network_id;
        let text = format!("External network {net} is not reachable from subnet {subnet}.  Therefore, cannot associate Port {id} with a Floating IP.");
        fail::missing("ExternalGatewayForFloatingIPNotFound", text)
    })?;
    row.fixed_ip_address = Some(fixed.to_owned());
    row.router_id = Some(router);
    let key = row.association().unwrap_or_default();
    if tx.claim(&ASSOCIATIONS, &key, json!({ "floatingip_id": row.id })).is_err() {
        let text = format!(
            "Cannot associate floating IP {address} ({}) with port {id} using fixed IP {fixed}, as that fixed IP already has a floating IP on external network {}.",
            row.id, row.floating_network_id
        );
        return Err(fail::refused("FloatingIPPortAlreadyAssociated", text));
    }
    Ok(())
}

/// The router that joins the subnet with the external network; the one that is the subnet's gateway is preferred.
fn router_for(tx: &mut Tx<'_>, subnet: &str, external: &str) -> Result<Option<String>> {
    let gateway = load::<Subnet>(tx, subnet)?.and_then(|s| s.gateway());
    let mut interfaces: Vec<Object<Port>> = resource::find(tx, "routed_subnets", subnet)?;
    let is_gateway = |p: &Object<Port>| p.addresses().any(|(s, ip)| s == subnet && ip.parse().ok() == gateway);
    interfaces.sort_by_key(|p| !is_gateway(p));
    for port in interfaces {
        let Some(router) = load::<Router>(tx, &port.device_id)? else { continue };
        if router.external_gateway_info.as_ref().and_then(|g| g.network_id.as_deref()) == Some(external) {
            return Ok(Some(router.id));
        }
    }
    Ok(None)
}

/// The address and the association are free again.
fn give_back(row: &mut Object<FloatingIp>, tx: &mut Tx<'_>) -> Result<()> {
    row.body.clone().let_go(tx);
    if let Some(id) = &row.floating_port_id
        && let Some(port) = load::<Port>(tx, id)?
    {
        ports::remove(tx, &port)?;
    }
    Ok(())
}

/// Frees what leads to a port that goes, or to one of its addresses.
pub(crate) fn disassociate(tx: &mut Tx<'_>, port: &str, address: Option<&str>) -> Result<()> {
    for row in tx.children(&FloatingIp::DEF.table, "port_id", port) {
        let mut floating: Object<FloatingIp> = Object::from_row(&row)?;
        if address.is_none() || floating.fixed_ip_address.as_deref() == address {
            floating.let_go(tx);
            floating.save(tx)?;
        }
    }
    Ok(())
}

/// Removes a floating IP that leads nowhere; gives none if it is in use.
pub(crate) fn remove_unused(tx: &mut Tx<'_>, id: &str) -> Result<Option<()>> {
    let Some(mut row) = load::<FloatingIp>(tx, id)? else { return Ok(Some(())) };
    if row.port_id.is_some() {
        return Ok(None);
    }
    give_back(&mut row, tx)?;
    let map = row.into_map()?;
    engine::remove(tx, FloatingIp::DEF, &map);
    Ok(Some(()))
}
