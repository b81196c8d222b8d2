//! The line between a host and a controller, without sockets: messages in order, each way its own latency, each way can be cut. It
//! behaves as `link` does: one controller at a time, any of them, and another when that one is silent for too long.
use crate::{
    chance::Dice,
    controller::{Controller, Process},
    mutant::Mutant,
    trace::Trace,
};
use assign::{Agent, Answer, Assignments, Duplex, Pending, Query, QueryError, Report, ReportError, ServerAssignment, Uplink};
use base::retry::Backoff;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

const ROUND: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(3));
const FIRST: Duration = Duration::from_secs(10);
const TAKEN: Duration = Duration::from_secs(30);
/// A line over which nothing came for so long is given up, by each end for itself.
const SILENT: Duration = Duration::from_secs(4);

/// Which way messages go on a host's wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Open,
    Cut,
    OnlyUp,
    OnlyDown,
}

impl Wire {
    fn up(self) -> bool {
        matches!(self, Self::Open | Self::OnlyUp)
    }
    fn down(self) -> bool {
        matches!(self, Self::Open | Self::OnlyDown)
    }
}

enum Up {
    Reports { number: u64, reports: Vec<Report> },
}

enum Down {
    Level(Arc<Assignments>),
    Taken { number: u64, refused: Option<String> },
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The controllers as an agent has them. Ends with the last reference.
pub(crate) struct Upstream {
    shared: Arc<Shared>,
    _keeper: JoinSet<()>,
}

struct Shared {
    host: String,
    trace: Arc<Trace>,
    dice: Dice,
    wire: watch::Receiver<Wire>,
    controllers: Vec<Arc<Controller>>,
    mutant: Option<Mutant>,
    assignments: watch::Sender<Arc<Assignments>>,
    unseen: watch::Receiver<Arc<Assignments>>,
    line: watch::Sender<Option<Arc<Attached>>>,
    agent: Mutex<Option<Weak<node::Agent>>>,
}

struct Attached {
    send: mpsc::UnboundedSender<Up>,
    next: AtomicU64,
    taken: Mutex<HashMap<u64, oneshot::Sender<Option<String>>>>,
}

impl Upstream {
    pub(crate) fn start(
        host: &str,
        trace: &Arc<Trace>,
        seed: u64,
        wire: watch::Receiver<Wire>,
        controllers: &[Arc<Controller>],
        mutant: Option<Mutant>,
    ) -> Arc<Self> {
        let (assignments, unseen) = watch::channel(Arc::default());
        let shared = Arc::new(Shared {
            host: host.to_owned(),
            trace: trace.clone(),
            dice: Dice::new(seed, 0),
            wire,
            controllers: controllers.to_vec(),
            mutant,
            assignments,
            unseen,
            line: watch::Sender::new(None),
            agent: Mutex::default(),
        });
        let mut keeper = JoinSet::new();
        keeper.spawn(shared.clone().keep_attached());
        Arc::new(Self { shared, _keeper: keeper })
    }

    /// What it was told last.
    pub(crate) fn told(&self) -> Arc<Assignments> {
        self.shared.assignments.borrow().clone()
    }

    /// As if it had been told so anew: epochs that do not say what is old.
    pub(crate) fn pretend(&self, level: &Assignments) {
        let anew = |a: &Arc<ServerAssignment>| {
            Arc::new(ServerAssignment { epoch: a.epoch + 1, revision: a.revision + 1, ..ServerAssignment::clone(a) })
        };
        let servers = level.servers.iter().map(|(id, a)| (id.clone(), anew(a))).collect();
        self.shared.assignments.send_replace(Arc::new(Assignments { servers, ..level.clone() }));
    }

    /// Names who answers questions.
    pub(crate) fn serve(&self, agent: &Arc<node::Agent>) {
        *lock(&self.shared.agent) = Some(Arc::downgrade(agent));
    }
}

impl Shared {
    fn latency(&self) -> Duration {
        self.dice.seconds(0.000_2..0.03)
    }

    async fn passes(&self, way: fn(Wire) -> bool) {
        sleep(self.latency()).await;
        self.wire.clone().wait_for(|w| way(*w)).await.ok();
    }

