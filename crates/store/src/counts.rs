//! What the transactions of one process met, for those who watch it run.
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);
impl Count {
    pub(crate) fn add(&self) {
        self.add_many(1);
    }
    pub(crate) fn add_many(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Counts {
    /// Commits in the store; each carries one or more transactions.
    pub commits: Count,
    /// Transactions that were committed.
    pub transactions: Count,
    /// Commits that another process was quicker than; they ran again.
    pub conflicts: Count,
    /// Commits whose answer was lost; the store was asked what became of them.
    pub unknown: Count,
    /// Transactions that were given up at their deadline.
    pub late: Count,
}
