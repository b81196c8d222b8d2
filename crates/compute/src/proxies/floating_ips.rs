//! `os-floating-ips` and `os-floating-ip-pools`.
use crate::{
    common::{flag, foreign, foreign_all, map, object, text},
    shape::{Shape, opt},
};
use api::{Access, Call, Error, Map, Reply, Result, Route};
use resource::{Reader, engine};
use serde_json::{Value, json};

fn view(call: &Call, reader: &Reader<'_>, row: &Map) -> Result<Value> {
    let networks = call.cx.registry.get("network/networks")?;
    let ports = call.cx.registry.get("network/ports")?;
    let pool = reader.get(&networks.table, text(row, "floating_network_id")).map(|n| n.text("name").to_owned());
    let port = row.get("port_id").and_then(Value::as_str).and_then(|p| reader.get(&ports.table, p));
    let server = port.filter(|p| p.text("device_owner").starts_with("compute:")).map(|p| p.text("device_id").to_owned());
    Ok(json!({
        "id": text(row, "id"), "ip": text(row, "floating_ip_address"), "pool": pool, "instance_id": server,
        "fixed_ip": row.get("fixed_ip_address").cloned().unwrap_or(Value::Null),
    }))
}

async fn list(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let rows = foreign_all(&call.cx, &reader, "network/floatingips")?;
    let mine = rows.iter().filter(|r| Some(r.text("project_id")) == call.cx.caller.project_id());
    let list = mine.map(|r| view(&call, &reader, object(r))).collect::<Result<Vec<_>>>()?;
    Ok(Reply::ok(json!({ "floating_ips": list })))
}

fn missing(id: &str) -> Error {
    Error::not_found(format!("Floating IP not found for ID {id}."))
}

async fn show(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let row = foreign(&call.cx, &reader, "network/floatingips", call.param("id"))?.ok_or_else(|| missing(call.param("id")))?;
    Ok(Reply::ok(json!({ "floating_ip": view(&call, &reader, object(&row))? })))
}

const CREATE: Shape = Shape::OneOf(&[
    &Shape::Null,
    &Shape::Object(&[opt("pool", &Shape::OneOf(&[&Shape::Text { min: 0, max: 255 }, &Shape::Null]))]),
]);

async fn create(call: Call) -> Result<Reply> {
    CREATE.check(call.json(), &call.cx)?;
    let pool = call.json()["pool"].as_str().filter(|p| !p.is_empty()).map(str::to_owned);
    let network = {
        let reader = call.reader();
        let found = foreign_all(&call.cx, &reader, "network/networks")?;
        let mut external = found.iter().filter(|n| flag(object(n), "router:external"));
        let fits = |n: &&std::sync::Arc<resource::Row>| pool.as_ref().is_none_or(|p| n.text("name") == p || n.id() == p);
        external.find(fits).map(|n| n.id().to_owned())
    };
    let network = network.ok_or_else(|| Error::not_found("Floating IP pool not found."))?;
    let row = call
        .transact(move |cx, tx| {
            let def = cx.registry.get("network/floatingips")?;
            engine::create(tx, def, cx, &map(json!({ "floating_network_id": network })))
        })
        .await;
    let row = row.map_err(|e| match e.kind {
        api::ErrorKind::OverQuota => Error::forbidden(e.message),
        _ => e,
    })?;
    let reader = call.reader();
    Ok(Reply::ok(json!({ "floating_ip": view(&call, &reader, &row)? })))
}

async fn delete(call: Call) -> Result<Reply> {
    let id = call.param("id").to_owned();
    foreign(&call.cx, &call.reader(), "network/floatingips", &id)?.ok_or_else(|| missing(&id))?;
    call.transact(move |cx, tx| engine::delete(tx, cx.registry.get("network/floatingips")?, cx, &id)).await?;
    Ok(Reply::empty(202))
}

async fn pools(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let rows = foreign_all(&call.cx, &reader, "network/networks")?;
    let external = rows.iter().filter(|n| flag(object(n), "router:external"));
    Ok(Reply::ok(json!({ "floating_ip_pools": external.map(|n| json!({ "name": n.text("name") })).collect::<Vec<_>>() })))
}

pub(super) fn routes() -> Vec<Route> {
    let rule = |name, text| Access::Rule(name, text);
    vec![
        Route::new("GET", "/v2.1/os-floating-ip-pools", rule("os_compute_api:os-floating-ip-pools", "reader"), pools)
            .until("2.35"),
        Route::new("GET", "/v2.1/os-floating-ips", rule("os_compute_api:os-floating-ips:list", "reader"), list).until("2.35"),
        Route::new("POST", "/v2.1/os-floating-ips", rule("os_compute_api:os-floating-ips:create", "member"), create)
            .until("2.35"),
        Route::new("GET", "/v2.1/os-floating-ips/{id}", rule("os_compute_api:os-floating-ips:show", "reader"), show)
            .until("2.35"),
        Route::new("DELETE", "/v2.1/os-floating-ips/{id}", rule("os_compute_api:os-floating-ips:delete", "member"), delete)
            .until("2.35"),
    ]
}
