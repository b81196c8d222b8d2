//! OS-EP-FILTER: which endpoints a project sees in its catalog. A project that was given none sees all.
use super::{get, list, object, view};
use crate::{
    resources::{ENDPOINT, ENDPOINT_GROUP, PROJECT},
    rows::{LINKS, Rows as _},
    token_body,
};
use api::{Access, Call, Error, Reply, Result, Route};
use resource::{ResourceDef, engine};
use serde_json::{Value, json};

const BY_ONE: &str = "endpoint_project";
const BY_GROUP: &str = "endpoint_group_project";

pub(super) fn routes() -> Vec<Route> {
    let reads = Access::Rule("identity:list_endpoint_filters", "rule:identity:system_reader");
    let writes = Access::Rule("identity:change_endpoint_filters", "rule:identity:cloud_admin");
    let one = "/v3/OS-EP-FILTER/projects/{project_id}/endpoints/{left}";
    let group = "/v3/OS-EP-FILTER/endpoint_groups/{left}/projects/{project_id}";
    vec![
        Route::new("PUT", one, writes, |call| put(BY_ONE, ENDPOINT, call)),
        Route::new("GET", one, reads, |call| check(BY_ONE, ENDPOINT, call)),
        Route::new("DELETE", one, writes, |call| delete(BY_ONE, ENDPOINT, call)),
        Route::new("PUT", group, writes, |call| put(BY_GROUP, ENDPOINT_GROUP, call)),
        Route::new("GET", group, reads, |call| check(BY_GROUP, ENDPOINT_GROUP, call)),
        Route::new("DELETE", group, writes, |call| delete(BY_GROUP, ENDPOINT_GROUP, call)),
        Route::new("GET", "/v3/OS-EP-FILTER/projects/{project_id}/endpoints", reads, endpoints_of_project),
        Route::new("GET", "/v3/OS-EP-FILTER/projects/{project_id}/endpoint_groups", reads, groups_of_project),
        Route::new("GET", "/v3/OS-EP-FILTER/endpoints/{left}/projects", reads, |call| projects_of(BY_ONE, ENDPOINT, call)),
        Route::new("GET", "/v3/OS-EP-FILTER/endpoint_groups/{left}/projects", reads, |call| {
            projects_of(BY_GROUP, ENDPOINT_GROUP, call)
        }),
        Route::new("GET", "/v3/OS-EP-FILTER/endpoint_groups/{left}/endpoints", reads, endpoints_of_group),
    ]
}

fn key(kind: &str, call: &Call) -> String {
    format!("{kind}:{}:{}", call.param("left"), call.param("project_id"))
}

async fn put(kind: &'static str, def: &'static ResourceDef, call: Call) -> Result<Reply> {
    let (left, project, key) = (call.param("left").to_owned(), call.param("project_id").to_owned(), key(kind, &call));
    call.transact(move |_, tx| {
        for (def, id) in [(def, &left), (PROJECT, &project)] {
            tx.row(&def.table, id).ok_or_else(|| engine::not_found(def, id))?;
        }
        tx.put(&LINKS, &key, json!({"kind": kind, "left": left, "right": project, "v": 1}));
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

fn find(kind: &str, def: &ResourceDef, call: &Call) -> Result<()> {
    let reader = call.reader();
    get(&reader, def, call.param("left"))?;
    get(&reader, PROJECT, call.param("project_id"))?;
    let lost =
        || Error::not_found(format!("{} {} is not of project {}.", def.name, call.param("left"), call.param("project_id")));
    reader.get(&LINKS, &key(kind, call)).map(|_| ()).ok_or_else(lost)
}

async fn check(kind: &'static str, def: &'static ResourceDef, call: Call) -> Result<Reply> {
    find(kind, def, &call)?;
    if kind == BY_ONE || call.method == "HEAD" {
        return Ok(Reply::empty(204));
    }
    let reader = call.reader();
    let row = get(&reader, def, call.param("left"))?;
    Ok(Reply::ok(json!({def.name: view(def, &row, &call, &reader)})))
}

async fn delete(kind: &'static str, def: &'static ResourceDef, call: Call) -> Result<Reply> {
    find(kind, def, &call)?;
    let key = key(kind, &call);
    call.transact(move |_, tx| {
        tx.delete(&LINKS, &key);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

/// Ids on the other side of links of a kind.
fn linked(call: &Call, kind: &str, side: &str, id: &str) -> Vec<String> {
    let other = if side == "left" { "right" } else { "left" };
    let links = call.reader().find(&LINKS, side, id);
    links.iter().filter(|l| l.text("kind") == kind).map(|l| l.text(other).to_owned()).collect()
}

fn shown(call: &Call, def: &'static ResourceDef, ids: &[String]) -> Reply {
    let reader = call.reader();
    let rows = ids.iter().filter_map(|id| get(&reader, def, id).ok());
    list(call, def.plural, rows.map(|r| view(def, &r, call, &reader)).collect())
}

async fn endpoints_of_project(call: Call) -> Result<Reply> {
    let project = call.param("project_id");
    get(&call.reader(), PROJECT, project)?;
    let mut ids = linked(&call, BY_ONE, "right", project);
    for group in linked(&call, BY_GROUP, "right", project) {
        let inside = token_body::in_group(&mut &call.reader(), &group);
        ids.extend(inside.iter().map(|e| e.id().to_owned()));
    }
    let mut seen = std::collections::HashSet::new();
    ids.retain(|id| seen.insert(id.clone()));
    Ok(shown(&call, ENDPOINT, &ids))
}

async fn groups_of_project(call: Call) -> Result<Reply> {
    get(&call.reader(), PROJECT, call.param("project_id"))?;
    let ids = linked(&call, BY_GROUP, "right", call.param("project_id"));
    Ok(shown(&call, ENDPOINT_GROUP, &ids))
}

async fn projects_of(kind: &'static str, def: &'static ResourceDef, call: Call) -> Result<Reply> {
    get(&call.reader(), def, call.param("left"))?;
    let ids = linked(&call, kind, "left", call.param("left"));
    Ok(shown(&call, PROJECT, &ids))
}

async fn endpoints_of_group(call: Call) -> Result<Reply> {
    let reader = call.reader();
    get(&reader, ENDPOINT_GROUP, call.param("left"))?;
    let inside = token_body::in_group(&mut &reader, call.param("left"));
    let shown = inside.iter().map(|e| Ok(view(ENDPOINT, object(e)?, &call, &reader))).collect::<Result<Vec<Value>>>()?;
    Ok(list(&call, "endpoints", shown))
}
