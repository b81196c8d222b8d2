//! The node agent: makes one host match its assignments, and says what it sees.
//!
//! ```text
//!   Uplink ── assignments ──▶ agent ──▶ one task per server: observe ─▶ plan ─▶ step ─▶ observe …
//!      ▲                        │                               │         (pure)  │
//!      └────── reports ◀────────┘                               └── Hypervisor, Nics, Metadata, Volumes (ports)
//! ```
//! Volumes that this node keeps have such a task each, too.
//!
//! Guarantees: steps of one server never overlap; the newest assignment wins; nothing is done for an epoch older than the newest
//! seen; guests outlive the agent and are adopted again; a server that is no longer assigned leaves nothing behind. The agent
//! needs the control plane only to learn of changes. It makes no placement decision and never restarts a guest that
//! ended unasked for the same revision: that is the controller's choice.
mod agent;
mod blackboard;
mod command;
mod config;
pub mod driver;
mod error;
pub mod host;
mod leftovers;
pub mod metadata;
pub mod nic;
pub mod plan;
pub mod qemu;
pub mod remember;
mod server;
pub mod sim;
mod snapshot;
mod storage;
mod switch;
pub mod volume;

pub use agent::Agent;
pub use config::{Config, GuestUsers};
pub use error::Error;
pub use nic::{SwitchError, VirtualSwitch};
pub use switch::OvnSwitch;

use assign::{Blobs, Uplink};
use std::sync::Arc;

/// Starts the agent of this host on QEMU; it works until it is dropped.
pub async fn start(
    config: Config,
    uplink: Arc<dyn Uplink>,
    blobs: Arc<dyn Blobs>,
    switch: Arc<dyn VirtualSwitch>,
) -> Result<Arc<Agent>, Error> {
    config.check()?;
    let memory = Arc::new(remember::Memory::open(&config.dir)?);
    let hypervisor = qemu::Qemu::start(&config, blobs.clone(), memory.clone(), switch.carries_offloads()).await?;
    let volumes = storage::Storage::open(&config, blobs.clone(), hypervisor.cache(), hypervisor.users()).await?;
    let ports = driver::Ports {
        hypervisor: Arc::new(hypervisor),
        volumes,
        nics: Arc::new(nic::Taps::new(&config, switch.clone())),
        metadata: Arc::new(metadata::Responder::new(&config, switch, uplink.clone())),
    };
    Ok(Agent::start(config, ports, memory, uplink, blobs))
}

/// Ends all guests and storage daemons of this node and takes their interfaces and namespaces away, while no agent runs. Disks stay, and the next agent
/// starts again what is still wanted.
pub async fn stop_all(config: &Config) -> Result<(), Error> {
    config.check()?;
    if !config.dir.exists() {
        return Ok(());
    }
    qemu::stop_all(config, &remember::Memory::open(&config.dir)?).await?;
    storage::stop_all(config).await?;
    nic::remove_all(config).await?;
    metadata::remove_all(config).await
}

/// Starts the agent and keeps it until the returned future is dropped.
pub async fn run(
    config: Config,
    uplink: Arc<dyn Uplink>,
    blobs: Arc<dyn Blobs>,
    switch: Arc<dyn VirtualSwitch>,
) -> Result<std::convert::Infallible, Error> {
    let _agent = start(config, uplink, blobs, switch).await?;
    std::future::pending().await
}
