//! The writer: one thread that owns the write connection, and commits in groups.
//!
//! One round: take what waits → decide each transaction in turn inside one SQLite transaction → `COMMIT` → publish → answer.
//! Nothing is answered or published before the commit, because a failed commit takes every decision of the round back.
//!
//! When `COMMIT` fails for another reason than a full disk, the end of the log may hold the round all the same, and a restart would
//! find it. The answer is then `Unknown`, and nothing else is done until a small commit has gone through: it overwrites that end of
//! the log, and with it the round is surely aborted.
use crate::{Shared, file, lock, rows::Rows};
use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};
use store::{Compare, Entry, Event, LeaseId, Outcome, Revision, StoreError, Txn, TxnError, TxnId, Write};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Requests in one round.
const GROUP: usize = 1024;
/// When to try again what could not be written.
const RETRY: Duration = Duration::from_millis(500);
/// How long to sleep when nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

pub(crate) enum Work {
    Txn(Txn, oneshot::Sender<Result<Revision, TxnError>>),
    Resolve(TxnId, oneshot::Sender<Result<Outcome, StoreError>>),
    Grant(Duration, oneshot::Sender<LeaseId>),
    Revoke(LeaseId, oneshot::Sender<Result<(), StoreError>>),
}

/// Work and its place in the queue, which is given back when the work is done.
pub(crate) struct Request {
    pub(crate) work: Work,
    pub(crate) place: OwnedSemaphorePermit,
}

type Decision = Result<Revision, TxnError>;

/// What one round decided, valid once it is committed.
#[derive(Default)]
struct Round {
    decisions: Vec<Decision>,
    /// In revision order, without gaps.
    changes: Vec<(Option<TxnId>, Arc<[Event]>)>,
}

enum Failed {
    /// Surely not committed.
    Clean(StoreError),
    /// `COMMIT` itself failed.
    Doubt(StoreError),
}

pub(crate) struct Writer {
    conn: Connection,
    path: PathBuf,
    revision: Revision,
    shared: Arc<Shared>,
    /// Leases that are over and whose rows are still to be deleted.
    over: Vec<LeaseId>,
    /// The end of the log may hold a round that was not acknowledged.
    doubt: bool,
}

impl Writer {
    pub(crate) fn new(conn: Connection, path: PathBuf, revision: Revision, shared: Arc<Shared>) -> Self {
        Self { conn, path, revision, shared, over: Vec::new(), doubt: false }
    }

    /// Works until the queue's other end is dropped and all that was in it is done.
    pub(crate) fn run(mut self, queue: Receiver<Request>) {
        loop {
            let mut requests = Vec::new();
            match queue.recv_timeout(self.sleep()) {
                Ok(first) => requests.push(first),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            requests.extend(queue.try_iter().take(GROUP - 1));
            self.serve(requests);
        }
    }

    fn sleep(&self) -> Duration {
        if !self.over.is_empty() || self.doubt {
            return RETRY;
        }
        lock(&self.shared.leases).next_end().map_or(IDLE, |end| end.saturating_duration_since(Instant::now()))
    }

    fn serve(&mut self, requests: Vec<Request>) {
        let (mut txns, mut replies, mut revokes, mut resolves) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut places = Vec::with_capacity(requests.len());
        {
            let mut leases = lock(&self.shared.leases);
            let now = Instant::now();
            self.over.extend(leases.end_expired(now));
            for Request { work, place } in requests {
                places.push(place);
                match work {
                    Work::Txn(txn, reply) => {
                        txns.push(txn);
                        replies.push(reply);
                    }
                    Work::Resolve(id, reply) => resolves.push((id, reply)),
                    // A caller that has left needs no answer, here and below.
                    Work::Grant(ttl, reply) => drop(reply.send(leases.grant(ttl, now))),
                    Work::Revoke(lease, reply) => {
                        if leases.end(lease) {
                            self.over.push(lease);
                        }
                        revokes.push(reply);
                    }
                }
            }
        }
        let outcome = self.round(&txns);
        let ended = outcome.as_ref().map(|_| ()).map_err(|(Failed::Clean(e) | Failed::Doubt(e))| e.clone());
        match outcome {
            Ok(decisions) => replies.into_iter().zip(decisions).for_each(|(reply, d)| drop(reply.send(d))),
            Err(Failed::Clean(e)) => replies.into_iter().for_each(|r| drop(r.send(Err(e.clone().into())))),
            Err(Failed::Doubt(_)) => replies.into_iter().for_each(|r| drop(r.send(Err(TxnError::Unknown)))),
        }
        revokes.into_iter().for_each(|reply| drop(reply.send(ended.clone())));
        for (id, reply) in resolves {
            let unknown = || Err(StoreError::Unavailable("it cannot tell before it can write again; try again".into()));
            reply.send(if self.doubt { unknown() } else { Ok(lock(&self.shared.hub).resolve(id)) }).ok();
        }
    }

    /// Commits and publishes; the decisions may be told when it returns.
    fn round(&mut self, txns: &[Txn]) -> Result<Vec<Decision>, Failed> {
        if self.doubt {
            self.overwrite_doubt().map_err(Failed::Clean)?;
        }
        if txns.is_empty() && self.over.is_empty() {
            return Ok(Vec::new());
        }
        let round = match self.commit(txns) {
            Err(Failed::Clean(StoreError::Full(_))) => {
                // Moving the log into the file lets it begin anew in the space that it has.
                self.conn.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).ok();
                self.commit(txns)
            }
            other => other,
        };
        let round = round.inspect_err(|failed| match failed {
            Failed::Clean(e) if txns.is_empty() => {
                tracing::warn!(error = %e, "Rows of ended leases could not be deleted; trying again")
            }
            Failed::Clean(_) => {}
            Failed::Doubt(e) => {
                tracing::error!(error = %e, "A commit failed and may have reached the disk; writes wait until one goes through");
            }
        });
        match round {
            Ok(round) => {
                self.over.clear();
                self.publish(round.changes);
                Ok(round.decisions)
            }
            Err(failed) => {
                self.doubt |= matches!(failed, Failed::Doubt(_));
                Err(failed)
            }
        }
    }

