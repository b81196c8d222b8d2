//! Volume attachments of servers (Nova api-ref, `os-volume_attachments`). The rows belong to the block storage service, whose rules
//! decide whether a volume may be attached; what is decided here is whether the server may have it.
use super::{
    change, records,
    state::{Needs, check_unlocked, vm},
};
use crate::{
    common::{at, by_index, flag, map, object, text, visible},
    nodes::volumes::{ATTACHMENTS, PLUGGED, VOLUMES, hold, of_server},
    resources::Server,
    shape::{self, Shape, opt, req},
};
use api::{Access, Call, Cx, Error, ErrorKind, Map, Reply, Result, Route};
use resource::{Object, Reader, Row, engine};
use serde_json::{Value, json};
use std::sync::Arc;

const DEVICE: Shape = Shape::OneOf(&[
    &Shape::Checked {
        min: 1,
        max: 255,
        check: is_device,
        what: "does not match '(^/dev/x{0,1}[a-z]{0,1}d{0,1})([a-z]+)[0-9]*$'",
    },
    &Shape::Null,
]);
const ATTACH: Shape = Shape::Object(&[req(
    "volumeAttachment",
    &Shape::Object(&[
        req("volumeId", &shape::UUID),
        opt("device", &DEVICE),
        opt("tag", &shape::TAG).since(49),
        opt("delete_on_termination", &Shape::Bool).since(79),
    ]),
)]);
const UPDATE: Shape = Shape::Object(&[req(
    "volumeAttachment",
    &Shape::Object(&[
        req("volumeId", &shape::UUID),
        opt("device", &DEVICE),
        opt("tag", &shape::TAG).since(85),
        opt("delete_on_termination", &Shape::Bool).since(85),
        opt("serverId", &shape::UUID).since(85),
        opt("id", &shape::UUID).since(85),
    ]),
)]);
const CHANGEABLE: &[&str] = &[vm::ACTIVE, vm::PAUSED, vm::STOPPED, vm::RESIZED, vm::SOFT_DELETED, vm::SHELVED, vm::OFFLOADED];
const DETACHABLE: &[&str] =
    &[vm::ACTIVE, vm::PAUSED, vm::SUSPENDED, vm::STOPPED, vm::RESIZED, vm::SOFT_DELETED, vm::SHELVED, vm::OFFLOADED];

fn is_device(name: &str) -> bool {
    let rest = name.strip_prefix("/dev/").unwrap_or(name);
    let letters = rest.trim_end_matches(|c: char| c.is_ascii_digit());
    !letters.is_empty() && letters.bytes().all(|b| b.is_ascii_lowercase())
}

/// Attachments of a server, in the order of its disks. One that ended is not shown.
fn of(reader: &Reader<'_>, server: &str) -> Vec<Arc<Row>> {
    let mut rows = by_index(reader, &ATTACHMENTS, "instance", server);
    let at = |row: &Arc<Row>| (row.text("mountpoint").len(), row.text("mountpoint").to_owned());
    rows.sort_by_key(at);
    rows
}

/// `os-extended-volumes:volumes_attached`.
pub(crate) fn of_view(cx: &Cx, reader: &Reader<'_>, server: &str) -> Value {
    let one = |row: &Arc<Row>| {
        let row = object(row);
        match at(cx, 3) {
            true => json!({ "id": text(row, "volume_id"), "delete_on_termination": flag(row, "delete_on_termination") }),
            false => json!({ "id": text(row, "volume_id") }),
        }
    };
    of(reader, server).iter().map(one).collect()
}

fn view(cx: &Cx, row: &Map) -> Value {
    let volume = text(row, "volume_id");
    let mut out = map(json!({ "volumeId": volume, "serverId": text(row, "instance"), "device": row.get("mountpoint") }));
    if at(cx, 89) {
        out.insert("attachment_id".into(), text(row, "id").into());
        out.insert("bdm_uuid".into(), text(row, "id").into());
    } else {
        out.insert("id".into(), volume.into());
    }
    if at(cx, 70) {
        out.insert("tag".into(), row.get("tag").cloned().unwrap_or(Value::Null));
    }
    if at(cx, 79) {
        out.insert("delete_on_termination".into(), flag(row, "delete_on_termination").into());
    }
    out.into()
}

