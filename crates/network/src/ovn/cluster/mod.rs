//! OVN's central part on the controllers of a cluster: of each database a raft, and northd everywhere.
//!
//! ```text
//!  control plane's store                              controller c1         c2                 c3
//!   ovn/clusters/nb  which raft counts ──┐             northd ◀─ one of them is active, by a lock in SB
//!   ovn/members/nb.c1  its data's id ────┼── Keeper ─▶ NB ◀── raft ──▶ NB ◀── raft ──▶ NB    6641, 6643
//!   ovn/members/sb.c1                    │             SB ◀── raft ──▶ SB ◀── raft ──▶ SB    6645, 6644
//!                                        │             relay             relay             relay    6642 ◀── chassis
//!                                        └─ who lost its data joins again; who is nobody any more is taken out
//! ```
//! Each controller looks after its own member ([`keep`]); the raft's leader takes out servers that no row names. Both databases are derived:
//! a raft that can never have a leader again, because most of its servers are nobody, is given up and begun anew, and comes back from rows.
//!
//! Nothing of this runs before a real host has joined.
//!
//! Who may speak: with the databases, and in their rafts, controllers alone, by an authority of their own; nodes with the [`relay`].
mod keep;
mod member;
mod plan;
mod relay;
mod rows;
mod status;

pub use keep::{keep, stop};
pub use rows::{CLUSTERS, Database, MEMBERS};
pub(crate) use rows::{Cluster, PREFIX, read};

use assign::Pending;
use ovsdb::{Endpoint, Tls};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};
use store::{Reader, Table};

/// A certificate, its key, and who vouches for the other side; PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pem {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Pem {
    /// As OVN's programs take them.
    fn arguments(&self) -> [String; 3] {
        let Self { ca, certificate, key } = self;
        [("private-key", key), ("certificate", certificate), ("ca-cert", ca)]
            .map(|(name, path)| format!("--{name}={}", path.display()))
    }
}

/// What a controller shows, and whom it trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// Of the cluster's authority, of which every machine has a certificate.
    pub machine: Pem,
    /// Of the authority that certifies controllers alone.
    pub controller: Pem,
    /// What controllers' certificates are made out to.
    pub server_name: String,
}

impl Certificates {
    /// What the databases are reached with.
    pub fn databases(&self) -> Tls {
        let Pem { ca, certificate, key } = self.controller.clone();
        Tls { ca, certificate, key, server_name: self.server_name.clone() }
    }
}

/// This machine, as a member.
#[derive(Clone, Debug)]
pub struct Controller {
    pub name: String,
    /// It is reached here by the other controllers and the nodes.
    pub address: IpAddr,
    /// Databases, sockets, records and logs.
    pub run_dir: PathBuf,
    /// A named network namespace.
    pub netns: Option<String>,
    pub certificates: Certificates,
}

/// The addresses of all who are controllers, living or not; `None` when nobody can say now.
pub type Roster = Arc<dyn Fn() -> Pending<'static, Option<Vec<IpAddr>>> + Send + Sync>;

/// The southbound database by the controller at that address, for chassis.
pub fn southbound(controller: IpAddr) -> Endpoint {
    Endpoint::ssl(SocketAddr::new(controller, relay::PORT))
}

/// Where the northbound database's members are.
pub(crate) fn northbound(reader: &Reader<'_>) -> Vec<Endpoint> {
    endpoints(reader, Database::Northbound)
}

fn endpoints(reader: &Reader<'_>, database: Database) -> Vec<Endpoint> {
    let (cluster, members) = read(reader, database);
    let current = members.iter().filter(|m| m.joined && cluster.as_ref().is_some_and(|c| c.cid == m.cid));
    current.map(|m| Endpoint::ssl(SocketAddr::new(m.address, database.port()))).collect()
}

/// The nodes of the cloud; compute owns the rows.
static NODES: Table = Table { name: "compute/nodes", indexes: &[] };

/// Does a host need OVN?
pub(crate) fn is_needed(reader: &Reader<'_>) -> bool {
    reader.all(&NODES).any(|node| node.text("hypervisor_type") != "sim")
}

/// Hosts whose guests are simulated: nothing plugs their ports.
pub(crate) fn simulated(reader: &Reader<'_>) -> std::collections::HashSet<String> {
    let simulated = reader.all(&NODES).filter(|node| node.text("hypervisor_type") == "sim");
    simulated.map(|node| node.text("host").to_owned()).collect()
}

/// Hosts with a way out to a provider network: routers' gateways may be there.
pub(crate) fn gateways(reader: &Reader<'_>) -> Vec<String> {
    let has_way_out = |node: &store::Row| node.field("physical_networks").as_array().is_some_and(|all| !all.is_empty());
    let mut hosts: Vec<String> = reader.all(&NODES).filter(|n| has_way_out(n)).map(|n| n.text("host").to_owned()).collect();
    hosts.sort_unstable();
    hosts
}

/// Returns when a host needs OVN.
pub(crate) async fn needed(db: &store::Db) {
    use tokio::sync::broadcast::error::RecvError;
    let mut changes = db.view.changes();
    let mut look = true;
    while !look || !is_needed(&db.read()) {
        look = match changes.recv().await {
            Ok(change) => change.keys.iter().any(|key| key.starts_with(NODES.name)),
            Err(RecvError::Lagged(_)) => true,
            Err(RecvError::Closed) => std::future::pending().await,
        };
    }
}
