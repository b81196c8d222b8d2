//! Transactions: closures over the view, committed together.
//!
//! One task per process, the sequencer, takes the closures that wait, runs them one after another, each seeing the writes of those
//! before it, and commits all in one store transaction. So transactions of one process never conflict with each other, and one
//! durable write carries many. When another process was quicker, the whole group runs again on newer rows. When the answer of a
//! commit is lost, the sequencer asks the store what became of it; it never commits blindly twice. Nothing is sent to a store that
//! has not shown a moment ago that it can commit: a store without a majority may keep what it got, and carry it out long after its
//! callers were told that it failed.
//!
//! A transaction may have a deadline. What has not begun by then never will, and is not tried again; what has begun is waited for, since
//! nobody can say of it that it did not happen.
//!
//! What no client waits for may come along: it costs no commit of its own as long as there are others.
use crate::{Counts, Outcome, Reader, Revision, Store, StoreError, Table, Tx, Txn, TxnError, TxnId, View, Write, tx::Overlay};
use base::{Clock, retry::Backoff};
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

mod turn;
pub use turn::Turn;

/// Closures that may wait; beyond it callers wait to enqueue.
const QUEUE: usize = 1024;
/// Closures in one commit.
const GROUP: usize = 256;
/// Runs of one group before its callers are told that the store is too busy.
const ATTEMPTS: u32 = 100;
/// After this the answer of a commit counts as lost.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// A store that has answered within this time takes a commit; any other is asked first.
const ALIVE: Duration = Duration::from_millis(20);
/// What may come along goes alone after this.
const ALONE: Duration = Duration::from_millis(50);
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
    /// Takes the job up; false if its caller has left or its deadline has passed.
    fn begin(&self) -> bool;
    /// Lets the caller leave again: nothing of it is under way.
    fn pause(&self);
    /// Runs the closure; true if its writes shall be committed.
    fn run(&mut self, tx: &mut Tx<'_>) -> bool;
    fn finish(self: Box<Self>, outcome: Result<Revision, StoreError>);
}

type Panic = Box<dyn Any + Send>;
type Answer<T, E> = Result<Result<Committed<T>, TransactError<E>>, Panic>;

struct Closure<T, E, F> {
    run: F,
    result: Option<Result<Result<T, E>, Panic>>,
    reply: oneshot::Sender<Answer<T, E>>,
    turn: Arc<Turn>,
}

