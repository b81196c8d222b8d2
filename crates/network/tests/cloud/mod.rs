//! The cloud of these tests: `net1` with `vm1`, `net2` with `vm2`, a router between them and `public` (172.24.4.0/24),
//! a floating IP 172.24.4.50 for `vm1`. The security group lets everything out and nothing in.
use base::id::Mac;
use network::ovn::model::*;

/// Is this file of OVN there? Says so if not.
pub fn installed(path: &str) -> bool {
    let there = std::path::Path::new(path).exists();
    if !there {
        println!("skipped: {path} is missing; install ovn-central, ovn-host and openvswitch-switch to run this test");
    }
    there
}

pub fn mac(last: u8) -> Mac {
    Mac([0xfa, 0x16, 0x3e, 0xd, 0xd, last])
}

pub fn rule(id: &str, direction: Direction, protocol: Option<u8>, port: Option<u16>, remote: Remote) -> Rule {
    Rule { id: id.into(), direction, ethertype: Ethertype::Ipv4, protocol, port_min: port, port_max: port, remote }
}

pub fn topology(chassis: &str) -> Topology {
    let network = |id: &str, provider: Option<Provider>| Network {
        id: id.into(),
        mtu: if provider.is_some() { 1500 } else { 1442 },
        admin_state_up: true,
        external: provider.is_some(),
        provider,
    };
    let subnet = |id: &str, network: &str, cidr: &str, gateway: &str, metadata: Option<&str>| Subnet {
        id: id.into(),
        network_id: network.into(),
        cidr: cidr.parse().unwrap(),
        gateway_ip: Some(gateway.parse().unwrap()),
        enable_dhcp: metadata.is_some(),
        dns_nameservers: vec![],
        host_routes: vec![],
        ipv6_address_mode: None,
        ipv6_ra_mode: None,
        metadata_ip: metadata.map(|ip| ip.parse().unwrap()),
    };
    let port = |id: &str, network: &str, subnet: &str, last: u8, ip: &str, owner: &str| Port {
        id: id.into(),
        network_id: network.into(),
        mac: mac(last),
        fixed_ips: vec![FixedIp { subnet_id: subnet.into(), ip: ip.parse().unwrap() }],
        admin_state_up: true,
        device_owner: owner.into(),
        device_id: "x".into(),
        port_security_enabled: owner.starts_with("compute:"),
        security_group_ids: if owner.starts_with("compute:") { vec!["sg-1".into()] } else { vec![] },
        allowed_address_pairs: vec![],
        extra_dhcp_opts: vec![],
        hosts: if owner.starts_with("compute:") { vec![chassis.to_owned()] } else { vec![] },
    };
    let physical = Provider { physical_network: "public".into(), vlan: None };
    Topology {
        networks: vec![network("net1", None), network("net2", None), network("pub", Some(physical))],
        subnets: vec![
            subnet("sub1", "net1", "10.1.0.0/16", "10.1.0.1", Some("10.1.0.2")),
            subnet("sub2", "net2", "10.2.0.0/24", "10.2.0.1", Some("10.2.0.2")),
            subnet("subp", "pub", "172.24.4.0/24", "172.24.4.1", None),
        ],
        ports: vec![
            port("if1", "net1", "sub1", 1, "10.1.0.1", "network:router_interface"),
            port("if2", "net2", "sub2", 2, "10.2.0.1", "network:router_interface"),
            port("gw", "pub", "subp", 3, "172.24.4.10", "network:router_gateway"),
            port("vm1", "net1", "sub1", 11, "10.1.0.11", "compute:nova"),
            port("vm2", "net2", "sub2", 12, "10.2.0.12", "compute:nova"),
        ],
        routers: vec![Router {
            id: "r".into(),
            admin_state_up: true,
            gateway: Some(Gateway { network_id: "pub".into(), enable_snat: true, port_id: "gw".into() }),
            interfaces: vec!["if1".into(), "if2".into()],
            routes: vec![],
            gateway_order: None,
        }],
        floating_ips: vec![FloatingIp {
            id: "fip".into(),
            address: "172.24.4.50".parse().unwrap(),
            port_id: Some("vm1".into()),
            fixed_ip: Some("10.1.0.11".parse().unwrap()),
            router_id: Some("r".into()),
            external_mac: None,
        }],
        security_groups: vec![SecurityGroup {
            id: "sg-1".into(),
            stateful: true,
            rules: vec![rule("out", Direction::Egress, None, None, Remote::Any)],
        }],
        address_groups: vec![],
        gateways: vec![chassis.to_owned()],
        dns_servers: vec!["9.9.9.9".parse().unwrap()],
    }
}
