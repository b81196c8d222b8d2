//! The loop of one server: look, plan, take the steps, look again; report what is seen.
//!
//! Newest wins: before each step the wish is looked at again, and a removal drops even a step that is under way. A step that
//! failed for a passing reason is tried again with backoff; then the server is reported as failed, once for its revision.
use crate::{
    Error,
    agent::Shared,
    driver::Hypervisor,
    plan::{Grace, Plan, Status, Step, plan},
    remember::{Halted, PluggedPort},
};
use assign::{AttachedVolume, GuestState, Report, ServerAssignment, ServerReport};
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Mutex, Notify, watch},
    time::Instant,
};

/// More plans in a row than any path to a settled state has: a plan that never settles is a defect, and must not spin.
const MOST_PLANS: u32 = 24;
const DISK_RETRY: Duration = Duration::from_secs(10);
/// Between two looks at something that the guest has to do.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What is wanted of one server, and whose turn it is.
pub(crate) struct Server {
    pub(crate) id: String,
    want: watch::Sender<Wish>,
    pub(crate) nudge: Notify,
    /// Held during each step; a snapshot of a stopped server takes it too.
    pub(crate) turn: Mutex<()>,
}

#[derive(Clone, Default)]
struct Wish {
    assignment: Option<Arc<ServerAssignment>>,
    /// Was it assigned since this agent started? Only then its absence means removal at once.
    was_assigned: bool,
    /// The highest that it was assigned under since then.
    epoch: u64,
}

impl Server {
    pub(crate) fn new(id: &str, assignment: Option<Arc<ServerAssignment>>) -> Self {
        let epoch = assignment.as_ref().map_or(0, |a| a.epoch);
        let wish = Wish { was_assigned: assignment.is_some(), assignment, epoch };
        Self { id: id.to_owned(), want: watch::Sender::new(wish), nudge: Notify::new(), turn: Mutex::default() }
    }
    pub(crate) fn want(&self, assignment: Option<Arc<ServerAssignment>>) {
        self.want.send_modify(|w| {
            w.was_assigned |= assignment.is_some();
            w.epoch = assignment.as_ref().map_or(w.epoch, |a| a.epoch.max(w.epoch));
            w.assignment = assignment;
        });
    }
    fn wish(&self) -> Wish {
        self.want.borrow().clone()
    }
}

/// What a round of looking and acting came to.
enum Next {
    Again,
    /// Settled until something changes; look again after this time at the latest.
    Wait(Duration),
    Gone,
}

/// State of the loop between rounds.
#[derive(Default)]
struct Tries {
    failures: u32,
    /// Revision that is given up.
    given_up: Option<u64>,
    disk_retry: Option<Instant>,
    /// Volumes that could not be plugged into a guest that runs: how often, when they are due again, and why.
    put_off: BTreeMap<String, (u32, Instant, String)>,
}

pub(crate) async fn keep(shared: Arc<Shared>, server: Arc<Server>) {
    let mut wishes = server.want.subscribe();
    let mut tries = Tries::default();
    loop {
        let wish = wishes.borrow_and_update().clone();
        let next = match &wish.assignment {
            Some(a) => tokio::select! {
                next = round(&shared, &server, Some(a), &mut tries) => next,
                () = removal(&server) => Next::Again,
            },
            None if !wish.was_assigned && !grace(&shared).is_zero() => Next::Wait(grace(&shared)),
            None => round(&shared, &server, None, &mut tries).await,
        };
        match next {
            Next::Again => {}
            Next::Wait(time) => tokio::select! {
                _ = wishes.changed() => tries.failures = 0,
                () = server.nudge.notified() => {}
                () = tokio::time::sleep(time) => {}
            },
            Next::Gone => {
                let mut servers = shared.servers.lock().unwrap_or_else(PoisonError::into_inner);
                if server.wish().assignment.is_none() {
                    servers.remove(&server.id);
                    return;
                }
            }
        }
    }
}

/// Time that orphans are still kept.
fn grace(shared: &Shared) -> Duration {
    let passed = shared.informed_at.get().map_or(Duration::ZERO, Instant::elapsed);
    shared.config.orphan_grace.saturating_sub(passed)
}

