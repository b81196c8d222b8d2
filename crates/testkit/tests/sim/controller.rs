//! One controller of the simulated cloud: the real API, reconcilers and shards over a link of its own to the store.
//!
//! All that a process can do to the world goes through its link to the store, the lines of its nodes, or an answer to a client. So to
//! *kill* it is to close these for ever and to drop what it is made of; to *pause* it is to close them for a while, its clocks going on.
//! Tasks of a paused process may run on until they want something of the world; that is no difference that the world could see.
use crate::{
    chance::Dice,
    common::{self, Work},
    mutant::{Broken, Mutant},
    trace::Trace,
};
use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, Request},
};
use base::{Clock, Timestamp};
use compute::Nodes;
use image::blob::LocalStore;
use reconcile::Shards;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use store::{
    Memory, Store, Table, Tx,
    faulty::{Faulty, Way},
};
use tempfile::TempDir;
use testkit::{Assembled, Setup};
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tower_service::Service as _;

/// What only the simulation writes: who wrote last under which epoch of a shard.
pub(crate) static PROBES: Table = Table { name: "sim/probes", indexes: &[] };

/// After trouble it may refuse requests for so long: commits and reads wait 10 s for the store, and a try or two may follow.
const AFTERMATH: Duration = Duration::from_secs(45);

/// A wall clock that is wrong by a constant.
struct Skewed {
    start: Instant,
    at_start: i64,
}

