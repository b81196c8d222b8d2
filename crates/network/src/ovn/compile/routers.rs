//! Logical routers: their ports, routes, gateway and NAT.
use super::Plan;
use crate::ovn::{
    model::{FloatingIp, Gateway, Ipv6Mode, Network, Port, Router},
    names,
    row::{Datum, Desired, Key, Table, map, text, texts},
};
use ipnet::IpNet;
use std::{collections::BTreeSet, net::IpAddr};

/// OVN watches each member of a group by BFD; more than these few help nobody.
const MOST_GATEWAYS: usize = 5;

pub(super) fn router(plan: &Plan<'_>, router: &Router, out: &mut Desired) {
    if !names::plain(router.id.as_str()) {
        return;
    }
    let mut links: Vec<_> = router.interfaces.iter().filter_map(|id| link(plan, router, *plan.ports.get(id)?, out)).collect();
    let gateway = router.gateway.as_ref().and_then(|g| Some((g, link(plan, router, plan.ports.get(&g.port_id)?, out)?)));
    let external = gateway.as_ref().map(|(_, link)| link.port.id.clone());
    links.extend(gateway.iter().map(|(_, link)| Link { ..*link }));
    let largest = links.iter().map(|l| l.network.mtu).max().unwrap_or_default();
    let (mut ports, mut nat) = (BTreeSet::new(), BTreeSet::new());
    for link in &links {
        let is_gateway = external.as_ref() == Some(&link.port.id);
        let group = is_gateway.then(|| gateway_group(plan, router, out)).flatten();
        ports.insert(port(plan, link, is_gateway, external.is_some(), largest, group, out));
    }
    let mut routes = static_routes(router, out);
    if let Some((gateway, link)) = &gateway {
        routes.extend(default_routes(plan, router, link, out));
        nat.extend(snat(plan, router, gateway, link, out));
        let own = plan.topology.floating_ips.iter().filter(|f| f.router_id.as_ref() == Some(&router.id));
        nat.extend(own.filter_map(|fip| floating_ip(plan, fip, out)));
    }
    let row = vec![
        ("name", text(names::router(&router.id))),
        ("enabled", Datum::SomeBool(router.admin_state_up)),
        // Learn a neighbour only when it is asked for or answers: external networks are full of strangers.
        ("options", map([("always_learn_from_arp_request", "false"), ("dynamic_neigh_routers", "true")])),
        ("ports", Datum::Many(ports)),
        ("static_routes", Datum::Many(routes)),
        ("nat", Datum::Many(nat)),
    ];
    out.put(Key::new(Table::LogicalRouter, router.id.as_str()), row);
}

/// A router's port with the network that it leads to.
struct Link<'a> {
    port: &'a Port,
    network: &'a Network,
}

fn link<'a>(plan: &Plan<'a>, router: &Router, port: &'a Port, out: &mut Desired) -> Option<Link<'a>> {
    let network = plan.networks.get(&port.network_id).copied();
    if network.is_none() || plan.fixed(port).next().is_none() {
        out.problem(format!("port {} of router {} has no network or no address; it is left out", port.id, router.id));
        return None;
    }
    Some(Link { port, network: network? })
}

fn port(
    plan: &Plan<'_>,
    link: &Link<'_>,
    is_gateway: bool,
    has_gateway: bool,
    largest: u16,
    group: Option<Key>,
    out: &mut Desired,
) -> Key {
    let networks = plan.fixed(link.port).map(|(subnet, fixed)| format!("{}/{}", fixed.ip, subnet.cidr.prefix_len()));
    let mut options = Vec::new();
    // Senders in a network with larger frames are told what fits here.
    if link.network.mtu < largest {
        options.push(("gateway_mtu", link.network.mtu.to_string()));
    }
    // The frames of a VLAN network meet the physical switch, where the router's MAC must be in one place only.
    if !is_gateway && has_gateway && link.network.provider.as_ref().is_some_and(|p| p.vlan.is_some()) {
        options.push(("reside-on-redirect-chassis", "true".to_owned()));
    }
    let row = vec![
        ("name", text(names::router_port(&link.port.id))),
        ("mac", text(link.port.mac.to_string())),
        ("networks", texts(networks)),
        ("enabled", Datum::SomeBool(link.port.admin_state_up)),
        ("options", map(options)),
        ("ipv6_ra_configs", if is_gateway { map::<String>([]) } else { router_advertisements(plan, link) }),
        ("ha_chassis_group", Datum::One(group)),
    ];
    out.put(Key::new(Table::LogicalRouterPort, link.port.id.as_str()), row)
}

