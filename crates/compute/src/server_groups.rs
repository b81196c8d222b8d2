//! Server groups at their two forms: `policies` until 2.63, then one `policy` with `rules`.
use crate::{
    common::{at, flag, map, object, text, visible},
    resources::{Server, ServerGroup},
    shape::{self, Shape, opt, req},
};
use api::{Access, Call, Error, Map, Reply, Result, Route};
use resource::{Object, Reader, Resource, engine};
use serde_json::{Value, json};

const OLD: Shape = Shape::Choice(&["anti-affinity", "affinity"]);
const SOFT: Shape = Shape::Choice(&["anti-affinity", "affinity", "soft-anti-affinity", "soft-affinity"]);
const CREATE: Shape = Shape::Object(&[req(
    "server_group",
    &Shape::Object(&[
        req("name", &shape::NAME),
        req("policies", &Shape::List { of: &OLD, min: 1, max: 1, unique: true }).until(14),
        req("policies", &Shape::List { of: &SOFT, min: 1, max: 1, unique: true }).since(15).until(63),
        req("policy", &SOFT).since(64),
        opt("rules", &Shape::Object(&[opt("max_server_per_host", &shape::POSITIVE)])).since(64),
    ]),
)]);

fn shown(call: &Call, reader: &Reader<'_>, row: &Map) -> Map {
    let cx = &call.cx;
    let id = text(row, "id");
    let members = reader.find(&Server::DEF.table, "group_id", id);
    let members: Vec<&str> = members.iter().filter(|m| !flag(object(m), "deleting")).map(|m| m.id()).collect();
    let mut out = map(json!({ "id": id, "name": row.get("name"), "members": members }));
    if at(cx, 64) {
        let most = row.get("max_server_per_host").filter(|v| v.is_i64());
        out.insert("policy".into(), row.get("policy").cloned().unwrap_or(Value::Null));
        out.insert("rules".into(), most.map_or_else(|| json!({}), |m| json!({ "max_server_per_host": m })));
    } else {
        out.insert("policies".into(), json!([row.get("policy")]));
        out.insert("metadata".into(), json!({}));
    }
    if at(cx, 13) {
        out.insert("project_id".into(), row.get("project_id").cloned().unwrap_or(Value::Null));
        out.insert("user_id".into(), row.get("user_id").cloned().unwrap_or(Value::Null));
    }
    out
}

async fn create(call: Call) -> Result<Reply> {
    CREATE.check(call.json(), &call.cx)?;
    let input = call.inner("server_group")?.clone();
    let policy = input.get("policy").or_else(|| input.get("policies").and_then(|p| p.get(0))).and_then(Value::as_str).unwrap_or_default();
    let most = input.get("rules").and_then(|r| r.get("max_server_per_host")).and_then(shape::as_int);
    if most.is_some() && policy != "anti-affinity" {
        return Err(Error::bad_request("Only anti-affinity policy supports rules."));
    }
    let project = call.cx.project()?;
    let body = ServerGroup {
        name: text(&input, "name").to_owned(),
        policy: policy.to_owned(),
        max_server_per_host: most,
        user_id: call.cx.caller.user_id().to_owned(),
    };
    let row = call
        .transact(move |cx, tx| {
            // A class may have changed the default.
            let most = crate::quota::limit(tx, cx, &project, "server_groups");
            if most >= 0 && engine::usage(tx, &project, "compute", "server_groups") >= most {
                return Err(Error::over_quota("Quota exceeded, too many server groups."));
            }
            let row = Object::new(base::id::uuid(), Some(&project), body.clone(), tx.now, &cx.request_id).into_map()?;
            engine::insert(tx, ServerGroup::DEF, cx, row)
        })
        .await?;
    let reader = call.reader();
    Ok(Reply::ok(json!({ "server_group": shown(&call, &reader, &row) })))
}

async fn show(call: Call) -> Result<Reply> {
    let group: Object<ServerGroup> = visible(&call, call.param("id")).map_err(|_| not_found(call.param("id")))?;
    let reader = call.reader();
    Ok(Reply::ok(json!({ "server_group": shown(&call, &reader, &group.map) })))
}

fn not_found(id: &str) -> Error {
    Error::not_found(format!("Instance group {id} could not be found."))
}

async fn delete(call: Call) -> Result<Reply> {
    let group: Object<ServerGroup> = visible(&call, call.param("id")).map_err(|_| not_found(call.param("id")))?;
    call.transact(move |cx, tx| engine::delete(tx, ServerGroup::DEF, cx, &group.id)).await?;
    Ok(Reply::empty(204))
}

async fn list(call: Call) -> Result<Reply> {
    let cx = &call.cx;
    if let Some(key) = cx.query.keys().find(|k| !matches!(*k, "all_projects" | "limit" | "offset"))
        && at(cx, 75)
    {
        return Err(Error::bad_request(format!("Additional properties are not allowed ('{key}' was unexpected)")));
    }
    let number = |key: &str, none: usize| match cx.query.get(key) {
        None => Ok(none),
        Some(text) => text.parse::<usize>().map_err(|_| Error::bad_request(format!("Invalid input for query parameters {key}. Value: {text}."))),
    };
    let (limit, offset) = (number("limit", 1000)?, number("offset", 0)?);
    let limit = if limit == 0 { 1000 } else { limit.min(1000) };
    let reader = call.reader();
    let all = cx.query.get("all_projects").is_some() && cx.is_admin();
    let mine = |r: &&std::sync::Arc<resource::Row>| all || Some(r.text("project_id")) == cx.caller.project_id();
    let mut rows: Vec<_> = reader.all(&ServerGroup::DEF.table).filter(mine).collect();
    rows.sort_by_key(|r| r.field("created_at").as_i64());
    let groups: Vec<Map> = rows.into_iter().skip(offset).take(limit).map(|r| shown(&call, &reader, object(r))).collect();
    Ok(Reply::ok(json!({ "server_groups": groups })))
}

pub(crate) fn routes() -> Vec<Route> {
    let rule = |name, text| Access::Rule(name, text);
    vec![
        Route::new("GET", "/v2.1/os-server-groups", rule("os_compute_api:os-server-groups:index", "reader"), list),
        Route::new("POST", "/v2.1/os-server-groups", rule("os_compute_api:os-server-groups:create", "member"), create),
        Route::new("GET", "/v2.1/os-server-groups/{id}", rule("os_compute_api:os-server-groups:show", "reader"), show),
        Route::new("DELETE", "/v2.1/os-server-groups/{id}", rule("os_compute_api:os-server-groups:delete", "member"), delete),
    ]
}
