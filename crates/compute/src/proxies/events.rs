//! Events that other services tell Nova of (Nova api-ref, `os-server-external-events`), and snapshots that they ask it for.
//!
//! Here the network and the volumes are rows that everybody sees, so an event brings no news: it is checked and answered for the sake of
//! services that wait for the answer.
use crate::{
    common::{map, object, text},
    resources::Server,
    shape::{self, Shape, opt, req},
};
use api::{Access, Call, Error, Map, Reply, Result, Route};
use resource::Resource;
use serde_json::{Value, json};

const STATUS: Shape = Shape::Choice(&["failed", "completed", "in-progress"]);
const TAG: Shape = Shape::Text { min: 0, max: 255 };
const NAMES: [&str; 8] = [
    "network-changed",
    "network-vif-plugged",
    "network-vif-unplugged",
    "network-vif-deleted",
    "volume-extended",
    "power-update",
    "accelerator-request-bound",
    "volume-reimaged",
];
/// How many of the names a version knows.
const KNOWN: [(u16, usize); 5] = [(93, 8), (82, 7), (76, 6), (51, 5), (0, 4)];
const EVENT: Shape = Shape::Object(&[
    req("name", &Shape::Choice(&NAMES)),
    req("server_uuid", &shape::UUID),
    opt("status", &STATUS),
    opt("tag", &TAG),
]);
const CREATE: Shape = Shape::Object(&[req("events", &Shape::List { of: &EVENT, min: 1, max: usize::MAX, unique: false })]);

const NEED_TAG: [&str; 3] = ["volume-extended", "power-update", "accelerator-request-bound"];

fn check_names(list: &[Value], minor: u16) -> Result<()> {
    let known = KNOWN.iter().find(|(since, _)| minor >= *since).map_or(4, |(_, n)| *n);
    let names = NAMES.split_at(known).0;
    match list.iter().filter_map(|e| e["name"].as_str()).find(|n| !names.contains(n)) {
        Some(name) => Err(Error::bad_request(format!(
            "Invalid input for field/attribute name. Value: {name}. '{name}' is not one of {names:?}"
        ))),
        None => Ok(()),
    }
}

/// What an event comes to: 404 without its server, 400 without its tag, 422 while the server has no host.
fn outcome(event: &Map, server: Option<&Map>) -> u16 {
    match server {
        None => 404,
        Some(_) if NEED_TAG.contains(&text(event, "name")) && !event.contains_key("tag") => 400,
        Some(row) if text(row, "host").is_empty() => 422,
        Some(_) => 200,
    }
}

async fn create(call: Call) -> Result<Reply> {
    CREATE.check(call.json(), &call.cx)?;
    let list = call.object()?["events"].as_array().cloned().unwrap_or_default();
    check_names(&list, call.cx.version.1)?;
    let reader = call.reader();
    let (mut out, mut all_well) = (Vec::new(), true);
    for event in list {
        let mut event = map(event);
        let server = reader.get(&Server::DEF.table, text(&event, "server_uuid"));
        let code = outcome(&event, server.as_deref().map(object));
        all_well &= code == 200;
        event.insert("status".into(), if code == 200 { "completed" } else { "failed" }.into());
        event.insert("code".into(), code.into());
        out.push(Value::Object(event));
    }
    Ok(Reply::json(if all_well { 200 } else { 207 }, json!({ "events": out })))
}

const SNAPSHOT: Shape = Shape::Object(&[req(
    "snapshot",
    &Shape::Object(&[req("volume_id", &Shape::Text { min: 1, max: 255 }), req("create_info", &Shape::Open(&[]))]),
)]);

fn no_mapping(volume: &str) -> Error {
    Error::bad_request(format!("No volume Block Device Mapping with id {volume}."))
}

/// Drivers that share files over NFS ask the hypervisor to snapshot for them; volumes here never do.
async fn create_snapshot(call: Call) -> Result<Reply> {
    SNAPSHOT.check(call.json(), &call.cx)?;
    Err(no_mapping(text(call.inner("snapshot")?, "volume_id")))
}

async fn delete_snapshot(call: Call) -> Result<Reply> {
    let missing = || Error::bad_request("'delete_info'");
    let info = call.cx.query.get("delete_info").ok_or_else(missing)?;
    let info: Value = serde_json::from_str(info).map_err(|e| Error::bad_request(format!("delete_info is not JSON: {e}")))?;
    Err(no_mapping(info["volume_id"].as_str().ok_or_else(|| Error::bad_request("'volume_id'"))?))
}

pub(super) fn routes() -> Vec<Route> {
    let events = "os_compute_api:os-server-external-events:create";
    let snapshots = "/v2.1/os-assisted-volume-snapshots";
    vec![
        Route::new("POST", "/v2.1/os-server-external-events", Access::Rule(events, "service"), create),
        Route::new(
            "POST",
            snapshots,
            Access::Rule("os_compute_api:os-assisted-volume-snapshots:create", "admin"),
            create_snapshot,
        ),
        Route::new(
            "DELETE",
            "/v2.1/os-assisted-volume-snapshots/{id}",
            Access::Rule("os_compute_api:os-assisted-volume-snapshots:delete", "admin"),
            delete_snapshot,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_needs_a_server_a_host_and_perhaps_a_tag() {
        let event = |v| map(v);
        let (there, waiting) = (map(json!({"host": "h"})), map(json!({"host": null})));
        assert_eq!(outcome(&event(json!({"name": "network-changed"})), Some(&there)), 200);
        assert_eq!(outcome(&event(json!({"name": "network-changed"})), None), 404);
        assert_eq!(outcome(&event(json!({"name": "network-changed"})), Some(&waiting)), 422);
        assert_eq!(outcome(&event(json!({"name": "power-update"})), Some(&there)), 400);
    }

    #[test]
    fn names_come_with_versions() {
        let named = |n: &str| vec![json!({"name": n})];
        assert!(check_names(&named("volume-extended"), 50).is_err() && check_names(&named("volume-extended"), 51).is_ok());
        assert!(check_names(&named("volume-reimaged"), 92).is_err() && check_names(&named("volume-reimaged"), 93).is_ok());
    }
}
