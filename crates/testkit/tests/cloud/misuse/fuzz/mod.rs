//! What no request may cause, whatever it holds: an answer of 5xx, an error that its service's clients cannot read, or half a change.
//!
//! Requests are mutations of the valid ones in `samples.json` and of the fields that the tables declare, drawn from a seed. A failure
//! names seed and case; the environment chooses both, and how long it goes on:
//!
//! | variable | default |
//! |---|---|
//! | `DROVER_FUZZ_SEED` | 1, so that a run repeats the one before |
//! | `DROVER_FUZZ_CASE` | all; one number runs only that |
//! | `DROVER_FUZZ_SECONDS` | 20 for each of the tests |
//! | `DROVER_FUZZ_ROUTES` | all; `/volume/` takes only those whose paths start with it, so that cases have other numbers |
mod frozen;
mod hostile;
mod live;
mod mutate;

use super::{
    samples::{self, Sample},
    shape,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use testkit::{Answer, Client, matrix::Known};

/// Any request is answered within this.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request as it goes out.
pub(super) struct Shot {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) media: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: bytes::Bytes,
}

impl Shot {
    pub(super) async fn fire(&self, client: &Client) -> Answer {
        let mut client = client.clone();
        for (name, value) in &self.headers {
            client = if *name == "x-auth-token" { client.token(value) } else { client.header(name, value) };
        }
        let answer = client.try_send(&self.method, &self.path, &self.media, self.body.clone());
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(e)) => panic!("no answer ({e:?}) to {} with {} bytes", self.shown(), self.body.len()),
            Err(_) => panic!("no answer in {PATIENCE:?} to {}", self.shown()),
        }
    }
    fn shown(&self) -> String {
        let cut = |s: &str| s.chars().take(300).collect::<String>();
        let headers: Vec<String> = self.headers.iter().map(|(k, v)| format!("{k}: {}", cut(v))).collect();
        format!("{} {} {headers:?} {}", self.method, cut(&self.path), shape::shown(&self.body))
    }
}

/// Draws cases until time is over, and gathers what went wrong.
pub(super) struct Range {
    seed: u64,
    only: Option<u64>,
    until: Instant,
    pub(super) case: u64,
    wrong: BTreeMap<String, String>,
    /// Cases that were carried out, or would have been.
    taken: u64,
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|v| v.parse().ok())
}

/// All ways to use the routes that are wanted.
pub(super) fn samples_of(routes: &[Known]) -> Vec<Sample> {
    let wanted = std::env::var("DROVER_FUZZ_ROUTES").unwrap_or_default();
    routes.iter().filter(|r| r.path.starts_with(&wanted)).flat_map(samples::of).collect()
}

impl Range {
    pub(super) fn new() -> Self {
        let seconds = variable("DROVER_FUZZ_SECONDS").unwrap_or(20);
        Self {
            seed: variable("DROVER_FUZZ_SEED").unwrap_or(1),
            only: variable("DROVER_FUZZ_CASE"),
            until: Instant::now() + Duration::from_secs(seconds),
            case: 0,
            wrong: BTreeMap::new(),
            taken: 0,
        }
    }
    /// Dice of the next case; every case has its own, so that it can be run alone.
    pub(super) fn next(&mut self) -> Option<StdRng> {
        if self.wrong.len() >= 25 || Instant::now() > self.until || self.only.is_some_and(|o| self.case > o) {
            return None;
        }
        self.case = self.only.filter(|o| self.case < *o).unwrap_or(self.case + 1);
        Some(StdRng::seed_from_u64(self.seed.wrapping_mul(0x9E37_79B9).wrapping_add(self.case)))
    }
    pub(super) fn wrong(&mut self, sample: &str, what: &str, shot: &Shot, answer: &Answer) {
        let (seed, case) = (self.seed, self.case);
        let key = format!("{sample}: {what}");
        let text = format!(
            "DROVER_FUZZ_SEED={seed} DROVER_FUZZ_CASE={case}: {key}\n   {}\n   {} {}",
            shot.shown(),
            answer.status,
            shape::shown(&answer.bytes)
        );
        // One example of each.
        self.wrong.entry(format!("{sample} {} {}", answer.status, what.chars().take(30).collect::<String>())).or_insert(text);
    }
    /// Every answer must be this.
    pub(super) fn judge(&mut self, sample: &str, shot: &Shot, answer: &Answer, full: bool) {
        self.taken += u64::from(matches!(answer.status, 200..=299 | 503));
        let wanted = matches!(answer.status, 200..=499 | 501) || (full && answer.status == 503 && says_full(answer));
        if !wanted {
            self.wrong(sample, "the status is ours to blame", shot, answer);
        }
        if let Some(complaint) = shape::complaint(&shot.method, &shot.path, answer) {
            self.wrong(sample, &complaint, shot, answer);
        }
    }
    pub(super) fn finish(self, least: u64) {
        assert!(self.wrong.is_empty(), "{}", self.wrong.into_values().collect::<Vec<_>>().join("\n"));
        assert!(self.only.is_some() || self.case >= least, "only {} cases in the time there was", self.case);
        assert!(
            self.only.is_some() || self.taken * 50 > self.case,
            "only {} of {} cases got past the checks",
            self.taken,
            self.case
        );
    }
}

fn says_full(answer: &Answer) -> bool {
    String::from_utf8_lossy(&answer.bytes).contains("The store is full") || answer.bytes.is_empty()
}

fn pick<'a, T>(dice: &mut StdRng, of: &'a [T]) -> &'a T {
    of.choose(dice).expect("there is something to choose from")
}

/// Headers of a sample that nothing was done to.
fn version(sample: &Sample) -> (&'static str, String) {
    ("openstack-api-version", format!("{} {}", sample.service, sample.version))
}

fn chance(dice: &mut StdRng, one_in: u32) -> bool {
    dice.random_ratio(1, one_in)
}
