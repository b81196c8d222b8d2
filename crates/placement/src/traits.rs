//! Traits: the standard ones of os-traits and custom ones, and those of a provider.
use crate::{
    answer::{dated, invalid, location, ok, service},
    body,
    provider::{PROVIDERS, Provider},
    query,
};
use api::{Call, Reply, Route};
use base::Timestamp;
use resource::{Error, Reader, Result, Tx};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};
use store::Table;

/// Custom traits by name.
pub(crate) static TRAITS: Table = Table { name: "placement/traits", indexes: &[] };

static STANDARD: LazyLock<BTreeSet<&'static str>> = LazyLock::new(|| include_str!("standard_traits.txt").lines().collect());

pub(crate) fn routes() -> Vec<Route> {
    const ONE: &str = "/traits/{name}";
    const OF: &str = "/resource_providers/{uuid}/traits";
    vec![
        Route::new("GET", "/traits", service("placement:traits:list"), list).since("1.6"),
        Route::new("GET", ONE, service("placement:traits:show"), show).since("1.6"),
        Route::new("PUT", ONE, service("placement:traits:update"), put).since("1.6"),
        Route::new("DELETE", ONE, service("placement:traits:delete"), delete).since("1.6"),
        Route::new("GET", OF, service("placement:resource_providers:traits:list"), of_provider).since("1.6"),
        Route::new("PUT", OF, service("placement:resource_providers:traits:update"), set_of_provider).since("1.6"),
        Route::new("DELETE", OF, service("placement:resource_providers:traits:delete"), clear_of_provider).since("1.6"),
    ]
}

fn no_such<'a>(names: impl Iterator<Item = &'a str>) -> Error {
    Error::not_found(format!("No such trait(s): {}.", names.collect::<Vec<_>>().join(", ")))
}

/// Fails when one of these traits does not exist.
pub(crate) fn check_read(reader: &Reader<'_>, names: BTreeSet<&str>) -> Result<()> {
    let unknown: Vec<&str> = names.into_iter().filter(|n| !STANDARD.contains(n) && reader.get(&TRAITS, n).is_none()).collect();
    if unknown.is_empty() { Ok(()) } else { Err(no_such(unknown.into_iter())) }
}

async fn list(call: Call) -> Result<Reply> {
    query::only(&call, &|key| matches!(key, "name" | "associated"))?;
    let reader = call.reader();
    let mut all: BTreeMap<String, Option<Timestamp>> = STANDARD.iter().map(|n| ((*n).to_owned(), None)).collect();
    all.extend(reader.all(&TRAITS).map(|r| (r.id().to_owned(), r.field("created_at").as_i64().map(Timestamp))));
    if let Some(filter) = query::last(&call, "name") {
        let (op, value) = filter.split_once(':').ok_or_else(|| {
            Error::bad_request(format!(
                "Badly formatted name parameter. Expected name query string parameter in form: ?name=[in|startswith]:[name1,name2|prefix]. Got: \"{}\"",
                body::clip_text(filter)
            ))
        })?;
        match op {
            "in" => all.retain(|name, _| value.split(',').any(|v| v == name)),
            "startswith" => all.retain(|name, _| name.starts_with(value)),
            _ => {}
        }
    }
    match query::last(&call, "associated").map(str::to_ascii_lowercase).as_deref() {
        None => {}
        Some(flag @ ("true" | "false")) => {
            let used: BTreeSet<String> = reader
                .all(&PROVIDERS)
                .flat_map(|r| r.field("traits").as_array().into_iter().flatten().filter_map(|t| t.as_str().map(str::to_owned)).collect::<Vec<_>>())
                .collect();
            all.retain(|name, _| used.contains(name) == (flag == "true"));
        }
        Some(_) => return Err(Error::bad_request("The query parameter \"associated\" only accepts \"true\" or \"false\"")),
    }
    let newest = all.values().flatten().max().copied();
    Ok(ok(&call, json!({"traits": all.keys().collect::<Vec<_>>()}), newest))
}

