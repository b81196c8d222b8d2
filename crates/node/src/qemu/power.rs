//! Starting and ending a guest's process.
use crate::{
    Config, Error,
    qemu::{
        Live, Qemu,
        cmdline::{Drive, Launch, is_q35},
        config_drive, disks, process,
        qmp::{Qmp, QmpError},
    },
    remember::{Memory, Process},
};
use assign::ServerAssignment;
use base::Clock as _;
use serde_json::json;
use std::{path::Path, sync::Arc, time::Duration};
use tokio::time::Instant;

/// Time that guests get when the whole node is stopped.
const STOP_ALL: Duration = Duration::from_secs(5);

impl Qemu {
    /// Starts the process; the guest is held. Returns when QEMU answered.
    pub(super) async fn start_guest(&self, a: &ServerAssignment) -> Result<(), Error> {
        let (id, dir) = (a.id.as_str(), self.dir(&a.id));
        let began = Instant::now();
        self.make_dir(id)?;
        for socket in ["qmp.sock", "vnc.sock"] {
            super::cache::remove(&dir.join(socket))?;
        }
        let machine = self.machine(a);
        let launch = self.launch(a, &dir, &machine)?;
        let boot = a.volumes.iter().find(|v| v.boot && a.root.is_none());
        if let Some(volume) = boot {
            self.admit(id, volume)?;
        }
        let user = self.user(id).map(|u| (u, self.host.kvm_group.unwrap_or(u)));
        let wake = self.waker(id);
        let pid = process::spawn(&self.config.qemu, &launch.arguments(), user, &dir.join("qemu.log"), wake)?;
        // No await between the start and its record: a dropped future, or a killed agent, finds the process again.
        let start_time = process::start_time(pid).unwrap_or(0);
        let record = Process {
            pid,
            start_time,
            boot_id: self.boot_id.clone(),
            vcpus: a.vcpus,
            memory_mib: a.memory_mib,
            rescue: a.rescue.as_ref().map(|i| i.blob.clone()),
            rescue_format: a.rescue.as_ref().map(|i| i.format.clone()),
            machine,
            volumes: boot.iter().map(|v| (v.attachment_id.clone(), super::volumes::record(v, None))).collect(),
            launched_at: base::SystemClock.now(),
            ..Process::default()
        };
        let recorded = self.memory.update(id, |r| {
            r.process = Some(record);
            r.volumes.extend(boot.iter().map(|v| (v.attachment_id.clone(), v.epoch)));
            r.reboot_done = r.reboot_done.max(a.reboot.count);
            r.halted = None;
        });
        if let Err(error) = recorded {
            process::kill(pid, start_time).await?;
            return Err(error);
        }
        match self.first_answer(id, pid, start_time).await {
            Ok(live) => {
                self.live_ones().insert(id.to_owned(), Arc::new(live));
                tracing::info!(
                    server = id,
                    request = a.request_id,
                    pid,
                    ms = began.elapsed().as_millis(),
                    "a guest's process started"
                );
                Ok(())
            }
            Err(error) => {
                process::kill(pid, start_time).await?;
                self.memory.update(id, |r| r.process = None)?;
                Err(error)
            }
        }
    }

