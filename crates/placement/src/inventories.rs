//! Inventories of a provider.
use crate::{
    answer::{CONCURRENT_UPDATE, INVENTORY_IN_USE, dated, invalid, location, ok, service, since},
    body,
    provider::{Inventory, MAX, Provider},
};
use api::{Call, Reply, Route};
use resource::{Error, Map, Result, Tx};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const FIELDS: [&str; 6] = ["total", "reserved", "min_unit", "max_unit", "step_size", "allocation_ratio"];
const RATIO_MAX: f64 = 3.40282e+38;

pub(crate) fn routes() -> Vec<Route> {
    const ALL: &str = "/resource_providers/{uuid}/inventories";
    const ONE: &str = "/resource_providers/{uuid}/inventories/{class}";
    vec![
        Route::new("GET", ALL, service("placement:resource_providers:inventories:list"), list),
        Route::new("POST", ALL, service("placement:resource_providers:inventories:create"), create),
        Route::new("PUT", ALL, service("placement:resource_providers:inventories:update"), set_all),
        Route::new("DELETE", ALL, service("placement:resource_providers:inventories:delete"), delete_all).since("1.5"),
        Route::new("GET", ONE, service("placement:resource_providers:inventories:show"), show),
        Route::new("PUT", ONE, service("placement:resource_providers:inventories:update"), update),
        Route::new("DELETE", ONE, service("placement:resource_providers:inventories:delete"), delete),
    ]
}

fn view(inventory: &Inventory, generation: Option<i64>) -> Value {
    let mut out = json!(inventory);
    if let (Some(generation), Some(map)) = (generation, out.as_object_mut()) {
        map.insert("resource_provider_generation".into(), generation.into());
    }
    out
}

fn view_all(provider: &Provider) -> Value {
    let all: Map = provider.inventories.iter().map(|(class, i)| (class.clone(), view(i, None))).collect();
    json!({"resource_provider_generation": provider.generation, "inventories": all})
}

async fn list(call: Call) -> Result<Reply> {
    let provider = Provider::read(&call.reader(), call.param("uuid"))?;
    Ok(ok(&call, view_all(&provider), Some(provider.changed_at())))
}

async fn show(call: Call) -> Result<Reply> {
    let (uuid, class) = (call.param("uuid"), call.param("class"));
    let provider = Provider::read(&call.reader(), uuid)?;
    let inventory = provider.inventories.get(class);
    let inventory = inventory.ok_or_else(|| Error::not_found(format!("No inventory of class {class} for {uuid}")))?;
    Ok(ok(&call, view(inventory, Some(provider.generation)), Some(provider.changed_at())))
}

/// One inventory of a body.
pub(crate) fn parse(body: &Map) -> Result<Inventory> {
    let number = |field: &str, min: i64, default: i64| body.get(field).map_or(Ok(default), |v| body::integer(v, min, MAX));
    let ratio = body.get("allocation_ratio").map_or(Ok(1.0), |v| {
        let ratio = v.as_f64().ok_or_else(|| invalid(format_args!("{v} is not of type 'number'")))?;
        if ratio > RATIO_MAX { Err(invalid(format_args!("{ratio} is greater than the maximum of {RATIO_MAX}"))) } else { Ok(ratio) }
    })?;
    Ok(Inventory {
        total: number("total", 1, 0)?,
        reserved: number("reserved", 0, 0)?,
        min_unit: number("min_unit", 1, 1)?,
        max_unit: number("max_unit", 1, MAX)?,
        step_size: number("step_size", 1, 1)?,
        allocation_ratio: ratio,
    })
}

/// Inventories by class, of a body.
pub(crate) fn parse_all(value: &Value) -> Result<BTreeMap<String, Inventory>> {
    body::by_class(value)?.map(|(class, raw)| Ok((class.clone(), parse(body::keys(raw, &["total"], &FIELDS)?)?))).collect()
}

/// From 1.26 all of an inventory may be reserved.
pub(crate) fn check_capacity(all_reserved: bool, uuid: &str, class: &str, inventory: &Inventory, doing: &str) -> Result<()> {
    let capacity = inventory.capacity();
    if capacity > 0 || (capacity == 0 && all_reserved) {
        return Ok(());
    }
    let than = if all_reserved { "greater than" } else { "greater than or equal to" };
    Err(Error::bad_request(format!(
        "Unable to {doing} inventory for resource provider {uuid}: Invalid inventory for '{class}' on resource provider '{uuid}'. The reserved value is {than} total."
    )))
}

/// Puts these inventories in the place of all. Classes in use must stay.
pub(crate) fn set(tx: &mut Tx<'_>, provider: &mut Provider, inventories: &BTreeMap<String, Inventory>) -> Result<()> {
    for class in inventories.keys() {
        crate::classes::check(tx, class).map_err(|e| {
            Error::bad_request(format!("Unknown resource class in inventory for resource provider {}: {}", provider.uuid, e.message))
        })?;
    }
    let gone = provider.in_use(provider.inventories.keys().filter(|c| !inventories.contains_key(*c)));
    if !gone.is_empty() {
        let (classes, uuid) = (gone.join(", "), &provider.uuid);
        let text = format!("update conflict: Inventory for '{classes}' on resource provider '{uuid}' in use.");
        return Err(Error::conflict(text).code(INVENTORY_IN_USE));
    }
    provider.inventories.clone_from(inventories);
    provider.generation += 1;
    provider.save(tx)
}

