//! A simulated host behind the same ports: guests are entries in a table, and steps take the time they are told to.
//!
//! It is for tests and measurements of everything above the ports with many servers; the agent's loop is the real one.
mod volumes;
mod wires;

pub use wires::Switch;
use wires::Wires;

use crate::{
    Agent, Config, Error,
    driver::{Hypervisor, Nudge, Owned, Ports},
    plan::{Observed, Status, Step},
    remember::{Disk, Memory, PluggedVolume, Process, Remembered},
};
use assign::{Answer, Blobs, Duplex, HostReport, Pending, ServerAssignment, Uplink};
use base::Clock as _;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

/// How long the steps take.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delays {
    pub fetch: Duration,
    pub disk: Duration,
    pub start: Duration,
    pub plug: Duration,
    /// Time a guest takes to obey the power button.
    pub shutdown: Duration,
}

/// What the host claims to have.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub vcpus: u32,
    pub memory_mib: u64,
    pub disk_gib: u64,
}

struct Guest {
    pid: u32,
    status: Status,
}

/// The hypervisor of a simulated host.
pub struct Sim {
    memory: Arc<Memory>,
    delays: Delays,
    size: Size,
    dir: PathBuf,
    host_ip: String,
    boot_id: Mutex<String>,
    guests: Mutex<HashMap<String, Guest>>,
    pids: AtomicU32,
    shelf: Arc<volumes::Shelf>,
    nudge: Mutex<Option<Nudge>>,
}

/// A simulated host. Agents come and go on it; guests, interfaces and what agents remember stay.
pub struct Machine {
    config: Config,
    sim: Arc<Sim>,
    wires: Arc<Wires>,
    blobs: Arc<dyn Blobs>,
}

impl Machine {
    /// A host without guests. Nothing is written to disk but snapshots' files, below `config.dir`.
    pub fn new(config: Config, size: Size, delays: Delays, blobs: Arc<dyn Blobs>) -> Self {
        let sim = Arc::new(Sim {
            memory: Arc::new(Memory::volatile()),
            delays,
            size,
            dir: config.dir.clone(),
            host_ip: config.host_ip.clone(),
            boot_id: Mutex::new(base::id::uuid()),
            guests: Mutex::default(),
            pids: AtomicU32::new(1),
            shelf: Arc::new(volumes::Shelf { volumes: Mutex::default(), dir: config.dir.clone(), blobs: blobs.clone() }),
            nudge: Mutex::default(),
        });
        let wires = Arc::new(Wires::new(delays.plug));
        Self { config, sim, wires, blobs }
    }

    /// Starts an agent; the one before must have been dropped.
    pub fn start(&self, uplink: Arc<dyn Uplink>) -> Arc<Agent> {
        let (sim, wires) = (&self.sim, &self.wires);
        let volumes = sim.shelf.clone();
        let ports = Ports { hypervisor: sim.clone(), nics: wires.clone(), metadata: wires.clone(), volumes };
        Agent::start(self.config.clone(), ports, sim.memory.clone(), uplink, self.blobs.clone())
    }

    /// The power is gone: no guest and no interface is left, and the next agent finds a host that was booted anew.
    pub fn lose_power(&self) {
        lock(&self.sim.guests).clear();
        self.wires.clear();
        *lock(&self.sim.boot_id) = base::id::uuid();
    }

    pub fn sim(&self) -> &Arc<Sim> {
        &self.sim
    }

    /// Ports whose interfaces are there.
    pub fn plugged(&self) -> BTreeSet<String> {
        self.wires.plugged()
    }
}

