//! A whole cloud over HTTP, on simulated hosts: [`servers`] says what it does, [`misuse`] what it must not do, [`controllers`] that
//! several processes do it together, [`idempotency`] that what is sent twice is done once, and
//! [`deadlines`] that what nobody waits for is not done, [`policy`] that the operator decides who may what.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
mod bed;
#[path = "../common/mod.rs"]
mod common;
mod controllers;
mod deadlines;
mod idempotency;
mod misuse;
mod policy;
mod servers;
