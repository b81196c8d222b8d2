//! Host aggregates.
use crate::{
    common::{at, map, micros, next_number, object, text},
    resources::{Aggregate, Node, Server},
    shape::{self, Shape, opt, req},
};
use api::{Access, Call, Error, Map, Reply, Result, Route};
use resource::{Object, Resource, engine};
use serde_json::{Value, json};
use store::Tx;

fn is_zone(text: &str) -> bool {
    shape::is_name(text) && !text.contains(':')
}
const ZONE: Shape = Shape::OneOf(&[
    &Shape::Checked { min: 1, max: 255, check: is_zone, what: "is not a 'az_name'" },
    &Shape::Null,
]);
const CREATE: Shape = Shape::Object(&[req("aggregate", &Shape::Object(&[req("name", &shape::NAME), opt("availability_zone", &ZONE)]))]);
const UPDATE: Shape = Shape::Object(&[req("aggregate", &Shape::Object(&[opt("name", &shape::NAME), opt("availability_zone", &ZONE)]))]);
const HOST: Shape = Shape::Object(&[req("host", &shape::FQDN)]);
const SET_METADATA: Shape = Shape::Object(&[req(
    "metadata",
    &Shape::Map { key: shape::is_metadata_key, of: &Shape::OneOf(&[&Shape::Text { min: 0, max: 255 }, &Shape::Null]) },
)]);
const CACHE: Shape = Shape::Object(&[req(
    "cache",
    &Shape::List { of: &Shape::Object(&[req("id", &shape::UUID)]), min: 1, max: 100, unique: true },
)]);

fn shown(call: &Call, row: &Map, whole: bool) -> Map {
    let mut out = map(json!({
        "id": text(row, "id").parse::<i64>().unwrap_or_default(), "name": row.get("name"), "availability_zone": row.get("availability_zone"),
        "created_at": micros(row, "created_at"), "updated_at": micros(row, "updated_at"), "deleted": false, "deleted_at": null,
    }));
    if at(&call.cx, 41) {
        out.insert("uuid".into(), row.get("uuid").cloned().unwrap_or(Value::Null));
    }
    if whole {
        let mut metadata = row.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
        if let Some(zone) = row.get("availability_zone").filter(|z| z.is_string()) {
            metadata.insert("availability_zone".into(), zone.clone());
        }
        out.insert("hosts".into(), row.get("hosts").cloned().unwrap_or_else(|| json!([])));
        out.insert("metadata".into(), metadata.into());
    }
    out
}

fn not_found(id: &str) -> Error {
    Error::not_found(format!("Aggregate {id} could not be found."))
}

fn check_id(call: &Call) -> Result<String> {
    let id = call.param("id");
    if id.parse::<i64>().is_err() {
        return Err(Error::bad_request(format!("Invalid input received: aggregate_id must be an integer, not '{id}'.")));
    }
    Ok(id.to_owned())
}

async fn list(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let mut rows: Vec<&Map> = reader.all(&Aggregate::DEF.table).map(|r| object(r)).collect();
    rows.sort_by_key(|r| text(r, "id").parse::<i64>().unwrap_or_default());
    let list: Vec<Map> = rows.into_iter().map(|r| shown(&call, r, true)).collect();
    Ok(Reply::ok(json!({ "aggregates": list })))
}

async fn show(call: Call) -> Result<Reply> {
    let id = check_id(&call)?;
    let row = call.reader().get(&Aggregate::DEF.table, &id).ok_or_else(|| not_found(&id))?;
    Ok(Reply::ok(json!({ "aggregate": shown(&call, object(&row), true) })))
}