async fn show(call: Call) -> Result<Reply> {
    let name = call.param("name");
    let reader = call.reader();
    check_read(&reader, BTreeSet::from([name]))?;
    let at = reader.get(&TRAITS, name).and_then(|r| r.field("created_at").as_i64()).map(Timestamp);
    Ok(dated(&call, Reply::empty(204), at))
}

async fn put(call: Call) -> Result<Reply> {
    let name = call.param("name").to_owned();
    if !body::is_custom(&name) {
        return Err(Error::bad_request(
            "The trait is invalid. A valid trait must be no longer than 255 characters, start with the prefix \"CUSTOM_\" and use following characters: \"A\"-\"Z\", \"0\"-\"9\" and \"_\"",
        ));
    }
    let place = location(&call, &format!("/traits/{name}"));
    let made = call
        .transact(move |_, tx| {
            let row = json!({"v": 1, "id": name, "created_at": tx.now.0});
            Ok(tx.claim(&TRAITS, &name, row).is_ok())
        })
        .await?;
    Ok(dated(&call, Reply::empty(if made { 201 } else { 204 }), None).header("location", place))
}

async fn delete(call: Call) -> Result<Reply> {
    let name = call.param("name").to_owned();
    call.transact(move |_, tx| {
        if STANDARD.contains(name.as_str()) {
            return Err(Error::bad_request(format!("Cannot delete standard trait {name}.")));
        }
        if tx.get(&TRAITS, &name).is_none() {
            return Err(no_such(std::iter::once(name.as_str())));
        }
        let used = tx.all(&PROVIDERS).iter().any(|r| r.field("traits").as_array().is_some_and(|t| t.iter().any(|t| *t == *name)));
        if used {
            return Err(Error::conflict(format!("The trait {name} is in use by a resource provider.")));
        }
        tx.delete(&TRAITS, &name);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

fn view(provider: &Provider) -> serde_json::Value {
    json!({"traits": provider.traits, "resource_provider_generation": provider.generation})
}

async fn of_provider(call: Call) -> Result<Reply> {
    let provider = Provider::read(&call.reader(), call.param("uuid"))?;
    Ok(ok(&call, view(&provider), Some(provider.changed_at())))
}

fn replace(tx: &mut Tx<'_>, provider: &mut Provider, traits: BTreeSet<String>) -> Result<()> {
    if provider.traits == traits {
        return Ok(());
    }
    provider.traits = traits;
    provider.generation += 1;
    provider.save(tx)
}

async fn set_of_provider(call: Call) -> Result<Reply> {
    let uuid = call.param("uuid").to_owned();
    let body = body::object(&call, &["traits", "resource_provider_generation"], &[])?;
    let generation = body::integer(&body["resource_provider_generation"], i64::MIN, i64::MAX)?;
    let list = body["traits"].as_array().ok_or_else(|| invalid(format_args!("{} is not of type 'array'", body["traits"])))?;
    let traits = list.iter().map(|t| body::text(t, 1, 255)).collect::<Result<BTreeSet<String>>>()?;
    let provider = call
        .transact(move |_, tx| {
            let mut provider = Provider::existing(tx, &uuid)?;
            let text = "Resource provider's generation already changed. Please update the generation and try again.";
            provider.check_generation(generation, text)?;
            let mut unknown = Vec::new();
            for name in &traits {
                // A custom trait is compared at the commit: it must not go meanwhile.
                if !STANDARD.contains(name.as_str()) && tx.get(&TRAITS, name).is_none() {
                    unknown.push(name.as_str());
                }
            }
            if !unknown.is_empty() {
                return Err(Error::bad_request(format!("No such trait {}", unknown.join(", "))));
            }
            replace(tx, &mut provider, traits.clone())?;
            Ok(provider)
        })
        .await?;
    Ok(ok(&call, view(&provider), None))
}

async fn clear_of_provider(call: Call) -> Result<Reply> {
    let uuid = call.param("uuid").to_owned();
    call.transact(move |_, tx| {
        let mut provider = Provider::existing(tx, &uuid)?;
        replace(tx, &mut provider, BTreeSet::new())
    })
    .await?;
    Ok(Reply::empty(204))
}
