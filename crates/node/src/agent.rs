//! Hands each assignment to the task of its server or volume, and keeps networks, snapshots and the host's own report up to date.
//!
//! Everything is level-triggered: the newest set of assignments is compared with what was handed out before. A server that is
//! missing from it is removed from this node. The agent stops all work when it is dropped; guests go on.
use crate::{
    Config, Error,
    blackboard::Blackboard,
    driver::Ports,
    leftovers,
    remember::Memory,
    server::{self, Server},
    snapshot,
    volume::{self, Volume},
};
use assign::{
    Answer, Assignments, Blobs, Duplex, MetadataNetwork, Pending, Query, QueryError, Report, ServerAssignment, Uplink,
    VolumeAssignment,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch},
    task::AbortHandle,
    time::Instant,
};

/// What all tasks of an agent share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) ports: Ports,
    pub(crate) memory: Arc<Memory>,
    pub(crate) uplink: Arc<dyn Uplink>,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) board: Blackboard,
    /// Disks made and processes started at once.
    pub(crate) heavy: Semaphore,
    pub(crate) servers: Mutex<HashMap<String, (Arc<Server>, AbortHandle)>>,
    pub(crate) volumes: Mutex<HashMap<String, (Arc<Volume>, AbortHandle)>>,
    /// Have the controllers told what is assigned? Until then nothing is missing, only unknown.
    pub(crate) informed: watch::Sender<bool>,
    pub(crate) informed_at: OnceLock<Instant>,
}

impl Shared {
    pub(crate) fn servers(&self) -> MutexGuard<'_, HashMap<String, (Arc<Server>, AbortHandle)>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn volumes(&self) -> MutexGuard<'_, HashMap<String, (Arc<Volume>, AbortHandle)>> {
        self.volumes.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub(crate) fn server(&self, id: &str) -> Option<Arc<Server>> {
        self.servers().get(id).map(|(s, _)| s.clone())
    }
}

/// The agent of one host.
pub struct Agent {
    shared: Arc<Shared>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.shared.servers().drain().for_each(|(_, (_, task))| task.abort());
        self.shared.volumes().drain().for_each(|(_, (_, task))| task.abort());
    }
}

impl Agent {
    /// Starts on any set of ports. Servers in `memory` that are not in the first set of assignments are
    /// removed after [`Config::orphan_grace`]. The first set is the one the uplink holds, if it is not empty, else the next that is sent.
    pub fn start(config: Config, ports: Ports, memory: Arc<Memory>, uplink: Arc<dyn Uplink>, blobs: Arc<dyn Blobs>) -> Arc<Self> {
        let heavy = Semaphore::new(config.heavy_steps.max(1));
        let shared = Arc::new(Shared {
            config,
            ports,
            memory,
            uplink,
            blobs,
            board: Blackboard::default(),
            heavy,
            servers: Mutex::default(),
            volumes: Mutex::default(),
            informed: watch::Sender::new(false),
            informed_at: OnceLock::new(),
        });
        let assignments = shared.uplink.assignments();
        let weak = Arc::downgrade(&shared);
        shared.ports.hypervisor.on_change(Arc::new(move |id| {
            if let Some(server) = weak.upgrade().and_then(|s| s.server(id)) {
                server.nudge.notify_one();
            }
        }));
        let weak = Arc::downgrade(&shared);
        shared.ports.volumes.on_change(Arc::new(move |id| {
            let shared = weak.upgrade();
            let volume = shared.and_then(|s| s.volumes().get(id).map(|(v, _)| v.clone()));
            if let Some(volume) = volume {
                volume.nudge.notify_one();
            }
        }));
        let tasks = vec![
            tokio::spawn(distribute(shared.clone(), assignments)).abort_handle(),
            tokio::spawn({
                let shared = shared.clone();
                async move { shared.board.send(&*shared.uplink).await }
            })
            .abort_handle(),
            tokio::spawn(watch_host(shared.clone())).abort_handle(),
            tokio::spawn(trim_logs(shared.clone())).abort_handle(),
            tokio::spawn(leftovers::sweep_for_ever(shared.clone())).abort_handle(),
        ];
        Arc::new(Self { shared, tasks })
    }

