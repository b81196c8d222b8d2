//! Traits: what can be said of providers. Standard ones are there; custom ones are made.
use crate::{
    query, rest,
    rows::{PROVIDERS, Provider, TRAITS, has_trait, load_provider, provider, stale, stamp},
    schema, standard,
};
use api::{Call, Error, Reply, Result};
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn unknown(name: &str) -> Error {
    Error::not_found(format!("No such trait(s): {name}."))
}

/// `in:A,B` or `startswith:A`.
enum Names {
    All,
    In(BTreeSet<String>),
    Prefix(String),
}

impl Names {
    fn read(text: Option<&str>) -> Result<Self> {
        let Some(text) = text else { return Ok(Self::All) };
        match text.split_once(':') {
            Some(("in", names)) => Ok(Self::In(names.split(',').map(str::to_owned).collect())),
            Some(("startswith", prefix)) => Ok(Self::Prefix(prefix.to_owned())),
            // Upstream ignores other operators.
            Some(_) => Ok(Self::All),
            None => Err(Error::bad_request(format!(
                "Badly formatted name parameter. Expected name query string parameter in form: ?name=[in|startswith]:[name1,name2|prefix]. Got: \"{text}\""
            ))),
        }
    }
    fn admit(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::In(names) => names.contains(name),
            Self::Prefix(prefix) => name.starts_with(prefix.as_str()),
        }
    }
}

pub(crate) fn list(call: &Call) -> Result<Reply> {
    let (cx, reader) = (&call.cx, call.reader());
    query::check_keys(cx, None, |key| matches!(key, "name" | "associated"))?;
    let names = Names::read(query::last(cx, "name"))?;
    let associated = match query::last(cx, "associated").map(str::to_ascii_lowercase).as_deref() {
        None => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) => return Err(Error::bad_request("The query parameter \"associated\" only accepts \"true\" or \"false\"")),
    };
    let custom = reader.all(&TRAITS);
    let modified = custom.filter_map(|r| stamp(r)).max();
    let known = standard::TRAITS.iter().copied().chain(reader.all(&TRAITS).map(|r| r.id()));
    let wanted = known
        .filter(|name| names.admit(name))
        .filter(|name| associated.is_none_or(|a| a != reader.find(&PROVIDERS, "trait", name).is_empty()));
    let shown: Vec<&str> = wanted.collect();
    let body = json!({ "traits": shown });
    Ok(rest::uncached(call, Reply::ok(body), modified))
}

pub(crate) fn show(call: &Call) -> Result<Reply> {
    let name = call.param("name");
    let reader = call.reader();
    let modified = match reader.get(&TRAITS, name) {
        Some(row) => stamp(&row),
        None if standard::is_trait(name) => None,
        None => return Err(unknown(name)),
    };
    Ok(rest::uncached(call, Reply::empty(204), modified))
}

pub(crate) async fn ensure(call: Call) -> Result<Reply> {
    let name = call.param("name").to_owned();
    if !standard::is_custom(&name) {
        return Err(Error::bad_request(
            "The trait is invalid. A valid trait must be no longer than 255 characters, start with the prefix \"CUSTOM_\" and use following characters: \"A\"-\"Z\", \"0\"-\"9\" and \"_\"",
        ));
    }
    let location = rest::location(&call.cx, &format!("/traits/{name}"));
    let (status, made) = call
        .transact(move |_, tx| {
            let row = json!({ "created_at": tx.now.0 });
            Ok(match tx.claim(&TRAITS, &name, row) {
                Ok(()) => (201, Some(tx.now.0)),
                Err(there) => (204, stamp(&there)),
            })
        })
        .await?;
    Ok(rest::uncached(&call, Reply::empty(status), made).header("location", location))
}

pub(crate) async fn delete(call: Call) -> Result<Reply> {
    let name = call.param("name").to_owned();
    if standard::is_trait(&name) {
        return Err(Error::bad_request(format!("Cannot delete standard trait {name}.")));
    }
    call.transact(move |_, tx| {
        if tx.get(&TRAITS, &name).is_none() {
            return Err(unknown(&name));
        }
        if !tx.children(&PROVIDERS, "trait", &name).is_empty() {
            return Err(Error::conflict(format!("The trait {name} is in use by a resource provider.")));
        }
        tx.delete(&TRAITS, &name);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

fn reply(call: &Call, provider: &Provider) -> Reply {
    let body = json!({ "traits": provider.traits, "resource_provider_generation": provider.generation });
    rest::uncached(call, Reply::ok(body), provider.modified())
}

pub(crate) fn of_provider(call: &Call) -> Result<Reply> {
    let found = provider(&call.reader(), call.param("uuid"))?;
    Ok(reply(call, &found))
}

fn read(body: &Value) -> Result<(BTreeSet<String>, i64)> {
    let map = schema::object(body, &["traits", "resource_provider_generation"], 2)?;
    let names = schema::list(&map["traits"])?.iter().map(|v| schema::text(v, 1, 255).map(str::to_owned));
    Ok((names.collect::<Result<_>>()?, schema::int(&map["resource_provider_generation"], i64::MIN, i64::MAX)?))
}

pub(crate) async fn replace(call: Call) -> Result<Reply> {
    let uuid = call.param("uuid").to_owned();
    let (wanted, given) = read(rest::body(&call)?)?;
    let changed = call
        .transact(move |_, tx| {
            let mut provider = load_provider(tx, &uuid)?;
            if provider.generation != given {
                return Err(stale("Resource provider's generation already changed. Please update the generation and try again."));
            }
            let missing: Vec<&str> = wanted.iter().filter(|name| !has_trait(tx, name)).map(String::as_str).collect();
            if !missing.is_empty() {
                return Err(Error::bad_request(format!("No such trait {}", missing.join(", "))));
            }
            if provider.traits != wanted {
                provider.traits.clone_from(&wanted);
                provider.save(tx)?;
            }
            Ok(provider)
        })
        .await?;
    Ok(reply(&call, &changed))
}

pub(crate) async fn clear(call: Call) -> Result<Reply> {
    let uuid = call.param("uuid").to_owned();
    call.transact(move |_, tx| {
        let mut provider = load_provider(tx, &uuid)?;
        if !provider.traits.is_empty() {
            provider.traits.clear();
            provider.save(tx)?;
        }
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}
