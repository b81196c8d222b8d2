//! Controllers ask each other twenty times a second how they are, so that each door knows within a third of a second who can serve.
//!
//! ```text
//!   API of c1 ──"I am ready"──▶ pulse of c1           haproxy of c1 ──"c2"──▶ agent of c1 (loopback): ready, drain, down
//!   c1 ──"how are you, NONCE"──▶ c2:8775/udp          keepalived of c1 ◀── the file `alone`: nobody answers
//!   c1 ◀──"ready, NONCE"──────── c2
//! ```
//! The pulse is in another process than the API, which tells it how it is (see `voice`): a door must hear of its own controller's API, too,
//! when that stands still. A pulse that does not hear its API answers nobody.
//!
//! haproxy's own checks cannot do this: on a busy machine a new TLS connection takes longer than a dead controller may be asked, and each
//! check sees one controller where the answer depends on all of them. Questions and answers carry a code of authentication with a key that
//! only controllers have, and an answer is good for its own question, so that nobody else can speak for one.
//!
//! With each answer goes the machine's time. What controllers note and judge is by the time that most of them have, which the pulse tells
//! its API, so that one whose clock is set, by hand or by a bad time server, neither ends tasks nor outlives tokens.
use crate::{
    Readiness,
    judge::{self, Known},
    voice::{self, Told, Word},
};
use base::{Clock as _, SystemClock, Timestamp};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream},
    time::{Instant, MissedTickBehavior, interval, timeout},
};

/// UDP, on each controller's address.
pub const PULSE_PORT: u16 = 8775;
/// Where haproxy asks, on loopback only.
pub const AGENT_PORT: u16 = 8779;

pub(crate) const BEAT: Duration = Duration::from_millis(50);
/// The time that a controller has told is good for so long.
const STALE: Duration = Duration::from_millis(1500);
/// The API says how it is with every beat; without its word there is nothing to answer.
const WORD: Duration = BEAT.saturating_mul(2);
/// Answers to older questions say nothing about now.
const CURRENT: u64 = 20;
/// haproxy writes its one line at once, and it is short.
const LINE: (Duration, u64) = (Duration::from_secs(1), 256);

const NONCE: usize = 16;
const CODE: usize = 32;
const QUESTION: usize = NONCE + CODE;
const ANSWER: usize = NONCE + 1 + CODE;
const TIME: usize = NONCE + 8 + CODE;

/// Where a controller says how it is, and hears how the others are.
pub struct Pulse {
    name: String,
    key: [u8; 32],
    /// Of this run, so that no answer of an earlier one is taken.
    run: u64,
    /// Says to keepalived whether this controller is alone.
    alone: PathBuf,
    inner: Mutex<Inner>,
}

/// Sockets of a [`Pulse`], bound before it runs.
pub struct Sockets {
    pulse: UdpSocket,
    agent: TcpListener,
    /// Where the API tells how it is.
    words: UnixListener,
}

impl Sockets {
    /// On this controller's address, on loopback, and in the directory of its [`crate::FrontDoor`], which is made.
    pub async fn bind(own: IpAddr, dir: &Path) -> io::Result<Self> {
        let agent = SocketAddr::from(([127, 0, 0, 1], AGENT_PORT));
        Self::new(UdpSocket::bind((own, PULSE_PORT)).await?, TcpListener::bind(agent).await?, dir)
    }

    /// [`Self::bind`], with the first two of another network namespace.
    pub fn new(pulse: UdpSocket, agent: TcpListener, dir: &Path) -> io::Result<Self> {
        Ok(Self { pulse, agent, words: voice::bind(dir)? })
    }
}

struct Inner {
    own: Seen,
    /// When the store last answered its API.
    store: Option<Instant>,
    peers: BTreeMap<String, (IpAddr, Seen)>,
    beat: u64,
    written: Option<bool>,
    /// Is this machine's clock not what it is judged by?
    overruled: bool,
}

struct Seen {
    /// Its machine's time, and when it told.
    time: Option<(Timestamp, Instant)>,
    readiness: Readiness,
    /// When it was something else than unready.
    well: Instant,
    heard: Instant,
}

impl Seen {
    fn new(now: Instant) -> Self {
        Self { time: None, readiness: Readiness::Unready, well: now, heard: now }
    }
    fn hear(&mut self, readiness: Readiness, now: Instant) {
        if readiness != Readiness::Unready {
            self.well = now;
        }
        (self.readiness, self.heard) = (readiness, now);
    }
    /// Nobody listened for so long.
    fn excuse(&mut self, lost: Duration, now: Instant) {
        self.heard = (self.heard + lost).min(now);
        self.well = (self.well + lost).min(now);
    }
    fn known(&self, now: Instant) -> Known {
        let unready = now.saturating_duration_since(self.well);
        let unready = if self.readiness == Readiness::Unready { unready } else { Duration::ZERO };
        Known { readiness: self.readiness, unready, silent: now.saturating_duration_since(self.heard) }
    }
    /// Its machine's time now, if it told lately.
    fn time(&self, now: Instant) -> Option<Timestamp> {
        let (then, at) = self.time?;
        let since = now.saturating_duration_since(at);
        (since < STALE).then(|| then.plus(since))
    }
}

