//! The queue of one reconciler: keys by the time when they are due, each run by at most one task at a time.
use crate::{TaskList, TaskState};
use base::retry::Backoff;
use resource::{Error, Result};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    future::Future,
    pin::Pin,
    sync::Arc,
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

/// Makes the world match one kind of row.
pub trait Reconciler: Send + Sync + 'static {
    /// In the task list and in logs: `image-sweeper`.
    fn name(&self) -> &'static str;
    /// A change of a row of these tables nudges the row's key.
    fn tables(&self) -> Vec<&'static Table>;
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
}

impl Work {
    /// Runs one transaction; the closure compares the row that it changes by reading it.
    pub async fn transact<T, F>(&self, closure: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        Ok(self.db.transact(closure).await?.value)
    }
}

/// Starts reconcilers; they stop when it is dropped.
pub struct Runner {
    db: Db,
    tasks: Arc<TaskList>,
    running: JoinSet<()>,
}

impl Runner {
    pub fn new(db: Db, tasks: Arc<TaskList>) -> Self {
        Self { db, tasks, running: JoinSet::new() }
    }
    pub fn spawn(&mut self, reconciler: Arc<dyn Reconciler>) {
        let queue = Queue {
            reconciler,
            work: Work { db: self.db.clone() },
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
    work: Work,
    tasks: Arc<TaskList>,
    due: BTreeSet<(Instant, Arc<str>)>,
    when: HashMap<Arc<str>, Instant>,
    busy: HashSet<Arc<str>>,
    /// Keys that changed while they ran.
    again: HashSet<Arc<str>>,
    attempts: HashMap<Arc<str>, u32>,
}

type Ran = (Arc<str>, Result<Next>);

impl Queue {
    async fn run(mut self) {
        let mut changes = self.work.db.view.changes();
        let mut runs: JoinSet<Ran> = JoinSet::new();
        let mut resync = tokio::time::interval(self.reconciler.resync());
        loop {
            while runs.len() < self.reconciler.concurrency()
                && let Some(key) = self.pop()
            {
                runs.spawn(self.start(key));
            }
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
                Some(ran) = runs.join_next(), if !runs.is_empty() => match ran {
                    Ok(ran) => self.finish(ran),
                    Err(e) => tracing::error!(task = self.reconciler.name(), error = %e, "A reconciler panicked; its key is looked at again at the next resync"),
                },
                () = tokio::time::sleep_until(wake), if !full => {}
            }
        }
    }

    fn concerns(&self, key: &str) -> bool {
        self.reconciler.tables().iter().any(|t| key.strip_prefix(t.name).is_some_and(|rest| rest.starts_with('/')))
    }

    fn push(&mut self, key: Arc<str>, at: Instant) {
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
        let keys: Vec<Arc<str>> = {
            let reader = self.work.db.read();
            self.reconciler.tables().iter().flat_map(|t| reader.all(t).map(|r| r.key.clone()).collect::<Vec<_>>()).collect()
        };
        for key in keys {
            self.push(key, Instant::now());
        }
    }

    fn pop(&mut self) -> Option<Arc<str>> {
        let (at, key) = self.due.first()?.clone();
        if at > Instant::now() {
            return None;
        }
        self.due.remove(&(at, key.clone()));
        self.when.remove(&key);
        self.busy.insert(key.clone());
        Some(key)
    }

    fn start(&self, key: Arc<str>) -> impl Future<Output = Ran> + Send + 'static {
        let (reconciler, work) = (self.reconciler.clone(), self.work.clone());
        let now = work.db.now();
        self.tasks.note(reconciler.name(), |t| {
            t.runs += 1;
            t.state = TaskState::Running;
            t.last_run = Some(now);
        });
        async move {
            let result = reconciler.reconcile(&key, &work).await;
            (key, result)
        }
    }

    fn finish(&mut self, (key, result): Ran) {
        self.busy.remove(&key);
        let name = self.reconciler.name();
        let in_trouble = format!("{name} {key}");
        match result {
            Ok(next) => {
                if self.attempts.remove(&key).is_some() {
                    self.tasks.forget(&in_trouble);
                }
                if let Next::After(wait) = next {
                    self.push(key.clone(), Instant::now() + wait);
                }
            }
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
        let next = self.work.db.now().plus(wait);
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

#[cfg(test)]
mod tests {
    use super::*;
    use base::SystemClock;
    use serde_json::json;
    use std::sync::atomic::{AtomicU32, Ordering};
    use store::Memory;

    static ROWS: Table = Table { name: "test/rows", indexes: &[] };

    /// Sets `done` once `want` is set; fails the first two times for each key.
    struct Doer {
        runs: AtomicU32,
    }
    impl Reconciler for Doer {
        fn name(&self) -> &'static str {
            "doer"
        }
        fn tables(&self) -> Vec<&'static Table> {
            vec![&ROWS]
        }
        fn reconcile<'a>(&'a self, key: &'a str, work: &'a Work) -> Pending<'a, Result<Next>> {
            Box::pin(async move {
                if self.runs.fetch_add(1, Ordering::SeqCst) < 2 {
                    return Err(Error::unavailable("The world is not there yet."));
                }
                let id = key.rsplit('/').next().unwrap_or_default().to_owned();
                work.transact(move |tx| {
                    if let Some(row) = tx.get(&ROWS, &id)
                        && row.field("done") != true
                    {
                        tx.put(&ROWS, &id, json!({"done": true}));
                    }
                    Ok(())
                })
                .await?;
                Ok(Next::Done)
            })
        }
    }

    #[tokio::test]
    async fn keys_converge_after_failures_and_rest() {
        let db = Db::open(Memory::new(), Arc::new(SystemClock), &[&ROWS]).await.unwrap();
        let put = |id: &'static str| {
            let db = db.clone();
            async move {
                db.transact(move |tx| {
                    tx.put(&ROWS, id, json!({"done": false}));
                    Ok::<_, ()>(())
                })
                .await
                .unwrap()
            }
        };
        put("before").await;
        let tasks = Arc::new(TaskList::default());
        let doer = Arc::new(Doer { runs: AtomicU32::new(0) });
        let mut runner = Runner::new(db.clone(), tasks.clone());
        runner.spawn(doer.clone());
        put("after").await;
        let done = async {
            loop {
                let all = {
                    let reader = db.read();
                    reader.all(&ROWS).filter(|r| r.field("done") == true).count()
                };
                let well = tasks.list().iter().all(|t| t.state == TaskState::Idle);
                if all == 2 && well {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), done).await.expect("both rows are done and no task is in trouble");
        let task = &tasks.list()[0];
        assert_eq!((task.name.as_str(), task.failures), ("doer", 2));
        assert!(task.last_error.is_some());
    }
}
