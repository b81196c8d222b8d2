//! What a node's report makes of a server. Pure: the row goes in, the changed row and what else must happen come out.
//!
//! A report counts only when it answers the newest placement (`epoch`) and the newest wish (`intent`). Applying one twice changes
//! nothing the second time.
use super::state::{power, task, vm};
use crate::resources::{
    Server,
    server::{Crashes, Fault},
};
use assign::{GuestState, Power, ServerReport};
use base::Timestamp;
use std::time::Duration;

/// What must happen besides the change of the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The task under way is done.
    Done,
    /// It failed; the server is in error.
    Failed(String),
    /// Nothing of the server is left on its node, and it is being deleted: its row and all that it holds go.
    Remove,
    /// It has left its node and stays, shelved.
    Offloaded,
    /// A server that is being shelved is off: its image can be made.
    Snapshot,
    /// It runs again from its shelved image, which is not needed any more.
    DropShelvedImage,
    /// For its story.
    Tell(String),
}

/// Restarts after crashes within [`CRASH_WINDOW`] before the server is left alone.
const MOST_RESTARTS: u32 = 3;
const CRASH_WINDOW: Duration = Duration::from_secs(600);

/// How long a task may take before it is given up.
pub(crate) fn allowance(task: &str, build: Duration) -> Duration {
    match task {
        task::SCHEDULING | task::SPAWNING | task::REBUILDING | task::RESCUING | task::UNSHELVING => build,
        task::IMAGE_SNAPSHOT | task::IMAGE_BACKUP | task::SHELVING_UPLOADING => Duration::from_secs(3600),
        // A guest that does not obey its power button takes the node's own time-outs.
        task::REBOOTING | task::POWERING_OFF | task::SHELVING | task::RESIZE_PREP | task::RESIZE_REVERTING => {
            Duration::from_secs(360)
        }
        task::DELETING => Duration::from_secs(120),
        _ => Duration::from_secs(180),
    }
}

/// Applies a report to a server that is not being deleted, or only tells that a deletion is through.
pub(crate) fn on_report(server: &mut Server, deleting: bool, report: &ServerReport, now: Timestamp) -> Vec<Effect> {
    if report.epoch != server.epoch {
        return Vec::new();
    }
    if deleting {
        return if report.state == GuestState::Gone { vec![Effect::Remove] } else { Vec::new() };
    }
    let task = server.task_state.clone().unwrap_or_default();
    if report.state == GuestState::Gone {
        return if task == task::OFFLOADING { offloaded(server) } else { Vec::new() };
    }
    if report.revision < server.intent || task == task::OFFLOADING {
        return Vec::new();
    }
    match report.state {
        GuestState::Building | GuestState::Gone => Vec::new(),
        GuestState::Running => running(server, report, &task, now),
        GuestState::Paused => paused(server, report, &task, now),
        GuestState::Stopped => stopped(server, report, &task, now),
        GuestState::Crashed => crashed(server, report, now),
        GuestState::Failed => failed(server, report, now),
    }
}

/// Has the node done all that was counted or numbered?
fn is_current(server: &Server, report: &ServerReport) -> bool {
    report.reboot_count >= server.reboot.count
        && report.disk_generation >= server.generation
        && report.rescued == server.rescue.is_some()
}

fn finish(server: &mut Server) {
    server.task_state = None;
    server.deadline = None;
}

/// Tasks that the node has no part in: their end comes from elsewhere.
fn is_elsewhere(task: &str) -> bool {
    matches!(task, task::IMAGE_SNAPSHOT | task::IMAGE_BACKUP | task::SHELVING_UPLOADING)
}

fn running(server: &mut Server, report: &ServerReport, task: &str, now: Timestamp) -> Vec<Effect> {
    server.power_state = power::RUNNING;
    if server.power != Power::Running || !is_current(server, report) || is_elsewhere(task) {
        return Vec::new();
    }
    let next = match task {
        task::RESCUING => vm::RESCUED,
        task::RESIZE_PREP => vm::RESIZED,
        "" => match server.vm_state.as_str() {
            // It came up again by itself, such as after the disk had room again.
            vm::PAUSED | vm::STOPPED => vm::ACTIVE,
            _ => return Vec::new(),
        },
        _ => vm::ACTIVE,
    };
    if matches!(task, task::SPAWNING | task::SCHEDULING | task::REBUILDING | task::UNSHELVING | task::RESIZE_PREP)
        || server.launched_at.is_none()
    {
        server.launched_at = Some(report.launched_at.unwrap_or(now).0);
    }
    server.vm_state = next.to_owned();
    server.fault = None;
    finish(server);
    let mut effects = vec![Effect::Done];
    if task == task::UNSHELVING && server.shelved_image.is_some() {
        effects.push(Effect::DropShelvedImage);
    }
    effects
}

