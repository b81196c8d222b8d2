//! Transactions: closures over the view, committed together.
//!
//! One task per process, the sequencer, takes the closures that wait, runs them one after another, each seeing the writes of those
//! before it, and commits all in one store transaction. So transactions of one process never conflict with each other, and one
//! durable write carries many. When another process was quicker, the whole group runs again on newer rows. When the answer of a
//! commit is lost, the sequencer asks the store what became of it; it never commits blindly twice.
use crate::{Outcome, Reader, Revision, Store, StoreError, Table, Tx, Txn, TxnError, TxnId, View, Write, tx::Overlay};
use base::{Clock, retry::Backoff};
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};

/// Closures that may wait; beyond it callers wait to enqueue.
const QUEUE: usize = 1024;
/// Closures in one commit.
const GROUP: usize = 256;
/// Runs of one group before its callers are told that the store is too busy.
const ATTEMPTS: u32 = 100;
/// After this the answer of a commit counts as lost.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(200));

/// The answer of a transaction and the revision that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed<T> {
    pub value: T,
    pub revision: Revision,
}

#[derive(Debug, thiserror::Error)]
pub enum TransactError<E> {
    /// The closure refused; nothing was written.
    #[error("{0}")]
    Refused(E),
    #[error(transparent)]
    Store(StoreError),
}

trait Job: Send {
    /// Runs the closure; true if its writes shall be committed.
    fn run(&mut self, tx: &mut Tx<'_>) -> bool;
    fn abandoned(&self) -> bool;
    fn finish(self: Box<Self>, outcome: Result<Revision, StoreError>);
}

type Panic = Box<dyn Any + Send>;
type Answer<T, E> = Result<Result<Committed<T>, TransactError<E>>, Panic>;

struct Closure<T, E, F> {
    run: F,
    result: Option<Result<Result<T, E>, Panic>>,
    reply: oneshot::Sender<Answer<T, E>>,
}

impl<T, E, F> Job for Closure<T, E, F>
where
    T: Send,
    E: Send,
    F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> bool {
        // A closure that panicked is in no state to run again.
        if !matches!(self.result, Some(Err(_))) {
            self.result = Some(catch_unwind(AssertUnwindSafe(|| (self.run)(tx))));
        }
        matches!(self.result, Some(Ok(Ok(_))))
    }
    fn abandoned(&self) -> bool {
        self.reply.is_closed()
    }
    fn finish(self: Box<Self>, outcome: Result<Revision, StoreError>) {
        let answer = match (outcome, self.result) {
            (_, Some(Err(panic))) => Err(panic),
            (Ok(revision), Some(Ok(Ok(value)))) => Ok(Ok(Committed { value, revision })),
            (Ok(_), Some(Ok(Err(e)))) => Ok(Err(TransactError::Refused(e))),
            (Ok(_), None) => Ok(Err(TransactError::Store(StoreError::Unavailable("the transaction did not run".into())))),
            (Err(e), _) => Ok(Err(TransactError::Store(e))),
        };
        // The caller may have left; the commit stands all the same.
        self.reply.send(answer).ok();
    }
}

/// The store, its view and its sequencer: what everything above the engines uses. Cheap to clone.
#[derive(Clone)]
pub struct Db {
    pub store: Arc<dyn Store>,
    pub view: Arc<View>,
    pub clock: Arc<dyn Clock>,
    jobs: mpsc::Sender<Box<dyn Job>>,
}

