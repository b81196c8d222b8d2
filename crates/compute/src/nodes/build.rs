//! What a node has to do, made from rows. Reads only; every row that was looked at is noted, so that its change is noticed.
use super::guest::{self, Address, Guest, Interface, Subnet};
use crate::{
    common::{SNAPSHOTS, USER_DATA, by_index, flag, int, object, text},
    resources::{
        Server,
        server::{FlavorCopy, ImageCopy},
    },
    server::state::task,
};
use api::Map;
use assign::{ImageRef, MetadataNetwork, PortAssignment, RootDisk, ServerAssignment, SnapshotAssignment};
use resource::{Object, Reader, Resource, Row};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use store::{Index, Table};

pub(super) static PORTS: Table = Table { name: "network/ports", indexes: &[Index { name: "device_id", path: "/device_id" }] };
static NETWORKS: Table = Table { name: "network/networks", indexes: &[] };
static SUBNETS: Table = Table { name: "network/subnets", indexes: &[] };
static GROUPS: Table = Table { name: "network/security_groups", indexes: &[] };
pub(super) static FLOATING_IPS: Table =
    Table { name: "network/floatingips", indexes: &[Index { name: "port_id", path: "/port_id" }] };

/// Tables of the network service, besides its ports.
#[cfg(test)]
pub(super) fn foreign_tables() -> [&'static Table; 4] {
    [&NETWORKS, &SUBNETS, &GROUPS, &FLOATING_IPS]
}

/// Owner of the one port of a network through which each node serves its metadata.
pub(super) const METADATA_OWNER: &str = "network:distributed";
/// Ethernet's, where a network says nothing.
const DEFAULT_MTU: u16 = 1500;

/// Keys of rows.
pub(super) type Sources = BTreeSet<Arc<str>>;

/// A look at rows that notes each, also those that are not there.
pub(super) struct Look<'a> {
    reader: &'a Reader<'a>,
    pub(super) seen: Sources,
}

impl<'a> Look<'a> {
    pub(super) fn new(reader: &'a Reader<'a>) -> Self {
        Self { reader, seen: Sources::new() }
    }
    fn get(&mut self, table: &Table, id: &str) -> Option<Arc<Row>> {
        self.seen.insert(table.key(id));
        self.reader.get(table, id).filter(|r| !flag(object(r), "deleting"))
    }
    /// Also a row that is being deleted.
    pub(super) fn any(&mut self, table: &Table, id: &str) -> Option<Arc<Row>> {
        self.seen.insert(table.key(id));
        self.reader.get(table, id)
    }
    pub(super) fn find(&mut self, table: &Table, index: &str, value: &str) -> Vec<Arc<Row>> {
        let rows = by_index(self.reader, table, index, value);
        self.seen.extend(rows.iter().map(|r| r.key.clone()));
        rows
    }
}

/// Where a server is.
pub(super) enum Place {
    /// On a host that shall have it.
    On { host: String, built: Box<Built> },
    /// On a host that shall not have it any more.
    Leaving { host: String },
    /// On no host, or not there at all.
    Nowhere,
}

/// One server's assignment and what it was made from.
pub(super) struct Built {
    pub(super) assignment: ServerAssignment,
    pub(super) networks: BTreeSet<String>,
    pub(super) sources: Sources,
}

