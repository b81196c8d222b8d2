//! Allocations: what consumers (servers, mostly) hold of providers.
use crate::{
    ledger::{self, Claim, Expected, Ledger},
    providers::dashed,
    rest,
    rows::{ALLOCATIONS, Amounts, Consumer, PROVIDERS, provider},
    schema,
    standard::is_symbol,
    usages::UNKNOWN,
};
use api::{Call, Cx, Error, Map, Reply, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Project and user of consumers that were made before 1.8, when none were said.
const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

pub(crate) fn of_consumer(call: &Call) -> Result<Reply> {
    let reader = call.reader();
    let Some(row) = reader.get(&ALLOCATIONS, call.param("consumer_uuid")) else {
        return Ok(rest::uncached(call, Reply::ok(json!({ "allocations": {} })), None));
    };
    let consumer = Consumer::from_row(&row)?;
    let generation = |uuid: &str| reader.get(&PROVIDERS, uuid).and_then(|r| r.field("generation").as_i64()).unwrap_or(0);
    let held = consumer.allocations.iter();
    let held: Map =
        held.map(|(uuid, amounts)| (uuid.clone(), json!({ "generation": generation(uuid), "resources": amounts }))).collect();
    let mut out = json!({ "allocations": held });
    let mut show = |since: u16, key: &str, value: Value| {
        if rest::at(&call.cx, since) {
            out[key] = value;
        }
    };
    show(12, "project_id", json!(consumer.project_id));
    show(12, "user_id", json!(consumer.user_id));
    show(28, "consumer_generation", json!(consumer.consumer_generation));
    show(38, "consumer_type", consumer.consumer_type.as_deref().unwrap_or(UNKNOWN).into());
    Ok(rest::uncached(call, Reply::ok(out), consumer.updated_at))
}

pub(crate) fn of_provider(call: &Call) -> Result<Reply> {
    let (uuid, reader) = (call.param("uuid"), call.reader());
    let found = provider(&reader, uuid)?;
    let (mut out, mut modified) = (Map::new(), None);
    // No index reaches the keys of an object, and the compute service writes no list of providers: look at all.
    for row in reader.all(&ALLOCATIONS).filter(|r| r.field("allocations").get(uuid).is_some()) {
        let consumer = Consumer::from_row(row)?;
        let mut view = json!({ "resources": consumer.allocations.get(uuid) });
        if rest::at(&call.cx, 28) {
            view["consumer_generation"] = consumer.consumer_generation.into();
        }
        modified = modified.max(consumer.updated_at);
        out.insert(consumer.consumer_id, view);
    }
    let body = json!({ "allocations": out, "resource_provider_generation": found.generation });
    Ok(rest::uncached(call, Reply::ok(body), modified))
}

fn amounts(value: &Value) -> Result<Amounts> {
    let map = schema::any_object(value)?;
    schema::some(map)?;
    schema::only(map, Some(schema::SYMBOL), is_symbol)?;
    map.iter().map(|(class, v)| Ok((class.clone(), schema::int(v, 1, i64::MAX)?))).collect()
}

/// `{provider: {"resources": {…}}}`, from 1.12 on.
fn by_provider(value: &Value, may_be_empty: bool) -> Result<BTreeMap<String, Amounts>> {
    let map = schema::any_object(value)?;
    if !may_be_empty {
        schema::some(map)?;
    }
    schema::only(map, Some(schema::UUID_KEY), schema::is_uuid_key)?;
    let one = |(uuid, v): (&String, &Value)| {
        let given = schema::object(v, &["resources", "generation"], 1)?;
        given.get("generation").map(|g| schema::int(g, i64::MIN, i64::MAX)).transpose()?;
        Ok((uuid.clone(), amounts(&given["resources"])?))
    };
    map.iter().map(one).collect()
}

/// `[{"resource_provider": {"uuid": …}, "resources": {…}}]`, up to 1.11.
fn as_list(value: &Value) -> Result<BTreeMap<String, Amounts>> {
    let one = |v: &Value| {
        let given = schema::object(v, &["resource_provider", "resources"], 2)?;
        let provider = schema::object(&given["resource_provider"], &["uuid"], 1)?;
        Ok((schema::uuid(&provider["uuid"])?.to_owned(), amounts(&given["resources"])?))
    };
    schema::some_list(value)?.iter().map(one).collect()
}

/// Which provider answers which group of a request: checked and not kept, as upstream does.
fn check_mappings(value: &Value) -> Result<()> {
    let map = schema::any_object(value)?;
    schema::some(map)?;
    let named = |key: &str| key.bytes().any(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    for list in map.iter().filter(|(key, _)| named(key)).map(|(_, v)| v) {
        schema::some_list(list)?.iter().try_for_each(|v| schema::uuid(v).map(|_| ()))?;
    }
    Ok(())
}

/// Reads what one consumer shall hold. `many` is the form of `POST /allocations` and the reshaper.
pub(crate) fn claim(cx: &Cx, consumer: &str, body: &Value, many: bool) -> Result<Claim> {
    let dict = many || rest::at(cx, 12);
    let mut keys = vec!["allocations"];
    keys.extend_from_slice(if rest::at(cx, 8) { &["project_id", "user_id"] } else { &[] });
    keys.extend(rest::at(cx, 28).then_some("consumer_generation"));
    keys.extend(rest::at(cx, 38).then_some("consumer_type"));
    let required = keys.len();
    keys.extend(rest::at(cx, 34).then_some("mappings"));
    let map = schema::object(body, &keys, required)?;
    let allocations = match dict {
        true => by_provider(&map["allocations"], many || rest::at(cx, 28))?,
        false => as_list(&map["allocations"])?,
    };
    let owner = |key: &str| map.get(key).map_or(Ok(NOBODY), |v| schema::text(v, 1, 255)).map(str::to_owned);
    let generation = match map.get("consumer_generation") {
        None => Expected::Any,
        Some(Value::Null) => Expected::New,
        Some(v) => Expected::At(schema::int(v, i64::MIN, i64::MAX)?),
    };
    map.get("mappings").map(check_mappings).transpose()?;
    Ok(Claim {
        consumer: consumer.to_owned(),
        project_id: owner("project_id")?,
        user_id: owner("user_id")?,
        consumer_type: map.get("consumer_type").map(ledger::consumer_type).transpose()?,
        generation,
        allocations,
    })
}

/// Reads `{consumer: {…}}`.
pub(crate) fn claims(cx: &Cx, body: &Value) -> Result<Vec<Claim>> {
    let map = schema::any_object(body)?;
    schema::only(map, Some(schema::UUID_KEY), schema::is_uuid_key)?;
    map.iter().map(|(consumer, v)| claim(cx, consumer, v, true)).collect()
}

pub(crate) async fn set(call: Call) -> Result<Reply> {
    let uuid = call.param("consumer_uuid");
    if !base::id::is_uuid(uuid) {
        return Err(Error::bad_request(format!("Malformed consumer_uuid: {uuid}")));
    }
    let claim = claim(&call.cx, &dashed(uuid), rest::body(&call)?, false)?;
    call.transact(move |_, tx| {
        let mut ledger = Ledger::default();
        ledger.replace(tx, std::slice::from_ref(&claim), |claim, class| {
            ledger::unknown_class(&format!("Unable to allocate inventory for consumer {}:", claim.consumer), class)
        })?;
        ledger.save(tx)
    })
    .await?;
    Ok(Reply::empty(204))
}

pub(crate) async fn set_many(call: Call) -> Result<Reply> {
    if !rest::at(&call.cx, 13) {
        return Err(Error::not_found("The resource could not be found."));
    }
    let body = rest::body(&call)?;
    schema::some(schema::any_object(body)?)?;
    let claims = claims(&call.cx, body)?;
    call.transact(move |_, tx| {
        let mut ledger = Ledger::default();
        ledger.replace(tx, &claims, |_, class| ledger::unknown_class("Unable to allocate inventory", class))?;
        ledger.save(tx)
    })
    .await?;
    Ok(Reply::empty(204))
}

pub(crate) async fn delete(call: Call) -> Result<Reply> {
    let uuid = call.param("consumer_uuid").to_owned();
    call.transact(move |_, tx| {
        let mut ledger = Ledger::default();
        if !ledger.release(tx, &uuid)? {
            return Err(Error::not_found(format!("No allocations for consumer '{uuid}'")));
        }
        ledger.save(tx)
    })
    .await?;
    Ok(Reply::empty(204))
}
