//! Allocations of consumers, in the forms that each microversion has.
use crate::{
    allocate::{Change, replace},
    answer::{invalid, ok, service, since},
    body,
    consumer::{ALLOCATIONS, Amounts, Consumer, NOBODY},
    provider::Provider,
};
use api::{Call, Reply, Route};
use base::{Timestamp, Version};
use resource::{Error, Map, Reader, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(crate) fn routes() -> Vec<Route> {
    const ONE: &str = "/allocations/{consumer}";
    vec![
        Route::new("GET", ONE, service("placement:allocations:list"), of_consumer),
        Route::new("PUT", ONE, service("placement:allocations:update"), set),
        Route::new("DELETE", ONE, service("placement:allocations:delete"), delete),
        Route::new("POST", "/allocations", service("placement:allocations:manage"), set_many).since("1.13"),
        Route::new("GET", "/resource_providers/{uuid}/allocations", service("placement:resource_providers:allocations:list"), of_provider),
    ]
}

/// The uuid of the path, with dashes if it is one.
fn consumer_id(call: &Call) -> String {
    let given = call.param("consumer");
    body::dashed(given).unwrap_or_else(|| given.to_owned())
}

fn stamp(row: &store::Row) -> Option<Timestamp> {
    row.field("updated_at").as_i64().map(Timestamp)
}

async fn of_consumer(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let Some(row) = reader.get(&ALLOCATIONS, &consumer_id(&call)) else {
        return Ok(ok(&call, json!({"allocations": {}}), None));
    };
    let consumer = Consumer::of(&row)?;
    let mut allocations = Map::new();
    for (uuid, resources) in &consumer.allocations {
        let generation = Provider::read(&reader, uuid)?.generation;
        allocations.insert(uuid.clone(), json!({"resources": resources, "generation": generation}));
    }
    let mut out = Map::new();
    out.insert("allocations".into(), allocations.into());
    if since(&call, "1.12") {
        out.insert("project_id".into(), consumer.project_id.as_str().into());
        out.insert("user_id".into(), consumer.user_id.as_str().into());
    }
    if since(&call, "1.28") {
        out.insert("consumer_generation".into(), consumer.consumer_generation.into());
    }
    if since(&call, "1.38") {
        out.insert("consumer_type".into(), consumer.shown_type().into());
    }
    Ok(ok(&call, out.into(), stamp(&row)))
}

/// Consumers that hold something of a provider.
fn holders(reader: &Reader<'_>, uuid: &str) -> Result<Vec<(Consumer, Option<Timestamp>)>> {
    let rows = reader.all(&ALLOCATIONS).filter(|r| r.field("allocations").get(uuid).is_some());
    rows.map(|r| Ok((Consumer::of(r)?, stamp(r)))).collect()
}

async fn of_provider(call: Call) -> Result<Reply> {
    let uuid = call.param("uuid");
    let reader = call.reader();
    let provider = Provider::read(&reader, uuid)?;
    let holders = holders(&reader, uuid)?;
    let mut allocations = Map::new();
    for (consumer, _) in &holders {
        let mut shown = json!({"resources": consumer.allocations[uuid]});
        if since(&call, "1.28") {
            shown["consumer_generation"] = consumer.consumer_generation.into();
        }
        allocations.insert(consumer.consumer_id.clone(), shown);
    }
    let body = json!({"allocations": allocations, "resource_provider_generation": provider.generation});
    Ok(ok(&call, body, holders.iter().filter_map(|(_, at)| *at).max()))
}

/// One consumer's part of a body, from 1.12 on. Before 1.28 only `POST` may be empty.
pub(crate) fn parse(version: Version, id: &str, value: &Value, may_be_empty: bool) -> Result<Change> {
    let at = |v: &'static str| version >= Version::of(v);
    let mut required = vec!["allocations", "project_id", "user_id"];
    if at("1.28") {
        required.push("consumer_generation");
    }
    if at("1.38") {
        required.push("consumer_type");
    }
    let map = body::keys(value, &required, if at("1.34") { &["mappings"] } else { &[] })?;
    let allocations = by_provider(&map["allocations"])?;
    if allocations.is_empty() && !may_be_empty && !at("1.28") {
        return Err(invalid("{} does not have enough properties"));
    }
    let generation = match map.get("consumer_generation") {
        _ if !at("1.28") => None,
        None | Some(Value::Null) => Some(None),
        Some(v) => Some(Some(body::integer(v, i64::MIN, i64::MAX)?)),
    };
    if let Some(mappings) = map.get("mappings") {
        check_mappings(mappings)?;
    }
    Ok(Change {
        consumer_id: id.to_owned(),
        project_id: body::text(&map["project_id"], 1, 255)?,
        user_id: body::text(&map["user_id"], 1, 255)?,
        consumer_type: map.get("consumer_type").map(consumer_type).transpose()?,
        generation,
        allocations,
    })
}

fn consumer_type(value: &Value) -> Result<String> {
    let kind = body::text(value, 1, 255)?;
    if body::is_symbol(&kind) { Ok(kind) } else { Err(invalid(format_args!("'{}' does not match '^[A-Z0-9_]+$'", body::clip_text(&kind)))) }
}

/// Which group of the request went to which provider: checked and not kept, as in the classic service.
fn check_mappings(value: &Value) -> Result<()> {
    let map = value.as_object().filter(|m| !m.is_empty()).ok_or_else(|| invalid(format_args!("{value} does not have enough properties")))?;
    for providers in map.values() {
        if body::uuids(providers)?.is_empty() {
            return Err(invalid("[] is too short"));
        }
    }
    Ok(())
}

fn amounts(value: &Value) -> Result<BTreeMap<String, i64>> {
    let out = body::by_class(value)?.map(|(class, n)| Ok((class.clone(), body::integer(n, 1, i64::MAX)?)));
    let out = out.collect::<Result<BTreeMap<_, _>>>()?;
    if out.is_empty() { Err(invalid("{} does not have enough properties")) } else { Ok(out) }
}

fn by_provider(value: &Value) -> Result<Amounts> {
    let map = value.as_object().ok_or_else(|| invalid(format_args!("{value} is not of type 'object'")))?;
    let mut out = Amounts::new();
    for (uuid, raw) in map {
        let uuid = body::dashed(uuid).filter(|_| uuid.len() == 36);
        let uuid = uuid.ok_or_else(|| invalid("a key of 'allocations' is not the uuid of a provider"))?;
        let raw = body::keys(raw, &["resources"], &["generation"])?;
        if let Some(generation) = raw.get("generation") {
            body::integer(generation, i64::MIN, i64::MAX)?;
        }
        out.insert(uuid, amounts(&raw["resources"])?);
    }
    Ok(out)
}

/// Before 1.12 the allocations are a list.
fn parse_list(version: Version, id: &str, value: &Value) -> Result<Change> {
    let owned = version >= Version::of("1.8");
    let required: &[&str] = if owned { &["allocations", "project_id", "user_id"] } else { &["allocations"] };
    let map = body::keys(value, required, &[])?;
    let list = map["allocations"].as_array().ok_or_else(|| invalid(format_args!("{} is not of type 'array'", map["allocations"])))?;
    let mut allocations = Amounts::new();
    for item in list {
        let item = body::keys(item, &["resource_provider", "resources"], &[])?;
        let provider = body::keys(&item["resource_provider"], &["uuid"], &[])?;
        allocations.insert(body::uuid(&provider["uuid"])?, amounts(&item["resources"])?);
    }
    if allocations.is_empty() {
        return Err(invalid("[] is too short"));
    }
    let name = |field: &str| map.get(field).map_or_else(|| Ok(NOBODY.to_owned()), |v| body::text(v, 1, 255));
    Ok(Change {
        consumer_id: id.to_owned(),
        project_id: name("project_id")?,
        user_id: name("user_id")?,
        consumer_type: None,
        generation: None,
        allocations,
    })
}

async fn set(call: Call) -> Result<Reply> {
    let given = call.param("consumer");
    let id = body::dashed(given).ok_or_else(|| Error::bad_request(format!("Malformed consumer_uuid: {}", body::clip_text(given))))?;
    let version = call.cx.version;
    let change = if version >= Version::of("1.12") { parse(version, &id, call.json(), false)? } else { parse_list(version, &id, call.json())? };
    call.transact(move |_, tx| replace(tx, std::slice::from_ref(&change))).await?;
    Ok(Reply::empty(204))
}

/// Changes of several consumers, of a body.
pub(crate) fn parse_many(version: Version, value: &Value) -> Result<Vec<Change>> {
    let map = value.as_object().ok_or_else(|| invalid(format_args!("{value} is not of type 'object'")))?;
    map.iter()
        .map(|(id, raw)| {
            let id = body::dashed(id).filter(|_| id.len() == 36).ok_or_else(|| invalid("a key is not the uuid of a consumer"))?;
            parse(version, &id, raw, true)
        })
        .collect()
}

async fn set_many(call: Call) -> Result<Reply> {
    let changes = parse_many(call.cx.version, call.json())?;
    if changes.is_empty() {
        return Err(invalid("{} does not have enough properties"));
    }
    call.transact(move |_, tx| replace(tx, &changes)).await?;
    Ok(Reply::empty(204))
}

async fn delete(call: Call) -> Result<Reply> {
    let id = consumer_id(&call);
    call.transact(move |_, tx| {
        let held = Consumer::load(tx, &id)?.ok_or_else(|| Error::not_found(format!("No allocations for consumer '{id}'")))?;
        let change = Change {
            consumer_id: id.clone(),
            project_id: held.project_id,
            user_id: held.user_id,
            consumer_type: None,
            generation: None,
            allocations: Amounts::new(),
        };
        replace(tx, &[change])
    })
    .await?;
    Ok(Reply::empty(204))
}
