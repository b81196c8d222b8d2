//! What a guest may read about itself: OpenStack's `meta_data.json` and `network_data.json`, and EC2's tree. Pure.
//!
//! The forms are Nova's newest; cloud-init and its like read them.
use crate::resources::Server;
use assign::GuestData;
use resource::Object;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// A server and what else its guest is told.
pub(super) struct Guest<'a> {
    pub(super) id: &'a str,
    pub(super) server: &'a Object<Server>,
    pub(super) zone: &'a str,
    /// Base64, as the user gave it.
    pub(super) user_data: Option<String>,
    pub(super) interfaces: &'a [Interface],
    /// Names of security groups.
    pub(super) groups: &'a [String],
}

/// An interface as its guest should set it up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) port_id: String,
    pub(super) network_id: String,
    pub(super) mac: String,
    pub(super) mtu: u16,
    pub(super) tag: Option<String>,
    pub(super) addresses: Vec<Address>,
    pub(super) floating: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) ip: String,
    pub(super) subnet: Option<Subnet>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subnet {
    /// 4 or 6.
    pub(super) version: u8,
    pub(super) cidr: String,
    pub(super) gateway: Option<String>,
    pub(super) dhcp: bool,
    /// `slaac`, `dhcpv6-stateless`, `dhcpv6-stateful`.
    pub(super) mode: Option<String>,
    pub(super) dns: Vec<String>,
    /// Destination and next hop.
    pub(super) routes: Vec<(String, String)>,
}

pub(super) fn data(guest: &Guest<'_>) -> GuestData {
    GuestData {
        meta_data: meta_data(guest),
        network_data: network_data(guest.interfaces),
        user_data: guest.user_data.clone(),
        password: Some(guest.server.password.clone()).filter(|p| !p.is_empty()),
        vendor_data: json!({}),
        ec2: ec2(guest),
    }
}

fn meta_data(guest: &Guest<'_>) -> Value {
    let server = guest.server;
    let mut out = crate::common::map(json!({
        "uuid": guest.id, "hostname": server.hostname, "name": server.name, "launch_index": server.launch_index,
        "availability_zone": guest.zone, "project_id": server.project_id(), "random_seed": server.seed,
        "devices": devices(guest.interfaces), "dedicated_cpus": [],
    }));
    if !server.metadata.is_empty() {
        out.insert("meta".into(), json!(server.metadata));
    }
    if let Some(key) = &server.key {
        out.insert("public_keys".into(), json!({ &key.name: key.public_key }));
        out.insert("keys".into(), json!([{ "name": key.name, "type": key.kind, "data": key.public_key }]));
    }
    out.into()
}

/// Interfaces that the user tagged; where they are on the guest's bus is for the guest to find by MAC.
fn devices(interfaces: &[Interface]) -> Vec<Value> {
    let tagged = interfaces.iter().filter_map(|i| Some((i, i.tag.as_ref()?)));
    let device = |(i, tag): (&Interface, &String)| json!({ "type": "nic", "bus": "none", "address": "none", "mac": i.mac, "tags": [tag], "vf_trusted": false });
    tagged.map(device).collect()
}

/// Nova's form: links, networks on them, and services.
fn network_data(interfaces: &[Interface]) -> Value {
    let (mut links, mut networks, mut services) = (Vec::new(), Vec::new(), Vec::new());
    for interface in interfaces {
        let link = format!("tap{}", interface.port_id.get(..11).unwrap_or(&interface.port_id));
        links.push(json!({
            "id": link, "vif_id": interface.port_id, "type": "ovs", "mtu": interface.mtu, "ethernet_mac_address": interface.mac,
        }));
        for (address, subnet) in interface.addresses.iter().filter_map(|a| Some((&a.ip, a.subnet.as_ref()?))) {
            let id = format!("network{}", networks.len());
            networks.push(network(&id, &link, &interface.network_id, address, subnet));
            let dns = subnet.dns.iter().map(|d| json!({ "type": "dns", "address": d }));
            for service in dns {
                if !services.contains(&service) {
                    services.push(service);
                }
            }
        }
    }
    json!({ "links": links, "networks": networks, "services": services })
}