/// Starts an agent on a simulated host. Nothing is written to disk but snapshots' files, below `config.dir`.
pub fn start(
    config: Config,
    size: Size,
    delays: Delays,
    uplink: Arc<dyn Uplink>,
    blobs: Arc<dyn Blobs>,
) -> (Arc<Agent>, Arc<Sim>) {
    let machine = Machine::new(config, size, delays, blobs);
    (machine.start(uplink), machine.sim)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// No timer for no time: 10,000 servers must cost what the agent costs.
async fn pass(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

impl Sim {
    /// The guest dies.
    pub fn crash(&self, id: &str) {
        lock(&self.guests).remove(id);
        self.tell(id);
    }
    /// The guest powers itself off.
    pub fn power_off(&self, id: &str) {
        if let Some(guest) = lock(&self.guests).get_mut(id) {
            guest.status = Status::PoweredOff;
        }
        self.tell(id);
    }
    /// The volumes kept here.
    pub fn shelf(&self) -> &volumes::Shelf {
        &self.shelf
    }
    /// Servers whose guests have a volume, with the volume.
    pub fn writers(&self) -> Vec<(String, String)> {
        let ids: BTreeSet<String> = lock(&self.guests).keys().cloned().collect();
        let volumes = |id: String| {
            let process = self.memory.get(&id).process;
            let plugged = process.into_iter().flat_map(|p| p.volumes.into_values());
            plugged.map(move |v| (id.clone(), v.volume_id)).collect::<Vec<_>>()
        };
        ids.into_iter().flat_map(volumes).collect()
    }
    /// Guests that have a process.
    pub fn guests(&self) -> BTreeMap<String, Status> {
        lock(&self.guests).iter().map(|(id, g)| (id.clone(), g.status)).collect()
    }
    fn tell(&self, id: &str) {
        let nudge = lock(&self.nudge).clone();
        if let Some(nudge) = nudge {
            nudge(id);
        }
    }
    fn set(&self, id: &str, status: Status) -> Result<(), Error> {
        let mut guests = lock(&self.guests);
        let guest = guests.get_mut(id).ok_or_else(|| Error::NotRunning(id.to_owned()))?;
        guest.status = status;
        Ok(())
    }

    async fn act(&self, step: &Step, a: &ServerAssignment) -> Result<(), Error> {
        match step {
            Step::FetchImage(_) => pass(self.delays.fetch).await,
            Step::CreateRescueDisk(_) | Step::BuildConfigDrive => pass(self.delays.disk).await,
            Step::CreateDisk | Step::GrowDisk => {
                pass(self.delays.disk).await;
                let disk = a.root.as_ref().map(|root| Disk {
                    generation: root.generation,
                    size_gib: root.size_gib,
                    blob: root.image.blob.clone(),
                    format: root.image.format.clone(),
                });
                self.memory.update(&a.id, |r| r.disk = disk)?;
            }
            Step::Start => {
                pass(self.delays.start).await;
                let pid = self.pids.fetch_add(1, Ordering::Relaxed);
                lock(&self.guests).insert(a.id.clone(), Guest { pid, status: Status::Held });
                let boot = a.volumes.iter().find(|v| v.boot);
                let record = Process {
                    pid,
                    boot_id: lock(&self.boot_id).clone(),
                    vcpus: a.vcpus,
                    memory_mib: a.memory_mib,
                    rescue: a.rescue.as_ref().map(|i| i.blob.clone()),
                    machine: "sim".into(),
                    volumes: boot.iter().map(|v| (v.attachment_id.clone(), plugged(v, None))).collect(),
                    launched_at: base::SystemClock.now(),
                    ..Process::default()
                };
                self.memory.update(&a.id, |r| {
                    r.process = Some(record);
                    r.volumes.extend(boot.iter().map(|v| (v.attachment_id.clone(), v.epoch)));
                    r.reboot_done = r.reboot_done.max(a.reboot.count);
                    r.halted = None;
                })?;
            }
            Step::AttachNic(port) => {
                self.note(&a.id, |nics| nics.insert(port.id.clone(), u8::try_from(nics.len()).unwrap_or(0)))?;
            }
            Step::DetachNic(port) => self.note(&a.id, |nics| nics.remove(port))?,
            Step::AttachVolume(v) | Step::GrowVolume(v) => {
                self.memory.update(&a.id, |r| {
                    r.volumes.insert(v.attachment_id.clone(), v.epoch);
                    if let Some(process) = &mut r.process {
                        let slot = if v.boot { None } else { Some(0) };
                        process.volumes.insert(v.attachment_id.clone(), plugged(v, slot));
                    }
                })?;
            }
            // A simulated guest lets go at once: its devices are never seen.
            Step::AskForVolume(_) => {}
            Step::DetachVolume(attachment) => {
                self.memory.update(&a.id, |r| {
                    r.volumes.remove(attachment);
                    if let Some(process) = &mut r.process {
                        process.volumes.remove(attachment);
                    }
                })?;
            }
            Step::Continue => self.set(&a.id, Status::Running)?,
            Step::Pause => self.set(&a.id, Status::Paused)?,
            Step::Plug(_)
            | Step::Unplug(_)
            | Step::End(_)
            | Step::NoteEnd
            | Step::NoteHalt(_)
            | Step::NoteReboot
            | Step::HoldVolume(_)
            | Step::ForgetVolume(_)
            | Step::Destroy => {}
        }
        Ok(())
    }

    fn note<T>(&self, id: &str, change: impl FnOnce(&mut BTreeMap<String, u8>) -> T) -> Result<(), Error> {
        self.memory
            .update(id, |r| {
                if let Some(process) = &mut r.process {
                    change(&mut process.nics);
                }
            })
            .map(drop)
    }
}

fn plugged(volume: &assign::AttachedVolume, slot: Option<u8>) -> PluggedVolume {
    PluggedVolume { volume_id: volume.volume_id.clone(), epoch: volume.epoch, slot, size_gib: volume.size_gib }
}

impl Hypervisor for Sim {
    fn host(&self) -> Pending<'_, HostReport> {
        Box::pin(async {
            HostReport {
                boot_id: lock(&self.boot_id).clone(),
                hypervisor_type: "sim".into(),
                hypervisor_version: 1_000_000,
                accelerator: "tcg".into(),
                cpu_model: "simulated".into(),
                vcpus: self.size.vcpus,
                memory_mib: self.size.memory_mib,
                disk_gib: self.size.disk_gib,
                disk_free_gib: self.size.disk_gib,
                volume_gib: self.size.disk_gib,
                volume_free_gib: self.size.disk_gib,
                host_ip: self.host_ip.clone(),
                physical_networks: Vec::new(),
            }
        })
    }
    fn on_change(&self, nudge: Nudge) {
        // One agent per host at a time.
        *lock(&self.nudge) = Some(nudge);
    }
    fn observe<'a>(&'a self, id: &'a str, known: &'a Remembered) -> Pending<'a, Result<Observed, Error>> {
        Box::pin(async move {
            let pid = known.process.as_ref().map(|p| p.pid);
            let process = lock(&self.guests).get(id).filter(|g| Some(g.pid) == pid).map(|g| g.status);
            Ok(Observed { process, root_disk: known.disk.is_some(), config_drive: true, ..Observed::default() })
        })
    }
    fn carry_out<'a>(&'a self, step: &'a Step, server: &'a ServerAssignment) -> Pending<'a, Result<(), Error>> {
        Box::pin(self.act(step, server))
    }
    fn end<'a>(&'a self, id: &'a str, grace: Option<Duration>) -> Pending<'a, Result<(), Error>> {
        Box::pin(async move {
            if let Some(grace) = grace {
                pass(grace.min(self.delays.shutdown)).await;
            }
            lock(&self.guests).remove(id);
            self.memory.update(id, |r| r.process = None).map(drop)
        })
    }
    fn destroy<'a>(&'a self, _: &'a str) -> Pending<'a, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
    fn snapshot<'a>(&'a self, _: &'a str, image_id: &'a str, _: &'a str) -> Pending<'a, Result<PathBuf, Error>> {
        Box::pin(async move {
            pass(self.delays.disk).await;
            let path = self.dir.join(format!("snapshot-{image_id}"));
            std::fs::write(&path, [0u8; 512]).map_err(Error::path("write", &path))?;
            Ok(path)
        })
    }
    fn console<'a>(&'a self, id: &'a str, _: Option<usize>) -> Pending<'a, Result<Answer, Error>> {
        Box::pin(async move { Ok(Answer::Text(format!("simulated guest {id}\n"))) })
    }
    fn diagnostics<'a>(&'a self, id: &'a str) -> Pending<'a, Result<Answer, Error>> {
        Box::pin(async move {
            let process = self.memory.get(id).process.ok_or_else(|| Error::NotRunning(id.to_owned()))?;
            Ok(Answer::Json(serde_json::json!({ "num_cpus": process.vcpus, "num_nics": process.nics.len(), "num_disks": 1 })))
        })
    }
    fn vnc<'a>(&'a self, id: &'a str) -> Pending<'a, Result<Box<dyn Duplex>, Error>> {
        Box::pin(async move {
            if !lock(&self.guests).contains_key(id) {
                return Err(Error::NotRunning(id.to_owned()));
            }
            // The greeting of RFB, and then silence.
            let (ours, theirs) = tokio::io::duplex(1024);
            tokio::spawn(async move {
                let mut ours = ours;
                let _ = tokio::io::AsyncWriteExt::write_all(&mut ours, b"RFB 003.008\n").await;
                let _ = tokio::io::copy(&mut ours, &mut tokio::io::sink()).await;
            });
            Ok(Box::new(theirs) as Box<dyn Duplex>)
        })
    }
    fn sweep<'a>(&'a self, owned: Owned<'a>) -> Pending<'a, Vec<String>> {
        Box::pin(async move {
            let mut found: Vec<String> = lock(&self.guests).keys().cloned().collect();
            let owned = owned();
            found.retain(|id| !owned.contains(id));
            lock(&self.guests).retain(|id, _| !found.contains(id));
            found
        })
    }
    fn trim(&self) -> Pending<'_, ()> {
        Box::pin(async {})
    }
}