impl Db {
    /// Opens the view on `tables` and starts the sequencer; it ends when the last clone is dropped.
    pub async fn open(store: Arc<dyn Store>, clock: Arc<dyn Clock>, tables: &[&'static Table]) -> Result<Self, StoreError> {
        let view = View::open(store.clone(), tables).await?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let sequencer = Sequencer { store: store.clone(), view: view.clone(), clock: clock.clone() };
        tokio::spawn(sequencer.run(queue));
        Ok(Self { store, view, clock, jobs })
    }

    /// Runs `closure` against the newest rows and commits its writes. It may run several times; a caller that stops waiting before
    /// it first runs prevents it. A refusal is decided on rows at least as new as the call. A closure that panics writes nothing, and
    /// the panic goes on in the caller. The closure must not [`read`](Self::read): it would wait for itself.
    pub async fn transact<T, E, F>(&self, closure: F) -> Result<Committed<T>, TransactError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let gone = || TransactError::Store(StoreError::Unavailable("this process is shutting down".into()));
        self.jobs.send(Box::new(Closure { run: closure, result: None, reply })).await.map_err(|_| gone())?;
        match answer.await.map_err(|_| gone())? {
            Ok(answer) => answer,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Returns when reads see everything committed before the call.
    pub async fn fresh(&self) -> Result<Revision, StoreError> {
        self.view.fresh().await
    }

    /// A consistent look at all rows, as fresh as the last [`Db::fresh`]. Do not hold it across an await.
    pub fn read(&self) -> Reader<'_> {
        self.view.read()
    }

    pub fn now(&self) -> base::Timestamp {
        self.clock.now()
    }
}

struct Sequencer {
    store: Arc<dyn Store>,
    view: Arc<View>,
    clock: Arc<dyn Clock>,
}

/// One run of a group: the transaction, and how many of the jobs it holds.
struct Attempt {
    txn: Option<Txn>,
    held: usize,
    at: Revision,
    /// Some answer rests on rows that the commit does not compare.
    unproven: bool,
}

impl Sequencer {
    async fn run(self, mut queue: mpsc::Receiver<Box<dyn Job>>) {
        let mut waiting: Vec<Box<dyn Job>> = Vec::new();
        loop {
            if waiting.is_empty() && queue.recv_many(&mut waiting, GROUP).await == 0 {
                return;
            }
            while waiting.len() < GROUP
                && let Ok(job) = queue.try_recv()
            {
                waiting.push(job);
            }
            waiting.retain(|j| !j.abandoned());
            if waiting.is_empty() {
                continue;
            }
            let (held, outcome) = self.commit(&mut waiting).await;
            for job in waiting.drain(..held) {
                job.finish(outcome.clone());
            }
        }
    }

    /// Commits as many of the first jobs as fit and tells how many those were.
    async fn commit(&self, jobs: &mut [Box<dyn Job>]) -> (usize, Result<Revision, StoreError>) {
        let mut group = jobs.len();
        // Whether the view is known to hold all that was committed before these jobs came.
        let mut proven = false;
        for attempt in 0..ATTEMPTS {
            let Attempt { txn, held, at, unproven } = self.attempt(&mut jobs[..group]);
            if unproven && !proven {
                match self.view.fresh().await {
                    Ok(newest) if newest > at => {
                        proven = true;
                        continue;
                    }
                    Ok(_) => proven = true,
                    Err(e) => return (held, Err(e)),
                }
            }
            let Some(txn) = txn else { return (held, Ok(at)) };
            match self.send(txn).await {
                Ok(Some(revision)) => {
                    if let Err(e) = self.view.reach(revision).await {
                        tracing::warn!(error = %e, "The view lags behind a commit of its own process; reads wait for it");
                    }
                    // Committed is committed, whatever the view knows of it.
                    return (held, Ok(revision));
                }
                Ok(None) => {}
                Err(TxnError::Conflict { at_least }) => {
                    if let Err(e) = self.view.reach(at_least).await {
                        return (held, Err(e));
                    }
                    group = (group / 2).max(1);
                }
                Err(TxnError::Unknown) => return (held, Err(StoreError::Unavailable("the outcome could not be learnt".into()))),
                Err(TxnError::Store(e)) => return (held, Err(e)),
            }
            tokio::time::sleep(BACKOFF.jittered(attempt.min(8))).await;
        }
        (group, Err(StoreError::Unavailable("other writers were quicker every time; try again".into())))
    }

    fn attempt(&self, jobs: &mut [Box<dyn Job>]) -> Attempt {
        let reader = self.view.read();
        let (now, at) = (self.clock.now(), reader.revision());
        let mut all = Overlay::default();
        let (mut held, mut unproven) = (0, false);
        for job in jobs.iter_mut() {
            let mut tx = Tx::new(&reader, &all, now);
            let ok = job.run(&mut tx);
            let own = tx.into_own();
            if held > 0 && ok && all.ops() + own.ops() > self.store.max_ops() {
                break;
            }
            held += 1;
            unproven |= !ok;
            if ok {
                all.rows.extend(own.rows);
                for (k, r) in own.reads {
                    all.reads.entry(k).or_insert(r);
                }
                all.quiet.extend(own.quiet);
            }
        }
        // A row that this group itself made and removed again needs no write.
        let writes: Vec<Write> = all
            .rows
            .iter()
            .filter(|(k, row)| row.is_some() || all.reads.get(*k).is_none_or(|r| r.is_some()))
            .map(|(key, row)| match row {
                Some(row) => Write::Put { key: key.clone(), value: row.value().to_string().into(), lease: None },
                None => Write::Delete { key: key.clone() },
            })
            .collect();
        if writes.is_empty() {
            return Attempt { txn: None, held, at, unproven: true };
        }
        Attempt { txn: Some(Txn { id: TxnId::random(), compares: all.compares(at), writes }), held, at, unproven }
    }