/// The file by which keepalived learns it, in the directory of a [`crate::FrontDoor`].
pub(crate) fn alone_file(dir: &Path) -> PathBuf {
    dir.join("alone")
}

impl Pulse {
    /// `key` is the same on all controllers, and nobody else's; `dir` is that of the [`crate::FrontDoor`].
    pub fn new(name: &str, key: [u8; 32], dir: &Path) -> Arc<Self> {
        let own = Seen::new(Instant::now());
        let inner = Mutex::new(Inner { own, store: None, peers: BTreeMap::new(), beat: 0, written: None, overruled: false });
        Arc::new(Self { name: name.to_owned(), key, run: rand::random(), alone: alone_file(dir), inner })
    }

    /// Asks, answers and tells for as long as it is polled; best on a thread of its own, which is on time while others are busy.
    pub async fn run(self: &Arc<Self>, sockets: Sockets) -> io::Result<Infallible> {
        let Sockets { pulse, agent, words } = sockets;
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut last, mut datagram) = (Instant::now(), [0; 128]);
        loop {
            tokio::select! {
                // What came while this process did not run is heard before anybody is called silent.
                biased;
                got = pulse.recv_from(&mut datagram) => match got {
                    Ok((length, from)) => self.take(&pulse, &datagram[..length], from),
                    // An earlier datagram found nobody.
                    Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(e) => return Err(e),
                },
                () = async { beats.tick().await; } => {
                    let now = Instant::now();
                    self.ask(&pulse, now, now.saturating_duration_since(last).saturating_sub(2 * BEAT));
                    last = now;
                    self.note(now)?;
                }
                connected = words.accept() => {
                    let (stream, _) = connected?;
                    tokio::spawn(self.clone().listen(stream));
                }
                connected = agent.accept() => {
                    let (stream, _) = connected?;
                    tokio::spawn(self.clone().tell(stream));
                }
            }
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who did not run for a while could not hear, and does not hold it against anybody.
    fn ask(&self, socket: &UdpSocket, now: Instant, lost: Duration) {
        let mut inner = self.inner();
        inner.beat += 1;
        let nonce = nonce(self.run, inner.beat);
        inner.own.excuse(lost, now);
        inner.store = inner.store.map(|at| (at + lost).min(now));
        for (name, (ip, seen)) in &mut inner.peers {
            seen.excuse(lost, now);
            let question = [&nonce[..], &self.code(b"question", name, &nonce)].concat();
            // What the network does not take now is what the others will notice.
            let _ = socket.try_send_to(&question, SocketAddr::new(*ip, PULSE_PORT));
        }
    }

    fn take(&self, socket: &UdpSocket, datagram: &[u8], from: SocketAddr) {
        let now = Instant::now();
        match datagram.len() {
            QUESTION => {
                let (nonce, code) = datagram.split_at(NONCE);
                if self.is_code(b"question", &self.name, nonce, code) {
                    let own = self.inner().own.known(now);
                    if own.silent < WORD {
                        let said = [nonce, &[byte(own.readiness)]].concat();
                        let _ = socket.try_send_to(&[&said[..], &self.code(b"answer", &self.name, &said)].concat(), from);
                    }
                    let time = [nonce, &SystemClock.now().0.to_be_bytes()].concat();
                    let _ = socket.try_send_to(&[&time[..], &self.code(b"time", &self.name, &time)].concat(), from);
                }
            }
            ANSWER => self.hear(b"answer", datagram, from, |seen, said| {
                if let Some(readiness) = said.first().copied().and_then(readiness) {
                    seen.hear(readiness, now);
                }
            }),
            TIME => self.hear(b"time", datagram, from, |seen, said| {
                seen.time = said.try_into().ok().map(|bytes| (Timestamp(i64::from_be_bytes(bytes)), now));
            }),
            _ => {}
        }
    }

    /// What a peer says to a question of late.
    fn hear(&self, what: &[u8], datagram: &[u8], from: SocketAddr, note: impl FnOnce(&mut Seen, &[u8])) {
        let (said, code) = datagram.split_at(datagram.len() - CODE);
        let (asked, said_then) = said.split_at(NONCE);
        let mut inner = self.inner();
        let current = (inner.beat.saturating_sub(CURRENT)..=inner.beat).any(|beat| nonce(self.run, beat) == asked);
        let peer = inner.peers.iter_mut().find(|(_, (ip, _))| *ip == from.ip());
        if let (true, Some((name, (_, seen)))) = (current, peer)
            && self.is_code(what, name, said, code)
        {
            note(seen, said_then);
        }
    }

    /// Hears this controller's API for as long as it speaks, and tells it the time.
    async fn listen(self: Arc<Self>, mut stream: UnixStream) {
        let (reader, mut writer) = stream.split();
        let mut reader = BufReader::new(reader);
        while let Ok(Some(word)) = voice::read::<Word>(&mut reader).await {
            let told = self.heed(word);
            if let Err(e) = voice::write(&mut writer, &told).await {
                tracing::debug!(error = %e, "The API does not listen");
                return;
            }
        }
    }

    fn heed(&self, word: Word) -> Told {
        let now = Instant::now();
        let mut inner = self.inner();
        inner.own.hear(word.readiness, now);
        inner.store = word.store_silent_ms.and_then(|ms| now.checked_sub(Duration::from_millis(ms)));
        if let Some(controllers) = word.controllers {
            inner.peers.retain(|name, (ip, _)| controllers.get(name) == Some(ip));
            for (name, ip) in controllers.into_iter().filter(|(name, _)| *name != self.name) {
                inner.peers.entry(name).or_insert_with(|| (ip, Seen::new(now)));
            }
        }
        Told { time: self.time(&mut inner, now) }
    }

    /// What most controllers have, if most have told.
    fn time(&self, inner: &mut Inner, now: Instant) -> Option<Timestamp> {
        let own = SystemClock.now();
        let others: Vec<_> = inner.peers.values().filter_map(|(_, seen)| seen.time(now)).collect();
        let time = judge::time(own, &others, inner.peers.len() + 1);
        let overruled = time.is_some_and(|time| time != own);
        if let Some(time) = time.filter(|_| overruled && !inner.overruled) {
            let ahead = (own.0 - time.0) as f64 / 1e6;
            tracing::error!(
                "This machine's clock is {ahead:.0} s ahead of the time that most controllers have; theirs is used here. Set it, and see why \
                 its time service does not"
            );
        }
        inner.overruled = overruled;
        time
    }

    /// Writes for keepalived what has changed.
    fn note(&self, now: Instant) -> io::Result<()> {
        let mut inner = self.inner();
        let others: Vec<_> = inner.peers.values().map(|(_, seen)| seen.known(now)).collect();
        let store = inner.store.map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        let alone = judge::alone(inner.own.known(now), store, &others);
        if inner.written != Some(alone) {
            // In place, as keepalived watches the file.
            std::fs::write(&self.alone, if alone { "1\n" } else { "0\n" })?;
            inner.written = Some(alone);
            if alone {
                tracing::warn!("No other controller answers: the public address must be elsewhere");
            }
        }
        Ok(())
    }

    /// Answers haproxy, which names one of its servers.
    async fn tell(self: Arc<Self>, mut stream: TcpStream) {
        let (reader, mut writer) = stream.split();
        let mut name = String::new();
        let asked = timeout(LINE.0, BufReader::new(reader.take(LINE.1)).read_line(&mut name)).await;
        if let (Ok(Ok(_)), Some(word)) = (asked, self.word(name.trim())) {
            let _ = timeout(LINE.0, writer.write_all(word.as_bytes())).await;
        }
    }

    fn word(&self, name: &str) -> Option<&'static str> {
        let (now, inner) = (Instant::now(), self.inner());
        let own = inner.own.known(now);
        let peers = inner.peers.values().map(|(_, seen)| seen.known(now));
        let all: Vec<_> = peers.chain([own]).collect();
        let one = if name == self.name { own } else { inner.peers.get(name)?.1.known(now) };
        Some(judge::word(one, &all))
    }

