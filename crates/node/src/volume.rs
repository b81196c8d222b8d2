//! The loop of one volume: look, plan, take the steps, look again; report what is seen.
//!
//! Newest wins: before each step the wish is looked at again; a long step is dropped when it is not wanted any more, which every step
//! bears. A step that failed for a passing reason is tried again with backoff; then it is given up for this revision and reported,
//! while accesses and removals are tried for ever. A volume that is not assigned any more is left as it is.
pub mod plan;

use crate::{Error, agent::Shared};
use assign::{Keep, Report, VolumeAssignment, VolumeReport, VolumeState};
use plan::{Data, Plan, Seen, Step, plan};
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, watch};

/// More plans in a row than any path to a settled state has: a plan that never settles is a defect, and must not spin.
const MOST_PLANS: u32 = 24;

/// What is wanted of one volume.
pub(crate) struct Volume {
    pub(crate) id: String,
    want: watch::Sender<Option<Arc<VolumeAssignment>>>,
    pub(crate) nudge: Notify,
}

impl Volume {
    pub(crate) fn new(id: &str, assignment: Arc<VolumeAssignment>) -> Self {
        Self { id: id.to_owned(), want: watch::Sender::new(Some(assignment)), nudge: Notify::new() }
    }
    pub(crate) fn want(&self, assignment: Option<Arc<VolumeAssignment>>) {
        self.want.send_replace(assignment);
    }
}

/// State of the loop between rounds.
#[derive(Default)]
struct Tries {
    revision: u64,
    failures: u32,
    /// Steps that are given up for the revision, and why.
    given_up: BTreeMap<String, String>,
}

pub(crate) async fn keep(shared: Arc<Shared>, volume: Arc<Volume>) {
    let mut wishes = volume.want.subscribe();
    let mut tries = Tries::default();
    loop {
        let wish = wishes.borrow_and_update().clone();
        let Some(a) = wish else {
            let mut volumes = shared.volumes.lock().unwrap_or_else(PoisonError::into_inner);
            if volume.want.borrow().is_none() {
                volumes.remove(&volume.id);
                return;
            }
            continue;
        };
        if tries.revision != a.revision {
            tries = Tries { revision: a.revision, ..Tries::default() };
        }
        let Some(time) = round(&shared, &volume, &a, &mut tries).await else { continue };
        tokio::select! {
            _ = wishes.changed() => tries.failures = 0,
            () = volume.nudge.notified() => {}
            () = tokio::time::sleep(time) => {}
        }
    }
}

/// How long to wait until the next look; `None` looks again at once.
async fn round(shared: &Shared, volume: &Volume, a: &Arc<VolumeAssignment>, tries: &mut Tries) -> Option<Duration> {
    let port = &*shared.ports.volumes;
    for _ in 0..MOST_PLANS {
        let seen = match port.observe(&volume.id).await {
            Ok(seen) => seen,
            // Nothing was seen, so nothing is reported.
            Err(error) => {
                tracing::warn!(volume = volume.id, error = base::chain(&error), "a volume cannot be looked at");
                tries.failures = tries.failures.saturating_add(1);
                return Some(shared.config.retry.jittered(tries.failures - 1));
            }
        };
        let steps = match plan(a, &seen, &tries.given_up) {
            Plan::Settled { state, cause } => {
                tries.failures = 0;
                report(shared, a, &seen, state, cause);
                return Some(shared.config.sweep_every);
            }
            Plan::Steps(steps) => steps,
        };
        for step in steps {
            if is_superseded(volume, a) {
                return None;
            }
            let result = tokio::select! {
                result = take(shared, a, &step) => result,
                () = change_of_mind(volume, a, &step) => return None,
            };
            if let Err(error) = result {
                return Some(fail(shared, a, &seen, tries, &step, &error));
            }
        }
    }
    tracing::error!(volume = volume.id, "the plan of a volume does not settle; trying again later");
    Some(shared.config.retry.most)
}

async fn take(shared: &Shared, a: &VolumeAssignment, step: &Step) -> Result<(), Error> {
    let _permit = match step {
        // Closed only when the agent ends.
        Step::Make | Step::Replace | Step::Merge => Some(shared.heavy.acquire().await),
        _ => None,
    };
    shared.ports.volumes.carry_out(step, a).await
}

/// Is something newer wanted by now?
fn is_superseded(volume: &Volume, a: &Arc<VolumeAssignment>) -> bool {
    !volume.want.borrow().as_ref().is_some_and(|now| Arc::ptr_eq(now, a))
}

/// Returns when a long step is under way that is not wanted any more. Merging makes way for anything.
async fn change_of_mind(volume: &Volume, a: &Arc<VolumeAssignment>, step: &Step) {
    let mut wishes = volume.want.subscribe();
    let is_moot = |now: &Option<Arc<VolumeAssignment>>| match (now, step) {
        (Some(now), Step::Make | Step::Replace) => now.keep == Keep::Deleted || now.generation != a.generation,
        (Some(now), Step::Merge) => !Arc::ptr_eq(now, a),
        (Some(_), _) => false,
        (None, _) => true,
    };
    if wishes.wait_for(is_moot).await.is_err() {
        // The volume itself is gone, and with it whoever waits here.
        std::future::pending().await
    }
}

fn fail(shared: &Shared, a: &VolumeAssignment, seen: &Seen, tries: &mut Tries, step: &Step, error: &Error) -> Duration {
    let told = step.to_string();
    tracing::warn!(volume = a.id, request = a.request_id, step = told, error = base::chain(error), "a step failed");
    tries.failures = tries.failures.saturating_add(1);
    let gives_up = !error.is_transient() || tries.failures >= shared.config.attempts;
    if gives_up && step.is_optional() && a.keep == Keep::Present {
        tries.given_up.insert(told, error.to_string());
        tries.failures = 0;
        return Duration::ZERO;
    }
    report(shared, a, seen, VolumeState::Building, Some(error.to_string()));
    shared.config.retry.jittered(tries.failures - 1)
}

fn report(shared: &Shared, a: &VolumeAssignment, seen: &Seen, state: VolumeState, cause: Option<String>) {
    let (size_gib, generation) = match seen.data {
        Data::Present { size_gib, generation } => (size_gib, generation),
        Data::Nothing | Data::Lost(_) => (0, 0),
    };
    shared.board.put(Report::Volume(VolumeReport {
        id: a.id.clone(),
        revision: a.revision,
        state,
        cause,
        size_gib,
        generation,
        snapshots: seen.snapshots.iter().cloned().collect(),
        exports: seen.exports.iter().map(|s| s.live.clone()).collect(),
        uploads: seen.uploads.clone(),
    }));
}
