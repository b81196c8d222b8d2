//! A store with the rows that nodes need, and tiny tables in the place of other services'. For tests.
use super::{Nodes, build};
use crate::{
    common::{ACTIONS, ALLOCATIONS, CONSOLES, COUNTERS, DELETED, PROVIDERS, SNAPSHOTS, USER_DATA},
    resources::{
        Aggregate, Node, Server,
        server::{FlavorCopy, ImageCopy, Nic},
    },
};
use api::{Authenticator, Cloud, Error, Map};
use assign::{Agent, Answer, Assignments, Duplex, GuestState, HostReport, Pending, Query, QueryError, Report, ServerReport};
use base::{ManualClock, Timestamp};
use resource::{Cx, Deletion, Kind, Object, Registry, Resource, Rules, Settings, StateMap, Tx, engine};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{pin::Pin, sync::Arc, time::Duration};
use store::{Db, Memory, Row, Table};
use tokio::{sync::watch, task::JoinHandle};

/// A port, as far as compute knows it.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "network", path = "/v2.0/ports", owner = "project", quota = "port")]
#[policy(list = "reader", show = "reader", create = "member", update = "member", delete = "member")]
struct Port {
    #[field(create, update, default = "")]
    name: String,
    #[field(create, required)]
    network_id: String,
    #[field(create, update, default = "")]
    mac_address: String,
    #[field(create, update, kind = Kind::Any, default = Value::Null)]
    fixed_ips: Value,
    #[field(create, update, index, default = "")]
    device_id: String,
    #[field(create, update, default = "")]
    device_owner: String,
    #[field(create, update, kind = Kind::Any, default = Value::Null)]
    security_groups: Value,
    #[serde(rename = "binding:host_id")]
    #[field(create, update, default = "")]
    host_id: String,
}

impl Rules for Port {
    fn delete(row: &mut Object<Self>, _cx: &Cx, _tx: &mut Tx<'_>) -> resource::Result<Deletion> {
        if row.name == "stuck" { Err(Error::conflict("Port stuck is stuck; leave it.")) } else { Ok(Deletion::Now) }
    }
}

/// An image, as far as compute knows it.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "image", path = "/v2/images", owner = "project")]
#[policy(list = "reader", show = "reader", create = "member", update = "member", delete = "member")]
struct Image {
    #[field(create, update, default = "queued")]
    status: String,
}

impl Rules for Image {}

struct Nobody;
impl Authenticator for Nobody {
    fn authenticate<'a>(
        &'a self,
        _token: &'a str,
        _service: Option<&'a str>,
    ) -> Pin<Box<dyn Future<Output = api::Result<Arc<auth::Caller>>> + Send + 'a>> {
        Box::pin(async { Err(Error::unauthorized("Nobody is known here.")) })
    }
}

/// An agent that has the servers that it is told to have.
pub(super) struct Has(pub(super) Vec<String>);
impl Agent for Has {
    fn query(&self, query: Query) -> Pending<'_, Result<Answer, QueryError>> {
        let (Query::ConsoleLog { server_id, .. } | Query::Diagnostics { server_id }) = query;
        let answer =
            if self.0.contains(&server_id) { Ok(Answer::Text(String::new())) } else { Err(QueryError::NotHere(server_id)) };
        Box::pin(async { answer })
    }
    fn vnc(&self, server_id: &str) -> Pending<'_, Result<Box<dyn Duplex>, QueryError>> {
        let id = server_id.to_owned();
        Box::pin(async { Err(QueryError::NotHere(id)) })
    }
}

pub(super) struct Bed {
    pub(super) db: Db,
    shards: Arc<reconcile::Shards>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) nodes: Arc<Nodes>,
    cloud: Arc<Cloud>,
    run: Option<JoinHandle<()>>,
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.run.iter().for_each(JoinHandle::abort);
    }
}

pub(super) fn tables() -> Vec<&'static Table> {
    let own = [&USER_DATA, &SNAPSHOTS, &ACTIONS, &DELETED, &CONSOLES, &COUNTERS, &PROVIDERS, &ALLOCATIONS];
    let defs = [Server::DEF, Node::DEF, Aggregate::DEF, Port::DEF, Image::DEF].map(|d| &d.table);
    engine::TABLES
        .into_iter()
        .chain(own)
        .chain(defs)
        .chain(build::foreign_tables())
        .chain(super::volumes::tables())
        .chain(reconcile::TABLES)
        .collect()
}