pub(super) fn server(reader: &Reader<'_>, id: &str) -> Place {
    let Some(row) = reader.get(&Server::DEF.table, id) else { return Place::Nowhere };
    let server: Object<Server> = match Object::from_row(&row) {
        Ok(server) => server,
        Err(e) => {
            tracing::error!(server = id, error = %e, "A server's row cannot be read; its node is not told of it");
            return Place::Nowhere;
        }
    };
    let Some(host) = server.host.clone() else { return Place::Nowhere };
    if server.deleting() || server.task_state.as_deref() == Some(task::OFFLOADING) {
        return Place::Leaving { host };
    }
    let Some(root) = &server.root else { return Place::Nowhere };
    let mut look = Look::new(reader);
    let size_gib = u64::try_from(server.flavor.disk).unwrap_or(0);
    let root = (!server.boot_volume).then(|| RootDisk { image: image(root), size_gib, generation: server.generation });
    let volumes = super::volumes::attached(&mut look, id);
    let interfaces = interfaces(&mut look, &server);
    let user_data = look.get(&USER_DATA, id).map(|r| r.text("data").to_owned()).filter(|d| !d.is_empty());
    let zone = crate::zones::zone_of(reader, &host);
    let groups = group_names(&mut look, &server);
    let guest = guest::data(&Guest { id, server: &server, zone: &zone, user_data, interfaces: &interfaces, groups: &groups });
    let port = |i: &Interface| PortAssignment {
        id: i.port_id.clone(),
        network_id: i.network_id.clone(),
        mac: i.mac.clone(),
        mtu: i.mtu,
        fixed_ips: i.addresses.iter().map(|a| a.ip.clone()).collect(),
    };
    let assignment = ServerAssignment {
        id: id.to_owned(),
        epoch: server.epoch,
        revision: server.intent,
        request_id: server.request_id().to_owned(),
        name: server.name.clone(),
        power: server.power,
        reboot: server.reboot,
        vcpus: u32::try_from(server.flavor.vcpus).unwrap_or(1),
        memory_mib: u64::try_from(server.flavor.ram).unwrap_or(0),
        root,
        rescue: server.rescue.as_ref().map(image),
        ports: interfaces.iter().map(port).collect(),
        volumes,
        config_drive: server.config_drive,
        guest: Arc::new(guest),
        properties: properties(server.root.as_ref(), &server.flavor),
    };
    let networks = interfaces.into_iter().map(|i| i.network_id).collect();
    Place::On { host, built: Box::new(Built { assignment, networks, sources: look.seen }) }
}

fn image(copy: &ImageCopy) -> ImageRef {
    ImageRef { image_id: copy.id.clone(), blob: copy.blob.clone(), format: copy.format.clone() }
}

