//! Assignments from rows, kept up to date by what changed: one server's change makes one server's assignment anew.
use super::{
    Link, Nodes,
    guest::{self, Guest, Plug},
    metadata,
};
use crate::{
    common::{SNAPSHOTS, USER_DATA, by_index, flag, object, text},
    resources::{Aggregate, Server, server::ImageCopy},
    server::state::task,
};
use api::{Cloud, Map};
use assign::{Assignments, ImageRef, PortAssignment, RootDisk, ServerAssignment, SnapshotAssignment};
use resource::{Object, Reader, Resource};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{sync::broadcast::error::RecvError, time::Instant};

/// A server that is deleted before its node said anything of it stays assigned this long, so that the node notices it and reports
/// its end.
const UNSEEN: Duration = Duration::from_secs(2);
/// A node that said nothing of a server by then has nothing of it.
const SILENT: Duration = Duration::from_secs(15);

/// What is known of a server that is assigned.
struct Entry {
    node_id: String,
    epoch: u64,
    ports: Vec<String>,
    networks: BTreeSet<String>,
    assignment: Arc<ServerAssignment>,
}

#[derive(Default)]
struct Compiler {
    servers: HashMap<String, Entry>,
    by_port: HashMap<String, String>,
    by_floating: HashMap<String, String>,
    snapshots: HashMap<String, (String, Arc<SnapshotAssignment>)>,
    /// Deleted before they were seen: still assigned until then.
    held: HashMap<String, Instant>,
    /// Not assigned any more, and nothing was ever heard of them.
    silent: HashMap<String, Instant>,
    dirty: BTreeSet<String>,
    begun: base::Timestamp,
}

/// Runs until the nodes are dropped.
pub(super) async fn run(nodes: Weak<Nodes>, cloud: Arc<Cloud>) {
    let mut changes = cloud.db.view.changes();
    let mut compiler = Compiler { begun: cloud.db.now(), ..Compiler::default() };
    let mut published: HashMap<String, Weak<Link>> = HashMap::new();
    compiler.rebuild(&cloud);
    loop {
        let finished = {
            let Some(nodes) = nodes.upgrade() else { return };
            let finished = compiler.release(&cloud, &nodes);
            compiler.publish(&cloud, &nodes, &mut published);
            finished
        };
        for id in finished {
            if let Err(e) = super::finish_deletion(&cloud, &id, "Its node has nothing of it").await {
                tracing::warn!(server = id, error = %e, "A deletion could not be finished; trying again");
                compiler.silent.insert(id, Instant::now());
            }
        }
        let wait = compiler.next_wait();
        // The poke lives in the nodes: an owner is held only while waiting with a bound.
        let Some(owner) = nodes.upgrade() else { return };
        let first = tokio::select! {
            change = changes.recv() => Some(change),
            () = owner.poke.notified() => None,
            () = tokio::time::sleep(wait) => None,
        };
        drop(owner);
        let mut next = first;
        while let Some(change) = next.take() {
            match change {
                Ok(changed) => compiler.apply(&cloud, &changed.keys),
                Err(RecvError::Lagged(_)) => compiler.rebuild(&cloud),
                Err(RecvError::Closed) => return,
            }
            next = match changes.try_recv() {
                Ok(changed) => Some(Ok(changed)),
                Err(tokio::sync::broadcast::error::TryRecvError::Lagged(n)) => Some(Err(RecvError::Lagged(n))),
                Err(_) => None,
            };
        }
    }
}

fn split(key: &str) -> (&str, &str) {
    let second = key.match_indices('/').nth(1).map_or(key.len(), |(i, _)| i);
    (&key[..second], key.get(second + 1..).unwrap_or_default())
}

impl Compiler {
    fn next_wait(&self) -> Duration {
        if self.held.is_empty() && self.silent.is_empty() { Duration::from_secs(5) } else { Duration::from_millis(250) }
    }

    fn rebuild(&mut self, cloud: &Cloud) {
        let reader = cloud.db.read();
        let gone: Vec<String> = self.servers.keys().filter(|id| reader.get(&Server::DEF.table, id).is_none()).cloned().collect();
        gone.iter().for_each(|id| self.server(cloud, &reader, id));
        let all: Vec<String> = reader.all(&Server::DEF.table).map(|r| r.id().to_owned()).collect();
        all.iter().for_each(|id| self.server(cloud, &reader, id));
        let lost: Vec<String> = self.snapshots.keys().filter(|id| reader.get(&SNAPSHOTS, id).is_none()).cloned().collect();
        let snapshots: Vec<String> = reader.all(&SNAPSHOTS).map(|r| r.id().to_owned()).chain(lost).collect();
        snapshots.iter().for_each(|id| self.snapshot(&reader, id));
        self.dirty.extend(self.servers.values().map(|e| e.node_id.clone()));
    }