    async fn keep_attached(self: Arc<Self>) {
        let mut attempt = 0;
        loop {
            let mut round = self.controllers.clone();
            self.dice.shuffle(&mut round);
            for controller in round {
                let Some(process) = controller.process() else { continue };
                let started = Instant::now();
                let why = self.attached(&controller, &process).await;
                self.line.send_replace(None);
                self.trace.note(&format!("{} is not attached to {}: {why}", self.host, controller.name));
                if started.elapsed() > Duration::from_secs(10) {
                    attempt = 0;
                }
            }
            sleep(ROUND.jittered(attempt)).await;
            attempt += 1;
        }
    }

    async fn attached(self: &Arc<Self>, controller: &Controller, process: &Arc<Process>) -> &'static str {
        let (to_controller, from_node) = mpsc::unbounded_channel();
        let (to_node, mut from_controller) = mpsc::unbounded_channel();
        // Both ends of the connection; each notices by itself that it is over.
        tokio::spawn(Session { shared: self.clone(), process: process.clone() }.run(from_node, to_node));
        let line = Arc::new(Attached { send: to_controller, next: AtomicU64::new(1), taken: Mutex::default() });
        let mut over = process.over();
        let listen = async {
            let mut is_first = true;
            loop {
                let next = if is_first { timeout(FIRST, from_controller.recv()).await } else { Ok(from_controller.recv().await) };
                match next {
                    Err(_) => return "no answer",
                    Ok(None) => return "it has closed the line",
                    Ok(Some(Down::Taken { number, refused })) => {
                        if let Some(waiting) = lock(&line.taken).remove(&number) {
                            waiting.send(refused).ok();
                        }
                    }
                    Ok(Some(Down::Level(level))) => {
                        self.take(&controller.name, &level);
                        if std::mem::take(&mut is_first) {
                            self.line.send_replace(Some(line.clone()));
                        }
                    }
                }
            }
        };
        tokio::select! {
            biased;
            why = listen => why,
            _ = over.wait_for(|over| *over) => "it has ended",
            () = self.silence(process) => "it is silent",
        }
    }

    /// Returns when nothing has got through for too long, either way.
    async fn silence(&self, process: &Process) {
        loop {
            let both = async {
                self.wire.clone().wait_for(|w| *w == Wire::Open).await.ok();
                process.heard().await;
            };
            if timeout(SILENT, both).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// A new level has come; what is as it was keeps its `Arc`.
    fn take(&self, from: &str, level: &Assignments) {
        let old = self.assignments.borrow().clone();
        let mut now = level.clone();
        if self.mutant == Some(Mutant::DeafNode) {
            for (id, a) in &old.servers {
                now.servers.entry(id.clone()).or_insert_with(|| a.clone());
            }
        }
        keep(&old.servers, &mut now.servers);
        keep(&old.networks, &mut now.networks);
        keep(&old.snapshots, &mut now.snapshots);
        keep(&old.volumes, &mut now.volumes);
        let told = |a: &Arc<ServerAssignment>| format!("{}:{}.{}:{:?}", &a.id[..8], a.epoch, a.revision, a.power);
        let servers: Vec<String> = now.servers.values().map(told).collect();
        self.trace.note(&format!("{} is told by {from}: {} {}", self.host, servers.join(" "), now.snapshots.len()));
        self.assignments.send_replace(Arc::new(now));
    }
}

fn keep<T: PartialEq>(old: &BTreeMap<String, Arc<T>>, new: &mut BTreeMap<String, Arc<T>>) {
    for (id, now) in new {
        if let Some(same) = old.get(id).filter(|o| **o == *now) {
            *now = same.clone();
        }
    }
}

impl Uplink for Upstream {
    fn assignments(&self) -> watch::Receiver<Arc<Assignments>> {
        self.shared.unseen.clone()
    }
    fn report(&self, reports: Vec<Report>) -> Pending<'_, Result<(), ReportError>> {
        Box::pin(async move {
            let broke = || ReportError("the line to the controller broke".into());
            let mut lines = self.shared.line.subscribe();
            let line = lines.wait_for(Option::is_some).await.ok().and_then(|l| l.clone()).ok_or_else(broke)?;
            let (number, (send, taken)) = (line.next.fetch_add(1, Ordering::Relaxed), oneshot::channel());
            lock(&line.taken).insert(number, send);
            line.send.send(Up::Reports { number, reports }).map_err(|_| broke())?;
            tokio::select! {
                biased;
                taken = timeout(TAKEN, taken) => match taken {
                    Ok(Ok(None)) => Ok(()),
                    Ok(Ok(Some(cause))) => Err(ReportError(cause)),
                    Ok(Err(_)) => Err(broke()),
                    Err(_) => Err(ReportError("no answer".into())),
                },
                _ = lines.wait_for(|now| now.as_ref().is_none_or(|now| !Arc::ptr_eq(now, &line))) => Err(broke()),
            }
        })
    }
}

/// The controller's end of a line.
struct Session {
    shared: Arc<Shared>,
    process: Arc<Process>,
}

impl Session {
    async fn run(self, from_node: mpsc::UnboundedReceiver<Up>, to_node: mpsc::UnboundedSender<Down>) {
        let Self { shared, process } = &self;
        let mut over = process.over();
        let number = {
            let mut lines = lock(&process.lines);
            let newest = lines.entry(shared.host.clone()).or_default();
            *newest += 1;
            *newest
        };
        tokio::select! {
            biased;
            _ = over.wait_for(|over| *over) => return,
            () = self.attend(from_node, to_node) => {}
            () = shared.silence(process) => {}
        }
        // A newer line of the host has taken its place already.
        if lock(&process.lines).get(&shared.host) == Some(&number) {
            let lost = process.nodes().lost(&shared.host);
            tokio::select! {
                biased;
                _ = over.wait_for(|over| *over) => {}
                _ = lost => {}
            }
        }
    }

