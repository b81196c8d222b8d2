//! What must hold after every revision, whoever wrote it: looked at on a copy of all rows that the store's own watch feeds.
use crate::{controller::Controller, host::Host, trace::Trace};
use node::plan::Status;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use store::{Batch, Event, Memory, Store};

pub(crate) const SERVERS: &str = "compute/servers/";
const ALLOCATIONS: &str = "placement/allocations/";
const PROVIDERS: &str = "placement/resource_providers/";
const PORTS: &str = "network/ports/";
const VOLUMES: &str = "volume/volumes/";
const USAGE: &str = "core/usage/";
const SHARDS: &str = "control/shards/";

/// A task may be over its deadline for so long: everybody who could end it may be away, and wait before the next try.
const LATE: f64 = 240.0;

/// Quotas of the network service, and the tables that they count.
const COUNTED: [(&str, &str); 5] = [
    ("network", "network/networks/"),
    ("subnet", "network/subnets/"),
    ("port", PORTS),
    ("floatingip", "network/floatingips/"),
    ("router", "network/routers/"),
];

/// All rows, as of the newest revision.
#[derive(Default)]
pub(crate) struct Rows(BTreeMap<Arc<str>, Value>);

impl Rows {
    pub(crate) fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let from = self.0.range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
        from.take_while(move |(k, _)| k.starts_with(prefix)).map(move |(k, v)| (&k[prefix.len()..], v))
    }
    pub(crate) fn get(&self, prefix: &str, id: &str) -> Option<&Value> {
        self.0.get(format!("{prefix}{id}").as_str())
    }
}

pub(crate) struct Oracle {
    trace: Arc<Trace>,
    rows: Mutex<Rows>,
    controllers: Vec<Arc<Controller>>,
    hosts: Mutex<Vec<Arc<Host>>>,
}

fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row.get(field).and_then(Value::as_str).unwrap_or_default()
}
fn int(row: &Value, field: &str) -> i64 {
    row.get(field).and_then(Value::as_i64).unwrap_or_default()
}

impl Oracle {
    pub(crate) fn new(trace: &Arc<Trace>, controllers: Vec<Arc<Controller>>) -> Arc<Self> {
        Arc::new(Self { trace: trace.clone(), rows: Mutex::default(), controllers, hosts: Mutex::default() })
    }

    pub(crate) fn watch_hosts(&self, hosts: &[Arc<Host>]) {
        *self.hosts.lock().unwrap_or_else(PoisonError::into_inner) = hosts.to_vec();
    }

    pub(crate) fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at every revision, for ever.
    pub(crate) async fn follow(self: Arc<Self>, memory: Arc<Memory>) {
        let mut watch = memory.watch("", 0).await.unwrap();
        loop {
            match watch.next().await {
                Ok(batch) => self.take(&batch),
                Err(end) => return self.trace.violation(&format!("the oracle's watch ended: {end}")),
            }
        }
    }

    fn take(&self, batch: &Batch) {
        self.trace.count_transaction();
        let mut rows = self.rows();
        // A shard may change hands in the very revision that holds the last write of its old epoch.
        let epochs: BTreeMap<String, i64> = rows.below(SHARDS).map(|(id, row)| (id.to_owned(), int(row, "epoch"))).collect();
        let mut touched = BTreeSet::new();
        let mut line = format!("r{}", batch.revision);
        for event in batch.events.iter() {
            let key = match event {
                Event::Put(e) => &e.key,
                Event::Delete(key) => key,
            };
            touched.extend(key.rfind('/').and_then(|at| key.get(..=at)).map(str::to_owned));
            line.push_str(if matches!(event, Event::Put(_)) { " +" } else { " -" });
            line.push_str(key);
            match event {
                Event::Put(e) => {
                    let new = serde_json::from_slice(&e.value).unwrap_or_default();
                    let old = rows.0.insert(e.key.clone(), new);
                    self.check_change(&e.key, old.as_ref(), rows.0.get(&e.key).unwrap_or(&Value::Null), &epochs);
                }
                Event::Delete(key) => drop(rows.0.remove(key)),
            }
        }
        let values: Vec<&[u8]> =
            batch.events.iter().filter_map(|e| if let Event::Put(e) = e { Some(&*e.value) } else { None }).collect();
        self.trace.note_with(&line, &values);
        let is_touched = |prefixes: &[&str]| prefixes.iter().any(|p| touched.contains(*p));
        if is_touched(&[SERVERS, USAGE]) || COUNTED.iter().any(|(_, t)| touched.contains(*t)) {
            self.check_quotas(&rows);
        }
        if is_touched(&[SERVERS, ALLOCATIONS, PROVIDERS]) {
            self.check_allocations(&rows);
        }
        if touched.contains(PORTS) {
            self.check_addresses(&rows);
        }
        drop(rows);
        self.check_runners();
        self.check_holders();
    }

