//! Interfaces, metadata and the switch of a simulated host: tables that say what is plugged.
use super::{lock, pass};
use crate::{
    Error, SwitchError, VirtualSwitch,
    driver::{Metadata, Nics, Owned},
};
use assign::{MetadataNetwork, Pending, PortAssignment, ServerAssignment};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

/// Interfaces and metadata of a simulated host.
pub(super) struct Wires {
    delay: Duration,
    plugged: Mutex<BTreeSet<String>>,
    published: Mutex<BTreeSet<String>>,
}

impl Wires {
    pub(super) fn new(delay: Duration) -> Self {
        Self { delay, plugged: Mutex::default(), published: Mutex::default() }
    }
    pub(super) fn plugged(&self) -> BTreeSet<String> {
        lock(&self.plugged).clone()
    }
    pub(super) fn clear(&self) {
        lock(&self.plugged).clear();
    }
}

impl Nics for Wires {
    fn plug<'a>(&'a self, port: &'a PortAssignment) -> Pending<'a, Result<String, Error>> {
        Box::pin(async move {
            pass(self.delay).await;
            lock(&self.plugged).insert(port.id.clone());
            Ok(format!("sim-{}", port.id))
        })
    }
    fn unplug<'a>(&'a self, port_id: &'a str) -> Pending<'a, Result<(), Error>> {
        Box::pin(async move {
            lock(&self.plugged).remove(port_id);
            Ok(())
        })
    }
    fn present(&self, ports: &mut dyn Iterator<Item = &String>) -> BTreeSet<String> {
        let plugged = lock(&self.plugged);
        ports.filter(|p| plugged.contains(*p)).cloned().collect()
    }
    fn sweep<'a>(&'a self, owned: Owned<'a>) -> Pending<'a, Vec<String>> {
        Box::pin(async move {
            let mut found: Vec<String> = lock(&self.plugged).iter().cloned().collect();
            let owned = owned();
            found.retain(|p| !owned.contains(p));
            lock(&self.plugged).retain(|p| !found.contains(p));
            found
        })
    }
}

impl Metadata for Wires {
    fn ensure<'a>(&'a self, _: &'a MetadataNetwork) -> Pending<'a, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
    fn remove<'a>(&'a self, _: &'a str) -> Pending<'a, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
    fn publish(&self, server: &Arc<ServerAssignment>) {
        lock(&self.published).insert(server.id.clone());
    }
    fn withdraw(&self, server_id: &str) {
        lock(&self.published).remove(server_id);
    }
    fn sweep<'a>(&'a self, _: Owned<'a>) -> Pending<'a, Vec<String>> {
        Box::pin(async { Vec::new() })
    }
}

/// A virtual switch without wires: it records what is plugged.
#[derive(Default)]
pub struct Switch(Mutex<BTreeMap<String, String>>);

impl Switch {
    /// Interfaces and their logical ports.
    pub fn plugged(&self) -> BTreeMap<String, String> {
        lock(&self.0).clone()
    }
}

impl VirtualSwitch for Switch {
    fn plug<'a>(&'a self, interface: &'a str, port_id: &'a str, _: &'a str) -> Pending<'a, Result<(), SwitchError>> {
        Box::pin(async move {
            lock(&self.0).insert(interface.to_owned(), port_id.to_owned());
            Ok(())
        })
    }
    fn unplug<'a>(&'a self, interface: &'a str) -> Pending<'a, Result<(), SwitchError>> {
        Box::pin(async move {
            lock(&self.0).remove(interface);
            Ok(())
        })
    }
    fn list(&self) -> Pending<'_, Result<BTreeMap<String, String>, SwitchError>> {
        Box::pin(async { Ok(self.plugged()) })
    }
}