async fn list(call: Call) -> Result<Reply> {
    let server: Object<Server> = visible(&call, call.param("id"))?;
    let reader = call.reader();
    let rows = crate::proxies::limited(&call.cx, of(&reader, &server.id))?;
    let all: Vec<Value> = rows.iter().map(|r| view(&call.cx, object(r))).collect();
    Ok(Reply::ok(json!({ "volumeAttachments": all })))
}

fn not_attached(server: &str, volume: &str) -> Error {
    Error::not_found(format!("Instance {server} is not attached to volume {volume}"))
}

async fn show(call: Call) -> Result<Reply> {
    let server: Object<Server> = visible(&call, call.param("id"))?;
    let volume = call.param("volume");
    let reader = call.reader();
    let row = of(&reader, &server.id).into_iter().find(|r| r.text("volume_id") == volume);
    let row = row.ok_or_else(|| not_attached(&server.id, volume))?;
    Ok(Reply::ok(json!({ "volumeAttachment": view(&call.cx, object(&row)) })))
}

/// The next disk that the guest has none of: what the user asked for is not what a guest calls it, so it is not promised.
fn next_device(taken: &[Arc<Row>]) -> String {
    let name = |i: u32| {
        let letter = |n: u32| char::from(b'a' + u8::try_from(n % 26).unwrap_or(0));
        if i < 26 { format!("/dev/vd{}", letter(i)) } else { format!("/dev/vd{}{}", letter(i / 26 - 1), letter(i)) }
    };
    let is_free = |name: &String| taken.iter().all(|r| r.text("mountpoint") != name);
    (1..700).map(name).find(is_free).unwrap_or_else(|| "/dev/vdzz".to_owned())
}

async fn attach(call: Call) -> Result<Reply> {
    let server: Object<Server> = visible(&call, call.param("id"))?;
    call.require("os_compute_api:os-volumes-attachments:create", Some(&server.map))?;
    ATTACH.check(call.json(), &call.cx)?;
    let body = &call.json()["volumeAttachment"];
    let volume = body["volumeId"].as_str().unwrap_or_default().to_owned();
    let asked = body["device"].as_str().map(str::to_owned);
    let tag = body.get("tag").cloned().unwrap_or(Value::Null);
    let delete = body.get("delete_on_termination").and_then(shape::as_bool).unwrap_or(false);
    let (_, made) = change(&call, &server.id, move |cx, tx, server| {
        check_unlocked(server, cx)?;
        Needs::vm(CHANGEABLE).check(server, "attach_volume")?;
        let taken = of_server(tx, &server.id);
        let in_use = |name: &str| taken.iter().any(|r| r.text("mountpoint") == name) || name == "/dev/vda";
        if let Some(asked) = asked.as_deref().filter(|a| in_use(a)) {
            return Err(Error::conflict(format!("The supplied device path ({asked}) is in use.")));
        }
        let shared = tx.get(&VOLUMES, &volume).is_some_and(|v| v.field("multiattach") == true);
        if shared && !at(cx, 60) {
            return Err(Error::bad_request(format!(
                "Multiattach volumes are only supported starting with compute API version 2.60. Volume {volume} is one."
            )));
        }
        records::start_action(tx, cx, server, "attach_volume", "compute_attach_volume");
        let input = map(json!({
            "volume_id": volume, "instance": server.id, "attach_mode": "rw", "mountpoint": next_device(&taken), "wanted": true,
            "delete_on_termination": delete, "tag": tag, "epoch": server.epoch.max(1),
        }));
        let made = engine::create(tx, cx.registry.get(ATTACHMENTS.name)?, cx, &input).map_err(|e| match e.kind {
            ErrorKind::NotFound => Error::not_found(format!("Volume {volume} could not be found.")),
            _ => e,
        })?;
        // A server that is on no node holds it at once; its next node plugs it.
        if server.host.is_none()
            && let Some(row) = tx.get(&ATTACHMENTS, text(&made, "id"))
        {
            hold(tx, &row, "");
        }
        records::finish_action(tx, &mut server.body, None);
        engine::tell(tx, &server.id, &cx.request_id, &format!("Volume {volume} was attached by user {}", cx.caller.user_id()));
        Ok(made)
    })
    .await?;
    Ok(Reply::ok(json!({ "volumeAttachment": view(&call.cx, &made) })))
}

