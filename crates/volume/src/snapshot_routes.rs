//! `/snapshots`: create, list, show, update, delete and actions.
use crate::{
    common::{own, require, text, visible},
    input::Input,
    listing,
    resources::Snapshot,
    snapshots, view,
};
use api::{Access, Call, Cx, Error, Map, Reply, Result, Route};
use resource::{Deletion, Object, Resource as _, Tx, engine};
use serde_json::Value;

pub(crate) fn routes() -> Vec<Route> {
    let list = Access::Rule("volume:get_all_snapshots", "reader");
    let any = Access::Authenticated;
    vec![
        Route::new("POST", "/v3/snapshots", any, create),
        Route::new("GET", "/v3/snapshots", list, |call| async move { listing::reply(Snapshot::DEF, &call, false, brief) }),
        Route::new(
            "GET",
            "/v3/snapshots/detail",
            list,
            |call| async move { listing::reply(Snapshot::DEF, &call, false, extend) },
        ),
        Route::new("GET", "/v3/snapshots/{id}", any, show),
        Route::new("PUT", "/v3/snapshots/{id}", any, update),
        Route::new("DELETE", "/v3/snapshots/{id}", any, remove),
        Route::new("POST", "/v3/snapshots/{id}/action", any, act),
    ]
}

fn extend(row: &Map, out: &mut Map, _cx: &Cx) {
    view::extend_snapshot(row, out);
}

/// What brief lists, creates and updates show.
fn brief(_row: &Map, out: &mut Map, _cx: &Cx) {
    const BRIEF: [&str; 9] = ["id", "name", "description", "volume_id", "status", "size", "metadata", "created_at", "updated_at"];
    out.retain(|key, _| BRIEF.contains(&key.as_str()) || key == "user_id");
}

/// Names as the table has them; nulls are what is not given.
fn named(given: &Map) -> Map {
    let mut input: Map = given.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect();
    for (old, new) in [("display_name", "name"), ("display_description", "description")] {
        if let Some(value) = input.remove(old) {
            input.entry(new).or_insert(value);
        }
    }
    if let Some(Value::String(name)) = input.get_mut("name") {
        *name = name.trim().to_owned();
    }
    input
}

async fn create(call: Call) -> Result<Reply> {
    let given = call.inner("snapshot")?;
    let mut input = named(given);
    require(&call, "volume:create_snapshot", &input)?;
    if given.get("volume_id").is_some_and(Value::is_null) {
        return Err(Error::not_found("Volume None could not be found."));
    }
    if !input.get("volume_id").and_then(Value::as_str).is_some_and(base::id::is_uuid) {
        return Err(Error::bad_request("Invalid input for field/attribute volume_id: it must be the id of a volume."));
    }
    if call.cx.version.1 >= 66 && input.get("force").is_some_and(|f| resource::Kind::Bool.check(f) != Ok(Value::Bool(true))) {
        return Err(Error::bad_request("Since 3.66 a snapshot of a volume in use needs no force; leave it out."));
    }
    // Those who import snapshots from elsewhere send more.
    input.retain(|key, _| matches!(key.as_str(), "name" | "description" | "volume_id" | "metadata" | "force"));
    let row = call.transact(move |cx, tx| engine::create(tx, Snapshot::DEF, cx, &input)).await?;
    let location = api::links(Snapshot::DEF, &call.cx, text(&row, "id"));
    Ok(Reply::json(202, listing::wrapped(Snapshot::DEF, &call, &row, brief)).header("location", location))
}

async fn show(call: Call) -> Result<Reply> {
    let found: Object<Snapshot> = visible(&call, call.param("id"))?;
    require(&call, "volume:get_snapshot", &found.map)?;
    Ok(Reply::ok(listing::wrapped(Snapshot::DEF, &call, &found.map, extend)))
}

async fn update(call: Call) -> Result<Reply> {
    let found: Object<Snapshot> = visible(&call, call.param("id"))?;
    require(&call, "volume:update_snapshot", &found.map)?;
    let mut input = named(call.inner("snapshot")?);
    input.retain(|key, _| matches!(key.as_str(), "name" | "description"));
    if input.is_empty() {
        return Err(Error::bad_request("Invalid input: the body must have name or description."));
    }
    let id = found.id;
    let row = call.transact(move |cx, tx| engine::update(tx, Snapshot::DEF, cx, &id, &input)).await?;
    Ok(Reply::ok(listing::wrapped(Snapshot::DEF, &call, &row, brief)))
}

