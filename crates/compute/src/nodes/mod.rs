//! Nodes as the compute service sees them: what each has to do, and what each has seen.
//!
//! ```text
//!   rows ──changes──▶ levels (what each host has to do) ──watch──▶ agent of the host
//!    ▲                                                                │
//!    └───── one transaction per batch ◀── sink ◀── reports ◀──────────┘
//! ```
//! [`Nodes`] follows the view. A change of a row rebuilds only the assignments that were made from it; an assignment that comes out
//! equal keeps its `Arc`, and a batch of changes gives each host one new set. The first set that an agent gets is complete: an agent
//! destroys what it knows and is not assigned.
//!
//! A server that is being deleted is not assigned any more. Its node destroys it and reports `Gone`; then its row goes with all that
//! it holds, in one transaction. Two cases have no such report and are settled by [`housekeeping`]: the agent says that it never had
//! the server, or the node is down for a minute.
//!
//! All of this is a cache and may be lost at any instant: rows and agents make it anew.
mod ask;
mod build;
pub(crate) mod effects;
mod guest;
mod host;
mod housekeeping;
mod levels;
#[cfg(test)]
mod line_tests;
mod sink;
mod snapshot;
mod steps;
#[cfg(test)]
mod testbed;
#[cfg(test)]
mod tests;
pub(crate) mod volumes;

pub(crate) use ask::{ask, display};

use crate::resources::Node;
use api::{Cloud, Cx, Error, Result};
use assign::{Agent, Assignments, Pending, Report, ReportError, Uplink};
use base::retry::Backoff;
use levels::{Item, Levels};
use reconcile::Shards;
use resource::Resource as _;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};
use store::{Changed, Db};
use tokio::{
    sync::{broadcast, watch},
    time::timeout,
};

/// Assignments built under one look at the rows, so that writers need not wait for all.
const AT_ONCE: usize = 256;
/// Longest wait of an agent for assignments that are as the store is.
const SETTLE: Duration = Duration::from_secs(5);
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// The agent of a host (second) that talks to another process of the cloud, reached there (first).
pub type Elsewhere = dyn Fn(&str, &str) -> Option<Arc<dyn Agent>> + Send + Sync;

/// The nodes of this process: their assignments, their reports, and the agents to ask.
pub struct Nodes {
    db: Db,
    shards: Arc<Shards>,
    cloud: OnceLock<Weak<Cloud>>,
    levels: Mutex<Levels>,
    agents: Mutex<HashMap<String, Arc<dyn Agent>>>,
    elsewhere: OnceLock<Box<Elsewhere>>,
    steps: Mutex<steps::Steps>,
    /// Do the levels hold all rows?
    ready: watch::Sender<bool>,
    /// How often somebody asked for levels that hold all that the view does, and up to which they were answered.
    asked: watch::Sender<u64>,
    answered: watch::Sender<u64>,
}

impl Nodes {
    pub fn new(shards: Arc<Shards>) -> Arc<Self> {
        Arc::new(Self {
            db: shards.db().clone(),
            shards,
            cloud: OnceLock::new(),
            levels: Mutex::default(),
            agents: Mutex::default(),
            elsewhere: OnceLock::new(),
            steps: Mutex::default(),
            ready: watch::Sender::new(false),
            asked: watch::Sender::new(0),
            answered: watch::Sender::new(0),
        })
    }

    /// The line of the agent on that host. Waits until the assignments of all hosts are known, so it needs [`Nodes::run`].
    pub async fn join(self: &Arc<Self>, host: &str) -> Arc<dyn Uplink> {
        // The sender is in `self`: it cannot be closed.
        self.ready.subscribe().wait_for(|ready| *ready).await.ok();
        let assignments = self.levels().join(host);
        Arc::new(Line { nodes: Arc::downgrade(self), host: host.to_owned(), assignments })
    }

    /// As [`Nodes::join`], for an agent that may have been told more by another process: its assignments are as the store is now.
    pub async fn join_now(self: &Arc<Self>, host: &str) -> Result<Arc<dyn Uplink>> {
        let unavailable =
            |e: &dyn std::error::Error| Error::unavailable("The store does not answer; try again.").context(base::chain(e));
        self.db.fresh().await.map_err(|e| unavailable(&e))?;
        let mut number = 0;
        self.asked.send_modify(|n| {
            *n += 1;
            number = *n;
        });
        let settled = timeout(SETTLE, self.answered.subscribe().wait_for(|n| *n >= number)).await.is_ok();
        if !settled {
            return Err(Error::unavailable("The controller is busy with the assignments of nodes; try again."));
        }
        Ok(self.join(host).await)
    }

    /// Names the agent that answers questions about the host's servers.
    pub fn attach(&self, host: &str, agent: Arc<dyn Agent>) {
        lock(&self.agents).insert(host.to_owned(), agent);
    }

    /// Names the way to agents that talk to other processes.
    pub fn reach(&self, elsewhere: Box<Elsewhere>) {
        self.elsewhere.set(elsewhere).ok();
    }

    /// The agent of a host that talks to this process.
    pub fn attached(&self, host: &str) -> Option<Arc<dyn Agent>> {
        lock(&self.agents).get(host).cloned()
    }

    /// The agent of a host, whichever process it talks to.
    pub fn agent(&self, host: &str) -> Option<Arc<dyn Agent>> {
        self.attached(host).or_else(|| {
            let line = {
                let reader = self.db.read();
                let node = reader.get(&Node::DEF.table, &host::node_id(host))?;
                reconcile::line_of(&reader, node.text("seat"))?
            };
            self.elsewhere.get()?(&line, host)
        })
    }

