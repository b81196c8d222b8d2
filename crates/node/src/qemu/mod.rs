//! Guests on QEMU, driven directly over QMP: one process per server, and no second opinion about what runs.
//!
//! A process is started held (`-S`), recorded before anything is awaited, and counts as started when `query-status` answered. It runs in a session of
//! its own, below a seccomp sandbox, and as a user id of its own that exists nowhere else: then neither the host nor other guests' files
//! are in its reach. Everything it opens is made and given to it by the agent.
pub(crate) mod cache;
mod cmdline;
mod config_drive;
mod console;
mod diagnostics;
pub(crate) mod disks;
mod nics;
mod power;
mod probe;
pub(crate) mod process;
pub(crate) mod qmp;
mod snapshot;
mod volumes;

use crate::{
    Config, Error,
    config::GuestUsers,
    driver::{Hypervisor, Nudge, Owned},
    host,
    plan::{Observed, Status, Step},
    remember::{Memory, Remembered},
};
use assign::{Answer, Blobs, Duplex, HostReport, Pending, ServerAssignment};
pub(crate) use power::stop_all;
use qmp::Qmp;
use serde_json::json;
use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

/// A guest must answer its monitor within this time, or it counts as silent.
const ANSWER: Duration = Duration::from_secs(5);

/// A process that the agent talks to.
pub(crate) struct Live {
    pub(crate) pid: u32,
    pub(crate) qmp: Qmp,
}

/// The hypervisor of a real node.
pub struct Qemu {
    config: Config,
    memory: Arc<Memory>,
    cache: Arc<cache::Cache>,
    host: probe::Host,
    boot_id: String,
    /// Does the virtual switch finish checksums and segments that guests leave to it?
    offloads: bool,
    live: Mutex<HashMap<String, Arc<Live>>>,
    /// Processes that nothing accounted for at the last look: pid, start time, server.
    suspects: Mutex<BTreeSet<(u32, u64, String)>>,
    nudge: Arc<OnceLock<Nudge>>,
    /// When guests were first and last asked to let go of volumes, by server and attachment.
    asked: Mutex<volumes::Asked>,
}

