//! What a guest may read of itself: the OpenStack and EC2 trees of the metadata service and the config drive. Pure.
use crate::{common::text, resources::Server};
use api::Map;
use assign::GuestData;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A port with what its network says of it.
pub(super) struct Plug {
    pub(super) port: Map,
    pub(super) tag: Option<String>,
    pub(super) mtu: u16,
    /// Subnets of its fixed addresses, by id.
    pub(super) subnets: BTreeMap<String, Map>,
    pub(super) floating: Vec<String>,
    pub(super) groups: Vec<String>,
}

impl Plug {
    fn fixed(&self) -> impl Iterator<Item = (&str, Option<&Map>)> {
        let list = self.port.get("fixed_ips").and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|f| {
            let subnet = f.get("subnet_id").and_then(Value::as_str).and_then(|s| self.subnets.get(s));
            Some((f.get("ip_address")?.as_str()?, subnet))
        })
    }
}

pub(super) struct Guest<'a> {
    pub(super) id: &'a str,
    pub(super) project_id: &'a str,
    pub(super) server: &'a Server,
    pub(super) zone: &'a str,
    pub(super) user_data: Option<String>,
    pub(super) plugs: &'a [Plug],
}

pub(super) fn data(guest: &Guest<'_>) -> GuestData {
    GuestData {
        meta_data: meta_data(guest),
        network_data: network_data(guest.plugs),
        user_data: guest.user_data.clone(),
        vendor_data: json!({}),
        ec2: ec2(guest),
    }
}

fn meta_data(guest: &Guest<'_>) -> Value {
    let s = guest.server;
    let devices: Vec<Value> = guest
        .plugs
        .iter()
        .filter_map(|p| Some(json!({ "type": "nic", "bus": "none", "mac": text(&p.port, "mac_address"), "tags": [p.tag.as_ref()?] })))
        .collect();
    let mut out = crate::common::map(json!({
        "uuid": guest.id, "name": s.name, "hostname": s.hostname, "availability_zone": guest.zone, "launch_index": s.launch_index,
        "project_id": guest.project_id, "random_seed": s.seed, "devices": devices, "dedicated_cpus": [],
    }));
    if !s.metadata.is_empty() {
        out.insert("meta".into(), json!(s.metadata));
    }
    if let Some(key) = &s.key {
        out.insert("public_keys".into(), json!({ &key.name: key.public_key }));
        out.insert("keys".into(), json!([{ "name": key.name, "type": key.kind, "data": key.public_key }]));
    }
    out.into()
}

fn netmask(cidr: &str) -> String {
    cidr.parse::<ipnet::IpNet>().map(|n| n.netmask().to_string()).unwrap_or_default()
}

fn network_data(plugs: &[Plug]) -> Value {
    let (mut links, mut networks, mut services) = (Vec::new(), Vec::new(), Vec::new());
    for plug in plugs {
        let id = text(&plug.port, "id");
        let link = format!("tap{}", id.get(..11).unwrap_or(id));
        links.push(json!({
            "id": link, "vif_id": id, "type": "ovs", "mtu": plug.mtu, "ethernet_mac_address": text(&plug.port, "mac_address"),
        }));
        for (address, subnet) in plug.fixed() {
            let network = text(&plug.port, "network_id");
            let mut out = crate::common::map(json!({ "id": format!("network{}", networks.len()), "link": link, "network_id": network }));
            let (four, Some(subnet)) = (!address.contains(':'), subnet) else { continue };
            let mode = subnet.get("ipv6_address_mode").and_then(Value::as_str);
            let family = if four { "ipv4" } else { "ipv6" };
            let dhcp = crate::common::flag(subnet, "enable_dhcp") && mode.is_none();
            out.insert("type".into(), if dhcp { format!("{family}_dhcp") } else { mode.map_or(family.to_owned(), |m| format!("{family}_{m}")) }.into());
            if !dhcp {
                out.insert("ip_address".into(), address.into());
                out.insert("netmask".into(), netmask(text(subnet, "cidr")).into());
                out.insert("routes".into(), routes(subnet, four));
                let dns: Vec<Value> = name_servers(subnet);
                out.insert("services".into(), dns.clone().into());
            }
            services.extend(name_servers(subnet).into_iter().filter(|s| !services.contains(s)).collect::<Vec<_>>());
            networks.push(Value::from(out));
        }
    }
    json!({ "links": links, "networks": networks, "services": services })
}

fn name_servers(subnet: &Map) -> Vec<Value> {
    let servers = crate::server::request::strings(subnet.get("dns_nameservers"));
    servers.into_iter().map(|a| json!({ "type": "dns", "address": a })).collect()
}

fn routes(subnet: &Map, four: bool) -> Value {
    let mut out: Vec<Value> = Vec::new();
    if let Some(gateway) = subnet.get("gateway_ip").and_then(Value::as_str) {
        let any = if four { "0.0.0.0" } else { "::" };
        out.push(json!({ "network": any, "netmask": any, "gateway": gateway }));
    }
    for route in subnet.get("host_routes").and_then(Value::as_array).into_iter().flatten() {
        let destination = route["destination"].as_str().unwrap_or_default();
        let network = destination.split('/').next().unwrap_or_default();
        out.push(json!({ "network": network, "netmask": netmask(destination), "gateway": route["nexthop"] }));
    }
    out.into()
}

