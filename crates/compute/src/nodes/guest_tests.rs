//! Goldens of what guests read.
use super::*;
use crate::resources::server::{FlavorCopy, KeyCopy};

const ID: &str = "5c1ab70e-2f52-4f0e-8a1b-0d4d4b6cf001";

fn server() -> Object<Server> {
    let key = KeyCopy { name: "laptop".into(), kind: "ssh".into(), public_key: "ssh-ed25519 AAAA me".into() };
    let body = Server {
        name: "Web 1".into(),
        hostname: "web-1".into(),
        key: Some(key),
        image_id: "9a0b1c2d-0000-4000-8000-000000000000".into(),
        flavor: FlavorCopy { name: "m1.nano".into(), ..FlavorCopy::default() },
        metadata: [("role".to_owned(), "web".to_owned())].into(),
        reservation_id: "r-abcdefgh".into(),
        launch_index: 2,
        seed: "c2VlZA==".into(),
        ..Server::default()
    };
    Object::new(ID, Some("p1"), body, base::Timestamp(1), "req-1")
}

fn subnet(version: u8, cidr: &str, gateway: &str) -> Subnet {
    Subnet { version, cidr: cidr.into(), gateway: Some(gateway.into()), dhcp: true, ..Subnet::default() }
}

fn interfaces() -> Vec<Interface> {
    let four = Subnet { dns: vec!["9.9.9.9".into()], ..subnet(4, "10.0.0.0/24", "10.0.0.1") };
    let still = Subnet {
        dhcp: false,
        dns: vec!["9.9.9.9".into(), "1.1.1.1".into()],
        routes: vec![("192.168.0.0/16".into(), "10.9.0.254".into())],
        ..subnet(4, "10.9.0.0/20", "10.9.0.1")
    };
    let six = Subnet { mode: Some("slaac".into()), ..subnet(6, "fd00:1::/64", "fd00:1::1") };
    let address = |ip: &str, subnet: Subnet| Address { ip: ip.into(), subnet: Some(subnet) };
    vec![
        Interface {
            port_id: "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee".into(),
            network_id: "n1".into(),
            mac: "fa:16:3e:00:00:01".into(),
            mtu: 1442,
            tag: None,
            addresses: vec![address("10.0.0.7", four), address("fd00:1::7", six)],
            floating: vec!["203.0.113.5".into()],
        },
        Interface {
            port_id: "ffffffff-bbbb-4ccc-8ddd-eeeeeeeeeeee".into(),
            network_id: "n2".into(),
            mac: "fa:16:3e:00:00:02".into(),
            mtu: 9000,
            tag: Some("storage".into()),
            addresses: vec![address("10.9.0.9", still)],
            floating: Vec::new(),
        },
    ]
}

fn made(server: &Object<Server>, interfaces: &[Interface]) -> GuestData {
    let groups = ["default".to_owned(), "web".to_owned()];
    data(&Guest { id: ID, server, zone: "nova", user_data: Some("IyEv".into()), interfaces, groups: &groups })
}

#[test]
fn meta_data_is_as_nova_gives_it() {
    let got = made(&server(), &interfaces());
    let want = json!({
        "uuid": ID, "hostname": "web-1", "name": "Web 1", "launch_index": 2, "availability_zone": "nova", "project_id": "p1",
        "random_seed": "c2VlZA==", "dedicated_cpus": [], "meta": {"role": "web"},
        "devices": [{
            "type": "nic", "bus": "none", "address": "none", "mac": "fa:16:3e:00:00:02", "tags": ["storage"], "vf_trusted": false,
        }],
        "public_keys": {"laptop": "ssh-ed25519 AAAA me"},
        "keys": [{"name": "laptop", "type": "ssh", "data": "ssh-ed25519 AAAA me"}],
    });
    assert_eq!(got.meta_data, want);
    assert_eq!((got.user_data.as_deref(), got.vendor_data, got.password), (Some("IyEv"), json!({}), None));
}