    /// `Ok(None)`: it did not happen and will not.
    async fn send(&self, txn: Txn) -> Result<Option<Revision>, TxnError> {
        let id = txn.id;
        match tokio::time::timeout(COMMIT_TIMEOUT, self.store.txn(txn)).await {
            Ok(Ok(revision)) => Ok(Some(revision)),
            Ok(Err(TxnError::Unknown)) | Err(_) => {
                for attempt in 0..20 {
                    match tokio::time::timeout(COMMIT_TIMEOUT, self.store.resolve(id)).await {
                        Ok(Ok(Outcome::Committed(revision))) => return Ok(Some(revision)),
                        Ok(Ok(Outcome::Aborted)) => return Ok(None),
                        Ok(Err(_)) | Err(_) => tokio::time::sleep(BACKOFF.jittered(attempt + 4)).await,
                    }
                }
                Err(TxnError::Unknown)
            }
            Ok(Err(e)) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Index, Memory, faulty::Faulty};
    use base::SystemClock;
    use serde_json::json;

    static COUNTERS: Table = Table { name: "test/counters", indexes: &[] };
    static NAMES: Table = Table { name: "test/names", indexes: &[Index { name: "owner", path: "/owner" }] };

    async fn db(store: Arc<dyn Store>) -> Db {
        Db::open(store, Arc::new(SystemClock), &[&COUNTERS, &NAMES]).await.unwrap()
    }

    async fn add_one(db: &Db) -> u64 {
        db.transact(|tx| {
            let n = tx.get(&COUNTERS, "c").map_or(0, |r| r.field("n").as_u64().unwrap()) + 1;
            tx.put(&COUNTERS, "c", json!({ "n": n }));
            Ok::<_, ()>(n)
        })
        .await
        .unwrap()
        .value
    }

    #[tokio::test]
    async fn concurrent_transactions_lose_nothing() {
        let db = db(Memory::new()).await;
        let all: Vec<_> = (0..500)
            .map(|_| {
                tokio::spawn({
                    let db = db.clone();
                    async move { add_one(&db).await }
                })
            })
            .collect();
        let mut seen = std::collections::BTreeSet::new();
        for t in all {
            assert!(seen.insert(t.await.unwrap()), "a number was given twice");
        }
        assert_eq!(seen.last(), Some(&500));
        assert!(db.read().revision() < 500, "transactions that wait together are committed together");
    }

    #[tokio::test]
    async fn two_processes_and_a_faulty_store_lose_nothing() {
        for seed in 0..5 {
            let memory = Memory::new();
            let a = db(Arc::new(Faulty::new(memory.clone(), seed, 0.2))).await;
            let b = db(Arc::new(Faulty::new(memory.clone(), seed + 100, 0.2))).await;
            let run = |db: Db| async move {
                for _ in 0..50 {
                    add_one(&db).await;
                }
            };
            tokio::join!(run(a.clone()), run(b), run(a.clone()));
            a.fresh().await.unwrap();
            assert_eq!(a.read().get(&COUNTERS, "c").unwrap().field("n"), 150, "seed {seed}");
        }
    }

    #[tokio::test]
    async fn a_claim_is_won_once() {
        let memory = Memory::new();
        let (a, b) = (db(memory.clone()).await, db(memory).await);
        let claim = |db: Db, who: &'static str| async move {
            db.transact(move |tx| tx.claim(&NAMES, "x", json!({ "owner": who })).map_err(|r| r.text("owner").to_owned())).await
        };
        let (x, y) = tokio::join!(claim(a.clone(), "a"), claim(b, "b"));
        assert!(x.is_ok() != y.is_ok());
        a.fresh().await.unwrap();
        let winner = a.read().get(&NAMES, "x").unwrap().text("owner").to_owned();
        assert_eq!(a.read().find(&NAMES, "owner", &winner).len(), 1);
    }