    /// Agents that answer questions here.
    pub fn connected(&self) -> usize {
        lock(&self.agents).len()
    }

    /// The host's agent is gone: its node is down until it reports again, here or to another process.
    pub async fn lost(&self, host: &str) -> Result<()> {
        lock(&self.agents).remove(host);
        self.levels().leave(host);
        let (name, seat) = (host.to_owned(), self.seat());
        self.db.transact(move |tx| host::mark_down(tx, &name, &seat)).await?;
        Ok(())
    }

    /// What nodes write as their seat when their agents talk to this process.
    fn seat(&self) -> String {
        self.shards.member().map_or_else(String::new, |m| m.to_string())
    }

    /// Keeps the assignments as the rows are, for ever.
    pub async fn run(self: Arc<Self>, cloud: Arc<Cloud>) {
        // The cloud holds these nodes among its state: a strong reference would keep both for ever.
        self.cloud.set(Arc::downgrade(&cloud)).ok();
        drop(cloud);
        tokio::join!(self.follow(), self.keep_house());
    }

    async fn follow(&self) {
        let mut changes = self.db.view.changes();
        let mut attempt = 0;
        while let Err(e) = self.db.fresh().await {
            tracing::warn!(error = %e, "The assignments of nodes wait for the store");
            tokio::time::sleep(BACKOFF.jittered(attempt)).await;
            attempt = attempt.saturating_add(1);
        }
        self.rebuild().await;
        self.ready.send_replace(true);
        let mut asked = self.asked.subscribe();
        asked.mark_changed();
        loop {
            let mut question = None;
            let batch = tokio::select! {
                batch = next_batch(&mut changes) => batch,
                // The sender is in `self`: it cannot be closed.
                _ = asked.changed() => {
                    question = Some(*asked.borrow_and_update());
                    rest(&mut changes, BTreeSet::new())
                }
            };
            match batch {
                Batch::Keys(keys) => {
                    let dirty = {
                        let (reader, levels) = (self.db.read(), self.levels());
                        let mut dirty = BTreeSet::new();
                        keys.iter().for_each(|key| levels.touched_by(&reader, key, &mut dirty));
                        dirty
                    };
                    self.apply(dirty).await;
                }
                Batch::Lagged => self.rebuild().await,
                Batch::Closed => return,
            }
            if let Some(number) = question {
                self.answered.send_replace(number);
            }
        }
    }

    /// Looks at every row.
    async fn rebuild(&self) {
        let all = {
            let reader = self.db.read();
            self.levels().everything(&reader)
        };
        self.apply(all).await;
    }

    /// Builds anew what may have changed, then tells each host once.
    async fn apply(&self, dirty: BTreeSet<Item>) {
        let dirty: Vec<Item> = dirty.into_iter().collect();
        for some in dirty.chunks(AT_ONCE) {
            {
                let reader = self.db.read();
                self.levels().apply(&reader, some);
            }
            tokio::task::yield_now().await;
        }
        self.levels().publish();
    }

    fn levels(&self) -> MutexGuard<'_, Levels> {
        lock(&self.levels)
    }

    /// A context for what reports cause: nobody asks, the administrator's rules apply.
    fn cx(&self) -> Result<Cx> {
        let cloud = self.cloud.get().and_then(Weak::upgrade);
        let cloud = cloud.ok_or_else(|| Error::unavailable("The controller starts or ends; try again."))?;
        Ok(service_cx(&cloud, ""))
    }
}

/// The service itself as a caller, for work that no request waits for.
pub(crate) fn service_cx(cloud: &Cloud, request_id: &str) -> Cx {
    let admin = auth::Role { id: "admin".into(), name: "admin".to_owned() };
    cloud.cx(Arc::new(auth::Caller::internal(vec![admin], "")), request_id)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Batch {
    Keys(BTreeSet<Arc<str>>),
    Lagged,
    Closed,
}

/// What changed since, all of it at once.
async fn next_batch(changes: &mut broadcast::Receiver<Changed>) -> Batch {
    use broadcast::error::RecvError;
    match changes.recv().await {
        Ok(changed) => rest(changes, changed.keys.iter().cloned().collect()),
        Err(RecvError::Lagged(_)) => Batch::Lagged,
        Err(RecvError::Closed) => Batch::Closed,
    }
}

/// These keys, and what else has changed already.
fn rest(changes: &mut broadcast::Receiver<Changed>, mut keys: BTreeSet<Arc<str>>) -> Batch {
    use broadcast::error::TryRecvError;
    loop {
        match changes.try_recv() {
            Ok(changed) => keys.extend(changed.keys.iter().cloned()),
            Err(TryRecvError::Empty | TryRecvError::Closed) => return Batch::Keys(keys),
            Err(TryRecvError::Lagged(_)) => return Batch::Lagged,
        }
    }
}

/// What an agent in this process holds of its controllers.
struct Line {
    nodes: Weak<Nodes>,
    host: String,
    assignments: watch::Receiver<Arc<Assignments>>,
}

impl Uplink for Line {
    fn assignments(&self) -> watch::Receiver<Arc<Assignments>> {
        self.assignments.clone()
    }
    fn report(&self, reports: Vec<Report>) -> Pending<'_, Result<(), ReportError>> {
        Box::pin(async move {
            let nodes = self.nodes.upgrade().ok_or_else(|| ReportError("the controller is shutting down".to_owned()))?;
            nodes.take(&self.host, reports).await.map_err(|e| match e.context {
                Some(context) => ReportError(format!("{} ({context})", e.message)),
                None => ReportError(e.message),
            })
        })
    }
}
