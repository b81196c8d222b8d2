//! The resources of the service, one file each.
mod address_group;
mod address_scope;
pub(crate) mod floatingip;
pub(crate) mod network;
mod port;
mod rbac_policy;
pub(crate) mod router;
mod security_group;
mod security_group_rule;
mod subnet;
mod subnetpool;

pub(crate) use address_group::{AddressGroup, routes as address_group_routes};
pub(crate) use address_scope::AddressScope;
pub(crate) use floatingip::FloatingIp;
pub(crate) use network::Network;
pub(crate) use port::{AddressPair, DhcpOption, FixedIp, Port};
pub(crate) use rbac_policy::RbacPolicy;
pub(crate) use router::{ExternalFixedIp, GatewayInfo, Hop, Router};
pub(crate) use security_group::SecurityGroup;
pub(crate) use security_group_rule::SecurityGroupRule;
pub(crate) use subnet::{Pool, Subnet, UNSAID, of_network};
pub(crate) use subnetpool::{SubnetPool, routes as subnetpool_routes};

use resource::{Kind, Resource, ResourceDef};

/// A list of objects, or null for what was not said.
pub(crate) const OBJECTS: Kind = Kind::Optional(&Kind::List(&Kind::Object));
/// A list of addresses, or null for what was not said.
pub(crate) const ADDRESSES: Kind = Kind::Optional(&Kind::List(&Kind::Ip));
/// A list of networks, or null for what was not said.
pub(crate) const CIDRS: Kind = Kind::Optional(&Kind::List(&Kind::Cidr));

/// In the order in which a newcomer would make them.
pub(crate) const ALL: [&ResourceDef; 11] = [
    Network::DEF,
    Subnet::DEF,
    Port::DEF,
    Router::DEF,
    FloatingIp::DEF,
    SecurityGroup::DEF,
    SecurityGroupRule::DEF,
    SubnetPool::DEF,
    AddressScope::DEF,
    AddressGroup::DEF,
    RbacPolicy::DEF,
];
