//! What a subnet must be before anything is written: its block, gateway, pools, routes and IPv6 modes. Pure.
use crate::{
    fail,
    ipam::{Range, range},
    resources::{Pool, Subnet},
};
use api::{Error, Result};
use ipnet::IpNet;
use std::net::IpAddr;

const MOST_NAMESERVERS: usize = 5;
const MOST_ROUTES: usize = 20;

/// Fills in what was not said of a new subnet, and checks all.
pub(crate) fn complete(subnet: &mut Subnet) -> Result<()> {
    let net = subnet.cidr.ok_or_else(|| bad("a subnetpool must be specified in the absence of a cidr"))?;
    subnet.dns_nameservers.get_or_insert_default();
    subnet.host_routes.get_or_insert_default();
    check_block(subnet, net)?;
    if subnet.gateway_ip.as_deref() == Some(crate::resources::UNSAID) {
        subnet.gateway_ip = Some(range::default_gateway(net).to_string());
    }
    let gateway = subnet.gateway();
    let pools = range::default_pools(net, gateway);
    subnet.allocation_pools.get_or_insert_with(|| pools.iter().map(|p| Pool { start: p.first, end: p.last }).collect());
    check(subnet)
}

fn bad(reason: &str) -> Error {
    fail::bad("subnets", reason)
}

fn check_block(subnet: &Subnet, net: IpNet) -> Result<()> {
    let version = if net.addr().is_ipv4() { 4 } else { 6 };
    if subnet.ip_version != version {
        return Err(fail::invalid(format!("cidr '{net}' does not match the ip_version '{}'", subnet.ip_version)));
    }
    if net.prefix_len() == 0 {
        return Err(fail::invalid(format!("0 is not allowed as CIDR prefix length: {net}")));
    }
    let address = net.network();
    if address.is_multicast() || address.is_loopback() || matches!(address, IpAddr::V4(a) if a.is_link_local()) {
        return Err(fail::invalid(format!("cidr '{net}' cannot be used for a subnet; choose a unicast block")));
    }
    if subnet.enable_dhcp && net.prefix_len() == net.max_prefix_len() {
        return Err(fail::invalid(format!("Subnet has a prefix length that is incompatible with DHCP service enabled: {net}")));
    }
    check_modes(subnet, net)
}

fn check_modes(subnet: &Subnet, net: IpNet) -> Result<()> {
    let (address, ra) = (subnet.ipv6_address_mode.as_deref(), subnet.ipv6_ra_mode.as_deref());
    if address.is_none() && ra.is_none() {
        return Ok(());
    }
    if subnet.ip_version == 4 {
        let text = "ipv6_address_mode or ipv6_ra_mode cannot be specified for IPv4 subnets; ip_version must be 6";
        return Err(fail::invalid(text));
    }
    if !subnet.enable_dhcp {
        return Err(fail::invalid("ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False"));
    }
    if let (Some(a), Some(r)) = (address, ra)
        && a != r
    {
        return Err(fail::invalid(format!(
            "ipv6_ra_mode set to '{r}' with ipv6_address_mode set to '{a}' is not valid. If both attributes are set, they must be the same value"
        )));
    }
    if subnet.makes_own_addresses() && net.prefix_len() != 64 {
        return Err(fail::invalid(format!(
            "Invalid CIDR {net} for IPv6 address mode. OpenStack uses the EUI-64 address format, which requires the prefix to be /64"
        )));
    }
    Ok(())
}

/// What must hold of new and changed subnets.
pub(crate) fn check(subnet: &Subnet) -> Result<()> {
    let net = subnet.net()?;
    let gateway = subnet.gateway();
    check_pools(net, &subnet.pools())?;
    if let Some(ip) = gateway {
        check_gateway(net, ip)?;
        if let Some(pool) = subnet.pools().iter().find(|p| p.contains(ip)) {
            let text = format!("Gateway ip {ip} conflicts with allocation pool {}-{}.", pool.first, pool.last);
            return Err(fail::refused("GatewayConflictWithAllocationPools", text));
        }
    }
    if subnet.makes_own_addresses() && !subnet.enable_dhcp {
        return Err(fail::invalid("enable_dhcp cannot be turned off while ipv6_ra_mode or ipv6_address_mode is set"));
    }
    let servers = subnet.dns_nameservers.as_deref().unwrap_or_default();
    if servers.len() > MOST_NAMESERVERS {
        return Err(fail::wrong(
            "DNSNameServersExhausted",
            format!("Unable to complete operation. The number of DNS nameservers exceeds the limit {MOST_NAMESERVERS}."),
        ));
    }
    if (1..servers.len()).any(|i| servers[..i].contains(&servers[i])) {
        return Err(Error::invalid("dns_nameservers", "an address is given twice"));
    }
    let same_family = |ip: IpAddr| ip.is_ipv4() == net.addr().is_ipv4();
    let routes = subnet.host_routes.as_deref().unwrap_or_default();
    if routes.len() > MOST_ROUTES {
        return Err(fail::wrong(
            "HostRoutesExhausted",
            format!("Unable to complete operation. The number of host routes exceeds the limit {MOST_ROUTES}."),
        ));
    }
    for (i, route) in routes.iter().enumerate() {
        if !same_family(route.destination.addr()) || !same_family(route.nexthop) {
            return Err(fail::invalid(format!("host route to {} is not of the subnet's IP version", route.destination)));
        }
        if routes[..i].contains(route) {
            return Err(Error::invalid("host_routes", "a route is given twice"));
        }
    }
    Ok(())
}

fn check_gateway(net: IpNet, ip: IpAddr) -> Result<()> {
    if ip.is_ipv4() != net.addr().is_ipv4() {
        let version = if net.addr().is_ipv4() { 4 } else { 6 };
        return Err(fail::invalid(format!("gateway_ip '{ip}' does not match the ip_version '{version}'")));
    }
    if ip.is_multicast() || ip.is_loopback() || ip.is_unspecified() || (net.contains(&ip) && !range::hosts(net).contains(ip)) {
        return Err(fail::invalid("Gateway is not valid on subnet"));
    }
    Ok(())
}

fn check_pools(net: IpNet, pools: &[Range]) -> Result<()> {
    let shown = |p: &Range| format!("{}-{}", p.first, p.last);
    let hosts = range::hosts(net);
    for (i, pool) in pools.iter().enumerate() {
        if pool.first.is_ipv4() != pool.last.is_ipv4() || range::number(pool.first) > range::number(pool.last) {
            return Err(fail::wrong("InvalidAllocationPool", format!("The allocation pool {} is not valid.", shown(pool))));
        }
        if !hosts.contains(pool.first) || !hosts.contains(pool.last) {
            let text = format!("The allocation pool {} spans beyond the subnet cidr {net}.", shown(pool));
            return Err(fail::wrong("OutOfBoundsAllocationPool", text));
        }
        if let Some(other) = pools[..i].iter().find(|o| o.overlaps(pool)) {
            let text = format!("Found overlapping allocation pools: {} {} for subnet {net}.", shown(other), shown(pool));
            return Err(fail::refused("OverlappingAllocationPools", text));
        }
    }
    Ok(())
}
