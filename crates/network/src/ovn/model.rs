//! The desired networks in Neutron's terms, already parsed: no store, no JSON, no strings that a user could shape.
//!
//! References are by id; one that leads nowhere is left out of the compiled rows and named in
//! [`Desired::problems`](super::row::Desired::problems).
use base::id::Mac;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr};

base::id_type! {
    NetworkId, SubnetId, PortId, RouterId, FloatingIpId, SecurityGroupId, RuleId, AddressGroupId,
}

/// Everything that OVN shall carry.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    pub networks: Vec<Network>,
    pub subnets: Vec<Subnet>,
    pub ports: Vec<Port>,
    pub routers: Vec<Router>,
    pub floating_ips: Vec<FloatingIp>,
    pub security_groups: Vec<SecurityGroup>,
    pub address_groups: Vec<AddressGroup>,
    /// The chassis that may be gateways, by system-id.
    pub gateways: Vec<String>,
    /// Name servers for subnets that name none.
    pub dns_servers: Vec<IpAddr>,
}

#[derive(Clone, Debug)]
pub struct Network {
    pub id: NetworkId,
    pub mtu: u16,
    pub admin_state_up: bool,
    /// `router:external`
    pub external: bool,
    /// None for a tenant network over Geneve.
    pub provider: Option<Provider>,
}

/// Where a provider network leaves the hosts.
#[derive(Clone, Debug)]
pub struct Provider {
    pub physical_network: String,
    /// None for a flat network.
    pub vlan: Option<u16>,
}

#[derive(Clone, Debug)]
pub struct Subnet {
    pub id: SubnetId,
    pub network_id: NetworkId,
    pub cidr: IpNet,
    pub gateway_ip: Option<IpAddr>,
    pub enable_dhcp: bool,
    pub dns_nameservers: Vec<IpAddr>,
    /// Destination and next hop.
    pub host_routes: Vec<(IpNet, IpAddr)>,
    pub ipv6_address_mode: Option<Ipv6Mode>,
    pub ipv6_ra_mode: Option<Ipv6Mode>,
    /// The address kept for the metadata service in this subnet; v4 subnets with DHCP have one.
    pub metadata_ip: Option<Ipv4Addr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6Mode {
    Slaac,
    Dhcpv6Stateful,
    Dhcpv6Stateless,
}

#[derive(Clone, Debug)]
pub struct Port {
    pub id: PortId,
    pub network_id: NetworkId,
    pub mac: Mac,
    pub fixed_ips: Vec<FixedIp>,
    pub admin_state_up: bool,
    /// Ports of `network:*` owners get a row only if a [`Router`] names them.
    pub device_owner: String,
    pub device_id: String,
    pub port_security_enabled: bool,
    pub security_group_ids: Vec<SecurityGroupId>,
    pub allowed_address_pairs: Vec<AddressPair>,
    pub extra_dhcp_opts: Vec<ExtraDhcpOpt>,
    /// The chassis (system-ids) that may claim the port: none yet, one, or source and target of a migration.
    pub hosts: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedIp {
    pub subnet_id: SubnetId,
    pub ip: IpAddr,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPair {
    /// None: the port's own.
    pub mac: Option<Mac>,
    pub ip: IpNet,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraDhcpOpt {
    pub name: String,
    pub value: String,
    pub ipv6: bool,
}

#[derive(Clone, Debug)]
pub struct Router {
    pub id: RouterId,
    pub admin_state_up: bool,
    pub gateway: Option<Gateway>,
    /// The ports of its interfaces.
    pub interfaces: Vec<PortId>,
    /// Destination and next hop.
    pub routes: Vec<(IpNet, IpAddr)>,
    /// The order in which chassis carry the gateway, if it was decided (sticky fail-over); else spread by hash.
    pub gateway_order: Option<Vec<String>>,
}

#[derive(Clone, Debug)]
pub struct Gateway {
    pub network_id: NetworkId,
    pub enable_snat: bool,
    pub port_id: PortId,
}

#[derive(Clone, Debug)]
pub struct FloatingIp {
    pub id: FloatingIpId,
    pub address: IpAddr,
    pub port_id: Option<PortId>,
    pub fixed_ip: Option<IpAddr>,
    pub router_id: Option<RouterId>,
    /// Set: distributed, the address answers with this MAC on the port's own host. None: on the gateway.
    pub external_mac: Option<Mac>,
}

#[derive(Clone, Debug)]
pub struct SecurityGroup {
    pub id: SecurityGroupId,
    pub stateful: bool,
    pub rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
pub struct Rule {
    pub id: RuleId,
    pub direction: Direction,
    pub ethertype: Ethertype,
    /// IANA number; None is any.
    pub protocol: Option<u8>,
    /// Lowest port; for ICMP the type.
    pub port_min: Option<u16>,
    /// Highest port; for ICMP the code.
    pub port_max: Option<u16>,
    pub remote: Remote,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Ingress,
    Egress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ethertype {
    Ipv4,
    Ipv6,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    Any,
    Prefix(IpNet),
    Group(SecurityGroupId),
    AddressGroup(AddressGroupId),
}

#[derive(Clone, Debug)]
pub struct AddressGroup {
    pub id: AddressGroupId,
    pub addresses: Vec<IpNet>,
}
