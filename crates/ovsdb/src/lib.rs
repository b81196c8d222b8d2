//! A small OVSDB client (RFC 7047) on tokio: transactions, and tables followed into memory.
//!
//! Guarantees: every call ends by its deadline; a lost connection is made again, to the next endpoint, and followed
//! tables are then read anew as a whole; a transaction whose connection broke is reported as [`Error::Unknown`], because
//! it may have happened. Of a database that several servers keep as a cluster it can follow the leader alone, so that it never reads what
//! is old. It does not retry transactions and knows nothing of any particular schema.
mod client;
mod endpoint;
mod frame;
mod leader;
mod replica;
mod session;
mod tls;
mod unixctl;
pub mod value;

pub use client::{Client, Target};
pub use endpoint::Endpoint;
pub use leader::Leader;
pub use replica::{Replica, Row, Table, Tables};
pub use tls::Tls;
pub use unixctl::unixctl;

use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{0}` is not an OVSDB endpoint; write unix:/path, tcp:host:port or ssl:host:port")]
    Endpoint(String),
    #[error("the database at {endpoints} did not answer {what} within {within:?}; check that its server runs")]
    Deadline { what: &'static str, endpoints: String, within: Duration },
    #[error("the connection to {endpoints} broke during {what}; read back whether it happened")]
    Unknown { what: &'static str, endpoints: String },
    #[error("the database refused {what}: {text}")]
    Refused { what: &'static str, text: String },
    #[error("operation {index} ({op} on {table}) failed: {text}; nothing of the transaction was done")]
    Operation { index: usize, op: String, table: String, text: String },
    #[error("the database sent something that is not OVSDB: {0}")]
    Protocol(String),
}
