//! Finds what no assignment owns and removes it: interfaces, namespaces, processes and files that an interrupted agent left behind.
//!
//! Only things with our name prefixes, or below our own directory, are ever touched. What a task of a known server owns is its
//! business, so a thing is a leftover only when its server is neither assigned nor remembered.
use crate::agent::Shared;
use std::{collections::BTreeSet, sync::Arc};

pub(crate) async fn sweep_for_ever(shared: Arc<Shared>) {
    let mut informed = shared.informed.subscribe();
    // Nothing is a leftover before the controllers have spoken. An error means that the agent has ended.
    let _ = informed.wait_for(|i| *i).await;
    tokio::time::sleep(shared.config.orphan_grace).await;
    loop {
        sweep(&shared).await;
        tokio::time::sleep(shared.config.sweep_every).await;
    }
}

async fn sweep(shared: &Shared) {
    let removed = [
        ("process or file", shared.ports.hypervisor.sweep(&|| servers(shared)).await),
        ("interface", shared.ports.nics.sweep(&|| ports(shared)).await),
        ("volume", shared.ports.volumes.sweep(&|| volumes(shared)).await),
        ("namespace", shared.ports.metadata.sweep(&|| networks(shared)).await),
    ];
    for (kind, name) in removed.iter().flat_map(|(kind, names)| names.iter().map(move |n| (kind, n))) {
        tracing::warn!(kind, name, "a leftover was removed");
    }
}

fn servers(shared: &Shared) -> BTreeSet<String> {
    let assigned = shared.uplink.assignments().borrow().servers.keys().cloned().collect::<BTreeSet<_>>();
    let tasks = shared.servers().keys().cloned().collect::<Vec<_>>();
    assigned.into_iter().chain(tasks).chain(shared.memory.ids()).collect()
}

fn ports(shared: &Shared) -> BTreeSet<String> {
    let assigned = shared.uplink.assignments().borrow().clone();
    let wanted = assigned.servers.values().flat_map(|s| s.ports.iter().map(|p| p.id.clone()));
    wanted.chain(shared.memory.ids().iter().flat_map(|id| shared.memory.get(id).ports.into_keys())).collect()
}

fn networks(shared: &Shared) -> BTreeSet<String> {
    shared.uplink.assignments().borrow().networks.keys().cloned().collect()
}

/// Volumes and attachments that are assigned, or plugged.
fn volumes(shared: &Shared) -> BTreeSet<String> {
    let assigned = shared.uplink.assignments().borrow().clone();
    let kept = assigned.volumes.values().flat_map(|v| v.exports.iter().map(|e| e.attachment_id.clone()).chain([v.id.clone()]));
    let used = assigned.servers.values().flat_map(|s| s.volumes.iter().map(|v| v.attachment_id.clone()));
    let plugged = shared.memory.ids();
    kept.chain(used).chain(plugged.iter().flat_map(|id| shared.memory.get(id).volumes.into_keys())).collect()
}
