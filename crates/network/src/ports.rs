//! What ports hold and how they get it: addresses, MACs, the ports that the service makes by itself. Everything runs in the
//! transaction that writes the port.
use crate::{
    fail,
    ipam::{claim, eui64},
    quota,
    resources::{FixedIp, Network, Port, Subnet, floatingip, of_network},
};
use api::{Cx, Error, Map, Result};
use base::id::Mac;
use resource::{Object, Resource, Tx, load};
use serde_json::Value;
use std::net::IpAddr;

pub(crate) const INTERFACE_OWNER: &str = "network:router_interface";
pub(crate) const GATEWAY_OWNER: &str = "network:router_gateway";
pub(crate) const FLOATING_OWNER: &str = "network:floatingip";
/// Owner of the one port of a network through which each node serves DHCP and metadata.
pub(crate) const METADATA_OWNER: &str = "network:distributed";

/// Is it managed through a router or a floating IP only?
pub(crate) fn belongs_to_a_router(owner: &str) -> bool {
    matches!(owner, INTERFACE_OWNER | GATEWAY_OWNER | FLOATING_OWNER)
}

/// Ports that never keep a network from being deleted.
pub(crate) fn goes_with_network(owner: &str) -> bool {
    matches!(owner, METADATA_OWNER | "network:dhcp")
}

/// The addresses of a port, claimed: what it keeps of its old ones, what it asks for, and what its network gives by default.
/// Addresses and the MAC that it no longer has are released. Sets the MAC.
pub(crate) fn place(
    tx: &mut Tx<'_>,
    network: &Object<Network>,
    port: &mut Object<Port>,
    old: Option<&Object<Port>>,
) -> Result<Vec<FixedIp>> {
    let mac = settle_mac(tx, port, old)?;
    let subnets = subnets_of(tx, &network.id)?;
    let held: Vec<FixedIp> = old.and_then(|o| o.fixed_ips.clone()).unwrap_or_default();
    let wanted = match &port.fixed_ips {
        Some(list) => Some(list.clone()),
        None if old.is_some() => Some(Vec::new()),
        None => None,
    };
    let new_mac = old.is_some_and(|o| o.mac_address != port.mac_address);
    let is_own = |f: &FixedIp| subnets.iter().any(|s| f.subnet_id.as_deref() == Some(&s.id) && s.makes_own_addresses());
    let mut fixed = match wanted {
        None => by_default(tx, network, &subnets, port, mac)?,
        Some(list) => {
            // An address that came of the old MAC goes with it.
            let keepable: Vec<FixedIp> = held.iter().filter(|f| !(new_mac && is_own(f))).cloned().collect();
            as_asked(tx, network, &subnets, port, mac, list, keepable)?
        }
    };
    if !fixed.is_empty() && !belongs_to_a_router(&port.device_owner) {
        for subnet in subnets.iter().filter(|s| s.makes_own_addresses()) {
            if !fixed.iter().any(|f| f.subnet_id.as_deref() == Some(&subnet.id)) {
                fixed.push(own_address(tx, subnet, mac, &port.id, &held)?);
            }
        }
    }
    for gone in held.iter().filter(|h| !fixed.contains(h)) {
        free(tx, gone, &port.id);
    }
    port.fixed_ips = Some(fixed.clone());
    note_routed(port);
    Ok(fixed)
}

pub(crate) fn free(tx: &mut Tx<'_>, fixed: &FixedIp, port: &str) {
    if let (Some(subnet), Some(Ok(ip))) = (&fixed.subnet_id, fixed.ip_address.as_ref().map(|ip| ip.parse())) {
        claim::release(tx, subnet, ip, port);
    }
}

fn settle_mac(tx: &mut Tx<'_>, port: &mut Object<Port>, old: Option<&Object<Port>>) -> Result<Mac> {
    if let Some(old) = old
        && let Some(text) = &old.mac_address
    {
        if port.mac_address.as_ref() == Some(text) {
            return Mac::parse(text).ok_or_else(|| Error::internal(format!("port {} has the MAC {text}", old.id)));
        }
        claim::release_mac(tx, &old.network_id, text, &old.id);
    }
    let mac = claim::take_mac(tx, &port.network_id, port.mac_address.as_deref(), &port.id)?;
    port.mac_address = Some(mac.to_string());
    Ok(mac)
}

