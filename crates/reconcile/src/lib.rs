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
mod queue;
mod task;

pub use queue::{Next, Pending, Reconciler, Runner, Work};
pub use task::{Task, TaskList, TaskState};
