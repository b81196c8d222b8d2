//! The line between nodes and controllers, and between controllers: gRPC over mutual TLS (DESIGN section 6).
//!
//! ```text
//!  node n1 ──Attach: levels down, reports up──▶ controller c1 ──Ask, Show──▶ controller c2 (who has node n2)
//!          ──Fetch, Store: image blobs───────▶             ──Fetch────────▶
//!          ──Join (no certificate yet)───────▶
//! ```
//! Who may say what hangs on the certificate of the connection alone: a node's opens that node and nothing else, whatever the messages
//! say. Messages are the types of crate `assign` as JSON inside gRPC's framing, so that an older process reads a newer one's; image
//! blobs and displays are plain bytes.
//!
//! A node is attached to one controller at a time, any of them. Each time it gets its assignments whole, as they are *now*: a controller that
//! cannot reach the store attaches nobody, so what a node is told never goes back in time.
mod blobs;
mod call;
mod join;
mod level;
mod node;
mod peer;
mod server;
mod session;
mod tunnel;
mod wire;

pub use blobs::RemoteBlobs;
pub use call::{Credentials, Way};
pub use join::{Admitted, join};
pub use node::{Settings, Upstream};
pub use peer::Peers;
pub use server::{Controller, Service, listen, serve};
pub use wire::{Grant, JoinRequest, Refused};

use std::time::Duration;

/// The port of this protocol on every controller.
pub const PORT: u16 = 8775;

/// An end that is silent for so long is asked whether it lives.
const PROBE: Duration = Duration::from_secs(2);
/// And has so long to answer; then the connection is given up.
const PROBE_ANSWER: Duration = Duration::from_secs(3);
const CONNECT: Duration = Duration::from_secs(2);
/// Of calls that carry a question and an answer.
const ANSWER: Duration = Duration::from_secs(15);
/// Bytes of the largest message that is taken from a node.
const FROM_NODE: usize = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{address} cannot be reached: {cause}; see whether a controller runs there")]
    Unreachable { address: String, cause: String },
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Pki(#[from] pki::Error),
    #[error("the certificate or key of this machine cannot be used: {0}; join again")]
    Credentials(String),
    #[error("the line's address {address} cannot be used: {source}")]
    Listen { address: std::net::SocketAddr, source: std::io::Error },
}
