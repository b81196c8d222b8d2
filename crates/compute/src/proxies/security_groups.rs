//! Security groups through the old road (Nova api-ref, `os-security-groups` and `os-security-group-rules`, until 2.35): the network
//! service's rows in Nova's shape.
use crate::{
    common::{by_index, foreign, foreign_all, map, object, text},
    shape::{Shape, as_int, opt, req},
};
use api::{Access, Call, Error, Map, Reply, Result, Route};
use resource::{Reader, engine};
use serde_json::{Value, json};

/// A group with its rules for incoming traffic: Nova knew no others.
pub(crate) fn view(call: &Call, reader: &Reader<'_>, row: &Map) -> Value {
    let mut rules: Vec<Value> = Vec::new();
    if let Ok(def) = call.cx.registry.get("network/security_group_rules") {
        let all = by_index(reader, &def.table, "security_group_id", text(row, "id"));
        rules.extend(all.iter().filter(|r| r.text("direction") == "ingress").filter_map(|r| rule_view(call, reader, object(r))));
    }
    json!({
        "id": text(row, "id"), "name": text(row, "name"), "description": text(row, "description"), "tenant_id": text(row, "project_id"),
        "rules": rules,
    })
}

/// `None` when the group that it lets in is gone.
fn rule_view(call: &Call, reader: &Reader<'_>, row: &Map) -> Option<Value> {
    let number = |key: &str| row.get(key).filter(|v| v.is_number()).cloned();
    let protocol = row.get("protocol").and_then(Value::as_str).map(str::to_owned);
    let none: Value = if protocol.as_deref().is_none_or(|p| p.starts_with("icmp")) { (-1).into() } else { Value::Null };
    let (mut group, mut range) = (json!({}), json!({}));
    match row.get("remote_group_id").and_then(Value::as_str) {
        Some(id) => {
            let def = call.cx.registry.get("network/security_groups").ok()?;
            let remote = reader.get(&def.table, id)?;
            group = json!({ "name": remote.text("name"), "tenant_id": remote.text("project_id") });
        }
        None => {
            let any = if text(row, "ethertype") == "IPv6" { "::/0" } else { "0.0.0.0/0" };
            let cidr = row.get("remote_ip_prefix").and_then(Value::as_str).unwrap_or(any);
            range = json!({ "cidr": cidr });
        }
    }
    let shown = |port: Option<Value>| port.unwrap_or_else(|| none.clone());
    let (from, to) = if protocol.is_none() {
        (Value::Null, Value::Null)
    } else {
        (shown(number("port_range_min")), shown(number("port_range_max")))
    };
    Some(json!({
        "id": text(row, "id"), "parent_group_id": text(row, "security_group_id"), "ip_protocol": protocol, "from_port": from, "to_port": to,
        "group": group, "ip_range": range,
    }))
}

async fn list(call: Call) -> Result<Reply> {
    let cx = &call.cx;
    let reader = call.reader();
    let all = cx.query.flag("all_tenants") && cx.is_admin();
    let rows = foreign_all(cx, &reader, "network/security_groups")?;
    let mut rows: Vec<_> = rows.iter().filter(|r| all || Some(r.text("project_id")) == cx.caller.project_id()).collect();
    rows.sort_by(|a, b| (a.text("project_id"), a.text("name")).cmp(&(b.text("project_id"), b.text("name"))));
    let offset: usize = cx.query.get("offset").and_then(|o| o.parse().ok()).unwrap_or(0);
    let limit: usize = cx.query.get("limit").and_then(|l| l.parse().ok()).filter(|l| *l > 0).unwrap_or(1000);
    let list: Vec<Value> = rows.into_iter().skip(offset).take(limit).map(|r| view(&call, &reader, object(r))).collect();
    Ok(Reply::ok(json!({ "security_groups": list })))
}

fn find(call: &Call, reader: &Reader<'_>, id: &str) -> Result<Map> {
    if !base::id::is_uuid(id) {
        return Err(Error::bad_request(format!("Invalid input received: Security group id should be uuid, not {id}")));
    }
    let row = foreign(&call.cx, reader, "network/security_groups", id)?;
    row.map(|r| object(&r).clone()).ok_or_else(|| Error::not_found(format!("Security group {id} not found.")))
}

async fn show(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let row = find(&call, &reader, call.param("id"))?;
    Ok(Reply::ok(json!({ "security_group": view(&call, &reader, &row) })))
}

