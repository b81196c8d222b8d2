//! A whole cluster on one machine, to try what high availability is worth: real processes on hosts that are namespaces, and faults.
//!
//! ```text
//!   drover-c1  drover-c2  drover-c3  drover-n1 …  drover-client     one network namespace each, eth0, 10.77.0.0/24
//!       │          │          │          │             │
//!   ────┴──────────┴───── drover-lab ────┴─────────────┴────        a bridge; links are cut here, out of the hosts' reach
//! ```
//!
//! A host has process, mount and host-name namespaces of its own, too: its first process is its power. When that one is killed, the
//! kernel kills all others at once, as a power cut does; the next start has another boot id. A host's disk is a directory, which stays.
//! Each has the same share of the processors. What runs on a host is what runs on any machine, started by the same commands:
//! `drover server`, `drover node`.
mod command;
mod fault;
mod host;
mod net;
mod power;
mod process;
mod share;
mod status;
mod up;

pub use command::{Answer, Command, run};
pub use status::Status;

use std::{path::PathBuf, time::Duration};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no lab in {dir}; make one with: drover lab up", dir = dir.display())]
    NoLab { dir: PathBuf },
    #[error(
        "network namespace {name} exists and is not of this lab; run drover lab down with the other lab's --state, or ip netns del {name}"
    )]
    Foreign { name: String },
    #[error("the lab has no host {name}; its hosts are {hosts}")]
    NoHost { name: String, hosts: String },
    #[error("a lab has 1 to 9 controllers and at most 80 nodes; this one would have {controllers} and {nodes}")]
    Size { controllers: u8, nodes: u8 },
    #[error("the lab has {old} and cannot be changed to {new} while it is there; run drover lab down first")]
    OtherShape { old: String, new: String },
    #[error("{host} is off; switch it on with: drover lab power-on {host}")]
    Off { host: String },
    #[error("nothing named {what} runs on {host}; there are {there}")]
    NothingRuns { host: String, what: String, there: String },
    #[error("`{command}` on {host} failed: {stderr}")]
    Failed { host: String, command: String, stderr: String },
    #[error("`{command}` on {host} is not done after {within:?}; look at the logs below {dir}", dir = dir.display())]
    Slow { host: String, command: String, within: Duration, dir: PathBuf },
    #[error("{what} is not so after {within:?}; look at drover lab status and the logs below {dir}", dir = dir.display())]
    Late { what: String, within: Duration, dir: PathBuf },
    #[error("cannot {act} {path}; check its owner and the free space", path = path.display())]
    File { act: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{path} is not valid; remove the lab with: drover lab down", path = path.display())]
    Damaged { path: PathBuf, source: serde_json::Error },
    #[error(transparent)]
    Daemon(#[from] supervise::Error),
}