/// The subnets of a network, each read so that its deletion is noticed.
fn subnets_of(tx: &mut Tx<'_>, network: &str) -> Result<Vec<Object<Subnet>>> {
    let found = of_network(tx, network)?;
    found.iter().map(|s| s.id.clone()).filter_map(|id| load(tx, &id).transpose()).collect()
}

pub(crate) fn fixed(subnet: &Object<Subnet>, ip: IpAddr) -> FixedIp {
    FixedIp { subnet_id: Some(subnet.id.clone()), ip_address: Some(ip.to_string()) }
}

pub(crate) fn own_address(tx: &mut Tx<'_>, subnet: &Object<Subnet>, mac: Mac, port: &str, held: &[FixedIp]) -> Result<FixedIp> {
    let address = fixed(subnet, eui64(subnet.net()?, mac));
    if !held.contains(&address) {
        claim::take(tx, &subnet.id, eui64(subnet.net()?, mac), port)?;
    }
    Ok(address)
}

/// One IPv4 and one IPv6 address, of the first subnets that have one.
fn by_default(
    tx: &mut Tx<'_>,
    network: &Object<Network>,
    subnets: &[Object<Subnet>],
    port: &Object<Port>,
    mac: Mac,
) -> Result<Vec<FixedIp>> {
    let mut out = Vec::new();
    for version in [4, 6] {
        let mut fitting = subnets.iter().filter(|s| s.ip_version == version && !s.makes_own_addresses()).peekable();
        if fitting.peek().is_none() {
            continue;
        }
        let found = fitting.find_map(|s| claim::take_any(tx, &s.id, &s.pools(), &port.id).map(|ip| fixed(s, ip)));
        out.push(found.ok_or_else(|| fail::no_address(&network.id))?);
    }
    if out.is_empty() && !belongs_to_a_router(&port.device_owner) {
        for subnet in subnets.iter().filter(|s| s.makes_own_addresses()) {
            out.push(own_address(tx, subnet, mac, &port.id, &[])?);
        }
    }
    Ok(out)
}

/// The addresses asked for. One that names only a subnet keeps what the port has there.
fn as_asked(
    tx: &mut Tx<'_>,
    network: &Object<Network>,
    subnets: &[Object<Subnet>],
    port: &Object<Port>,
    mac: Mac,
    wanted: Vec<FixedIp>,
    mut keepable: Vec<FixedIp>,
) -> Result<Vec<FixedIp>> {
    let mut out = Vec::new();
    let mut open = Vec::new();
    // Those that name an address first, so that one that names only a subnet does not take theirs.
    for (at, want) in wanted.into_iter().enumerate() {
        match &want.ip_address {
            None => open.push((at, want)),
            Some(text) => {
                let ip: IpAddr =
                    text.parse().map_err(|_| Error::invalid("fixed_ips", format!("'{text}' is not a valid IP address")))?;
                let subnet = holding(network, subnets, &want, ip)?;
                let address = fixed(subnet, ip);
                if out.iter().any(|(_, f)| *f == address) {
                    return Err(Error::invalid("fixed_ips", format!("{ip} is asked for twice")));
                }
                match keepable.iter().position(|k| *k == address) {
                    Some(i) => drop(keepable.remove(i)),
                    None => take_named(tx, network, subnet, ip, port, mac)?,
                }
                out.push((at, address));
            }
        }
    }
    for (at, want) in open {
        let id = want
            .subnet_id
            .as_deref()
            .ok_or_else(|| Error::invalid("fixed_ips", "an entry names neither a subnet nor an address"))?;
        let subnet = subnets.iter().find(|s| s.id == id).ok_or_else(|| not_on(tx, network, port, id))?;
        let address = match keepable.iter().position(|k| k.subnet_id.as_deref() == Some(id)) {
            Some(i) => keepable.remove(i),
            None if subnet.makes_own_addresses() && !belongs_to_a_router(&port.device_owner) => {
                own_address(tx, subnet, mac, &port.id, &[])?
            }
            None => match claim::take_any(tx, id, &subnet.pools(), &port.id) {
                Some(ip) => fixed(subnet, ip),
                None => return Err(fail::no_address(&network.id)),
            },
        };
        out.push((at, address));
    }
    out.sort_by_key(|(at, _)| *at);
    Ok(out.into_iter().map(|(_, f)| f).collect())
}

