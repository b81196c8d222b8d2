//! Parts of servers that have pages of their own: metadata, tags, interfaces, instance actions.
use super::{
    change, networks, records,
    state::{Needs, check_unlocked, vm},
    view,
};
use crate::{
    common::{ACTIONS, DELETED, at, by_index, flag, is_shown, object, paged, text, visible},
    quota,
    resources::Server,
    shape::{self, Shape, opt, req},
};
use api::{Access, Call, Cx, Error, Map, Reply, Result, Route};
use resource::{Object, Reader, Resource};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const SETTLED: &[&str] = &[vm::ACTIVE, vm::PAUSED, vm::SUSPENDED, vm::STOPPED];

// --- metadata ---

const METADATA: Shape = Shape::Object(&[req("metadata", &shape::METADATA)]);
const META: Shape = Shape::Object(&[req("meta", &shape::METADATA)]);

async fn metadata(call: Call) -> Result<Reply> {
    let server: Object<Server> = visible(&call, call.param("id"))?;
    Ok(Reply::ok(json!({ "metadata": server.metadata })))
}

async fn metadata_item(call: Call) -> Result<Reply> {
    let server: Object<Server> = visible(&call, call.param("id"))?;
    let key = call.param("key");
    match server.metadata.get(key) {
        Some(value) => Ok(Reply::ok(json!({ "meta": { key: value } }))),
        None => Err(Error::not_found("Metadata item was not found")),
    }
}

