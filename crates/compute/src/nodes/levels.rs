//! The assignments of all hosts, kept as the rows are. A cache of rows; it does no I/O.
//!
//! Each thing that is built (a server, a network's metadata, a snapshot, a volume) remembers the keys of the rows that it was made from. A
//! changed key names the things to build again. What comes out equal keeps its `Arc`, and its host is not told.
use super::{
    build::{self, FLOATING_IPS, METADATA_OWNER, PORTS, Place, Sources},
    volumes,
};
use crate::{
    common::{SNAPSHOTS, USER_DATA},
    resources::{Aggregate, Server},
};
use assign::{Assignments, MetadataNetwork, ServerAssignment};
use resource::{Reader, Resource};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};
use tokio::{sync::watch, time::Instant};

/// Something that is built from rows. Servers first: they say which networks are needed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Item {
    Server(String),
    Network(String),
    Snapshot(String),
    Volume(String),
}

struct Placed {
    host: String,
    assignment: Arc<ServerAssignment>,
    networks: BTreeSet<String>,
}

/// What a host has to do, and who is told.
#[derive(Default)]
struct Host {
    now: Assignments,
    /// Servers on each network.
    networks: HashMap<String, usize>,
    line: Option<Line>,
    changed: bool,
}

/// A host's channel. `unseen` is the receiver that it was made with: in its clones a value that was sent counts as new, which tells
/// the agent that an empty set is meant so.
struct Line {
    send: watch::Sender<Arc<Assignments>>,
    unseen: watch::Receiver<Arc<Assignments>>,
    joined: bool,
}

/// A server that its host shall not have any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaving {
    pub(super) host: String,
    pub(super) since: Instant,
}

#[derive(Default)]
pub(super) struct Levels {
    hosts: HashMap<String, Host>,
    servers: HashMap<String, Placed>,
    leaving: HashMap<String, Leaving>,
    /// Metadata of each network that is used, and the hosts that use it.
    networks: HashMap<String, (Option<Arc<MetadataNetwork>>, BTreeSet<String>)>,
    snapshots: HashMap<String, String>,
    /// Where each volume is kept.
    volumes: HashMap<String, String>,
    sources: HashMap<Item, Sources>,
    dependents: HashMap<Arc<str>, BTreeSet<Item>>,
}

impl Levels {
    /// Adds what the change of a row may change.
    pub(super) fn touched_by(&self, reader: &Reader<'_>, key: &Arc<str>, dirty: &mut BTreeSet<Item>) {
        let mut parts = key.splitn(3, '/');
        let (Some(service), Some(kind), Some(id)) = (parts.next(), parts.next(), parts.next()) else { return };
        let is = |name: &str| name.split_once('/') == Some((service, kind));
        if is(Server::DEF.table.name) || is(USER_DATA.name) {
            dirty.insert(Item::Server(id.to_owned()));
        } else if is(SNAPSHOTS.name) {
            dirty.insert(Item::Snapshot(id.to_owned()));
        } else if is(Aggregate::DEF.table.name) {
            // Zones of hosts.
            dirty.extend(self.servers.keys().cloned().map(Item::Server));
        } else if is(PORTS.name)
            && let Some(row) = reader.get(&PORTS, id)
            && row.text("device_owner") == METADATA_OWNER
        {
            dirty.insert(Item::Network(row.text("network_id").to_owned()));
        } else if is(FLOATING_IPS.name)
            && let Some(row) = reader.get(&FLOATING_IPS, id)
        {
            let of_port = self.dependents.get(&PORTS.key(row.text("port_id")));
            dirty.extend(of_port.into_iter().flatten().cloned());
        }
        if service == "volume" {
            let table = format!("{service}/{kind}");
            dirty.extend(volumes::volume_of(reader, &table, id).map(Item::Volume));
            dirty.extend(volumes::server_of(reader, &table, id).map(Item::Server));
        }
        dirty.extend(self.dependents.get(key).into_iter().flatten().cloned());
    }

    /// All that there is, and all that was built.
    pub(super) fn everything(&self, reader: &Reader<'_>) -> BTreeSet<Item> {
        let servers = reader.all(&Server::DEF.table).map(|r| Item::Server(r.id().to_owned()));
        let snapshots = reader.all(&SNAPSHOTS).map(|r| Item::Snapshot(r.id().to_owned()));
        let known = self.servers.keys().chain(self.leaving.keys()).cloned().map(Item::Server);
        let others = self.networks.keys().cloned().map(Item::Network).chain(self.snapshots.keys().cloned().map(Item::Snapshot));
        let kept = volumes::all(reader).into_iter().chain(self.volumes.keys().cloned()).map(Item::Volume);
        servers.chain(snapshots).chain(known).chain(others).chain(kept).collect()
    }