impl<T, E, F> Job for Closure<T, E, F>
where
    T: Send,
    E: Send,
    F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send,
{
    fn begin(&self) -> bool {
        !self.reply.is_closed() && self.turn.begin()
    }
    fn pause(&self) {
        self.turn.pause();
    }
    fn run(&mut self, tx: &mut Tx<'_>) -> bool {
        // A closure that panicked is in no state to run again.
        if !matches!(self.result, Some(Err(_))) {
            self.result = Some(catch_unwind(AssertUnwindSafe(|| (self.run)(tx))));
        }
        matches!(self.result, Some(Ok(Ok(_))))
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
    counts: Arc<Counts>,
    jobs: mpsc::Sender<Box<dyn Job>>,
    /// Those that may come along.
    idle: mpsc::Sender<Box<dyn Job>>,
}

impl Db {
    /// Opens the view on `tables` and starts the sequencer; it ends when the last clone is dropped.
    pub async fn open(store: Arc<dyn Store>, clock: Arc<dyn Clock>, tables: &[&'static Table]) -> Result<Self, StoreError> {
        let view = View::open(store.clone(), tables).await?;
        let ((jobs, queue), (idle, along)) = (mpsc::channel(QUEUE), mpsc::channel(QUEUE));
        let counts = Arc::new(Counts::default());
        let sequencer = Sequencer { store: store.clone(), view: view.clone(), clock: clock.clone(), counts: counts.clone() };
        tokio::spawn(sequencer.run(queue, along));
        Ok(Self { store, view, clock, counts, jobs, idle })
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
        self.transact_in(Arc::new(Turn::by(None)), closure).await
    }

    /// As [`transact`](Self::transact), for what nobody waits for: it is committed with the next transactions of this process, or alone
    /// if there are none within 50 ms.
    pub async fn transact_along<T, E, F>(&self, closure: F) -> Result<Committed<T>, TransactError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        self.enqueue(&self.idle, Arc::new(Turn::by(None)), closure).await
    }

    /// As [`transact`](Self::transact), and fails with [`StoreError::Late`] when it has not begun at the turn's deadline, or could not
    /// be committed until then: nothing was written. One that is under way is waited for.
    pub async fn transact_in<T, E, F>(&self, turn: Arc<Turn>, closure: F) -> Result<Committed<T>, TransactError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        self.enqueue(&self.jobs, turn, closure).await
    }

    async fn enqueue<T, E, F>(
        &self,
        queue: &mpsc::Sender<Box<dyn Job>>,
        turn: Arc<Turn>,
        closure: F,
    ) -> Result<Committed<T>, TransactError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let gone = || {
            let end = || StoreError::Unavailable("this process is shutting down".into());
            TransactError::Store(if turn.is_over() { StoreError::Late } else { end() })
        };
        let job = Box::new(Closure { run: closure, result: None, reply, turn: turn.clone() });
        let asked = async {
            queue.send(job).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())
        };
        tokio::pin!(asked);
        let answered = tokio::select! {
            biased;
            answered = &mut asked => answered,
            () = turn.left() => Err(TransactError::Store(StoreError::Late)),
        };
        if let Err(TransactError::Store(StoreError::Late)) = &answered {
            self.counts.late.add();
        }
        match answered? {
            Ok(answer) => answer,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// What this process's transactions met.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Transactions that wait for their turn.
    pub fn waiting(&self) -> usize {
        self.jobs.max_capacity() - self.jobs.capacity()
    }

    /// Returns when reads see everything committed before the call.
    pub async fn fresh(&self) -> Result<Revision, StoreError> {
        self.view.fresh().await
    }

    /// How long ago the store last showed that it can commit, so that it has a majority: by an answer to [`Db::fresh`], or a commit.
    pub fn silence(&self) -> Duration {
        self.view.silence()
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
    counts: Arc<Counts>,
}

/// One run of a group: the transaction, and how many of the jobs it holds.
struct Attempt {
    txn: Option<Txn>,
    held: usize,
    at: Revision,
    /// Some answer rests on rows that the commit does not compare.
    unproven: bool,
}

/// Waits until something is to be done; false when nobody is left who could want it.
async fn first(
    waiting: &mut Vec<Box<dyn Job>>,
    queue: &mut mpsc::Receiver<Box<dyn Job>>,
    along: &mut mpsc::Receiver<Box<dyn Job>>,
) -> bool {
    let idle = tokio::select! {
        biased;
        some = queue.recv_many(waiting, GROUP) => return some > 0,
        Some(job) = along.recv() => job,
    };
    // Whoever comes in this time takes it along.
    if let Ok(0) = timeout(ALONE, queue.recv_many(waiting, GROUP)).await {
        return false;
    }
    waiting.push(idle);
    true
}

impl Sequencer {
    async fn run(self, mut queue: mpsc::Receiver<Box<dyn Job>>, mut along: mpsc::Receiver<Box<dyn Job>>) {
        let mut waiting: Vec<Box<dyn Job>> = Vec::new();
        loop {
            if waiting.is_empty() && !first(&mut waiting, &mut queue, &mut along).await {
                return;
            }
            while waiting.len() < GROUP
                && let Ok(job) = queue.try_recv().or_else(|_| along.try_recv())
            {
                waiting.push(job);
            }
            let (held, outcome) = self.commit(&mut waiting).await;
            for job in waiting.drain(..held) {
                job.finish(outcome.clone());
            }
            waiting.iter().for_each(|j| j.pause());
        }
    }

    /// Commits as many of the first jobs as fit and tells how many those were.
    async fn commit(&self, jobs: &mut Vec<Box<dyn Job>>) -> (usize, Result<Revision, StoreError>) {
        let mut group = jobs.len();
        // Whether the view is known to hold all that was committed before these jobs came.
        let mut proven = false;
        for attempt in 0..ATTEMPTS {
            if self.view.silence() > ALIVE
                && let Err(e) = self.view.fresh().await
            {
                return (jobs.len(), Err(e));
            }
            // Callers that have left need no answer.
            jobs.retain(|j| j.begin());
            group = group.min(jobs.len());
            if group == 0 {
                return (0, Ok(0));
            }
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
                    self.counts.commits.add();
                    self.counts.transactions.add_many(held as u64);
                    self.view.hear();
                    if let Err(e) = self.view.reach(revision).await {
                        tracing::warn!(error = %e, "The view lags behind a commit of its own process; reads wait for it");
                    }
                    // Committed is committed, whatever the view knows of it.
                    return (held, Ok(revision));
                }
                Ok(None) => {}
                Err(TxnError::Conflict { at_least }) => {
                    self.counts.conflicts.add();
                    if let Err(e) = self.view.reach(at_least).await {
                        return (held, Err(e));
                    }
                    group = (group / 2).max(1);
                }
                Err(TxnError::Unknown) => return (held, Err(StoreError::Unavailable("the outcome could not be learnt".into()))),
                Err(TxnError::Store(e)) => return (held, Err(e)),
            }
            jobs.iter().for_each(|j| j.pause());
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
                Some(row) => Write::Put { key: key.clone(), value: text(row.value()), lease: None },
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
        match timeout(COMMIT_TIMEOUT, self.store.txn(txn)).await {
            Ok(Ok(revision)) => Ok(Some(revision)),
            Ok(Err(TxnError::Unknown)) | Err(_) => {
                self.counts.unknown.add();
                for attempt in 0..20 {
                    match timeout(COMMIT_TIMEOUT, self.store.resolve(id)).await {
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

/// A row as it is stored, in no more room than it needs: the view and the history keep it.
fn text(value: &serde_json::Value) -> bytes::Bytes {
    value.to_string().into_boxed_str().into_boxed_bytes().into()
}

#[cfg(test)]
mod tests;
