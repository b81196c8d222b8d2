//! The one replicated store that holds all truth: rows with revisions, transactions, watch and leases.
//!
//! - [`Store`] is what an engine gives: memory (here), SQLite, etcd. All pass [`conformance`].
//! - [`View`] keeps every row in memory with the declared indexes, fed by watch. Reads are linearizable after [`Db::fresh`].
//! - [`Db::transact`] runs a closure against the view and commits what it wrote under the revisions that it read. A conflict is
//!   never shown to the caller.
//!
//! What it does not do: queries. What is not an id or a declared index is a filter over rows in memory.
mod barrier;
pub mod conformance;
mod counts;
mod db;
mod engine;
pub mod faulty;
mod hub;
mod memory;
mod tx;
mod view;

pub use counts::{Count, Counts};
pub use db::{Committed, Db, TransactError, Turn};
pub use engine::{
    Batch, Compare, Entry, Event, LeaseId, Outcome, Page, Pending, Range, Revision, Store, StoreError, Txn, TxnError, TxnId,
    Watch, WatchEnd, Write,
};
pub use hub::Hub;
pub use memory::Memory;
pub use tx::Tx;
pub use view::{Changed, Index, Reader, Row, Table, View};