async fn detach(call: Call) -> Result<Reply> {
    let server: Object<Server> = visible(&call, call.param("id"))?;
    call.require("os_compute_api:os-volumes-attachments:delete", Some(&server.map))?;
    let volume = call.param("volume").to_owned();
    change(&call, &server.id, move |cx, tx, server| {
        let row = of_server(tx, &server.id).into_iter().find(|r| r.text("volume_id") == volume);
        let row = row.ok_or_else(|| not_attached(&server.id, &volume))?;
        check_unlocked(server, cx)?;
        Needs::vm(DETACHABLE).check(server, "detach_volume")?;
        if flag(object(&row), "boot") {
            return Err(Error::forbidden("Cannot detach a root device volume"));
        }
        if !flag(object(&row), "wanted") {
            return Err(Error::bad_request(format!(
                "Invalid volume: Invalid input received: Invalid volume: Unable to detach volume {volume}: it is being detached already."
            )));
        }
        records::start_action(tx, cx, server, "detach_volume", "compute_detach_volume");
        let input = map(json!({ "wanted": false }));
        engine::update(tx, cx.registry.get(ATTACHMENTS.name)?, &crate::common::elevated(cx), row.id(), &input)?;
        if server.host.is_none() {
            tx.delete(&PLUGGED, row.id());
        }
        records::finish_action(tx, &mut server.body, None);
        engine::tell(tx, &server.id, &cx.request_id, &format!("User {} asked to detach volume {volume}", cx.caller.user_id()));
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

/// Changes `delete_on_termination`; another volume in the place of this one is refused.
async fn update(call: Call) -> Result<Reply> {
    let server: Object<Server> = visible(&call, call.param("id"))?;
    UPDATE.check(call.json(), &call.cx)?;
    let body = &call.json()["volumeAttachment"];
    let volume = call.param("volume").to_owned();
    let is_swap = body["volumeId"].as_str() != Some(&volume);
    let rule = if is_swap { "swap" } else { "update" };
    call.require(&format!("os_compute_api:os-volumes-attachments:{rule}"), Some(&server.map))?;
    let row = {
        let reader = call.reader();
        of(&reader, &server.id).into_iter().find(|r| r.text("volume_id") == volume)
    };
    let row = row.ok_or_else(|| not_attached(&server.id, &volume))?;
    if is_swap {
        return Err(Error::conflict(format!(
            "Volume {volume} cannot be swapped while it is attached to instance {}; detach it and attach the other one.",
            server.id
        )));
    }
    if !at(&call.cx, 85) {
        return Err(Error::bad_request(format!("Volume {volume} cannot be swapped with itself.")));
    }
    let same = |key: &str, is: &str| body.get(key).and_then(Value::as_str).is_none_or(|v| v == is);
    let unchanged =
        [("device", row.text("mountpoint")), ("tag", row.text("tag")), ("serverId", server.id.as_str()), ("id", volume.as_str())];
    if let Some((key, _)) = unchanged.into_iter().find(|(key, is)| !same(key, is)) {
        return Err(Error::bad_request(format!("Updating the {key} of a volume attachment is not supported.")));
    }
    if let Some(delete) = body.get("delete_on_termination").and_then(shape::as_bool) {
        let id = row.id().to_owned();
        call.transact(move |cx, tx| {
            let input = map(json!({ "delete_on_termination": delete }));
            engine::update(tx, cx.registry.get(ATTACHMENTS.name)?, &crate::common::elevated(cx), &id, &input)
        })
        .await?;
    }
    Ok(Reply::empty(202))
}

pub(crate) fn routes() -> Vec<Route> {
    let any = Access::Authenticated;
    let reader = |name| Access::Rule(name, "reader");
    let all = "/v2.1/servers/{id}/os-volume_attachments";
    let one = "/v2.1/servers/{id}/os-volume_attachments/{volume}";
    vec![
        Route::new("GET", all, reader("os_compute_api:os-volumes-attachments:index"), list),
        Route::new("POST", all, any, attach),
        Route::new("GET", one, reader("os_compute_api:os-volumes-attachments:show"), show),
        Route::new("PUT", one, any, update),
        Route::new("DELETE", one, any, detach),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names() {
        for (name, is) in
            [("/dev/vdb", true), ("vdb", true), ("/dev/sdb1", true), ("/dev/", false), ("/tmp/x/y", false), ("", false)]
        {
            assert_eq!(is_device(name), is, "{name}");
        }
        assert_eq!(next_device(&[]), "/dev/vdb");
    }
}
