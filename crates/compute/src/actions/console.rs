//! Consoles: the serial log, and VNC by WebSocket behind a token of its own.
use crate::{
    common::{CONSOLES, map, visible},
    nodes,
    resources::Server,
    server::state::{check_unlocked, vm},
    shape::{self, Shape, opt, req},
};
use api::{Call, Error, Reply, Result};
use base::Timestamp;
use resource::{Object, Tx};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::{fmt::Write as _, time::Duration};
use store::Row;

pub(super) const OUTPUT: Shape = Shape::OneOf(&[
    &Shape::Null,
    &Shape::Object(&[opt("length", &Shape::OneOf(&[&Shape::Int { min: -1, max: shape::MAX_INT }, &Shape::Null]))]),
]);
pub(super) const GET_VNC: Shape = Shape::Object(&[req("type", &Shape::Choice(&["novnc", "xvpvnc"]))]);
pub(super) const GET_OTHER: Shape = Shape::Object(&[req("type", &shape::TEXT)]);
const REMOTE: Shape = Shape::Object(&[req(
    "remote_console",
    &Shape::Object(&[
        req("protocol", &Shape::Choice(&["vnc", "spice", "rdp", "serial", "mks"])),
        req("type", &Shape::Choice(&["novnc", "xvpvnc", "spice-html5", "rdp-html5", "serial", "webmks"])),
    ]),
)]);

/// How long a console's address may be used for the first time.
const TOKEN_LIFE: Duration = Duration::from_secs(600);

