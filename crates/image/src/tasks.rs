//! Tasks: the record of imports. They are made with imports only.
use crate::rest::{listing, look, stamp};
use api::{Access, Call, Reply, Route};
use resource::{Cx, Error, Map, Result, Tx};
use serde_json::{Value, json};
use std::time::Duration;
use store::{Index, Row, Table};

pub(crate) static TASKS: Table = Table { name: "image/tasks", indexes: &[Index { name: "image_id", path: "/image_id" }] };

/// A finished task is shown as expiring after this; it goes with its image.
const LIFETIME: Duration = Duration::from_secs(48 * 3600);
/// Tasks that an image keeps; older ones go.
const KEPT: usize = 10;

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::new("GET", "/v2/images/{id}/tasks", Access::Rule("get_image", "role:reader"), of_image),
        Route::new("GET", "/v2/tasks", Access::Rule("get_tasks", "role:admin"), list),
        Route::new("GET", "/v2/tasks/{task_id}", Access::Rule("get_tasks", "role:admin"), show),
    ]
}

/// An import that begins.
pub(crate) struct Begun<'a> {
    pub(crate) image: &'a str,
    /// `api_image_import`, `location_import` or `import`.
    pub(crate) kind: &'static str,
    pub(crate) request: &'a Value,
    pub(crate) stores: &'a [String],
}

/// Records it; its task's id.
pub(crate) fn begin(tx: &mut Tx<'_>, cx: &Cx, begun: &Begun<'_>) -> String {
    let mut old = tx.find(&TASKS, "image_id", begun.image);
    old.sort_by_key(|t| t.field("created_at").as_i64());
    for task in old.iter().rev().skip(KEPT - 1) {
        tx.delete(&TASKS, task.id());
    }
    let id = base::id::uuid();
    let input = match begun.kind {
        "location_import" => {
            json!({"image_id": begun.image, "loc_url": begun.request["url"], "validation_data": begun.request["validation_data"]})
        }
        "import" => begun.request.clone(),
        _ => json!({"image_id": begun.image, "import_req": begun.request, "backend": begun.stores}),
    };
    let row = json!({
        "id": id, "v": 1, "type": begun.kind, "image_id": begun.image, "status": "processing",
        "owner": cx.caller.project_id(), "user_id": cx.caller.user_id(), "request_id": &*cx.request_id,
        "input": input, "message": "", "result": null,
        "created_at": tx.now.0, "updated_at": tx.now.0, "expires_at": null,
    });
    tx.put(&TASKS, &id, row);
    id
}

/// It ended.
pub(crate) fn end(tx: &mut Tx<'_>, id: &str, failure: Option<&str>) {
    let Some(row) = tx.get(&TASKS, id) else { return };
    let mut row = row.value().clone();
    row["status"] = if failure.is_some() { "failure" } else { "success" }.into();
    row["message"] = failure.unwrap_or_default().into();
    if failure.is_none() {
        row["result"] = json!({"image_id": row["image_id"]});
    }
    row["updated_at"] = tx.now.0.into();
    row["expires_at"] = tx.now.plus(LIFETIME).0.into();
    tx.put(&TASKS, id, row);
}

const BRIEF: [&str; 4] = ["id", "type", "status", "owner"];
const WHOLE: [&str; 6] = ["image_id", "request_id", "user_id", "input", "message", "result"];

pub(crate) fn view(row: &Row, whole: bool) -> Value {
    let mut out = Map::new();
    let copied = BRIEF.iter().chain(if whole { WHOLE.as_slice() } else { &[] });
    out.extend(copied.map(|name| ((*name).to_owned(), row.field(name).clone())));
    if let Some(map) = row.value().as_object() {
        out.extend(["created_at", "updated_at"].map(|name| (name.to_owned(), stamp(map, name))));
        let ends = map.get("expires_at").filter(|at| at.is_i64());
        out.insert("expires_at".into(), ends.map_or(Value::Null, |_| stamp(map, "expires_at")));
    }
    out.insert("self".into(), format!("/v2/tasks/{}", row.id()).into());
    out.insert("schema".into(), "/v2/schemas/task".into());
    out.into()
}

async fn of_image(call: Call) -> Result<Reply> {
    let image = look(&call)?;
    let rows = call.reader().find(&TASKS, "image_id", &image.id);
    Ok(Reply::ok(json!({"tasks": rows.iter().map(|r| view(r, true)).collect::<Vec<_>>()})))
}

async fn list(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let wanted = |row: &Row| ["type", "status", "owner"].iter().all(|f| call.cx.query.get(f).is_none_or(|v| row.text(f) == v));
    let mut rows: Vec<_> = reader.all(&TASKS).filter(|r| wanted(r)).collect();
    rows.sort_by_key(|r| std::cmp::Reverse(r.field("created_at").as_i64()));
    if let Some(marker) = call.cx.query.get("marker") {
        let at = rows.iter().position(|r| r.id() == marker);
        let at = at.ok_or_else(|| Error::bad_request("Invalid marker. Task could not be found."))?;
        rows.drain(..=at);
    }
    let limit = call
        .cx
        .query
        .get("limit")
        .map_or(Ok(25), str::parse)
        .map_err(|_| Error::bad_request("limit param must be an integer"))?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let mut reply = listing("tasks", rows.iter().map(|r| view(r, false)).collect(), "/v2/tasks", "tasks");
    if let (true, Some(last), api::ReplyBody::Json(Value::Object(body))) = (more, rows.last(), &mut reply.body) {
        body.insert("next".into(), format!("/v2/tasks?limit={limit}&marker={}", last.id()).into());
    }
    Ok(reply)
}

async fn show(call: Call) -> Result<Reply> {
    let id = call.param("task_id");
    let row = call.reader().get(&TASKS, id).ok_or_else(|| Error::not_found(format!("Task not found for task_id {id}")))?;
    Ok(Reply::ok(view(&row, true)))
}