async fn remove(call: Call) -> Result<Reply> {
    let found: Object<Snapshot> = visible(&call, call.param("id"))?;
    require(&call, "volume:delete_snapshot", &found.map)?;
    let id = found.id;
    call.transact(move |cx, tx| delete_as(tx, cx, &id, false)).await?;
    Ok(Reply::empty(202))
}

/// As [`engine::delete`], whatever the status with `force`.
pub(crate) fn delete_as(tx: &mut Tx<'_>, cx: &Cx, id: &str, force: bool) -> Result<()> {
    let mut row: Object<Snapshot> = own(tx, cx, id)?;
    match snapshots::begin_delete(&mut row, cx, tx, force)? {
        Deletion::Now => engine::remove(tx, Snapshot::DEF, &row.into_map()?),
        Deletion::Later => {
            row.mark_deleting();
            row.map.insert("request_id".into(), (&*cx.request_id).into());
            row.save(tx)?;
            engine::tell(tx, id, &cx.request_id, &format!("User {} asked to delete it", cx.caller.user_id()));
        }
    }
    Ok(())
}

/// Statuses that an administrator may set, and a service with progress.
const STATUSES: [&str; 5] = ["available", "creating", "deleting", "error", "error_deleting"];

async fn act(call: Call) -> Result<Reply> {
    let found: Object<Snapshot> = visible(&call, call.param("id"))?;
    let (action, body) = crate::actions::named(&call)?;
    let id = found.id.clone();
    match action {
        "os-reset_status" => {
            call.require("volume_extension:snapshot_admin_actions:reset_status", Some(&found.map))?;
            let input = Input::of(body, action, &["status"])?;
            let status = input.choice("status", &STATUSES)?.ok_or_else(missing_status)?.to_owned();
            set(&call, id, move |s| s.finish(&status)).await
        }
        "os-update_snapshot_status" => {
            call.require("snapshot_extension:snapshot_actions:update_snapshot_status", Some(&found.map))?;
            let input = Input::of(body, action, &["status", "progress"])?;
            let status = input.choice("status", &STATUSES)?.ok_or_else(missing_status)?.to_owned();
            let progress = input.text("progress")?.map(str::to_owned);
            if progress.as_deref().is_some_and(|p| p.strip_suffix('%').is_none_or(|n| n.parse::<u8>().map_or(true, |n| n > 100)))
            {
                return Err(Error::bad_request("Invalid input for field/attribute progress: it must be 0% to 100%."));
            }
            set(&call, id, move |s| {
                s.finish(&status);
                if let Some(progress) = &progress {
                    s.progress.clone_from(progress);
                }
            })
            .await
        }
        "os-force_delete" => {
            call.require("volume_extension:snapshot_admin_actions:force_delete", Some(&found.map))?;
            call.transact(move |cx, tx| delete_as(tx, cx, &id, true)).await?;
            Ok(Reply::empty(202))
        }
        "os-unmanage" => {
            call.require("snapshot_extension:snapshot_unmanage", Some(&found.map))?;
            Err(Error::bad_request("Snapshots of this cloud cannot be given up: they live with their volume's data."))
        }
        other => Err(Error::bad_request(format!("There is no such action: {other}."))),
    }
}

fn missing_status() -> Error {
    Error::bad_request("Invalid input for field/attribute status: it is a required property.")
}

async fn set(call: &Call, id: String, with: impl Fn(&mut Snapshot) + Send + 'static) -> Result<Reply> {
    call.transact(move |cx, tx| {
        let mut row: Object<Snapshot> = own(tx, cx, &id)?;
        with(&mut row.body);
        row.save(tx)
    })
    .await?;
    Ok(Reply::empty(202))
}

/// Rules of the actions.
pub(crate) const RULES: [(&str, &str); 4] = [
    ("snapshot_extension:snapshot_unmanage", "admin"),
    ("volume_extension:snapshot_admin_actions:reset_status", "admin"),
    ("snapshot_extension:snapshot_actions:update_snapshot_status", "member"),
    ("volume_extension:snapshot_admin_actions:force_delete", "admin"),
];