pub(super) async fn output(call: Call, server: Object<Server>, body: Value) -> Result<Reply> {
    let lines = shape::as_int(&body["length"]).and_then(|n| usize::try_from(n).ok());
    if server.node_id.is_none() {
        return Err(Error::conflict(format!("Instance {} is not ready", server.id)));
    }
    let query = assign::Query::ConsoleLog { server_id: server.id.clone(), lines };
    let answer = nodes::ask(&call, &server, query).await?;
    let assign::Answer::Text(text) = answer else { return Err(Error::internal("a console log is no text")) };
    // Control characters have no place in what clients print.
    let text: String = text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t' | '\u{1b}')).collect();
    let text = match lines {
        Some(lines) => {
            let all: Vec<&str> = text.trim_end_matches('\n').split('\n').collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        None => text,
    };
    Ok(Reply::ok(json!({ "output": text })))
}

/// Makes a token for the server's VNC display; the row knows only its hash.
async fn open(call: &Call, server: &Object<Server>) -> Result<String> {
    check_unlocked(server, &call.cx)?;
    if server.node_id.is_none() || matches!(server.vm_state.as_str(), vm::BUILDING | vm::STOPPED | vm::OFFLOADED | vm::SHELVED) {
        return Err(Error::conflict(format!("Instance {} is not ready", server.id)));
    }
    let token = base::id::uuid();
    let (id, server_id) = (hash(&token), server.id.clone());
    call.transact(move |_, tx| {
        tx.put(&CONSOLES, &id, json!({ "server_id": server_id, "expires_at": tx.now.plus(TOKEN_LIFE).0 }));
        Ok(())
    })
    .await?;
    Ok(format!("{}/vnc/{token}", call.cx.public))
}

fn hash(token: &str) -> String {
    Sha256::digest(token).iter().fold(String::with_capacity(64), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// `os-getVNCConsole` and its siblings, until 2.5.
pub(super) async fn legacy(call: Call, server: Object<Server>, body: Value) -> Result<Reply> {
    let kind = body["type"].as_str().unwrap_or_default();
    if kind != "novnc" {
        return Err(unavailable(kind));
    }
    let url = open(&call, &server).await?;
    Ok(Reply::ok(json!({ "console": { "type": kind, "url": url } })))
}

fn unavailable(kind: &str) -> Error {
    Error::bad_request(format!("Unavailable console type {kind}."))
}

/// `POST /servers/{id}/remote-consoles`, from 2.6.
pub(crate) async fn remote_console(call: Call) -> Result<Reply> {
    let server: Object<Server> = visible(&call, call.param("id"))?;
    call.require("os_compute_api:os-remote-consoles", Some(&server.map))?;
    REMOTE.check(call.json(), &call.cx)?;
    let asked = &call.json()["remote_console"];
    let (protocol, kind) = (asked["protocol"].as_str().unwrap_or_default(), asked["type"].as_str().unwrap_or_default());
    if protocol == "mks" && !crate::common::at(&call.cx, 8) {
        return Err(unavailable(kind));
    }
    if (protocol, kind) != ("vnc", "novnc") {
        return Err(unavailable(kind));
    }
    let url = open(&call, &server).await?;
    Ok(Reply::ok(json!({ "remote_console": { "protocol": protocol, "type": kind, "url": url } })))
}

/// `GET /vnc/{token}`: carries RFB between a WebSocket and the server's display. A token opens it once.
pub(crate) async fn vnc(call: Call) -> Result<Reply> {
    if !call.header("upgrade").is_some_and(|v| v.eq_ignore_ascii_case("websocket")) {
        return Err(Error::bad_request("A console is opened by a WebSocket; use a client like noVNC."));
    }
    check_origin(call.header("origin"), call.header("host"), &call.cx.settings.public_endpoint)?;
    let id = hash(call.param("token"));
    let server = call.transact(move |_, tx| take(tx, &id)).await?;
    Ok(Reply::web_socket(nodes::display(&call, &server).await?))
}

/// The server that a token opens; the token is worth nothing afterwards.
fn take(tx: &mut Tx<'_>, id: &str) -> Result<Object<Server>> {
    let gone = || Error::not_found("The console's address is not valid any more; ask for another.");
    let row = tx.get(&CONSOLES, id).filter(|row| !is_over(row, tx.now)).ok_or_else(gone)?;
    let server = resource::load::<Server>(tx, row.text("server_id"))?.ok_or_else(gone)?;
    tx.delete(&CONSOLES, id);
    Ok(server)
}

fn is_over(row: &Row, now: Timestamp) -> bool {
    row.field("expires_at").as_i64().unwrap_or(0) < now.0
}

/// Pages of other sites must not use a console whose address leaked to them. What is no browser sends no `Origin`.
fn check_origin(origin: Option<&str>, host: Option<&str>, public: &str) -> Result<()> {
    let authority = |url: &str| url.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or_default().to_owned());
    let Some(origin) = origin else { return Ok(()) };
    match authority(origin) {
        Some(from) if Some(from.as_str()) == host || authority(public) == Some(from.clone()) => Ok(()),
        _ => Err(Error::forbidden(format!("Origin {origin} may not open consoles; use a page of this cloud."))),
    }
}

/// `GET /os-console-auth-tokens/{token}`: where a console's token leads.
pub(crate) async fn token(call: Call) -> Result<Reply> {
    let gone = || Error::not_found("Token not found");
    let reader = call.reader();
    let row = reader.get(&CONSOLES, &hash(call.param("token"))).ok_or_else(gone)?;
    if is_over(&row, call.cloud.db.now()) {
        return Err(gone());
    }
    let server = resource::read::<Server>(&reader, row.text("server_id"))?.ok_or_else(gone)?;
    let host = server.host.clone().unwrap_or_default();
    let console = map(json!({ "instance_uuid": server.id, "host": host, "port": 0, "internal_access_path": null }));
    Ok(Reply::ok(json!({ "console": console })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_this_cloud_open_consoles() {
        let public = "https://cloud.example:8774/compute";
        let check = |origin| check_origin(origin, Some("10.0.0.1:8774"), public).map_err(|e| e.kind);
        assert_eq!(check(None), Ok(()));
        assert_eq!(check(Some("https://cloud.example:8774")), Ok(()));
        assert_eq!(check(Some("http://10.0.0.1:8774")), Ok(()));
        for wrong in ["http://evil.example", "https://cloud.example", "https://cloud.example:8774.evil.example", "null", ""] {
            assert_eq!(check(Some(wrong)), Err(api::ErrorKind::Forbidden), "{wrong}");
        }
    }
}