    fn apply(&mut self, cloud: &Cloud, keys: &[Arc<str>]) {
        let reader = cloud.db.read();
        let mut again: BTreeSet<String> = BTreeSet::new();
        for key in keys {
            let (table, id) = split(key);
            match table {
                "compute/servers" => drop(again.insert(id.to_owned())),
                "compute/user_data" => drop(again.insert(id.to_owned())),
                "compute/snapshots" => self.snapshot(&reader, id),
                "network/ports" => self.port(cloud, &reader, id, &mut again),
                "network/floatingips" => self.floating(cloud, &reader, id, &mut again),
                "network/networks" => self.of_network(id, &mut again),
                "network/subnets" => {
                    let table = cloud.registry.get("network/subnets").map(|d| d.table);
                    let network = table.ok().and_then(|t| reader.get(&t, id)).map(|r| r.text("network_id").to_owned());
                    match network {
                        Some(network) => self.of_network(&network, &mut again),
                        None => again.extend(self.servers.keys().cloned()),
                    }
                }
                _ if table == Aggregate::DEF.table.name => again.extend(self.servers.keys().cloned()),
                _ => {}
            }
        }
        again.iter().for_each(|id| self.server(cloud, &reader, id));
    }

    fn of_network(&mut self, network: &str, again: &mut BTreeSet<String>) {
        for (id, entry) in self.servers.iter().filter(|(_, e)| e.networks.contains(network)) {
            again.insert(id.clone());
            self.dirty.insert(entry.node_id.clone());
        }
    }

    fn port(&mut self, cloud: &Cloud, reader: &Reader<'_>, id: &str, again: &mut BTreeSet<String>) {
        again.extend(self.by_port.get(id).cloned());
        let row = cloud.registry.get("network/ports").ok().and_then(|d| reader.get(&d.table, id));
        if let Some(row) = row {
            again.extend(self.servers.contains_key(row.text("device_id")).then(|| row.text("device_id").to_owned()));
            if row.text("device_owner").starts_with("network:") {
                self.of_network(row.text("network_id"), again);
            }
        }
    }

    fn floating(&mut self, cloud: &Cloud, reader: &Reader<'_>, id: &str, again: &mut BTreeSet<String>) {
        let row = cloud.registry.get("network/floatingips").ok().and_then(|d| reader.get(&d.table, id));
        let port = row.and_then(|r| r.field("port_id").as_str().map(str::to_owned));
        let before = match &port {
            Some(p) => self.by_floating.insert(id.to_owned(), p.clone()),
            None => self.by_floating.remove(id),
        };
        let servers = [before, port].into_iter().flatten().filter_map(|p| self.by_port.get(&p).cloned());
        again.extend(servers);
    }

    /// Makes the assignment of one server anew, or takes it away.
    fn server(&mut self, cloud: &Cloud, reader: &Reader<'_>, id: &str) {
        let row = reader.get(&Server::DEF.table, id);
        let deleting = row.as_ref().is_some_and(|r| flag(object(r), "deleting"));
        let server = row.and_then(|r| Object::<Server>::from_row(&r).ok());
        let made = server.as_ref().filter(|s| s.task_state.as_deref() != Some(task::OFFLOADING)).and_then(|s| assignment(cloud, reader, s));
        if deleting {
            return self.deleted(id, server.as_ref());
        }
        self.held.remove(id);
        self.silent.remove(id);
        let Some((node_id, assignment, ports, networks)) = made else { return self.forget(id) };
        let before = self.servers.get(id);
        let kept = before.map(|b| b.assignment.clone()).filter(|b| **b == assignment);
        if kept.is_some() && before.is_some_and(|b| b.node_id == node_id && b.networks == networks) {
            return;
        }
        let epoch = assignment.epoch;
        self.forget(id);
        ports.iter().for_each(|p| drop(self.by_port.insert(p.clone(), id.to_owned())));
        self.dirty.insert(node_id.clone());
        let assignment = kept.unwrap_or_else(|| Arc::new(assignment));
        self.servers.insert(id.to_owned(), Entry { node_id, epoch, ports, networks, assignment });
    }