async fn create(call: Call) -> Result<Reply> {
    CREATE.check(call.json(), &call.cx)?;
    let input = call.inner("aggregate")?.clone();
    let row = call
        .transact(move |cx, tx| {
            let id = next_number(tx, "aggregates").to_string();
            let body = Aggregate {
                name: text(&input, "name").trim().to_owned(),
                uuid: base::id::uuid(),
                availability_zone: input.get("availability_zone").and_then(Value::as_str).map(str::to_owned),
                hosts: Vec::new(),
                metadata: Default::default(),
            };
            let name = body.name.clone();
            let row = Object::new(id, None, body, tx.now, &cx.request_id).into_map()?;
            engine::insert(tx, Aggregate::DEF, cx, row).map_err(|e| taken(e, &name))
        })
        .await?;
    Ok(Reply::ok(json!({ "aggregate": shown(&call, &row, false) })))
}

fn taken(e: Error, name: &str) -> Error {
    if e.kind == api::ErrorKind::Conflict && e.message.contains("already exists") {
        return Error::conflict(format!("Aggregate {name} already exists."));
    }
    e
}

/// Changes an aggregate, and checks that no host comes to be in two zones.
async fn change<F>(call: &Call, mut how: F) -> Result<Map>
where
    F: FnMut(&mut Tx<'_>, &mut Object<Aggregate>) -> Result<()> + Send + 'static,
{
    let id = check_id(call)?;
    call.transact(move |cx, tx| {
        let found: Option<Object<Aggregate>> = resource::load(tx, &id)?;
        let mut aggregate = found.ok_or_else(|| not_found(&id))?;
        let old = aggregate.map.clone();
        how(tx, &mut aggregate)?;
        check_zones(tx, &aggregate, &old)?;
        let name = aggregate.name.clone();
        let mut row = aggregate.into_map()?;
        crate::common::touch(&mut row, tx.now, &cx.request_id);
        engine::replace(tx, Aggregate::DEF, cx, &old, row).map_err(|e| taken(e, &name))
    })
    .await
}

fn check_zones(tx: &mut Tx<'_>, aggregate: &Object<Aggregate>, old: &Map) -> Result<()> {
    let zone_changes = aggregate.availability_zone.as_deref() != old.get("availability_zone").and_then(Value::as_str);
    let old_hosts = crate::server::request::strings(old.get("hosts"));
    if let Some(zone) = &aggregate.availability_zone {
        for other in tx.all(&Aggregate::DEF.table).iter().filter(|o| o.id() != aggregate.id) {
            let hosts = crate::server::request::strings(other.value().get("hosts"));
            let shared = aggregate.hosts.iter().find(|h| hosts.contains(h));
            if let (Some(host), Some(theirs)) = (shared, other.field("availability_zone").as_str())
                && theirs != zone
            {
                return Err(Error::conflict(format!(
                    "Cannot add host to aggregate {}. Reason: Host {host} is already in availability zone {theirs}.",
                    aggregate.id
                )));
            }
        }
    }
    if zone_changes {
        let busy = aggregate.hosts.iter().chain(&old_hosts).find(|h| !tx.find(&Server::DEF.table, "host", h).is_empty());
        if let Some(host) = busy {
            return Err(Error::bad_request(format!(
                "Cannot update aggregate {}. Reason: One or more hosts contain instances in this zone ({host}).",
                aggregate.id
            )));
        }
    }
    Ok(())
}

async fn update(call: Call) -> Result<Reply> {
    UPDATE.check(call.json(), &call.cx)?;
    let input = call.inner("aggregate")?.clone();
    if input.is_empty() {
        return Err(Error::bad_request("Invalid input for field/attribute aggregate. Value: {}. {} does not have enough properties"));
    }
    let row = change(&call, move |_, a| {
        if let Some(name) = input.get("name").and_then(Value::as_str) {
            a.name = name.trim().to_owned();
        }
        if let Some(zone) = input.get("availability_zone") {
            a.availability_zone = zone.as_str().map(str::to_owned);
        }
        Ok(())
    })
    .await?;
    Ok(Reply::ok(json!({ "aggregate": shown(&call, &row, true) })))
}

async fn delete(call: Call) -> Result<Reply> {
    let id = check_id(&call)?;
    call.transact(move |cx, tx| {
        let found: Option<Object<Aggregate>> = resource::load(tx, &id)?;
        let aggregate = found.ok_or_else(|| not_found(&id))?;
        if !aggregate.hosts.is_empty() {
            return Err(Error::bad_request(format!("Cannot remove host from aggregate {id}. Reason: Host aggregate is not empty.")));
        }
        engine::delete(tx, Aggregate::DEF, cx, &id)
    })
    .await?;
    Ok(Reply::empty(200))
}

async fn act(call: Call) -> Result<Reply> {
    let body = call.object()?;
    let mut names = body.keys();
    let (Some(name), None) = (names.next().cloned(), names.next()) else {
        return Err(Error::bad_request("Malformed request body: it must hold one action."));
    };
    let value = body[&name].clone();
    let row = match name.as_str() {
        "add_host" => {
            HOST.check(&value, &call.cx)?;
            let host = value["host"].as_str().unwrap_or_default().to_owned();
            change(&call, move |tx, a| {
                if tx.find(&Node::DEF.table, "host", &host).is_empty() {
                    return Err(Error::not_found(format!("Compute host {host} could not be found.")));
                }
                if a.hosts.contains(&host) {
                    return Err(Error::conflict(format!("Aggregate {} already has host {host}.", a.id)));
                }
                a.hosts.push(host.clone());
                Ok(())
            })
            .await?
        }
        "remove_host" => {
            HOST.check(&value, &call.cx)?;
            let host = value["host"].as_str().unwrap_or_default().to_owned();
            change(&call, move |_, a| {
                if !a.hosts.contains(&host) {
                    return Err(Error::not_found(format!("Aggregate {} has no host {host}.", a.id)));
                }
                a.hosts.retain(|h| *h != host);
                Ok(())
            })
            .await?
        }
        "set_metadata" => {
            SET_METADATA.check(&value, &call.cx)?;
            let new = value["metadata"].as_object().cloned().unwrap_or_default();
            change(&call, move |_, a| {
                for (key, value) in &new {
                    match (key.as_str(), value.as_str()) {
                        ("availability_zone", zone) => a.availability_zone = zone.map(str::to_owned),
                        (_, Some(text)) => drop(a.metadata.insert(key.clone(), text.to_owned())),
                        (_, None) => drop(a.metadata.remove(key)),
                    }
                }
                Ok(())
            })
            .await?
        }
        other => return Err(Error::bad_request(format!("There is no such action: {other}"))),
    };
    Ok(Reply::ok(json!({ "aggregate": shown(&call, &row, true) })))
}

/// Asks hosts to fetch images early. They fetch on demand, once; the wish is only checked.
async fn cache_images(call: Call) -> Result<Reply> {
    CACHE.check(call.json(), &call.cx)?;
    let id = check_id(&call)?;
    let reader = call.reader();
    reader.get(&Aggregate::DEF.table, &id).ok_or_else(|| not_found(&id))?;
    for image in call.json()["cache"].as_array().into_iter().flatten() {
        let id = image["id"].as_str().unwrap_or_default();
        crate::server::images::find(&call.cx, &reader, id, &format!("Image {id} could not be found."))?;
    }
    Err(crate::common::unsupported())
}

pub(crate) fn routes() -> Vec<Route> {
    let admin = |name| Access::Rule(name, "admin");
    vec![
        Route::new("GET", "/v2.1/os-aggregates", admin("os_compute_api:os-aggregates:index"), list),
        Route::new("POST", "/v2.1/os-aggregates", admin("os_compute_api:os-aggregates:create"), create),
        Route::new("GET", "/v2.1/os-aggregates/{id}", admin("os_compute_api:os-aggregates:show"), show),
        Route::new("PUT", "/v2.1/os-aggregates/{id}", admin("os_compute_api:os-aggregates:update"), update),
        Route::new("DELETE", "/v2.1/os-aggregates/{id}", admin("os_compute_api:os-aggregates:delete"), delete),
        Route::new("POST", "/v2.1/os-aggregates/{id}/action", admin("os_compute_api:os-aggregates:change"), act),
        Route::new("POST", "/v2.1/os-aggregates/{id}/images", admin("compute:aggregates:images"), cache_images).since("2.81"),
    ]
}