    #[tokio::test]
    async fn a_refusal_writes_nothing_and_sees_earlier_writes() {
        let db = db(Memory::new()).await;
        let r = db
            .transact(|tx| {
                tx.put(&NAMES, "y", json!({}));
                Err::<(), _>("no")
            })
            .await;
        assert!(matches!(r, Err(TransactError::Refused("no"))));
        assert!(db.read().get(&NAMES, "y").is_none());
    }

    #[tokio::test]
    async fn children_that_appear_meanwhile_are_noticed() {
        let memory = Memory::new();
        let (a, b) = (db(memory.clone()).await, db(memory).await);
        let runs = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let count = runs.clone();
        // The other process's row is committed before this closure commits, whatever the view has seen.
        b.transact(|tx| {
            tx.put(&NAMES, "child", json!({"owner": "parent"}));
            Ok::<_, ()>(())
        })
        .await
        .unwrap();
        let found = a
            .transact(move |tx| {
                count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let n = tx.children(&NAMES, "owner", "parent").len();
                tx.put(&COUNTERS, "parent-deleted", json!({ "children": n }));
                Ok::<_, ()>(n)
            })
            .await
            .unwrap();
        assert_eq!(found.value, 1);
        assert!(runs.load(std::sync::atomic::Ordering::SeqCst) >= 1);
    }

    #[tokio::test]
    async fn a_closure_that_panics_hurts_only_its_caller() {
        let db = db(Memory::new()).await;
        let bad = tokio::spawn({
            let db = db.clone();
            async move {
                db.transact(|tx| -> Result<(), ()> {
                    tx.put(&NAMES, "z", json!({}));
                    panic!("a bug in a closure")
                })
                .await
            }
        });
        let (bad, good) = tokio::join!(bad, add_one(&db));
        assert!(bad.unwrap_err().is_panic(), "the caller sees the panic");
        assert_eq!((good, add_one(&db).await), (1, 2));
        assert!(db.read().get(&NAMES, "z").is_none());
    }

    #[tokio::test]
    async fn a_refusal_is_decided_on_rows_as_new_as_the_call() {
        let memory = Memory::new();
        let late = Faulty::new(memory.clone(), 1, 0.0).with_watch_delay(Duration::from_millis(50));
        let (slow, quick) = (db(Arc::new(late)).await, db(memory).await);
        quick
            .transact(|tx| {
                tx.put(&NAMES, "x", json!({}));
                Ok::<_, ()>(())
            })
            .await
            .unwrap();
        let found = slow.transact(|tx| tx.get(&NAMES, "x").map(|_| ()).ok_or("no such name")).await;
        assert!(found.is_ok(), "the row was committed before this call: {found:?}");
        quick
            .transact(|tx| {
                tx.delete(&NAMES, "x");
                Ok::<_, ()>(())
            })
            .await
            .unwrap();
        let count = slow.transact(|tx| Ok::<_, ()>(tx.all(&NAMES).len())).await.unwrap().value;
        assert_eq!(count, 0, "a look without writes is as new as the call, too");
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_that_the_view_has_not_seen_is_a_commit() {
        let memory = Memory::new();
        let late = Faulty::new(memory.clone(), 1, 0.0).with_watch_delay(Duration::from_secs(60));
        let db = db(Arc::new(late)).await;
        assert_eq!(add_one(&db).await, 1);
        assert!(memory.get("test/counters/c").await.unwrap().is_some());
    }

    #[tokio::test]
    async fn finding_sees_earlier_writes_of_the_same_commit_in_key_order() {
        let db = db(Memory::new()).await;
        for (id, owner) in [("a", "p"), ("c", "p"), ("d", "q")] {
            db.transact(move |tx| {
                tx.put(&NAMES, id, json!({ "owner": owner }));
                Ok::<_, ()>(())
            })
            .await
            .unwrap();
        }
        let found = db
            .transact(|tx| {
                tx.put(&NAMES, "b", json!({"owner": "p"}));
                tx.put(&NAMES, "a", json!({"owner": "q"}));
                tx.delete(&NAMES, "c");
                tx.put(&NAMES, "d", json!({"owner": "p"}));
                Ok::<_, ()>(tx.find(&NAMES, "owner", "p").iter().map(|r| r.id().to_owned()).collect::<Vec<_>>())
            })
            .await;
        assert_eq!(found.unwrap().value, ["b", "d"]);
    }
}