    fn deleted(&mut self, id: &str, server: Option<&Object<Server>>) {
        if self.servers.contains_key(id) {
            self.held.entry(id.to_owned()).or_insert_with(Instant::now);
        } else if !self.silent.contains_key(id) {
            // It was never assigned by this process. One that is younger than it was assigned by nobody.
            let young = server.is_some_and(|s| s.created_at() > self.begun && s.epoch <= 1);
            let since = if young { Instant::now().checked_sub(SILENT).unwrap_or_else(Instant::now) } else { Instant::now() };
            self.silent.insert(id.to_owned(), since);
        }
    }

    fn forget(&mut self, id: &str) {
        if let Some(old) = self.servers.remove(id) {
            old.ports.iter().for_each(|p| drop(self.by_port.remove(p)));
            self.dirty.insert(old.node_id);
        }
    }

    fn snapshot(&mut self, reader: &Reader<'_>, id: &str) {
        if let Some((node, _)) = self.snapshots.remove(id) {
            self.dirty.insert(node);
        }
        let Some(row) = reader.get(&SNAPSHOTS, id) else { return };
        let assignment = SnapshotAssignment {
            image_id: id.to_owned(),
            server_id: row.text("server_id").to_owned(),
            request_id: row.text("request_id").to_owned(),
            format: row.text("format").to_owned(),
        };
        let node = row.text("node_id").to_owned();
        self.dirty.insert(node.clone());
        self.snapshots.insert(id.to_owned(), (node, Arc::new(assignment)));
    }

    /// Takes deleted servers from their nodes as soon as those know of them. Gives the ids of which no node has anything.
    fn release(&mut self, cloud: &Cloud, nodes: &Nodes) -> Vec<String> {
        let now = Instant::now();
        let held: Vec<(String, Instant)> = self.held.iter().map(|(id, since)| (id.clone(), *since)).collect();
        for (id, since) in held {
            let Some(entry) = self.servers.get(&id) else {
                self.held.remove(&id);
                continue;
            };
            let link = nodes.link(&entry.node_id);
            let seen = link.as_ref().is_some_and(|l| l.seen().get(&id) == Some(&entry.epoch));
            if !seen && link.is_some() && now < since + UNSEEN {
                continue;
            }
            self.held.remove(&id);
            self.forget(&id);
            if !seen {
                self.silent.insert(id, now);
            }
        }
        let reader = cloud.db.read();
        let mut finished = Vec::new();
        self.silent.retain(|id, since| {
            let Some(row) = reader.get(&Server::DEF.table, id) else { return false };
            let link = row.field("node_id").as_str().and_then(|n| nodes.link(n));
            if link.is_some_and(|l| l.seen().contains_key(id)) {
                // The node works on its end.
                return false;
            }
            let over = now >= *since + SILENT;
            if over {
                finished.push(id.clone());
            }
            !over
        });
        finished
    }

    /// Hands each node that has changed, or is new, its whole set.
    fn publish(&mut self, cloud: &Cloud, nodes: &Nodes, published: &mut HashMap<String, Weak<Link>>) {
        let dirty = std::mem::take(&mut self.dirty);
        for link in nodes.links() {
            let is_new = published.get(&link.node_id).and_then(Weak::upgrade).is_none_or(|l| !Arc::ptr_eq(&l, &link));
            if is_new || dirty.contains(&link.node_id) {
                link.assignments.send_replace(Arc::new(self.assignments(cloud, &link)));
                published.insert(link.node_id.clone(), Arc::downgrade(&link));
            }
        }
    }

    fn assignments(&self, cloud: &Cloud, link: &Link) -> Assignments {
        let mine = || self.servers.iter().filter(|(_, e)| e.node_id == link.node_id);
        let networks: HashSet<&String> = mine().flat_map(|(_, e)| &e.networks).collect();
        let before = link.assignments.borrow().clone();
        let reader = cloud.db.read();
        let networks = networks.into_iter().filter_map(|id| {
            let made = metadata::of_network(cloud, &reader, id)?;
            let kept = before.networks.get(id).filter(|b| ***b == made).cloned();
            Some((id.clone(), kept.unwrap_or_else(|| Arc::new(made))))
        });
        tracing::debug!(host = link.host, "New assignments");
        Assignments {
            servers: mine().map(|(id, e)| (id.clone(), e.assignment.clone())).collect(),
            networks: networks.collect(),
            snapshots: self.snapshots.iter().filter(|(_, (n, _))| *n == link.node_id).map(|(id, (_, s))| (id.clone(), s.clone())).collect(),
        }
    }
}