    fn commit(&mut self, txns: &[Txn]) -> Result<Round, Failed> {
        let (path, shared) = (&self.path, &self.shared);
        let clean = |e| Failed::Clean(file::failed(path, "be written", &e));
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(clean)?;
        let mut decide = Decide { rows: Rows(&tx), shared, base: self.revision, round: Round::default(), now: Instant::now() };
        decide.all(&self.over, txns).map_err(clean)?;
        let round = decide.round;
        if !round.changes.is_empty() {
            // The log's last frame is the commit: when the disk was full, it is not there.
            tx.commit().map_err(|e| match e.sqlite_error_code() {
                Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy) => clean(e),
                _ => Failed::Doubt(file::failed(path, "be committed", &e)),
            })?;
        }
        Ok(round)
    }

    fn publish(&mut self, changes: Vec<(Option<TxnId>, Arc<[Event]>)>) {
        self.revision += changes.len() as u64;
        // Under the lock, so that nobody sees one of the two ahead of the other.
        let mut hub = lock(&self.shared.hub);
        self.shared.published.send_replace(self.revision);
        for (id, events) in changes {
            hub.publish(id, events);
        }
        debug_assert_eq!(hub.revision(), self.revision);
    }

    /// See the module.
    fn overwrite_doubt(&mut self) -> Result<(), StoreError> {
        let mut commit = || {
            let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            Rows(&tx).count_up("repairs")?;
            tx.commit()
        };
        commit().map_err(|e| file::failed(&self.path, "be written", &e))?;
        self.doubt = false;
        tracing::info!("The store can be written again; the commit in doubt is taken back");
        Ok(())
    }
}

/// Decides the transactions of a round inside its SQLite transaction.
struct Decide<'a> {
    rows: Rows<'a>,
    shared: &'a Shared,
    base: Revision,
    round: Round,
    now: Instant,
}

impl Decide<'_> {
    fn all(&mut self, over: &[LeaseId], txns: &[Txn]) -> rusqlite::Result<()> {
        for lease in over {
            let keys = self.rows.delete_leased(*lease)?;
            if !keys.is_empty() {
                self.round.changes.push((None, keys.into_iter().map(Event::Delete).collect()));
            }
        }
        for txn in txns {
            let decision = self.one(txn)?;
            self.round.decisions.push(decision);
        }
        if self.round.changes.is_empty() { Ok(()) } else { self.rows.set_revision(self.revision()) }
    }

    fn revision(&self) -> Revision {
        self.base + self.round.changes.len() as u64
    }

    fn one(&mut self, txn: &Txn) -> rusqlite::Result<Decision> {
        let conflict = Err(TxnError::Conflict { at_least: self.revision() });
        if lock(&self.shared.hub).is_aborted(txn.id) {
            return Ok(conflict);
        }
        for compare in &txn.compares {
            if !self.holds(compare)? {
                return Ok(conflict);
            }
        }
        for write in &txn.writes {
            if let Write::Put { lease: Some(lease), .. } = write
                && !lock(&self.shared.leases).is_live(*lease, self.now)
            {
                return Ok(Err(StoreError::LeaseOver(*lease).into()));
            }
        }
        if txn.writes.is_empty() {
            return Ok(Ok(self.revision()));
        }
        let revision = self.revision() + 1;
        let mut events = Vec::with_capacity(txn.writes.len());
        for write in &txn.writes {
            match write {
                Write::Put { key, value, lease } => {
                    let created = self.rows.put(key, value, revision, *lease)?;
                    let entry = Entry { key: key.clone(), value: value.clone(), created, modified: revision, lease: *lease };
                    events.push(Event::Put(entry));
                }
                Write::Delete { key } => {
                    if self.rows.delete(key)? {
                        events.push(Event::Delete(key.clone()));
                    }
                }
            }
        }
        self.round.changes.push((Some(txn.id), events.into()));
        Ok(Ok(revision))
    }

    fn holds(&self, compare: &Compare) -> rusqlite::Result<bool> {
        match compare {
            Compare::Absent(key) => Ok(self.rows.modified(key)?.is_none()),
            Compare::Modified(key, revision) => Ok(self.rows.modified(key)? == Some(*revision)),
            Compare::Quiet { prefix, since } => self.quiet(prefix, *since),
        }
    }

    /// Looks only at keys that were written lately, when the history reaches back far enough; else at all below the prefix.
    fn quiet(&self, prefix: &str, since: Revision) -> rusqlite::Result<bool> {
        let Some(mut keys) = lock(&self.shared.hub).puts_after(prefix, since) else {
            return self.rows.any_since(prefix, since).map(|any| !any);
        };
        let ours = self.round.changes.iter().flat_map(|(_, events)| events.iter());
        keys.extend(ours.filter_map(|e| match e {
            Event::Put(e) if e.key.starts_with(prefix) => Some(e.key.clone()),
            Event::Put(_) | Event::Delete(_) => None,
        }));
        for key in keys {
            if self.rows.modified(&key)?.is_some_and(|m| m > since) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