impl Qemu {
    /// Looks at what the host can do and opens the node's directory.
    pub async fn start(config: &Config, blobs: Arc<dyn Blobs>, memory: Arc<Memory>, offloads: bool) -> Result<Self, Error> {
        use std::os::unix::fs::PermissionsExt as _;
        for sub in ["", "servers", "snapshots"] {
            let dir = config.dir.join(sub);
            fs::create_dir_all(&dir).map_err(Error::path("create", &dir))?;
            // Guests' users pass through; they cannot list.
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o711)).map_err(Error::path("protect", &dir))?;
        }
        for unfinished in fs::read_dir(config.dir.join("snapshots")).into_iter().flatten().flatten() {
            cache::remove(&unfinished.path())?;
        }
        let host = probe::probe(config).await?;
        let converter = config.guest_users.filter(|_| host.separate_users).map(|u| u.first);
        let cache = cache::Cache::open(config.dir.join("images"), blobs, memory.clone(), config.reserved_disk_gib, converter)?;
        end_unrecorded(config, &memory).await?;
        tracing::info!(version = host.version, accelerator = host.accelerator, machine = host.pc, "QEMU is ready");
        Ok(Self {
            config: config.clone(),
            memory,
            cache: Arc::new(cache),
            host,
            boot_id: host::boot_id(),
            offloads,
            live: Mutex::default(),
            suspects: Mutex::default(),
            nudge: Arc::default(),
            asked: Mutex::default(),
        })
    }

    fn dir(&self, id: &str) -> PathBuf {
        self.config.server_dir(id)
    }
    fn has_config_drive(&self, id: &str) -> bool {
        config_drive::file(&self.dir(id)).exists()
    }
    fn live_ones(&self) -> MutexGuard<'_, HashMap<String, Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// The user id of a server's guest.
    fn user(&self, id: &str) -> Option<u32> {
        self.users().map(|users| users.of(id))
    }
    pub(crate) fn users(&self) -> Option<GuestUsers> {
        self.config.guest_users.filter(|_| self.host.separate_users)
    }
    /// The images on this node.
    pub(crate) fn cache(&self) -> Arc<cache::Cache> {
        self.cache.clone()
    }
    /// A callback that wakes the server's task.
    fn waker(&self, id: &str) -> impl Fn() + Send + 'static {
        let (nudge, id) = (self.nudge.clone(), id.to_owned());
        move || {
            if let Some(nudge) = nudge.get() {
                nudge(&id);
            }
        }
    }
    /// Does the remembered process live?
    fn is_alive(&self, known: &Remembered) -> bool {
        known.process.as_ref().is_some_and(|p| p.boot_id == self.boot_id && process::is_alive(p.pid, p.start_time))
    }

    /// The connection to a server's process; opened anew after a restart of the agent. `None` when the process has ended.
    pub(crate) async fn live(&self, id: &str, known: &Remembered) -> Result<Option<Arc<Live>>, Error> {
        let Some(process) = known.process.as_ref().filter(|_| self.is_alive(known)) else {
            self.live_ones().remove(id);
            return Ok(None);
        };
        let open = self.live_ones().get(id).cloned();
        if let Some(live) = open.filter(|l| l.pid == process.pid && l.qmp.is_open()) {
            return Ok(Some(live));
        }
        self.live_ones().remove(id);
        let live = Arc::new(self.connect(id, process.pid, ANSWER).await?);
        tracing::info!(server = id, pid = process.pid, "a running guest was adopted");
        self.live_ones().insert(id.to_owned(), live.clone());
        Ok(Some(live))
    }

    async fn connect(&self, id: &str, pid: u32, deadline: Duration) -> Result<Live, qmp::QmpError> {
        let wake = self.waker(id);
        let on_event = move |event: Option<&qmp::Event>| match event.map(|e| e.name.as_str()) {
            // Timekeeping of the guest and progress of jobs change no state.
            Some("RTC_CHANGE" | "JOB_STATUS_CHANGE" | "NIC_RX_FILTER_CHANGED") => {}
            _ => wake(),
        };
        Ok(Live { pid, qmp: Qmp::connect(&self.dir(id).join("qmp.sock"), deadline, on_event).await? })
    }

    async fn look(&self, id: &str, known: &Remembered) -> Result<Observed, Error> {
        let process = match self.live(id, known).await {
            Ok(None) => None,
            Ok(Some(live)) => match live.qmp.run("query-status", json!({})).await {
                Ok(status) => Some(read_status(status["status"].as_str().unwrap_or(""))),
                Err(error) => self.silent(id, known, &error.into()),
            },
            Err(error) => self.silent(id, known, &error),
        };
        let root = known.disk.as_ref().map(|d| disks::root(&self.dir(id), d.generation));
        let mut seen = Observed {
            process,
            root_disk: root.is_some_and(|r| r.exists()),
            config_drive: self.has_config_drive(id),
            ..Observed::default()
        };
        if process.is_some() && known.process.as_ref().is_some_and(|p| !p.volumes.is_empty()) {
            self.look_at_volumes(id, known, &mut seen).await;
        }
        Ok(seen)
    }

    /// No answer: because the process has just ended, or because it hangs.
    fn silent(&self, id: &str, known: &Remembered, error: &Error) -> Option<Status> {
        self.live_ones().remove(id);
        if !self.is_alive(known) {
            return None;
        }
        tracing::warn!(server = id, error = base::chain(error), "a guest's process does not answer");
        Some(Status::Silent)
    }

    async fn act(&self, step: &Step, a: &ServerAssignment) -> Result<(), Error> {
        let dir = self.dir(&a.id);
        match step {
            Step::FetchImage(image) => self.cache.hold(image).await.map(drop),
            Step::CreateDisk => self.create_disk(a).await,
            Step::CreateRescueDisk(image) => {
                self.make_dir(&a.id)?;
                let (base, _hold) = self.cache.hold(image).await?;
                disks::create(&base, &disks::rescue(&dir), 0, self.user(&a.id)).await
            }
            Step::GrowDisk => {
                let Some(root) = &a.root else { return Ok(()) };
                disks::grow(&disks::root(&dir, root.generation), root.size_gib).await?;
                self.memory.update(&a.id, |r| r.disk.iter_mut().for_each(|d| d.size_gib = root.size_gib)).map(drop)
            }
            Step::BuildConfigDrive => {
                self.make_dir(&a.id)?;
                config_drive::build(&dir, &a.guest, self.user(&a.id)).await
            }
            Step::Start => self.start_guest(a).await,
            Step::AttachNic(port) => self.attach_nic(&a.id, port).await,
            Step::DetachNic(port) => self.detach_nic(&a.id, port).await,
            Step::AttachVolume(volume) => self.attach_volume(&a.id, volume).await,
            Step::AskForVolume(attachment) => self.ask_for_volume(&a.id, attachment).await,
            Step::DetachVolume(attachment) => self.detach_volume(&a.id, attachment).await,
            Step::GrowVolume(volume) => self.grow_volume(&a.id, volume).await,
            Step::Continue => self.monitor(&a.id, "cont").await,
            Step::Pause => self.monitor(&a.id, "stop").await,
            Step::Plug(_)
            | Step::Unplug(_)
            | Step::End(_)
            | Step::NoteEnd
            | Step::NoteHalt(_)
            | Step::NoteReboot
            | Step::HoldVolume(_)
            | Step::ForgetVolume(_)
            | Step::Destroy => Ok(()),
        }
    }

    async fn monitor(&self, id: &str, command: &str) -> Result<(), Error> {
        self.running(id).await?.qmp.run(command, json!({})).await?;
        Ok(())
    }
    async fn running(&self, id: &str) -> Result<Arc<Live>, Error> {
        self.live(id, &self.memory.get(id)).await?.ok_or_else(|| Error::NotRunning(id.to_owned()))
    }

    /// The server's directory, the guest's own.
    fn make_dir(&self, id: &str) -> Result<(), Error> {
        let dir = self.dir(id);
        fs::create_dir_all(&dir).map_err(Error::path("create", &dir))?;
        disks::give(&dir, self.user(id))
    }

    async fn create_disk(&self, a: &ServerAssignment) -> Result<(), Error> {
        self.make_dir(&a.id)?;
        let dir = self.dir(&a.id);
        let Some(root) = &a.root else { return Ok(()) };
        let (base, _hold) = self.cache.hold(&root.image).await?;
        disks::create(&base, &disks::root(&dir, root.generation), root.size_gib, self.user(&a.id)).await?;
        let disk = crate::remember::Disk {
            generation: root.generation,
            size_gib: root.size_gib,
            blob: root.image.blob.clone(),
            format: root.image.format.clone(),
        };
        let old = self.memory.get(&a.id).disk;
        self.memory.update(&a.id, |r| r.disk = Some(disk))?;
        match old {
            Some(old) if old.generation != root.generation => cache::remove(&disks::root(&dir, old.generation)),
            _ => Ok(()),
        }
    }

    async fn remove_all(&self, id: &str) -> Result<(), Error> {
        self.live_ones().remove(id);
        let dir = self.dir(id);
        match fs::remove_dir_all(&dir) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(Error::path("remove", &dir)(e)),
        }
    }

    async fn open_vnc(&self, id: &str) -> Result<Box<dyn Duplex>, Error> {
        if !self.is_alive(&self.memory.get(id)) {
            return Err(Error::NotRunning(id.to_owned()));
        }
        let socket = self.dir(id).join("vnc.sock");
        let stream = tokio::net::UnixStream::connect(&socket).await.map_err(Error::path("connect to", &socket))?;
        Ok(Box::new(stream))
    }

    /// A process is a stranger when it is recorded nowhere at two looks: one that has just been started is about to be recorded.
    async fn end_strangers(&self, owned: Owned<'_>) -> Vec<String> {
        let mut removed = Vec::new();
        let strangers = unrecorded(&self.config, &self.memory);
        let before = std::mem::replace(&mut *self.suspects.lock().unwrap_or_else(PoisonError::into_inner), strangers.clone());
        for (pid, start, id) in strangers.intersection(&before).cloned() {
            match process::kill(pid, start).await {
                Ok(()) => removed.push(format!("process {pid} of server {id}")),
                Err(error) => tracing::warn!(pid, %error, "a leftover process is not ended"),
            }
        }
        let directories: Vec<_> = fs::read_dir(self.config.dir.join("servers")).into_iter().flatten().flatten().collect();
        let owned = owned();
        for entry in directories {
            let Ok(id) = entry.file_name().into_string() else { continue };
            if owned.contains(&id) || self.memory.is_here(&id) {
                continue;
            }
            match fs::remove_dir_all(entry.path()) {
                Ok(()) => removed.push(entry.path().display().to_string()),
                Err(error) => tracing::warn!(path = %entry.path().display(), %error, "a leftover directory is not removed"),
            }
        }
        self.cache.make_room();
        removed
    }
}

