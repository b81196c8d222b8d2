//! Against real etcds, which the tests start and end: scripts/install-deps brings them. One binary, as each links the whole engine.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]
mod common;
mod conformance;
mod copy;
mod faults;
mod limits;
mod member;
mod watch;
