//! Host aggregates (Nova api-ref, `os-aggregates`). One that has a zone puts its hosts into that availability zone; a host is in one
//! zone at most, and never leaves it while it runs servers.
use super::check_query;
use crate::{
    common::{PROVIDERS, at, map, micros, next_number, object, text},
    resources::{Aggregate, Node, Server},
    shape::{self, Shape, opt, req},
};
use api::{Access, Call, Cx, Error, ErrorKind, Map, Reply, Result, Route};
use resource::{Object, Resource, engine, load};
use serde_json::{Value, json};
use store::Tx;

const AZ: Shape = Shape::OneOf(&[&Shape::Checked { min: 1, max: 255, check: is_zone, what: AZ_RULE }, &Shape::Null]);
const AZ_RULE: &str = "An invalid 'availability_zone' value was provided. It must be: printable characters except :.Can not start or end with whitespace.";
const LOOSE_NAME: Shape = Shape::Checked { min: 1, max: 255, check: is_loose_name, what: LOOSE_RULE };
const LOOSE_RULE: &str =
    "An invalid 'name' value was provided. The name must be: printable characters with at least one non space character";
const CREATE: Shape =
    Shape::Object(&[req("aggregate", &Shape::Object(&[req("name", &shape::NAME), opt("availability_zone", &AZ)]))]);
const UPDATE: Shape =
    Shape::Object(&[req("aggregate", &Shape::Object(&[opt("name", &LOOSE_NAME), opt("availability_zone", &AZ)]))]);
const HOST: Shape = Shape::Object(&[req("host", &shape::FQDN)]);
const VALUES: Shape =
    Shape::Map { key: shape::is_metadata_key, of: &Shape::OneOf(&[&Shape::Text { min: 0, max: 255 }, &Shape::Null]) };
const ADD_HOST: Shape = Shape::Object(&[req("add_host", &HOST)]);
const REMOVE_HOST: Shape = Shape::Object(&[req("remove_host", &HOST)]);
const SET_METADATA: Shape = Shape::Object(&[req("set_metadata", &Shape::Object(&[req("metadata", &VALUES)]))]);
const IMAGES: Shape = Shape::Object(&[req(
    "cache",
    &Shape::List { of: &Shape::Object(&[req("id", &shape::UUID)]), min: 1, max: usize::MAX, unique: false },
)]);

fn is_zone(name: &str) -> bool {
    shape::is_name(name) && !name.contains(':')
}
fn is_loose_name(name: &str) -> bool {
    shape::is_printable(name) && !name.trim().is_empty()
}

fn view(cx: &Cx, row: &Map) -> Map {
    let zone = row.get("availability_zone").cloned().unwrap_or(Value::Null);
    let mut metadata = row.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    if zone.is_string() {
        metadata.insert("availability_zone".into(), zone.clone());
    }
    let mut out = map(json!({
        "id": text(row, "id").parse::<i64>().unwrap_or_default(), "name": text(row, "name"), "availability_zone": zone,
        "hosts": row.get("hosts").cloned().unwrap_or_else(|| json!([])), "metadata": metadata,
        "created_at": micros(row, "created_at"), "updated_at": micros(row, "updated_at"), "deleted": false, "deleted_at": null,
    }));
    if at(cx, 41) {
        out.insert("uuid".into(), text(row, "uuid").into());
    }
    out
}

fn body(call: &Call, aggregate: Object<Aggregate>) -> Result<Reply> {
    Ok(Reply::ok(json!({ "aggregate": view(&call.cx, &aggregate.into_map()?) })))
}

/// The id in the path, which is a number.
fn number(call: &Call) -> Result<String> {
    let id = call.param("id");
    match id.parse::<u32>() {
        Ok(n) => Ok(n.to_string()),
        Err(_) => Err(missing(id)),
    }
}
fn missing(id: &str) -> Error {
    Error::not_found(format!("Aggregate {id} could not be found."))
}
fn find(tx: &mut Tx<'_>, id: &str) -> Result<Object<Aggregate>> {
    load(tx, id)?.ok_or_else(|| missing(id))
}
fn name_taken(e: Error, name: &str) -> Error {
    if e.kind == ErrorKind::Conflict { Error::conflict(format!("Aggregate {name} already exists.")) } else { e }
}

async fn list(call: Call) -> Result<Reply> {
    check_query(&call.cx, 102, &[])?;
    let reader = call.reader();
    let mut rows: Vec<_> = reader.all(&Aggregate::DEF.table).collect();
    rows.sort_by_key(|r| r.id().parse::<u32>().unwrap_or_default());
    let list: Vec<Value> = rows.iter().map(|r| view(&call.cx, object(r)).into()).collect();
    Ok(Reply::ok(json!({ "aggregates": list })))
}