    fn check_change(&self, key: &str, old: Option<&Value>, new: &Value, epochs: &BTreeMap<String, i64>) {
        let Some(old) = old else { return };
        if key.starts_with(SERVERS) && int(new, "epoch") < int(old, "epoch") {
            self.trace.violation(&format!("the epoch of {key} fell"));
        }
        if key.starts_with(SHARDS) && text(old, "holder") != text(new, "holder") && int(new, "epoch") <= int(old, "epoch") {
            self.trace.violation(&format!("{key} changed hands without a new epoch"));
        }
        if key.starts_with("sim/probes/") {
            let shard = format!("{:02}", int(new, "shard"));
            let epoch = epochs.get(&shard).copied().unwrap_or(0);
            if int(new, "epoch") < epoch {
                let said = int(new, "epoch");
                self.trace.violation(&format!("a write of epoch {said} was taken for shard {shard}, which is at {epoch}"));
            }
        }
    }

    /// What is used is what there is.
    fn check_quotas(&self, rows: &Rows) {
        let mut there: BTreeMap<String, i64> = BTreeMap::new();
        for (_, server) in rows.below(SERVERS) {
            let project = text(server, "project_id");
            let mut add = |name: &str, n: i64| *there.entry(format!("{project}:compute:{name}")).or_default() += n;
            let held = |name: &str| {
                let old = server.get("resize").and_then(|r| r.get("old")).map_or(0, |f| int(f, name));
                old.max(int(&server["flavor"], name))
            };
            add("instances", 1);
            add("cores", held("vcpus"));
            add("ram", held("ram"));
        }
        for (name, table) in COUNTED {
            for (_, row) in rows.below(table).filter(|(_, row)| !text(row, "project_id").is_empty()) {
                *there.entry(format!("{}:network:{name}", text(row, "project_id"))).or_default() += 1;
            }
        }
        let of_projects = |key: &str| {
            let (holder, rest) = key.split_once(':').unwrap_or_default();
            let (service, name) = rest.split_once(':').unwrap_or_default();
            let counted = service == "network" && COUNTED.iter().any(|(n, _)| *n == name)
                || service == "compute" && ["instances", "cores", "ram"].contains(&name);
            counted && rows.get("identity/projects/", holder).is_some()
        };
        let used: BTreeMap<String, i64> =
            rows.below(USAGE).filter(|(k, _)| of_projects(k)).map(|(k, row)| (k.to_owned(), int(row, "used"))).collect();
        for key in used.keys().chain(there.keys()).collect::<BTreeSet<_>>() {
            let (used, there) = (used.get(key).unwrap_or(&0), there.get(key).unwrap_or(&0));
            if used != there {
                self.trace.violation(&format!("quota {key} says {used}, and there are {there}"));
            }
        }
    }

    /// Who is on a host holds room there, and nobody else.
    fn check_allocations(&self, rows: &Rows) {
        let mut used: BTreeMap<(&str, &str), i64> = BTreeMap::new();
        for (consumer, row) in rows.below(ALLOCATIONS) {
            let Some(server) = rows.get(SERVERS, consumer) else {
                self.trace.violation(&format!("{consumer} holds room and is no server"));
                continue;
            };
            for (provider, held) in row["allocations"].as_object().into_iter().flatten() {
                if text(server, "node_id") != provider {
                    self.trace.violation(&format!("server {consumer} holds room on {provider} and is elsewhere"));
                }
                for (class, n) in held.as_object().into_iter().flatten() {
                    *used.entry((provider, class)).or_default() += n.as_i64().unwrap_or_default();
                }
            }
        }
        for (id, _) in rows.below(SERVERS).filter(|(_, s)| !text(s, "node_id").is_empty()) {
            if rows.get(ALLOCATIONS, id).is_none() {
                self.trace.violation(&format!("server {id} is on a host and holds nothing of it"));
            }
        }
        for (provider, row) in rows.below(PROVIDERS) {
            for (class, n) in row["used"].as_object().into_iter().flatten() {
                let held = used.remove(&(provider, class)).unwrap_or_default();
                if n.as_i64() != Some(held) {
                    self.trace.violation(&format!("provider {provider} counts {n} {class}, and {held} are held"));
                }
            }
        }
        if let Some(((provider, class), n)) = used.into_iter().find(|(_, n)| *n != 0) {
            self.trace.violation(&format!("provider {provider} does not count {n} {class} that are held"));
        }
    }

