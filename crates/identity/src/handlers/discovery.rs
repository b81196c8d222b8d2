//! Which versions there are, and the JSON home document of v3.
use super::home;
use api::{Access, Call, Reply, Result, Route};
use serde_json::{Value, json};

pub(super) fn routes() -> Vec<Route> {
    vec![Route::new("GET", "", Access::Public, versions), Route::new("GET", "/v3", Access::Public, version)]
}

fn v3(call: &Call) -> Value {
    json!({
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": format!("{}/v3/", call.cx.public)}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    })
}

/// Does the client ask for JSON home?
fn wants_home(call: &Call) -> bool {
    call.header("accept").is_some_and(|a| a.split(',').next().unwrap_or_default().trim().starts_with("application/json-home"))
}

fn home_reply(prefix: &str) -> Reply {
    let mut reply = Reply::ok(home::document(prefix)).header("content-type", "application/json-home");
    reply.headers.push(("vary", "Accept".into()));
    reply
}

async fn versions(call: Call) -> Result<Reply> {
    if wants_home(&call) {
        return Ok(home_reply("/v3"));
    }
    let body = json!({"versions": {"values": [v3(&call)]}});
    Ok(Reply::json(300, body).header("location", format!("{}/v3/", call.cx.public)).header("vary", "X-Auth-Token"))
}

async fn version(call: Call) -> Result<Reply> {
    if wants_home(&call) {
        return Ok(home_reply(""));
    }
    Ok(Reply::ok(json!({"version": v3(&call)})))
}
