//! A store that can be frozen: it then refuses every commit that writes, as a full disk does.
//!
//! In a frozen cloud a request that passes all checks ends with 503 and changes nothing, so any number of requests by anybody meet
//! the same world, in any order. It is the test of a full disk besides.
use std::{
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use store::{
    Entry, LeaseId, Memory, Outcome, Page, Pending, Range, Revision, Store, StoreError, Txn, TxnError, TxnId, Watch, WatchEnd,
};

pub(crate) struct Frozen {
    inner: Arc<dyn Store>,
    frozen: AtomicBool,
}

impl Frozen {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { inner: Memory::new(), frozen: AtomicBool::new(false) })
    }
    pub(crate) fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::SeqCst);
    }
}

impl Store for Frozen {
    fn txn(&self, txn: Txn) -> Pending<'_, Result<Revision, TxnError>> {
        if !txn.writes.is_empty() && self.frozen.load(Ordering::SeqCst) {
            return Box::pin(async { Err(StoreError::Full("it is frozen".into()).into()) });
        }
        self.inner.txn(txn)
    }
    fn resolve(&self, id: TxnId) -> Pending<'_, Result<Outcome, StoreError>> {
        self.inner.resolve(id)
    }
    fn get<'a>(&'a self, key: &'a str) -> Pending<'a, Result<Option<Entry>, StoreError>> {
        self.inner.get(key)
    }
    fn range<'a>(&'a self, range: Range<'a>) -> Pending<'a, Result<Page, StoreError>> {
        self.inner.range(range)
    }
    fn revision(&self) -> Pending<'_, Result<Revision, StoreError>> {
        self.inner.revision()
    }
    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> Pending<'a, Result<Watch, WatchEnd>> {
        self.inner.watch(prefix, after)
    }
    fn lease_grant(&self, ttl: Duration) -> Pending<'_, Result<LeaseId, StoreError>> {
        self.inner.lease_grant(ttl)
    }
    fn lease_keep_alive(&self, lease: LeaseId) -> Pending<'_, Result<(), StoreError>> {
        self.inner.lease_keep_alive(lease)
    }
    fn lease_revoke(&self, lease: LeaseId) -> Pending<'_, Result<(), StoreError>> {
        self.inner.lease_revoke(lease)
    }
    fn max_ops(&self) -> usize {
        self.inner.max_ops()
    }
}