/// Returns when the server is not wanted any more.
async fn removal(server: &Server) {
    let mut wishes = server.want.subscribe();
    // An error means that the server itself is gone, and with it whoever waits here.
    let _ = wishes.wait_for(|w| w.assignment.is_none()).await;
}

async fn round(shared: &Arc<Shared>, server: &Arc<Server>, wanted: Option<&Arc<ServerAssignment>>, tries: &mut Tries) -> Next {
    if let Some(a) = wanted {
        if tries.given_up == Some(a.revision) {
            return Next::Wait(Duration::from_secs(3600));
        }
        tries.given_up = None;
        tries.put_off.retain(|id, _| a.volumes.iter().any(|v| v.attachment_id == *id));
        if let Err(error) = accept(shared, a) {
            return fail(shared, server, wanted, tries, None, error);
        }
    } else {
        shared.ports.metadata.withdraw(&server.id);
    }
    for _ in 0..MOST_PLANS {
        let known = shared.memory.get(&server.id);
        let mut seen = match wanted {
            Some(_) => match shared.ports.hypervisor.observe(&server.id, &known).await {
                Ok(seen) => seen,
                Err(error) => return fail(shared, server, wanted, tries, None, error),
            },
            // Removal needs no answer from the guest.
            None => Default::default(),
        };
        let now = Instant::now();
        seen.put_off = tries.put_off.iter().filter(|(_, (_, due, _))| *due > now).map(|(id, _)| id.clone()).collect();
        match plan(wanted.map(|a| &**a), &seen, &known) {
            Plan::Stale => {
                tracing::warn!(server = server.id, epoch = known.epoch, "an assignment of an older epoch is ignored");
                return Next::Wait(shared.config.sweep_every);
            }
            Plan::Settled { state, cause, retry_disk, waits } => {
                let cause = cause.or_else(|| tries.put_off.values().next().map(|(_, _, cause)| cause.clone()));
                let next = settle(shared, server, wanted, tries, (state, cause, retry_disk)).await;
                return match next {
                    Next::Wait(time) if waits => Next::Wait(time.min(LOOK_AGAIN)),
                    next => next,
                };
            }
            Plan::Steps(steps) => {
                for step in steps {
                    if is_superseded(server, wanted) {
                        return Next::Again;
                    }
                    if step_matters(&step) {
                        report(shared, server, wanted, GuestState::Building, None, Some(step.to_string()));
                    }
                    let result = tokio::select! {
                        result = take(shared, server, wanted, &step) => result,
                        () = change_of_mind(server, wanted, &step) => return Next::Again,
                    };
                    if let Step::AttachVolume(v) | Step::GrowVolume(v) = &step
                        && matches!(seen.process, Some(Status::Running | Status::Paused))
                    {
                        // A guest that runs goes on without it; the next start will not.
                        match result {
                            Ok(()) => drop(tries.put_off.remove(&v.attachment_id)),
                            Err(error) => put_off(shared, server, v, tries, &error),
                        }
                        continue;
                    }
                    if let Err(error) = result {
                        return fail(shared, server, wanted, tries, Some(&step), error);
                    }
                }
            }
        }
    }
    tracing::error!(server = server.id, "the plan does not settle; trying again later");
    Next::Wait(shared.config.retry.most)
}

fn put_off(shared: &Shared, server: &Server, volume: &AttachedVolume, tries: &mut Tries, error: &Error) {
    tracing::warn!(server = server.id, volume = volume.volume_id, error = base::chain(error), "a volume was not plugged");
    let entry = tries.put_off.entry(volume.attachment_id.clone()).or_insert((0, Instant::now(), String::new()));
    let due = Instant::now() + shared.config.retry.jittered(entry.0);
    *entry = (entry.0.saturating_add(1), due, error.to_string());
}

