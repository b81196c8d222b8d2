//! Plugging volumes into guests, and taking them out. A guest must let go of a volume itself, so this has two parts: it is asked, again and
//! again, and when its device is gone the volume is closed.
use crate::{
    Error,
    plan::Observed,
    qemu::{Live, Qemu, cmdline, qmp::QmpError},
    remember::{PluggedVolume, Remembered},
};
use assign::AttachedVolume;
use serde_json::json;
use std::{
    collections::{BTreeSet, HashMap},
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    sync::PoisonError,
    time::Duration,
};
use tokio::time::Instant;

/// When a guest was first and last asked, by server and attachment.
pub(super) type Asked = HashMap<(String, String), (Instant, Instant)>;

/// A guest that has not obeyed for so long is told of.
const STUCK: Duration = Duration::from_secs(60);
const ROOT_NODE: &str = "disk0";

/// What is remembered of a volume in a slot.
pub(super) fn record(volume: &AttachedVolume, slot: Option<u8>) -> PluggedVolume {
    PluggedVolume { volume_id: volume.volume_id.clone(), epoch: volume.epoch, slot, size_gib: volume.size_gib }
}

impl Qemu {
    /// Adds what the guest has of volumes to what is seen.
    pub(super) async fn look_at_volumes(&self, id: &str, known: &Remembered, seen: &mut Observed) {
        let Ok(Some(live)) = self.live(id, known).await else { return };
        let Ok(devices) = devices(&live).await else {
            // Nothing is closed and nothing is asked for on a guess.
            let all = known.process.iter().flat_map(|p| p.volumes.keys().cloned());
            seen.volumes = all.collect();
            seen.asked.clone_from(&seen.volumes);
            return;
        };
        let plugged = known.process.iter().flat_map(|p| p.volumes.keys());
        seen.volumes = plugged.filter(|a| devices.contains(&cmdline::volume_id(a))).cloned().collect();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|(server, attachment), _| server != id || seen.volumes.contains(attachment));
        for ((server, attachment), (first, last)) in asked.iter() {
            if server == id && last.elapsed() < self.config.unplug_timeout {
                seen.asked.insert(attachment.clone());
            }
            if server == id && first.elapsed() > STUCK {
                seen.stuck.insert(attachment.clone());
            }
        }
    }

    /// Lets the guest's process pass to the socket of its volume.
    pub(super) fn admit(&self, id: &str, volume: &AttachedVolume) -> Result<(), Error> {
        let failed = |cause: &str| Error::PlugVolume(volume.volume_id.clone(), cause.to_owned());
        let entrance = self.config.entrance(&volume.attachment_id);
        // What another node says is no reason to open some other path.
        if volume.endpoint.strip_prefix("unix:").map(Path::new) != Some(&*entrance) {
            return Err(failed("it is served on another node"));
        }
        let dir = entrance.parent().filter(|d| d.is_dir() && base::id::is_uuid(&volume.attachment_id));
        let dir = dir.ok_or_else(|| failed("it is not served any more"))?;
        if let Some(user) = self.user(id) {
            chown(dir, Some(0), Some(user)).map_err(Error::path("give", dir))?;
            fs::set_permissions(dir, fs::Permissions::from_mode(0o710)).map_err(Error::path("open to guests", dir))?;
        }
        Ok(())
    }

    /// Plugs a volume that is served.
    pub(super) async fn attach_volume(&self, id: &str, volume: &AttachedVolume) -> Result<(), Error> {
        let known = self.memory.get(id);
        let failed = |cause: String| Error::PlugVolume(volume.volume_id.clone(), cause);
        let process = known.process.as_ref().ok_or_else(|| Error::NotRunning(id.to_owned()))?;
        let live = self.running(id).await?;
        let used = |slot: &u8| process.volumes.values().any(|v| v.slot == Some(*slot));
        let mut free = (0..cmdline::volume_slots(&process.machine)).filter(|s| !used(s));
        if devices(&live).await?.contains(&cmdline::volume_id(&volume.attachment_id)) {
            // An agent that was interrupted here before plugged it into the first free slot.
            let slot = free.next().unwrap_or(0);
            return self.note_volume(id, volume, slot);
        }
        self.admit(id, volume)?;
        let node = cmdline::volume_node(&volume.attachment_id);
        // What an attempt that was interrupted left is replaced.
        let _ = live.qmp.run("blockdev-del", json!({ "node-name": node })).await;
        let refused = |e: QmpError| match e {
            QmpError::Refused { text, .. } => failed(text),
            e => e.into(),
        };
        live.qmp.run("blockdev-add", cmdline::volume_blockdev(volume, &node)).await.map_err(refused)?;
        // A device that the guest has not let go of yet may still sit in a slot that is free in our books.
        let plugged = loop {
            let Some(slot) = free.next() else {
                let most = cmdline::volume_slots(&process.machine);
                break Err(failed(format!("server {id} has {most} volumes already; detach one")));
            };
            match live.qmp.run("device_add", cmdline::volume(volume, slot, &process.machine)).await {
                Ok(_) => break Ok(slot),
                Err(QmpError::Refused { text, .. }) if super::nics::is_slot_taken(&text) => {}
                Err(e) => break Err(refused(e)),
            }
        };
        match plugged {
            Ok(slot) => self.note_volume(id, volume, slot),
            Err(error) => {
                // Best effort: the next attempt does it again.
                let _ = live.qmp.run("blockdev-del", json!({ "node-name": node })).await;
                Err(error)
            }
        }
    }

    fn note_volume(&self, id: &str, volume: &AttachedVolume, slot: u8) -> Result<(), Error> {
        let attachment = volume.attachment_id.clone();
        let noted = self.memory.update(id, |r| {
            r.volumes.insert(attachment.clone(), volume.epoch);
            if let Some(process) = &mut r.process {
                process.volumes.insert(attachment, record(volume, Some(slot)));
            }
        });
        noted.map(drop)
    }

    /// Asks the guest to let go of a volume; its answer comes as an event, or never.
    pub(super) async fn ask_for_volume(&self, id: &str, attachment: &str) -> Result<(), Error> {
        let live = self.running(id).await?;
        {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            asked.entry((id.to_owned(), attachment.to_owned())).or_insert((now, now)).1 = now;
        }
        match live.qmp.run("device_del", json!({ "id": cmdline::volume_id(attachment) })).await {
            // It is on its way out, or out: the next look tells.
            Ok(_) | Err(QmpError::Refused { .. }) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Closes a volume whose device is gone.
    pub(super) async fn detach_volume(&self, id: &str, attachment: &str) -> Result<(), Error> {
        let live = self.running(id).await?;
        let node = cmdline::volume_node(attachment);
        match live.qmp.run("blockdev-del", json!({ "node-name": node })).await {
            Ok(_) => {}
            Err(QmpError::Refused { .. }) if !has_node(&live, &node).await? => {}
            Err(e) => return Err(e.into()),
        }
        let noted = self.memory.update(id, |r| {
            r.volumes.remove(attachment);
            if let Some(process) = &mut r.process {
                process.volumes.remove(attachment);
            }
        });
        tracing::info!(server = id, attachment, "a volume was unplugged");
        noted.map(drop)
    }

    /// Tells the guest the new size of a volume.
    pub(super) async fn grow_volume(&self, id: &str, volume: &AttachedVolume) -> Result<(), Error> {
        let live = self.running(id).await?;
        let known = self.memory.get(id);
        let is_root = known.process.iter().any(|p| p.volumes.get(&volume.attachment_id).is_some_and(|v| v.slot.is_none()));
        let own = cmdline::volume_node(&volume.attachment_id);
        // Behind a rescue disk the root disk is the second one.
        let rescued = known.process.iter().any(|p| p.rescue.is_some());
        let node = if is_root && rescued {
            "disk1"
        } else if is_root {
            ROOT_NODE
        } else {
            &own
        };
        // A client that asks for nothing does not learn that its connection has ended, and connects again only when it asks.
        let read = format!("qemu-io {node} \"read 0 512\"");
        live.qmp.run("human-monitor-command", json!({ "command-line": read })).await?;
        match live.qmp.run("block_resize", json!({ "node-name": node, "size": volume.size_gib << 30 })).await {
            Ok(_) => {}
            // Its connection is not back yet.
            Err(QmpError::Refused { text, .. }) => return Err(Error::PlugVolume(volume.volume_id.clone(), text)),
            Err(e) => return Err(e.into()),
        }
        let grown = self.memory.update(id, |r| {
            let plugged = r.process.as_mut().and_then(|p| p.volumes.get_mut(&volume.attachment_id));
            plugged.into_iter().for_each(|v| v.size_gib = volume.size_gib);
        });
        grown.map(drop)
    }
}

/// Names of the devices that were added by name.
async fn devices(live: &Live) -> Result<BTreeSet<String>, Error> {
    let devices = live.qmp.run("qom-list", json!({ "path": "/machine/peripheral" })).await?;
    Ok(devices.as_array().into_iter().flatten().filter_map(|d| d["name"].as_str().map(str::to_owned)).collect())
}

async fn has_node(live: &Live, node: &str) -> Result<bool, Error> {
    let nodes = live.qmp.run("query-named-block-nodes", json!({ "flat": true })).await?;
    Ok(nodes.as_array().is_some_and(|n| n.iter().any(|n| n["node-name"] == node)))
}
