//! Reconcilers make the world match the rows.
//!
//! ```text
//!   view changes ──┐
//!   timer (resync) ├─> queue of keys ─> reconcile(key) ─┬─ Ok(Done)      forget the key until it changes
//!   back-off ──────┘   one run per key                  ├─ Ok(After(d))  again in d
//!                                                       └─ Err(e)        again after a growing wait; e is in the task list
//! ```
//! A reconciler gets a key, never an event: it takes the row, asks the world, compares, acts, and reports by [`Work::transact`].
//! Running it twice must equal running it once; it does not retry inside and does not undo. Any process may die at any instant:
//! the next one starts by looking at every key.
//!
//! Any number of processes do this at once. Each key belongs to one of them at a time ([`Shards`]), and what it writes is refused by
//! the store once the key is another's.
mod queue;
mod shards;
mod share;
mod task;

pub use queue::{Next, Pending, Place, Reconciler, Runner, Work};
pub use shards::{Fence, Hold, MEMBERS, SHARDS, Shards, line_of, lines, members};
pub use share::{COUNT, shard_of};
pub use task::{Task, TaskList, TaskState};

/// What [`Shards`] keeps in the store.
pub const TABLES: [&store::Table; 2] = [&MEMBERS, &SHARDS];