/// Remembers the newest epoch and revision, and publishes what the guest may read.
fn accept(shared: &Shared, a: &Arc<ServerAssignment>) -> Result<(), Error> {
    let known = shared.memory.get(&a.id);
    let is_news = if known.gone { a.epoch > known.epoch } else { a.epoch >= known.epoch };
    if !is_news {
        return Ok(());
    }
    if known.gone || known.epoch != a.epoch || known.revision < a.revision {
        shared.memory.update(&a.id, |r| {
            r.gone = false;
            r.epoch = a.epoch;
            r.revision = r.revision.max(a.revision);
        })?;
    }
    shared.ports.metadata.publish(a);
    Ok(())
}

/// Is something newer wanted by now?
fn is_superseded(server: &Server, wanted: Option<&Arc<ServerAssignment>>) -> bool {
    match (&server.wish().assignment, wanted) {
        (Some(now), Some(then)) => !Arc::ptr_eq(now, then),
        (None, None) => false,
        _ => true,
    }
}

/// Returns when a guest is being shut down kindly and the user meanwhile wants something else.
async fn change_of_mind(server: &Server, wanted: Option<&Arc<ServerAssignment>>, step: &Step) {
    let (Some(then), Step::End(Grace::Stop | Grace::SoftReboot)) = (wanted, step) else {
        return std::future::pending().await;
    };
    let aim = |a: &ServerAssignment| (a.power, a.reboot, a.root.as_ref().map(|r| r.generation), a.epoch);
    let mut wishes = server.want.subscribe();
    let _ = wishes.wait_for(|w| w.assignment.as_ref().is_none_or(|now| aim(now) != aim(then))).await;
}

/// Short bookkeeping is not worth a report.
fn step_matters(step: &Step) -> bool {
    !matches!(
        step,
        Step::NoteEnd
            | Step::NoteHalt(_)
            | Step::NoteReboot
            | Step::HoldVolume(_)
            | Step::ForgetVolume(_)
            | Step::AskForVolume(_)
    )
}

async fn take(shared: &Shared, server: &Server, wanted: Option<&Arc<ServerAssignment>>, step: &Step) -> Result<(), Error> {
    let id = server.id.as_str();
    let Shared { memory, ports, config, .. } = shared;
    let hypervisor: &dyn Hypervisor = &*ports.hypervisor;
    let _turn = match wanted {
        Some(_) => Some(server.turn.lock().await),
        None => None,
    };
    match (step, wanted) {
        (Step::Plug(port), _) => {
            let interface = ports.nics.plug(port).await?;
            let plugged = PluggedPort { interface, mac: port.mac.clone() };
            memory.update(id, |r| drop(r.ports.insert(port.id.clone(), plugged)))?;
        }
        (Step::Unplug(port), _) => {
            ports.nics.unplug(port).await?;
            memory.update(id, |r| drop(r.ports.remove(port)))?;
        }
        (Step::End(grace), _) => {
            let of_image = |a: &Arc<ServerAssignment>| a.properties.get("os_shutdown_timeout").and_then(|t| t.parse().ok());
            let time = match grace {
                Grace::None => None,
                Grace::Stop => Some(wanted.and_then(of_image).map_or(config.stop_timeout, Duration::from_secs)),
                Grace::SoftReboot => Some(config.soft_reboot_timeout),
            };
            hypervisor.end(id, time).await?;
        }
        (Step::NoteEnd, _) => drop(memory.update(id, |r| r.process = None)?),
        (Step::NoteHalt(crash), Some(a)) => {
            let revision = a.revision;
            tracing::warn!(server = id, crash, "a guest ended unasked");
            memory.update(id, |r| {
                r.halted = Some(Halted { revision, crash: crash.clone() });
                match (&crash, &mut r.process) {
                    (Some(_), process) => *process = None,
                    (None, Some(process)) => process.ending = true,
                    (None, None) => {}
                }
            })?;
        }
        (Step::HoldVolume(v), Some(_)) => {
            memory.update(id, |r| r.volumes.extend([(v.attachment_id.clone(), v.epoch)]))?;
        }
        (Step::ForgetVolume(attachment), Some(_)) => {
            memory.update(id, |r| r.volumes.retain(|held, _| held != attachment))?;
        }
        (Step::NoteReboot, Some(a)) => drop(memory.update(id, |r| r.reboot_done = a.reboot.count)?),
        (Step::Destroy, _) => {
            hypervisor.destroy(id).await?;
            memory.forget(id)?;
        }
        (Step::CreateDisk | Step::GrowDisk | Step::CreateRescueDisk(_) | Step::BuildConfigDrive | Step::Start, Some(a)) => {
            // Closed only when the agent ends.
            let _permit = shared.heavy.acquire().await;
            hypervisor.carry_out(step, a).await?;
        }
        // Fetching is bounded by the cache: a slow download must not hold up the start of others.
        (
            Step::FetchImage(_)
            | Step::AttachNic(_)
            | Step::DetachNic(_)
            | Step::AttachVolume(_)
            | Step::AskForVolume(_)
            | Step::DetachVolume(_)
            | Step::GrowVolume(_)
            | Step::Continue
            | Step::Pause,
            Some(a),
        ) => hypervisor.carry_out(step, a).await?,
        (_, None) => tracing::error!(server = id, step = %step, "a step without an assignment is left out"),
    }
    Ok(())
}