    /// An address, and a MAC, is one port's.
    fn check_addresses(&self, rows: &Rows) {
        let mut seen: BTreeMap<(&str, &str), &str> = BTreeMap::new();
        for (id, port) in rows.below(PORTS) {
            let network = text(port, "network_id");
            let ips = port["fixed_ips"].as_array().into_iter().flatten().map(|ip| text(ip, "ip_address"));
            for what in ips.chain([text(port, "mac_address")]) {
                if let Some(other) = seen.insert((network, what), id) {
                    self.trace.violation(&format!("{what} of network {network} is of two ports, {id} and {other}"));
                }
            }
        }
    }

    /// A server runs on one host at most, and a volume is written to by one server.
    pub(crate) fn check_runners(&self) {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut runs: BTreeMap<String, &str> = BTreeMap::new();
        let mut written: BTreeMap<String, String> = BTreeMap::new();
        for host in &hosts {
            for (server, volume) in host.writers() {
                if let Some(other) = written.insert(volume.clone(), server.clone()) {
                    self.trace.violation(&format!("volume {volume} is written to by {other} and by {server}"));
                }
            }
            for (id, _) in host.guests().into_iter().filter(|(_, s)| matches!(s, Status::Running | Status::Paused)) {
                if let Some(other) = runs.insert(id.clone(), &host.name) {
                    self.trace.violation(&format!("server {id} runs on {other} and on {}", host.name));
                }
            }
        }
    }

    /// Two processes never believe at once that a shard is theirs.
    fn check_holders(&self) {
        let mut held: BTreeMap<u32, &str> = BTreeMap::new();
        for controller in &self.controllers {
            let holds = controller.process().map(|p| p.shards().held()).unwrap_or_default();
            for shard in holds.into_keys() {
                if let Some(other) = held.insert(shard, &controller.name) {
                    self.trace.violation(&format!("shard {shard} is held by {other} and by {}", controller.name));
                }
            }
        }
    }

    /// Nothing is under way for longer than it may. `now` is in microseconds since the epoch.
    pub(crate) fn check_deadlines(&self, now: i64) {
        for (id, server) in self.rows().below(SERVERS) {
            let deadline = server.get("deadline").and_then(Value::as_i64).unwrap_or(i64::MAX);
            let late = now.saturating_sub(deadline) as f64 / 1e6;
            if late > LATE {
                let task = text(server, "task_state");
                self.trace.violation(&format!("server {id} is {late:.0} s past the deadline of {task:?}"));
            }
        }
    }

    /// Why the cloud is not settled yet.
    pub(crate) fn unsettled(&self) -> Option<String> {
        let rows = self.rows();
        let busy = rows.below(SERVERS).find(|(_, s)| !s["task_state"].is_null() || !s["deadline"].is_null());
        if let Some((id, server)) = busy {
            return Some(format!("server {id} is {:?} with task {:?}", text(server, "vm_state"), text(server, "task_state")));
        }
        let changing = rows.below(VOLUMES).find(|(_, v)| text(v, "status").ends_with("ing"));
        if let Some((id, volume)) = changing {
            return Some(format!("volume {id} is {}", text(volume, "status")));
        }
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for host in &hosts {
            if let Some(why) = difference(&rows, host) {
                return Some(why);
            }
        }
        None
    }
}

/// What a host has and should not, or should and has not.
fn difference(rows: &Rows, host: &Host) -> Option<String> {
    let name = &host.name;
    let guests = host.guests();
    let placed: BTreeMap<&str, &Value> = rows.below(SERVERS).filter(|(_, s)| text(s, "host") == name).collect();
    for (id, status) in &guests {
        match placed.get(id.as_str()) {
            None => return Some(format!("{name} has an orphan: guest {id} is {status:?}")),
            // It is as its fault left it, until somebody asks for something.
            Some(server) if text(server, "vm_state") == "error" => {}
            Some(server) => {
                let is_so = match text(server, "power") {
                    "running" => *status == Status::Running,
                    // One that was never let run is as good as paused.
                    "paused" => matches!(status, Status::Paused | Status::Held),
                    _ => false,
                };
                if !is_so {
                    return Some(format!("guest {id} on {name} is {status:?}, and wanted {}", server["power"]));
                }
            }
        }
    }
    let missing = |(id, s): &(&&str, &&Value)| {
        text(s, "power") != "stopped" && text(s, "vm_state") != "error" && !guests.contains_key(**id)
    };
    if let Some((id, _)) = placed.iter().find(missing) {
        return Some(format!("{name} does not run server {id}"));
    }
    let is_here = |port: &str| rows.get(PORTS, port).is_some_and(|p| placed.contains_key(text(p, "device_id")));
    host.plugged().into_iter().find(|p| !is_here(p)).map(|port| format!("{name} has an orphan: port {port}"))
}
