//! Volumes and their snapshots through the old road (Nova api-ref, `os-volumes` and `os-snapshots`, until 2.35): the block storage
//! service's rows in Nova's shape.
use crate::{
    common::{by_index, foreign, foreign_all, int, map, object, text},
    nodes::volumes::{ATTACHMENTS, VOLUMES},
    shape::{self, Shape, opt, req},
};
use api::{Access, Call, Error, Map, Reply, Result, Route};
use resource::engine;
use serde_json::{Value, json};
use std::sync::Arc;
use store::Row;

const SNAPSHOTS: &str = "volume/snapshots";
const ANY_TEXT: Shape = Shape::OneOf(&[&shape::TEXT, &Shape::Null]);
const VOLUME: Shape = Shape::Object(&[req(
    "volume",
    &Shape::Object(&[
        req("size", &shape::POSITIVE),
        opt("volume_type", &ANY_TEXT),
        opt("metadata", &Shape::OneOf(&[&Shape::Open(&[]), &Shape::Null])),
        opt("snapshot_id", &ANY_TEXT),
        opt("availability_zone", &ANY_TEXT),
        opt("display_name", &ANY_TEXT),
        opt("display_description", &ANY_TEXT),
    ]),
)]);
const SNAPSHOT: Shape = Shape::Object(&[req(
    "snapshot",
    &Shape::Object(&[
        req("volume_id", &shape::TEXT),
        opt("force", &Shape::Bool),
        opt("display_name", &ANY_TEXT),
        opt("display_description", &ANY_TEXT),
    ]),
)]);

fn created(row: &Map) -> Value {
    row.get("created_at").and_then(Value::as_i64).map_or(Value::Null, |t| base::Timestamp(t).micros().into())
}

fn volume(call: &Call, row: &Map) -> Map {
    let id = text(row, "id");
    let reader = call.reader();
    let attachment =
        |a: &Arc<Row>| json!({ "id": id, "device": a.text("mountpoint"), "volumeId": id, "serverId": a.text("instance") });
    let mut attachments: Vec<Value> = by_index(&reader, &ATTACHMENTS, "volume_id", id).iter().map(attachment).collect();
    if attachments.is_empty() {
        attachments.push(json!({}));
    }
    let kind = row.get("volume_type_id").and_then(Value::as_str).and_then(|id| {
        let types = call.cx.registry.get("volume/types").ok()?;
        Some(reader.get(&types.table, id)?.text("name").to_owned())
    });
    map(json!({
        "id": id, "status": text(row, "status"), "size": int(row, "size"), "availabilityZone": text(row, "availability_zone"),
        "createdAt": created(row), "attachments": attachments, "displayName": row.get("name"),
        "displayDescription": row.get("description"), "volumeType": kind, "snapshotId": row.get("snapshot_id"),
        "metadata": row.get("metadata").cloned().unwrap_or_else(|| json!({})),
    }))
}

fn snapshot(_: &Call, row: &Map) -> Map {
    map(json!({
        "id": text(row, "id"), "status": text(row, "status"), "size": int(row, "volume_size"), "createdAt": created(row),
        "displayName": row.get("name"), "displayDescription": row.get("description"), "volumeId": text(row, "volume_id"),
    }))
}

/// One of the two kinds.
#[derive(Clone, Copy)]
struct Kind {
    table: &'static str,
    one: &'static str,
    all: &'static str,
    view: fn(&Call, &Map) -> Map,
}
const OF_VOLUMES: Kind = Kind { table: VOLUMES.name, one: "volume", all: "volumes", view: volume };
const OF_SNAPSHOTS: Kind = Kind { table: SNAPSHOTS, one: "snapshot", all: "snapshots", view: snapshot };

fn missing(kind: Kind, id: &str) -> Error {
    let name = if kind.one == "volume" { "Volume" } else { "Snapshot" };
    Error::not_found(format!("{name} {id} could not be found."))
}

fn look(call: &Call, kind: Kind) -> Result<Arc<Row>> {
    let id = call.param("id");
    foreign(&call.cx, &call.reader(), kind.table, id)?.ok_or_else(|| missing(kind, id))
}

