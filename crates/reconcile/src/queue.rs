//! The queue of one reconciler: keys by the time when they are due, each run by at most one task at a time.
use crate::{Hold, Shards, TaskList, TaskState, share::shard_of};
use base::retry::Backoff;
use resource::{Error, Result};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use store::{Db, Table, Tx};
use tokio::{sync::broadcast::error::RecvError, task::JoinSet, time::Instant};

pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(60));

/// What a run of a reconciler asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing until the row changes, or the next resync.
    Done,
    /// Look again after this time, unless the row changes earlier.
    After(Duration),
}

/// Which processes run a reconciler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Each key in the one that holds its shard.
    Shard,
    /// Every key in every process: for what each process has of its own, such as its files.
    Everywhere,
}

/// Makes the world match one kind of row.
pub trait Reconciler: Send + Sync + 'static {
    /// In the task list and in logs: `image-sweeper`.
    fn name(&self) -> &'static str;
    /// A change of a row of these tables nudges the row's key.
    fn tables(&self) -> Vec<&'static Table>;
    fn place(&self) -> Place {
        Place::Shard
    }
    /// Every key is looked at again after this time, whatever happened.
    fn resync(&self) -> Duration {
        Duration::from_secs(300)
    }
    /// Keys that run at the same time.
    fn concurrency(&self) -> usize {
        16
    }
    /// Takes the row with that key (it may be gone), compares with the world, acts and reports.
    fn reconcile<'a>(&'a self, key: &'a str, work: &'a Work) -> Pending<'a, Result<Next>>;
}

/// What a reconciler may use. Its only way to write is [`Work::transact`].
#[derive(Clone)]
pub struct Work {
    pub db: Db,
    hold: Option<Arc<Hold>>,
}

impl Work {
    /// For keys that every process looks at.
    pub fn everywhere(db: Db) -> Self {
        Self { db, hold: None }
    }
    /// Runs one transaction; the closure compares the row that it changes by reading it. Nothing is written when the key's shard is
    /// not ours any more.
    pub async fn transact<T, F>(&self, closure: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        let (mut closure, fence) = (closure, self.hold.as_ref().map(|h| h.fence().clone()));
        let fenced = move |tx: &mut Tx<'_>| {
            if let Some(fence) = &fence {
                fence.check(tx)?;
            }
            closure(tx)
        };
        Ok(self.db.transact(fenced).await?.value)
    }
}

/// Starts reconcilers; they stop when it is dropped.
pub struct Runner {
    shards: Arc<Shards>,
    tasks: Arc<TaskList>,
    running: JoinSet<()>,
}

impl Runner {
    pub fn new(shards: Arc<Shards>, tasks: Arc<TaskList>) -> Self {
        Self { shards, tasks, running: JoinSet::new() }
    }
    pub fn spawn(&mut self, reconciler: Arc<dyn Reconciler>) {
        let queue = Queue {
            length: self.tasks.queue(reconciler.name()),
            place: reconciler.place(),
            reconciler,
            db: self.shards.db().clone(),
            shards: self.shards.clone(),
            held: BTreeMap::new(),
            tasks: self.tasks.clone(),
            due: BTreeSet::new(),
            when: HashMap::new(),
            busy: HashSet::new(),
            again: HashSet::new(),
            attempts: HashMap::new(),
        };
        self.running.spawn(queue.run());
    }
}

struct Queue {
    reconciler: Arc<dyn Reconciler>,
    place: Place,
    db: Db,
    shards: Arc<Shards>,
    /// The shards whose keys were looked at, with their marks.
    held: BTreeMap<u32, u64>,
    tasks: Arc<TaskList>,
    length: Arc<AtomicUsize>,
    due: BTreeSet<(Instant, Arc<str>)>,
    when: HashMap<Arc<str>, Instant>,
    busy: HashSet<Arc<str>>,
    /// Keys that changed while they ran.
    again: HashSet<Arc<str>>,
    attempts: HashMap<Arc<str>, u32>,
}

impl Queue {
    async fn run(mut self) {
        let mut changes = self.db.view.changes();
        let mut moved = self.shards.changed();
        self.look_at_held();
        let mut runs: JoinSet<Result<Next>> = JoinSet::new();
        let mut keys: HashMap<tokio::task::Id, Arc<str>> = HashMap::new();
        let mut resync = tokio::time::interval(self.reconciler.resync());
        loop {
            while runs.len() < self.reconciler.concurrency()
                && let Some((key, work)) = self.pop()
            {
                let id = runs.spawn(self.start(key.clone(), work)).id();
                keys.insert(id, key);
            }
            self.length.store(self.due.len() + self.busy.len(), Ordering::Relaxed);
            let wake = self.due.first().map_or_else(|| Instant::now() + Duration::from_secs(3600), |(t, _)| *t);
            let full = runs.len() >= self.reconciler.concurrency();
            tokio::select! {
                change = changes.recv() => match change {
                    Ok(change) => {
                        for key in change.keys.iter() {
                            if self.concerns(key) {
                                self.push(key.clone(), Instant::now());
                            }
                        }
                    }
                    Err(RecvError::Lagged(_)) => self.push_all(),
                    Err(RecvError::Closed) => return,
                },
                _ = resync.tick() => self.push_all(),
                _ = moved.changed() => self.look_at_held(),
                Some(ran) = runs.join_next_with_id(), if !runs.is_empty() => {
                    let (id, result) = match ran {
                        Ok(done) => done,
                        Err(e) => (e.id(), Err(Error::internal(format!("a run ended in a panic: {e}")))),
                    };
                    if let Some(key) = keys.remove(&id) {
                        self.finish(key, result);
                    }
                }
                () = tokio::time::sleep_until(wake), if !full => {}
            }
        }
    }

