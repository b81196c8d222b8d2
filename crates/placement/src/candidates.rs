//! Allocation candidates: where a request would fit.
mod request;
mod search;

use crate::{
    answer::{ok, service, since},
    provider::{Forest, Provider},
};
use api::{Call, Reply, Route};
use request::Request;
use resource::{Error, Map, Result};
use search::Candidate;
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub(crate) fn routes() -> Vec<Route> {
    vec![Route::new("GET", "/allocation_candidates", service("placement:allocation_candidates:list"), list).since("1.10")]
}

async fn list(call: Call) -> Result<Reply> {
    let request = Request::parse(&call)?;
    let (forest, found) = {
        let reader = call.reader();
        for class in request.classes() {
            crate::classes::check_read(&reader, class).map_err(|e| {
                Error::bad_request(format!("Invalid resource class in resources parameter: {}", e.message))
            })?;
        }
        crate::traits::check_read(&reader, request.traits()).map_err(|e| Error::bad_request(e.message))?;
        let forest = Forest::read(&reader)?;
        let nested = since(&call, "1.29");
        let found = search::candidates(&forest, &request, nested);
        (forest, found)
    };
    let body = json!({
        "allocation_requests": found.iter().map(|c| view(&call, c)).collect::<Vec<_>>(),
        "provider_summaries": summaries(&call, &forest, &request, &found),
    });
    Ok(ok(&call, body, None))
}

fn view(call: &Call, candidate: &Candidate) -> Value {
    if !since(call, "1.12") {
        let list = candidate.amounts.iter().map(|(uuid, resources)| json!({"resource_provider": {"uuid": uuid}, "resources": resources}));
        return json!({"allocations": list.collect::<Vec<_>>()});
    }
    let by_provider: Map = candidate.amounts.iter().map(|(uuid, resources)| (uuid.clone(), json!({"resources": resources}))).collect();
    let mut out = json!({"allocations": by_provider});
    if since(call, "1.34") {
        out["mappings"] = json!(candidate.mappings);
    }
    out
}

/// Providers of the candidates; from 1.29 all of the trees that they are part of.
fn summaries(call: &Call, forest: &Forest, request: &Request, found: &[Candidate]) -> Value {
    let named: BTreeSet<&str> = found.iter().flat_map(|c| c.mappings.values().flatten().chain(c.amounts.keys())).map(String::as_str).collect();
    let shown: BTreeSet<&str> = if since(call, "1.29") {
        let roots: BTreeSet<&str> = named.iter().map(|uuid| forest.root(uuid)).collect();
        forest.all.keys().map(String::as_str).filter(|uuid| roots.contains(forest.root(uuid))).collect()
    } else {
        named
    };
    let classes: BTreeSet<&str> = request.classes().collect();
    let all_classes = since(call, "1.27");
    let one = |p: &Provider| {
        let resources: Map = p
            .inventories
            .iter()
            .filter(|(class, _)| all_classes || classes.contains(class.as_str()))
            .map(|(class, i)| (class.clone(), json!({"capacity": i.capacity(), "used": p.used(class)})))
            .collect();
        let mut out = json!({"resources": resources});
        if since(call, "1.17") {
            out["traits"] = json!(p.traits);
        }
        if since(call, "1.29") {
            out["parent_provider_uuid"] = json!(p.parent_provider_uuid);
            out["root_provider_uuid"] = forest.root(&p.uuid).into();
        }
        (p.uuid.clone(), out)
    };
    shown.iter().filter_map(|uuid| forest.all.get(*uuid)).map(one).collect::<Map>().into()
}
