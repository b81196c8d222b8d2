//! The simulation: a whole cloud of several controllers and hosts in one thread, with time and chance of its own, while everything
//! that can fail fails. `docs/adr/0012-simulation.md` says what is modelled and what is not; `make sim` runs many seeds.
//!
//! A seed is a process: nothing of another seed can reach into it, and its end is seen whatever it is.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
mod chance;
mod clients;
#[path = "../common/mod.rs"]
mod common;
mod controller;
mod door;
mod faults;
mod ground;
mod host;
mod line;
mod mutant;
mod operator;
mod oracle;
mod run;
mod trace;
mod world;

use mutant::Mutant;
use run::{Plan, seeds};

/// Seeds that run with every change.
const BUDGET: u64 = 10;
/// A defect must be found within so many. Most are within twenty; a fence that is not compared takes some fifty, since a process that wakes asks
/// the store before it commits, and so mostly sees by itself what it lost.
const ENOUGH: u64 = 120;

#[test]
fn seeds_keep_every_promise() {
    let ran = seeds(Plan::new(1..1 + BUDGET));
    let bad: Vec<String> = ran.iter().filter(|o| !o.is_clean()).map(trace::Outcome::story).collect();
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn a_seed_runs_twice_alike() {
    let both = [seeds(Plan::new(7..8)), seeds(Plan::new(7..8))];
    let [one, other] = both.each_ref().map(|ran| (&ran[0].hash, ran[0].events, ran[0].transactions));
    assert_eq!(one, other);
    assert!(one.2 > 100, "{one:?}");
}

fn finds(mutant: Mutant) {
    let found = seeds(Plan::new(1..1 + ENOUGH).with(mutant));
    assert!(found.iter().any(|o| !o.is_clean()), "{mutant:?} was not found in {ENOUGH} seeds");
}

#[test]
fn finds_a_fence_that_is_not_compared() {
    finds(Mutant::NoFence);
}
#[test]
fn finds_a_blind_retry() {
    finds(Mutant::BlindRetry);
}
#[test]
fn finds_a_leaked_allocation() {
    finds(Mutant::LeakedAllocation);
}
#[test]
fn finds_claims_that_are_not_compared() {
    finds(Mutant::NoAbsence);
}
#[test]
fn finds_a_lost_write() {
    finds(Mutant::LostWrite);
}
#[test]
fn finds_a_lease_that_ends_early() {
    finds(Mutant::ShortLease);
}
#[test]
fn finds_a_node_that_does_not_let_go() {
    finds(Mutant::DeafNode);
}

#[test]
fn finds_a_host_that_acts_before_it_is_told() {
    finds(Mutant::EagerNode);
}

/// What `make sim` runs.
#[test]
#[ignore = "as many seeds as one has time for: make sim SEEDS=1000"]
fn many() {
    assert!(run::many(), "a seed failed");
}

/// The process of one seed.
#[test]
#[ignore = "a part of the others"]
fn one() {
    run::one();
}
