//! Allocation candidates: which providers together could give what is asked for.
mod request;
mod search;

use crate::{rest, rows::Provider};
use api::{Call, Cx, Reply, Result};
use request::Request;
use search::{Candidate, Forest};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

pub(crate) fn list(call: &Call) -> Result<Reply> {
    let reader = call.reader();
    let request = Request::read(&call.cx, &reader)?;
    let forest = Forest::read(&reader)?;
    let found = search::search(&forest, &request, rest::at(&call.cx, 29));
    let requests: Vec<Value> = found.candidates.iter().map(|c| view(&call.cx, &forest, c)).collect();
    let mut summaries = Map::new();
    for at in found.summarised {
        let provider = forest.provider(at);
        summaries.insert(provider.uuid.clone(), summary(&call.cx, &request, provider, forest.root_uuid(at)));
    }
    let body = json!({ "allocation_requests": requests, "provider_summaries": summaries });
    Ok(rest::uncached(call, Reply::ok(body), None))
}

/// One candidate, in the form that `PUT /allocations/{consumer}` takes at the version.
fn view(cx: &Cx, forest: &Forest, candidate: &Candidate) -> Value {
    let by_provider = candidate.resources(forest);
    if !rest::at(cx, 12) {
        let list = by_provider.iter().map(|(uuid, amounts)| json!({"resource_provider": {"uuid": uuid}, "resources": amounts}));
        return json!({ "allocations": list.collect::<Vec<Value>>() });
    }
    let allocations = by_provider.iter().map(|(uuid, amounts)| ((*uuid).to_owned(), json!({ "resources": amounts })));
    let mut out = json!({ "allocations": allocations.collect::<Map<String, Value>>() });
    if rest::at(cx, 34) {
        out["mappings"] = json!(candidate.mappings(forest));
    }
    out
}

fn summary(cx: &Cx, request: &Request, provider: &Provider, root: &str) -> Value {
    let asked: BTreeSet<&str> = request.groups.iter().flat_map(|g| g.resources.iter().map(|(class, _)| class.as_str())).collect();
    let shown = provider.inventories.iter().filter(|(class, _)| rest::at(cx, 27) || asked.contains(class.as_str()));
    let resources: Map<String, Value> =
        shown.map(|(class, i)| (class.clone(), json!({"capacity": i.capacity(), "used": provider.used(class)}))).collect();
    let mut out = json!({ "resources": resources });
    if rest::at(cx, 17) {
        out["traits"] = json!(provider.traits);
    }
    if rest::at(cx, 29) {
        out["parent_provider_uuid"] = json!(provider.parent_provider_uuid);
        out["root_provider_uuid"] = root.into();
    }
    out
}
