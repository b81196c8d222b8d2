//! Discovery: one version with microversions.
use crate::answer::ok;
use api::{Access, Call, Reply, Route};
use resource::Result;
use serde_json::json;

pub(crate) fn routes() -> Vec<Route> {
    vec![Route::new("GET", "/", Access::Public, root)]
}

async fn root(call: Call) -> Result<Reply> {
    // The link is relative on purpose: it means "this same URL", whatever stands in front.
    let version = json!({
        "id": "v1.0", "max_version": "1.39", "min_version": "1.0", "status": "CURRENT",
        "links": [{"rel": "self", "href": ""}],
    });
    Ok(ok(&call, json!({"versions": [version]}), None))
}
