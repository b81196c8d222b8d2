//! OS-ENDPOINT-POLICY: which policy blob an endpoint is to use, by endpoint, by service in a region, or by service.
use super::{get, list, view};
use crate::{
    resources::{ENDPOINT, POLICY, REGION, SERVICE},
    rows::{LINKS, Rows as _, text},
};
use api::{Access, Call, Error, Reply, Result, Route};
use resource::{Reader, engine};
use serde_json::{Value, json};
use store::Row;

const KIND: &str = "policy";

pub(super) fn routes() -> Vec<Route> {
    let reads = Access::Rule("identity:get_policy_association", "rule:identity:system_reader");
    let writes = Access::Rule("identity:change_policy_association", "rule:identity:cloud_admin");
    let mut out = Vec::new();
    for path in [
        "/v3/policies/{policy_id}/OS-ENDPOINT-POLICY/endpoints/{endpoint_id}",
        "/v3/policies/{policy_id}/OS-ENDPOINT-POLICY/services/{service_id}",
        "/v3/policies/{policy_id}/OS-ENDPOINT-POLICY/services/{service_id}/regions/{region_id}",
    ] {
        out.push(Route::new("PUT", path, writes, put));
        out.push(Route::new("GET", path, reads, check));
        out.push(Route::new("DELETE", path, writes, delete));
    }
    out.push(Route::new("GET", "/v3/policies/{policy_id}/OS-ENDPOINT-POLICY/endpoints", reads, endpoints));
    out.push(Route::new("GET", "/v3/endpoints/{endpoint_id}/OS-ENDPOINT-POLICY/policy", reads, policy_of));
    out
}

/// What a policy is tied to: an endpoint, a service, or a service in a region.
fn tied(call: &Call) -> String {
    match (call.param("endpoint_id"), call.param("service_id"), call.param("region_id")) {
        ("", service, "") => service_key(service),
        ("", service, region) => region_key(service, region),
        (endpoint, ..) => format!("endpoint/{endpoint}"),
    }
}

fn service_key(service: &str) -> String {
    format!("service/{service}")
}

fn region_key(service: &str, region: &str) -> String {
    format!("service/{service}/region/{region}")
}

fn check_parts(call: &Call) -> Result<()> {
    let reader = call.reader();
    let parts = [(POLICY, "policy_id"), (ENDPOINT, "endpoint_id"), (SERVICE, "service_id"), (REGION, "region_id")];
    parts
        .iter()
        .map(|(def, name)| (def, call.param(name)))
        .filter(|(_, id)| !id.is_empty())
        .try_for_each(|(def, id)| get(&reader, def, id).map(|_| ()))
}

/// One policy for each; the id says to what.
fn key(call: &Call) -> String {
    format!("{KIND}:{}", tied(call))
}

async fn put(call: Call) -> Result<Reply> {
    check_parts(&call)?;
    let (policy, key) = (call.param("policy_id").to_owned(), key(&call));
    let right =
        [call.param("endpoint_id"), call.param("service_id")].into_iter().find(|p| !p.is_empty()).unwrap_or_default().to_owned();
    call.transact(move |_, tx| {
        tx.row(&POLICY.table, &policy).ok_or_else(|| engine::not_found(POLICY, &policy))?;
        tx.put(&LINKS, &key, json!({"kind": KIND, "left": policy, "right": right, "v": 1}));
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

fn find(call: &Call) -> Result<()> {
    check_parts(call)?;
    let row = call.reader().get(&LINKS, &key(call)).filter(|r| r.text("left") == call.param("policy_id"));
    row.map(|_| ()).ok_or_else(|| Error::not_found(format!("Policy {} is not associated with it.", call.param("policy_id"))))
}

async fn check(call: Call) -> Result<Reply> {
    find(&call).map(|()| Reply::empty(204))
}

async fn delete(call: Call) -> Result<Reply> {
    find(&call)?;
    let key = key(&call);
    call.transact(move |_, tx| {
        tx.delete(&LINKS, &key);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

/// The policy of an endpoint: its own, its service's in the region or a region above, its service's.
fn effective(mut reader: &Reader<'_>, endpoint: &Row) -> Option<String> {
    let service = endpoint.text("service_id");
    let mut keys = vec![format!("endpoint/{}", endpoint.id())];
    let mut region = text(endpoint, "region_id").map(str::to_owned);
    while let Some(id) = region {
        keys.push(region_key(service, &id));
        region = reader.row(&REGION.table, &id).and_then(|r| text(&r, "parent_region_id").map(str::to_owned));
        if keys.len() > 64 {
            break;
        }
    }
    keys.push(service_key(service));
    keys.iter().find_map(|k| reader.row(&LINKS, &format!("{KIND}:{k}"))).map(|l| l.text("left").to_owned())
}

async fn endpoints(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let policy = call.param("policy_id");
    get(&reader, POLICY, policy)?;
    let all = reader.all(&ENDPOINT.table).filter(|e| effective(&reader, e).as_deref() == Some(policy));
    let shown: Vec<Value> = all.filter_map(|e| e.value().as_object()).map(|e| view(ENDPOINT, e, &call, &reader)).collect();
    Ok(list(&call, "endpoints", shown))
}

async fn policy_of(call: Call) -> Result<Reply> {
    let reader = call.reader();
    get(&reader, ENDPOINT, call.param("endpoint_id"))?;
    let endpoint = reader.get(&ENDPOINT.table, call.param("endpoint_id"));
    let policy = endpoint.and_then(|e| effective(&reader, &e)).and_then(|id| get(&reader, POLICY, &id).ok());
    let policy = policy
        .ok_or_else(|| Error::not_found(format!("No policy is associated with endpoint {}.", call.param("endpoint_id"))))?;
    Ok(Reply::ok(json!({"policy": view(POLICY, &policy, &call, &reader)})))
}
