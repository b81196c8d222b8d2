//! Sums of allocations: of a provider, and of a project.
use crate::{
    answer::{ok, service, since},
    body,
    consumer::{ALLOCATIONS, Consumer},
    provider::Provider,
    query,
};
use api::{Access, Call, Reply, Route};
use resource::{Error, Map, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::new("GET", "/resource_providers/{uuid}/usages", service("placement:resource_providers:usages"), of_provider),
        Route::new("GET", "/usages", Access::Authenticated, of_project).since("1.9"),
    ]
}

async fn of_provider(call: Call) -> Result<Reply> {
    let provider = Provider::read(&call.reader(), call.param("uuid"))?;
    // A class without any use is shown with 0.
    let usages: BTreeMap<&String, i64> = provider.inventories.keys().map(|class| (class, provider.used(class))).collect();
    Ok(ok(&call, json!({"resource_provider_generation": provider.generation, "usages": usages}), None))
}

async fn of_project(call: Call) -> Result<Reply> {
    let project = query::last(&call, "project_id").unwrap_or_default();
    let may = call.cx.may("service", None) || (call.cx.may("reader", None) && call.cx.caller.project_id() == Some(project));
    if !may {
        return Err(Error::forbidden("placement:usages does not allow the caller to see another project; use a token of the project."));
    }
    let typed = since(&call, "1.38");
    query::only(&call, &|key| matches!(key, "project_id" | "user_id") || (key == "consumer_type" && typed))?;
    let bad = |text: &str| Error::bad_request(format!("Invalid query string parameters: {text}"));
    if project.is_empty() || project.len() > 255 {
        return Err(bad("'project_id' is a required property"));
    }
    let (user, kind) = (query::last(&call, "user_id"), query::last(&call, "consumer_type"));
    if user.is_some_and(str::is_empty) {
        return Err(bad("'' is too short"));
    }
    if kind.is_some_and(|k| !matches!(k, "all" | "unknown") && !body::is_symbol(k)) {
        return Err(bad("'consumer_type' does not match '^[A-Z0-9_]+$|^all|^unknown$'"));
    }
    let rows = call.reader().find(&ALLOCATIONS, "project_id", project);
    let mut consumers = rows.iter().map(|r| Consumer::of(r)).collect::<Result<Vec<Consumer>>>()?;
    consumers.retain(|c| user.is_none_or(|u| c.user_id == u));
    if !typed {
        return Ok(ok(&call, json!({"usages": sum(consumers.iter())}), None));
    }
    let mut groups: BTreeMap<&str, Vec<&Consumer>> = BTreeMap::new();
    for consumer in &consumers {
        let group = if kind == Some("all") { "all" } else { consumer.shown_type() };
        if kind.is_none_or(|k| k == group) {
            groups.entry(group).or_default().push(consumer);
        }
    }
    let mut usages = Map::new();
    for (group, members) in groups {
        let mut shown = sum(members.iter().copied());
        shown.insert("consumer_count".into(), (members.len() as i64).into());
        usages.insert(group.to_owned(), shown.into());
    }
    Ok(ok(&call, json!({"usages": usages}), None))
}

fn sum<'a>(consumers: impl Iterator<Item = &'a Consumer>) -> Map {
    let mut out: BTreeMap<&str, i64> = BTreeMap::new();
    for (class, amount) in consumers.flat_map(|c| c.allocations.values()).flatten() {
        *out.entry(class).or_default() += amount;
    }
    out.into_iter().map(|(class, amount)| (class.to_owned(), Value::from(amount))).collect()
}