fn paused(server: &mut Server, report: &ServerReport, task: &str, now: Timestamp) -> Vec<Effect> {
    server.power_state = power::PAUSED;
    if is_elsewhere(task) || !is_current(server, report) {
        return Vec::new();
    }
    match (server.power, task) {
        (Power::Paused, task::SUSPENDING) => {
            server.vm_state = vm::SUSPENDED.to_owned();
            server.power_state = power::SUSPENDED;
        }
        (Power::Paused, "") => {
            if server.vm_state == vm::SUSPENDED {
                server.power_state = power::SUSPENDED;
            }
            return Vec::new();
        }
        (Power::Paused, _) => server.vm_state = vm::PAUSED.to_owned(),
        // Not asked for: its disk is full, or its watchdog barked. The cause is for the user to see.
        (Power::Running | Power::Stopped, _) => {
            if server.vm_state == vm::PAUSED && task.is_empty() {
                return Vec::new();
            }
            server.vm_state = vm::PAUSED.to_owned();
            server.launched_at.get_or_insert(now.0);
            finish(server);
            let cause = report.cause.clone().unwrap_or_else(|| "The guest was paused by its node.".to_owned());
            return vec![Effect::Tell(cause), Effect::Done];
        }
    }
    finish(server);
    vec![Effect::Done]
}

fn stopped(server: &mut Server, report: &ServerReport, task: &str, now: Timestamp) -> Vec<Effect> {
    server.power_state = power::SHUTDOWN;
    if is_elsewhere(task) {
        return Vec::new();
    }
    if server.power != Power::Stopped {
        // The guest powered itself off: it stays off, as Nova does it.
        server.power = Power::Stopped;
        server.vm_state = match task {
            task::RESIZE_PREP => vm::RESIZED,
            _ => vm::STOPPED,
        }
        .to_owned();
        server.launched_at.get_or_insert(now.0);
        finish(server);
        return vec![Effect::Tell("The guest powered itself off".to_owned()), Effect::Done];
    }
    if report.disk_generation < server.generation {
        return Vec::new();
    }
    match task {
        "" => return Vec::new(),
        task::SHELVING => {
            server.task_state = Some(task::SHELVING_UPLOADING.to_owned());
            return vec![Effect::Snapshot];
        }
        task::RESIZE_PREP => server.vm_state = vm::RESIZED.to_owned(),
        _ => server.vm_state = vm::STOPPED.to_owned(),
    }
    if task == task::REBUILDING {
        server.launched_at = Some(now.0);
        server.fault = None;
    }
    finish(server);
    let mut effects = vec![Effect::Done];
    if task == task::UNSHELVING && server.shelved_image.is_some() {
        effects.push(Effect::DropShelvedImage);
    }
    effects
}

fn crashed(server: &mut Server, report: &ServerReport, now: Timestamp) -> Vec<Effect> {
    let cause = report.cause.clone().unwrap_or_else(|| "The guest ended unasked; start it again.".to_owned());
    let recent = now.since(Timestamp(server.crashes.since)) < CRASH_WINDOW;
    let count = if recent { server.crashes.count + 1 } else { 1 };
    let since = if recent { server.crashes.since } else { now.0 };
    server.power_state = power::CRASHED;
    if count > MOST_RESTARTS {
        return fail(server, &format!("{cause} It was restarted {MOST_RESTARTS} times and crashed again."), now);
    }
    server.crashes = Crashes { count, since };
    server.intent += 1;
    vec![Effect::Tell(format!("{cause} It is started again at once (restart {count} of {MOST_RESTARTS})."))]
}

fn failed(server: &mut Server, report: &ServerReport, now: Timestamp) -> Vec<Effect> {
    let cause = report.cause.clone().unwrap_or_else(|| "The node could not do it; ask an operator why.".to_owned());
    if server.vm_state == vm::ERROR && server.fault.as_ref().is_some_and(|f| f.message == cause) {
        return Vec::new();
    }
    fail(server, &cause, now)
}

/// Puts the server into error.
pub(crate) fn fail(server: &mut Server, cause: &str, now: Timestamp) -> Vec<Effect> {
    server.vm_state = vm::ERROR.to_owned();
    server.fault = Some(Fault { code: 500, message: cause.chars().take(255).collect(), details: String::new(), created: now.0 });
    finish(server);
    vec![Effect::Failed(cause.to_owned())]
}

fn offloaded(server: &mut Server) -> Vec<Effect> {
    server.vm_state = vm::OFFLOADED.to_owned();
    server.power_state = power::SHUTDOWN;
    server.node_id = None;
    server.host = None;
    finish(server);
    vec![Effect::Offloaded, Effect::Done]
}

/// What becomes of a task that has passed its deadline.
pub(crate) fn overdue(server: &mut Server, now: Timestamp) -> Vec<Effect> {
    let Some(task) = server.task_state.clone() else {
        server.deadline = None;
        return Vec::new();
    };
    if is_elsewhere(&task) {
        // The server itself is well; only its image was not made.
        server.snapshot = None;
        if task == task::SHELVING_UPLOADING {
            server.vm_state = vm::STOPPED.to_owned();
        }
        finish(server);
        return vec![Effect::Failed("The image was not made in time; try again.".to_owned())];
    }
    if task == task::OFFLOADING {
        return offloaded(server);
    }
    let what = task.replace(['_', '-'], " ");
    fail(
        server,
        &format!("The server's node did not finish {what} in time; look at the node, then reset the state or reboot hard."),
        now,
    )
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
