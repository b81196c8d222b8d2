//! Discovery.
use crate::{App, cache};
use api::{Access, Call, Reply, Route};
use resource::Result;
use serde_json::{Value, json};
use std::sync::Arc;

/// Minor versions whose calls are answered; the first one is the newest. 2.14, 2.16 and 2.18 add only to the cache.
const MINORS: [u8; 18] = [18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1];
const OF_THE_CACHE: [u8; 3] = [18, 16, 14];

pub(crate) fn routes(app: &Arc<App>) -> Vec<Route> {
    let (one, two) = (app.clone(), app.clone());
    let route = |path, status, app: Arc<App>| {
        Route::new("GET", path, Access::Public, move |call: Call| {
            let app = app.clone();
            async move { versions(&app, &call, status) }
        })
    };
    vec![route("/", 300, one), route("/versions", 200, two)]
}

fn versions(app: &App, call: &Call, status: u16) -> Result<Reply> {
    let known = |minor: &u8| cache::is_offered(app) || !OF_THE_CACHE.contains(minor);
    let minors: Vec<u8> = MINORS.into_iter().chain([0]).filter(known).collect();
    let version = |minor: &u8| {
        let status = if Some(minor) == minors.first() { "CURRENT" } else { "SUPPORTED" };
        json!({"id": format!("v2.{minor}"), "status": status, "links": [{"rel": "self", "href": format!("{}/v2/", call.cx.public)}]})
    };
    let versions: Vec<Value> = minors.iter().map(version).collect();
    Ok(Reply::json(status, json!({"versions": versions})))
}
