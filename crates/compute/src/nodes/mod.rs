//! The link between rows and nodes: assignments down, reports up, and questions in between.
//!
//! ```text
//!  rows ──changes──▶ Compiler ──watch──▶ Uplink ─▶ agent          (levels: the newest set is all that counts)
//!  rows ◀──one transaction per batch── reports ◀─ Uplink
//! ```
//! Nothing here is truth: assignments are made anew from rows at every start, and a node that was told nothing new goes on as it is.
//! Heartbeats are not written; a node's row changes when the node does.
mod compile;
mod deadlines;
mod guest;
mod metadata;
mod reports;

use crate::{
    common::{next_number, touch},
    resources::{Node, Server},
};
use api::{Call, Cloud, Error, Result};
use assign::{Agent, Answer, Assignments, Duplex, Pending, Query, QueryError, Report, ReportError, Uplink};
use auth::{Caller, Role};
use resource::{Cx, Object, Resource, engine};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
};

/// Until a new node gets its first assignments.
const FIRST_SET: Duration = Duration::from_secs(30);
/// A node's answer to a question.
const ANSWER_TIME: Duration = Duration::from_secs(20);

/// The nodes that this process serves. Shared with handlers through the state map.
#[derive(Default)]
pub struct Nodes {
    cloud: OnceLock<Arc<Cloud>>,
    links: RwLock<BTreeMap<String, Arc<Link>>>,
    /// Wakes the compiler when a link came or something was heard of a server that it waits for.
    poke: Notify,
    tasks: Mutex<Vec<AbortHandle>>,
}

/// One connected node.
pub(crate) struct Link {
    node_id: String,
    host: String,
    assignments: watch::Sender<Arc<Assignments>>,
    agent: RwLock<Option<Arc<dyn Agent>>>,
    /// Servers that the node has said anything of, with the epoch.
    seen: Mutex<HashMap<String, u64>>,
}

impl Link {
    fn seen(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Nodes {
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Begins to serve nodes from the rows of this cloud. Work ends with [`Nodes::stop`] or with the last owner.
    pub fn start(self: &Arc<Self>, cloud: Arc<Cloud>) {
        if self.cloud.set(cloud.clone()).is_err() {
            return;
        }
        let compiler = compile::run(Arc::downgrade(self), cloud.clone());
        let watchman = deadlines::run(Arc::downgrade(self), cloud);
        let started = [tokio::spawn(compiler).abort_handle(), tokio::spawn(watchman).abort_handle()];
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).extend(started);
    }

    /// Ends the work of [`Nodes::start`].
    pub fn stop(&self) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.drain(..).for_each(|t| t.abort());
    }

    /// The id of a host's node: the same after every start.
    pub fn id_of(host: &str) -> String {
        base::id::named(&format!("node {host}"))
    }

    /// Makes or renews the node's row and gives what its agent needs. Call [`Nodes::attach`] when the agent runs.
    pub async fn register(self: &Arc<Self>, host: &str) -> Result<Arc<dyn Uplink>> {
        let cloud = self.cloud()?;
        let (id, name) = (Self::id_of(host), host.to_owned());
        let node_id = id.clone();
        cloud
            .db
            .transact(move |tx| -> Result<()> {
                let node: Option<Object<Node>> = resource::load_any(tx, &id)?;
                let mut node = match node {
                    Some(node) => node,
                    None => {
                        let number = next_number(tx, "nodes");
                        let body = Node { host: name.clone(), number, ..Node::default() };
                        Object::new(id.clone(), None, body, tx.now, "register")
                    }
                };
                node.state = "up".to_owned();
                node.last_seen = tx.now.0;
                save_node(tx, node)
            })
            .await?;
        let link = Arc::new(Link {
            node_id: node_id.clone(),
            host: host.to_owned(),
            assignments: watch::Sender::new(Arc::default()),
            agent: RwLock::new(None),
            seen: Mutex::default(),
        });
        // What the agent first sees must be whole: an empty set would make it remove its guests.
        let mut first = link.assignments.subscribe();
        self.links.write().unwrap_or_else(PoisonError::into_inner).insert(node_id, link.clone());
        self.poke.notify_one();
        match tokio::time::timeout(FIRST_SET, first.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(Error::unavailable("The assignments of the node were not ready in time.")),
        }
        Ok(Arc::new(Line { nodes: Arc::downgrade(self), link, cloud }))
    }

    /// Makes the agent of a registered host known, for questions.
    pub fn attach(&self, host: &str, agent: Arc<dyn Agent>) {
        if let Some(link) = self.link(&Self::id_of(host)) {
            *link.agent.write().unwrap_or_else(PoisonError::into_inner) = Some(agent);
        }
    }

    /// The node is not connected any more.
    pub async fn detach(&self, host: &str) -> Result<()> {
        let id = Self::id_of(host);
        self.links.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        let cloud = self.cloud()?;
        mark_down(&cloud, id).await
    }