    async fn answer(&self, query: Query) -> Result<Answer, QueryError> {
        let hypervisor = &self.shared.ports.hypervisor;
        match query {
            Query::ConsoleLog { server_id, lines } => {
                self.check_here(&server_id)?;
                self.explain(hypervisor.console(&server_id, lines).await)
            }
            Query::Diagnostics { server_id } => {
                self.check_here(&server_id)?;
                self.explain(hypervisor.diagnostics(&server_id).await)
            }
        }
    }
    fn check_here(&self, id: &str) -> Result<(), QueryError> {
        if self.shared.memory.is_here(id) { Ok(()) } else { Err(QueryError::NotHere(id.to_owned())) }
    }
    fn explain<T>(&self, result: Result<T, Error>) -> Result<T, QueryError> {
        result.map_err(|e| match e {
            Error::NotHere(id) => QueryError::NotHere(id),
            e => QueryError::Failed { node: self.shared.config.host_name.clone(), cause: e.to_string() },
        })
    }
}

impl assign::Agent for Agent {
    fn query(&self, query: Query) -> Pending<'_, Result<Answer, QueryError>> {
        Box::pin(self.answer(query))
    }
    fn vnc(&self, server_id: &str) -> Pending<'_, Result<Box<dyn Duplex>, QueryError>> {
        let id = server_id.to_owned();
        Box::pin(async move {
            self.check_here(&id)?;
            self.explain(self.shared.ports.hypervisor.vnc(&id).await)
        })
    }
}

/// The desired metadata networks and the task that makes them so.
type Networks = watch::Sender<BTreeMap<String, Arc<MetadataNetwork>>>;

async fn distribute(shared: Arc<Shared>, mut assignments: watch::Receiver<Arc<Assignments>>) {
    let (networks, wanted_networks) = watch::channel(BTreeMap::new());
    let _networks = AbortOnDrop(tokio::spawn(keep_networks(shared.clone(), wanted_networks)).abort_handle());
    let mut snapshots = HashMap::new();
    let mut before = Arc::<Assignments>::default();
    let was_sent = assignments.has_changed().unwrap_or(false);
    let mut now = assignments.borrow_and_update().clone();
    let is_empty = now.servers.is_empty() && now.networks.is_empty() && now.snapshots.is_empty() && now.volumes.is_empty();
    if was_sent || !is_empty {
        inform(&shared, &now);
    }
    loop {
        hand_out(&shared, &before, &now, &networks, &mut snapshots);
        before = now;
        if assignments.changed().await.is_err() {
            tracing::warn!("the agent's uplink is closed; the node goes on as it is");
            return std::future::pending().await;
        }
        now = assignments.borrow_and_update().clone();
        inform(&shared, &now);
    }
}

/// The first set that came from the controllers: what is known here and not in it is an orphan. An empty set that nobody sent proves
/// nothing: the uplink may not be connected yet. An uplink shows that it was sent by handing out clones of the receiver that its
/// channel was made with, in which a value that was sent counts as unseen.
fn inform(shared: &Arc<Shared>, now: &Assignments) {
    if shared.informed_at.set(Instant::now()).is_ok() {
        shared.informed.send_replace(true);
        for id in shared.memory.ids().into_iter().filter(|id| !now.servers.contains_key(id)) {
            hand_over(shared, &id, None);
        }
    }
}

