//! Logical switch ports.
use super::{Plan, dhcp};
use crate::ovn::{
    model::{Port, PortId},
    names,
    row::{Datum, Desired, Key, Table, map, text, texts},
};
use base::id::Mac;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// What a port is in OVN.
enum Kind<'p> {
    /// A guest's, bound where its interface is plugged.
    Guest,
    /// An address that one of several guests carries at a time.
    Virtual {
        ip: IpAddr,
        carriers: &'p BTreeSet<&'p PortId>,
    },
    Router {
        gateway: bool,
    },
}

/// The port's row, or none where OVN has none for it.
pub(super) fn port(plan: &Plan<'_>, port: &Port, out: &mut Desired) -> Option<Key> {
    let Some(network) = plan.networks.get(&port.network_id) else {
        out.problem(format!("port {} is on network {}, which does not exist; it is left out", port.id, port.network_id));
        return None;
    };
    let kind = kind(plan, port)?;
    let security = port.port_security_enabled && matches!(kind, Kind::Guest | Kind::Virtual { .. });
    let dhcp = matches!(kind, Kind::Guest);
    let (v4, v6) = if dhcp { dhcp::of_port(plan, port, out) } else { (None, None) };
    let (kind, options) = match &kind {
        Kind::Guest => ("", guest_options(port)),
        Kind::Virtual { ip, carriers } => {
            let parents = carriers.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(",");
            ("virtual", map([("virtual-ip", ip.to_string()), ("virtual-parents", parents)]))
        }
        Kind::Router { gateway } => ("router", router_options(port, *gateway)),
    };
    let addresses = if kind == "router" { texts(["router"]) } else { addresses(port) };
    let row = vec![
        ("name", text(names::port(&port.id))),
        ("type", text(kind)),
        ("addresses", addresses),
        ("port_security", if security { port_security(port) } else { Datum::Texts(BTreeSet::new()) }),
        ("enabled", Datum::SomeBool(port.admin_state_up && network.admin_state_up)),
        ("options", options),
        ("tag", Datum::SomeInt(None)),
        ("dhcpv4_options", Datum::One(v4)),
        ("dhcpv6_options", Datum::One(v6)),
    ];
    Some(out.put(Key::new(Table::LogicalSwitchPort, names::port(&port.id)), row))
}

/// Does this port obey security groups? The same question as: is it a guest's?
pub(super) fn is_guest(plan: &Plan<'_>, port: &Port) -> bool {
    plan.networks.contains_key(&port.network_id) && matches!(kind(plan, port), Some(Kind::Guest | Kind::Virtual { .. }))
}

fn kind<'p>(plan: &'p Plan<'_>, port: &'p Port) -> Option<Kind<'p>> {
    if let Some(gateway) = plan.router_ports.get(&port.id) {
        return Some(Kind::Router { gateway: *gateway });
    }
    // Floating IPs are NAT rows; the metadata port is the network's; a router's port without its router is on its way out.
    if port.device_owner.starts_with("network:") {
        return None;
    }
    let bound = !port.hosts.is_empty() || port.device_owner.starts_with("compute:");
    let vip = port.fixed_ips.iter().filter(|_| !bound).find_map(|f| {
        let carriers = plan.carriers.get(&(&port.network_id, f.ip))?;
        carriers.iter().any(|id| **id != port.id).then_some((f.ip, carriers))
    });
    Some(vip.map_or(Kind::Guest, |(ip, carriers)| Kind::Virtual { ip, carriers }))
}

/// Where packets for the port go: its own addresses, the MACs of its pairs, and unknown ones if nothing guards it.
fn addresses(port: &Port) -> Datum {
    let ips = port.fixed_ips.iter().map(|f| f.ip.to_string());
    let own = std::iter::once(port.mac.to_string()).chain(ips).collect::<Vec<_>>().join(" ");
    let pairs = port.allowed_address_pairs.iter().filter_map(|p| p.mac).filter(|mac| *mac != port.mac).map(|m| m.to_string());
    let unknown = (!port.port_security_enabled).then(|| "unknown".to_owned());
    texts(std::iter::once(own).chain(pairs).chain(unknown))
}

/// The sources that the port may use: one entry for each MAC.
fn port_security(port: &Port) -> Datum {
    let mut sources: BTreeMap<Mac, BTreeSet<String>> = BTreeMap::from([(port.mac, BTreeSet::new())]);
    for fixed in &port.fixed_ips {
        sources.entry(port.mac).or_default().insert(fixed.ip.to_string());
    }
    for pair in &port.allowed_address_pairs {
        let net = pair.ip.trunc();
        let ip = if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() };
        sources.entry(pair.mac.unwrap_or(port.mac)).or_default().insert(ip);
    }
    texts(sources.into_iter().map(|(mac, ips)| {
        let words = std::iter::once(mac.to_string()).chain(ips);
        words.collect::<Vec<_>>().join(" ")
    }))
}

fn guest_options(port: &Port) -> Datum {
    let hosts = port.hosts.join(",");
    // While a guest moves, the target's port wakes up with the guest: its first RARP tells so.
    let activation = (port.hosts.len() > 1).then_some(("activation-strategy", "rarp"));
    let requested = (!hosts.is_empty()).then_some(("requested-chassis", hosts.as_str()));
    map(requested.into_iter().chain(activation))
}

fn router_options(port: &Port, gateway: bool) -> Datum {
    let peer = ("router-port", names::router_port(&port.id));
    // A gateway announces its own and its NAT addresses when it moves.
    let announce = gateway.then(|| [("nat-addresses", "router".to_owned()), ("exclude-lb-vips-from-garp", "true".to_owned())]);
    map(std::iter::once(peer).chain(announce.into_iter().flatten()))
}
