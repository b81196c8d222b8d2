//! Discovery.
use api::{Access, Call, Reply, Route};
use resource::Result;
use serde_json::{Value, json};

/// Minor versions whose calls are answered. 2.14, 2.16 and 2.18 add only to the cache's API.
const MINORS: [u8; 16] = [17, 15, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0];

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::new("GET", "/", Access::Public, |call| async move { versions(&call, 300) }),
        Route::new("GET", "/versions", Access::Public, |call| async move { versions(&call, 200) }),
    ]
}

fn versions(call: &Call, status: u16) -> Result<Reply> {
    let version = |minor: &u8| {
        let status = if *minor == MINORS[0] { "CURRENT" } else { "SUPPORTED" };
        json!({"id": format!("v2.{minor}"), "status": status, "links": [{"rel": "self", "href": format!("{}/v2/", call.cx.public)}]})
    };
    let versions: Vec<Value> = MINORS.iter().map(version).collect();
    Ok(Reply::json(status, json!({"versions": versions})))
}
