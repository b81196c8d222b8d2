//! What is shown beside plain fields: attachments of volumes, links to hosts, and what only some versions or callers see.
use crate::{
    common::{at, flag, map, micros, object, object_at, text},
    hosts,
    resources::{Attachment, VolumeType},
};
use api::Cx;
use resource::{Map, Reader, Resource as _};
use serde_json::{Value, json};

/// Extra specs that every user may see.
const OPEN_SPECS: [&str; 3] = ["multiattach", "RESKEY:availability_zones", "replication_enabled"];

/// An attachment as its volume shows it.
fn in_volume(a: &Map, cx: &Cx) -> Value {
    let user = user_of(a);
    json!({
        "id": text(a, "volume_id"), "attachment_id": text(a, "id"), "volume_id": text(a, "volume_id"),
        "server_id": if user.is_empty() { Value::Null } else { user.into() },
        "host_name": if cx.is_admin() { a.get("attached_host").cloned().unwrap_or(Value::Null) } else { Value::Null },
        "device": a.get("mountpoint"), "attached_at": micros(a, "attached_at"),
    })
}

fn user_of(a: &Map) -> &str {
    Some(text(a, "consumer")).filter(|c| !c.is_empty()).unwrap_or_else(|| text(a, "instance"))
}

/// Metadata as users see it: what the service knows besides is part of it.
pub(crate) fn metadata(row: &Map) -> Map {
    let mut out = object_at(row, "metadata").cloned().unwrap_or_default();
    out.extend(object_at(row, "admin_metadata").cloned().unwrap_or_default());
    out
}

pub(crate) fn volume(row: &Map, out: &mut Map, cx: &Cx, reader: &Reader<'_>) {
    let id = text(row, "id");
    let attached = reader.find(&Attachment::DEF.table, "volume_id", id);
    let attached: Vec<Value> = attached
        .iter()
        .map(|r| object(r))
        .filter(|a| {
            text(a, "attach_status") == "attached"
                || (text(a, "attach_status") == "detaching" && a.get("attached_at").is_some_and(Value::is_i64))
        })
        .map(|a| in_volume(a, cx))
        .collect();
    let type_id = text(row, "volume_type_id");
    let kind = reader.get(&VolumeType::DEF.table, type_id).map(|t| t.text("name").to_owned());
    let size = row.get("grows_from").filter(|s| s.is_u64()).or_else(|| row.get("size"));
    out.extend(map(json!({
        "size": size, "attachments": attached, "volume_type": kind, "metadata": metadata(row),
        "bootable": if flag(row, "bootable") { "true" } else { "false" },
    })));
    if cx.is_admin() {
        out.insert("migration_status".into(), row.get("migration_status").cloned().unwrap_or(Value::Null));
    }
    let since: [(u16, &str, Value); 5] = [
        (13, "group_id", row.get("group_id").cloned().unwrap_or(Value::Null)),
        (48, "shared_targets", if at(cx, 69) { Value::Null } else { false.into() }),
        (48, "service_uuid", service_id(row)),
        (63, "volume_type_id", row.get("volume_type_id").cloned().unwrap_or(Value::Null)),
        (65, "consumes_quota", true.into()),
    ];
    for (_, name, value) in since.into_iter().filter(|(m, _, _)| at(cx, *m)) {
        out.insert(name.into(), value);
    }
    if cx.is_admin() && at(cx, 21) {
        out.insert("provider_id".into(), Value::Null);
    }
    if cx.is_admin() && at(cx, 61) {
        out.insert("cluster_name".into(), Value::Null);
    }
}

/// The same id for the same host in every answer.
fn service_id(row: &Map) -> Value {
    match text(row, "host") {
        "" => Value::Null,
        host => base::id::named(&format!("cinder-volume@{host}")).into(),
    }
}

/// What show and detailed lists have besides; creates and updates do not.
pub(crate) fn extend_volume(row: &Map, out: &mut Map, cx: &Cx) {
    out.insert("os-vol-tenant-attr:tenant_id".into(), text(row, "project_id").into());
    if cx.is_admin() {
        let host = text(row, "host");
        out.extend(map(json!({
            "os-vol-host-attr:host": if host.is_empty() { Value::Null } else { hosts::pool_of(host).into() },
            "os-vol-mig-status-attr:migstat": row.get("migration_status"), "os-vol-mig-status-attr:name_id": null,
        })));
    }
    if let Some(image) = object_at(row, "volume_image_metadata").filter(|m| !m.is_empty()) {
        out.insert("volume_image_metadata".into(), image.clone().into());
    }
}

pub(crate) fn snapshot(row: &Map, out: &mut Map, cx: &Cx) {
    out.insert("size".into(), row.get("volume_size").cloned().unwrap_or(Value::Null));
    if at(cx, 14) {
        out.insert("group_snapshot_id".into(), row.get("group_snapshot_id").cloned().unwrap_or(Value::Null));
    }
    if at(cx, 65) {
        out.insert("consumes_quota".into(), true.into());
    }
    out.remove("links");
}

/// What show and detailed lists have besides.
pub(crate) fn extend_snapshot(row: &Map, out: &mut Map) {
    out.insert("os-extended-snapshot-attributes:progress".into(), text(row, "progress").into());
    out.insert("os-extended-snapshot-attributes:project_id".into(), text(row, "project_id").into());
}

pub(crate) fn attachment(row: &Map, out: &mut Map, _cx: &Cx, reader: &Reader<'_>) {
    let status = out.remove("attach_status").unwrap_or(Value::Null);
    let user = user_of(row);
    out.extend(map(json!({
        "status": status, "instance": if user.is_empty() { Value::Null } else { user.into() },
        "attached_at": micros(row, "attached_at"), "detached_at": micros(row, "detached_at"),
        "connection_info": connection(row, reader),
    })));
}

/// How the consumer reaches the data, where it plugs by itself.
pub(crate) fn connection(row: &Map, reader: &Reader<'_>) -> Value {
    let seen = reader.get(&crate::common::SEEN, text(row, "volume_id"));
    let exports = seen.as_ref().and_then(|s| s.field("exports").as_array().cloned()).unwrap_or_default();
    let Some(export) = exports.iter().find(|e| e["attachment_id"] == text(row, "id")) else { return json!({}) };
    json!({
        "driver_volume_type": hosts::PROTOCOL, "endpoint": export["endpoint"], "export": export["export"],
        "access_mode": text(row, "attach_mode"), "attachment_id": text(row, "id"), "volume_id": text(row, "volume_id"),
        "encrypted": false, "qos_specs": null, "cacheable": false,
    })
}

pub(crate) fn volume_type(row: &Map, out: &mut Map, cx: &Cx) {
    out.insert("os-volume-type-access:is_public".into(), row.get("is_public").cloned().unwrap_or(Value::Bool(true)));
    if cx.is_admin() {
        out.insert("qos_specs_id".into(), row.get("qos_specs_id").cloned().unwrap_or(Value::Null));
        return;
    }
    if let Some(Value::Object(specs)) = out.get_mut("extra_specs") {
        specs.retain(|key, _| OPEN_SPECS.contains(&key.as_str()));
    }
}
