//! Version discovery: what clients ask before anything else, without a token.
use api::{Access, Call, Cx, Error, Microversions, Reply, Result, Route};
use base::Version;
use resource::ResourceDef;
use serde_json::{Value, json};

/// The range of microversions that is served.
pub(crate) const MICROVERSIONS: Microversions = Microversions {
    name: "compute",
    legacy_header: Some("x-openstack-nova-api-version"),
    min: Version::of("2.1"),
    max: Version::of("2.96"),
};

struct Api {
    id: &'static str,
    path: &'static str,
    status: &'static str,
    updated: &'static str,
    media: &'static str,
}

/// The first is the older one: clients and upstream's tests rely on the order.
const APIS: [Api; 2] = [
    Api {
        id: "v2.0",
        path: "v2",
        status: "DEPRECATED",
        updated: "2011-01-21T11:33:21Z",
        media: "application/vnd.openstack.compute+json;version=2",
    },
    Api {
        id: "v2.1",
        path: "v2.1",
        status: "CURRENT",
        updated: "2013-07-23T11:33:21Z",
        media: "application/vnd.openstack.compute+json;version=2.1",
    },
];

impl Api {
    fn view(&self, cx: &Cx) -> Value {
        let (version, min_version) = match self.id {
            "v2.1" => (MICROVERSIONS.max.to_string(), MICROVERSIONS.min.to_string()),
            _ => (String::new(), String::new()),
        };
        json!({
            "id": self.id, "status": self.status, "version": version, "min_version": min_version, "updated": self.updated,
            "links": [{ "rel": "self", "href": format!("{}/{}/", cx.public, self.path) }],
        })
    }
    fn document(&self, cx: &Cx) -> Reply {
        let mut out = crate::common::map(self.view(cx));
        if let Some(Value::Array(links)) = out.get_mut("links") {
            links.push(json!({ "rel": "describedby", "type": "text/html", "href": "http://docs.openstack.org/" }));
        }
        out.insert("media-types".into(), json!([{ "base": "application/json", "type": self.media }]));
        Reply::ok(json!({ "version": out }))
    }
}

async fn list(call: Call) -> Result<Reply> {
    let versions: Vec<Value> = APIS.iter().map(|a| a.view(&call.cx)).collect();
    Ok(Reply::ok(json!({ "versions": versions })))
}

async fn show_v20(call: Call) -> Result<Reply> {
    Ok(APIS[0].document(&call.cx))
}
async fn show_v21(call: Call) -> Result<Reply> {
    Ok(APIS[1].document(&call.cx))
}

async fn by_id(call: Call) -> Result<Reply> {
    match APIS.iter().find(|a| a.id == call.param("id")) {
        Some(api) => Ok(api.document(&call.cx)),
        None => Err(Error::not_found("The resource could not be found.")),
    }
}

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::new("GET", "/", Access::Public, list),
        Route::new("GET", "/v2", Access::Public, show_v20),
        Route::new("GET", "/v2.1", Access::Public, show_v21),
        Route::new("GET", "/v2.1/versions/{id}", Access::Authenticated, by_id),
    ]
}

/// The same surface below `/v2`, for clients that never heard of `/v2.1`: Nova serves both with the same code, too.
///
/// Called once, at start, with everything that is served below `/v2.1`.
pub(crate) fn legacy(routes: &[Route], resources: &[&'static ResourceDef]) -> Vec<Route> {
    let tables = resources.iter().flat_map(|def| api::resource_routes(def, &api::dialect::COMPUTE));
    let mut out: Vec<Route> = Vec::new();
    for route in routes.iter().cloned().chain(tables) {
        let Some(rest) = route.path.strip_prefix("/v2.1/") else { continue };
        let path = format!("/v2/{rest}");
        if !out.iter().any(|r| r.method == route.method && r.path == path && r.since == route.since) {
            out.push(route.at(Box::leak(path.into_boxed_str())));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_root_serves_what_the_new_one_serves() {
        let all = legacy(&crate::proxies::routes(), &[]);
        assert!(all.iter().all(|r| r.path.starts_with("/v2/")));
        assert!(all.iter().any(|r| r.method == "GET" && r.path == "/v2/flavors/{id}/os-extra_specs"));
        assert!(!all.iter().any(|r| r.path == "/v2/" || r.path == "/v2"));
    }
}
