//! Server groups (Nova api-ref, `os-server-groups`).
use super::{check_query, limited};
use crate::{
    common::{at, by_index, map, object, text, touch, visible},
    quota,
    resources::{Server, ServerGroup},
    shape::{self, Shape, opt, req},
};
use api::{Access, Call, Cx, Error, ErrorKind, Map, Reply, Result, Route};
use resource::{Object, Reader, Resource, engine};
use serde_json::{Value, json};

const HARD: Shape = Shape::Choice(&["anti-affinity", "affinity"]);
const ALL: Shape = Shape::Choice(&["anti-affinity", "affinity", "soft-anti-affinity", "soft-affinity"]);
const CREATE: Shape = Shape::Object(&[req(
    "server_group",
    &Shape::Object(&[
        req("name", &shape::NAME),
        req("policies", &Shape::List { of: &HARD, min: 1, max: 1, unique: true }).until(14),
        req("policies", &Shape::List { of: &ALL, min: 1, max: 1, unique: true }).since(15).until(63),
        req("policy", &ALL).since(64),
        opt("rules", &Shape::Object(&[opt("max_server_per_host", &shape::POSITIVE)])).since(64),
    ]),
)]);

fn view(cx: &Cx, reader: &Reader<'_>, row: &Map) -> Value {
    let id = text(row, "id");
    let members: Vec<String> = by_index(reader, &Server::DEF.table, "group_id", id).iter().map(|r| r.id().to_owned()).collect();
    let mut out = map(json!({ "id": id, "name": text(row, "name"), "members": members }));
    let policy = text(row, "policy");
    if at(cx, 64) {
        out.insert("policy".into(), policy.into());
        let most = row.get("max_server_per_host").filter(|m| m.is_i64());
        out.insert("rules".into(), most.map_or_else(|| json!({}), |m| json!({ "max_server_per_host": m })));
    } else {
        out.insert("policies".into(), json!([policy]));
        out.insert("metadata".into(), json!({}));
    }
    if at(cx, 13) {
        out.insert("project_id".into(), text(row, "project_id").into());
        out.insert("user_id".into(), text(row, "user_id").into());
    }
    out.into()
}

fn look(call: &Call) -> Result<Object<ServerGroup>> {
    let id = call.param("id");
    visible::<ServerGroup>(call, id).map_err(|e| match e.kind {
        ErrorKind::NotFound => Error::not_found(format!("Instance group {id} could not be found.")),
        _ => e,
    })
}

async fn list(call: Call) -> Result<Reply> {
    let cx = &call.cx;
    check_query(cx, 75, &["all_projects", "limit", "offset"])?;
    let everything = cx.query.get("all_projects").is_some() && cx.may("os_compute_api:os-server-groups:index:all_projects", None);
    let project = cx.caller.project_id().unwrap_or_default();
    let reader = call.reader();
    let mine = |row: &Map| everything || text(row, "project_id") == project;
    let mut rows: Vec<_> = reader.all(&ServerGroup::DEF.table).filter(|r| mine(object(r))).cloned().collect();
    rows.sort_by_key(|r| r.created);
    let rows = limited(cx, rows)?;
    let groups: Vec<Value> = rows.iter().map(|r| view(cx, &reader, object(r))).collect();
    Ok(Reply::ok(json!({ "server_groups": groups })))
}

async fn show(call: Call) -> Result<Reply> {
    check_query(&call.cx, 102, &[])?;
    let group = look(&call)?;
    call.require(SHOW, Some(&group.map))?;
    let reader = call.reader();
    Ok(Reply::ok(json!({ "server_group": view(&call.cx, &reader, &group.map) })))
}

async fn create(call: Call) -> Result<Reply> {
    CREATE.check(call.json(), &call.cx)?;
    let input = call.inner("server_group")?;
    let project = call.cx.project()?;
    let policy = match input.get("policies").and_then(|p| p.get(0)).or_else(|| input.get("policy")).and_then(Value::as_str) {
        Some(p) => p.to_owned(),
        None => return Err(Error::bad_request("'policy' is a required property")),
    };
    let most = input.get("rules").and_then(|r| r.get("max_server_per_host")).and_then(shape::as_int);
    let rules_given = input.get("rules").and_then(Value::as_object).is_some_and(|r| !r.is_empty());
    if rules_given && policy != "anti-affinity" {
        return Err(Error::bad_request("Only anti-affinity policy supports rules."));
    }
    let group = ServerGroup {
        name: text(input, "name").to_owned(),
        policy,
        max_server_per_host: most,
        user_id: call.cx.caller.user_id().to_owned(),
    };
    let row = call
        .transact(move |cx, tx| {
            quota::charge(tx, cx, &project, &group.user_id, &[("server_groups", 1)])
                .map_err(|_| Error::over_quota("Quota exceeded, too many server groups."))?;
            let row = Object::new(base::id::uuid(), Some(&project), group.clone(), tx.now, &cx.request_id).into_map()?;
            engine::insert(tx, ServerGroup::DEF, cx, row)
        })
        .await?;
    let reader = call.reader();
    Ok(Reply::ok(json!({ "server_group": view(&call.cx, &reader, &row) })))
}

async fn delete(call: Call) -> Result<Reply> {
    let group = look(&call)?;
    call.require(DELETE, Some(&group.map))?;
    call.transact(move |cx, tx| {
        engine::delete(tx, ServerGroup::DEF, cx, &group.id)?;
        quota::release(tx, group.project_id(), &group.user_id, &[("server_groups", 1)]);
        // Servers live on, and must not name a group that is not there.
        for row in tx.children(&Server::DEF.table, "group_id", &group.id) {
            let mut server = object(&row).clone();
            server.insert("group_id".into(), Value::Null);
            touch(&mut server, tx.now, &cx.request_id);
            tx.put(&Server::DEF.table, row.id(), server.into());
        }
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

const SHOW: &str = "os_compute_api:os-server-groups:show";
const DELETE: &str = "os_compute_api:os-server-groups:delete";
const OWN: &str = "role:admin or (role:member and project_id:%(project_id)s)";
pub(super) const RULES: [(&str, &str); 2] = [(SHOW, "role:admin or (role:reader and project_id:%(project_id)s)"), (DELETE, OWN)];

pub(super) fn routes() -> Vec<Route> {
    let (all, one) = ("/v2.1/os-server-groups", "/v2.1/os-server-groups/{id}");
    vec![
        Route::new("GET", all, Access::Rule("os_compute_api:os-server-groups:index", "reader"), list),
        Route::new("POST", all, Access::Rule("os_compute_api:os-server-groups:create", "member"), create),
        Route::new("GET", one, Access::Authenticated, show),
        Route::new("DELETE", one, Access::Authenticated, delete),
    ]
}