    /// Builds these things anew.
    pub(super) fn apply(&mut self, reader: &Reader<'_>, dirty: &[Item]) {
        let mut networks: HashSet<String> = HashSet::new();
        for item in dirty {
            match item {
                Item::Server(id) => self.server(reader, id, &mut networks),
                Item::Network(id) => drop(networks.insert(id.clone())),
                Item::Snapshot(id) => self.snapshot(reader, id),
                Item::Volume(id) => self.volume(reader, id),
            }
        }
        for id in networks {
            self.network(reader, &id);
        }
    }

    fn server(&mut self, reader: &Reader<'_>, id: &str, networks: &mut HashSet<String>) {
        let old = self.servers.remove(id);
        let (place, leaving) = match build::server(reader, id) {
            Place::On { host, built } => (Some((host, built)), None),
            Place::Leaving { host } => (None, Some(host)),
            Place::Nowhere => (None, None),
        };
        match leaving {
            Some(host) if self.leaving.get(id).is_none_or(|l| l.host != host) => {
                self.leaving.insert(id.to_owned(), Leaving { host, since: Instant::now() });
            }
            Some(_) => {}
            None => drop(self.leaving.remove(id)),
        }
        if let Some(old) = &old
            && place.as_ref().is_none_or(|(host, _)| *host != old.host)
        {
            let host = self.hosts.entry(old.host.clone()).or_default();
            host.now.servers.remove(id);
            host.changed = true;
        }
        let before = old.as_ref().map(|o| (o.host.clone(), o.networks.clone()));
        let after = place.as_ref().map(|(host, built)| (host.clone(), built.networks.clone()));
        if before != after {
            // First in, then out: a network that stays is not taken away and given back.
            after.iter().for_each(|(host, used)| self.count(host, used, true, networks));
            before.iter().for_each(|(host, used)| self.count(host, used, false, networks));
        }
        let Some((host, built)) = place else {
            self.depend(Item::Server(id.to_owned()), Sources::new());
            return;
        };
        let built = *built;
        self.depend(Item::Server(id.to_owned()), built.sources);
        let kept = old.filter(|o| o.host == host && *o.assignment == built.assignment).map(|o| o.assignment);
        let assignment = kept.unwrap_or_else(|| {
            let assignment = Arc::new(built.assignment);
            let host = self.hosts.entry(host.clone()).or_default();
            host.now.servers.insert(id.to_owned(), assignment.clone());
            host.changed = true;
            assignment
        });
        self.servers.insert(id.to_owned(), Placed { host, assignment, networks: built.networks });
    }

    /// Counts the use of networks by one server up or down, and names those that began or ceased to be used on the host.
    fn count(&mut self, host: &str, used: &BTreeSet<String>, up: bool, changed: &mut HashSet<String>) {
        let counts = &mut self.hosts.entry(host.to_owned()).or_default().networks;
        for network in used {
            let n = counts.entry(network.clone()).or_insert(0);
            *n = if up { *n + 1 } else { n.saturating_sub(1) };
            let edge = *n == usize::from(up);
            if *n == 0 {
                counts.remove(network);
            }
            if edge {
                let users = &mut self.networks.entry(network.clone()).or_default().1;
                if up {
                    users.insert(host.to_owned())
                } else {
                    users.remove(host)
                };
                changed.insert(network.clone());
            }
        }
    }

    fn network(&mut self, reader: &Reader<'_>, id: &str) {
        let Some((old, users)) = self.networks.remove(id) else { return };
        let (built, sources) = if users.is_empty() { (None, Sources::new()) } else { build::metadata(reader, id) };
        self.depend(Item::Network(id.to_owned()), sources);
        let new = match (old, built) {
            (Some(old), Some(new)) if *old == new => Some(old),
            (_, new) => new.map(Arc::new),
        };
        for (name, host) in &mut self.hosts {
            let wanted = new.as_ref().filter(|_| users.contains(name));
            let had = host.now.networks.get(id);
            if wanted.map(Arc::as_ptr) == had.map(Arc::as_ptr) {
                continue;
            }
            match wanted {
                Some(network) => drop(host.now.networks.insert(id.to_owned(), network.clone())),
                None => drop(host.now.networks.remove(id)),
            }
            host.changed = true;
        }
        if !users.is_empty() {
            self.networks.insert(id.to_owned(), (new, users));
        }
    }