async fn settle(
    shared: &Shared,
    server: &Server,
    wanted: Option<&Arc<ServerAssignment>>,
    tries: &mut Tries,
    (state, cause, retry_disk): (GuestState, Option<String>, bool),
) -> Next {
    tries.failures = 0;
    report(shared, server, wanted, state, cause, None);
    if state == GuestState::Gone {
        return Next::Gone;
    }
    if !retry_disk {
        tries.disk_retry = None;
        return Next::Wait(shared.config.sweep_every);
    }
    let due = *tries.disk_retry.get_or_insert_with(|| Instant::now() + DISK_RETRY);
    if due <= Instant::now()
        && let Some(a) = wanted
    {
        tries.disk_retry = None;
        if let Err(error) = shared.ports.hypervisor.carry_out(&Step::Continue, a).await {
            tracing::warn!(server = server.id, %error, "a guest with a disk error was not continued");
        }
    }
    Next::Wait(DISK_RETRY)
}

fn fail(
    shared: &Shared,
    server: &Server,
    wanted: Option<&Arc<ServerAssignment>>,
    tries: &mut Tries,
    step: Option<&Step>,
    error: Error,
) -> Next {
    let told = step.map(ToString::to_string);
    let request = wanted.map(|a| a.request_id.as_str()).unwrap_or_default();
    tracing::warn!(server = server.id, request, step = told, error = base::chain(&error), "a step failed");
    tries.failures = tries.failures.saturating_add(1);
    // A removal is never given up.
    let try_again = wanted.is_none() || (error.is_transient() && tries.failures < shared.config.attempts);
    if try_again {
        report(shared, server, wanted, GuestState::Building, Some(error.to_string()), told);
        return Next::Wait(shared.config.retry.jittered(tries.failures - 1));
    }
    tries.given_up = wanted.map(|a| a.revision);
    tries.failures = 0;
    report(shared, server, wanted, GuestState::Failed, Some(error.to_string()), told);
    Next::Wait(shared.config.sweep_every)
}

fn report(
    shared: &Shared,
    server: &Server,
    wanted: Option<&Arc<ServerAssignment>>,
    state: GuestState,
    cause: Option<String>,
    step: Option<String>,
) {
    let known = shared.memory.get(&server.id);
    shared.board.put(Report::Server(ServerReport {
        id: server.id.clone(),
        // What could not be remembered, for a full disk, is told all the same.
        epoch: known.epoch.max(server.wish().epoch),
        revision: wanted.map_or(known.revision, |a| a.revision),
        state,
        cause,
        step,
        reboot_count: known.reboot_done,
        disk_generation: known.disk.as_ref().map_or(0, |d| d.generation),
        rescued: known.process.as_ref().is_some_and(|p| p.rescue.is_some()),
        plugged: shared.ports.nics.present(&mut known.ports.keys()).into_iter().collect(),
        volumes: known.volumes.keys().cloned().collect(),
        launched_at: known.process.as_ref().map(|p| p.launched_at),
    }));
}