/// The tree below `/latest/meta-data/`.
fn ec2(guest: &Guest<'_>) -> BTreeMap<String, String> {
    let s = guest.server;
    let addresses: Vec<&str> = guest.plugs.iter().flat_map(|p| p.fixed().map(|(a, _)| a)).collect();
    let first = addresses.iter().find(|a| !a.contains(':')).copied().unwrap_or_default();
    let floating = guest.plugs.iter().flat_map(|p| &p.floating).next().cloned().unwrap_or_default();
    let mut groups: Vec<String> = guest.plugs.iter().flat_map(|p| p.groups.clone()).collect();
    groups.dedup();
    let short = |id: &str| id.replace('-', "").chars().take(8).collect::<String>();
    let mut out: BTreeMap<String, String> = [
        ("ami-id", format!("ami-{}", short(&s.image_id))),
        ("ami-launch-index", s.launch_index.to_string()),
        ("ami-manifest-path", "FIXME".to_owned()),
        ("block-device-mapping/ami", "vda".to_owned()),
        ("block-device-mapping/root", "/dev/vda".to_owned()),
        ("hostname", s.hostname.clone()),
        ("instance-action", "none".to_owned()),
        ("instance-id", format!("i-{}", short(guest.id))),
        ("instance-type", s.flavor.name.clone()),
        ("local-hostname", s.hostname.clone()),
        ("local-ipv4", first.to_owned()),
        ("placement/availability-zone", guest.zone.to_owned()),
        ("public-hostname", s.hostname.clone()),
        ("public-ipv4", floating),
        ("reservation-id", s.reservation_id.clone()),
        ("security-groups", groups.join("\n")),
    ]
    .map(|(k, v)| (k.to_owned(), v))
    .into();
    if let Some(key) = &s.key {
        out.insert("public-keys/0/openssh-key".into(), key.public_key.clone());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::server::KeyCopy;

    fn plug(dhcp: bool) -> Plug {
        let map = crate::common::map;
        Plug {
            port: map(json!({"id": "0123456789abcdef", "network_id": "n", "mac_address": "fa:16:3e:00:00:01",
                "fixed_ips": [{"subnet_id": "s", "ip_address": "10.0.0.9"}]})),
            tag: Some("front".into()),
            mtu: 1442,
            subnets: [("s".to_owned(), map(json!({"cidr": "10.0.0.0/24", "gateway_ip": "10.0.0.1", "enable_dhcp": dhcp,
                "dns_nameservers": ["9.9.9.9"], "host_routes": [{"destination": "10.9.0.0/16", "nexthop": "10.0.0.2"}]})))].into(),
            floating: vec!["203.0.113.5".into()],
            groups: vec!["default".into()],
        }
    }

    #[test]
    fn network_data_tells_dhcp_or_all_addresses() {
        let all = network_data(&[plug(true)]);
        assert_eq!(all["links"][0], json!({"id": "tap0123456789a", "vif_id": "0123456789abcdef", "type": "ovs", "mtu": 1442,
            "ethernet_mac_address": "fa:16:3e:00:00:01"}));
        assert_eq!(all["networks"][0], json!({"id": "network0", "link": "tap0123456789a", "network_id": "n", "type": "ipv4_dhcp"}));
        assert_eq!(all["services"], json!([{"type": "dns", "address": "9.9.9.9"}]));
        let fixed = network_data(&[plug(false)]);
        assert_eq!(fixed["networks"][0]["netmask"], "255.255.255.0");
        assert_eq!(fixed["networks"][0]["routes"], json!([
            {"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.0.0.1"},
            {"network": "10.9.0.0", "netmask": "255.255.0.0", "gateway": "10.0.0.2"}]));
    }

    #[test]
    fn the_trees_hold_the_key_and_the_addresses() {
        let key = KeyCopy { name: "k".into(), kind: "ssh".into(), public_key: "ssh-ed25519 AAAA".into() };
        let server = Server { name: "web".into(), hostname: "web".into(), key: Some(key), ..Server::default() };
        let plugs = [plug(true)];
        let guest = Guest { id: "u-1", project_id: "p", server: &server, zone: "nova", user_data: None, plugs: &plugs };
        let data = data(&guest);
        assert_eq!(data.meta_data["public_keys"]["k"], "ssh-ed25519 AAAA");
        assert_eq!(data.meta_data["devices"][0]["tags"], json!(["front"]));
        assert_eq!(data.ec2["public-keys/0/openssh-key"], "ssh-ed25519 AAAA");
        assert_eq!((data.ec2["local-ipv4"].as_str(), data.ec2["public-ipv4"].as_str()), ("10.0.0.9", "203.0.113.5"));
    }
}
