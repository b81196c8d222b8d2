//! `/default-types`: the type that volumes of a project get when they name none (since 3.62).
use crate::{
    common::map,
    input::Input,
    types::{DEFAULTS, find},
};
use api::{Access, Call, Error, Reply, Result, Route};
use serde_json::{Value, json};

pub(crate) fn routes() -> Vec<Route> {
    let admin = |name| Access::Rule(name, "admin");
    [
        Route::new("GET", "/v3/default-types", admin("volume_extension:default_get_all"), |call| async move { list(&call) }),
        Route::new(
            "GET",
            "/v3/default-types/{project}",
            admin("volume_extension:default_get"),
            |call| async move { show(&call) },
        ),
        Route::new("PUT", "/v3/default-types/{project}", admin("volume_extension:default_set_or_update"), set),
        Route::new("DELETE", "/v3/default-types/{project}", admin("volume_extension:default_unset"), unset),
    ]
    .into_iter()
    .map(|r| r.since("3.62"))
    .collect()
}

fn list(call: &Call) -> Result<Reply> {
    let reader = call.reader();
    let all: Vec<Value> =
        reader.all(&DEFAULTS).map(|r| json!({ "project_id": r.id(), "volume_type_id": r.text("volume_type_id") })).collect();
    Ok(Reply::ok(json!({ "default_types": all })))
}

fn missing(project: &str) -> Error {
    Error::not_found(format!("Default type for project {project} could not be found."))
}

fn show(call: &Call) -> Result<Reply> {
    let project = call.param("project");
    let row = call.reader().get(&DEFAULTS, project).ok_or_else(|| missing(project))?;
    Ok(Reply::ok(json!({ "default_type": { "project_id": project, "volume_type_id": row.text("volume_type_id") } })))
}

async fn set(call: Call) -> Result<Reply> {
    let project = call.param("project").to_owned();
    let wanted = Input::new(call.inner("default_type")?, &["volume_type"])?.required("volume_type")?.to_owned();
    let body = call
        .transact(move |cx, tx| {
            let kind = find(tx, cx, &wanted)?;
            let row = map(json!({ "volume_type_id": kind.id }));
            tx.put(&DEFAULTS, &project, row.into());
            Ok(json!({ "default_type": { "project_id": project, "volume_type_id": kind.id } }))
        })
        .await?;
    Ok(Reply::ok(body))
}

async fn unset(call: Call) -> Result<Reply> {
    let project = call.param("project").to_owned();
    call.transact(move |_, tx| {
        if tx.get(&DEFAULTS, &project).is_none() {
            return Err(missing(&project));
        }
        tx.delete(&DEFAULTS, &project);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}