/// Processes of ours that no record accounts for: pid, start time, server.
fn unrecorded(config: &Config, memory: &Memory) -> BTreeSet<(u32, u64, String)> {
    let found = process::running(&config.dir).into_iter();
    found
        .filter_map(|(pid, id)| Some((pid, process::start_time(pid)?, id)))
        .filter(|(pid, start, id)| !memory.get(id).process.is_some_and(|p| p.pid == *pid && p.start_time == *start))
        .collect()
}

/// An agent that was killed between the start of a process and its record left it. Nobody let its guest run, and it holds the
/// lock of the disk that the next process needs.
async fn end_unrecorded(config: &Config, memory: &Memory) -> Result<(), Error> {
    for (pid, start, id) in unrecorded(config, memory) {
        tracing::warn!(server = id, pid, "a process that was started but not recorded is ended");
        process::kill(pid, start).await?;
    }
    Ok(())
}

fn read_status(status: &str) -> Status {
    match status {
        "paused" | "postmigrate" | "finish-migrate" | "save-vm" | "restore-vm" | "debug" => Status::Paused,
        "prelaunch" | "inmigrate" => Status::Held,
        "shutdown" => Status::PoweredOff,
        "io-error" => Status::DiskError,
        "watchdog" => Status::Watchdog,
        "internal-error" | "guest-panicked" => Status::Broken,
        _ => Status::Running,
    }
}

