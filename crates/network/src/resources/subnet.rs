//! Subnets (api-ref `v2/subnets`).
use super::{ADDRESSES, Network, OBJECTS};
use crate::{
    fail,
    ipam::{Range, range},
    metadata, plan_subnet, ports, sharing, tags,
};
use api::{Cx, Map, Result};
use ipnet::IpNet;
use resource::{Deletion, Kind, Object, Reader, Resource, Rules, Tx, load};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::net::IpAddr;

/// The stored form of "nothing was said of a gateway"; null says that there is none.
pub(crate) const UNSAID: &str = "";
const MODE: Kind = Kind::Optional(&Kind::Choice(&["slaac", "dhcpv6-stateful", "dhcpv6-stateless"]));

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pool {
    pub(crate) start: IpAddr,
    pub(crate) end: IpAddr,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct HostRoute {
    pub(crate) destination: IpNet,
    pub(crate) nexthop: IpAddr,
}

/// A block of addresses of a network.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "network", path = "/v2.0/subnets", owner = "project", quota = "subnet", stamps)]
#[policy(
    list = "reader",
    show = "reader",
    create = "member",
    update = "rule:network_row_owner",
    delete = "rule:network_row_owner"
)]
pub(crate) struct Subnet {
    #[field(create, update, filter, sort, default = "")]
    pub(crate) name: String,
    #[field(create, update, filter, default = "")]
    pub(crate) description: String,
    #[field(create, required, filter, sort, index)]
    pub(crate) network_id: String,
    #[field(create, required, filter, sort, kind = Kind::Int { min: 4, max: 6 })]
    pub(crate) ip_version: u8,
    #[field(create, filter, sort)]
    pub(crate) cidr: Option<IpNet>,
    /// Null means that it has none; unsaid takes the first address.
    #[field(create, update, filter, sort, kind = Kind::Optional(&Kind::Ip), default = UNSAID)]
    pub(crate) gateway_ip: Option<String>,
    #[field(create, update, kind = OBJECTS)]
    pub(crate) allocation_pools: Option<Vec<Pool>>,
    #[field(create, update, filter, sort, default = true)]
    pub(crate) enable_dhcp: bool,
    #[field(create, update, kind = ADDRESSES)]
    pub(crate) dns_nameservers: Option<Vec<IpAddr>>,
    #[field(create, update, kind = OBJECTS)]
    pub(crate) host_routes: Option<Vec<HostRoute>>,
    #[field(create, filter, kind = MODE)]
    pub(crate) ipv6_address_mode: Option<String>,
    #[field(create, filter, kind = MODE)]
    pub(crate) ipv6_ra_mode: Option<String>,
    /// Where the block was cut from.
    #[field(create, filter, index)]
    pub(crate) subnetpool_id: Option<String>,
    /// Size of the block to cut from the pool.
    #[field(create, hidden)]
    pub(crate) prefixlen: Option<u8>,
    #[field(create, hidden)]
    pub(crate) use_default_subnetpool: Option<bool>,
    #[field(default = Vec::<String>::new())]
    pub(crate) tags: Vec<String>,
}

impl Subnet {
    /// The block. Every stored row has one.
    pub(crate) fn net(&self) -> Result<IpNet> {
        self.cidr.ok_or_else(|| api::Error::internal("a subnet without a block"))
    }
    pub(crate) fn gateway(&self) -> Option<IpAddr> {
        self.gateway_ip.as_deref().and_then(|g| g.parse().ok())
    }
    pub(crate) fn pools(&self) -> Vec<Range> {
        let pools = self.allocation_pools.iter().flatten();
        pools.map(|p| Range { first: p.start, last: p.end }).collect()
    }
    /// Do hosts make their address here by themselves, from their MAC?
    pub(crate) fn makes_own_addresses(&self) -> bool {
        [&self.ipv6_address_mode, &self.ipv6_ra_mode]
            .into_iter()
            .any(|m| matches!(m.as_deref(), Some("slaac" | "dhcpv6-stateless")))
    }
}

