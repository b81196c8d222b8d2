//! A valid request for every route: its path, query and body, with places where ids go.
use serde_json::{Map, Value};
use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering},
};
use testkit::matrix::Known;

/// Bodies by method and path. `"$networks"` stands for the id of a network, `"$unique"` for a name that nothing has; `$version` is
/// the newest microversion that knows the body, and `$with` puts other things into the path (`{"volumes": "volume-in-use"}`). Several
/// bodies are several ways to use the route; a body of which nothing is left is none.
static BODIES: LazyLock<Map<String, Value>> =
    LazyLock::new(|| serde_json::from_str(include_str!("samples.json")).expect("samples.json is an object"));

/// One way to use a route.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) method: &'static str,
    /// With parameters in braces.
    pub(crate) path: String,
    /// With `$` where ids go.
    pub(crate) body: Value,
    pub(crate) media: &'static str,
    /// For `OpenStack-API-Version`.
    pub(crate) version: String,
    pub(crate) query: &'static str,
    pub(crate) service: &'static str,
    /// Keys of its path, and those that stand for them.
    with: Map<String, Value>,
    /// Tells samples of one route apart.
    pub(crate) name: String,
}

/// Proxies of other services answer 404 after these.
const OLD: [(&str, &str); 3] =
    [("/compute/v2.1/os-networks", "2.35"), ("/compute/v2.1/os-tenant-networks", "2.35"), ("/compute/v2.1/images", "2.35")];
/// What these routes want in their queries.
const QUERIES: [(&str, &str); 4] = [
    ("/placement/allocation_candidates", "resources=CUSTOM_GOLD:1"),
    ("/placement/usages", "project_id=$projects"),
    ("/volume/v3/qos-specs/{id}/associate", "vol_type_id=$volume:types"),
    ("/volume/v3/qos-specs/{id}/disassociate", "vol_type_id=$volume:types"),
];

const SERVICES: [&str; 6] = ["identity", "image", "network", "placement", "compute", "volume"];

fn bodies(method: &str, path: &str) -> Vec<Value> {
    if let Some(Value::Array(list)) = BODIES.get(&format!("{method} {path}")) {
        return list.clone();
    }
    // All kinds of resources have their tags in the same way.
    if path.starts_with("/network/v2.0/") && path.ends_with("/{id}/tags") && method == "PUT" {
        return bodies("PUT", "/network/v2.0/{kind}/{id}/tags");
    }
    vec![Value::Null]
}

/// All ways to use a route.
pub(crate) fn of(route: &Known) -> Vec<Sample> {
    let service = SERVICES.into_iter().find(|s| route.path.starts_with(&format!("/{s}"))).unwrap_or("operator");
    let media = match (service, route.method) {
        ("image", "PATCH") => "application/openstack-images-v2.1-json-patch",
        ("image", "PUT") if route.path.ends_with("/file") || route.path.ends_with("/stage") => "application/octet-stream",
        _ => "application/json",
    };
    let all = bodies(route.method, &route.path);
    let several = all.len() > 1;
    let sample = |(i, mut body): (usize, Value)| {
        let own = body.as_object_mut().and_then(|b| b.shift_remove("$version"));
        let with = body.as_object_mut().and_then(|b| b.shift_remove("$with"));
        let with = with.as_ref().and_then(Value::as_object).cloned().unwrap_or_default();
        if !with.is_empty() && body.as_object().is_some_and(Map::is_empty) {
            body = Value::Null;
        }
        let old = OLD.iter().find(|(p, _)| route.path.starts_with(p)).map(|(_, v)| (*v).to_owned());
        let newest = if route.until < base::Version::MAX { route.until.to_string() } else { old.unwrap_or("latest".to_owned()) };
        let version = own.as_ref().and_then(Value::as_str).map_or(newest, str::to_owned);
        let name = match body.as_object().and_then(|b| b.keys().next()) {
            _ if !several => format!("{} {}", route.method, route.path),
            Some(first) if route.path.ends_with("}/action") => format!("{} {} {first}", route.method, route.path),
            _ => format!("{} {} #{}", route.method, route.path, i + 1),
        };
        let query = QUERIES.iter().find(|(p, _)| *p == route.path).map_or("", |(_, q)| *q);
        Sample { method: route.method, path: route.path.clone(), body, media, version, query, service, with, name }
    };
    all.into_iter().enumerate().map(sample).collect()
}