impl Bed {
    /// Nodes that do not run yet.
    pub(super) async fn new() -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_unix(1_000_000)));
        Self::on(Memory::new(), clock, None).await
    }
    /// Another process of the same cloud, which others reach at `line`.
    pub(super) async fn beside(&self, line: &str) -> Self {
        let mut bed = Self::on(self.db.store.clone(), self.clock.clone(), Some(line.to_owned())).await;
        bed.run();
        bed
    }
    async fn on(store: Arc<dyn store::Store>, clock: Arc<ManualClock>, line: Option<String>) -> Self {
        let db = Db::open(store, clock.clone(), &tables()).await.unwrap();
        let shards = reconcile::Shards::join(db.clone(), "test", line).await.unwrap();
        let nodes = Nodes::new(shards.clone());
        let cloud = Arc::new(Cloud {
            db: db.clone(),
            settings: Arc::new(Settings { region: "r".into(), quotas: Default::default(), public_endpoint: "http://h".into() }),
            policy: Arc::new(api::Policy::new(Vec::new(), Vec::new()).unwrap()),
            registry: Arc::new(Registry::new(vec![Server::DEF, Node::DEF, Port::DEF, Image::DEF])),
            state: Arc::new(StateMap::default()),
            authenticator: Arc::new(Nobody),
        });
        Self { db, shards, clock, nodes, cloud, run: None }
    }
    /// Nodes that run.
    pub(super) async fn start() -> Self {
        let mut bed = Self::new().await;
        bed.run();
        bed
    }
    pub(super) fn run(&mut self) {
        self.run = Some(tokio::spawn(self.nodes.clone().run(self.cloud.clone())));
    }
    /// Starts the service's reconcilers.
    pub(super) fn reconcile(&self) -> reconcile::Runner {
        let mut runner = reconcile::Runner::new(self.shards.clone(), Arc::default());
        crate::reconcilers(&self.cloud).into_iter().for_each(|r| runner.spawn(r));
        runner
    }
    pub(super) async fn join(&self, host: &str) -> (Arc<dyn assign::Uplink>, watch::Receiver<Arc<Assignments>>) {
        let line = tokio::time::timeout(Duration::from_secs(20), self.nodes.join(host)).await.unwrap();
        let assignments = line.assignments();
        (line, assignments)
    }

    pub(super) fn row(&self, table: &Table, id: &str) -> Option<Arc<Row>> {
        self.db.read().get(table, id)
    }
    pub(super) fn server(&self, id: &str) -> Option<Object<Server>> {
        self.row(&Server::DEF.table, id).map(|r| Object::from_row(&r).unwrap())
    }
    /// Writes rows in one transaction; `null` deletes.
    pub(super) async fn put(&self, rows: Vec<(&'static Table, String, Value)>) {
        let write = move |tx: &mut Tx<'_>| {
            for (table, id, value) in &rows {
                if value.is_null() { tx.delete(table, id) } else { tx.put(table, id, value.clone()) }
            }
            Ok::<_, ()>(())
        };
        self.db.transact(write).await.unwrap();
    }
    pub(super) async fn change(&self, id: &str, change: impl Fn(&mut Map) + Send + 'static) {
        let id = id.to_owned();
        let write = move |tx: &mut Tx<'_>| {
            let mut row = crate::common::object(&tx.get(&Server::DEF.table, &id).unwrap()).clone();
            change(&mut row);
            tx.put(&Server::DEF.table, &id, row.into());
            Ok::<_, ()>(())
        };
        self.db.transact(write).await.unwrap();
    }
    /// Texts of a story.
    pub(super) fn story(&self, id: &str) -> Vec<String> {
        let entries = self.row(&engine::STORIES, id).map(|r| r.field("entries").clone()).unwrap_or_default();
        entries.as_array().into_iter().flatten().map(|e| e["text"].as_str().unwrap().to_owned()).collect()
    }
}