    /// `what` of `name`, a controller.
    fn mac(&self, what: &[u8], name: &str, text: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        for part in [what, name.as_bytes(), text] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        Some(mac)
    }
    fn code(&self, what: &[u8], name: &str, text: &[u8]) -> Vec<u8> {
        self.mac(what, name, text).map(|m| m.finalize().into_bytes().to_vec()).unwrap_or_default()
    }
    fn is_code(&self, what: &[u8], name: &str, text: &[u8], code: &[u8]) -> bool {
        self.mac(what, name, text).is_some_and(|m| m.verify_slice(code).is_ok())
    }
}

fn nonce(run: u64, beat: u64) -> [u8; NONCE] {
    let mut nonce = [0; NONCE];
    nonce[..8].copy_from_slice(&run.to_be_bytes());
    nonce[8..].copy_from_slice(&beat.to_be_bytes());
    nonce
}

const STATES: [Readiness; 3] = [Readiness::Ready, Readiness::Unready, Readiness::Draining];

fn byte(readiness: Readiness) -> u8 {
    STATES.iter().zip(0..).find(|(s, _)| **s == readiness).map_or(0, |(_, n)| n)
}
fn readiness(byte: u8) -> Option<Readiness> {
    STATES.get(usize::from(byte)).copied()
}

#[cfg(test)]
mod tests;
