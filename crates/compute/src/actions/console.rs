//! Consoles: the serial log, and VNC by WebSocket behind a token of its own.
use crate::{
    common::{CONSOLES, map, visible},
    nodes,
    resources::Server,
    server::state::{check_unlocked, vm},
    shape::{self, Shape, opt, req},
};
use api::{Call, Error, Reply, ReplyBody, Result};
use resource::Object;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::{fmt::Write as _, time::Duration};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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

/// `GET /vnc/{token}`: carries RFB between a WebSocket and the server's display.
pub(crate) async fn vnc(call: Call) -> Result<Reply> {
    let gone = || Error::not_found("The console's address is not valid any more; ask for another.");
    let id = hash(call.param("token"));
    let server_id = {
        let reader = call.reader();
        let row = reader.get(&CONSOLES, &id).ok_or_else(gone)?;
        if row.field("expires_at").as_i64().unwrap_or(0) < call.cloud.db.now().0 {
            return Err(gone());
        }
        row.text("server_id").to_owned()
    };
    let server = {
        let reader = call.reader();
        resource::read::<Server>(&reader, &server_id)?.ok_or_else(gone)?
    };
    let mut display = nodes::display(&call, &server).await?;
    let task: api::WebSocketTask = Box::new(move |mut socket| {
        Box::pin(async move {
            let mut buffer = vec![0u8; 32 * 1024];
            loop {
                tokio::select! {
                    read = display.read(&mut buffer) => match read {
                        Ok(0) | Err(_) => break,
                        Ok(n) => {
                            if socket.send(buffer[..n].to_vec().into()).await.is_err() {
                                break;
                            }
                        }
                    },
                    message = socket.recv() => match message {
                        Some(Ok(message)) => {
                            let bytes = message.into_data();
                            if !bytes.is_empty() && display.write_all(&bytes).await.is_err() {
                                break;
                            }
                        }
                        Some(Err(_)) | None => break,
                    },
                }
            }
        })
    });
    Ok(Reply { status: 101, headers: Vec::new(), body: ReplyBody::WebSocket(task) })
}

/// `GET /os-console-auth-tokens/{id}`: where a console's token leads.
pub(crate) async fn token(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let row = reader.get(&CONSOLES, &hash(call.param("id"))).ok_or_else(|| Error::not_found("Token not found"))?;
    let server = resource::read::<Server>(&reader, row.text("server_id"))?.ok_or_else(|| Error::not_found("Token not found"))?;
    let host = server.host.clone().unwrap_or_default();
    let console = map(json!({ "instance_uuid": server.id, "host": host, "port": 0, "internal_access_path": null }));
    Ok(Reply::ok(json!({ "console": console })))
}
