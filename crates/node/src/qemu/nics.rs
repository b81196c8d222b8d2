//! Attaching interfaces to guests, and detaching them. The tap is opened here and handed over as a file descriptor.
use crate::{
    Error, nic,
    qemu::{Live, Qemu, cmdline, qmp::QmpError},
};
use assign::PortAssignment;
use serde_json::json;
use std::collections::BTreeMap;

impl Qemu {
    /// Attaches a plugged port to the guest.
    pub(super) async fn attach_nic(&self, id: &str, port: &PortAssignment) -> Result<(), Error> {
        let known = self.memory.get(id);
        let plug_error = |cause: String| Error::Plug { port: port.id.clone(), cause };
        let process = known.process.as_ref().ok_or_else(|| Error::NotRunning(id.to_owned()))?;
        let plugged = known.ports.get(&port.id).ok_or_else(|| plug_error("it has no interface yet".into()))?;
        let live = self.running(id).await?;
        let used = |slot: &u8| process.nics.values().any(|s| s == slot);
        let mut free = (0..cmdline::SLOTS).filter(|s| !used(s));
        if !is_attached(&live, &port.id).await? {
            let (name, netdev) = (format!("fd-{}", port.id), cmdline::netdev_id(&port.id));
            // What an attempt that was interrupted left holds the tap, which can be open once only.
            let _ = live.qmp.run("netdev_del", json!({ "id": netdev })).await;
            let _ = live.qmp.run("closefd", json!({ "fdname": name })).await;
            let fd = nic::tun::open(&plugged.interface, self.offloads)
                .map_err(|e| plug_error(format!("its interface cannot be opened: {e}")))?;
            live.qmp.pass(&name, &fd).await?;
            live.qmp.run("netdev_add", json!({ "type": "tap", "id": netdev, "fd": name })).await?;
            // A device that the guest has not let go of yet may still sit in a slot that is free in our books.
            let slot = loop {
                let Some(slot) = free.next() else {
                    return Err(plug_error(format!("server {id} has {} interfaces already; detach one", cmdline::SLOTS)));
                };
                match live.qmp.run("device_add", cmdline::nic(port, slot, &process.machine)).await {
                    Ok(_) => break slot,
                    Err(QmpError::Refused { text, .. }) if is_slot_taken(&text) => {}
                    Err(QmpError::Refused { text, .. }) => return Err(plug_error(text)),
                    Err(e) => return Err(e.into()),
                }
            };
            return self.note(id, |nics| nics.insert(port.id.clone(), slot));
        }
        // An agent that was interrupted here before attached it to the first free slot.
        let slot = free.next().unwrap_or(0);
        self.note(id, |nics| *nics.entry(port.id.clone()).or_insert(slot))
    }

    /// Records which slots are taken.
    fn note<T>(&self, id: &str, change: impl FnOnce(&mut BTreeMap<String, u8>) -> T) -> Result<(), Error> {
        self.memory
            .update(id, |r| {
                if let Some(process) = &mut r.process {
                    change(&mut process.nics);
                }
            })
            .map(drop)
    }

    /// Asks the guest to let go of the interface; without an answer its cable is cut, and the empty device stays until the next start.
    pub(super) async fn detach_nic(&self, id: &str, port: &str) -> Result<(), Error> {
        let live = self.running(id).await?;
        let device = cmdline::nic_id(port);
        if is_attached(&live, port).await? {
            let mut events = live.qmp.events();
            live.qmp.run("device_del", json!({ "id": device })).await?;
            let released = async {
                loop {
                    match events.recv().await {
                        Ok(e) if e.name == "DEVICE_DELETED" && e.data["device"] == device.as_str() => return,
                        Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                        Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                    }
                }
            };
            if tokio::time::timeout(self.config.unplug_timeout, released).await.is_err() {
                tracing::warn!(server = id, port, "the guest did not let go of an interface; it is cut off");
            }
        }
        match live.qmp.run("netdev_del", json!({ "id": cmdline::netdev_id(port) })).await {
            // It is not there (any more).
            Ok(_) | Err(QmpError::Refused { .. }) => {}
            Err(e) => return Err(e.into()),
        }
        self.note(id, |nics| nics.remove(port))
    }
}

async fn is_attached(live: &Live, port: &str) -> Result<bool, Error> {
    let devices = live.qmp.run("qom-list", json!({ "path": "/machine/peripheral" })).await?;
    let id = cmdline::nic_id(port);
    Ok(devices.as_array().is_some_and(|d| d.iter().any(|d| d["name"] == id.as_str())))
}

pub(super) fn is_slot_taken(text: &str) -> bool {
    text.contains("already in use") || text.contains("not available") || text.contains("in use by")
}