impl Clock for Skewed {
    fn now(&self) -> Timestamp {
        Timestamp(self.at_start).plus(self.start.elapsed())
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

/// A process that runs, or did.
pub(crate) struct Process {
    assembled: Assembled,
    work: Work,
    link: Arc<Faulty>,
    /// Not before it does, in pauses too.
    lets_out: watch::Receiver<bool>,
    over: watch::Sender<bool>,
    /// Lines of nodes by host: the newest one's number.
    pub(crate) lines: Mutex<HashMap<String, u64>>,
    _probes: JoinSet<()>,
}

impl Process {
    pub(crate) fn nodes(&self) -> &Arc<Nodes> {
        &self.work.nodes
    }
    pub(crate) fn shards(&self) -> &Arc<Shards> {
        &self.assembled.shards
    }
    pub(crate) fn over(&self) -> watch::Receiver<bool> {
        self.over.subscribe()
    }
    /// Returns when what it says can be heard.
    pub(crate) async fn heard(&self) {
        self.lets_out.clone().wait_for(|lets| *lets).await.ok();
    }
}

/// A machine on which a process of the control plane runs, most of the time.
pub(crate) struct Controller {
    pub(crate) name: String,
    trace: Arc<Trace>,
    dice: Dice,
    memory: Arc<Memory>,
    mutant: Option<Mutant>,
    blobs: Arc<LocalStore>,
    keys: Arc<TempDir>,
    skew: Duration,
    lets_out: watch::Sender<bool>,
    process: Mutex<Option<Arc<Process>>>,
    /// Rate and latency that its link meets.
    weather: Mutex<(f64, Duration)>,
    way: Mutex<Way>,
    troubled: Mutex<Instant>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Controller {
    pub(crate) fn new(
        index: usize,
        seed: u64,
        trace: &Arc<Trace>,
        memory: &Arc<Memory>,
        mutant: Option<Mutant>,
        blobs: &Arc<LocalStore>,
        keys: &Arc<TempDir>,
    ) -> Arc<Self> {
        let dice = Dice::new(seed, 100 + index as u64);
        Arc::new(Self {
            name: format!("c{index}"),
            trace: trace.clone(),
            skew: dice.seconds(0.0..4.0),
            dice,
            memory: memory.clone(),
            mutant,
            blobs: blobs.clone(),
            keys: keys.clone(),
            lets_out: watch::Sender::new(true),
            process: Mutex::default(),
            weather: Mutex::new((0.0, Duration::ZERO)),
            way: Mutex::new(Way::Open),
            troubled: Mutex::new(Instant::now()),
        })
    }

    pub(crate) fn process(&self) -> Option<Arc<Process>> {
        lock(&self.process).clone()
    }

    /// Starts a process, and tries again until one runs.
    pub(crate) async fn start(self: &Arc<Self>) {
        let mut attempt = 0;
        loop {
            match self.try_start().await {
                Ok(process) => {
                    self.trace.note(&format!("{} runs as {}", self.name, process.shards().member().unwrap_or_default()));
                    *lock(&self.process) = Some(Arc::new(process));
                    return;
                }
                Err(why) => self.trace.note(&format!("{} does not start: {why}", self.name)),
            }
            attempt += 1;
            tokio::time::sleep(base::retry::Backoff::new(Duration::from_millis(500), Duration::from_secs(5)).jittered(attempt))
                .await;
        }
    }

    async fn try_start(&self) -> Result<Process, String> {
        let mut inner: Arc<dyn Store> = self.memory.clone();
        if let Some(mutant) = self.mutant {
            inner = Arc::new(Broken { inner, mutant, commits: Default::default() });
        }
        let link = Arc::new(Faulty::new(inner, self.dice.seed(), 0.0));
        let (rate, latency) = *lock(&self.weather);
        link.trouble(rate, latency);
        let now = base::SystemClock.now().plus(self.skew).0;
        let clock = Arc::new(Skewed { start: Instant::now(), at_start: now });
        let setup = Setup {
            name: self.name.clone(),
            store: link.clone(),
            clock,
            keys: Some(self.keys.clone()),
            tables: vec![&PROBES],
            ..common::setup(&self.blobs)
        };
        let assembled = setup.assemble("http://cloud").await?;
        let work = Work::start(&assembled.cloud, &assembled.shards).await?;
        let mut probes = JoinSet::new();
        let db = assembled.cloud.db.clone();
        let ovn = move |fence| network::reconcile::run_sim(db.clone(), fence);
        probes.spawn(assembled.shards.clone().lead("network/ovn", ovn));
        probes.spawn(probe(assembled.shards.clone(), self.dice.seed()));
        link.set(*lock(&self.way));
        Ok(Process {
            assembled,
            work,
            link,
            lets_out: self.lets_out.subscribe(),
            over: watch::Sender::new(false),
            lines: Mutex::default(),
            _probes: probes,
        })
    }

    /// Ends the process at once, wherever its tasks are.
    pub(crate) fn kill(&self) {
        self.trace.note(&format!("{} is killed", self.name));
        self.trouble();
        if let Some(process) = lock(&self.process).take() {
            process.link.set(Way::Cut);
            process.over.send_replace(true);
        }
    }

    /// Stops the process, or lets it go on.
    pub(crate) fn pause(&self, paused: bool) {
        self.trace.note(&format!("{} {}", self.name, if paused { "is paused" } else { "goes on" }));
        self.trouble();
        self.lets_out.send_replace(!paused);
        self.set_way();
    }

    pub(crate) fn is_paused(&self) -> bool {
        !*self.lets_out.borrow()
    }

    /// What gets through between it and the store.
    pub(crate) fn cut(&self, way: Way) {
        self.trace.note(&format!("{} and the store: {way:?}", self.name));
        self.trouble();
        *lock(&self.way) = way;
        self.set_way();
    }

    fn set_way(&self) {
        let way = if self.is_paused() { Way::Cut } else { *lock(&self.way) };
        if let Some(process) = self.process() {
            process.link.set(way);
        }
    }

    pub(crate) fn weather(&self, rate: f64, latency: Duration) {
        self.trace.note(&format!("{} meets {rate} faults, {} ms", self.name, latency.as_millis()));
        *lock(&self.weather) = (rate, latency);
        if let Some(process) = self.process() {
            process.link.trouble(rate, latency);
        }
    }

    fn trouble(&self) {
        *lock(&self.troubled) = Instant::now();
    }

    /// May it refuse to serve?
    pub(crate) fn is_troubled(&self) -> bool {
        self.process().is_none()
            || self.is_paused()
            || *lock(&self.way) != Way::Open
            || lock(&self.troubled).elapsed() < AFTERMATH
    }

    /// The answer to a request; none when the process ends meanwhile.
    pub(crate) async fn call(&self, request: Request<Body>) -> Option<Answer> {
        let process = self.process()?;
        let mut over = process.over();
        let answered = async {
            process.heard().await;
            let mut router = process.assembled.edge.router.clone();
            let response = match router.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            process.heard().await;
            let (parts, body) = response.into_parts();
            let bytes = to_bytes(body, usize::MAX).await.ok()?;
            let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
            Some(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
        };
        tokio::select! {
            biased;
            answer = answered => answer,
            _ = over.wait_for(|over| *over) => None,
        }
    }
}

impl Controller {
    /// Gives an image its data; nothing fails yet.
    pub(crate) async fn upload(&self, token: &str, image: &str, bytes: &'static [u8]) {
        let request = Request::put(format!("/image/v2/images/{image}/file"))
            .header("x-auth-token", token)
            .header("content-type", "application/octet-stream");
        let answer = self.call(request.body(Body::from(bytes)).unwrap()).await.unwrap();
        assert_eq!(answer.status, 204, "{}", answer.body);
    }
}

/// Works in shards as a reconciler does that takes its time, and writes down under which epoch.
async fn probe(shards: Arc<Shards>, seed: u64) {
    let dice = Dice::new(seed, 0);
    loop {
        tokio::time::sleep(dice.seconds(0.05..0.4)).await;
        let key = format!("sim/probes/{}", dice.below(8));
        let Some(hold) = shards.enter(&key) else { continue };
        let id = key.rsplit('/').next().unwrap_or_default().to_owned();
        let (fence, shard) = (hold.fence().clone(), reconcile::shard_of(&key));
        // The world takes its time.
        tokio::time::sleep(dice.seconds(0.0..1.0)).await;
        let write = move |tx: &mut Tx<'_>| {
            fence.check(tx)?;
            tx.put(&PROBES, &id, json!({ "id": id, "v": 1, "shard": shard, "epoch": fence.epoch() }));
            Ok::<_, resource::Error>(())
        };
        // Refused or not: the rows say what it was worth.
        shards.db().transact(write).await.ok();
    }
}