    /// A process that greets may still die of a bad option: only `query-status` counts.
    async fn first_answer(&self, id: &str, pid: u32, start_time: u64) -> Result<Live, Error> {
        let deadline = Instant::now() + self.config.start_timeout;
        let log = self.dir(id).join("qemu.log");
        loop {
            let attempt = async {
                let live = self.connect(id, pid, Duration::from_secs(2)).await?;
                live.qmp.run("query-status", json!({})).await?;
                Ok::<_, QmpError>(live)
            };
            match attempt.await {
                Ok(live) => return Ok(live),
                Err(_) if !process::is_alive(pid, start_time) => return Err(Error::Start(process::last_words(&log))),
                Err(error) if Instant::now() > deadline => {
                    return Err(Error::Start(format!("{error}; {}", process::last_words(&log))));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// A server keeps its versioned machine type while its process lives; a new process gets this QEMU's newest.
    fn machine(&self, a: &ServerAssignment) -> String {
        match a.properties.get("hw_machine_type") {
            Some(asked) if is_q35(asked) => self.host.q35.clone(),
            _ => self.host.pc.clone(),
        }
    }

    fn launch<'a>(&'a self, a: &'a ServerAssignment, dir: &'a Path, machine: &'a str) -> Result<Launch<'a>, Error> {
        let overlay = |file, image: &assign::ImageRef| {
            let base = self.cache.base(image)?;
            Ok::<_, Error>(Drive::Overlay { file, backing: base.path, backing_format: base.format })
        };
        let root = match (&a.root, a.volumes.iter().find(|v| v.boot)) {
            (Some(root), _) => {
                let disk = self.memory.get(&a.id).disk.ok_or_else(|| Error::DiskMissing(a.id.clone()))?;
                let image = assign::ImageRef { image_id: root.image.image_id.clone(), blob: disk.blob, format: disk.format };
                overlay(disks::root(dir, disk.generation), &image)?
            }
            (None, Some(volume)) => Drive::Volume(volume.clone()),
            (None, None) => return Err(Error::DiskMissing(a.id.clone())),
        };
        let mut drives = vec![root];
        if let Some(rescue) = &a.rescue {
            drives.insert(0, overlay(disks::rescue(dir), rescue)?);
        }
        let property = |names: [&str; 2]| names.iter().find_map(|n| a.properties.get(*n)).map(String::as_str);
        let watchdog = property(["hw_watchdog_action", "hw:watchdog_action"]);
        Ok(Launch {
            id: &a.id,
            dir,
            machine,
            accelerator: self.host.accelerator,
            tcg_cache_mib: self.config.tcg_cache_mib,
            vcpus: a.vcpus,
            memory_mib: a.memory_mib,
            drives,
            config_drive: Some(config_drive::file(dir)).filter(|f| a.config_drive && f.exists()),
            cdrom_bus: property(["hw_cdrom_bus", "hw:cdrom_bus"]),
            watchdog: watchdog.filter(|w| matches!(*w, "poweroff" | "reset" | "pause" | "none")),
        })
    }

    /// Ends the process: the power button and `grace` time for the guest, then by force.
    pub(super) async fn end_guest(&self, id: &str, grace: Option<Duration>) -> Result<(), Error> {
        let known = self.memory.get(id);
        let Some(process) = &known.process else { return Ok(()) };
        if self.is_alive(&known) {
            if let Some(grace) = grace
                && let Ok(Some(live)) = self.live(id, &known).await
            {
                let obeyed = tokio::time::timeout(grace, press_button(&live.qmp)).await.is_ok();
                tracing::info!(server = id, obeyed, "a guest was asked to shut down");
            }
            // From here its exit is our doing; were it recorded later, a restart of the agent would see a crash.
            self.memory.update(id, |r| r.process.iter_mut().for_each(|p| p.ending = true))?;
            self.live_ones().remove(id);
            process::kill(process.pid, process.start_time).await?;
        }
        self.live_ones().remove(id);
        self.memory.update(id, |r| r.process = None)?;
        if process.rescue.is_some() {
            super::cache::remove(&disks::rescue(&self.dir(id)))?;
        }
        Ok(())
    }
}

/// Ends all guests at once, known or not, without an agent.
pub(crate) async fn stop_all(config: &Config, memory: &Memory) -> Result<(), Error> {
    let boot_id = crate::host::boot_id();
    let mut presses = tokio::task::JoinSet::new();
    let recorded: Vec<(String, Process)> =
        memory.ids().into_iter().filter_map(|id| memory.get(&id).process.map(|p| (id, p))).collect();
    for (id, _) in recorded.iter().filter(|(_, p)| p.boot_id == boot_id && process::is_alive(p.pid, p.start_time)) {
        let socket = config.server_dir(id).join("qmp.sock");
        presses.spawn(tokio::time::timeout(config.stop_timeout.min(STOP_ALL), async move {
            if let Ok(qmp) = Qmp::connect(&socket, STOP_ALL, |_| {}).await {
                press_button(&qmp).await;
            }
        }));
    }
    presses.join_all().await;
    for (id, record) in recorded {
        if record.boot_id == boot_id {
            process::kill(record.pid, record.start_time).await?;
        }
        memory.update(&id, |r| r.process = None)?;
    }
    for (pid, _) in process::running(&config.dir) {
        process::kill(pid, process::start_time(pid).unwrap_or(0)).await?;
    }
    Ok(())
}

/// Presses the power button until the guest has powered off, or its process is gone. A guest that was still booting misses the
/// first press, so it is repeated, as Nova does.
async fn press_button(qmp: &Qmp) {
    let mut events = qmp.events();
    loop {
        if qmp.run("system_powerdown", json!({})).await.is_err() {
            return;
        }
        let again = tokio::time::sleep(Duration::from_secs(10));
        tokio::pin!(again);
        loop {
            tokio::select! {
                () = &mut again => break,
                event = events.recv() => match event {
                    Ok(e) if e.name == "SHUTDOWN" => return,
                    Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                },
            }
        }
        match qmp.run("query-status", json!({})).await {
            Ok(s) if s["status"] != "shutdown" => {}
            _ => return,
        }
    }
}
