//! A whole cloud over HTTP, on simulated hosts: [`servers`] says what it does, [`misuse`] what it must not do.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
mod bed;
mod misuse;
mod servers;
