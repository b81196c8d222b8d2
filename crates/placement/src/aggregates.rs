//! Aggregates of a provider: ids that others give a meaning.
use crate::{
    answer::{ok, service, since},
    body,
    provider::Provider,
};
use api::{Call, Reply, Route};
use resource::Result;
use serde_json::{Value, json};

pub(crate) fn routes() -> Vec<Route> {
    const PATH: &str = "/resource_providers/{uuid}/aggregates";
    vec![
        Route::new("GET", PATH, service("placement:resource_providers:aggregates:list"), list).since("1.1"),
        Route::new("PUT", PATH, service("placement:resource_providers:aggregates:update"), set).since("1.1"),
    ]
}

fn view(call: &Call, provider: &Provider) -> Value {
    if since(call, "1.19") {
        return json!({"aggregates": provider.aggregates, "resource_provider_generation": provider.generation});
    }
    json!({"aggregates": provider.aggregates})
}

async fn list(call: Call) -> Result<Reply> {
    let provider = Provider::read(&call.reader(), call.param("uuid"))?;
    Ok(ok(&call, view(&call, &provider), None))
}

async fn set(call: Call) -> Result<Reply> {
    let uuid = call.param("uuid").to_owned();
    Provider::read(&call.reader(), &uuid)?;
    let (aggregates, generation) = if since(&call, "1.19") {
        let body = body::object(&call, &["aggregates", "resource_provider_generation"], &[])?;
        (body::uuids(&body["aggregates"])?, Some(body::integer(&body["resource_provider_generation"], i64::MIN, i64::MAX)?))
    } else {
        (body::uuids(call.json())?, None)
    };
    let provider = call
        .transact(move |_, tx| {
            let mut provider = Provider::existing(tx, &uuid)?;
            if let Some(generation) = generation {
                let text = "Resource provider's generation already changed. Please update the generation and try again.";
                provider.check_generation(generation, text)?;
                provider.generation += 1;
            }
            provider.aggregates = aggregates.iter().cloned().collect();
            provider.save(tx)?;
            Ok(provider)
        })
        .await?;
    Ok(ok(&call, view(&call, &provider), None))
}