impl Rules for Subnet {
    fn create(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        let network: Object<Network> = load(tx, &row.network_id)?.ok_or_else(|| fail::network_missing(&row.network_id))?;
        if !sharing::owns(&network.map, cx) {
            let seen = sharing::may_see(tx, cx, &network.map);
            return Err(if seen { fail::forbidden("create_subnet") } else { fail::network_missing(&row.network_id) });
        }
        super::subnetpool::cut(row, cx, tx)?;
        plan_subnet::complete(row)?;
        let siblings = of_network(tx, &row.network_id)?;
        let net = row.net()?;
        if let Some(other) = siblings.iter().find(|s| s.cidr.is_some_and(|c| range::overlap(&c, &net))) {
            let text = format!("Requested subnet with cidr: {net} for network: {} overlaps with another subnet", row.network_id);
            return Err(fail::invalid(text).context(format!("subnet {} has {:?}", other.id, other.cidr)));
        }
        // Writing the network makes two subnets at once take turns, and stops its deletion.
        network.save(tx)?;
        metadata::settle(tx, &network, siblings.iter().chain([&*row]))?;
        if row.makes_own_addresses() {
            ports::add_own_addresses(tx, row)?;
        }
        Ok(())
    }

    fn update(row: &mut Object<Self>, old: &Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        row.dns_nameservers.get_or_insert_default();
        row.host_routes.get_or_insert_default();
        if row.allocation_pools.is_none() {
            row.allocation_pools.clone_from(&old.allocation_pools);
        }
        plan_subnet::check(row)?;
        if row.gateway_ip != old.gateway_ip
            && let Some(gateway) = old.gateway()
            && let Some(port) = ports::router_holding(tx, &old.id, gateway)?
        {
            let text = format!("Current gateway ip {gateway} already in use by port {port}. Unable to update.");
            return Err(fail::refused("GatewayIpInUse", text));
        }
        if row.enable_dhcp != old.enable_dhcp {
            let network: Object<Network> = load(tx, &row.network_id)?.ok_or_else(|| fail::network_missing(&row.network_id))?;
            network.save(tx)?;
            let siblings = of_network(tx, &row.network_id)?;
            let others = siblings.iter().filter(|s| s.id != row.id);
            metadata::settle(tx, &network, others.chain([&*row]))?;
        }
        Ok(())
    }

    fn delete(row: &mut Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        ports::vacate(tx, row)?;
        if let Some(network) = load::<Network>(tx, &row.network_id)? {
            network.save(tx)?;
            let siblings = of_network(tx, &row.network_id)?;
            metadata::settle(tx, &network, siblings.iter().filter(|s| s.id != row.id))?;
        }
        Ok(Deletion::Now)
    }

    fn view(row: &Map, out: &mut Map, _cx: &Cx, _reader: &Reader<'_>) {
        out.insert("service_types".into(), Value::Array(Vec::new()));
        if row.get("gateway_ip").and_then(Value::as_str) == Some(UNSAID) {
            out.insert("gateway_ip".into(), Value::Null);
        }
    }

    fn visible(row: &Map, cx: &Cx, reader: &Reader<'_>) -> bool {
        if sharing::owns(row, cx) {
            return true;
        }
        // Of a network that is only external, a project sees the network but not its subnets.
        let network = row.get("network_id").and_then(Value::as_str).unwrap_or_default();
        let network = reader.get(&Network::DEF.table, network);
        network.as_deref().and_then(|n| n.value().as_object()).is_some_and(|n| {
            n.get("project_id").and_then(Value::as_str) == cx.caller.project_id()
                || sharing::shown_as(n, cx, reader, sharing::SHARED)
        })
    }

    fn filter(row: &Map, key: &str, values: &[&str], _cx: &Cx) -> Option<bool> {
        tags::filter(row, key, values)
    }
}

/// The subnets of a network, in the order of their ids.
pub(crate) fn of_network(tx: &Tx<'_>, network: &str) -> Result<Vec<Object<Subnet>>> {
    resource::find(tx, "network_id", network)
}