    fn concerns(&self, key: &str) -> bool {
        self.reconciler.tables().iter().any(|t| key.strip_prefix(t.name).is_some_and(|rest| rest.starts_with('/')))
    }

    fn is_ours(&self, key: &str) -> bool {
        self.place == Place::Everywhere || self.held.contains_key(&shard_of(key))
    }

    /// Takes up the keys of shards that are new to us. Those of shards that we lost are dropped when they are due.
    fn look_at_held(&mut self) {
        let held = self.shards.held();
        let new: HashSet<u32> = held.iter().filter(|(shard, mark)| self.held.get(shard) != Some(mark)).map(|(s, _)| *s).collect();
        self.held = held;
        if self.place == Place::Shard && !new.is_empty() {
            self.push_those(|key| new.contains(&shard_of(key)));
        }
    }

    fn push(&mut self, key: Arc<str>, at: Instant) {
        if !self.is_ours(&key) {
            return;
        }
        if self.busy.contains(&key) {
            self.again.insert(key);
            return;
        }
        match self.when.get(&key) {
            Some(earlier) if *earlier <= at => return,
            Some(later) => {
                self.due.remove(&(*later, key.clone()));
            }
            None => {}
        }
        self.when.insert(key.clone(), at);
        self.due.insert((at, key));
    }

    fn push_all(&mut self) {
        self.push_those(|_| true);
    }

    fn push_those(&mut self, which: impl Fn(&str) -> bool) {
        let keys: Vec<Arc<str>> = {
            let reader = self.db.read();
            let tables = self.reconciler.tables();
            let all = tables.iter().flat_map(|t| reader.all(t).map(|r| &r.key));
            all.filter(|key| which(key)).cloned().collect()
        };
        for key in keys {
            self.push(key, Instant::now());
        }
    }

    /// The next key that is due and ours.
    fn pop(&mut self) -> Option<(Arc<str>, Work)> {
        loop {
            let (at, key) = self.due.first()?.clone();
            if at > Instant::now() {
                return None;
            }
            self.due.remove(&(at, key.clone()));
            self.when.remove(&key);
            let hold = match self.place {
                Place::Everywhere => None,
                Place::Shard => match self.shards.enter(&key) {
                    Some(hold) => Some(Arc::new(hold)),
                    None => {
                        self.forget(&key);
                        continue;
                    }
                },
            };
            self.busy.insert(key.clone());
            let work = Work { hold, ..Work::everywhere(self.db.clone()) };
            return Some((key, work));
        }
    }

    /// It is well, or no longer our concern.
    fn forget(&mut self, key: &str) {
        if self.attempts.remove(key).is_some() {
            self.tasks.forget(&format!("{} {key}", self.reconciler.name()));
        }
    }

    fn start(&self, key: Arc<str>, work: Work) -> impl Future<Output = Result<Next>> + Send + 'static {
        let reconciler = self.reconciler.clone();
        let now = self.db.now();
        self.tasks.note(reconciler.name(), |t| {
            t.runs += 1;
            t.state = TaskState::Running;
            t.last_run = Some(now);
        });
        async move { reconciler.reconcile(&key, &work).await }
    }

    fn finish(&mut self, key: Arc<str>, result: Result<Next>) {
        self.busy.remove(&key);
        let name = self.reconciler.name();
        let in_trouble = format!("{name} {key}");
        match result {
            Ok(next) => {
                self.forget(&key);
                if let Next::After(wait) = next {
                    self.push(key.clone(), Instant::now() + wait);
                }
            }
            // Whoever has it now looks at it anyway.
            Err(_) if !self.is_ours(&key) => self.forget(&key),
            Err(e) => {
                let attempt = self.attempts.entry(key.clone()).or_insert(0);
                let wait = BACKOFF.jittered(*attempt);
                *attempt += 1;
                self.note_failure(&key, name, &in_trouble, &e, wait);
                self.push(key.clone(), Instant::now() + wait);
            }
        }
        if self.again.remove(&key) {
            self.push(key, Instant::now());
        }
        let idle = self.busy.is_empty();
        self.tasks.note(name, |t| t.state = if idle { TaskState::Idle } else { TaskState::Running });
    }

    fn note_failure(&self, key: &str, name: &str, in_trouble: &str, error: &Error, wait: Duration) {
        let text = match &error.context {
            Some(context) => format!("{} ({context})", error.message),
            None => error.message.clone(),
        };
        tracing::warn!(task = name, %key, error = %text, again_in_ms = wait.as_millis() as u64, "A reconcile step failed; it will be tried again");
        let next = self.db.now().plus(wait);
        self.tasks.note(name, |t| {
            t.failures += 1;
            t.last_error = Some(text.clone());
        });
        self.tasks.note(in_trouble, |t| {
            t.state = TaskState::Waiting;
            t.failures += 1;
            t.next_run = Some(next);
            t.last_error = Some(text.clone());
        });
    }
}
