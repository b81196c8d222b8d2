//! Actions of operators, and those on servers that are deleted softly (here none are).
use super::{Wish, shelve, wish};
use crate::{
    resources::{Node, Server},
    server::{
        change, create, records,
        state::{Needs, check_unlocked, task, vm},
    },
    shape::{self, Shape, opt, req},
};
use api::{Call, Error, Reply, Result};
use resource::Object;
use serde_json::{Value, json};

pub(super) const RESET_STATE: Shape = Shape::Object(&[req("state", &Shape::Choice(&["active", "error"]))]);
pub(super) const EVACUATE: Shape = Shape::Object(&[
    opt("host", &shape::FQDN),
    opt("onSharedStorage", &Shape::Bool).until(13),
    opt("adminPass", &shape::PASSWORD),
    opt("force", &Shape::Bool).since(29).until(67),
]);
pub(super) const MIGRATE: Shape = Shape::OneOf(&[
    &Shape::Null,
    &Shape::Object(&[opt("host", &Shape::OneOf(&[&shape::FQDN, &Shape::Null])).since(56)]),
    &shape::TEXT,
]);

/// Sets the state; the node is asked again to make the server as it was wanted.
pub(super) async fn reset_state(call: Call, server: Object<Server>, body: Value) -> Result<Reply> {
    let state = body["state"].as_str().unwrap_or_default().to_owned();
    change(&call, &server.id, move |cx, tx, s| {
        if s.deleting() {
            return Err(Error::conflict(format!("Instance {} is being deleted.", s.id)));
        }
        s.vm_state.clone_from(&state);
        s.task_state = None;
        s.deadline = None;
        s.intent += 1;
        if state == vm::ACTIVE {
            s.launched_at.get_or_insert(tx.now.0);
            s.fault = None;
        }
        records::start_action(tx, cx, s, "resetState", "");
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

/// Network state follows rows by itself: there is nothing to reset or inject.
pub(super) async fn nothing(call: Call, server: Object<Server>) -> Result<Reply> {
    check_unlocked(&server, &call.cx)?;
    Ok(Reply::empty(202))
}

pub(super) async fn force_delete(call: Call, server: Object<Server>) -> Result<Reply> {
    crate::server::delete::remove(&call, server.id).await?;
    Ok(Reply::empty(202))
}

pub(super) async fn restore(_call: Call, server: Object<Server>) -> Result<Reply> {
    Needs { launched: false, ..Needs::vm(&[vm::SOFT_DELETED]) }.check(&server, "restore")?;
    Ok(Reply::empty(202))
}

/// Builds the server anew elsewhere, from its image, when an operator has declared its host dead.
pub(super) async fn evacuate(call: Call, server: Object<Server>, body: Value) -> Result<Reply> {
    let target = body["host"].as_str().map(str::to_owned);
    if let Some(host) = &target {
        if !crate::zones::hosts(&call.reader()).contains(host) {
            return Err(Error::not_found(format!("Compute host {host} not found.")));
        }
        if server.host.as_ref() == Some(host) {
            return Err(Error::bad_request("The target host can't be the same one."));
        }
    }
    let password = body["adminPass"].as_str().map_or_else(create::password, str::to_owned);
    let needs = Needs { launched: false, ..Needs::vm(&[vm::ACTIVE, vm::STOPPED, vm::ERROR]).any_task() };
    let asked = Wish { method: "evacuate", action: "evacuate", event: "compute_rebuild_instance", needs, task: task::REBUILDING };
    wish(&call, &server, asked, move |cx, tx, s| {
        let node: Option<Object<Node>> = match s.node_id.clone() {
            Some(id) => resource::load_any(tx, &id)?,
            None => None,
        };
        let node = node.ok_or_else(|| Error::conflict(format!("Instance {} has no host.", s.id)))?;
        if !node.forced_down {
            return Err(Error::bad_request(format!(
                "Compute service of {} is still in use. Make sure that the host is off, then force its service down.",
                node.host
            )));
        }
        s.generation += 1;
        let away = vec![node.host.clone()];
        shelve::place(tx, cx, s, None, target.as_deref(), &away)
    })
    .await?;
    Ok(if crate::common::at(&call.cx, 14) { Reply::empty(200) } else { Reply::ok(json!({ "adminPass": password })) })
}

/// Root disks are local: they cannot follow a server to another host yet.
fn no_migration() -> Error {
    Error::bad_request(
        "No valid host was found. Servers with local disks cannot be moved; shelve and unshelve the server instead.",
    )
}

pub(super) async fn migrate(call: Call, server: Object<Server>, body: Value) -> Result<Reply> {
    check_unlocked(&server, &call.cx)?;
    Needs::vm(&[vm::ACTIVE, vm::STOPPED]).check(&server, "migrate")?;
    if let Some(host) = body.get("host").and_then(Value::as_str) {
        call.require("os_compute_api:os-migrate-server:migrate:host", Some(&server.map))?;
        if !crate::zones::hosts(&call.reader()).contains(&host.to_owned()) {
            return Err(Error::bad_request(format!("Compute host {host} could not be found.")));
        }
    }
    Err(no_migration())
}

pub(super) async fn migrate_live(call: Call, server: Object<Server>) -> Result<Reply> {
    check_unlocked(&server, &call.cx)?;
    Needs::vm(&[vm::ACTIVE, vm::PAUSED]).check(&server, "os-migrateLive")?;
    Err(no_migration())
}