#[test]
fn without_key_and_metadata_there_is_no_word_of_them() {
    let mut server = server();
    server.key = None;
    server.metadata.clear();
    let got = made(&server, &[]);
    for absent in ["meta", "keys", "public_keys"] {
        assert!(got.meta_data.get(absent).is_none(), "{absent}");
    }
    assert!(!got.ec2.keys().any(|k| k.starts_with("public-keys")));
    assert_eq!((got.ec2["local-ipv4"].as_str(), got.ec2["public-ipv4"].as_str()), ("", ""));
    assert_eq!(got.network_data, json!({"links": [], "networks": [], "services": []}));
}

#[test]
fn network_data_is_as_nova_gives_it() {
    let got = made(&server(), &interfaces()).network_data;
    let want = json!({
        "links": [
            {"id": "tapaaaaaaaa-bb", "vif_id": "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee", "type": "ovs", "mtu": 1442,
             "ethernet_mac_address": "fa:16:3e:00:00:01"},
            {"id": "tapffffffff-bb", "vif_id": "ffffffff-bbbb-4ccc-8ddd-eeeeeeeeeeee", "type": "ovs", "mtu": 9000,
             "ethernet_mac_address": "fa:16:3e:00:00:02"},
        ],
        "networks": [
            {"id": "network0", "type": "ipv4_dhcp", "link": "tapaaaaaaaa-bb", "network_id": "n1"},
            {"id": "network1", "type": "ipv6_slaac", "link": "tapaaaaaaaa-bb", "ip_address": "fd00:1::7",
             "netmask": "ffff:ffff:ffff:ffff::", "network_id": "n1", "services": [],
             "routes": [{"network": "::", "netmask": "::", "gateway": "fd00:1::1"}]},
            {"id": "network2", "type": "ipv4", "link": "tapffffffff-bb", "ip_address": "10.9.0.9", "netmask": "255.255.240.0",
             "network_id": "n2",
             "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.9.0.1"},
                        {"network": "192.168.0.0", "netmask": "255.255.0.0", "gateway": "10.9.0.254"}],
             "services": [{"type": "dns", "address": "9.9.9.9"}, {"type": "dns", "address": "1.1.1.1"}]},
        ],
        "services": [{"type": "dns", "address": "9.9.9.9"}, {"type": "dns", "address": "1.1.1.1"}],
    });
    assert_eq!(got, want);
}

#[test]
fn the_ec2_tree_is_as_nova_gives_it() {
    let got = made(&server(), &interfaces()).ec2;
    let want = [
        ("ami-id", "ami-9a0b1c2d"),
        ("ami-launch-index", "2"),
        ("ami-manifest-path", "FIXME"),
        ("block-device-mapping/ami", "vda"),
        ("block-device-mapping/root", "/dev/vda"),
        ("hostname", "web-1"),
        ("instance-action", "none"),
        ("instance-id", "i-5c1ab70e"),
        ("instance-type", "m1.nano"),
        ("local-hostname", "web-1"),
        ("local-ipv4", "10.0.0.7"),
        ("placement/availability-zone", "nova"),
        ("public-hostname", "web-1"),
        ("public-ipv4", "203.0.113.5"),
        ("public-keys/0/openssh-key", "ssh-ed25519 AAAA me"),
        ("reservation-id", "r-abcdefgh"),
        ("security-groups", "default\nweb"),
    ];
    assert_eq!(got, want.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
}

#[test]
fn netmasks_at_the_edges() {
    let mask = |cidr| split(cidr).map(|(_, m)| m);
    assert_eq!(mask("0.0.0.0/0").as_deref(), Some("0.0.0.0"));
    assert_eq!(mask("10.0.0.1/32").as_deref(), Some("255.255.255.255"));
    assert_eq!(mask("::/0").as_deref(), Some("::"));
    assert_eq!(mask("10.0.0.0/33"), None);
    assert_eq!(mask("no"), None);
}
