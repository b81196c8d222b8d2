//! Aggregates of a provider: groups by uuid, which exist by being named.
use crate::{
    rest,
    rows::{Provider, load_provider, provider, stale},
    schema,
};
use api::{Call, Reply, Result};
use serde_json::{Value, json};

fn reply(call: &Call, provider: &Provider) -> Reply {
    let mut body = json!({ "aggregates": provider.aggregates });
    if rest::at(&call.cx, 19) {
        body["resource_provider_generation"] = provider.generation.into();
    }
    rest::uncached(call, Reply::ok(body), None)
}

pub(crate) fn show(call: &Call) -> Result<Reply> {
    let found = provider(&call.reader(), call.param("uuid"))?;
    Ok(reply(call, &found))
}

fn uuids(value: &Value) -> Result<Vec<String>> {
    let list = schema::list(value)?;
    let uuids = list.iter().map(|v| schema::uuid(v).map(str::to_owned)).collect::<Result<Vec<String>>>()?;
    let mut sorted = uuids.clone();
    sorted.sort_unstable();
    if sorted.windows(2).any(|w| w[0] == w[1]) {
        return Err(schema::unique(value));
    }
    Ok(uuids)
}

pub(crate) async fn replace(call: Call) -> Result<Reply> {
    let (uuid, body) = (call.param("uuid").to_owned(), rest::body(&call)?);
    provider(&call.reader(), &uuid)?;
    let (wanted, given) = if rest::at(&call.cx, 19) {
        let map = schema::object(body, &["aggregates", "resource_provider_generation"], 2)?;
        (uuids(&map["aggregates"])?, Some(schema::int(&map["resource_provider_generation"], i64::MIN, i64::MAX)?))
    } else {
        (uuids(body)?, None)
    };
    let changed = call
        .transact(move |_, tx| {
            let mut provider = load_provider(tx, &uuid)?;
            if given.is_some_and(|g| g != provider.generation) {
                return Err(stale("Resource provider's generation already changed. Please update the generation and try again."));
            }
            provider.aggregates.clone_from(&wanted);
            match given {
                Some(_) => provider.save(tx)?,
                None => provider.put(tx)?,
            }
            Ok(provider)
        })
        .await?;
    Ok(reply(&call, &changed))
}