async fn show(call: Call) -> Result<Reply> {
    check_query(&call.cx, 102, &[])?;
    let id = number(&call)?;
    let row = call.reader().get(&Aggregate::DEF.table, &id).ok_or_else(|| missing(&id))?;
    Ok(Reply::ok(json!({ "aggregate": view(&call.cx, object(&row)) })))
}

async fn create(call: Call) -> Result<Reply> {
    CREATE.check(call.json(), &call.cx)?;
    let input = call.inner("aggregate")?;
    let aggregate = Aggregate {
        name: text(input, "name").trim().to_owned(),
        uuid: base::id::uuid(),
        availability_zone: input.get("availability_zone").and_then(Value::as_str).map(|z| z.trim().to_owned()),
        hosts: Vec::new(),
        metadata: Default::default(),
    };
    let row = call
        .transact(move |cx, tx| {
            let id = next_number(tx, "aggregates").to_string();
            let row = Object::new(id, None, aggregate.clone(), tx.now, &cx.request_id).into_map()?;
            engine::insert(tx, Aggregate::DEF, cx, row).map_err(|e| name_taken(e, &aggregate.name))
        })
        .await?;
    let mut out = view(&call.cx, &row);
    out.retain(|k, _| k != "hosts" && k != "metadata");
    Ok(Reply::ok(json!({ "aggregate": out })))
}

/// Writes the aggregate through the engine, which keeps its name unique.
fn store(tx: &mut Tx<'_>, cx: &Cx, old: &Map, mut new: Object<Aggregate>) -> Result<Object<Aggregate>> {
    let name = new.name.clone();
    crate::common::touch(&mut new.map, tx.now, &cx.request_id);
    let row = engine::replace(tx, Aggregate::DEF, cx, old, new.into_map()?).map_err(|e| name_taken(e, &name))?;
    Object::from_map(row)
}

