//! The access matrix: every route of every service, called by everybody.
use crate::Client;
use api::{Access, Service};
use serde_json::{Value, json};

/// A route as the matrix knows it.
#[derive(Clone, Debug)]
pub struct Known {
    pub method: &'static str,
    /// With the service's prefix; parameters in braces.
    pub path: String,
    pub access: Access,
    /// The newest microversion that has it.
    pub until: base::Version,
}

/// All routes of the services, the tables' too.
pub fn known(services: &[Service]) -> Vec<Known> {
    let mut out: Vec<Known> = Vec::new();
    for s in services {
        let tables = s.resources.iter().flat_map(|def| api::resource_routes(def, s.dialect));
        for route in s.routes.iter().cloned().chain(tables) {
            let path = format!("{}{}", s.prefix, route.path);
            match out.iter_mut().find(|k| k.method == route.method && k.path == path) {
                // One that microversions tell apart is known by the newest.
                Some(same) if same.until < route.until => (same.until, same.access) = (route.until, route.access),
                Some(_) => {}
                None => out.push(Known { method: route.method, path, access: route.access, until: route.until }),
            }
        }
    }
    out
}

/// Somebody who calls: a name for messages, and a client.
pub struct Somebody {
    pub name: &'static str,
    pub client: Client,
}

/// Calls every route as everybody and tells what must not be: an answer of 5xx, a route that is open without a token though it is
/// not public, a public one that asks for a token.
///
/// Bodies are empty objects: it is about who gets in, not what they get.
pub async fn violations(routes: &[Known], people: &[Somebody]) -> Vec<String> {
    let mut wrong = Vec::new();
    for route in routes {
        let path: Vec<&str> =
            route.path.split('/').map(|p| if p.starts_with('{') { "00000000000000000000000000000000" } else { p }).collect();
        let path = path.join("/");
        let body = if matches!(route.method, "POST" | "PUT" | "PATCH") { json!({}) } else { Value::Null };
        for who in people {
            let answer = who.client.send(route.method, &path, body.clone()).await;
            let (status, public) = (answer.status, route.access == Access::Public);
            let complaint = match status {
                500.. => "answers",
                200..=399 if !public && who.client.token.is_none() => "lets in somebody without a token:",
                400..=499 if !public && who.client.token.is_none() && status != 401 => "must ask for a token, not answer",
                _ => continue,
            };
            let said = String::from_utf8_lossy(&answer.bytes).into_owned();
            wrong.push(format!("{} {path} as {} {complaint} {status}: {said}", route.method, who.name));
        }
    }
    wrong
}