const LOOSE: Shape = Shape::Text { min: 1, max: 255 };
const GROUP: Shape = Shape::Open(&[req(
    "security_group",
    &Shape::Open(&[req("name", &LOOSE), opt("description", &Shape::OneOf(&[&Shape::Text { min: 0, max: 255 }, &Shape::Null]))]),
)]);

/// 404 unless the row is the caller's own: a group that others share is for using, not for changing.
fn check_own(call: &Call, row: &Map, missing: Error) -> Result<()> {
    if call.cx.is_admin() || call.cx.caller.project_id() == Some(text(row, "project_id")) {
        return Ok(());
    }
    Err(missing)
}

/// The group of the path, if the caller may change it.
fn own(call: &Call) -> Result<Map> {
    let row = find(call, &call.reader(), call.param("id"))?;
    let missing = Error::not_found(format!("Security group {} not found.", text(&row, "id")));
    check_own(call, &row, missing)?;
    Ok(row)
}

/// Neutron's conflicts were 400 in Nova.
fn translated(e: Error) -> Error {
    match e.kind {
        api::ErrorKind::Conflict => Error::bad_request(e.message),
        api::ErrorKind::OverQuota => Error::forbidden(e.message),
        _ => e,
    }
}

fn input(call: &Call) -> Result<Map> {
    GROUP.check(call.json(), &call.cx)?;
    let mut input = call.inner("security_group")?.clone();
    if text(&input, "name").trim().is_empty() {
        return Err(Error::bad_request("Security group name is not a string or is empty."));
    }
    input.retain(|k, v| !v.is_null() && (k == "name" || k == "description"));
    Ok(input)
}

async fn create(call: Call) -> Result<Reply> {
    let input = input(&call)?;
    let row = call.transact(move |cx, tx| engine::create(tx, cx.registry.get("network/security_groups")?, cx, &input)).await;
    let row = row.map_err(translated)?;
    let reader = call.reader();
    Ok(Reply::ok(json!({ "security_group": view(&call, &reader, &row) })))
}

async fn update(call: Call) -> Result<Reply> {
    let id = text(&own(&call)?, "id").to_owned();
    let input = input(&call)?;
    let row = call.transact(move |cx, tx| engine::update(tx, cx.registry.get("network/security_groups")?, cx, &id, &input)).await;
    let row = row.map_err(translated)?;
    let reader = call.reader();
    Ok(Reply::ok(json!({ "security_group": view(&call, &reader, &row) })))
}

async fn delete(call: Call) -> Result<Reply> {
    let group = own(&call)?;
    if text(&group, "name") == "default" {
        return Err(Error::bad_request("Removing default security group not allowed."));
    }
    let id = text(&group, "id").to_owned();
    call.transact(move |cx, tx| engine::delete(tx, cx.registry.get("network/security_groups")?, cx, &id))
        .await
        .map_err(translated)?;
    Ok(Reply::empty(202))
}

const RULE: Shape = Shape::Open(&[req(
    "security_group_rule",
    &Shape::Open(&[
        req("parent_group_id", &Shape::Any),
        opt("ip_protocol", &Shape::Any),
        opt("from_port", &Shape::Any),
        opt("to_port", &Shape::Any),
        opt("cidr", &Shape::Any),
        opt("group_id", &Shape::Any),
    ]),
)]);

fn port(value: Option<&Value>, name: &str, least: i64) -> Result<Option<i64>> {
    match value.filter(|v| !v.is_null()) {
        None => Ok(None),
        Some(v) => {
            let number = as_int(v).filter(|n| (least..=65_535).contains(n));
            number.map(Some).ok_or_else(|| Error::bad_request(format!("Invalid port range: {name} {v} is not a port number.")))
        }
    }
}

