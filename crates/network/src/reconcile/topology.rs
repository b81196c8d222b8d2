//! From rows to what the data plane should be. Reads rows only; a row that does not decode is left out and logged.
use crate::{
    ovn::model::{self, Direction, Ethertype, Ipv6Mode, Remote, Topology},
    ports::{self, METADATA_OWNER},
    protocols,
    resources::{AddressGroup, FloatingIp, Network, Port, Router, SecurityGroup, SecurityGroupRule, Subnet},
};
use base::id::Mac;
use resource::{Object, Reader, Resource};
use serde_json::Value;
use std::{collections::HashMap, net::IpAddr};

fn rows<T: Resource>(reader: &Reader<'_>) -> Vec<Object<T>> {
    reader
        .all(&T::DEF.table)
        .filter_map(|row| match Object::<T>::from_row(row) {
            Ok(object) if !object.deleting() => Some(object),
            Ok(_) => None,
            Err(e) => {
                tracing::error!(key = %row.key, context = e.context.as_deref(), "A row does not decode and is left out of the network");
                None
            }
        })
        .collect()
}

/// The whole network as the rows say. `gateways` are the chassis that may hold router gateways.
pub(super) fn topology(reader: &Reader<'_>, gateways: &[String]) -> Topology {
    let ports: Vec<Object<Port>> = rows(reader);
    let mut metadata: HashMap<&str, IpAddr> = HashMap::new();
    for port in ports.iter().filter(|p| p.device_owner == METADATA_OWNER) {
        for (subnet, ip) in port.addresses() {
            if let Ok(ip) = ip.parse() {
                metadata.insert(subnet, ip);
            }
        }
    }
    let mut interfaces: HashMap<&str, Vec<model::PortId>> = HashMap::new();
    for port in ports.iter().filter(|p| p.device_owner.starts_with("network:") && ports::belongs_to_a_router(&p.device_owner)) {
        interfaces.entry(&port.device_id).or_default().push(port.id.as_str().into());
    }
    let routers: Vec<Object<Router>> = rows(reader);
    let mut rules: HashMap<String, Vec<model::Rule>> = HashMap::new();
    for rule in rows::<SecurityGroupRule>(reader) {
        rules.entry(rule.security_group_id.clone()).or_default().extend(security_rule(&rule));
    }
    let distributed: HashMap<&str, bool> = routers.iter().map(|r| (r.id.as_str(), r.distributed)).collect();
    Topology {
        networks: rows(reader).iter().map(network).collect(),
        subnets: rows(reader).iter().filter_map(|s: &Object<Subnet>| subnet(s, metadata.get(s.id.as_str()).copied())).collect(),
        routers: routers.iter().map(|r| router(r, &interfaces)).collect(),
        floating_ips: rows(reader).iter().filter_map(|f| floating_ip(f, reader, &distributed)).collect(),
        security_groups: rows(reader)
            .iter()
            .map(|g: &Object<SecurityGroup>| model::SecurityGroup {
                id: g.id.as_str().into(),
                stateful: g.stateful,
                rules: rules.remove(&g.id).unwrap_or_default(),
            })
            .collect(),
        address_groups: rows(reader)
            .iter()
            .map(|g: &Object<AddressGroup>| model::AddressGroup {
                id: g.id.as_str().into(),
                addresses: g.addresses.clone().unwrap_or_default(),
            })
            .collect(),
        gateways: gateways.to_vec(),
        ports: ports.iter().filter_map(port).collect(),
        dns_servers: Vec::new(),
    }
}

fn network(n: &Object<Network>) -> model::Network {
    let physical = n.physical_network.clone().filter(|p| !p.is_empty());
    let vlan = n.segmentation_id.filter(|_| n.network_type.as_deref() == Some("vlan")).and_then(|v| u16::try_from(v).ok());
    model::Network {
        id: n.id.as_str().into(),
        mtu: n.mtu.and_then(|m| u16::try_from(m).ok()).unwrap_or(1500),
        admin_state_up: n.admin_state_up,
        external: n.external,
        provider: physical.map(|physical_network| model::Provider { physical_network, vlan }),
    }
}

fn mode(text: Option<&str>) -> Option<Ipv6Mode> {
    match text? {
        "slaac" => Some(Ipv6Mode::Slaac),
        "dhcpv6-stateful" => Some(Ipv6Mode::Dhcpv6Stateful),
        "dhcpv6-stateless" => Some(Ipv6Mode::Dhcpv6Stateless),
        _ => None,
    }
}

fn subnet(s: &Object<Subnet>, metadata: Option<IpAddr>) -> Option<model::Subnet> {
    Some(model::Subnet {
        id: s.id.as_str().into(),
        network_id: s.network_id.as_str().into(),
        cidr: s.cidr?,
        gateway_ip: s.gateway_ip.as_deref().and_then(|ip| ip.parse().ok()),
        enable_dhcp: s.enable_dhcp,
        dns_nameservers: s.dns_nameservers.clone().unwrap_or_default(),
        host_routes: s.host_routes.iter().flatten().map(|r| (r.destination, r.nexthop)).collect(),
        ipv6_address_mode: mode(s.ipv6_address_mode.as_deref()),
        ipv6_ra_mode: mode(s.ipv6_ra_mode.as_deref()),
        metadata_ip: metadata.and_then(|ip| match ip {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        }),
    })
}