fn router_advertisements(plan: &Plan<'_>, link: &Link<'_>) -> Datum {
    let mode = plan.fixed(link.port).find_map(|(subnet, _)| subnet.ipv6_ra_mode.filter(|_| matches!(subnet.cidr, IpNet::V6(_))));
    let Some(mode) = mode else { return map::<String>([]) };
    let mode = match mode {
        Ipv6Mode::Slaac => "slaac",
        Ipv6Mode::Dhcpv6Stateful => "dhcpv6_stateful",
        Ipv6Mode::Dhcpv6Stateless => "dhcpv6_stateless",
    };
    map([("address_mode", mode.to_owned()), ("send_periodic", "true".to_owned()), ("mtu", link.network.mtu.to_string())])
}

/// The chassis that carry the gateway, the first one alive by BFD.
fn gateway_group(plan: &Plan<'_>, router: &Router, out: &mut Desired) -> Option<Key> {
    let spread = || {
        // Rendezvous hashing: each router has its own order, and a chassis that goes moves only what it carried.
        let mut all = plan.topology.gateways.clone();
        all.sort_by_cached_key(|chassis| base::id::named(&format!("{}/{chassis}", router.id)));
        all
    };
    let order = router.gateway_order.clone().unwrap_or_else(spread);
    if order.is_empty() {
        out.problem(format!("router {} has a gateway but there is no gateway chassis; add a node", router.id));
        return None;
    }
    let members = order.iter().take(MOST_GATEWAYS).zip((1..=100i64).rev()).map(|(chassis, priority)| {
        let row = vec![("chassis_name", text(chassis)), ("priority", Datum::Int(priority))];
        out.put(Key::new(Table::HaChassis, format!("{}/{chassis}", router.id)), row)
    });
    let members = members.collect();
    let row = vec![("name", text(names::router(&router.id))), ("ha_chassis", Datum::Many(members))];
    Some(out.put(Key::new(Table::HaChassisGroup, router.id.as_str()), row))
}

fn static_routes(router: &Router, out: &mut Desired) -> BTreeSet<Key> {
    let rows = router.routes.iter().map(|(to, via)| {
        let row = vec![
            ("ip_prefix", text(to.trunc().to_string())),
            ("nexthop", text(via.to_string())),
            ("output_port", Datum::SomeText(None)),
        ];
        out.put(Key::new(Table::LogicalRouterStaticRoute, format!("{}/{}/{via}", router.id, to.trunc())), row)
    });
    rows.collect()
}

fn default_routes(plan: &Plan<'_>, router: &Router, link: &Link<'_>, out: &mut Desired) -> BTreeSet<Key> {
    let rows = plan.fixed(link.port).filter_map(|(subnet, fixed)| {
        let via = subnet.gateway_ip.filter(|ip| *ip != fixed.ip)?;
        let row = vec![
            ("ip_prefix", text(if via.is_ipv4() { "0.0.0.0/0" } else { "::/0" })),
            ("nexthop", text(via.to_string())),
            // The next hop may be link-local, which does not tell the port.
            ("output_port", Datum::SomeText(Some(names::router_port(&link.port.id)))),
        ];
        Some(out.put(Key::new(Table::LogicalRouterStaticRoute, format!("{}/default/{}", router.id, subnet.id)), row))
    });
    rows.collect()
}

/// Each v4 subnet behind the router leaves with the gateway's address.
fn snat(plan: &Plan<'_>, router: &Router, gateway: &Gateway, link: &Link<'_>, out: &mut Desired) -> BTreeSet<Key> {
    let outside = plan.fixed(link.port).map(|(_, fixed)| fixed.ip).find(IpAddr::is_ipv4).filter(|_| gateway.enable_snat);
    let Some(outside) = outside else { return BTreeSet::new() };
    let inside = router.interfaces.iter().filter_map(|id| plan.ports.get(id)).flat_map(|port| plan.fixed(port));
    let rows = inside.filter(|(subnet, _)| matches!(subnet.cidr, IpNet::V4(_))).map(|(subnet, _)| {
        let row = nat("snat", outside, subnet.cidr.trunc().to_string(), None);
        out.put(Key::new(Table::Nat, format!("{}/snat/{}", router.id, subnet.id)), row)
    });
    rows.collect()
}

fn floating_ip(plan: &Plan<'_>, fip: &FloatingIp, out: &mut Desired) -> Option<Key> {
    let (port, inside) = (plan.ports.get(fip.port_id.as_ref()?)?, fip.fixed_ip?);
    let distributed = fip.external_mac.map(|mac| (mac.to_string(), names::port(&port.id)));
    let row = nat("dnat_and_snat", fip.address, inside.to_string(), distributed);
    Some(out.put(Key::new(Table::Nat, fip.id.as_str()), row))
}

fn nat(kind: &str, outside: IpAddr, inside: String, distributed: Option<(String, String)>) -> crate::ovn::row::Row {
    let (mac, port) = distributed.unzip();
    vec![
        ("type", text(kind)),
        ("external_ip", text(outside.to_string())),
        ("logical_ip", text(inside)),
        ("external_mac", Datum::SomeText(mac)),
        ("logical_port", Datum::SomeText(port)),
    ]
}
