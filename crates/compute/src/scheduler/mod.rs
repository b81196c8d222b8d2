//! Chooses hosts: filter and weigh over rows in memory, inside the transaction that claims the room.
//!
//! What is read of hosts that are not chosen is advisory; the chosen provider's row is compared at the commit, so two schedulers
//! never give the same room away twice.
mod filters;
mod weights;

use crate::{
    common::{PROVIDERS, flag, object, text},
    resources::{Aggregate, Node, Server, ServerGroup, server::FlavorCopy},
    server::{records, request::Request},
};
use api::{Cx, Error, Map, Result};
use resource::{Resource, Row};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};
use store::Tx;

/// A host with all that filters look at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Host {
    pub(crate) node_id: String,
    pub(crate) name: String,
    pub(crate) up: bool,
    pub(crate) disabled: bool,
    pub(crate) zone: String,
    /// Metadata of its aggregates, one map each.
    pub(crate) aggregates: Vec<BTreeMap<String, String>>,
    pub(crate) provider: Map,
}

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

/// All hosts as rows tell.
pub(crate) fn hosts(tx: &Tx<'_>) -> Vec<Host> {
    let providers: BTreeMap<String, Arc<Row>> = tx.all(&PROVIDERS).into_iter().map(|r| (r.id().to_owned(), r)).collect();
    let aggregates = tx.all(&Aggregate::DEF.table);
    tx.all(&Node::DEF.table)
        .iter()
        .map(|row| {
            let node = object(row);
            let name = text(node, "host").to_owned();
            let mine = aggregates.iter().filter(|a| crate::server::request::strings(a.value().get("hosts")).contains(&name));
            let (mut zone, mut metadata) = (None, Vec::new());
            for a in mine {
                zone = zone.or_else(|| a.field("availability_zone").as_str().map(str::to_owned));
                metadata.push(crate::server::request::metadata(a.value().get("metadata")));
            }
            Host {
                node_id: row.id().to_owned(),
                up: text(node, "state") == "up" && !flag(node, "forced_down"),
                disabled: flag(node, "disabled"),
                zone: zone.unwrap_or_else(|| crate::zones::DEFAULT.to_owned()),
                aggregates: metadata,
                provider: providers.get(row.id()).map(|r| object(r).clone()).unwrap_or_default(),
                name,
            }
        })
        .collect()
}

/// Picks the best host, or none.
pub(crate) fn pick<'h>(hosts: &'h [Host], spec: &Spec) -> Option<&'h Host> {
    let mut fit: Vec<&Host> = hosts.iter().filter(|h| filters::passes(h, spec)).collect();
    fit.sort_by(|a, b| weights::of(b, spec).total_cmp(&weights::of(a, spec)).then_with(|| a.name.cmp(&b.name)));
    fit.first().copied()
}

/// Counts a placement in the copies at hand, so that the next server of the same request sees it.
pub(crate) fn note(hosts: &mut [Host], spec: &mut Spec, place: &Place) {
    if let Some(host) = hosts.iter_mut().find(|h| h.node_id == place.node_id) {
        let mut used = host.provider.get("used").and_then(Value::as_object).cloned().unwrap_or_default();
        for (class, amount) in &spec.resources {
            let now = used.get(class).and_then(Value::as_i64).unwrap_or(0);
            used.insert(class.clone(), (now + amount).into());
        }
        host.provider.insert("used".into(), used.into());
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
pub(crate) fn spec(tx: &mut Tx<'_>, request: &Request, flavor: &FlavorCopy, group: Option<Group>) -> Spec {
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
    }
}

#[cfg(test)]
mod tests;
