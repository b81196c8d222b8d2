//! What an engine gives. Every promise written here is checked by the conformance suite.
use bytes::Bytes;
use std::{future::Future, pin::Pin, sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// Grows by one with every transaction that writes; assigned inside it, so there are no gaps.
pub type Revision = u64;
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Names one attempt to commit. A new attempt needs a new id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TxnId(pub u128);
impl TxnId {
    pub fn random() -> Self {
        Self(rand::random())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub u64);

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: Arc<str>,
    pub value: Bytes,
    /// Revision of the transaction that created it.
    pub created: Revision,
    /// Revision of the transaction that wrote it last.
    pub modified: Revision,
    /// Lease whose end deletes the row.
    pub lease: Option<LeaseId>,
}

/// A condition that must hold when the transaction commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    Absent(Arc<str>),
    /// The row exists and was last written by this revision.
    Modified(Arc<str>, Revision),
    /// No row below the prefix was written after this revision. Deletions do not count.
    Quiet {
        prefix: Arc<str>,
        since: Revision,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    Put { key: Arc<str>, value: Bytes, lease: Option<LeaseId> },
    Delete { key: Arc<str> },
}
impl Write {
    pub fn key(&self) -> &Arc<str> {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// All compares hold and all writes happen, or nothing happens. A key is written at most once.
#[derive(Clone, Debug)]
pub struct Txn {
    pub id: TxnId,
    pub compares: Vec<Compare>,
    pub writes: Vec<Write>,
}

/// What became of a transaction whose answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Committed(Revision),
    /// It did not happen and, from now on, cannot.
    Aborted,
}

#[derive(Debug, thiserror::Error)]
pub enum TxnError {
    /// A compare did not hold. Nothing was written. The store had reached `at_least` when it was decided.
    #[error("a row changed while the transaction ran")]
    Conflict { at_least: Revision },
    /// It may or may not have been committed: ask [`Store::resolve`].
    #[error("the outcome of the transaction is not known")]
    Unknown,
    /// It was surely not committed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store cannot be reached: {0}")]
    Unavailable(String),
    #[error("the store is full: {0}")]
    Full(String),
    #[error("lease {0:?} is over")]
    LeaseOver(LeaseId),
    /// Nothing was written.
    #[error("the deadline passed before the transaction could be carried out")]
    Late,
    #[error("the store's data is damaged: {0}")]
    Damaged(String),
}

/// A page of rows with a prefix, in key order.
#[derive(Clone, Debug)]
pub struct Range<'a> {
    pub prefix: &'a str,
    /// Start behind this key.
    pub after: Option<&'a str>,
    pub limit: usize,
}

#[derive(Clone, Debug)]
pub struct Page {
    pub entries: Vec<Entry>,
    pub more: bool,
    /// Every row of the page is as of this revision or newer.
    pub revision: Revision,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Put(Entry),
    Delete(Arc<str>),
}

/// Everything that one transaction changed below the watched prefix; empty when it changed nothing there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub revision: Revision,
    pub events: Arc<[Event]>,
}

/// Why a watch ended; the watcher reads anew (`Compacted`) or watches again from its last revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchEnd {
    #[error("the watch fell too far behind")]
    Lagged,
    #[error("the history before this revision is gone")]
    Compacted,
    #[error("the store closed the watch")]
    Closed,
}

/// Batches in revision order without gaps.
pub struct Watch {
    pub(crate) batches: mpsc::Receiver<Batch>,
}
impl Watch {
    pub fn new(batches: mpsc::Receiver<Batch>) -> Self {
        Self { batches }
    }
    /// The next batch. A watcher that cannot keep up is cut off: `Lagged`.
    pub async fn next(&mut self) -> Result<Batch, WatchEnd> {
        self.batches.recv().await.ok_or(WatchEnd::Lagged)
    }
}

/// A store engine. Cheap to share; all methods may be called at once from many tasks.
pub trait Store: Send + Sync + 'static {
    /// Commits durably, or not at all. Returns the revision; one without writes returns the current revision.
    fn txn(&self, txn: Txn) -> Pending<'_, Result<Revision, TxnError>>;
    /// Tells what became of a transaction, and if it has not happened yet sees to it that it never will.
    fn resolve(&self, id: TxnId) -> Pending<'_, Result<Outcome, StoreError>>;
    fn get<'a>(&'a self, key: &'a str) -> Pending<'a, Result<Option<Entry>, StoreError>>;
    fn range<'a>(&'a self, range: Range<'a>) -> Pending<'a, Result<Page, StoreError>>;
    /// The newest committed revision, linearizable.
    fn revision(&self) -> Pending<'_, Result<Revision, StoreError>>;
    /// Changes below `prefix` after revision `after`. `Err(Compacted)` when the history does not reach back so far.
    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> Pending<'a, Result<Watch, WatchEnd>>;
    /// A lease that ends when it is not kept alive for `ttl`, judged by monotonic time; its rows are then deleted.
    fn lease_grant(&self, ttl: Duration) -> Pending<'_, Result<LeaseId, StoreError>>;
    fn lease_keep_alive(&self, lease: LeaseId) -> Pending<'_, Result<(), StoreError>>;
    fn lease_revoke(&self, lease: LeaseId) -> Pending<'_, Result<(), StoreError>>;
    /// How many writes and compares fit into one transaction.
    fn max_ops(&self) -> usize {
        1024
    }
}