fn image_ref(image: &ImageCopy) -> ImageRef {
    ImageRef { image_id: image.id.clone(), blob: image.blob.clone(), format: image.format.clone() }
}

type Made = (String, ServerAssignment, Vec<String>, BTreeSet<String>);

/// The assignment of a server that has a host; with its ports and networks.
fn assignment(cloud: &Cloud, reader: &Reader<'_>, server: &Object<Server>) -> Option<Made> {
    let node_id = server.node_id.clone()?;
    let root = server.root.as_ref()?;
    let plugs = plugs(cloud, reader, server);
    let user_data = reader.get(&USER_DATA, &server.id).map(|r| r.text("data").to_owned());
    let zone = crate::zones::zone_of(reader, server.host.as_deref().unwrap_or_default());
    let guest =
        Guest { id: &server.id, project_id: server.project_id(), server: &server.body, zone: &zone, user_data, plugs: &plugs };
    let ports: Vec<PortAssignment> = plugs
        .iter()
        .map(|p| PortAssignment {
            id: text(&p.port, "id").to_owned(),
            network_id: text(&p.port, "network_id").to_owned(),
            mac: text(&p.port, "mac_address").to_owned(),
            mtu: p.mtu,
            fixed_ips: crate::server::view::fixed_ips(&p.port),
        })
        .collect();
    let networks = ports.iter().map(|p| p.network_id.clone()).collect();
    let port_ids = server.nics.iter().map(|n| n.port_id.clone()).collect();
    let made = ServerAssignment {
        id: server.id.clone(),
        epoch: server.epoch,
        revision: server.intent,
        request_id: text(&server.map, "request_id").to_owned(),
        name: server.name.clone(),
        power: server.power,
        reboot: server.reboot,
        vcpus: u32::try_from(server.flavor.vcpus).unwrap_or(1).max(1),
        memory_mib: u64::try_from(server.flavor.ram).unwrap_or_default(),
        root: RootDisk {
            image: image_ref(root),
            size_gib: u64::try_from(server.flavor.disk).unwrap_or_default(),
            generation: server.generation,
        },
        rescue: server.rescue.as_ref().map(image_ref),
        ports,
        config_drive: server.config_drive,
        guest: Arc::new(guest::data(&guest)),
        properties: properties(server, root),
    };
    Some((node_id, made, port_ids, networks))
}

/// What the driver understands: `hw_*` and `os_*` of the image, and `hw:*` of the flavor where the image says nothing.
fn properties(server: &Server, root: &ImageCopy) -> BTreeMap<String, String> {
    let flavor = server.flavor.extra_specs.iter().filter_map(|(k, v)| Some((format!("hw_{}", k.strip_prefix("hw:")?), v.clone())));
    let image = root.properties.iter().filter(|(k, _)| k.starts_with("hw_") || k.starts_with("os_"));
    flavor.chain(image.map(|(k, v)| (k.clone(), v.clone()))).collect()
}

fn plugs(cloud: &Cloud, reader: &Reader<'_>, server: &Server) -> Vec<Plug> {
    let get = |name: &str| cloud.registry.get(name).ok();
    let (Some(ports), Some(networks), Some(subnets)) = (get("network/ports"), get("network/networks"), get("network/subnets")) else {
        return Vec::new();
    };
    let (floating, groups) = (get("network/floatingips"), get("network/security_groups"));
    let plug = |nic: &crate::resources::server::Nic| {
        let row = reader.get(&ports.table, &nic.port_id)?;
        let port: &Map = object(&row);
        if flag(port, "deleting") {
            return None;
        }
        let fixed = port.get("fixed_ips").and_then(Value::as_array);
        let ids = fixed.into_iter().flatten().filter_map(|f| f.get("subnet_id")?.as_str());
        let subnets = ids.filter_map(|id| Some((id.to_owned(), object(&*reader.get(&subnets.table, id)?).clone()))).collect();
        let fips = floating.map(|d| by_index(reader, &d.table, "port_id", &nic.port_id)).unwrap_or_default();
        let names = crate::server::request::strings(port.get("security_groups"));
        let names = names.iter().filter_map(|id| Some(reader.get(&groups?.table, id)?.text("name").to_owned()));
        Some(Plug {
            tag: nic.tag.clone(),
            mtu: metadata::mtu(reader, &networks.table, text(port, "network_id")),
            subnets,
            floating: fips.iter().map(|f| f.text("floating_ip_address").to_owned()).collect(),
            groups: names.collect(),
            port: port.clone(),
        })
    };
    server.nics.iter().filter_map(plug).collect()
}
