//! Backups: none are made here, and clients that look for them first (a project's clean-up does) learn that there are none.
use api::{Access, Call, Reply, Result, Route};
use serde_json::json;

pub(crate) fn routes() -> Vec<Route> {
    let list = Access::Rule("backup:get_all", "reader");
    vec![Route::new("GET", "/v3/backups", list, none), Route::new("GET", "/v3/backups/detail", list, none)]
}

async fn none(_: Call) -> Result<Reply> {
    Ok(Reply::ok(json!({ "backups": [] })))
}
