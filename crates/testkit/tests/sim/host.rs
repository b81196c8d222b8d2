//! A simulated host: a machine of `node::sim` with the real agent on it, which can be killed, cut off and lose its power.
use crate::{
    chance::Dice,
    controller::Controller,
    line::{Upstream, Wire},
    mutant::Mutant,
    trace::Trace,
};
use assign::{Assignments, BlobInfo, Blobs, Pending};
use node::{
    plan::Status,
    sim::{Delays, Machine, Size},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle};

/// Few enough guests fit that some boots find no room.
const SIZE: Size = Size { vcpus: 4, memory_mib: 4096, disk_gib: 100 };

/// A name as a blob's: the same for the same file.
fn name_of(path: &Path) -> String {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    base::id::named(&name).replace('-', "").repeat(4)
}

/// Blobs that have names and no bytes: what a simulated guest boots from is never read.
struct Nameless;

impl Blobs for Nameless {
    fn fetch<'a>(&'a self, _: &'a str, _: &'a Path) -> Pending<'a, std::io::Result<()>> {
        Box::pin(async { Ok(()) })
    }
    fn store<'a>(&'a self, from: &'a Path) -> Pending<'a, std::io::Result<BlobInfo>> {
        let (blob, checksum, format) = (name_of(from), "0".repeat(32), "raw".to_owned());
        Box::pin(async move { Ok(BlobInfo { blob, checksum, size: 512, virtual_size: Some(512), format }) })
    }
}

pub(crate) struct Host {
    pub(crate) name: String,
    trace: Arc<Trace>,
    dice: Dice,
    machine: Machine,
    wire: watch::Sender<Wire>,
    controllers: Vec<Arc<Controller>>,
    mutant: Option<Mutant>,
    running: Mutex<Option<(Arc<node::Agent>, Arc<Upstream>)>>,
    has_power: AtomicBool,
    /// What it was told last, where a defect has it act on that.
    remembered: Mutex<Option<Arc<Assignments>>>,
    /// What goes on until its power is back.
    outage: Mutex<Option<JoinHandle<()>>>,
}

impl Host {
    pub(crate) fn new(
        index: usize,
        seed: u64,
        trace: &Arc<Trace>,
        controllers: &[Arc<Controller>],
        mutant: Option<Mutant>,
        dir: &Path,
    ) -> Arc<Self> {
        let dice = Dice::new(seed, 200 + index as u64);
        let name = format!("h{index}");
        let dir = dir.join(&name);
        std::fs::create_dir_all(&dir).unwrap();
        let mut config = node::Config::new(dir, &name);
        config.heavy_steps = 2;
        config.stop_timeout = Duration::from_secs(10);
        let time = |most: f64| dice.seconds(0.0..most);
        let delays = Delays { fetch: time(2.0), disk: time(1.0), start: time(1.5), plug: time(0.3), shutdown: time(8.0) };
        Arc::new(Self {
            machine: Machine::new(config, SIZE, delays, Arc::new(Nameless)),
            name,
            trace: trace.clone(),
            dice,
            wire: watch::Sender::new(Wire::Open),
            controllers: controllers.to_vec(),
            mutant,
            running: Mutex::default(),
            has_power: AtomicBool::new(true),
            remembered: Mutex::default(),
            outage: Mutex::default(),
        })
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<(Arc<node::Agent>, Arc<Upstream>)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts its agent, if none runs and it has power.
    pub(crate) fn start(&self) {
        let mut running = self.running();
        if running.is_none() && self.has_power() {
            self.trace.note(&format!("{} has an agent", self.name));
            let seed = self.dice.seed();
            let upstream = Upstream::start(&self.name, &self.trace, seed, self.wire.subscribe(), &self.controllers, self.mutant);
            if let Some(last) = self.remembered.lock().unwrap_or_else(PoisonError::into_inner).take() {
                upstream.pretend(&last);
            }
            let agent = self.machine.start(upstream.clone());
            upstream.serve(&agent);
            *running = Some((agent, upstream));
        }
    }

    /// The agent dies, wherever its tasks are; guests run on.
    pub(crate) fn kill_agent(&self) {
        self.trace.note(&format!("{} has no agent", self.name));
        *self.running() = None;
    }

    /// The machine loses its power, and with it its guests.
    pub(crate) fn lose_power(&self) {
        self.trace.note(&format!("{} loses its power", self.name));
        self.has_power.store(false, Ordering::SeqCst);
        let last = self.running().take().map(|(_, upstream)| upstream.told());
        *self.remembered.lock().unwrap_or_else(PoisonError::into_inner) = last.filter(|_| self.mutant == Some(Mutant::EagerNode));
        self.machine.lose_power();
    }

    pub(crate) fn has_power(&self) -> bool {
        self.has_power.load(Ordering::SeqCst)
    }

    pub(crate) fn power_on(&self) {
        self.has_power.store(true, Ordering::SeqCst);
        self.start();
    }

    /// Its power is gone until the work has ended, whatever else ends meanwhile.
    pub(crate) fn outage(&self, work: impl Future<Output = ()> + Send + 'static) {
        *self.outage.lock().unwrap_or_else(PoisonError::into_inner) = Some(tokio::spawn(work));
    }

    /// Waits for the end of an outage.
    pub(crate) async fn outage_over(&self) {
        let outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(outage) = outage {
            outage.await.unwrap();
        }
    }

    pub(crate) fn set_wire(&self, wire: Wire) {
        self.trace.note(&format!("the wire of {} is {wire:?}", self.name));
        self.wire.send_replace(wire);
    }

    /// A guest dies, or powers itself off.
    pub(crate) fn hurt_a_guest(&self) {
        let guests: Vec<String> = self.guests().into_keys().collect();
        let Some(id) = self.dice.pick(&guests) else { return };
        let dies = self.dice.chance(0.5);
        self.trace.note(&format!("guest {id} on {} {}", self.name, if dies { "dies" } else { "powers itself off" }));
        if dies { self.machine.sim().crash(id) } else { self.machine.sim().power_off(id) }
    }

    pub(crate) fn guests(&self) -> BTreeMap<String, Status> {
        self.machine.sim().guests()
    }
    /// Volumes that guests write to now, each with its server.
    pub(crate) fn writers(&self) -> Vec<(String, String)> {
        self.machine.sim().writers()
    }
    pub(crate) fn plugged(&self) -> BTreeSet<String> {
        self.machine.plugged()
    }
}
