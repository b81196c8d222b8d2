//! Discovery: the one version of the API and its range of microversions.
use crate::{MAX, MIN, rest};
use api::{Call, Reply};
use serde_json::json;

pub(crate) fn versions(call: &Call) -> Reply {
    let version = json!({
        "id": format!("v{MIN}"), "min_version": MIN.to_string(), "max_version": MAX.to_string(), "status": "CURRENT",
        // The same place, however the client came here.
        "links": [{"rel": "self", "href": ""}],
    });
    rest::uncached(call, Reply::ok(json!({ "versions": [version] })), None)
}