/// A subnet of another network; one of another project might as well not exist.
fn not_on(tx: &mut Tx<'_>, network: &Object<Network>, port: &Object<Port>, subnet: &str) -> Error {
    match tx.get(&Subnet::DEF.table, subnet).filter(|s| s.text("project_id") == port.project_id()) {
        Some(_) => fail::invalid(format!(
            "Failed to create port on network {}, because fixed_ips included invalid subnet {subnet}",
            network.id
        )),
        None => fail::subnet_missing(subnet),
    }
}

/// The subnet that a named address is of.
fn holding<'s>(
    network: &Object<Network>,
    subnets: &'s [Object<Subnet>],
    want: &FixedIp,
    ip: IpAddr,
) -> Result<&'s Object<Subnet>> {
    let covers = |s: &Object<Subnet>| s.cidr.is_some_and(|c| c.contains(&ip));
    match &want.subnet_id {
        Some(id) => {
            let subnet = subnets.iter().find(|s| s.id == *id);
            let subnet = subnet.ok_or_else(|| {
                fail::invalid(format!(
                    "Failed to create port on network {}, because fixed_ips included invalid subnet {id}",
                    network.id
                ))
            })?;
            if covers(subnet) {
                return Ok(subnet);
            }
            Err(fail::wrong("InvalidIpForSubnet", format!("IP address {ip} is not a valid IP for the specified subnet.")))
        }
        None => subnets.iter().find(|s| covers(s)).ok_or_else(|| {
            fail::wrong(
                "InvalidIpForNetwork",
                format!("IP address {ip} is not a valid IP for any of the subnets on the specified network."),
            )
        }),
    }
}

fn take_named(
    tx: &mut Tx<'_>,
    network: &Object<Network>,
    subnet: &Object<Subnet>,
    ip: IpAddr,
    port: &Object<Port>,
    mac: Mac,
) -> Result<()> {
    let net = subnet.net()?;
    let router = belongs_to_a_router(&port.device_owner);
    if !router && !crate::ipam::range::hosts(net).contains(ip) {
        return Err(fail::wrong("InvalidIpForSubnet", format!("IP address {ip} is not a valid IP for the specified subnet.")));
    }
    if subnet.makes_own_addresses() && !router && ip != eui64(net, mac) {
        let text = format!(
            "IPv6 address {ip} can not be directly assigned to a port on subnet {} as the subnet is configured for automatic addresses",
            subnet.id
        );
        return Err(fail::invalid(text).context(format!("network {}", network.id)));
    }
    claim::take(tx, &subnet.id, ip, &port.id)
}

/// Keeps the hidden list of what a router reaches through the port.
pub(crate) fn note_routed(port: &mut Object<Port>) {
    port.routed_subnets =
        if port.device_owner == INTERFACE_OWNER { port.addresses().map(|(s, _)| s.to_owned()).collect() } else { Vec::new() };
}

/// A port that the service makes by itself.
pub(crate) struct Internal<'a> {
    pub(crate) id: String,
    pub(crate) network: &'a Object<Network>,
    /// Empty for ports of nobody.
    pub(crate) project: &'a str,
    pub(crate) owner: &'a str,
    pub(crate) device: String,
    pub(crate) mac: Option<Mac>,
    pub(crate) fixed_ips: Option<Vec<FixedIp>>,
}

/// Makes it: no policy and no quota refuses it, all else holds.
pub(crate) fn create(tx: &mut Tx<'_>, cx: Option<&Cx>, spec: Internal<'_>) -> Result<Object<Port>> {
    let mut port = blank(tx, cx, &spec)?;
    place(tx, spec.network, &mut port, None)?;
    quota::count(tx, spec.project, "port", 1);
    put(tx, &port)?;
    Ok(port)
}

