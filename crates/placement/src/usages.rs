//! Usages: what is taken of a provider, or by a project.
use crate::{
    TOTAL_USAGES, query, rest,
    rows::{ALLOCATIONS, Amounts, Consumer, provider},
    schema,
    standard::is_symbol,
};
use api::{Call, Map, Reply, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The name of those without a consumer type.
pub(crate) const UNKNOWN: &str = "unknown";

pub(crate) fn of_provider(call: &Call) -> Result<Reply> {
    let found = provider(&call.reader(), call.param("uuid"))?;
    let usages: Amounts = found.inventories.keys().map(|class| (class.clone(), found.used(class))).collect();
    let body = json!({ "resource_provider_generation": found.generation, "usages": usages });
    Ok(rest::uncached(call, Reply::ok(body), None))
}

fn text<'a>(call: &'a Call, key: &'a str) -> Result<Option<&'a str>> {
    match query::last(&call.cx, key) {
        Some("") => Err(query::bad(schema::failed("minLength", format!("{key} '' is too short")))),
        Some(v) if v.chars().count() > 255 => Err(query::bad(schema::failed("maxLength", format!("{key} is too long")))),
        other => Ok(other),
    }
}

/// `GET /usages`: by project, and from 1.38 on by type of consumer.
pub(crate) fn total(call: &Call) -> Result<Reply> {
    rest::check_accept(call)?;
    let by_type = rest::at(&call.cx, 38);
    let asked: Map = query::last(&call.cx, "project_id").map(|p| ("project_id".to_owned(), p.into())).into_iter().collect();
    call.require(TOTAL_USAGES.0, Some(&asked))?;
    query::check_keys(&call.cx, None, |key| matches!(key, "project_id" | "user_id") || (by_type && key == "consumer_type"))?;
    let missing = || query::bad("'project_id' is a required property");
    let project = text(call, "project_id")?.ok_or_else(missing)?;
    let user = text(call, "user_id")?;
    let kind = text(call, "consumer_type")?;
    if let Some(kind) = kind.filter(|k| !is_symbol(k) && !k.starts_with("all") && *k != UNKNOWN) {
        return Err(query::bad(format!("'{kind}' does not match '^[A-Z0-9_]+$|^all|^unknown$'")));
    }
    let rows = call.reader().find(&ALLOCATIONS, "project", project);
    let mut groups: BTreeMap<String, (i64, Amounts)> = BTreeMap::new();
    for row in rows {
        let consumer = Consumer::from_row(&row)?;
        let own = consumer.consumer_type.as_deref().unwrap_or(UNKNOWN);
        if user.is_some_and(|u| u != consumer.user_id) || kind.is_some_and(|k| k != "all" && k != own) {
            continue;
        }
        let group = groups.entry(if kind == Some("all") { "all" } else { own }.to_owned()).or_default();
        group.0 += 1;
        for (class, amount) in consumer.allocations.values().flatten() {
            *group.1.entry(class.clone()).or_default() += amount;
        }
    }
    Ok(rest::uncached(call, Reply::ok(json!({ "usages": shown(groups, by_type) })), None))
}

fn shown(groups: BTreeMap<String, (i64, Amounts)>, by_type: bool) -> Value {
    if by_type {
        let view = |(name, (count, amounts)): (String, (i64, Amounts))| {
            let mut out = json!(amounts);
            out["consumer_count"] = count.into();
            (name, out)
        };
        return groups.into_iter().map(view).collect::<Map>().into();
    }
    let mut sum = Amounts::new();
    for (class, amount) in groups.into_values().flat_map(|(_, amounts)| amounts) {
        *sum.entry(class).or_default() += amount;
    }
    json!(sum)
}