impl Hypervisor for Qemu {
    fn host(&self) -> Pending<'_, HostReport> {
        Box::pin(async { host::report(&self.config, "QEMU", self.host.version, self.host.accelerator) })
    }
    fn on_change(&self, nudge: Nudge) {
        // One agent per hypervisor: a second caller would be a wiring error, and is ignored.
        let _ = self.nudge.set(nudge);
    }
    fn observe<'a>(&'a self, id: &'a str, known: &'a Remembered) -> Pending<'a, Result<Observed, Error>> {
        Box::pin(self.look(id, known))
    }
    fn carry_out<'a>(&'a self, step: &'a Step, server: &'a ServerAssignment) -> Pending<'a, Result<(), Error>> {
        Box::pin(self.act(step, server))
    }
    fn end<'a>(&'a self, id: &'a str, grace: Option<Duration>) -> Pending<'a, Result<(), Error>> {
        Box::pin(self.end_guest(id, grace))
    }
    fn destroy<'a>(&'a self, id: &'a str) -> Pending<'a, Result<(), Error>> {
        Box::pin(self.remove_all(id))
    }
    fn snapshot<'a>(&'a self, id: &'a str, image_id: &'a str, format: &'a str) -> Pending<'a, Result<PathBuf, Error>> {
        Box::pin(self.copy_disk(id, image_id, format))
    }
    fn console<'a>(&'a self, id: &'a str, lines: Option<usize>) -> Pending<'a, Result<Answer, Error>> {
        Box::pin(async move { console::read(&self.dir(id), lines).map(Answer::Text) })
    }
    fn diagnostics<'a>(&'a self, id: &'a str) -> Pending<'a, Result<Answer, Error>> {
        Box::pin(async move { diagnostics::read(self, id, &self.memory.get(id)).await.map(Answer::Json) })
    }
    fn vnc<'a>(&'a self, id: &'a str) -> Pending<'a, Result<Box<dyn Duplex>, Error>> {
        Box::pin(self.open_vnc(id))
    }
    fn sweep<'a>(&'a self, owned: Owned<'a>) -> Pending<'a, Vec<String>> {
        Box::pin(self.end_strangers(owned))
    }
    fn trim(&self) -> Pending<'_, ()> {
        Box::pin(async {
            for id in self.memory.ids() {
                if let Err(error) = console::trim(&self.dir(&id), self.config.console_bytes) {
                    tracing::warn!(server = id, %error, "a console log is not trimmed");
                }
            }
        })
    }
}