fn hand_out(
    shared: &Arc<Shared>,
    before: &Assignments,
    now: &Arc<Assignments>,
    networks: &Networks,
    snapshots: &mut HashMap<String, AbortOnDrop>,
) {
    for (id, assignment) in &now.servers {
        if !before.servers.get(id).is_some_and(|b| Arc::ptr_eq(b, assignment)) {
            if base::id::is_uuid(id) && assignment.id == *id {
                hand_over(shared, id, Some(assignment.clone()));
            } else {
                tracing::error!(server = id, "assignment without a proper server id is ignored");
            }
        }
    }
    for id in before.servers.keys().filter(|id| !now.servers.contains_key(*id)) {
        hand_over(shared, id, None);
    }
    for (id, assignment) in &now.volumes {
        if !before.volumes.get(id).is_some_and(|b| Arc::ptr_eq(b, assignment)) {
            if base::id::is_uuid(id) && assignment.id == *id {
                hand_over_volume(shared, id, Some(assignment.clone()));
            } else {
                tracing::error!(volume = id, "assignment without a proper volume id is ignored");
            }
        }
    }
    for id in before.volumes.keys().filter(|id| !now.volumes.contains_key(*id)) {
        hand_over_volume(shared, id, None);
    }
    networks.send_if_modified(|n| {
        let is_new = *n != now.networks;
        if is_new {
            n.clone_from(&now.networks);
        }
        is_new
    });
    snapshots.retain(|image, _| {
        now.snapshots.contains_key(image) || {
            shared.board.forget_snapshot(image);
            false
        }
    });
    for (image, assignment) in &now.snapshots {
        snapshots
            .entry(image.clone())
            .or_insert_with(|| AbortOnDrop(tokio::spawn(snapshot::make(shared.clone(), assignment.clone())).abort_handle()));
    }
}

/// Tells the server's task what is wanted now; starts the task when there is none.
fn hand_over(shared: &Arc<Shared>, id: &str, wanted: Option<Arc<ServerAssignment>>) {
    let mut servers = shared.servers();
    if let Some((server, _)) = servers.get(id) {
        server.want(wanted);
        return;
    }
    if wanted.is_none() && !shared.memory.is_here(id) {
        return;
    }
    let server = Arc::new(Server::new(id, wanted));
    let task = tokio::spawn(server::keep(shared.clone(), server.clone())).abort_handle();
    servers.insert(id.to_owned(), (server, task));
}

/// The same for a volume.
fn hand_over_volume(shared: &Arc<Shared>, id: &str, wanted: Option<Arc<VolumeAssignment>>) {
    let mut volumes = shared.volumes();
    match (volumes.get(id), wanted) {
        (Some((volume, _)), wanted) => volume.want(wanted),
        (None, Some(wanted)) => {
            let volume = Arc::new(Volume::new(id, wanted));
            let task = tokio::spawn(volume::keep(shared.clone(), volume.clone())).abort_handle();
            volumes.insert(id.to_owned(), (volume, task));
        }
        (None, None) => {}
    }
}

/// Makes the metadata networks so, and tries again what failed.
async fn keep_networks(shared: Arc<Shared>, mut wanted: watch::Receiver<BTreeMap<String, Arc<MetadataNetwork>>>) {
    let mut done: BTreeMap<String, Arc<MetadataNetwork>> = BTreeMap::new();
    let mut failures = 0u32;
    loop {
        let now = wanted.borrow_and_update().clone();
        let mut failed = false;
        let gone: Vec<String> = done.keys().filter(|id| !now.contains_key(*id)).cloned().collect();
        for id in gone {
            match shared.ports.metadata.remove(&id).await {
                Ok(()) => drop(done.remove(&id)),
                Err(error) => {
                    tracing::warn!(network = id, %error, "metadata network is not removed yet");
                    failed = true;
                }
            }
        }
        for (id, network) in &now {
            if done.get(id) == Some(network) {
                continue;
            }
            match shared.ports.metadata.ensure(network).await {
                Ok(()) => drop(done.insert(id.clone(), network.clone())),
                Err(error) => {
                    tracing::warn!(network = id, %error, "metadata network is not ready yet");
                    failed = true;
                }
            }
        }
        failures = if failed { failures.saturating_add(1) } else { 0 };
        let again = async {
            if failed {
                tokio::time::sleep(shared.config.retry.jittered(failures)).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = again => {}
        }
    }
}

/// Reports the host at start and when it changed.
async fn watch_host(shared: Arc<Shared>) {
    loop {
        shared.board.put(Report::Host(shared.ports.hypervisor.host().await));
        tokio::time::sleep(shared.config.sweep_every).await;
    }
}

async fn trim_logs(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        shared.ports.hypervisor.trim().await;
    }
}

/// Ends a task with its owner.
pub(crate) struct AbortOnDrop(pub(crate) AbortHandle);
impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
