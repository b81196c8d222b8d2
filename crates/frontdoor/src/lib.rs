//! The public address of a cluster, and what answers there: haproxy and keepalived on each controller.
//!
//! ```text
//!   client ──TLS──▶ VIP:8774 (keepalived: on one controller at a time)
//!                      │ haproxy of that controller
//!                      ├──TLS, cluster CA──▶ c1:8776
//!                      ├──TLS, cluster CA──▶ c2:8776     who can serve, they tell each other (see `pulse`)
//!                      └──TLS, cluster CA──▶ c3:8776
//! ```
//!
//! A controller that dies costs its clients one connection: the address moves in under a second, and a request that is safe to repeat
//! (a read, or a POST with an `Idempotency-Key`) is repeated on another controller before the client sees anything. Others are repeated
//! only when nothing was sent.
//!
//! What a controller must do for it: answer `/livez` as long as it runs, with or without its store, and tell a [`Pulse`]
//! beside it, in another process, how it is, with a [`Voice`].
//! The API may believe `X-Forwarded-For` and `X-Forwarded-Proto` of whoever shows a controller's certificate, as every door does.
//!
//! Both programs outlive Drover, as all daemons of `supervise`. Their configuration is a plain function of a [`FrontDoor`].
mod certificate;
mod door;
mod haproxy;
mod judge;
mod keepalived;
mod pulse;
mod voice;

pub use door::{Status, Watched};
pub use judge::Readiness;
pub use pulse::{AGENT_PORT, PULSE_PORT, Pulse, Sockets};
pub use voice::Voice;

use ipnet::IpNet;
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// Where clients of a cluster come in.
pub const PORT: u16 = 8774;
/// Where, on loopback only, haproxy tells that it runs, `/door`, and how it is: `/metrics` for Prometheus.
pub const LOCAL_PORT: u16 = 8777;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {act} {path}; check its owner and the free space", path = path.display())]
    File { act: &'static str, path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Daemon(#[from] supervise::Error),
    #[error("{program} refuses its configuration, and goes on with the old one: {text}; check the certificate, then report this")]
    Refused { program: &'static str, text: String },
    #[error("{program} has not taken its new configuration over after {within:?}; look at its log in {dir}", dir = dir.display())]
    NotReloaded { program: &'static str, within: std::time::Duration, dir: PathBuf },
    #[error("no interface has the address {address}; give it to one, or name the interface")]
    NoInterface { address: IpAddr },
    #[error("{name} is not among the controllers; add it, with the address of its API")]
    Stranger { name: String },
    #[error("the public address {vip} and the controllers' addresses are of different IP versions; use one version for both")]
    Mixed { vip: IpAddr },
}

/// A certificate and its key (PEM).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// The address that moves to a controller that lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    pub address: IpNet,
    /// `None`: the interface that has this controller's own address.
    pub interface: Option<String>,
}

/// A controller as the doors see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    pub name: String,
    /// Where its API answers by TLS.
    pub api: SocketAddr,
}

/// The door of one controller; see the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontDoor {
    /// This controller's; one of `controllers`.
    pub name: String,
    /// For what is generated, logs and sockets; nobody else's, and its path is short enough for a socket (80 bytes).
    pub dir: PathBuf,
    /// A named network namespace.
    pub netns: Option<String>,
    /// This controller's own addresses that clients may use besides the VIP.
    pub listen: Vec<IpAddr>,
    pub port: u16,
    pub local_port: u16,
    pub vip: Option<Vip>,
    /// The cluster's authority (PEM).
    pub ca: PathBuf,
    /// This machine's, of the cluster's authority.
    pub machine: Certificate,
    /// What clients are shown instead, when the operator brings a certificate of their own.
    pub public: Option<Certificate>,
    /// All of the cluster, in any order.
    pub controllers: Vec<Controller>,
}