async fn set_all(call: Call) -> Result<Reply> {
    let uuid = call.param("uuid").to_owned();
    Provider::read(&call.reader(), &uuid)?;
    let body = body::object(&call, &["resource_provider_generation", "inventories"], &[])?;
    let generation = body::integer(&body["resource_provider_generation"], i64::MIN, i64::MAX)?;
    let inventories = parse_all(&body["inventories"])?;
    let all_reserved = since(&call, "1.26");
    let provider = call
        .transact(move |_, tx| {
            let mut provider = Provider::existing(tx, &uuid)?;
            provider.check_generation(generation, "resource provider generation conflict")?;
            for (class, inventory) in &inventories {
                check_capacity(all_reserved, &uuid, class, inventory, "update")?;
            }
            set(tx, &mut provider, &inventories)?;
            Ok(provider)
        })
        .await?;
    Ok(ok(&call, view_all(&provider), None))
}

async fn delete_all(call: Call) -> Result<Reply> {
    let uuid = call.param("uuid").to_owned();
    call.transact(move |_, tx| {
        let mut provider = Provider::existing(tx, &uuid)?;
        set(tx, &mut provider, &BTreeMap::new())
    })
    .await?;
    Ok(Reply::empty(204))
}

async fn create(call: Call) -> Result<Reply> {
    let uuid = call.param("uuid").to_owned();
    Provider::read(&call.reader(), &uuid)?;
    let mut optional = FIELDS.to_vec();
    optional.push("resource_provider_generation");
    let body = body::object(&call, &["resource_class", "total"], &optional)?;
    let class = body::text(&body["resource_class"], 1, 255)?;
    if !body::is_symbol(&class) {
        return Err(invalid(format_args!("'{class}' does not match '^[A-Z0-9_]+$'")));
    }
    let inventory = parse(body)?;
    check_capacity(since(&call, "1.26"), &uuid, &class, &inventory, "create")?;
    let place = location(&call, &format!("/resource_providers/{uuid}/inventories/{class}"));
    let provider = call
        .transact({
            let (class, inventory) = (class.clone(), inventory.clone());
            move |_, tx| {
                let mut provider = Provider::existing(tx, &uuid)?;
                crate::classes::check(tx, &class).map_err(|e| {
                    Error::bad_request(format!("Unable to create inventory for resource provider {uuid}: {}", e.message))
                })?;
                if provider.inventories.contains_key(&class) {
                    return Err(Error::conflict(format!("Update conflict: there is an inventory of {class} already.")).code(CONCURRENT_UPDATE));
                }
                provider.inventories.insert(class.clone(), inventory.clone());
                provider.generation += 1;
                provider.save(tx)?;
                Ok(provider)
            }
        })
        .await?;
    Ok(dated(&call, Reply::json(201, view(&inventory, Some(provider.generation))), None).header("location", place))
}

async fn update(call: Call) -> Result<Reply> {
    let (uuid, class) = (call.param("uuid").to_owned(), call.param("class").to_owned());
    Provider::read(&call.reader(), &uuid)?;
    let body = body::object(&call, &["total", "resource_provider_generation"], &FIELDS)?;
    let generation = body::integer(&body["resource_provider_generation"], i64::MIN, i64::MAX)?;
    let inventory = parse(body)?;
    let all_reserved = since(&call, "1.26");
    let shown = inventory.clone();
    let provider = call
        .transact(move |_, tx| {
            let mut provider = Provider::existing(tx, &uuid)?;
            provider.check_generation(generation, "resource provider generation conflict")?;
            check_capacity(all_reserved, &uuid, &class, &inventory, "update")?;
            if !provider.inventories.contains_key(&class) {
                return Err(Error::bad_request(format!("No inventory record with resource class for resource provider {uuid}: No inventory of class {class} found.")));
            }
            provider.inventories.insert(class.clone(), inventory.clone());
            provider.generation += 1;
            provider.save(tx)?;
            Ok(provider)
        })
        .await?;
    Ok(ok(&call, view(&shown, Some(provider.generation)), None))
}

async fn delete(call: Call) -> Result<Reply> {
    let (uuid, class) = (call.param("uuid").to_owned(), call.param("class").to_owned());
    call.transact(move |_, tx| {
        let mut provider = Provider::existing(tx, &uuid)?;
        if !provider.inventories.contains_key(&class) {
            return Err(Error::not_found(format!("No inventory of class {class} found for delete: No inventory of class {class} found.")));
        }
        if provider.used(&class) > 0 {
            let text = format!("Unable to delete inventory of class {class}: Inventory for '{class}' on resource provider '{uuid}' in use.");
            return Err(Error::conflict(text).code(CONCURRENT_UPDATE));
        }
        provider.inventories.remove(&class);
        provider.generation += 1;
        provider.save(tx)
    })
    .await?;
    Ok(Reply::empty(204))
}
