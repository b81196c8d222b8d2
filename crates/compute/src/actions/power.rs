//! Power, locks and what needs an agent in the guest.
use super::{Wish, wish};
use crate::{
    common::at,
    resources::Server,
    server::{
        change, records,
        state::{Needs, check_unlocked, task, vm},
    },
    shape::{self, Shape, opt, req},
};
use api::{Call, Error, Reply, Result};
use assign::{Power, Reboot};
use resource::Object;
use serde_json::Value;

pub(super) const REBOOT: Shape = Shape::Object(&[req("type", &Shape::Choice(&["HARD", "Hard", "hard", "SOFT", "Soft", "soft"]))]);
pub(super) const LOCK: Shape = Shape::OneOf(&[
    &Shape::Null,
    &Shape::Object(&[opt("locked_reason", &Shape::Text { min: 1, max: 255 }).since(73)]),
    &LEGACY_LOCK,
]);
/// Before 2.73 the value of `lock` had no meaning.
const LEGACY_LOCK: Shape = Shape::Text { min: 0, max: 255 };
pub(super) const CHANGE_PASSWORD: Shape = Shape::Object(&[req("adminPass", &shape::PASSWORD)]);

const HARD_STATES: &[&str] = &[vm::ACTIVE, vm::STOPPED, vm::PAUSED, vm::SUSPENDED, vm::ERROR];
const HARD_TASKS: &[&str] =
    &[task::REBOOTING, task::REBOOTING_HARD, task::RESUMING, task::UNPAUSING, task::PAUSING, task::SUSPENDING, task::POWERING_ON];

pub(super) async fn reboot(call: Call, server: Object<Server>, body: Value) -> Result<Reply> {
    let hard = body["type"].as_str().is_some_and(|t| t.eq_ignore_ascii_case("hard"));
    let needs = if hard { Needs::vm(HARD_STATES).or_tasks(HARD_TASKS) } else { Needs::vm(&[vm::ACTIVE]) };
    let task = if hard { task::REBOOTING_HARD } else { task::REBOOTING };
    let asked = Wish { method: "reboot", action: "reboot", event: "compute_reboot_instance", needs, task };
    wish(&call, &server, asked, move |_, _, s| {
        s.power = Power::Running;
        s.reboot = Reboot { count: s.reboot.count + 1, hard };
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

/// A wish for another power state.
async fn to(call: Call, server: Object<Server>, power: Power, asked: Wish) -> Result<Reply> {
    wish(&call, &server, asked, move |_, _, s| {
        s.power = power;
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

pub(super) async fn start(call: Call, server: Object<Server>) -> Result<Reply> {
    let needs = Needs::vm(&[vm::STOPPED]);
    let asked = Wish { method: "start", action: "start", event: "compute_start_instance", needs, task: task::POWERING_ON };
    to(call, server, Power::Running, asked).await
}
pub(super) async fn stop(call: Call, server: Object<Server>) -> Result<Reply> {
    let needs = Needs::vm(&[vm::ACTIVE, vm::ERROR]);
    let asked = Wish { method: "stop", action: "stop", event: "compute_stop_instance", needs, task: task::POWERING_OFF };
    to(call, server, Power::Stopped, asked).await
}
pub(super) async fn pause(call: Call, server: Object<Server>) -> Result<Reply> {
    let needs = Needs::vm(&[vm::ACTIVE]);
    let asked = Wish { method: "pause", action: "pause", event: "compute_pause_instance", needs, task: task::PAUSING };
    to(call, server, Power::Paused, asked).await
}
pub(super) async fn unpause(call: Call, server: Object<Server>) -> Result<Reply> {
    let needs = Needs::vm(&[vm::PAUSED]);
    let asked = Wish { method: "unpause", action: "unpause", event: "compute_unpause_instance", needs, task: task::UNPAUSING };
    to(call, server, Power::Running, asked).await
}
/// Stops the guest's CPUs and shows it as suspended; its memory stays on the host.
pub(super) async fn suspend(call: Call, server: Object<Server>) -> Result<Reply> {
    let needs = Needs::vm(&[vm::ACTIVE]);
    let asked = Wish { method: "suspend", action: "suspend", event: "compute_suspend_instance", needs, task: task::SUSPENDING };
    to(call, server, Power::Paused, asked).await
}
pub(super) async fn resume(call: Call, server: Object<Server>) -> Result<Reply> {
    let needs = Needs::vm(&[vm::SUSPENDED]);
    let asked = Wish { method: "resume", action: "resume", event: "compute_resume_instance", needs, task: task::RESUMING };
    to(call, server, Power::Running, asked).await
}

pub(super) async fn lock(call: Call, server: Object<Server>, body: Value) -> Result<Reply> {
    let reason = body.get("locked_reason").and_then(Value::as_str).filter(|_| at(&call.cx, 73)).map(str::to_owned);
    change(&call, &server.id, move |cx, tx, server| {
        let is_owner = cx.caller.project_id() == Some(server.project_id());
        server.locked_by = Some(if is_owner { "owner" } else { "admin" }.to_owned());
        server.locked_reason.clone_from(&reason);
        records::start_action(tx, cx, server, "lock", "");
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

pub(super) async fn unlock(call: Call, server: Object<Server>) -> Result<Reply> {
    if server.locked_by.as_deref() == Some("admin") {
        call.require("os_compute_api:os-lock-server:unlock:unlock_override", Some(&server.map))?;
    }
    change(&call, &server.id, |cx, tx, server| {
        server.locked_by = None;
        server.locked_reason = None;
        records::start_action(tx, cx, server, "unlock", "");
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

/// Guests of this cloud have no agent that could set a password.
pub(super) async fn change_password(call: Call, server: Object<Server>) -> Result<Reply> {
    check_unlocked(&server, &call.cx)?;
    Needs::vm(&[vm::ACTIVE]).check(&server, "set_admin_password")?;
    Err(Error::conflict(format!("Failed to set admin password on {} because the guest has no agent; use a key pair.", server.id)))
}

pub(super) async fn crash_dump(call: Call, server: Object<Server>) -> Result<Reply> {
    check_unlocked(&server, &call.cx)?;
    Needs::vm(&[vm::ACTIVE, vm::PAUSED, vm::RESCUED, vm::RESIZED, vm::ERROR]).check(&server, "trigger_crash_dump")?;
    Err(Error::bad_request("Triggering crash dump is not supported by the hosts of this cloud."))
}