async fn create_rule(call: Call) -> Result<Reply> {
    RULE.check(call.json(), &call.cx)?;
    let body = call.inner("security_group_rule")?.clone();
    let parent = match &body["parent_group_id"] {
        Value::String(s) => s.clone(),
        v => v.to_string(),
    };
    let group = find(&call, &call.reader(), &parent)?;
    let remote = body.get("group_id").and_then(Value::as_str).map(str::to_owned);
    if let Some(id) = &remote {
        find(&call, &call.reader(), id)?;
    }
    let protocol = match body.get("ip_protocol").filter(|p| !p.is_null()) {
        None => None,
        Some(Value::String(p)) => Some(p.to_ascii_lowercase()),
        Some(p) => Some(p.to_string()),
    };
    let known = |p: &str| matches!(p, "tcp" | "udp" | "icmp" | "icmpv6" | "ipv6-icmp") || p.parse::<u8>().is_ok();
    if protocol.as_deref().is_some_and(|p| !known(p)) {
        return Err(Error::bad_request(format!("Invalid IP protocol {}.", protocol.unwrap_or_default())));
    }
    let is_icmp = protocol.as_deref().is_some_and(|p| p.contains("icmp"));
    let least = if is_icmp { -1 } else { 1 };
    let (from, to) = (port(body.get("from_port"), "from_port", least)?, port(body.get("to_port"), "to_port", least)?);
    if !is_icmp && from.zip(to).is_some_and(|(f, t)| f > t) {
        return Err(Error::bad_request("Invalid port range: from_port is larger than to_port."));
    }
    let cidr = body.get("cidr").and_then(Value::as_str).filter(|c| !c.is_empty()).map(str::to_owned);
    if cidr.as_ref().is_some_and(|c| c.parse::<ipnet::IpNet>().is_err()) {
        return Err(Error::bad_request(format!("Invalid cidr {}.", cidr.unwrap_or_default())));
    }
    let six = cidr.as_ref().is_some_and(|c| c.contains(':'));
    let mut input = map(
        json!({ "security_group_id": text(&group, "id"), "direction": "ingress", "ethertype": if six { "IPv6" } else { "IPv4" } }),
    );
    let mut put = |key: &str, value: Option<Value>| drop(value.map(|v| input.insert(key.to_owned(), v)));
    put("protocol", protocol.clone().map(Value::from));
    put("port_range_min", from.filter(|p| *p >= 0).map(Value::from));
    put("port_range_max", to.filter(|p| *p >= 0).map(Value::from));
    put("remote_group_id", remote.clone().map(Value::from));
    put("remote_ip_prefix", cidr.clone().map(Value::from));
    let row = call.transact(move |cx, tx| engine::create(tx, cx.registry.get("network/security_group_rules")?, cx, &input)).await;
    let row = row.map_err(translated)?;
    let reader = call.reader();
    let mut shown = rule_view(&call, &reader, &row).unwrap_or_default();
    if let Some(cidr) = cidr {
        shown["ip_range"] = json!({ "cidr": cidr });
    }
    Ok(Reply::ok(json!({ "security_group_rule": shown })))
}

async fn delete_rule(call: Call) -> Result<Reply> {
    let id = call.param("id").to_owned();
    if !base::id::is_uuid(&id) {
        return Err(Error::bad_request(format!("Invalid input received: Rule id should be uuid, not {id}")));
    }
    let row = foreign(&call.cx, &call.reader(), "network/security_group_rules", &id)?;
    let missing = || Error::not_found(format!("Security group with rule {id} not found."));
    let row = row.ok_or_else(missing)?;
    check_own(&call, object(&row), missing())?;
    call.transact(move |cx, tx| engine::delete(tx, cx.registry.get("network/security_group_rules")?, cx, &id))
        .await
        .map_err(translated)?;
    Ok(Reply::empty(202))
}

/// `DELETE /os-security-groups/`: the id is missing.
async fn lost(_: Call) -> Result<Reply> {
    Err(Error::not_found("The resource could not be found."))
}

pub(super) fn routes() -> Vec<Route> {
    let rule = |name, text| Access::Rule(name, text);
    vec![
        Route::new("GET", "/v2.1/os-security-groups", rule("os_compute_api:os-security-groups:get", "reader"), list)
            .until("2.35"),
        Route::new("POST", "/v2.1/os-security-groups", rule("os_compute_api:os-security-groups:create", "member"), create)
            .until("2.35"),
        Route::new("DELETE", "/v2.1/os-security-groups", Access::Authenticated, lost),
        Route::new("GET", "/v2.1/os-security-groups/{id}", rule("os_compute_api:os-security-groups:show", "reader"), show)
            .until("2.35"),
        Route::new("PUT", "/v2.1/os-security-groups/{id}", rule("os_compute_api:os-security-groups:update", "member"), update)
            .until("2.35"),
        Route::new("DELETE", "/v2.1/os-security-groups/{id}", rule("os_compute_api:os-security-groups:delete", "member"), delete)
            .until("2.35"),
        Route::new(
            "POST",
            "/v2.1/os-security-group-rules",
            rule("os_compute_api:os-security-groups:rule:create", "member"),
            create_rule,
        )
        .until("2.35"),
        Route::new(
            "DELETE",
            "/v2.1/os-security-group-rules/{id}",
            rule("os_compute_api:os-security-groups:rule:delete", "member"),
            delete_rule,
        )
        .until("2.35"),
    ]
}
