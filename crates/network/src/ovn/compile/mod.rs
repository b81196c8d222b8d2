//! Topology in, northbound rows out. Pure: the same topology always gives the same rows.
mod dhcp;
mod ports;
mod routers;
mod security;
#[cfg(test)]
mod tests;

use super::{
    model::{FixedIp, Network, NetworkId, Port, PortId, SecurityGroup, SecurityGroupId, Subnet, SubnetId, Topology},
    names,
    row::{Datum, Desired, Key, Table, map, text, texts},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

/// Compiles the whole topology.
pub fn compile(topology: &Topology) -> Desired {
    let plan = Plan::new(topology);
    let mut out = Desired::default();
    let mut switches: BTreeMap<&NetworkId, BTreeSet<Key>> = BTreeMap::new();
    for network in plan.networks.values() {
        switches.insert(&network.id, network_ports(&plan, network, &mut out));
    }
    for subnet in plan.subnets.values() {
        dhcp::subnet(&plan, subnet, &mut out);
    }
    for port in plan.ports.values() {
        let row = ports::port(&plan, port, &mut out);
        if let (Some(key), Some(members)) = (row, switches.get_mut(&port.network_id)) {
            members.insert(key);
        }
    }
    for (id, ports) in switches {
        let key = Key::new(Table::LogicalSwitch, id.as_str());
        out.put(key, vec![("name", text(names::switch(id))), ("ports", Datum::Many(ports))]);
    }
    for router in &topology.routers {
        routers::router(&plan, router, &mut out);
    }
    security::groups(&plan, &mut out);
    security::address_groups(topology, &mut out);
    out
}

/// The ports that a network has by itself: its way out of the hosts, and its metadata service.
fn network_ports(plan: &Plan<'_>, network: &Network, out: &mut Desired) -> BTreeSet<Key> {
    let mut ports = BTreeSet::new();
    if let Some(provider) = &network.provider {
        let name = names::localnet(&network.id);
        let row = vec![
            ("name", text(&name)),
            ("type", text("localnet")),
            ("addresses", texts(["unknown"])),
            ("port_security", Datum::Texts(BTreeSet::new())),
            ("options", map([("network_name", provider.physical_network.as_str())])),
            ("tag", Datum::SomeInt(provider.vlan.map(i64::from))),
        ];
        ports.insert(out.put(Key::new(Table::LogicalSwitchPort, name), row));
    }
    let own: Vec<_> = plan.subnets_of(&network.id).filter_map(|s| s.metadata_ip).map(|ip| ip.to_string()).collect();
    if !own.is_empty() {
        let name = names::metadata_port(&network.id);
        // The well-known addresses too, so that a guest without the DHCP route finds them by ARP or ND.
        let address = format!("{} {} 169.254.169.254 fe80::a9fe:a9fe", names::metadata_mac(&network.id), own.join(" "));
        let row = vec![
            ("name", text(&name)),
            ("type", text("localport")),
            ("addresses", texts([address])),
            ("port_security", Datum::Texts(BTreeSet::new())),
            ("options", Datum::Map(BTreeMap::new())),
            ("tag", Datum::SomeInt(None)),
        ];
        ports.insert(out.put(Key::new(Table::LogicalSwitchPort, name), row));
    }
    ports
}

/// The topology with everything findable; rows with ids that we would not make are left out from the start.
struct Plan<'a> {
    topology: &'a Topology,
    networks: BTreeMap<&'a NetworkId, &'a Network>,
    subnets: BTreeMap<&'a SubnetId, &'a Subnet>,
    subnets_by_network: HashMap<&'a NetworkId, Vec<&'a Subnet>>,
    ports: BTreeMap<&'a PortId, &'a Port>,
    groups: BTreeMap<&'a SecurityGroupId, &'a SecurityGroup>,
    /// Ports that are a router's interface (false) or gateway (true).
    router_ports: HashMap<&'a PortId, bool>,
    /// For an address of an allowed-address-pair: the ports that may carry it.
    carriers: HashMap<(&'a NetworkId, IpAddr), BTreeSet<&'a PortId>>,
}

impl<'a> Plan<'a> {
    fn new(topology: &'a Topology) -> Self {
        let networks: BTreeMap<_, _> = topology.networks.iter().filter(|n| names::plain(&n.id.0)).map(|n| (&n.id, n)).collect();
        let subnets: BTreeMap<_, _> = topology.subnets.iter().filter(|s| names::plain(&s.id.0)).map(|s| (&s.id, s)).collect();
        let mut subnets_by_network: HashMap<_, Vec<_>> = HashMap::new();
        for subnet in subnets.values().copied() {
            subnets_by_network.entry(&subnet.network_id).or_default().push(subnet);
        }
        let ports: BTreeMap<_, _> = topology.ports.iter().filter(|p| names::plain(&p.id.0)).map(|p| (&p.id, p)).collect();
        let mut router_ports = HashMap::new();
        for router in &topology.routers {
            router_ports.extend(router.interfaces.iter().map(|id| (id, false)));
            router_ports.extend(router.gateway.iter().map(|g| (&g.port_id, true)));
        }
        let mut carriers: HashMap<_, BTreeSet<_>> = HashMap::new();
        for port in ports.values().copied().filter(|p| p.port_security_enabled) {
            for pair in port.allowed_address_pairs.iter().filter(|p| p.ip.prefix_len() == p.ip.max_prefix_len()) {
                carriers.entry((&port.network_id, pair.ip.addr())).or_default().insert(&port.id);
            }
        }
        let groups = topology.security_groups.iter().map(|g| (&g.id, g)).collect();
        Self { topology, networks, subnets, subnets_by_network, ports, groups, router_ports, carriers }
    }
    fn subnets_of(&self, network: &NetworkId) -> impl Iterator<Item = &'a Subnet> {
        self.subnets_by_network.get(network).into_iter().flatten().copied()
    }
    /// The subnets of a port's addresses with the address in each.
    fn fixed<'p>(&'p self, port: &'p Port) -> impl Iterator<Item = (&'a Subnet, &'p FixedIp)> {
        port.fixed_ips.iter().filter_map(|f| Some((*self.subnets.get(&f.subnet_id)?, f)))
    }
}