    fn snapshot(&mut self, reader: &Reader<'_>, image: &str) {
        let (built, sources) = build::snapshot(reader, image);
        self.depend(Item::Snapshot(image.to_owned()), sources);
        if let Some(old) = self.snapshots.remove(image)
            && built.as_ref().is_none_or(|(host, _)| *host != old)
        {
            let host = self.hosts.entry(old).or_default();
            host.now.snapshots.remove(image);
            host.changed = true;
        }
        let Some((name, assignment)) = built else { return };
        let host = self.hosts.entry(name.clone()).or_default();
        if host.now.snapshots.get(image).is_none_or(|old| **old != assignment) {
            host.now.snapshots.insert(image.to_owned(), Arc::new(assignment));
            host.changed = true;
        }
        self.snapshots.insert(image.to_owned(), name);
    }

    fn volume(&mut self, reader: &Reader<'_>, id: &str) {
        let mut look = build::Look::new(reader);
        let built = volumes::volume(&mut look, id);
        let sources = if built.is_some() { look.seen } else { Sources::new() };
        self.depend(Item::Volume(id.to_owned()), sources);
        if let Some(old) = self.volumes.remove(id)
            && built.as_ref().is_none_or(|(host, _)| *host != old)
        {
            let host = self.hosts.entry(old).or_default();
            host.now.volumes.remove(id);
            host.changed = true;
        }
        let Some((name, assignment)) = built else { return };
        let host = self.hosts.entry(name.clone()).or_default();
        if host.now.volumes.get(id).is_none_or(|old| **old != assignment) {
            host.now.volumes.insert(id.to_owned(), Arc::new(assignment));
            host.changed = true;
        }
        self.volumes.insert(id.to_owned(), name);
    }

    fn depend(&mut self, item: Item, sources: Sources) {
        let old = self.sources.remove(&item).unwrap_or_default();
        for key in old.difference(&sources) {
            if let Some(items) = self.dependents.get_mut(key) {
                items.remove(&item);
                if items.is_empty() {
                    self.dependents.remove(key);
                }
            }
        }
        for key in sources.difference(&old) {
            self.dependents.entry(key.clone()).or_default().insert(item.clone());
        }
        if !sources.is_empty() {
            self.sources.insert(item, sources);
        }
    }

    /// Tells the hosts whose assignments changed, each once; forgets hosts that have none and no agent.
    pub(super) fn publish(&mut self) {
        self.hosts.retain(|_, host| {
            if std::mem::take(&mut host.changed)
                && let Some(line) = &host.line
            {
                line.send.send_replace(Arc::new(host.now.clone()));
            }
            host.line.is_some() || !host.now.servers.is_empty() || !host.now.snapshots.is_empty() || !host.now.volumes.is_empty()
        });
    }

    /// The host's channel, with its assignments in it.
    pub(super) fn join(&mut self, name: &str) -> watch::Receiver<Arc<Assignments>> {
        let host = self.hosts.entry(name.to_owned()).or_default();
        let line = host.line.get_or_insert_with(|| {
            let (send, unseen) = watch::channel(Arc::default());
            send.send_replace(Arc::new(host.now.clone()));
            host.changed = false;
            Line { send, unseen, joined: true }
        });
        line.joined = true;
        line.unseen.clone()
    }

    pub(super) fn leave(&mut self, name: &str) {
        if let Some(line) = self.hosts.get_mut(name).and_then(|h| h.line.as_mut()) {
            line.joined = false;
        }
    }

    pub(super) fn has_joined(&self, name: &str) -> bool {
        self.hosts.get(name).and_then(|h| h.line.as_ref()).is_some_and(|l| l.joined)
    }

    /// Servers that wait to be gone from their hosts.
    pub(super) fn leaving(&self) -> BTreeMap<String, Leaving> {
        self.leaving.iter().map(|(id, l)| (id.clone(), l.clone())).collect()
    }

    /// What every host has to do.
    #[cfg(test)]
    pub(super) fn now(&self) -> BTreeMap<String, Assignments> {
        let busy = self
            .hosts
            .iter()
            .filter(|(_, h)| !h.now.servers.is_empty() || !h.now.networks.is_empty() || !h.now.snapshots.is_empty());
        busy.map(|(name, host)| (name.clone(), host.now.clone())).collect()
    }
    /// Keys that are remembered, and for how many things: nothing must be left of what is gone.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> (usize, usize, usize) {
        (self.dependents.values().map(BTreeSet::len).sum(), self.sources.values().map(BTreeSet::len).sum(), self.networks.len())
    }
}
