//! Networks through the old roads (Nova api-ref, `os-networks` and `os-tenant-networks`, until 2.35): ids and names, and many nulls.
use super::only;
use crate::common::{foreign, foreign_all, object, text};
use api::{Access, Call, Error, Map, Reply, Result, Route};
use serde_json::{Value, json};

fn tenant_view(row: &Map) -> Value {
    json!({ "id": text(row, "id"), "cidr": "None", "label": text(row, "name") })
}

/// What nova-network knew and nobody else does is null.
fn view(row: &Map) -> Value {
    let mut out = crate::common::map(json!({ "id": text(row, "id"), "label": text(row, "name") }));
    for key in
        ["bridge", "broadcast", "cidr", "cidr_v6", "dhcp_start", "dns1", "dns2", "gateway", "gateway_v6", "netmask", "netmask_v6"]
    {
        out.insert(key.into(), Value::Null);
    }
    out.into()
}

async fn list(call: Call, shown: fn(&Map) -> Value) -> Result<Reply> {
    // What else is on these paths is gone at every version: the paths stay, so this says that it does not.
    only(&call.cx, 0, 35)?;
    let reader = call.reader();
    let rows = foreign_all(&call.cx, &reader, "network/networks")?;
    Ok(Reply::ok(json!({ "networks": rows.iter().map(|r| shown(object(r))).collect::<Vec<_>>() })))
}

async fn show(call: Call, shown: fn(&Map) -> Value) -> Result<Reply> {
    only(&call.cx, 0, 35)?;
    let reader = call.reader();
    let row = foreign(&call.cx, &reader, "network/networks", call.param("id"))?;
    let row = row.ok_or_else(|| Error::not_found("Network not found"))?;
    Ok(Reply::ok(json!({ "network": shown(object(&row)) })))
}

pub(super) fn routes() -> Vec<Route> {
    let reader = |name| Access::Rule(name, "reader");
    vec![
        Route::new("GET", "/v2.1/os-networks", reader("os_compute_api:os-networks:list"), |c| list(c, view)),
        Route::new("GET", "/v2.1/os-networks/{id}", reader("os_compute_api:os-networks:show"), |c| show(c, view)),
        Route::new("GET", "/v2.1/os-tenant-networks", reader("os_compute_api:os-tenant-networks:list"), |c| list(c, tenant_view)),
        Route::new("GET", "/v2.1/os-tenant-networks/{id}", reader("os_compute_api:os-tenant-networks:show"), |c| {
            show(c, tenant_view)
        }),
    ]
}
