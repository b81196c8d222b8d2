//! What a controller's API tells its [`Pulse`](crate::Pulse), which is in another process, and hears from it.
//!
//! ```text
//!   API ──{"readiness":"ready","store_silent_ms":12,"controllers":{"c1":"10.0.0.1",…}}──▶ pulse     DIR/pulse.sock, with every beat
//!       ◀──{"time":1764000000000000}────────────────────────────────────────────────────           what most controllers have
//! ```
//! Both are a line of JSON.
//!
//! Whoever holds its breath is silent: an API whose process stands still tells nothing, and needs nobody who notices that.
use crate::{Controller, Readiness, pulse::BEAT};
use base::{SteadyClock, Timestamp, retry::Backoff};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::IpAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

/// What the API has said of itself is good for so long.
const STALE: Duration = Duration::from_millis(1500);
/// A pulse that does not answer for so long is asked anew.
const ANSWER: Duration = Duration::from_secs(1);
/// A time that was under way for longer is none.
const PROMPT: Duration = BEAT.saturating_mul(2);
const AGAIN: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
/// So many attempts in a row, some seconds, are told of.
const NOTICED: u32 = 10;
/// Bytes of a line: some thousand controllers.
const LONGEST: u64 = 65536;

/// What the API says with every beat.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Word {
    pub(crate) readiness: Readiness,
    /// How long ago the store, of which most others have a copy, last answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) store_silent_ms: Option<u64>,
    /// All of the cluster, once they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) controllers: Option<BTreeMap<String, IpAddr>>,
}

/// What it hears.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    /// What most controllers have for the time, if most have one.
    pub(crate) time: Option<Timestamp>,
}

/// The API's end.
pub struct Voice {
    socket: PathBuf,
    /// Set to the time that most controllers have.
    clock: Arc<SteadyClock>,
    /// How long the store has been silent.
    store: Box<dyn Fn() -> Duration + Send + Sync>,
    inner: Mutex<Inner>,
}

struct Inner {
    said: Option<(Readiness, Instant)>,
    controllers: Option<BTreeMap<String, IpAddr>>,
}

impl Voice {
    /// `dir` is that of the [`crate::FrontDoor`]; `clock` is set while it runs; `store` tells how long ago the store last showed that it
    /// has a majority.
    pub fn new(dir: &Path, clock: Arc<SteadyClock>, store: impl Fn() -> Duration + Send + Sync + 'static) -> Arc<Self> {
        let inner = Mutex::new(Inner { said: None, controllers: None });
        Arc::new(Self { socket: socket(dir), clock, store: Box::new(store), inner })
    }

    /// How this controller is. Say it again at least once a second: a process that cannot say it cannot serve either.
    pub fn say(&self, readiness: Readiness) {
        self.inner().said = Some((readiness, Instant::now()));
    }

    /// Who the controllers are; this one may be among them.
    pub fn know(&self, controllers: &[Controller]) {
        self.inner().controllers = Some(controllers.iter().map(|c| (c.name.clone(), c.api.ip())).collect());
    }

    /// Tells the pulse for as long as it is polled; best on a thread of its own, which is on time while others are busy.
    pub async fn run(&self) -> Infallible {
        let mut attempt = 0;
        loop {
            let begun = Instant::now();
            let Err(e) = self.speak().await;
            // The pulse's process may just be starting again.
            attempt = if begun.elapsed() > ANSWER { 0 } else { attempt + 1 };
            if attempt == NOTICED {
                tracing::warn!(error = %e, "The pulse of this controller does not listen: it seems dead to the other controllers' doors");
            }
            sleep(AGAIN.jittered(attempt)).await;
        }
    }

    async fn speak(&self) -> io::Result<Infallible> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        let (reader, mut writer) = stream.split();
        let mut reader = BufReader::new(reader);
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beats.tick().await;
            let asked = Instant::now();
            let answered = async {
                write(&mut writer, &self.word(asked)).await?;
                read::<Told>(&mut reader).await?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
            };
            let told = timeout(ANSWER, answered).await??;
            if let Some(time) = told.time.filter(|_| asked.elapsed() < PROMPT) {
                self.clock.set(time);
            }
        }
    }

    fn word(&self, now: Instant) -> Word {
        let inner = self.inner();
        let fresh = inner.said.filter(|(_, at)| now.saturating_duration_since(*at) < STALE);
        Word {
            readiness: fresh.map_or(Readiness::Unready, |(readiness, _)| readiness),
            store_silent_ms: (self.store)().as_millis().try_into().ok(),
            controllers: inner.controllers.clone(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("pulse.sock")
}

/// The pulse's end; what an earlier one left is replaced.
pub(crate) fn bind(dir: &Path) -> io::Result<UnixListener> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let socket = socket(dir);
    match std::fs::remove_file(&socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => UnixListener::bind(&socket),
    }
}

pub(crate) async fn write(to: &mut (impl AsyncWrite + Unpin), what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    to.write_all(&line).await
}

/// The next line; nothing at the end.
pub(crate) async fn read<T: DeserializeOwned>(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    from.take(LONGEST).read_until(b'\n', &mut line).await?;
    if line.is_empty() { Ok(None) } else { Ok(Some(serde_json::from_slice(&line)?)) }
}