/// What a parameter of a path means: the part before it, or its own name after another parameter.
fn keys(path: &str) -> Vec<String> {
    let parts: Vec<&str> = path.split('/').collect();
    let key = |pair: &[&str]| match (pair[0], pair[1]) {
        (_, b) if !b.starts_with('{') => None,
        // The image in a store.
        ("{store}", _) => Some("images".to_owned()),
        (a, b) if a.starts_with('{') => Some(b.trim_matches(['{', '}']).to_owned()),
        (a, _) => Some(a.to_owned()),
    };
    parts.windows(2).filter_map(key).collect()
}

/// Where ids come from: by service and key (`compute:images`), or by key.
pub(crate) type Ids<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Sample {
    /// The path with ids in it and its query; `None` where an id is not known.
    pub(crate) fn path(&self, ids: Ids<'_>) -> Option<String> {
        let mut keys = self.places().into_iter();
        let known = |key: String| ids(&format!("{}:{key}", self.service)).or_else(|| ids(&key));
        let parts = self.path.split('/').map(|p| if p.starts_with('{') { known(keys.next()?) } else { Some(p.to_owned()) });
        let path = parts.collect::<Option<Vec<String>>>()?.join("/");
        match self.query.split_once('$') {
            None if self.query.is_empty() => Some(path),
            None => Some(format!("{path}?{}", self.query)),
            Some((before, key)) => Some(format!("{path}?{before}{}", ids(key)?)),
        }
    }
    /// What its parameters mean.
    fn places(&self) -> Vec<String> {
        let other = |key: String| self.with.get(&key).and_then(Value::as_str).map(str::to_owned).unwrap_or(key);
        keys(&self.path).into_iter().map(other).collect()
    }
    /// The token that these are about, beside that of the caller.
    pub(crate) fn subject(&self) -> Option<&'static str> {
        (self.path == "/identity/v3/auth/tokens" && self.method != "POST").then_some("token")
    }
    /// Names of all ids in path and headers.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.places().into_iter().chain(self.subject().map(str::to_owned)).collect()
    }
    pub(crate) fn body(&self, ids: Ids<'_>) -> Value {
        filled(&self.body, ids)
    }
    /// What a body is on the wire.
    pub(crate) fn bytes(&self, body: &Value) -> bytes::Bytes {
        match body {
            Value::Null => bytes::Bytes::new(),
            Value::String(data) if self.media == "application/octet-stream" => data.clone().into(),
            body => body.to_string().into(),
        }
    }
}

pub(crate) fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("unique-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Names of the placeholders in a body.
pub(crate) fn placeholders(body: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let mut note = |s: &str| {
        if let Some(name) = s.strip_prefix('$').filter(|n| *n != "unique" && !out.iter().any(|o| o == n)) {
            out.push(name.to_owned());
        }
    };
    fn walk(v: &Value, note: &mut dyn FnMut(&str)) {
        match v {
            Value::String(s) => note(s),
            Value::Array(list) => list.iter().for_each(|v| walk(v, note)),
            Value::Object(map) => map.iter().for_each(|(k, v)| {
                note(k);
                walk(v, note);
            }),
            _ => {}
        }
    }
    walk(body, &mut note);
    out
}

/// A body with ids in it. A placeholder that nobody knows is a mistake of the samples.
pub(crate) fn filled(body: &Value, ids: Ids<'_>) -> Value {
    let text = |s: &str| match s.strip_prefix('$') {
        None => Value::from(s),
        Some("unique") => unique().into(),
        Some(name) => {
            let found = ids(name).unwrap_or_else(|| panic!("nothing is known as ${name}"));
            if name == "generation" { found.parse::<i64>().map_or(Value::Null, Value::from) } else { found.into() }
        }
    };
    match body {
        Value::String(s) => text(s),
        Value::Array(list) => list.iter().map(|v| filled(v, ids)).collect(),
        Value::Object(map) => {
            let entry = |(k, v): (&String, &Value)| (text(k).as_str().unwrap_or_default().to_owned(), filled(v, ids));
            Value::Object(map.iter().map(entry).collect())
        }
        other => other.clone(),
    }
}