pub(crate) fn blank(tx: &mut Tx<'_>, cx: Option<&Cx>, spec: &Internal<'_>) -> Result<Object<Port>> {
    let body = Port {
        name: String::new(),
        description: String::new(),
        network_id: spec.network.id.clone(),
        admin_state_up: true,
        status: match spec.owner {
            METADATA_OWNER => "ACTIVE",
            FLOATING_OWNER => "N/A",
            _ => "DOWN",
        }
        .into(),
        mac_address: spec.mac.map(|m| m.to_string()),
        fixed_ips: spec.fixed_ips.clone(),
        device_id: spec.device.clone(),
        device_owner: spec.owner.into(),
        security_groups: Some(Vec::new()),
        allowed_address_pairs: Some(Vec::new()),
        extra_dhcp_opts: Some(Vec::new()),
        port_security_enabled: Some(false),
        host_id: String::new(),
        vnic_type: "normal".into(),
        profile: Map::new(),
        dns_name: String::new(),
        ip_allocation: "immediate".into(),
        routed_subnets: Vec::new(),
        tags: Vec::new(),
    };
    let request = cx.map_or("", |cx| &*cx.request_id);
    Ok(Object::new(spec.id.clone(), Some(spec.project), body, tx.now, request))
}

pub(crate) fn put(tx: &mut Tx<'_>, port: &Object<Port>) -> Result<()> {
    let map = port.clone().into_map()?;
    tx.put(&Port::DEF.table, &port.id, Value::Object(map));
    Ok(())
}

/// Gives back all that a port holds.
pub(crate) fn release(tx: &mut Tx<'_>, port: &Object<Port>) -> Result<()> {
    for f in port.fixed_ips.iter().flatten() {
        free(tx, f, &port.id);
    }
    if let Some(mac) = &port.mac_address {
        claim::release_mac(tx, &port.network_id, mac, &port.id);
    }
    floatingip::disassociate(tx, &port.id, None)
}

/// Takes a port away that no rule protects.
pub(crate) fn remove(tx: &mut Tx<'_>, port: &Object<Port>) -> Result<()> {
    release(tx, port)?;
    let map = port.clone().into_map()?;
    resource::engine::remove(tx, Port::DEF, &map);
    Ok(())
}

/// Gives the ports that a network already has their address in a new subnet in which hosts make their own.
pub(crate) fn add_own_addresses(tx: &mut Tx<'_>, subnet: &Object<Subnet>) -> Result<()> {
    for row in tx.children(&Port::DEF.table, "network_id", &subnet.network_id) {
        let mut port: Object<Port> = Object::from_row(&row)?;
        let has = port.addresses().any(|(s, _)| s == subnet.id);
        if has || belongs_to_a_router(&port.device_owner) || port.device_owner == METADATA_OWNER {
            continue;
        }
        let Some(mac) = port.mac_address.as_deref().and_then(Mac::parse) else { continue };
        let address = own_address(tx, subnet, mac, &port.id, &[])?;
        port.fixed_ips.get_or_insert_default().push(address);
        port.save(tx)?;
    }
    Ok(())
}

/// Takes from ports what does not keep a subnet from going; fails if a port needs it.
pub(crate) fn vacate(tx: &mut Tx<'_>, subnet: &Object<Subnet>) -> Result<()> {
    let mut leaving = Vec::new();
    for row in tx.children(&Port::DEF.table, "subnet", &subnet.id) {
        let port: Object<Port> = Object::from_row(&row)?;
        let owner = port.device_owner.as_str();
        let stays = belongs_to_a_router(owner) || !(subnet.makes_own_addresses() || goes_with_network(owner));
        if stays {
            return Err(fail::subnet_in_use(&subnet.id));
        }
        if owner != METADATA_OWNER {
            leaving.push(port);
        }
    }
    for mut port in leaving {
        let id = port.id.clone();
        let (gone, kept) =
            port.fixed_ips.take().unwrap_or_default().into_iter().partition(|f| f.subnet_id.as_deref() == Some(&subnet.id));
        let gone: Vec<FixedIp> = gone;
        gone.iter().for_each(|f| free(tx, f, &id));
        port.fixed_ips = Some(kept);
        port.save(tx)?;
    }
    Ok(())
}

/// The router port that has this address, if one has.
pub(crate) fn router_holding(tx: &mut Tx<'_>, subnet: &str, ip: IpAddr) -> Result<Option<String>> {
    let Some(row) = tx.get(&claim::ALLOCATIONS, &format!("{subnet}:{ip}")) else { return Ok(None) };
    let port: Option<Object<Port>> = load(tx, row.text("port_id"))?;
    Ok(port.filter(|p| p.device_owner == INTERFACE_OWNER).map(|p| p.id))
}