fn network(id: &str, link: &str, network_id: &str, address: &str, subnet: &Subnet) -> Value {
    let version = subnet.version;
    let kind = match &subnet.mode {
        Some(mode) if version == 6 => format!("ipv6_{mode}"),
        _ if subnet.dhcp => format!("ipv{version}_dhcp"),
        _ => format!("ipv{version}"),
    };
    if kind.ends_with("_dhcp") {
        return json!({ "id": id, "type": kind, "link": link, "network_id": network_id });
    }
    let mut routes = Vec::new();
    if let Some(gateway) = &subnet.gateway {
        let all = if version == 4 { "0.0.0.0" } else { "::" };
        routes.push(json!({ "network": all, "netmask": all, "gateway": gateway }));
    }
    for (destination, nexthop) in &subnet.routes {
        if let Some((network, netmask)) = split(destination) {
            routes.push(json!({ "network": network, "netmask": netmask, "gateway": nexthop }));
        }
    }
    let services: Vec<Value> = subnet.dns.iter().map(|d| json!({ "type": "dns", "address": d })).collect();
    json!({
        "id": id, "type": kind, "link": link, "ip_address": address, "netmask": split(&subnet.cidr).map(|(_, mask)| mask),
        "routes": routes, "network_id": network_id, "services": services,
    })
}

/// Address and netmask of a CIDR.
fn split(cidr: &str) -> Option<(String, String)> {
    let (address, prefix) = cidr.split_once('/')?;
    let prefix: u32 = prefix.parse().ok()?;
    let mask = match address.parse().ok()? {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(u32::MAX.checked_shl(32u32.checked_sub(prefix)?).unwrap_or(0))),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(u128::MAX.checked_shl(128u32.checked_sub(prefix)?).unwrap_or(0))),
    };
    Some((address.to_owned(), mask.to_string()))
}

/// EC2's tree, path to text. Its short ids are made of the long ones.
fn ec2(guest: &Guest<'_>) -> BTreeMap<String, String> {
    let server = guest.server;
    let short = |id: &str| id.chars().filter(char::is_ascii_hexdigit).take(8).collect::<String>();
    let fixed = guest.interfaces.iter().flat_map(|i| &i.addresses).map(|a| a.ip.as_str()).find(|a| !a.contains(':'));
    let floating = guest.interfaces.iter().flat_map(|i| &i.floating).next();
    let mut out = BTreeMap::new();
    let mut put = |path: &str, text: String| drop(out.insert(path.to_owned(), text));
    put("ami-id", format!("ami-{:0>8}", short(&server.image_id)));
    put("ami-launch-index", server.launch_index.to_string());
    // Nova's own text: there are no manifests.
    put("ami-manifest-path", "FIXME".to_owned());
    put("block-device-mapping/ami", "vda".to_owned());
    put("block-device-mapping/root", "/dev/vda".to_owned());
    put("hostname", server.hostname.clone());
    put("instance-action", "none".to_owned());
    put("instance-id", format!("i-{:0>8}", short(guest.id)));
    put("instance-type", server.flavor.name.clone());
    put("local-hostname", server.hostname.clone());
    put("local-ipv4", fixed.unwrap_or_default().to_owned());
    put("placement/availability-zone", guest.zone.to_owned());
    put("public-hostname", server.hostname.clone());
    put("public-ipv4", floating.cloned().unwrap_or_default());
    put("reservation-id", server.reservation_id.clone());
    put("security-groups", guest.groups.join("\n"));
    if let Some(key) = &server.key {
        put("public-keys/0/openssh-key", key.public_key.clone());
    }
    out
}

#[cfg(test)]
#[path = "guest_tests.rs"]
mod tests;
