//! Security groups: a port group each, an ACL for each rule, and one group where everything else is dropped.
//!
//! Matches are put together from numbers, parsed prefixes and our own names only: nothing a user typed reaches OVN's
//! expression parser. The priorities are those that Neutron uses: allow 1002, drop 1001.
use super::{Plan, ports};
use crate::ovn::{
    model::{Direction, Ethertype, Remote, Rule, SecurityGroup, SecurityGroupId, Topology},
    names,
    row::{Datum, Desired, Key, Row, Table, text, texts},
};
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

const ALLOW: i64 = 1002;
const DROP: i64 = 1001;

pub(super) fn groups(plan: &Plan<'_>, out: &mut Desired) {
    let mut members: BTreeMap<&SecurityGroupId, BTreeSet<Key>> = plan.groups.keys().map(|id| (*id, BTreeSet::new())).collect();
    let mut guarded = BTreeSet::new();
    for port in plan.ports.values().filter(|p| p.port_security_enabled && ports::is_guest(plan, p)) {
        let key = Key::new(Table::LogicalSwitchPort, names::port(&port.id));
        for id in &port.security_group_ids {
            match members.get_mut(id) {
                Some(ports) => drop(ports.insert(key.clone())),
                None => out.problem(format!("port {} is in security group {id}, which does not exist", port.id)),
            }
        }
        guarded.insert(key);
    }
    for (id, ports) in members {
        if let Some(group) = plan.groups.get(id) {
            let acls = group.rules.iter().filter_map(|rule| rule_acl(plan, group, rule, out)).collect();
            put_group(out, id.as_str(), names::port_group(id), ports, acls);
        }
    }
    let acls = drop_acls(out);
    put_group(out, names::DROP_GROUP, names::DROP_GROUP.into(), guarded, acls);
}

fn put_group(out: &mut Desired, key: &str, name: String, ports: BTreeSet<Key>, acls: BTreeSet<Key>) {
    let row = vec![("name", text(name)), ("ports", Datum::Many(ports)), ("acls", Datum::Many(acls))];
    out.put(Key::new(Table::PortGroup, key), row);
}

pub(super) fn address_groups(topology: &Topology, out: &mut Desired) {
    for group in &topology.address_groups {
        for (family, v4) in [("ip4", true), ("ip6", false)] {
            let name = names::address_set(&group.id, family);
            let of_family = group.addresses.iter().filter(|net| matches!(net, IpNet::V4(_)) == v4);
            let addresses = texts(of_family.map(|net| net.trunc().to_string()));
            out.put(Key::new(Table::AddressSet, &name), vec![("name", text(&name)), ("addresses", addresses)]);
        }
    }
}

fn rule_acl(plan: &Plan<'_>, group: &SecurityGroup, rule: &Rule, out: &mut Desired) -> Option<Key> {
    let condition = condition(plan, &names::port_group(&group.id), rule)?;
    let action = if group.stateful { "allow-related" } else { "allow-stateless" };
    Some(out.put(Key::new(Table::Acl, rule.id.as_str()), acl(rule.direction, ALLOW, condition, action)))
}

/// Everything of IP is dropped, but a guest may always ask for its address: the answer is OVN's own.
fn drop_acls(out: &mut Desired) -> BTreeSet<Key> {
    let from = format!("inport == @{}", names::DROP_GROUP);
    let to = format!("outport == @{}", names::DROP_GROUP);
    let rows = [
        ("drop/egress", acl(Direction::Egress, DROP, format!("{from} && ip"), "drop")),
        ("drop/ingress", acl(Direction::Ingress, DROP, format!("{to} && ip"), "drop")),
        ("dhcp/v4", acl(Direction::Egress, ALLOW, format!("{from} && ip4 && udp.src == 68 && udp.dst == 67"), "allow")),
        ("dhcp/v6", acl(Direction::Egress, ALLOW, format!("{from} && ip6 && udp.src == 546 && udp.dst == 547"), "allow")),
    ];
    rows.into_iter().map(|(name, row)| out.put(Key::new(Table::Acl, name), row)).collect()
}

fn acl(direction: Direction, priority: i64, condition: String, action: &str) -> Row {
    let direction = match direction {
        Direction::Ingress => "to-lport",
        Direction::Egress => "from-lport",
    };
    vec![("priority", Datum::Int(priority)), ("direction", text(direction)), ("match", text(condition)), ("action", text(action))]
}

/// The rule as an OVN expression; none if it can never match or names what does not exist.
fn condition(plan: &Plan<'_>, group: &str, rule: &Rule) -> Option<String> {
    let (port, end) = match rule.direction {
        Direction::Ingress => ("outport", "src"),
        Direction::Egress => ("inport", "dst"),
    };
    let (ip, icmp) = match rule.ethertype {
        Ethertype::Ipv4 => ("ip4", "icmp4"),
        Ethertype::Ipv6 => ("ip6", "icmp6"),
    };
    let mut out = format!("{port} == @{group} && {ip}");
    match &rule.remote {
        Remote::Any => {}
        Remote::Prefix(net) if matches!(net, IpNet::V4(_)) != (rule.ethertype == Ethertype::Ipv4) => return None,
        // OVN says "any" by leaving it out; 0.0.0.0/0 is no valid mask for it.
        Remote::Prefix(net) if net.prefix_len() == 0 => {}
        Remote::Prefix(net) => and(&mut out, format_args!("{ip}.{end} == {}", net.trunc())),
        Remote::Group(id) => {
            plan.groups.get(id)?;
            and(&mut out, format_args!("{ip}.{end} == ${}_{ip}", names::port_group(id)));
        }
        Remote::AddressGroup(id) => {
            plan.topology.address_groups.iter().find(|g| g.id == *id)?;
            and(&mut out, format_args!("{ip}.{end} == ${}", names::address_set(id, ip)));
        }
    }
    let transport = |out: &mut String, name: &str| {
        and(out, format_args!("{name}"));
        match (rule.port_min, rule.port_max) {
            (Some(min), Some(max)) if min == max => and(out, format_args!("{name}.dst == {min}")),
            (min, max) => {
                if let Some(min) = min {
                    and(out, format_args!("{name}.dst >= {min}"));
                }
                if let Some(max) = max {
                    and(out, format_args!("{name}.dst <= {max}"));
                }
            }
        }
    };
    match rule.protocol {
        None => {}
        Some(6) => transport(&mut out, "tcp"),
        Some(17) => transport(&mut out, "udp"),
        Some(132) => transport(&mut out, "sctp"),
        // A type or code is one byte; OVN would refuse the whole expression.
        Some(1 | 58) if rule.port_min.max(rule.port_max) > Some(255) => return None,
        Some(1 | 58) => {
            and(&mut out, format_args!("{icmp}"));
            if let Some(kind) = rule.port_min {
                and(&mut out, format_args!("{icmp}.type == {kind}"));
            }
            if let Some(code) = rule.port_max {
                and(&mut out, format_args!("{icmp}.code == {code}"));
            }
        }
        Some(number) => and(&mut out, format_args!("ip.proto == {number}")),
    }
    Some(out)
}

fn and(out: &mut String, term: std::fmt::Arguments<'_>) {
    let _ = write!(out, " && {term}");
}