/// Changes metadata, if the server is in a state for it and below its limit.
async fn change_metadata<F>(call: &Call, what: &'static str, mut how: F) -> Result<BTreeMap<String, String>>
where
    F: FnMut(&mut BTreeMap<String, String>) -> Result<()> + Send + 'static,
{
    let server: Object<Server> = visible(call, call.param("id"))?;
    call.require("os_compute_api:server-metadata:update", Some(&server.map))?;
    let (_, metadata) = change(call, &server.id, move |cx, tx, server| {
        check_unlocked(server, cx)?;
        Needs::vm(SETTLED).any_task().check(server, what)?;
        let mut metadata = server.metadata.clone();
        how(&mut metadata)?;
        let project = server.project_id().to_owned();
        quota::check_metadata(quota::limit(tx, cx, &project, "metadata_items"), metadata.len())?;
        server.metadata = metadata.clone();
        Ok(metadata)
    })
    .await?;
    Ok(metadata)
}

async fn add_metadata(call: Call) -> Result<Reply> {
    let _server: Object<Server> = visible(&call, call.param("id"))?;
    METADATA.check(call.json(), &call.cx)?;
    let new = super::request::metadata(call.json().get("metadata"));
    let all = change_metadata(&call, "update metadata", move |m| {
        m.extend(new.clone());
        Ok(())
    })
    .await?;
    Ok(Reply::ok(json!({ "metadata": all })))
}

async fn replace_metadata(call: Call) -> Result<Reply> {
    let _server: Object<Server> = visible(&call, call.param("id"))?;
    METADATA.check(call.json(), &call.cx)?;
    let new = super::request::metadata(call.json().get("metadata"));
    let all = change_metadata(&call, "update metadata", move |m| {
        m.clone_from(&new);
        Ok(())
    })
    .await?;
    Ok(Reply::ok(json!({ "metadata": all })))
}

async fn set_metadata_item(call: Call) -> Result<Reply> {
    let _server: Object<Server> = visible(&call, call.param("id"))?;
    META.check(call.json(), &call.cx)?;
    let new = super::request::metadata(call.json().get("meta"));
    if new.len() != 1 || !new.contains_key(call.param("key")) {
        return Err(Error::bad_request("Request body and URI mismatch"));
    }
    let shown = new.clone();
    change_metadata(&call, "update metadata", move |m| {
        m.extend(new.clone());
        Ok(())
    })
    .await?;
    Ok(Reply::ok(json!({ "meta": shown })))
}

async fn delete_metadata_item(call: Call) -> Result<Reply> {
    let key = call.param("key").to_owned();
    let gone = || Error::not_found("Metadata item was not found");
    change_metadata(&call, "delete metadata", move |m| m.remove(&key).map(drop).ok_or_else(gone)).await?;
    Ok(Reply::empty(204))
}

// --- tags ---

const MOST_TAGS: usize = 50;
const TAGS: Shape = Shape::Object(&[req("tags", &Shape::List { of: &shape::TAG, min: 0, max: MOST_TAGS, unique: false })]);

async fn tags(call: Call) -> Result<Reply> {
    let server: Object<Server> = visible(&call, call.param("id"))?;
    Ok(Reply::ok(json!({ "tags": server.tags })))
}

fn no_tag(id: &str, tag: &str) -> Error {
    Error::not_found(format!("Server {id} has no tag '{tag}'"))
}

async fn tag(call: Call) -> Result<Reply> {
    let server: Object<Server> = visible(&call, call.param("id"))?;
    let tag = call.param("tag");
    if server.tags.iter().any(|t| t == tag) { Ok(Reply::empty(204)) } else { Err(no_tag(&server.id, tag)) }
}

async fn change_tags<T, F>(call: &Call, what: &'static str, mut how: F) -> Result<T>
where
    T: Send + 'static,
    F: FnMut(&str, &mut Vec<String>) -> Result<T> + Send + 'static,
{
    let server: Object<Server> = visible(call, call.param("id"))?;
    call.require("os_compute_api:os-server-tags:update", Some(&server.map))?;
    let (_, value) = change(call, &server.id, move |_, _, server| {
        Needs { launched: false, ..Needs::vm(SETTLED).any_task() }.check(server, what)?;
        let id = server.id.clone();
        how(&id, &mut server.body.tags)
    })
    .await?;
    Ok(value)
}

async fn replace_tags(call: Call) -> Result<Reply> {
    TAGS.check(call.json(), &call.cx)?;
    let mut new = super::request::strings(call.json().get("tags"));
    new.sort();
    new.dedup();
    let shown = new.clone();
    change_tags(&call, "update tags", move |_, tags| {
        tags.clone_from(&new);
        Ok(())
    })
    .await?;
    Ok(Reply::ok(json!({ "tags": shown })))
}

async fn add_tag(call: Call) -> Result<Reply> {
    let tag = call.param("tag").to_owned();
    let _server: Object<Server> = visible(&call, call.param("id"))?;
    if tag.is_empty() || tag.chars().count() > 60 || !shape::is_tag(&tag) {
        return Err(Error::bad_request(format!(
            "Tag '{tag}' is invalid. It must be a non empty string without characters '/' and ',' of at most 60 characters."
        )));
    }
    let location = format!("{}/v2.1/servers/{}/tags/{tag}", call.cx.public, call.param("id"));
    let is_new = change_tags(&call, "update tag", move |_, tags| {
        if tags.contains(&tag) {
            return Ok(false);
        }
        if tags.len() >= MOST_TAGS {
            return Err(Error::bad_request(format!("The number of tags exceeded the per-server limit {MOST_TAGS}")));
        }
        tags.push(tag.clone());
        tags.sort();
        Ok(true)
    })
    .await?;
    Ok(if is_new { Reply::empty(201).header("location", location) } else { Reply::empty(204) })
}

async fn delete_tag(call: Call) -> Result<Reply> {
    let tag = call.param("tag").to_owned();
    change_tags(&call, "delete tag", move |id, tags| {
        let at = tags.iter().position(|t| *t == tag).ok_or_else(|| no_tag(id, &tag))?;
        tags.remove(at);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

async fn delete_tags(call: Call) -> Result<Reply> {
    change_tags(&call, "delete tags", |_, tags| {
        tags.clear();
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

// --- interfaces ---

const ATTACH: Shape = Shape::Object(&[req(
    "interfaceAttachment",
    &Shape::Object(&[
        opt("net_id", &shape::UUID),
        opt("port_id", &shape::UUID),
        opt("fixed_ips", &Shape::List { of: &Shape::Object(&[req("ip_address", &shape::IP)]), min: 1, max: 1, unique: false }),
        opt("tag", &shape::TAG).since(49),
    ]),
)]);

/// A port as Nova shows it.
fn interface(cx: &Cx, port: &Map, tag: Option<&str>) -> Value {
    let mut out = crate::common::map(json!({
        "port_id": text(port, "id"), "net_id": text(port, "network_id"), "mac_addr": text(port, "mac_address"),
        "port_state": text(port, "status"), "fixed_ips": fixed(port),
    }));
    if at(cx, 70) {
        out.insert("tag".into(), tag.map_or(Value::Null, Into::into));
    }
    out.into()
}

fn fixed(port: &Map) -> Value {
    let list = port.get("fixed_ips").and_then(Value::as_array);
    list.into_iter().flatten().map(|f| json!({ "subnet_id": f["subnet_id"], "ip_address": f["ip_address"] })).collect()
}

fn tag_of<'a>(server: &'a Server, port: &str) -> Option<&'a str> {
    server.nics.iter().find(|n| n.port_id == port)?.tag.as_deref()
}

async fn interfaces(call: Call) -> Result<Reply> {
    let server: Object<Server> = visible(&call, call.param("id"))?;
    let reader = call.reader();
    let ports = call.cx.registry.get("network/ports")?;
    let rows = by_index(&reader, &ports.table, "device_id", &server.id);
    let shown = |id: &&std::sync::Arc<resource::Row>| !flag(object(id), "deleting");
    let list: Vec<Value> = rows.iter().filter(shown).map(|r| interface(&call.cx, object(r), tag_of(&server, r.id()))).collect();
    Ok(Reply::ok(json!({ "interfaceAttachments": list })))
}

fn shown_interface(call: &Call, server: &Object<Server>, port: &str) -> Result<Reply> {
    let reader = call.reader();
    let ports = call.cx.registry.get("network/ports")?;
    let row = reader.get(&ports.table, port).filter(|r| r.text("device_id") == server.id && !flag(object(r), "deleting"));
    let row = row.ok_or_else(|| Error::not_found(format!("Instance {} does not have a port with id {port}", server.id)))?;
    Ok(Reply::ok(json!({ "interfaceAttachment": interface(&call.cx, object(&row), tag_of(server, port)) })))
}

async fn show_interface(call: Call) -> Result<Reply> {
    let server: Object<Server> = visible(&call, call.param("id"))?;
    shown_interface(&call, &server, call.param("port"))
}

/// Networks and ports that are missing are 404 here, where a create says 400.
fn missing(e: Error) -> Error {
    if e.kind == api::ErrorKind::BadRequest && e.message.contains("could not be found") { Error::not_found(e.message) } else { e }
}

async fn attach_interface(call: Call) -> Result<Reply> {
    let server: Object<Server> = visible(&call, call.param("id"))?;
    call.require("os_compute_api:os-attach-interfaces:create", Some(&server.map))?;
    let mut asked = super::request::Nic::default();
    if !call.json().is_null() {
        ATTACH.check(call.json(), &call.cx)?;
        let body = &call.json()["interfaceAttachment"];
        let text = |v: &Value| v.as_str().map(str::to_owned);
        asked.network = text(&body["net_id"]);
        asked.port = text(&body["port_id"]);
        asked.tag = text(&body["tag"]);
        asked.fixed_ip = text(&body["fixed_ips"][0]["ip_address"]);
    }
    if asked.network.is_some() && asked.port.is_some() {
        return Err(Error::bad_request("Must not input both network_id and port_id"));
    }
    if asked.fixed_ip.is_some() && asked.network.is_none() {
        return Err(Error::bad_request("Must input network_id when request IP address"));
    }
    let wanted = {
        let reader = call.reader();
        if asked.network.is_none() && asked.port.is_none() {
            let found = networks::resolve(&call.cx, &reader, &super::request::Networks::Default, 1);
            let found = found.map_err(|e| Error::bad_request(e.message))?;
            found.into_iter().next().ok_or_else(|| {
                Error::bad_request(format!(
                    "No specific network was requested and none are available for project '{}'.",
                    server.project_id()
                ))
            })?
        } else {
            networks::one(&call.cx, &reader, &asked).map_err(missing)?
        }
    };
    let (row, port) = change(&call, &server.id, move |cx, tx, server| {
        check_unlocked(server, cx)?;
        Needs::vm(&[vm::ACTIVE, vm::PAUSED, vm::STOPPED]).check(server, "attach_interface")?;
        records::start_action(tx, cx, server, "attach_interface", "compute_attach_interface");
        let nic = networks::plug(tx, cx, server, &wanted, None)?;
        let port = nic.port_id.clone();
        server.nics.push(nic);
        server.intent += 1;
        records::finish_action(tx, &mut server.body, None);
        Ok(port)
    })
    .await?;
    shown_interface(&call, &Object::from_map(row)?, &port)
}

async fn detach_interface(call: Call) -> Result<Reply> {
    let server: Object<Server> = visible(&call, call.param("id"))?;
    call.require("os_compute_api:os-attach-interfaces:delete", Some(&server.map))?;
    let port = call.param("port").to_owned();
    change(&call, &server.id, move |cx, tx, server| {
        check_unlocked(server, cx)?;
        Needs::vm(&[vm::ACTIVE, vm::PAUSED, vm::STOPPED]).check(server, "detach_interface")?;
        let at = server.nics.iter().position(|n| n.port_id == port);
        let at = at.ok_or_else(|| Error::not_found(format!("Port {port} could not be found.")))?;
        records::start_action(tx, cx, server, "detach_interface", "compute_detach_interface");
        let nic = server.nics.remove(at);
        records::release_port(tx, cx, &nic)?;
        server.intent += 1;
        records::finish_action(tx, &mut server.body, None);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

// --- instance actions ---

/// The server, also one that was deleted lately.
fn remembered(call: &Call, reader: &Reader<'_>) -> Result<Map> {
    let id = call.param("id");
    let row = reader.get(&Server::DEF.table, id).or_else(|| at(&call.cx, 21).then(|| reader.get(&DELETED, id)).flatten());
    let row = row.filter(|r| is_shown(Server::DEF, &call.cx, reader, object(r)));
    row.map(|r| object(&r).clone()).ok_or_else(|| resource::engine::not_found(Server::DEF, id))
}

fn action_view(cx: &Cx, row: &Map) -> Map {
    let mut out = crate::common::map(json!({
        "action": row.get("action"), "instance_uuid": row.get("instance_uuid"), "request_id": row.get("request_id"),
        "user_id": row.get("user_id"), "project_id": row.get("project_id"), "message": row.get("message"),
    }));
    let time = |key: &str| row.get(key).and_then(Value::as_i64).map_or(Value::Null, |t| base::Timestamp(t).micros().into());
    out.insert("start_time".into(), time("start_time"));
    if at(cx, 58) {
        out.insert("updated_at".into(), time("updated_at"));
    }
    out
}

async fn instance_actions(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let server = remembered(&call, &reader)?;
    let cx = &call.cx;
    let mut rows = reader.find(&ACTIONS, "instance_uuid", text(&server, "id"));
    rows.sort_by_key(|r| std::cmp::Reverse(r.field("start_time").as_i64()));
    if !at(cx, 58) {
        let list: Vec<Map> = rows.iter().map(|r| action_view(cx, object(r))).collect();
        return Ok(Reply::ok(json!({ "instanceActions": list })));
    }
    let time = |key: &str| match cx.query.get(key) {
        None => Ok(None),
        Some(t) => base::Timestamp::parse(t).map(|t| Some(t.0)).ok_or_else(|| {
            Error::bad_request(format!("Invalid input for query parameters {key}. Value: {t}. It is not a 'date-time'."))
        }),
    };
    let (since, before) = (time("changes-since")?, if at(cx, 66) { time("changes-before")? } else { None });
    if since.zip(before).is_some_and(|(s, b)| b < s) {
        return Err(Error::bad_request("The value of changes-since must be less than or equal to changes-before."));
    }
    if let Some(key) =
        cx.query.keys().find(|k| !(matches!(*k, "limit" | "marker" | "changes-since") || at(cx, 66) && *k == "changes-before"))
    {
        return Err(Error::bad_request(format!("Additional properties are not allowed ('{key}' was unexpected)")));
    }
    let changed = |r: &std::sync::Arc<resource::Row>| r.field("updated_at").as_i64().unwrap_or(0);
    rows.retain(|r| since.is_none_or(|t| changed(r) >= t) && before.is_none_or(|t| changed(r) <= t));
    let (rows, more) = paged(cx, rows, 1000, |r| r.text("request_id"))?;
    let list: Vec<Map> = rows.iter().map(|r| action_view(cx, object(r))).collect();
    let mut body = crate::common::map(json!({ "instanceActions": list }));
    if let (true, Some(last)) = (more, rows.last()) {
        let path = format!("/v2.1/servers/{}/os-instance-actions", text(&server, "id"));
        body.insert(
            "links".into(),
            json!([{ "rel": "next", "href": super::list::next_link(cx, &path, last.text("request_id")) }]),
        );
    }
    Ok(Reply::ok(body.into()))
}

async fn instance_action(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let cx = &call.cx;
    let server = remembered(&call, &reader)?;
    let request = call.param("request");
    let row = reader.get(&ACTIONS, &format!("{}:{request}", text(&server, "id")));
    let row = row.ok_or_else(|| Error::not_found(format!("Action {request} not found")))?;
    let mut out = action_view(cx, object(&row));
    let all = cx.may("os_compute_api:os-instance-actions:events", None);
    if all || at(cx, 51) {
        let events = row.field("events").as_array().cloned().unwrap_or_default();
        let project = text(object(&row), "project_id").to_owned();
        out.insert("events".into(), events.iter().filter_map(Value::as_object).map(|e| event(cx, e, &project, all)).collect());
    }
    Ok(Reply::ok(json!({ "instanceAction": out })))
}

fn event(cx: &Cx, event: &Map, project: &str, all: bool) -> Value {
    let time = |key: &str| event.get(key).and_then(Value::as_i64).map_or(Value::Null, |t| base::Timestamp(t).micros().into());
    let mut out = crate::common::map(json!({ "event": event.get("event"), "result": event.get("result") }));
    out.insert("start_time".into(), time("start_time"));
    out.insert("finish_time".into(), time("finish_time"));
    if all {
        out.insert("traceback".into(), Value::Null);
    }
    if at(cx, 62) {
        out.insert("hostId".into(), view::host_id(project, text(event, "host")).into());
        if all {
            out.insert("host".into(), event.get("host").cloned().unwrap_or(Value::Null));
        }
    }
    if at(cx, 84) && all {
        out.insert("details".into(), event.get("details").cloned().unwrap_or(Value::Null));
    }
    out.into()
}

pub(crate) fn routes() -> Vec<Route> {
    let any = Access::Authenticated;
    let reader = |name| Access::Rule(name, "reader");
    vec![
        Route::new("GET", "/v2.1/servers/{id}/metadata", reader("os_compute_api:server-metadata:index"), metadata),
        Route::new("POST", "/v2.1/servers/{id}/metadata", any, add_metadata),
        Route::new("PUT", "/v2.1/servers/{id}/metadata", any, replace_metadata),
        Route::new("GET", "/v2.1/servers/{id}/metadata/{key}", reader("os_compute_api:server-metadata:show"), metadata_item),
        Route::new("PUT", "/v2.1/servers/{id}/metadata/{key}", any, set_metadata_item),
        Route::new("DELETE", "/v2.1/servers/{id}/metadata/{key}", any, delete_metadata_item),
        Route::new("GET", "/v2.1/servers/{id}/tags", reader("os_compute_api:os-server-tags:index"), tags).since("2.26"),
        Route::new("PUT", "/v2.1/servers/{id}/tags", any, replace_tags).since("2.26"),
        Route::new("DELETE", "/v2.1/servers/{id}/tags", any, delete_tags).since("2.26"),
        Route::new("GET", "/v2.1/servers/{id}/tags/{tag}", reader("os_compute_api:os-server-tags:show"), tag).since("2.26"),
        Route::new("PUT", "/v2.1/servers/{id}/tags/{tag}", any, add_tag).since("2.26"),
        Route::new("DELETE", "/v2.1/servers/{id}/tags/{tag}", any, delete_tag).since("2.26"),
        Route::new("GET", "/v2.1/servers/{id}/os-interface", reader("os_compute_api:os-attach-interfaces:list"), interfaces),
        Route::new("POST", "/v2.1/servers/{id}/os-interface", any, attach_interface),
        Route::new(
            "GET",
            "/v2.1/servers/{id}/os-interface/{port}",
            reader("os_compute_api:os-attach-interfaces:show"),
            show_interface,
        ),
        Route::new("DELETE", "/v2.1/servers/{id}/os-interface/{port}", any, detach_interface),
        Route::new(
            "GET",
            "/v2.1/servers/{id}/os-instance-actions",
            reader("os_compute_api:os-instance-actions:list"),
            instance_actions,
        ),
        Route::new(
            "GET",
            "/v2.1/servers/{id}/os-instance-actions/{request}",
            reader("os_compute_api:os-instance-actions:show"),
            instance_action,
        ),
    ]
}
