//! Inventories: what a provider has of each resource class.
use crate::{
    rest,
    rows::{Inventory, Provider, has_class, int, load_provider, provider, stale},
    schema,
    standard::{CLASSES, is_symbol},
};
use api::{Call, Cx, Error, Map, Reply, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use store::Tx;

pub(crate) type Inventories = BTreeMap<String, Inventory>;

const LARGEST: i64 = i32::MAX as i64;
const LARGEST_RATIO: f64 = 3.402_82e38;
const GENERATION: &str = "resource_provider_generation";

/// Reads one inventory; `also` are keys of the body besides.
fn record(value: &Value, also: &[&str], required: &[&str]) -> Result<Inventory> {
    const KEYS: [&str; 7] = ["total", "reserved", "min_unit", "max_unit", "step_size", "allocation_ratio", GENERATION];
    let map = schema::any_object(value)?;
    if let Some(missing) = ["total"].iter().chain(required).find(|k| !map.contains_key(**k)) {
        return Err(schema::missing(missing));
    }
    schema::only(map, None, |key| KEYS.contains(&key) || also.contains(&key))?;
    map.get(GENERATION).map(generation).transpose()?;
    let number = |key: &str, default: i64, min: i64| {
        map.get(key).map_or(Ok(default), |v| schema::within(key, schema::int(v, min, LARGEST)))
    };
    Ok(Inventory {
        total: number("total", 1, 1)?,
        reserved: number("reserved", 0, 0)?,
        min_unit: number("min_unit", 1, 1)?,
        max_unit: number("max_unit", LARGEST, 1)?,
        step_size: number("step_size", 1, 1)?,
        allocation_ratio: match map.get("allocation_ratio") {
            Some(v) => schema::within("allocation_ratio", schema::number(v, LARGEST_RATIO))?,
            None => 1.0,
        },
    })
}

fn generation(value: &Value) -> Result<i64> {
    schema::int(value, i64::MIN, i64::MAX)
}

/// Reads `{"resource_provider_generation": 1, "inventories": {…}}`.
pub(crate) fn read_all(value: &Value) -> Result<(i64, Inventories)> {
    let map = schema::object(value, &[GENERATION, "inventories"], 2)?;
    let given = generation(&map[GENERATION])?;
    let all = schema::any_object(&map["inventories"])?;
    let inventories = all.iter().map(|(class, v)| match is_symbol(class) {
        true => Ok((class.clone(), record(v, &[], &[])?)),
        false => Err(Error::bad_request(format!("Unknown resource class in inventory: {}", no_class(class)))),
    });
    Ok((given, inventories.collect::<Result<Inventories>>()?))
}

/// Before 1.26 something must be left to give away.
fn check_capacity(cx: &Cx, provider: &str, class: &str, inventory: &Inventory) -> Result<(), String> {
    let (least, reason) = if rest::at(cx, 26) { (0, "greater than total") } else { (1, "greater than or equal to total") };
    if inventory.capacity() >= least {
        return Ok(());
    }
    Err(format!("Invalid inventory for '{class}' on resource provider '{provider}'. The reserved value is {reason}."))
}

pub(crate) fn no_class(name: &str) -> String {
    format!("No such resource class {name}.")
}

fn conflict() -> Error {
    stale("resource provider generation conflict")
}

fn one(inventory: &Inventory, provider: &Provider) -> Value {
    let mut out = json!(inventory);
    out[GENERATION] = provider.generation.into();
    out
}

fn all(provider: &Provider) -> Value {
    json!({ GENERATION: provider.generation, "inventories": provider.inventories })
}

pub(crate) fn list(call: &Call) -> Result<Reply> {
    let found = provider(&call.reader(), call.param("uuid"))?;
    Ok(rest::uncached(call, Reply::ok(all(&found)), found.modified()))
}

pub(crate) fn show(call: &Call) -> Result<Reply> {
    let (uuid, class) = (call.param("uuid"), call.param("resource_class"));
    let found = provider(&call.reader(), uuid)?;
    let inventory =
        found.inventories.get(class).ok_or_else(|| Error::not_found(format!("No inventory of class {class} for {uuid}")))?;
    Ok(rest::uncached(call, Reply::ok(one(inventory, &found)), found.modified()))
}

pub(crate) async fn create(call: Call) -> Result<Reply> {
    let (uuid, body) = (call.param("uuid").to_owned(), rest::body(&call)?);
    provider(&call.reader(), &uuid)?;
    let inventory = record(body, &["resource_class"], &["resource_class"])?;
    let class = schema::matching(&body["resource_class"], 255, schema::SYMBOL, is_symbol)?.to_owned();
    let key = class.clone();
    let changed = call
        .transact(move |cx, tx| {
            let refuse =
                |reason: String| Error::bad_request(format!("Unable to create inventory for resource provider {uuid}: {reason}"));
            let mut provider = load_provider(tx, &uuid)?;
            check_capacity(cx, &uuid, &class, &inventory).map_err(refuse)?;
            if !has_class(tx, &class) {
                return Err(refuse(no_class(&class)));
            }
            if provider.inventories.contains_key(&class) {
                return Err(stale(format!(
                    "Update conflict: there is an inventory of class {class} already; update it instead."
                )));
            }
            provider.inventories.insert(class.clone(), inventory.clone());
            provider.save(tx)?;
            Ok(provider)
        })
        .await?;
    let location = rest::location(&call.cx, &format!("/resource_providers/{}/inventories/{key}", changed.uuid));
    let body = one(&changed.inventories[&key], &changed);
    Ok(rest::uncached(&call, Reply::json(201, body), changed.modified()).header("location", location))
}

pub(crate) async fn update(call: Call) -> Result<Reply> {
    let (uuid, class) = (call.param("uuid").to_owned(), call.param("resource_class").to_owned());
    let body = rest::body(&call)?;
    provider(&call.reader(), &uuid)?;
    let inventory = record(body, &[], &[GENERATION])?;
    let given = body.as_object().and_then(|m: &Map| int(m, GENERATION));
    let key = class.clone();
    let changed = call
        .transact(move |cx, tx| {
            let mut provider = load_provider(tx, &uuid)?;
            if given != Some(provider.generation) {
                return Err(conflict());
            }
            check_capacity(cx, &uuid, &class, &inventory)
                .map_err(|e| Error::bad_request(format!("Unable to update inventory for resource provider {uuid}: {e}")))?;
            if !has_class(tx, &class) {
                return Err(Error::not_found(no_class(&class)));
            }
            let Some(known) = provider.inventories.get_mut(&class) else {
                return Err(Error::bad_request(format!(
                    "No inventory record with resource class for resource provider {uuid}: No inventory of class {class} found."
                )));
            };
            *known = inventory.clone();
            provider.save(tx)?;
            Ok(provider)
        })
        .await?;
    Ok(rest::uncached(&call, Reply::ok(one(&changed.inventories[&key], &changed)), changed.modified()))
}

/// Makes the inventories what is wanted. What is in use cannot go; it may become less than what is used.
pub(crate) fn assign(tx: &mut Tx<'_>, provider: &mut Provider, wanted: &Inventories) -> Result<(), Assign> {
    if let Some(class) = wanted.keys().find(|class| !has_class(tx, class)) {
        return Err(Assign::NoClass(no_class(class)));
    }
    let gone = provider.inventories.keys().filter(|class| !wanted.contains_key(*class));
    let mut busy: Vec<&str> = gone.filter(|class| provider.used(class) > 0).map(String::as_str).collect();
    if !busy.is_empty() {
        busy.sort_by_key(|class| CLASSES.iter().position(|c| c == class).unwrap_or(CLASSES.len()));
        return Err(Assign::InUse(format!(
            "Inventory for '{}' on resource provider '{}' in use.",
            busy.join(", "),
            provider.uuid
        )));
    }
    provider.inventories.clone_from(wanted);
    Ok(())
}

/// Why inventories cannot be what is wanted.
pub(crate) enum Assign {
    NoClass(String),
    InUse(String),
}

pub(crate) fn in_use(message: String) -> Error {
    Error::conflict(message).code("placement.inventory.inuse")
}

pub(crate) async fn replace(call: Call) -> Result<Reply> {
    let (uuid, body) = (call.param("uuid").to_owned(), rest::body(&call)?);
    provider(&call.reader(), &uuid)?;
    let (given, wanted) = read_all(body)?;
    let changed = call
        .transact(move |cx, tx| {
            let mut provider = load_provider(tx, &uuid)?;
            if given != provider.generation {
                return Err(conflict());
            }
            for (class, inventory) in &wanted {
                check_capacity(cx, &uuid, class, inventory)
                    .map_err(|e| Error::bad_request(format!("Unable to update inventory for resource provider {uuid}: {e}")))?;
            }
            assign(tx, &mut provider, &wanted).map_err(|e| match e {
                Assign::NoClass(e) => {
                    Error::bad_request(format!("Unknown resource class in inventory for resource provider {uuid}: {e}"))
                }
                Assign::InUse(e) => in_use(format!("update conflict: {e}")),
            })?;
            provider.save(tx)?;
            Ok(provider)
        })
        .await?;
    Ok(rest::uncached(&call, Reply::ok(all(&changed)), changed.modified()))
}

pub(crate) async fn clear(call: Call) -> Result<Reply> {
    let uuid = call.param("uuid").to_owned();
    call.transact(move |_, tx| {
        let mut provider = load_provider(tx, &uuid)?;
        assign(tx, &mut provider, &Inventories::new()).map_err(|e| match e {
            Assign::NoClass(e) | Assign::InUse(e) => in_use(e),
        })?;
        provider.save(tx)
    })
    .await?;
    Ok(Reply::empty(204))
}

pub(crate) async fn delete(call: Call) -> Result<Reply> {
    let (uuid, class) = (call.param("uuid").to_owned(), call.param("resource_class").to_owned());
    call.transact(move |_, tx| {
        let mut provider = load_provider(tx, &uuid)?;
        if provider.inventories.contains_key(&class) && provider.used(&class) > 0 {
            return Err(stale(format!(
                "Unable to delete inventory of class {class}: Inventory for '{class}' on resource provider '{uuid}' in use."
            )));
        }
        if provider.inventories.remove(&class).is_none() {
            let reason =
                if has_class(tx, &class) { format!("No inventory of class {class} found for delete") } else { no_class(&class) };
            return Err(Error::not_found(format!("No inventory of class {class} found for delete: {reason}")));
        }
        provider.save(tx)
    })
    .await?;
    Ok(Reply::empty(204))
}