fn port(p: &Object<Port>) -> Option<model::Port> {
    let pair = |a: &crate::resources::AddressPair| {
        let ip = a.ip_address.parse().or_else(|_| a.ip_address.parse::<IpAddr>().map(Into::into)).ok()?;
        Some(model::AddressPair { mac: a.mac_address.as_deref().and_then(Mac::parse), ip })
    };
    let option = |o: &crate::resources::DhcpOption| {
        Some(model::ExtraDhcpOpt { name: o.opt_name.clone(), value: o.opt_value.clone()?, ipv6: o.ip_version == 6 })
    };
    Some(model::Port {
        id: p.id.as_str().into(),
        network_id: p.network_id.as_str().into(),
        mac: Mac::parse(p.mac_address.as_deref()?)?,
        fixed_ips: p
            .addresses()
            .filter_map(|(subnet, ip)| Some(model::FixedIp { subnet_id: subnet.into(), ip: ip.parse().ok()? }))
            .collect(),
        admin_state_up: p.admin_state_up,
        device_owner: p.device_owner.clone(),
        device_id: p.device_id.clone(),
        port_security_enabled: p.port_security_enabled.unwrap_or(true),
        security_group_ids: p.security_groups.iter().flatten().map(|g| g.as_str().into()).collect(),
        allowed_address_pairs: p.allowed_address_pairs.iter().flatten().filter_map(pair).collect(),
        extra_dhcp_opts: p.extra_dhcp_opts.iter().flatten().filter_map(option).collect(),
        hosts: Some(p.host_id.clone()).filter(|h| !h.is_empty()).into_iter().collect(),
    })
}

fn router(r: &Object<Router>, interfaces: &HashMap<&str, Vec<model::PortId>>) -> model::Router {
    let info = r.external_gateway_info.as_ref();
    let gateway = info.and_then(|info| {
        Some(model::Gateway {
            network_id: info.network_id.as_deref()?.into(),
            enable_snat: info.enable_snat.unwrap_or(true),
            port_id: r.gw_port_id.as_deref()?.into(),
        })
    });
    let gateway_port = r.gw_port_id.as_deref().unwrap_or_default();
    model::Router {
        id: r.id.as_str().into(),
        admin_state_up: r.admin_state_up,
        gateway,
        interfaces: interfaces.get(r.id.as_str()).into_iter().flatten().filter(|p| p.as_str() != gateway_port).cloned().collect(),
        routes: r.routes.iter().flatten().map(|h| (h.destination, h.nexthop)).collect(),
        gateway_order: None,
    }
}

fn floating_ip(f: &Object<FloatingIp>, reader: &Reader<'_>, distributed: &HashMap<&str, bool>) -> Option<model::FloatingIp> {
    let holder = f.floating_port_id.as_deref().and_then(|id| reader.get(&Port::DEF.table, id));
    let own_mac = f.router_id.as_deref().and_then(|r| distributed.get(r)).copied().unwrap_or(false);
    Some(model::FloatingIp {
        id: f.id.as_str().into(),
        address: f.floating_ip_address.as_deref()?.parse().ok()?,
        port_id: f.port_id.as_deref().map(Into::into),
        fixed_ip: f.fixed_ip_address.as_deref().and_then(|ip| ip.parse().ok()),
        router_id: f.router_id.as_deref().map(Into::into),
        external_mac: holder.filter(|_| own_mac).and_then(|p| Mac::parse(p.text("mac_address"))),
    })
}

fn security_rule(r: &Object<SecurityGroupRule>) -> Option<model::Rule> {
    let number = |v: Option<i64>| v.and_then(|n| u16::try_from(n).ok());
    let ethertype = if r.ethertype == "IPv6" { Ethertype::Ipv6 } else { Ethertype::Ipv4 };
    // A protocol that is not known must not become "any".
    let protocol = protocol(r.protocol.as_ref(), ethertype)?;
    Some(model::Rule {
        id: r.id.as_str().into(),
        direction: if r.direction == "egress" { Direction::Egress } else { Direction::Ingress },
        ethertype,
        protocol,
        port_min: number(r.port_range_min),
        port_max: number(r.port_range_max),
        remote: match (&r.remote_group_id, &r.remote_address_group_id, &r.remote_ip_prefix) {
            (Some(group), _, _) => Remote::Group(group.as_str().into()),
            (None, Some(group), _) => Remote::AddressGroup(group.as_str().into()),
            (None, None, Some(prefix)) => Remote::Prefix(match prefix.parse::<ipnet::IpNet>() {
                Ok(net) => net.trunc(),
                Err(_) => prefix.parse::<IpAddr>().ok()?.into(),
            }),
            (None, None, None) => Remote::Any,
        },
    })
}

/// `Some(None)` is any protocol; `None` is one that nobody knows.
fn protocol(said: Option<&Value>, ethertype: Ethertype) -> Option<Option<u8>> {
    let number = match said {
        None | Some(Value::Null) => return Some(None),
        Some(Value::String(name)) => protocols::number(name)?,
        Some(other) => u8::try_from(other.as_u64()?).ok()?,
    };
    Some(match (number, ethertype) {
        (0, _) => None,
        (1, Ethertype::Ipv6) => Some(58),
        (n, _) => Some(n),
    })
}