    fn cloud(&self) -> Result<Arc<Cloud>> {
        self.cloud.get().cloned().ok_or_else(|| Error::internal("nodes are used before they were started"))
    }
    fn link(&self, id: &str) -> Option<Arc<Link>> {
        self.links.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }
    fn links(&self) -> Vec<Arc<Link>> {
        self.links.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
    fn agent(&self, node_id: &str) -> Option<Arc<dyn Agent>> {
        self.link(node_id)?.agent.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn mark_down(cloud: &Cloud, id: String) -> Result<()> {
    cloud
        .db
        .transact(move |tx| -> Result<()> {
            let node: Option<Object<Node>> = resource::load_any(tx, &id)?;
            let Some(mut node) = node.filter(|n| n.state != "down") else { return Ok(()) };
            node.state = "down".to_owned();
            node.last_seen = tx.now.0;
            save_node(tx, node)
        })
        .await?;
    Ok(())
}

pub(crate) fn save_node(tx: &mut store::Tx<'_>, node: Object<Node>) -> Result<()> {
    let id = node.id.clone();
    let mut map = node.into_map()?;
    touch(&mut map, tx.now, "node");
    tx.put(&Node::DEF.table, &id, Value::Object(map));
    Ok(())
}

/// The service itself as a caller, for work that no request asked for.
pub(crate) fn service_cx(cloud: &Cloud, request_id: &str) -> Cx {
    let admin = Role { id: "admin".into(), name: "admin".to_owned() };
    cloud.cx(Arc::new(Caller::internal(vec![admin], "nova")), request_id)
}

/// What an agent of this process sees of its controller.
struct Line {
    nodes: std::sync::Weak<Nodes>,
    link: Arc<Link>,
    cloud: Arc<Cloud>,
}

impl Uplink for Line {
    fn assignments(&self) -> watch::Receiver<Arc<Assignments>> {
        let mut receiver = self.link.assignments.subscribe();
        receiver.mark_changed();
        receiver
    }
    fn report(&self, reports: Vec<Report>) -> Pending<'_, Result<(), ReportError>> {
        Box::pin(async move {
            {
                let mut seen = self.link.seen();
                for report in &reports {
                    if let Report::Server(r) = report {
                        seen.insert(r.id.clone(), r.epoch);
                    }
                }
            }
            if let Some(nodes) = self.nodes.upgrade() {
                nodes.poke.notify_one();
            }
            reports::apply(&self.cloud, &self.link.node_id, reports).await.map_err(|e| ReportError(e.to_string()))
        })
    }
}

fn explained(e: QueryError, server: &Object<Server>) -> Error {
    match e {
        QueryError::NotHere(_) => Error::conflict(format!("Instance {} is not ready", server.id)),
        QueryError::Unreachable(_) => Error::conflict(format!("Compute service of {} is unavailable at this time.", server.host.clone().unwrap_or_default())),
        QueryError::Failed { .. } => Error::conflict(format!("Instance {} is not ready", server.id)).context(e.to_string()),
    }
}

fn agent_of(call: &Call, server: &Object<Server>) -> Result<Arc<dyn Agent>> {
    let nodes = call.cx.state::<Nodes>()?;
    let agent = server.node_id.as_deref().and_then(|id| nodes.agent(id));
    agent.ok_or_else(|| explained(QueryError::Unreachable(server.host.clone().unwrap_or_default()), server))
}

/// Asks the server's node.
pub(crate) async fn ask(call: &Call, server: &Object<Server>, query: Query) -> Result<Answer> {
    let agent = agent_of(call, server)?;
    match tokio::time::timeout(ANSWER_TIME, agent.query(query)).await {
        Ok(answer) => answer.map_err(|e| explained(e, server)),
        Err(_) => Err(Error::unavailable("The server's node did not answer in time; try again.")),
    }
}

/// Opens the server's display.
pub(crate) async fn display(call: &Call, server: &Object<Server>) -> Result<Box<dyn Duplex>> {
    let agent = agent_of(call, server)?;
    match tokio::time::timeout(ANSWER_TIME, agent.vnc(&server.id)).await {
        Ok(display) => display.map_err(|e| explained(e, server)),
        Err(_) => Err(Error::unavailable("The server's node did not answer in time; try again.")),
    }
}

/// Finishes a deletion whose node has nothing more to say.
pub(crate) async fn finish_deletion(cloud: &Arc<Cloud>, id: &str, why: &'static str) -> Result<()> {
    let (cx, id) = (service_cx(cloud, "finish-deletion"), id.to_owned());
    cloud
        .db
        .transact(move |tx| -> Result<()> {
            let server: Option<Object<Server>> = resource::load_any(tx, &id)?;
            let Some(server) = server.filter(Object::deleting) else { return Ok(()) };
            tracing::info!(server = id, why, "A server's deletion is finished");
            engine::tell(tx, &id, &cx.request_id, why);
            crate::server::records::remove(tx, &cx, server)
        })
        .await?;
    Ok(())
}

