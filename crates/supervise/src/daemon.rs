//! A long-running process of ours: start it once, find it again, watch it, stop it.
//!
//! ```text
//!            ensure                    ready
//!   absent ─────────▶ starting ───────────────▶ running ──┐
//!      ▲                  │ ended or late          │      │ ensure: re-adopted
//!      └──────────────────┴──── stop, crash, ◀─────┘◀─────┘
//!                               stood still
//! ```
use crate::{Error, Identity, exec, record};
use base::retry::Backoff;
use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    process::Stdio,
    sync::Arc,
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// A question about readiness that the caller answers.
pub type Check = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// When a started process counts as ready.
#[derive(Clone)]
pub enum Ready {
    /// It runs.
    Started,
    /// Something accepts connections on this unix socket.
    Socket(PathBuf),
    /// The caller's check says yes.
    Check(Check),
}

impl Ready {
    async fn holds(&self) -> bool {
        match self {
            Self::Started => true,
            Self::Socket(path) => tokio::net::UnixStream::connect(path).await.is_ok(),
            Self::Check(check) => check().await,
        }
    }
}

/// What to run and where its traces are: `NAME.json`, `NAME.lock` and `NAME.log` in `run_dir`.
#[derive(Clone)]
pub struct Daemon {
    pub name: String,
    pub argv: Vec<String>,
    /// The whole environment besides `PATH`; nothing of ours leaks into it.
    pub env: Vec<(String, String)>,
    /// A named network namespace.
    pub netns: Option<String>,
    pub run_dir: PathBuf,
    pub ready: Ready,
    pub ready_within: Duration,
    /// How soon it is started again when it ended under watch.
    pub retry: Backoff,
    /// Under watch, one that has stood still for so long is ended and started anew: stopped by a signal, or with the whole machine.
    /// For programs for whom others go on sending meanwhile, and who would work through all of it first.
    pub still: Option<Duration>,
    /// It goes before others on a busy machine (`setpriority(2)`): -20 first, 19 last. Without the right to it, it is as all are.
    pub nice: Option<i8>,
}

/// A daemon that runs and is ready.
#[derive(Debug)]
pub struct Running {
    pub id: Identity,
    /// It ran before this call.
    pub adopted: bool,
    /// It runs with another command line than the daemon now has; stop and ensure it when that suits.
    pub stale: bool,
}

