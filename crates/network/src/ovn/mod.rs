//! The data plane: what the cloud's networks should be, compiled into OVN's northbound database.
//!
//! ```text
//!  rows of the store ──▶ model::Topology ──compile──▶ row::Desired ──sync──▶ NB ──northd──▶ SB ──▶ ovn-controller
//!                                                                   ▲ replica of NB
//! ```
//! NB holds nothing that cannot be rebuilt: [`Nb::apply`] on an empty database gives the same rows as on any other. Each
//! row of ours bears a stable key in `external_ids`; rows without one belong to somebody else and are left alone.
pub mod central;
pub mod cluster;
pub mod compile;
mod daemon;
pub mod model;
pub mod names;
pub mod row;
pub mod sync;

pub use central::Central;
pub use compile::compile;
pub use model::Topology;
pub use row::Desired;
pub use sync::{Applied, Nb};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Database(#[from] ovsdb::Error),
    #[error(transparent)]
    Process(#[from] supervise::Error),
    #[error("cannot prepare {path} for OVN; check the directory's owner and free space", path = path.display())]
    File { path: std::path::PathBuf, source: std::io::Error },
    #[error("the rows about OVN's members cannot be used now; trying again")]
    Store(#[from] store::StoreError),
    #[error("OVN is not installed on this controller; install it with: apt-get install ovn-central openvswitch-common")]
    Missing,
    #[error("the northbound database has no NB_Global row; run ovn-northd against it once")]
    NoGlobal,
}