/// What drivers understand: of the image what it says about hardware, of the flavor all. The flavor wins.
fn properties(root: Option<&ImageCopy>, flavor: &FlavorCopy) -> BTreeMap<String, String> {
    let of_image = root.into_iter().flat_map(|i| &i.properties).filter(|(k, _)| k.starts_with("hw_") || k.starts_with("os_"));
    of_image.chain(&flavor.extra_specs).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// The server's interfaces in the guest's order; ports that are gone are left out.
fn interfaces(look: &mut Look<'_>, server: &Object<Server>) -> Vec<Interface> {
    let mut out = Vec::new();
    for nic in &server.nics {
        let Some(row) = look.get(&PORTS, &nic.port_id).filter(|r| r.text("device_id") == server.id) else { continue };
        let network_id = row.text("network_id").to_owned();
        let mtu = mtu(look, &network_id);
        let floating = look.find(&FLOATING_IPS, "port_id", &nic.port_id);
        out.push(Interface {
            port_id: nic.port_id.clone(),
            mac: row.text("mac_address").to_owned(),
            tag: nic.tag.clone(),
            addresses: addresses(look, object(&row)),
            floating: floating.iter().map(|r| r.text("floating_ip_address").to_owned()).collect(),
            network_id,
            mtu,
        });
    }
    out
}

fn mtu(look: &mut Look<'_>, network: &str) -> u16 {
    let row = look.get(&NETWORKS, network);
    row.and_then(|r| r.field("mtu").as_u64()).and_then(|m| u16::try_from(m).ok()).filter(|m| *m > 0).unwrap_or(DEFAULT_MTU)
}

fn addresses(look: &mut Look<'_>, port: &Map) -> Vec<Address> {
    let list = port.get("fixed_ips").and_then(Value::as_array);
    let mut out = Vec::new();
    for fixed in list.into_iter().flatten().filter_map(Value::as_object) {
        let subnet = look.get(&SUBNETS, text(fixed, "subnet_id"));
        out.push(Address { ip: text(fixed, "ip_address").to_owned(), subnet: subnet.map(|r| subnet_of(object(&r))) });
    }
    out
}

fn subnet_of(row: &Map) -> Subnet {
    let texts = |key: &str| -> Vec<String> {
        let list = row.get(key).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    let some = |key: &str| Some(text(row, key)).filter(|t| !t.is_empty()).map(str::to_owned);
    let routes = row.get("host_routes").and_then(Value::as_array);
    let route = |v: &Value| Some((v["destination"].as_str()?.to_owned(), v["nexthop"].as_str()?.to_owned()));
    Subnet {
        version: if int(row, "ip_version") == 6 { 6 } else { 4 },
        cidr: text(row, "cidr").to_owned(),
        gateway: some("gateway_ip"),
        dhcp: flag(row, "enable_dhcp"),
        mode: some("ipv6_address_mode"),
        dns: texts("dns_nameservers"),
        routes: routes.into_iter().flatten().filter_map(route).collect(),
    }
}

/// Names of the security groups of the server's ports, each once.
fn group_names(look: &mut Look<'_>, server: &Object<Server>) -> Vec<String> {
    let mut ids = BTreeSet::new();
    for nic in &server.nics {
        let Some(port) = look.get(&PORTS, &nic.port_id) else { continue };
        let list = port.field("security_groups").as_array().cloned().unwrap_or_default();
        ids.extend(list.iter().filter_map(|v| v.as_str().map(str::to_owned)));
    }
    let names: BTreeSet<String> = ids.iter().filter_map(|id| look.get(&GROUPS, id).map(|r| r.text("name").to_owned())).collect();
    names.into_iter().collect()
}

/// The metadata port of a network and what it was made from. The same on every host.
pub(super) fn metadata(reader: &Reader<'_>, network_id: &str) -> (Option<MetadataNetwork>, Sources) {
    let mut look = Look::new(reader);
    let found = look.find(&PORTS, "device_id", &format!("ovnmeta-{network_id}"));
    let port = found.iter().map(|r| object(r)).find(|p| text(p, "device_owner") == METADATA_OWNER && !flag(p, "deleting"));
    let Some(port) = port else { return (None, look.seen) };
    let with_prefix = |a: &Address| {
        let prefix = a.subnet.as_ref().and_then(|s| s.cidr.split_once('/')).map(|(_, p)| p.to_owned());
        prefix.map(|p| format!("{}/{p}", a.ip))
    };
    let addresses = addresses(&mut look, port).iter().filter_map(with_prefix).collect();
    let network = MetadataNetwork {
        network_id: network_id.to_owned(),
        port: format!("metadata-{network_id}"),
        mac: text(port, "mac_address").to_owned(),
        addresses,
        mtu: mtu(&mut look, network_id),
    };
    (Some(network), look.seen)
}

/// An image to be made, the host that has the server's disk, and what both were made from.
pub(super) fn snapshot(reader: &Reader<'_>, image_id: &str) -> (Option<(String, SnapshotAssignment)>, Sources) {
    let mut look = Look::new(reader);
    let Some(row) = reader.get(&SNAPSHOTS, image_id) else { return (None, look.seen) };
    let Some(server) = look.get(&Server::DEF.table, row.text("server_id")) else { return (None, look.seen) };
    let host = server.text("host");
    let format = Some(row.text("format")).filter(|f| !f.is_empty()).unwrap_or("qcow2");
    let assignment = SnapshotAssignment {
        image_id: image_id.to_owned(),
        server_id: server.id().to_owned(),
        request_id: row.text("request_id").to_owned(),
        format: format.to_owned(),
    };
    ((!host.is_empty()).then(|| (host.to_owned(), assignment)), look.seen)
}