async fn list(call: Call, kind: Kind) -> Result<Reply> {
    let mut rows = {
        let reader = call.reader();
        foreign_all(&call.cx, &reader, kind.table)?
    };
    let project = call.cx.project()?;
    rows.retain(|r| r.text("project_id") == project);
    // The newest first, as the block storage service lists them.
    rows.sort_by_key(|r| (std::cmp::Reverse(int(object(r), "created_at")), r.id().to_owned()));
    let rows = super::limited(&call.cx, rows)?;
    let all: Vec<Map> = rows.iter().map(|r| (kind.view)(&call, object(r))).collect();
    Ok(Reply::ok(json!({ kind.all: all })))
}

async fn show(call: Call, kind: Kind) -> Result<Reply> {
    let row = look(&call, kind)?;
    Ok(Reply::ok(json!({ kind.one: (kind.view)(&call, object(&row)) })))
}

async fn delete(call: Call, kind: Kind) -> Result<Reply> {
    let id = look(&call, kind)?.id().to_owned();
    call.transact(move |cx, tx| engine::delete(tx, cx.registry.get(kind.table)?, cx, &id)).await?;
    Ok(Reply::empty(202))
}

async fn create(call: Call, kind: Kind) -> Result<Reply> {
    let shape = if kind.one == "volume" { &VOLUME } else { &SNAPSHOT };
    shape.check(call.json(), &call.cx)?;
    let mut input = Map::new();
    for (key, value) in call.inner(kind.one)? {
        let key = match key.as_str() {
            "display_name" => "name",
            "display_description" => "description",
            "volume_id" | "force" | "metadata" | "snapshot_id" | "volume_type" | "availability_zone" => key,
            "size" => {
                // Numbers come as text, too.
                input.insert(key.clone(), shape::as_int(value).unwrap_or(0).into());
                continue;
            }
            _ => continue,
        };
        if !value.is_null() {
            input.insert(key.to_owned(), value.clone());
        }
    }
    if let Some(force) = input.get("force").and_then(shape::as_bool) {
        input.insert("force".into(), force.into());
    }
    let made = call.transact(move |cx, tx| engine::create(tx, cx.registry.get(kind.table)?, cx, &input)).await?;
    Ok(Reply::ok(json!({ kind.one: (kind.view)(&call, &made) })))
}

/// `GET` and `DELETE` of an empty id.
async fn lost(_: Call) -> Result<Reply> {
    Err(Error::not_found("The resource could not be found."))
}

pub(super) fn routes() -> Vec<Route> {
    let write = |name| Access::Rule(name, "member");
    let (make, end) = (write("os_compute_api:os-volumes:create"), write("os_compute_api:os-volumes:delete"));
    let (copy, forget) =
        (write("os_compute_api:os-volumes:snapshots:create"), write("os_compute_api:os-volumes:snapshots:delete"));
    let read = |name| Access::Rule(name, "reader");
    let (list_snapshots, detail_snapshots, show_snapshot) = (
        read("os_compute_api:os-volumes:snapshots:list"),
        read("os_compute_api:os-volumes:snapshots:detail"),
        read("os_compute_api:os-volumes:snapshots:show"),
    );
    [
        Route::new("GET", "/v2.1/os-volumes", read("os_compute_api:os-volumes:list"), |c| list(c, OF_VOLUMES)),
        Route::new("POST", "/v2.1/os-volumes", make, |c| create(c, OF_VOLUMES)),
        Route::new("DELETE", "/v2.1/os-volumes", Access::Authenticated, lost),
        Route::new("GET", "/v2.1/os-volumes/detail", read("os_compute_api:os-volumes:detail"), |c| list(c, OF_VOLUMES)),
        Route::new("GET", "/v2.1/os-volumes/{id}", read("os_compute_api:os-volumes:show"), |c| show(c, OF_VOLUMES)),
        Route::new("DELETE", "/v2.1/os-volumes/{id}", end, |c| delete(c, OF_VOLUMES)),
        Route::new("GET", "/v2.1/os-snapshots", list_snapshots, |c| list(c, OF_SNAPSHOTS)),
        Route::new("POST", "/v2.1/os-snapshots", copy, |c| create(c, OF_SNAPSHOTS)),
        Route::new("GET", "/v2.1/os-snapshots/detail", detail_snapshots, |c| list(c, OF_SNAPSHOTS)),
        Route::new("GET", "/v2.1/os-snapshots/{id}", show_snapshot, |c| show(c, OF_SNAPSHOTS)),
        Route::new("DELETE", "/v2.1/os-snapshots/{id}", forget, |c| delete(c, OF_SNAPSHOTS)),
    ]
    .into_iter()
    .map(|r| r.until("2.35"))
    .collect()
}
