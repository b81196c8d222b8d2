//! Resource classes: kinds of things that providers have amounts of. Standard ones are there; custom ones are made.
use crate::{
    inventories::no_class,
    rest,
    rows::{ALLOCATIONS, CLASSES, Consumer, PROVIDERS, Provider, knows_class, stamp},
    schema,
    standard::{self, is_custom},
};
use api::{Call, Error, Reply, Result};
use serde_json::{Value, json};
use store::Tx;

const CUSTOM: &str = "^CUSTOM_[A-Z0-9_]+$";

fn view(name: &str) -> Value {
    json!({ "name": name, "links": [{"rel": "self", "href": rest::path(&format!("/resource_classes/{name}"))}] })
}

fn location(call: &Call, name: &str) -> String {
    rest::location(&call.cx, &format!("/resource_classes/{name}"))
}

pub(crate) fn list(call: &Call) -> Result<Reply> {
    let reader = call.reader();
    let modified = reader.all(&CLASSES).filter_map(|r| stamp(r)).max();
    let names = standard::CLASSES.into_iter().chain(reader.all(&CLASSES).map(|r| r.id()));
    let body = json!({ "resource_classes": names.map(view).collect::<Vec<Value>>() });
    Ok(rest::uncached(call, Reply::ok(body), modified))
}

pub(crate) fn show(call: &Call) -> Result<Reply> {
    let (name, reader) = (call.param("name"), call.reader());
    if !knows_class(&reader, name) {
        return Err(Error::not_found(no_class(name)));
    }
    let modified = reader.get(&CLASSES, name).and_then(|r| stamp(&r));
    Ok(rest::uncached(call, Reply::ok(view(name)), modified))
}

fn name_of(body: &Value) -> Result<String> {
    let map = schema::object(body, &["name"], 1)?;
    schema::matching(&map["name"], 255, CUSTOM, is_custom).map(str::to_owned)
}

pub(crate) async fn create(call: Call) -> Result<Reply> {
    let name = name_of(rest::body(&call)?)?;
    let location = location(&call, &name);
    call.transact(move |_, tx| {
        let row = json!({ "created_at": tx.now.0 });
        let there = |_| Error::conflict(format!("Conflicting resource class already exists: {name}"));
        tx.claim(&CLASSES, &name, row).map_err(there)
    })
    .await?;
    Ok(Reply::empty(201).header("location", location))
}

/// From 1.7 on: makes it unless it is there.
pub(crate) async fn ensure(call: Call) -> Result<Reply> {
    let name = call.param("name").to_owned();
    schema::matching(&name.as_str().into(), 255, CUSTOM, is_custom)?;
    let location = location(&call, &name);
    let status = call
        .transact(move |_, tx| {
            let row = json!({ "created_at": tx.now.0 });
            Ok(if tx.claim(&CLASSES, &name, row).is_ok() { 201 } else { 204 })
        })
        .await?;
    Ok(Reply::empty(status).header("location", location))
}

/// All providers with what they have and give of the class; one that is written meanwhile is noticed.
fn holders(tx: &mut Tx<'_>, class: &str) -> Result<Vec<Provider>> {
    // No index reaches the keys of an object: `children` is called for its guard of the table only.
    tx.children(&PROVIDERS, "name", "");
    let all = tx.all(&PROVIDERS);
    let has = |field: &Value| field.get(class).is_some();
    all.iter().filter(|r| has(r.field("inventories")) || has(r.field("used"))).map(|r| Provider::from_row(r)).collect()
}

/// Up to 1.6: gives it another name, everywhere.
pub(crate) async fn rename(call: Call) -> Result<Reply> {
    let old = call.param("name").to_owned();
    let new = name_of(rest::body(&call)?)?;
    let shown = view(&new);
    call.transact(move |_, tx| {
        if standard::is_class(&old) {
            return Err(Error::bad_request(format!("Cannot update standard resource class {old}")));
        }
        let Some(row) = tx.get(&CLASSES, &old) else { return Err(Error::not_found(no_class(&old))) };
        if new == old {
            return Ok(());
        }
        let renamed = json!({ "created_at": row.field("created_at"), "updated_at": tx.now.0 });
        tx.claim(&CLASSES, &new, renamed).map_err(|_| Error::conflict(format!("Resource class already exists: {new}")))?;
        tx.delete(&CLASSES, &old);
        for mut provider in holders(tx, &old)? {
            if let Some(inventory) = provider.inventories.remove(&old) {
                provider.inventories.insert(new.clone(), inventory);
            }
            if let Some(used) = provider.used.remove(&old) {
                provider.used.insert(new.clone(), used);
            }
            provider.put(tx)?;
        }
        tx.children(&ALLOCATIONS, "project", "");
        for row in tx.all(&ALLOCATIONS) {
            let mut consumer = Consumer::from_row(&row)?;
            let mut found = false;
            for amounts in consumer.allocations.values_mut() {
                if let Some(amount) = amounts.remove(&old) {
                    amounts.insert(new.clone(), amount);
                    found = true;
                }
            }
            if found {
                consumer.put(tx)?;
            }
        }
        Ok(())
    })
    .await?;
    Ok(Reply::ok(shown))
}

pub(crate) async fn delete(call: Call) -> Result<Reply> {
    let name = call.param("name").to_owned();
    call.transact(move |_, tx| {
        if standard::is_class(&name) {
            return Err(Error::bad_request(format!(
                "Error in delete resource class: Cannot delete standard resource class {name}."
            )));
        }
        if tx.get(&CLASSES, &name).is_none() {
            return Err(Error::not_found(no_class(&name)));
        }
        if !holders(tx, &name)?.is_empty() {
            return Err(Error::conflict(format!(
                "Error in delete resource class: Cannot delete resource class {name}. Class is in use in inventory."
            )));
        }
        tx.delete(&CLASSES, &name);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}
