//! Chooses hosts: filter and weigh over rows in memory, inside the transaction that claims the room.
//!
//! What is read of hosts that are not chosen is advisory; the chosen provider's row is compared at the commit, so two schedulers
//! never give the same room away twice.
mod filters;
mod host;
mod weights;

pub(crate) use host::{Host, Rows};

use crate::{
    common::{flag, object},
    resources::{Server, ServerGroup, server::FlavorCopy},
    server::{records, request::Request},
};
use api::{Cx, Error, Map, Result};
use resource::{Resource, Row};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};
use store::Tx;

/// What a server needs of its host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spec {
    pub(crate) resources: BTreeMap<String, i64>,
    pub(crate) extra_specs: BTreeMap<String, String>,
    pub(crate) zone: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) forced: bool,
    /// Hosts of the servers named by hints; an empty list admits no host for `same_host`.
    pub(crate) same_host: Option<Vec<String>>,
    pub(crate) different_host: Vec<String>,
    pub(crate) group: Option<Group>,
    /// Hosts to leave out.
    pub(crate) avoid: Vec<String>,
    /// Decides between hosts that are equally good. Schedulers that decide at the same time then do not all want the same one.
    pub(crate) draw: String,
}

/// A server group and where its members are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    pub(crate) id: String,
    pub(crate) policy: String,
    pub(crate) most_per_host: i64,
    /// Members by host.
    pub(crate) members: BTreeMap<String, i64>,
}

/// Where a server goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) node_id: String,
    pub(crate) host: String,
}

/// Picks the best host, or none.
pub(crate) fn pick<'h, 'r>(hosts: &'h [Host<'r>], spec: &Spec) -> Option<&'h Host<'r>> {
    let fit = hosts.iter().filter(|h| filters::passes(h, spec)).map(|h| (weights::of(h, spec), h));
    let better =
        |a: &(f64, &Host<'_>), b: &(f64, &Host<'_>)| a.0.total_cmp(&b.0).then_with(|| lot(spec, a.1).cmp(&lot(spec, b.1)));
    fit.max_by(better).map(|(_, host)| host)
}

/// The same for the same server and host, whoever draws it.
fn lot(spec: &Spec, host: &Host<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&spec.draw, &host.facts.name).hash(&mut hasher);
    hasher.finish()
}

/// Counts a placement, so that the next server of the same request sees it.
pub(crate) fn note(hosts: &mut [Host<'_>], spec: &mut Spec, place: &Place) {
    if let Some(host) = hosts.iter_mut().find(|h| h.node_id == place.node_id) {
        host.take(spec);
    }
    if let Some(group) = &mut spec.group {
        *group.members.entry(place.host.clone()).or_default() += 1;
    }
}

fn hint_ids(hints: &Map, key: &str) -> Vec<String> {
    match hints.get(key) {
        Some(Value::String(id)) => vec![id.clone()],
        list => crate::server::request::strings(list),
    }
}

fn hosts_of(tx: &mut Tx<'_>, ids: &[String]) -> Vec<String> {
    ids.iter().filter_map(|id| tx.get(&Server::DEF.table, id)?.field("host").as_str().map(str::to_owned)).collect()
}

/// The group named by the hint `group`, by id.
pub(crate) fn group(tx: &mut Tx<'_>, cx: &Cx, hints: &Map) -> Result<Option<Group>> {
    let Some(id) = hint_ids(hints, "group").into_iter().next() else { return Ok(None) };
    let row = tx.get(&ServerGroup::DEF.table, &id);
    let row = row.filter(|r| Some(r.text("project_id")) == cx.caller.project_id() || cx.is_admin());
    let Some(row) = row else { return Err(Error::bad_request(format!("Instance group {id} could not be found."))) };
    Ok(Some(group_of(tx, &row, "")))
}

/// The group with its members but one.
pub(crate) fn group_of(tx: &Tx<'_>, row: &Row, but: &str) -> Group {
    let mut members = BTreeMap::new();
    for server in
        tx.find(&Server::DEF.table, "group_id", row.id()).iter().filter(|s| s.id() != but && !flag(object(s), "deleting"))
    {
        if let Some(host) = server.field("host").as_str() {
            *members.entry(host.to_owned()).or_default() += 1;
        }
    }
    Group {
        id: row.id().to_owned(),
        policy: row.text("policy").to_owned(),
        most_per_host: row.field("max_server_per_host").as_i64().unwrap_or(1),
        members,
    }
}

/// What a new server needs.
pub(crate) fn spec(tx: &mut Tx<'_>, request: &Request, flavor: &FlavorCopy, group: Option<Group>, draw: &str) -> Spec {
    let same = hint_ids(&request.hints, "same_host");
    let different = hint_ids(&request.hints, "different_host");
    Spec {
        resources: records::resources_of(flavor),
        extra_specs: flavor.extra_specs.clone(),
        zone: request.zone.clone(),
        host: request.host.clone(),
        forced: request.forced,
        same_host: (!same.is_empty()).then(|| hosts_of(tx, &same)),
        different_host: hosts_of(tx, &different),
        group,
        avoid: Vec::new(),
        draw: draw.to_owned(),
    }
}

/// What a server that is there already needs to be placed anew.
pub(crate) fn spec_of(tx: &mut Tx<'_>, server: &resource::Object<Server>) -> Spec {
    let row = server.group_id.as_deref().and_then(|id| tx.get(&ServerGroup::DEF.table, id));
    let group = row.map(|r| group_of(tx, &r, &server.id));
    let same = hint_ids(&server.scheduler_hints, "same_host");
    let different = hint_ids(&server.scheduler_hints, "different_host");
    Spec {
        resources: records::resources_of(&server.flavor),
        extra_specs: server.flavor.extra_specs.clone(),
        zone: server.pinned_availability_zone.clone(),
        host: None,
        forced: false,
        same_host: (!same.is_empty()).then(|| hosts_of(tx, &same)),
        different_host: hosts_of(tx, &different),
        group,
        avoid: Vec::new(),
        draw: server.id.clone(),
    }
}

#[cfg(test)]
mod tests;