/// Waits until the store shows something.
pub(super) async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let waited = async {
        while !is() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waited).await.unwrap_or_else(|_| panic!("{what}"));
}

pub(super) fn ports() -> &'static Table {
    &Port::DEF.table
}
pub(super) fn images() -> &'static Table {
    &Image::DEF.table
}
pub(super) fn servers() -> &'static Table {
    &Server::DEF.table
}

/// A server that is being built on a host, in the project `p`, with these ports.
pub(super) fn server_row(id: &str, host: &str, ports: &[&str]) -> Value {
    let nic = |p: &&str| Nic { port_id: (*p).to_owned(), tag: None, ours: !p.starts_with("given") };
    let body = Server {
        name: format!("name of {id}"),
        hostname: id.to_owned(),
        user_id: "u".into(),
        root: Some(ImageCopy { id: "img".into(), blob: "blob".into(), format: "qcow2".into(), ..ImageCopy::default() }),
        flavor: FlavorCopy { name: "m1".into(), vcpus: 2, ram: 256, disk: 1, ..FlavorCopy::default() },
        task_state: Some("spawning".into()),
        deadline: Some(i64::MAX),
        epoch: 1,
        node_id: Some(super::host::node_id(host)),
        host: Some(host.to_owned()),
        nics: ports.iter().map(nic).collect(),
        ..Server::default()
    };
    Object::new(id, Some("p"), body, Timestamp(5), "req-1").into_map().unwrap().into()
}

pub(super) fn port_row(id: &str, server: &str, network: &str, host: &str) -> Value {
    json!({
        "id": id, "project_id": "p", "name": "", "network_id": network, "mac_address": format!("mac of {id}"), "device_id": server,
        "device_owner": "compute:nova", "security_groups": ["sg"], "binding:host_id": host,
        "fixed_ips": [{"subnet_id": format!("sub-{network}"), "ip_address": "10.0.0.9"}],
    })
}

/// The network's own row, its subnet and its metadata port.
pub(super) fn network_rows(network: &str) -> Vec<(&'static Table, String, Value)> {
    let [networks, subnets, groups, _] = build::foreign_tables();
    let fixed = json!([{"subnet_id": format!("sub-{network}"), "ip_address": "10.0.0.2"}]);
    let subnet = json!({
        "id": format!("sub-{network}"), "network_id": network, "ip_version": 4, "cidr": "10.0.0.0/24", "gateway_ip": "10.0.0.1",
        "enable_dhcp": true, "dns_nameservers": [], "host_routes": [],
    });
    let meta = json!({
        "id": format!("meta-{network}"), "network_id": network, "device_owner": "network:distributed", "fixed_ips": fixed,
        "device_id": format!("ovnmeta-{network}"), "mac_address": format!("meta mac of {network}"),
    });
    vec![
        (networks, network.to_owned(), json!({"id": network, "mtu": 1442})),
        (subnets, format!("sub-{network}"), subnet),
        (ports(), format!("meta-{network}"), meta),
        (groups, "sg".to_owned(), json!({"id": "sg", "name": "default"})),
    ]
}

pub(super) fn report(id: &str, state: GuestState) -> ServerReport {
    ServerReport {
        id: id.to_owned(),
        epoch: 1,
        revision: 1,
        state,
        cause: None,
        step: None,
        reboot_count: 0,
        disk_generation: 1,
        rescued: false,
        plugged: Vec::new(),
        volumes: Vec::new(),
        launched_at: None,
    }
}

pub(super) fn host_report() -> HostReport {
    HostReport {
        boot_id: "b1".into(),
        hypervisor_type: "QEMU".into(),
        hypervisor_version: 7_002_022,
        accelerator: "tcg".into(),
        cpu_model: "any".into(),
        vcpus: 4,
        memory_mib: 8192,
        disk_gib: 100,
        disk_free_gib: 90,
        volume_gib: 100,
        volume_free_gib: 90,
        host_ip: "192.0.2.1".into(),
        physical_networks: Vec::new(),
    }
}

pub(super) fn of_server(report: ServerReport) -> Vec<Report> {
    vec![Report::Server(report)]
}
