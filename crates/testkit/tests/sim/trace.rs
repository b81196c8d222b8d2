//! What happened, in order: a running hash of all of it, the newest lines, and what was wrong.
use std::{
    collections::VecDeque,
    fmt::Write as _,
    io::Write as _,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::time::Instant;

const TAIL: usize = 120;
/// More of them say nothing new.
const MOST_VIOLATIONS: usize = 20;

pub(crate) struct Trace {
    start: Instant,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    hash: u64,
    events: u64,
    transactions: u64,
    tail: VecDeque<String>,
    violations: Vec<String>,
    file: Option<std::io::BufWriter<std::fs::File>>,
}

/// FNV-1a.
fn mix(mut hash: u64, bytes: &[u8]) -> u64 {
    for b in bytes {
        hash = (hash ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01B3);
    }
    hash.wrapping_mul(0x0000_0100_0000_01B3)
}

impl Trace {
    /// `file`: all lines go there, besides.
    pub(crate) fn new(file: Option<&std::path::Path>) -> Self {
        let file = file.map(|f| std::io::BufWriter::new(std::fs::File::create(f).unwrap()));
        Self { start: Instant::now(), inner: Mutex::new(Inner { hash: 0xCBF2_9CE4_8422_2325, file, ..Inner::default() }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Simulated seconds since the world began.
    pub(crate) fn now(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// An event; the time is part of it.
    pub(crate) fn note(&self, what: &str) {
        self.note_with(what, &[]);
    }

    /// An event of which more counts than is told.
    pub(crate) fn note_with(&self, what: &str, more: &[&[u8]]) {
        let line = format!("{:10.6} {what}", self.now());
        let mut inner = self.lock();
        inner.events += 1;
        inner.hash = more.iter().fold(mix(inner.hash, line.as_bytes()), |hash, m| mix(hash, m));
        if inner.file.is_some() {
            let hash = inner.hash;
            if let Some(file) = &mut inner.file {
                writeln!(file, "{line} #{hash:016x}").unwrap();
            }
        }
        // Writes of nothing but probes would fill it.
        if !line.contains(" +sim/probes/") {
            if inner.tail.len() == TAIL {
                inner.tail.pop_front();
            }
            inner.tail.push_back(line);
        }
    }

    pub(crate) fn count_transaction(&self) {
        self.lock().transactions += 1;
    }

    pub(crate) fn violation(&self, what: &str) {
        self.note(&format!("VIOLATION {what}"));
        let line = format!("{:.3} s: {what}", self.now());
        let mut inner = self.lock();
        if inner.violations.len() < MOST_VIOLATIONS {
            inner.violations.push(line);
        }
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.lock().violations.is_empty()
    }

    pub(crate) fn outcome(&self, seed: u64) -> Outcome {
        let mut inner = self.lock();
        if let Some(file) = &mut inner.file {
            file.flush().unwrap();
        }
        Outcome {
            seed,
            hash: format!("{:016x}", inner.hash),
            events: inner.events,
            transactions: inner.transactions,
            seconds: self.now(),
            violations: inner.violations.clone(),
            tail: inner.tail.iter().cloned().collect(),
        }
    }
}

/// How the world of one seed came out.
#[derive(serde::Serialize, serde::Deserialize, Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    /// Of every event and its time: two runs of a seed have the same.
    pub(crate) hash: String,
    pub(crate) events: u64,
    pub(crate) transactions: u64,
    /// Simulated.
    pub(crate) seconds: f64,
    pub(crate) violations: Vec<String>,
    pub(crate) tail: Vec<String>,
}

impl Outcome {
    pub(crate) fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
    /// What a failure prints.
    pub(crate) fn story(&self) -> String {
        let mut out = String::from("--- the newest events\n");
        for line in &self.tail {
            writeln!(out, "{line}").unwrap();
        }
        writeln!(out, "--- violated, seed {} (make sim SEED={}):", self.seed, self.seed).unwrap();
        for line in &self.violations {
            writeln!(out, "{line}").unwrap();
        }
        out
    }
}
