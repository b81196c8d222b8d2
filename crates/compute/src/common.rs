//! What handlers of this service share: who asks, which row is meant, and other services' tables.
use api::{Call, Cx, Error, Map, Result};
use resource::{Object, Reader, Resource, ResourceDef, Row};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use store::{Index, Table, Tx};

pub(crate) static PROVIDERS: Table = Table { name: "placement/resource_providers", indexes: &[] };
pub(crate) static ALLOCATIONS: Table = Table { name: "placement/allocations", indexes: &[] };
/// Numbers that grow: ids of aggregates, hypervisors and migrations.
pub(crate) static COUNTERS: Table = Table { name: "compute/counters", indexes: &[] };
/// User data of servers: too large for their rows.
pub(crate) static USER_DATA: Table = Table { name: "compute/user_data", indexes: &[] };
/// Images under way, by image id.
pub(crate) static SNAPSHOTS: Table = Table {
    name: "compute/snapshots",
    indexes: &[Index { name: "server_id", path: "/server_id" }, Index { name: "node_id", path: "/node_id" }],
};
/// What users asked of servers, for `os-instance-actions`.
pub(crate) static ACTIONS: Table =
    Table { name: "compute/actions", indexes: &[Index { name: "instance_uuid", path: "/instance_uuid" }] };
/// Servers that were deleted lately, as they were.
pub(crate) static DELETED: Table =
    Table { name: "compute/deleted", indexes: &[Index { name: "project_id", path: "/project_id" }] };
/// Console tokens by their hash.
pub(crate) static CONSOLES: Table =
    Table { name: "compute/consoles", indexes: &[Index { name: "server_id", path: "/server_id" }] };

/// Deleted servers and their actions are kept this long.
pub(crate) const DELETED_KEPT: Duration = Duration::from_secs(86_400);

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

/// A row of another service that the caller may see.
pub(crate) fn foreign(cx: &Cx, reader: &Reader<'_>, table: &str, id: &str) -> Result<Option<Arc<Row>>> {
    let def = cx.registry.get(table)?;
    Ok(reader.get(&def.table, id).filter(|r| is_shown(def, cx, reader, object(r))))
}

/// All rows of another service that the caller may see.
pub(crate) fn foreign_all(cx: &Cx, reader: &Reader<'_>, table: &str) -> Result<Vec<Arc<Row>>> {
    let def = cx.registry.get(table)?;
    Ok(reader.all(&def.table).filter(|r| is_shown(def, cx, reader, object(r))).cloned().collect())
}

pub(crate) fn is_shown(def: &ResourceDef, cx: &Cx, reader: &Reader<'_>, row: &Map) -> bool {
    (def.shows_deleting || !flag(row, "deleting")) && (def.hooks.visible)(row, cx, reader)
}

/// Rows of a foreign table by an index, or by a look at all where it is not declared.
pub(crate) fn by_index(reader: &Reader<'_>, table: &Table, index: &str, value: &str) -> Vec<Arc<Row>> {
    if reader.has_index(table, index) {
        return reader.find(table, index, value);
    }
    reader.all(table).filter(|r| r.text(index) == value).cloned().collect()
}

/// The row of this service that the caller may see, or 404.
pub(crate) fn visible<T: Resource>(call: &Call, id: &str) -> Result<Object<T>> {
    let reader = call.reader();
    let row = reader.get(&T::DEF.table, id).filter(|r| is_shown(T::DEF, &call.cx, &reader, object(r)));
    row.map(|r| Object::from_row(&r)).transpose()?.ok_or_else(|| resource::engine::not_found(T::DEF, id))
}

/// The next number of a sequence.
pub(crate) fn next_number(tx: &mut Tx<'_>, name: &str) -> i64 {
    let next = tx.get(&COUNTERS, name).and_then(|r| r.field("last").as_i64()).unwrap_or(0) + 1;
    tx.put(&COUNTERS, name, json!({ "last": next }));
    next
}

/// Marks an update of a row that the engine does not change by itself.
pub(crate) fn touch(map: &mut Map, now: base::Timestamp, request_id: &str) {
    let revision = map.get("revision").and_then(Value::as_u64).unwrap_or(0);
    map.insert("revision".into(), (revision + 1).into());
    map.insert("updated_at".into(), now.0.into());
    map.insert("request_id".into(), request_id.into());
}

pub(crate) fn seconds(map: &Map, key: &str) -> Value {
    map.get(key).and_then(Value::as_i64).map_or(Value::Null, |t| base::Timestamp(t).seconds_z().into())
}
pub(crate) fn micros(map: &Map, key: &str) -> Value {
    map.get(key).and_then(Value::as_i64).map_or(Value::Null, |t| base::Timestamp(t).micros().into())
}

/// The last part of a reference: clients may send a whole link where an id is meant.
pub(crate) fn id_of(reference: &str) -> &str {
    reference.split('?').next().unwrap_or_default().trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// `limit` and `marker` of lists that are no table's.
pub(crate) fn paged<T>(cx: &Cx, mut items: Vec<T>, most: usize, id: impl Fn(&T) -> &str) -> Result<(Vec<T>, bool)> {
    let limit = match cx.query.get("limit") {
        None => most,
        Some(text) => text.parse::<u64>().map(|n| if n == 0 { most } else { (n as usize).min(most) }).map_err(|_| {
            Error::bad_request(format!(
                "Invalid input for query parameters limit. Value: {text}. It must be a number that is not negative."
            ))
        })?,
    };
    if let Some(marker) = cx.query.get("marker") {
        let at = items
            .iter()
            .position(|i| id(i) == marker)
            .ok_or_else(|| Error::bad_request(format!("marker [{marker}] not found")))?;
        items.drain(..=at);
    }
    let more = items.len() > limit;
    items.truncate(limit);
    Ok((items, more))
}

/// 501 in Nova's words.
pub(crate) fn unsupported() -> Error {
    Error::not_implemented("Unable to use this function: it is not supported by this cloud.")
}
