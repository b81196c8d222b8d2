use super::compile;
use crate::ovn::{
    model::*,
    row::{Datum, Desired, Key, Table},
};
use base::id::Mac;

fn mac(last: u8) -> Mac {
    Mac([0xfa, 0x16, 0x3e, 0, 0, last])
}

/// A tenant network and an external one, a router between them, two guests, a floating IP.
fn topology() -> Topology {
    let network = |id: &str, mtu, provider: Option<Provider>| Network {
        id: id.into(),
        mtu,
        admin_state_up: true,
        external: provider.is_some(),
        provider,
    };
    let subnet = |id: &str, network: &str, cidr: &str, dhcp: bool| Subnet {
        id: id.into(),
        network_id: network.into(),
        cidr: cidr.parse().unwrap(),
        gateway_ip: Some(cidr.replace("0/24", "1").parse().unwrap()),
        enable_dhcp: dhcp,
        dns_nameservers: vec![],
        host_routes: vec![],
        ipv6_address_mode: None,
        ipv6_ra_mode: None,
        metadata_ip: dhcp.then(|| cidr.replace("0/24", "2").parse().unwrap()),
    };
    let rule = |id: &str, direction, protocol, ports: Option<(u16, u16)>, remote| Rule {
        id: id.into(),
        direction,
        ethertype: Ethertype::Ipv4,
        protocol,
        port_min: ports.map(|p| p.0),
        port_max: ports.map(|p| p.1),
        remote,
    };
    let mut interface = port("ri", 1, "10.0.0.1");
    interface.device_owner = "network:router_interface".into();
    let mut gateway = port("rg", 2, "172.24.4.10");
    gateway.device_owner = "network:router_gateway".into();
    gateway.network_id = "pub".into();
    gateway.fixed_ips[0].subnet_id = "pubsub".into();
    let physical = Provider { physical_network: "public".into(), vlan: Some(7) };
    Topology {
        networks: vec![network("net", 1442, None), network("pub", 1500, Some(physical))],
        subnets: vec![subnet("sub", "net", "10.0.0.0/24", true), subnet("pubsub", "pub", "172.24.4.0/24", false)],
        ports: vec![interface, gateway, port("vm1", 11, "10.0.0.11"), port("vm2", 12, "10.0.0.12")],
        routers: vec![Router {
            id: "r".into(),
            admin_state_up: true,
            gateway: Some(Gateway { network_id: "pub".into(), enable_snat: true, port_id: "rg".into() }),
            interfaces: vec!["ri".into()],
            routes: vec![("192.168.0.0/16".parse().unwrap(), "10.0.0.99".parse().unwrap())],
            gateway_order: None,
        }],
        floating_ips: vec![FloatingIp {
            id: "fip".into(),
            address: "172.24.4.50".parse().unwrap(),
            port_id: Some("vm1".into()),
            fixed_ip: Some("10.0.0.11".parse().unwrap()),
            router_id: Some("r".into()),
            external_mac: Some(mac(50)),
        }],
        security_groups: vec![SecurityGroup {
            id: "s-g".into(),
            stateful: true,
            rules: vec![
                rule("out", Direction::Egress, None, None, Remote::Prefix("0.0.0.0/0".parse().unwrap())),
                rule("ssh", Direction::Ingress, Some(6), Some((22, 22)), Remote::Prefix("10.9.8.7/8".parse().unwrap())),
                rule("own", Direction::Ingress, Some(17), Some((1, 9)), Remote::Group("s-g".into())),
                rule("ping", Direction::Ingress, Some(1), Some((8, 0)), Remote::Any),
                rule("vrrp", Direction::Ingress, Some(112), None, Remote::AddressGroup("a-g".into())),
                rule("never", Direction::Ingress, None, None, Remote::Prefix("fd00::/8".parse().unwrap())),
                rule("gone", Direction::Ingress, None, None, Remote::Group("nobody".into())),
            ],
        }],
        address_groups: vec![AddressGroup { id: "a-g".into(), addresses: vec!["10.7.0.0/16".parse().unwrap()] }],
        gateways: vec!["n1".into(), "n2".into()],
        dns_servers: vec!["9.9.9.9".parse().unwrap()],
    }
}