/// Changes a row by its id, in one transaction.
async fn change(call: &Call, f: impl Fn(&mut Tx<'_>, &mut Object<Aggregate>) -> Result<()> + Send + 'static) -> Result<Reply> {
    let id = number(call)?;
    let aggregate = call
        .transact(move |cx, tx| {
            let mut aggregate = find(tx, &id)?;
            let old = aggregate.map.clone();
            f(tx, &mut aggregate)?;
            store(tx, cx, &old, aggregate)
        })
        .await?;
    body(call, aggregate)
}

/// What is being done, for the sentence that refuses it.
#[derive(Clone, Copy)]
enum Doing {
    Add,
    Remove,
    Update,
    Metadata,
}
fn refused(doing: Doing, id: &str, reason: &str) -> Error {
    let text = match doing {
        Doing::Add => format!("Cannot add host to aggregate {id}. Reason: {reason}."),
        Doing::Remove => format!("Cannot remove host from aggregate {id}. Reason: {reason}."),
        Doing::Update => format!("Cannot update aggregate {id}. Reason: {reason}."),
        Doing::Metadata => format!("Cannot update metadata of aggregate {id}. Reason: {reason}."),
    };
    match doing {
        Doing::Add | Doing::Remove => Error::conflict(text),
        Doing::Update | Doing::Metadata => Error::bad_request(text),
    }
}

/// Zones that other aggregates put these hosts into.
fn other_zones(tx: &mut Tx<'_>, but: &str, hosts: &[String]) -> Vec<String> {
    let rows = tx.all(&Aggregate::DEF.table);
    let of = |row: &resource::Row| {
        let shares = row
            .field("hosts")
            .as_array()
            .is_some_and(|l| l.iter().filter_map(Value::as_str).any(|h| hosts.iter().any(|x| x == h)));
        row.field("availability_zone").as_str().filter(|_| shares && row.id() != but).map(str::to_owned)
    };
    let mut zones: Vec<String> = rows.iter().filter_map(|r| of(r)).collect();
    zones.dedup();
    zones
}

fn servers_on(tx: &mut Tx<'_>, hosts: &[String]) -> usize {
    hosts.iter().map(|h| tx.children(&Server::DEF.table, "host", h).len()).sum()
}

/// May the aggregate have this zone?
fn check_zone(tx: &mut Tx<'_>, aggregate: &Object<Aggregate>, zone: Option<&str>, doing: Doing) -> Result<()> {
    let id = aggregate.id.as_str();
    let Some(zone) = zone.filter(|z| !z.is_empty()) else {
        return Err(refused(doing, id, &format!("Aggregate {} does not support empty named availability zone", aggregate.name)));
    };
    let conflicting: Vec<String> = other_zones(tx, id, &aggregate.hosts).into_iter().filter(|z| z != zone).collect();
    if !conflicting.is_empty() {
        return Err(refused(doing, id, &format!("One or more hosts already in availability zone(s) {conflicting:?}")));
    }
    if aggregate.availability_zone.as_deref() != Some(zone) && servers_on(tx, &aggregate.hosts) > 0 {
        return Err(refused(doing, id, "One or more hosts contain instances in this zone"));
    }
    Ok(())
}

async fn update(call: Call) -> Result<Reply> {
    UPDATE.check(call.json(), &call.cx)?;
    let input = call.inner("aggregate")?.clone();
    if input.is_empty() {
        return Err(Error::bad_request(
            "Invalid input for field/attribute aggregate. Value: {}. {} is not valid under any of the given schemas",
        ));
    }
    change(&call, move |tx, aggregate| {
        if let Some(name) = input.get("name").and_then(Value::as_str) {
            aggregate.name = name.trim().to_owned();
        }
        if let Some(zone) = input.get("availability_zone") {
            check_zone(tx, aggregate, zone.as_str(), Doing::Update)?;
            aggregate.availability_zone = zone.as_str().map(str::to_owned);
        }
        Ok(())
    })
    .await
}

async fn delete(call: Call) -> Result<Reply> {
    let id = number(&call)?;
    call.transact(move |cx, tx| {
        if !find(tx, &id)?.hosts.is_empty() {
            return Err(Error::bad_request(format!(
                "Cannot remove host from aggregate {id}. Reason: Host aggregate is not empty."
            )));
        }
        engine::delete(tx, Aggregate::DEF, cx, &id)
    })
    .await?;
    Ok(Reply::empty(200))
}

fn node_of(tx: &Tx<'_>, host: &str) -> Option<String> {
    tx.find(&Node::DEF.table, "host", host).first().map(|r| r.id().to_owned())
}

/// Tells placement, whose providers name their aggregates, too.
fn tell_placement(tx: &mut Tx<'_>, node_id: &str, uuid: &str, is_member: bool) {
    let Some(row) = tx.get(&PROVIDERS, node_id) else { return };
    let mut provider = object(&row).clone();
    let mut uuids = crate::server::request::strings(provider.get("aggregates"));
    uuids.retain(|u| u != uuid);
    if is_member {
        uuids.push(uuid.to_owned());
    }
    let generation = crate::common::int(&provider, "generation");
    provider.insert("aggregates".into(), json!(uuids));
    provider.insert("generation".into(), (generation + 1).into());
    tx.put(&PROVIDERS, node_id, provider.into());
}

/// The zone of the host would change under its servers.
fn moved(doing: Doing, id: &str, word: &str, from: Option<&str>, to: Option<&str>, servers: usize) -> Error {
    let shown = |z: Option<&str>| z.unwrap_or("None").to_owned();
    let reason = format!(
        "The host cannot be {word} the aggregate as the availability zone of the host would change from '{}' to '{}' but the host already \
         has {servers} instance(s). Changing the AZ of an existing instance is not supported by this action. Move the instances away from \
         this host then try again. If you need to move the instances between AZs then you can use shelve_offload and unshelve to achieve this.",
        shown(from),
        shown(to)
    );
    refused(doing, id, reason.trim_end_matches('.'))
}

async fn add_host(call: Call) -> Result<Reply> {
    ADD_HOST.check(call.json(), &call.cx)?;
    let host = text(call.inner("add_host")?, "host").to_owned();
    change(&call, move |tx, aggregate| {
        let Some(node) = node_of(tx, &host) else {
            return Err(Error::not_found(format!("Compute host {host} could not be found.")));
        };
        let hosts = [host.clone()];
        if let Some(zone) = aggregate.availability_zone.clone() {
            let others = other_zones(tx, &aggregate.id, &hosts);
            let conflicting: Vec<&String> = others.iter().filter(|z| **z != zone).collect();
            if !conflicting.is_empty() {
                let reason = format!("One or more hosts already in availability zone(s) {conflicting:?}");
                return Err(refused(Doing::Add, &aggregate.id, &reason));
            }
            let servers = servers_on(tx, &hosts);
            if others.is_empty() && zone != crate::zones::DEFAULT && servers > 0 {
                return Err(moved(Doing::Add, &aggregate.id, "added to", None, Some(&zone), servers));
            }
        }
        if aggregate.hosts.contains(&host) {
            return Err(Error::conflict(format!("Aggregate {} already has host {host}.", aggregate.id)));
        }
        aggregate.hosts.push(host.clone());
        tell_placement(tx, &node, &aggregate.uuid, true);
        Ok(())
    })
    .await
}

async fn remove_host(call: Call) -> Result<Reply> {
    REMOVE_HOST.check(call.json(), &call.cx)?;
    let host = text(call.inner("remove_host")?, "host").to_owned();
    change(&call, move |tx, aggregate| {
        let Some(place) = aggregate.hosts.iter().position(|h| *h == host) else {
            return Err(Error::not_found(format!("Cannot remove host {host} in aggregate {}", aggregate.id)));
        };
        if let Some(zone) = aggregate.availability_zone.clone() {
            let hosts = [host.clone()];
            let next = other_zones(tx, &aggregate.id, &hosts).into_iter().next();
            let servers = servers_on(tx, &hosts);
            if next.as_deref().unwrap_or(crate::zones::DEFAULT) != zone && servers > 0 {
                return Err(moved(Doing::Remove, &aggregate.id, "removed from", Some(&zone), next.as_deref(), servers));
            }
        }
        aggregate.hosts.remove(place);
        if let Some(node) = node_of(tx, &host) {
            tell_placement(tx, &node, &aggregate.uuid, false);
        }
        Ok(())
    })
    .await
}

async fn set_metadata(call: Call) -> Result<Reply> {
    SET_METADATA.check(call.json(), &call.cx)?;
    let input = call.inner("set_metadata")?["metadata"].as_object().cloned().unwrap_or_default();
    change(&call, move |tx, aggregate| {
        for (key, value) in &input {
            match (key.as_str(), value.as_str()) {
                ("availability_zone", zone) => {
                    check_zone(tx, aggregate, zone, Doing::Metadata)?;
                    aggregate.availability_zone = zone.map(str::to_owned);
                }
                (key, Some(value)) => drop(aggregate.metadata.insert(key.to_owned(), value.to_owned())),
                (key, None) => drop(aggregate.metadata.remove(key)),
            }
        }
        Ok(())
    })
    .await
}

async fn action(call: Call) -> Result<Reply> {
    let names: Vec<String> = call.object()?.keys().cloned().collect();
    let [name] = names.as_slice() else {
        return Err(Error::bad_request("Malformed request body: it must hold one action."));
    };
    match name.as_str() {
        "add_host" => add_host(call).await,
        "remove_host" => remove_host(call).await,
        "set_metadata" => set_metadata(call).await,
        _ => Err(Error::bad_request(format!("There is no such action: {name}"))),
    }
}

/// A wish that hosts have these images at hand. Nodes fetch an image at its first use; the wish is checked and is no promise, which
/// is all that Nova promises, too.
async fn images(call: Call) -> Result<Reply> {
    IMAGES.check(call.json(), &call.cx)?;
    let id = number(&call)?;
    let list = call.json()["cache"].as_array().cloned().unwrap_or_default();
    if list.iter().enumerate().any(|(i, v)| list[..i].contains(v)) {
        return Err(Error::bad_request("Duplicate images in request"));
    }
    call.reader().get(&Aggregate::DEF.table, &id).ok_or_else(|| missing(&id))?;
    Ok(Reply::empty(202))
}

pub(super) fn routes() -> Vec<Route> {
    let admin = |name| Access::Rule(name, "admin");
    let (all, one) = ("/v2.1/os-aggregates", "/v2.1/os-aggregates/{id}");
    vec![
        Route::new("GET", all, admin("os_compute_api:os-aggregates:index"), list),
        Route::new("POST", all, admin("os_compute_api:os-aggregates:create"), create),
        Route::new("GET", one, admin("os_compute_api:os-aggregates:show"), show),
        Route::new("PUT", one, admin("os_compute_api:os-aggregates:update"), update),
        Route::new("DELETE", one, admin("os_compute_api:os-aggregates:delete"), delete),
        Route::new("POST", "/v2.1/os-aggregates/{id}/action", admin("os_compute_api:os-aggregates:add_host"), action),
        Route::new("POST", "/v2.1/os-aggregates/{id}/images", admin("compute:aggregates:images"), images).since("2.81"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_have_no_colon_and_names_no_spaces_around() {
        assert!(is_zone("zone 1") && !is_zone("a:b") && !is_zone(" a"));
        assert!(is_loose_name(" a ") && !is_loose_name("  "));
    }

    #[test]
    fn refusals_have_the_status_that_nova_gives_them() {
        assert_eq!(refused(Doing::Add, "1", "x").kind, ErrorKind::Conflict);
        assert_eq!(refused(Doing::Update, "1", "x").message, "Cannot update aggregate 1. Reason: x.");
    }
}
