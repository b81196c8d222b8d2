//! What handlers of this service share: rows as JSON, other services' tables, and whose row is meant.
use api::{Call, Cx, Error, Map, Result};
use resource::{Object, Reader, Resource, ResourceDef, Row, Tx};
use serde_json::Value;
use std::sync::Arc;
use store::{Index, Table};

/// What a storage node reported of a volume, by volume id; written by the nodes' side only.
pub(crate) static SEEN: Table = Table { name: "volume/seen", indexes: &[Index { name: "host", path: "/host" }] };
/// Attachments that their server's node has plugged, by attachment id; written by the nodes' side only.
pub(crate) static PLUGGED: Table = Table { name: "volume/plugged", indexes: &[Index { name: "server_id", path: "/server_id" }] };
/// Images to be made of volumes, by image id.
pub(crate) static UPLOADS: Table = Table { name: "volume/uploads", indexes: &[Index { name: "volume_id", path: "/volume_id" }] };

/// Is the request at this minor version or later?
pub(crate) fn at(cx: &Cx, minor: u16) -> bool {
    cx.version.1 >= minor
}

pub(crate) fn text<'a>(map: &'a Map, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).unwrap_or_default()
}
pub(crate) fn int(map: &Map, key: &str) -> i64 {
    map.get(key).and_then(Value::as_i64).unwrap_or_default()
}
pub(crate) fn flag(map: &Map, key: &str) -> bool {
    map.get(key).and_then(Value::as_bool).unwrap_or_default()
}
pub(crate) fn object(row: &Row) -> &Map {
    static EMPTY: std::sync::LazyLock<Map> = std::sync::LazyLock::new(Map::new);
    row.value().as_object().unwrap_or(&EMPTY)
}

/// Builds a JSON object in place.
pub(crate) fn map(value: Value) -> Map {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// The last part of a key of a table's row.
pub(crate) fn id_of(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or_default()
}

/// `true` and `false` as Cinder writes them into metadata.
pub(crate) fn title(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

pub(crate) fn is_shown(def: &ResourceDef, cx: &Cx, reader: &Reader<'_>, row: &Map) -> bool {
    (def.shows_deleting || !flag(row, "deleting")) && (def.hooks.visible)(row, cx, reader)
}

/// A row of another service that the caller may see; it is compared at the commit.
pub(crate) fn foreign_in(tx: &mut Tx<'_>, cx: &Cx, table: &str, id: &str) -> Result<Option<Arc<Row>>> {
    let def = cx.registry.get(table)?;
    let Some(row) = tx.get(&def.table, id) else { return Ok(None) };
    Ok(is_shown(def, cx, tx.before(), object(&row)).then_some(row))
}

/// The row of this service that the caller may see, or 404.
pub(crate) fn visible<T: Resource>(call: &Call, id: &str) -> Result<Object<T>> {
    let reader = call.reader();
    let row = reader.get(&T::DEF.table, id).filter(|r| is_shown(T::DEF, &call.cx, &reader, object(r)));
    row.map(|r| Object::from_row(&r)).transpose()?.ok_or_else(|| missing(T::DEF, id))
}

/// The row in the transaction when it is the caller's own project's or the caller administers; otherwise 404.
pub(crate) fn own<T: Resource>(tx: &mut Tx<'_>, cx: &Cx, id: &str) -> Result<Object<T>> {
    let found: Option<Object<T>> = if T::DEF.shows_deleting { resource::load_any(tx, id)? } else { resource::load(tx, id)? };
    found.filter(|o| is_own(cx, o.project_id())).ok_or_else(|| missing(T::DEF, id))
}

pub(crate) fn is_own(cx: &Cx, project: &str) -> bool {
    cx.caller.project_id() == Some(project) || cx.is_admin()
}

pub(crate) fn missing(def: &ResourceDef, id: &str) -> Error {
    resource::engine::not_found(def, id)
}

/// Fails with 403 unless the caller satisfies the rule for the row.
pub(crate) fn require(call: &Call, rule: &str, row: &Map) -> Result<()> {
    call.require(rule, Some(row))
}

/// The context of what the service does in its own name.
pub(crate) fn service_cx(cloud: &api::Cloud, request_id: &str) -> Cx {
    let admin = auth::Role { id: "admin".into(), name: "admin".to_owned() };
    cloud.cx(Arc::new(auth::Caller::internal(vec![admin], "")), request_id)
}

/// Marks an update of a row that the engine does not change by itself.
pub(crate) fn touch(map: &mut Map, now: base::Timestamp, request_id: &str) {
    let revision = map.get("revision").and_then(Value::as_u64).unwrap_or(0);
    map.insert("revision".into(), (revision + 1).into());
    map.insert("updated_at".into(), now.0.into());
    map.insert("request_id".into(), request_id.into());
}

pub(crate) fn micros(map: &Map, key: &str) -> Value {
    map.get(key).and_then(Value::as_i64).map_or(Value::Null, |t| base::Timestamp(t).micros().into())
}

/// The caller with the administrator's role besides: for what the service does in its own name, in the caller's project.
pub(crate) fn elevated(cx: &Cx) -> Cx {
    let mut caller = (*cx.caller).clone();
    let mut roles: Vec<auth::Role> = caller.roles.iter().cloned().collect();
    if !caller.is_admin() {
        roles.push(auth::Role { id: "admin".into(), name: "admin".to_owned() });
    }
    caller.roles = auth::Roles::new(roles);
    Cx { caller: Arc::new(caller), ..cx.clone() }
}

/// May the caller use the type?
pub(crate) fn own_or_open(cx: &Cx, kind: &crate::resources::VolumeType) -> bool {
    cx.is_admin() || kind.is_open_to(cx.caller.project_id())
}

/// An object inside of a row.
pub(crate) fn object_at<'a>(row: &'a Map, field: &str) -> Option<&'a Map> {
    row.get(field).and_then(Value::as_object)
}