impl Daemon {
    pub fn new(name: impl Into<String>, run_dir: impl Into<PathBuf>, argv: Vec<String>) -> Self {
        Self {
            name: name.into(),
            argv,
            env: Vec::new(),
            netns: None,
            run_dir: run_dir.into(),
            ready: Ready::Started,
            ready_within: Duration::from_secs(20),
            retry: Backoff::new(Duration::from_millis(200), Duration::from_secs(10)),
            still: None,
            nice: None,
        }
    }
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }
    pub fn netns(mut self, netns: Option<String>) -> Self {
        self.netns = netns;
        self
    }
    pub fn ready(mut self, ready: Ready) -> Self {
        self.ready = ready;
        self
    }
    pub fn retry(mut self, retry: Backoff) -> Self {
        self.retry = retry;
        self
    }
    pub fn still(mut self, limit: Duration) -> Self {
        self.still = Some(limit);
        self
    }
    pub fn nice(mut self, nice: i8) -> Self {
        self.nice = Some(nice);
        self
    }

    /// The process that runs now for this daemon, started by whichever Drover.
    pub fn running(&self) -> Option<Identity> {
        let recorded = record::Record::read(&self.file("json")).map(|r| r.id).filter(Identity::alive);
        recorded.or_else(|| Identity::marked(&self.mark()))
    }

    /// Starts it if it does not run, and returns when it is ready.
    pub async fn ensure(&self) -> Result<Running, Error> {
        let _lock = self.lock().await?;
        if let Some(id) = self.running() {
            let recorded = record::Record::read(&self.file("json")).filter(|r| r.id == id);
            let stale = recorded.as_ref().is_none_or(|r| r.argv != self.argv);
            if recorded.is_none() {
                record::Record::new(id, &[]).write(&self.name, &self.file("json"))?;
            }
            self.wait_ready(id).await?;
            return Ok(Running { id, adopted: true, stale });
        }
        let id = self.spawn()?;
        self.wait_ready(id).await?;
        tracing::info!(daemon = %self.name, pid = id.pid, "daemon {} started", self.name);
        Ok(Running { id, adopted: false, stale: false })
    }

    /// Ends it: SIGTERM, after `grace` SIGKILL. No error if it does not run.
    pub async fn stop(&self, grace: Duration) -> Result<(), Error> {
        const AFTER_KILL: Duration = Duration::from_secs(10);
        let _lock = self.lock().await?;
        // A second one can exist if Drover died between starting and recording; stop means none is left.
        while let Some(handle) = self.running().and_then(|id| id.open()) {
            let pid = handle.id().pid;
            let _ = handle.terminate();
            if tokio::time::timeout(grace, handle.exited()).await.is_err() {
                let _ = handle.kill();
                let gone = tokio::time::timeout(AFTER_KILL, handle.exited()).await;
                gone.map_err(|_| Error::Unkillable { name: self.name.clone(), pid, within: AFTER_KILL })?;
            }
        }
        let _ = std::fs::remove_file(self.file("json"));
        Ok(())
    }

    /// Keeps it running until the returned guard is dropped; the process itself goes on after that.
    pub fn watch(self) -> Watched {
        let (state, seen) = watch::channel(State::default());
        let task = tokio::spawn(async move { self.keep(&state).await });
        Watched { task, state: seen }
    }

    async fn keep(&self, state: &watch::Sender<State>) {
        const STEADY: Duration = Duration::from_secs(30);
        let mut attempt = 0;
        loop {
            match self.ensure().await {
                Ok(running) => {
                    let since = Instant::now();
                    state.send_modify(|s| s.running = Some(running.id));
                    if let Some(handle) = running.id.open() {
                        tokio::select! {
                            () = handle.exited() => {}
                            limit = self.stood_still(running.id) => {
                                tracing::warn!(daemon = %self.name, ?limit, "daemon {} stood still; it is started anew", self.name);
                                let _ = handle.kill();
                                handle.exited().await;
                            }
                        }
                    }
                    attempt = if since.elapsed() > STEADY { 0 } else { attempt };
                    let text = format!("ended; log: {}", record::tail(&self.file("log")));
                    tracing::warn!(daemon = %self.name, pid = running.id.pid, "daemon {} {text}", self.name);
                    state.send_modify(|s| *s = State { running: None, restarts: s.restarts + 1, last_error: Some(text) });
                }
                Err(e) => {
                    let text = base::chain(&e);
                    tracing::error!(daemon = %self.name, "daemon {} is down, will be tried again: {text}", self.name);
                    state.send_modify(|s| *s = State { running: None, restarts: s.restarts, last_error: Some(text) });
                }
            }
            tokio::time::sleep(self.retry.jittered(attempt)).await;
            attempt += 1;
        }
    }

    /// Returns the limit when `id` has stood still for longer. Whether this process could look all the time tells of the whole machine.
    async fn stood_still(&self, id: Identity) -> Duration {
        /// In limits: how long it is left alone after its start, so that a machine that stands still often does not only start it.
        const SPARED: u32 = 10;
        let Some(limit) = self.still else { return std::future::pending().await };
        tokio::time::sleep(limit * SPARED).await;
        let (mut last, mut stopped) = (Instant::now(), Duration::ZERO);
        loop {
            tokio::time::sleep(limit / 4).await;
            let passed = last.elapsed();
            last += passed;
            stopped = if id.is_stopped() { stopped + passed } else { Duration::ZERO };
            if passed.max(stopped) > limit {
                return limit;
            }
        }
    }

    fn spawn(&self) -> Result<Identity, Error> {
        let log = record::open_log(&self.name, &self.file("log"))?;
        let again = log.try_clone().map_err(|source| self.file_error("open", &self.file("log"), source))?;
        // `nsenter`, `nice` and `setsid` become the program itself, so the pid is the daemon's. Own session: no signal of our
        // terminal or process group reaches it.
        let nice = self.nice.map(|n| ["nice".to_owned(), format!("--adjustment={n}")]);
        let wrap = exec::enter(self.netns.as_deref()).chain(nice.into_iter().flatten()).chain(["setsid".to_owned()]);
        let argv: Vec<String> = wrap.chain(self.argv.iter().cloned()).collect();
        let path = std::env::var("PATH").unwrap_or_default();
        let path = if path.contains("/sbin") { path } else { format!("{path}:/usr/local/sbin:/usr/sbin:/sbin") };
        let (mark, place) = (MARK, format!("{}/{}", self.run_dir.display(), self.name));
        let child = tokio::process::Command::new(&argv[0])
            .args(&argv[1..])
            .env_clear()
            .env("PATH", path)
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .env(mark, place)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(again)
            .spawn();
        let spawn_error = |source| Error::Spawn { name: self.name.clone(), program: self.argv[0].clone(), source };
        let mut child = child.map_err(spawn_error)?;
        let pid = child.id().and_then(|p| i32::try_from(p).ok());
        let id = pid.and_then(Identity::of);
        let name = self.name.clone();
        // Only to reap it: the process is not ours to keep, and ends when it wants.
        tokio::spawn(async move {
            if let Ok(status) = child.wait().await {
                tracing::debug!(daemon = %name, "daemon {name} left with {status}");
            }
        });
        let id = id.ok_or_else(|| self.died())?;
        record::Record::new(id, &self.argv).write(&self.name, &self.file("json"))?;
        Ok(id)
    }

    async fn wait_ready(&self, id: Identity) -> Result<(), Error> {
        let handle = id.open().ok_or_else(|| self.died())?;
        // What a program makes of its own command line later is its own affair.
        const BECOMING: Duration = Duration::from_secs(1);
        let begun = Instant::now();
        let until = begun + self.ready_within;
        let has_become = || id.has_become(&["setsid", "nsenter", "nice"]) || begun.elapsed() > BECOMING;
        let mut pause = Duration::from_millis(5);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if matches!(tokio::time::timeout(left, self.ready.holds()).await, Ok(true)) && id.leads_session() && has_become() {
                return Ok(());
            }
            if Instant::now() >= until {
                let (name, log) = (self.name.clone(), self.file("log"));
                return Err(Error::NotReady { name, within: self.ready_within, tail: record::tail(&log), log });
            }
            tokio::select! {
                () = handle.exited() => return Err(self.died()),
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_millis(100)),
            }
        }
    }

    async fn lock(&self) -> Result<std::fs::File, Error> {
        let made = std::fs::create_dir_all(&self.run_dir);
        made.map_err(|source| self.file_error("create", &self.run_dir, source))?;
        record::lock(&self.name, self.file("lock"), self.ready_within + Duration::from_secs(10)).await
    }
    fn file(&self, extension: &str) -> PathBuf {
        self.run_dir.join(format!("{}.{extension}", self.name))
    }
    fn mark(&self) -> String {
        format!("{MARK}={}/{}", self.run_dir.display(), self.name)
    }
    fn died(&self) -> Error {
        let log = self.file("log");
        Error::Died { name: self.name.clone(), tail: record::tail(&log), log }
    }
    fn file_error(&self, act: &'static str, path: &Path, source: std::io::Error) -> Error {
        Error::File { name: self.name.clone(), act, path: path.into(), source }
    }
}

/// The environment variable that names the daemon a process belongs to.
const MARK: &str = "DROVER_DAEMON";

/// What a watched daemon does now.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub running: Option<Identity>,
    /// How often it ended under watch.
    pub restarts: u64,
    pub last_error: Option<String>,
}

/// Keeps a daemon watched as long as it lives.
#[derive(Debug)]
pub struct Watched {
    task: tokio::task::JoinHandle<()>,
    state: watch::Receiver<State>,
}

impl Watched {
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}
