//! Networks that need a metadata responder on a node: those of its servers, through the network's `localport`.
use crate::common::{by_index, object, text};
use api::Cloud;
use assign::MetadataNetwork;
use resource::Reader;
use serde_json::Value;

/// Owner of the port that every node may claim.
const LOCAL_PORT: &str = "network:distributed";

/// Addresses get the prefix length of their subnets.
pub(super) fn of_network(cloud: &Cloud, reader: &Reader<'_>, network_id: &str) -> Option<MetadataNetwork> {
    let ports = cloud.registry.get("network/ports").ok()?;
    let subnets = cloud.registry.get("network/subnets").ok()?;
    let networks = cloud.registry.get("network/networks").ok()?;
    let port = by_index(reader, &ports.table, "network_id", network_id).into_iter().find(|p| p.text("device_owner") == LOCAL_PORT)?;
    let port = object(&port);
    let fixed = port.get("fixed_ips").and_then(Value::as_array);
    let addresses = fixed.into_iter().flatten().filter_map(|f| {
        let subnet = reader.get(&subnets.table, f.get("subnet_id")?.as_str()?)?;
        let prefix = subnet.text("cidr").split('/').nth(1)?.to_owned();
        Some(format!("{}/{prefix}", f.get("ip_address")?.as_str()?))
    });
    Some(MetadataNetwork {
        network_id: network_id.to_owned(),
        port: text(port, "id").to_owned(),
        mac: text(port, "mac_address").to_owned(),
        addresses: addresses.collect(),
        mtu: mtu(reader, &networks.table, network_id),
    })
}

/// Bytes; Geneve's overhead is taken off when the network does not say.
pub(super) fn mtu(reader: &Reader<'_>, networks: &store::Table, id: &str) -> u16 {
    let row = reader.get(networks, id);
    row.and_then(|n| n.field("mtu").as_u64()).and_then(|m| u16::try_from(m).ok()).filter(|m| *m > 0).unwrap_or(1442)
}