fn port(id: &str, last: u8, ip: &str) -> Port {
    Port {
        id: id.into(),
        network_id: "net".into(),
        mac: mac(last),
        fixed_ips: vec![FixedIp { subnet_id: "sub".into(), ip: ip.parse().unwrap() }],
        admin_state_up: true,
        device_owner: "compute:nova".into(),
        device_id: "server".into(),
        port_security_enabled: true,
        security_group_ids: vec!["s-g".into()],
        allowed_address_pairs: vec![],
        extra_dhcp_opts: vec![],
        hosts: vec!["n1".into()],
    }
}

fn texts(items: &[&str]) -> Datum {
    Datum::Texts(items.iter().map(|s| (*s).to_owned()).collect())
}
fn lookup<'a>(d: &'a Desired, table: Table, name: &str, column: &str, key: &str) -> Option<&'a str> {
    match d.column(table, name, column) {
        Some(Datum::Map(m)) => m.get(key).map(String::as_str),
        other => panic!("{other:?}"),
    }
}
fn word<'a>(d: &'a Desired, table: Table, name: &str, column: &str) -> &'a str {
    match d.column(table, name, column) {
        Some(Datum::Text(s)) => s,
        other => panic!("{table:?} {name} {column}: {other:?}"),
    }
}
fn members(d: &Desired, table: Table, name: &str, column: &str) -> Vec<String> {
    match d.column(table, name, column) {
        Some(Datum::Many(keys)) => keys.iter().map(|k| k.name.clone()).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn ports_of_a_network() {
    let d = compile(&topology());
    assert_eq!(d.problems, Vec::<String>::new());
    let lsp = Table::LogicalSwitchPort;
    assert_eq!(members(&d, Table::LogicalSwitch, "net", "ports"), ["metadata-net", "ri", "vm1", "vm2"]);
    assert_eq!(d.column(lsp, "vm1", "addresses"), Some(&texts(&["fa:16:3e:00:00:0b 10.0.0.11"])));
    assert_eq!(d.column(lsp, "vm1", "port_security"), d.column(lsp, "vm1", "addresses"));
    assert_eq!(lookup(&d, lsp, "vm1", "options", "requested-chassis"), Some("n1"));
    assert_eq!(word(&d, lsp, "metadata-net", "type"), "localport");
    assert_eq!(word(&d, lsp, "provnet-pub", "type"), "localnet");
    assert_eq!(d.column(lsp, "provnet-pub", "tag"), Some(&Datum::SomeInt(Some(7))));
    assert_eq!(d.column(lsp, "vm1", "dhcpv4_options"), Some(&Datum::One(Some(Key::new(Table::DhcpOptions, "sub")))));
    let option = |name| lookup(&d, Table::DhcpOptions, "sub", "options", name);
    assert_eq!(option("server_id"), Some("10.0.0.1"));
    assert_eq!(option("dns_server"), Some("{9.9.9.9}"));
    assert_eq!(option("mtu"), Some("1442"));
    assert_eq!(option("classless_static_route"), Some("{169.254.169.254/32,10.0.0.2, 0.0.0.0/0,10.0.0.1}"));
}

#[test]
fn a_router_with_gateway_nat_and_routes() {
    let d = compile(&topology());
    let lrp = Table::LogicalRouterPort;
    assert_eq!(d.column(lrp, "rg", "networks"), Some(&texts(&["172.24.4.10/24"])));
    assert_eq!(lookup(&d, lrp, "ri", "options", "gateway_mtu"), Some("1442"));
    assert_eq!(lookup(&d, lrp, "rg", "options", "gateway_mtu"), None);
    assert_eq!(lookup(&d, Table::LogicalSwitchPort, "rg", "options", "nat-addresses"), Some("router"));
    assert_eq!(members(&d, Table::LogicalRouter, "r", "nat"), ["fip", "r/snat/sub"]);
    assert_eq!(word(&d, Table::Nat, "r/snat/sub", "external_ip"), "172.24.4.10");
    assert_eq!(d.column(Table::Nat, "fip", "external_mac"), Some(&Datum::SomeText(Some("fa:16:3e:00:00:32".into()))));
    assert_eq!(members(&d, Table::LogicalRouter, "r", "static_routes").len(), 2);
    assert_eq!(word(&d, Table::LogicalRouterStaticRoute, "r/default/pubsub", "nexthop"), "172.24.4.1");
    assert_eq!(members(&d, Table::HaChassisGroup, "r", "ha_chassis").len(), 2);

    let mut t = topology();
    t.floating_ips[0].external_mac = None;
    t.routers[0].gateway.as_mut().unwrap().enable_snat = false;
    t.routers[0].gateway_order = Some(vec!["n2".into()]);
    let d = compile(&t);
    assert_eq!(d.column(Table::Nat, "fip", "logical_port"), Some(&Datum::SomeText(None)));
    assert_eq!(members(&d, Table::LogicalRouter, "r", "nat"), ["fip"]);
    assert_eq!(members(&d, Table::HaChassisGroup, "r", "ha_chassis"), ["r/n2"]);
    t.routers[0].gateway = None;
    let d = compile(&t);
    assert!(members(&d, Table::LogicalRouter, "r", "nat").is_empty());
    assert_eq!(members(&d, Table::LogicalSwitch, "pub", "ports"), ["provnet-pub"], "an unused gateway port has no row");
}

#[test]
fn rules_become_typed_matches() {
    let d = compile(&topology());
    let rule = |id| word(&d, Table::Acl, id, "match");
    assert_eq!(rule("out"), "inport == @pg_s_g && ip4");
    assert_eq!(rule("ssh"), "outport == @pg_s_g && ip4 && ip4.src == 10.0.0.0/8 && tcp && tcp.dst == 22");
    assert_eq!(rule("own"), "outport == @pg_s_g && ip4 && ip4.src == $pg_s_g_ip4 && udp && udp.dst >= 1 && udp.dst <= 9");
    assert_eq!(rule("ping"), "outport == @pg_s_g && ip4 && icmp4 && icmp4.type == 8 && icmp4.code == 0");
    assert_eq!(rule("vrrp"), "outport == @pg_s_g && ip4 && ip4.src == $ag_a_g_ip4 && ip.proto == 112");
    assert!(d.column(Table::Acl, "never", "match").is_none() && d.column(Table::Acl, "gone", "match").is_none());
    assert_eq!(d.column(Table::AddressSet, "ag_a_g_ip4", "addresses"), Some(&texts(&["10.7.0.0/16"])));
    assert_eq!(members(&d, Table::PortGroup, "s-g", "ports"), ["vm1", "vm2"]);
    assert_eq!(members(&d, Table::PortGroup, "drover_pg_drop", "ports"), ["vm1", "vm2"]);
    let mut t = topology();
    t.security_groups[0].stateful = false;
    assert_eq!(word(&compile(&t), Table::Acl, "ssh", "action"), "allow-stateless");
}

#[test]
fn pairs_open_ports_and_virtual_ones() {
    let mut t = topology();
    t.ports[2].allowed_address_pairs = vec![
        AddressPair { mac: None, ip: "10.0.0.200/32".parse().unwrap() },
        AddressPair { mac: Some(mac(99)), ip: "10.5.1.1/16".parse().unwrap() },
    ];
    t.ports[3].port_security_enabled = false;
    let mut vip = port("vip", 77, "10.0.0.200");
    (vip.device_owner, vip.hosts) = (String::new(), vec![]);
    t.ports.push(vip);
    let d = compile(&t);
    let lsp = Table::LogicalSwitchPort;
    let want = ["fa:16:3e:00:00:0b 10.0.0.11 10.0.0.200", "fa:16:3e:00:00:63 10.5.0.0/16"];
    assert_eq!(d.column(lsp, "vm1", "port_security"), Some(&texts(&want)));
    assert_eq!(d.column(lsp, "vm2", "port_security"), Some(&texts(&[])));
    assert_eq!(d.column(lsp, "vm2", "addresses"), Some(&texts(&["fa:16:3e:00:00:0c 10.0.0.12", "unknown"])));
    assert_eq!(members(&d, Table::PortGroup, "drover_pg_drop", "ports"), ["vip", "vm1"]);
    assert_eq!(members(&d, Table::PortGroup, "s-g", "ports"), ["vip", "vm1"]);
    assert_eq!(word(&d, lsp, "vip", "type"), "virtual");
    assert_eq!(lookup(&d, lsp, "vip", "options", "virtual-parents"), Some("vm1"));
}

#[test]
fn ipv6_by_its_modes() {
    let mut t = topology();
    t.subnets.push(Subnet {
        id: "six".into(),
        cidr: "fd00:a::/64".parse().unwrap(),
        gateway_ip: Some("fd00:a::1".parse().unwrap()),
        ipv6_address_mode: Some(Ipv6Mode::Slaac),
        ipv6_ra_mode: Some(Ipv6Mode::Slaac),
        metadata_ip: None,
        ..t.subnets[0].clone()
    });
    for (port, ip) in [(0, "fd00:a::1"), (2, "fd00:a::11")] {
        t.ports[port].fixed_ips.push(FixedIp { subnet_id: "six".into(), ip: ip.parse().unwrap() });
    }
    let d = compile(&t);
    assert_eq!(d.column(Table::LogicalRouterPort, "ri", "networks"), Some(&texts(&["10.0.0.1/24", "fd00:a::1/64"])));
    assert_eq!(lookup(&d, Table::LogicalRouterPort, "ri", "ipv6_ra_configs", "address_mode"), Some("slaac"));
    assert_eq!(d.column(Table::LogicalSwitchPort, "vm1", "dhcpv6_options"), Some(&Datum::One(None)));
    t.subnets[2].ipv6_address_mode = Some(Ipv6Mode::Dhcpv6Stateless);
    let d = compile(&t);
    assert_eq!(lookup(&d, Table::DhcpOptions, "six", "options", "dhcpv6_stateless"), Some("true"));
    assert_eq!(
        d.column(Table::LogicalSwitchPort, "vm1", "dhcpv6_options"),
        Some(&Datum::One(Some(Key::new(Table::DhcpOptions, "six"))))
    );
}

#[test]
fn what_leads_nowhere_is_told() {
    let mut t = topology();
    t.ports[2].network_id = "gone".into();
    t.ports[3].security_group_ids.push("gone".into());
    t.gateways.clear();
    let d = compile(&t);
    assert_eq!(d.problems.len(), 3, "{:?}", d.problems);
    assert!(members(&d, Table::LogicalSwitch, "net", "ports").iter().all(|p| p != "vm1"));
}

#[test]
fn own_dhcp_options_make_an_own_row() {
    let mut t = topology();
    let opt = |name: &str, value: &str| ExtraDhcpOpt { name: name.into(), value: value.into(), ipv6: false };
    t.ports[2].extra_dhcp_opts = vec![opt("bootfile-name", "x.img"), opt("mtu", "1300")];
    t.ports[3].extra_dhcp_opts = vec![opt("dhcp_disabled", "true")];
    let d = compile(&t);
    assert_eq!(lookup(&d, Table::DhcpOptions, "sub/vm1", "options", "mtu"), Some("1300"));
    assert_eq!(lookup(&d, Table::DhcpOptions, "sub/vm1", "options", "bootfile_name"), Some("\"x.img\""));
    assert_eq!(d.column(Table::LogicalSwitchPort, "vm2", "dhcpv4_options"), Some(&Datum::One(None)));
}
