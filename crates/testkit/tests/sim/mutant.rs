//! Defects to be found: each breaks one promise of the store or of the line, as a defect above or below it would. A simulation that
//! does not find them finds nothing.
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use store::{
    Compare, Entry, LeaseId, Outcome, Page, Pending, Range, Revision, Store, StoreError, Txn, TxnError, TxnId, Watch, WatchEnd,
    Write,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// The epoch of the fence is not compared at the commit.
    NoFence,
    /// An unknown commit is taken for one that did not happen.
    BlindRetry,
    /// What a server holds of its host is not released.
    LeakedAllocation,
    /// That a row must be absent is not compared: names, addresses, keys.
    NoAbsence,
    /// One commit in a hundred is acknowledged and not carried out.
    LostWrite,
    /// A lease ends in a fifth of its time.
    ShortLease,
    /// Servers that a node is not assigned any more stay assigned.
    DeafNode,
    /// A host does what it was told before it lost its power, whatever epoch that was.
    EagerNode,
}

pub(crate) const ALL: [(&str, Mutant); 8] = [
    ("no-fence", Mutant::NoFence),
    ("blind-retry", Mutant::BlindRetry),
    ("leaked-allocation", Mutant::LeakedAllocation),
    ("no-absence", Mutant::NoAbsence),
    ("lost-write", Mutant::LostWrite),
    ("short-lease", Mutant::ShortLease),
    ("deaf-node", Mutant::DeafNode),
    ("eager-node", Mutant::EagerNode),
];

impl Mutant {
    pub(crate) fn named(name: &str) -> Option<Self> {
        ALL.iter().find(|(n, _)| *n == name).map(|(_, m)| *m)
    }
    pub(crate) fn name(self) -> &'static str {
        ALL.iter().find(|(_, m)| *m == self).map_or("", |(n, _)| n)
    }
}

/// The store with one defect.
pub(crate) struct Broken {
    pub(crate) inner: Arc<dyn Store>,
    pub(crate) mutant: Mutant,
    pub(crate) commits: AtomicU64,
}

impl Broken {
    fn spoil(&self, txn: &mut Txn) {
        match self.mutant {
            Mutant::NoFence => txn.compares.retain(|c| !matches!(c, Compare::Modified(k, _) if k.starts_with("control/shards/"))),
            Mutant::NoAbsence => txn.compares.retain(|c| !matches!(c, Compare::Absent(_))),
            Mutant::LeakedAllocation => {
                txn.writes.retain(|w| !matches!(w, Write::Delete { key } if key.starts_with("placement/allocations/")));
            }
            Mutant::BlindRetry | Mutant::LostWrite | Mutant::ShortLease | Mutant::DeafNode | Mutant::EagerNode => {}
        }
    }
}

impl Store for Broken {
    fn txn(&self, mut txn: Txn) -> Pending<'_, Result<Revision, TxnError>> {
        self.spoil(&mut txn);
        let nth = self.commits.fetch_add(1, Ordering::SeqCst);
        if self.mutant == Mutant::LostWrite && nth % 100 == 99 {
            return self.inner.txn(Txn { compares: Vec::new(), writes: Vec::new(), ..txn });
        }
        self.inner.txn(txn)
    }
    fn resolve(&self, id: TxnId) -> Pending<'_, Result<Outcome, StoreError>> {
        if self.mutant == Mutant::BlindRetry {
            return Box::pin(async { Ok(Outcome::Aborted) });
        }
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
        self.inner.lease_grant(if self.mutant == Mutant::ShortLease { ttl / 5 } else { ttl })
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