    async fn attend(&self, mut from_node: mpsc::UnboundedReceiver<Up>, to_node: mpsc::UnboundedSender<Down>) {
        let Self { shared, process } = self;
        shared.passes(Wire::up).await;
        process.heard().await;
        let Ok(uplink) = process.nodes().join_now(&shared.host).await else { return };
        let agent = Arc::new(Questions { shared: shared.clone(), process: process.clone() });
        process.nodes().attach(&shared.host, agent);
        let answers = to_node.clone();
        let reports = async {
            while let Some(Up::Reports { number, reports }) = from_node.recv().await {
                shared.passes(Wire::up).await;
                process.heard().await;
                for report in &reports {
                    shared.trace.note(&format!("{} reports {}", shared.host, told(report)));
                }
                let refused = uplink.report(reports).await.err().map(|e| e.to_string());
                if self.tell(&answers, Down::Taken { number, refused }).await.is_err() {
                    return;
                }
            }
        };
        let levels = async {
            let mut levels = uplink.assignments();
            levels.mark_changed();
            while levels.changed().await.is_ok() {
                let level = levels.borrow_and_update().clone();
                if self.tell(&to_node, Down::Level(level)).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = reports => {}
            () = levels => {}
        }
    }

    /// Fails when the node's end is closed.
    async fn tell(&self, to_node: &mpsc::UnboundedSender<Down>, down: Down) -> Result<(), ()> {
        self.process.heard().await;
        self.shared.passes(Wire::down).await;
        to_node.send(down).map_err(|_| ())
    }
}

fn told(report: &Report) -> String {
    match report {
        Report::Host(h) => format!("host {}", h.boot_id),
        Report::Server(s) => {
            format!("server {} {}.{} {:?} {:?} {:?} at {:?}", s.id, s.epoch, s.revision, s.state, s.cause, s.step, s.launched_at)
        }
        Report::Snapshot(s) => format!("snapshot {} {}", s.image_id, s.result.is_ok()),
        Report::Password(p) => format!("password of {}", p.server_id),
        Report::Volume(v) => format!("volume {}", v.id),
    }
}

/// The agent as a controller asks it.
struct Questions {
    shared: Arc<Shared>,
    process: Arc<Process>,
}

impl Agent for Questions {
    fn query(&self, query: Query) -> Pending<'_, Result<Answer, QueryError>> {
        Box::pin(async move {
            self.process.heard().await;
            self.shared.passes(Wire::down).await;
            let unreachable = || QueryError::Unreachable(self.shared.host.clone());
            let agent = lock(&self.shared.agent).as_ref().and_then(Weak::upgrade).ok_or_else(unreachable)?;
            let answer = Agent::query(&*agent, query).await;
            self.shared.passes(Wire::up).await;
            self.process.heard().await;
            answer
        })
    }
    fn vnc(&self, _: &str) -> Pending<'_, Result<Box<dyn Duplex>, QueryError>> {
        Box::pin(async move { Err(QueryError::Unreachable(self.shared.host.clone())) })
    }
}
