//! Version discovery: what clients ask before anything else, without a token.
use api::{Access, Call, Cx, Microversions, Reply, Result, Route};
use base::Version;
use serde_json::{Value, json};

/// The range of microversions that is served.
pub(crate) const MICROVERSIONS: Microversions =
    Microversions { name: "volume", legacy_header: None, min: Version::of("3.0"), max: Version::of("3.70") };

fn document(cx: &Cx) -> Value {
    json!({ "versions": [{
        "id": "v3.0", "status": "CURRENT", "version": MICROVERSIONS.max.to_string(), "min_version": MICROVERSIONS.min.to_string(),
        "updated": "2022-03-30T00:00:00Z",
        "links": [
            {"rel": "self", "href": format!("{}/v3/", cx.public)},
            {"rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/"},
        ],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.volume+json;version=3"}],
    }]})
}

async fn choices(call: Call) -> Result<Reply> {
    Ok(Reply::json(300, document(&call.cx)))
}

async fn version(call: Call) -> Result<Reply> {
    Ok(Reply::ok(document(&call.cx)))
}

pub(crate) fn routes() -> Vec<Route> {
    vec![Route::new("GET", "/", Access::Public, choices), Route::new("GET", "/v3", Access::Public, version)]
}
