//! Simulated hosts, for benchmarks: the real agent over ports in memory.
use crate::config::{Config, State};
use compute::nodes::Nodes;
use image::blob::LocalStore;
use node::sim::{Delays, Size};
use std::sync::Arc;

/// What each host claims to have: enough for hundreds of small servers.
pub(crate) const SIZE: Size = Size { vcpus: 64, memory_mib: 512 * 1024, disk_gib: 8 * 1024 };

/// Runs that many hosts until it is dropped.
pub(crate) async fn run(state: State, config: Config, nodes: Arc<Nodes>, blobs: Arc<LocalStore>) {
    let mut running = Vec::new();
    for i in 0..config.simulate {
        // Several machines of one cloud may simulate hosts.
        let name = config.name.as_ref().map_or_else(|| format!("sim-{i}"), |machine| format!("{machine}-sim-{i}"));
        let dir = state.node().join(&name);
        // Snapshots of simulated guests are real files, made here.
        if let Err(e) = std::fs::create_dir_all(&dir) {
            tracing::error!(host = name, error = %e, "A simulated host has no directory; its snapshots will fail");
        }
        let mut config = node::Config::new(dir, &name);
        config.heavy_steps = 64;
        let (agent, sim) = node::sim::start(config, SIZE, Delays::default(), nodes.join(&name).await, blobs.clone());
        nodes.attach(&name, agent.clone());
        running.push((agent, sim));
    }
    std::future::pending::<()>().await;
    drop(running);
}
