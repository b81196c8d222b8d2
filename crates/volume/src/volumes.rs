//! Create, list, show, update and delete of volumes, and their summary.
use crate::{
    common::{at, object, object_at, require, text, visible},
    delete::{self, How},
    listing,
    resources::Volume,
    view,
};
use api::{Access, Call, Cx, Error, Map, Reply, Result, Route};
use resource::{Object, Resource as _, engine};
use serde_json::{Value, json};

pub(crate) fn routes() -> Vec<Route> {
    let list = Access::Rule("volume:get_all", "reader");
    vec![
        Route::new("POST", "/v3/volumes", Access::Authenticated, create),
        Route::new(
            "GET",
            "/v3/volumes",
            list,
            |call| async move { listing::reply(Volume::DEF, &call, true, view::extend_volume) },
        ),
        Route::new("GET", "/v3/volumes/detail", list, |call| async move {
            listing::reply(Volume::DEF, &call, false, view::extend_volume)
        }),
        Route::new("GET", "/v3/volumes/summary", list, |call| async move { summary(&call) }).since("3.12"),
        Route::new("GET", "/v3/volumes/{id}", Access::Authenticated, show),
        Route::new("PUT", "/v3/volumes/{id}", Access::Authenticated, update),
        Route::new("DELETE", "/v3/volumes/{id}", Access::Authenticated, remove),
        // `POST /volumes//action`: the id is missing.
        Route::new("POST", "/v3/volumes/{id}", Access::Authenticated, lost),
    ]
}

async fn lost(_: Call) -> Result<Reply> {
    Err(Error::not_found("The resource could not be found."))
}

/// What a create's body says, in the table's terms: nulls are what is not given, and older names are new ones.
fn creation(call: &Call) -> Result<Map> {
    let mut input: Map =
        call.inner("volume")?.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect();
    for (old, new) in [("display_name", "name"), ("display_description", "description"), ("image_id", "imageRef")] {
        if let Some(value) = input.remove(old) {
            input.entry(new).or_insert(value);
        }
    }
    for ignored in ["status", "user_id", "project_id", "attach_status", "source_replica", "consistencygroup_id"] {
        input.remove(ignored);
    }
    // What is empty is not given.
    for key in ["imageRef", "snapshot_id", "source_volid", "volume_type", "availability_zone"] {
        if input.get(key) == Some(&json!("")) {
            input.remove(key);
        }
    }
    for key in ["imageRef", "snapshot_id", "source_volid"] {
        if let Some(id) = input.get(key).and_then(Value::as_str)
            && !base::id::is_uuid(id)
        {
            return Err(Error::bad_request(format!(
                "Invalid input for field/attribute {key}. Value: {id}. '{id}' is not a 'uuid'"
            )));
        }
    }
    if !at(&call.cx, 13) {
        input.remove("group_id");
    }
    if input.remove("backup_id").is_some() {
        return Err(Error::bad_request("This cloud keeps no volume backups; create the volume from a snapshot or an image."));
    }
    if let Some(Value::String(name)) = input.get_mut("name") {
        *name = name.trim().to_owned();
    }
    Ok(input)
}

async fn create(call: Call) -> Result<Reply> {
    let input = creation(&call)?;
    require(&call, "volume:create", &input)?;
    let hints = call.json().get("OS-SCH-HNT:scheduler_hints").or_else(|| call.json().get("scheduler_hints")).cloned();
    let hints = match hints {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(hints)) => hints,
        Some(_) => return Err(Error::bad_request("OS-SCH-HNT:scheduler_hints must be an object.")),
    };
    let row = call
        .transact(move |cx, tx| {
            let mut row = resource::create_row(Volume::DEF, cx, &input, tx.now)?;
            row.insert("scheduler_hints".into(), hints.clone().into());
            engine::insert(tx, Volume::DEF, cx, row)
        })
        .await?;
    let location = api::links(Volume::DEF, &call.cx, text(&row, "id"));
    Ok(Reply::json(202, listing::wrapped(Volume::DEF, &call, &row, listing::plain)).header("location", location))
}

async fn show(call: Call) -> Result<Reply> {
    let volume: Object<Volume> = visible(&call, call.param("id"))?;
    require(&call, "volume:get", &volume.map)?;
    Ok(Reply::ok(listing::wrapped(Volume::DEF, &call, &volume.map, view::extend_volume)))
}

async fn update(call: Call) -> Result<Reply> {
    let id = call.param("id").to_owned();
    let volume: Object<Volume> = visible(&call, &id)?;
    require(&call, "volume:update", &volume.map)?;
    let given = call.inner("volume")?;
    let mut input = Map::new();
    for (key, value) in given {
        match key.as_str() {
            "display_name" => drop(input.entry("name").or_insert(value.clone())),
            "display_description" => drop(input.entry("description").or_insert(value.clone())),
            "name" | "description" | "metadata" => drop(input.insert(key.clone(), value.clone())),
            // Cinder ignores what an update cannot change.
            _ => {}
        }
    }
    if input.is_empty() {
        return Err(Error::bad_request("Invalid input: the body must have one of name, description and metadata."));
    }
    if let Some(Value::String(name)) = input.get_mut("name") {
        *name = name.trim().to_owned();
    }
    let row = call.transact(move |cx, tx| engine::update(tx, Volume::DEF, cx, &id, &input)).await?;
    Ok(Reply::ok(listing::wrapped(Volume::DEF, &call, &row, listing::plain)))
}

async fn remove(call: Call) -> Result<Reply> {
    let id = call.param("id").to_owned();
    let volume: Object<Volume> = visible(&call, &id)?;
    require(&call, "volume:delete", &volume.map)?;
    let how =
        How { cascade: call.cx.query.flag("cascade"), force: at(&call.cx, 23) && call.cx.query.flag("force"), with_group: false };
    if how.force {
        call.require("volume:force_delete", Some(&volume.map))?;
    }
    call.transact(move |cx, tx| delete_as(tx, cx, &id, how)).await?;
    Ok(Reply::empty(202))
}

/// As [`engine::delete`], with how far it goes.
pub(crate) fn delete_as(tx: &mut resource::Tx<'_>, cx: &Cx, id: &str, how: How) -> Result<()> {
    let mut volume: Object<Volume> = crate::common::own(tx, cx, id)?;
    match delete::begin(&mut volume, cx, tx, how)? {
        resource::Deletion::Now => engine::remove(tx, Volume::DEF, &volume.into_map()?),
        resource::Deletion::Later => {
            volume.mark_deleting();
            volume.map.insert("request_id".into(), (&*cx.request_id).into());
            volume.save(tx)?;
            engine::tell(tx, id, &cx.request_id, &format!("User {} asked to delete it", cx.caller.user_id()));
        }
    }
    Ok(())
}

/// `GET /volumes/summary`: how many there are and how large, in all.
fn summary(call: &Call) -> Result<Reply> {
    let cx = &call.cx;
    let listing = (api::dialect::BLOCK_STORAGE.listing)(Volume::DEF, cx)?;
    let reader = call.reader();
    let all = resource::Listing { marker: None, limit: usize::MAX, ..listing };
    let found = resource::list(Volume::DEF, cx, &reader, &all)?;
    let size: u64 = found.rows.iter().map(|r| r.field("size").as_u64().unwrap_or(0)).sum();
    let mut out = crate::common::map(json!({ "total_size": size, "total_count": found.rows.len() }));
    if at(cx, 36) {
        let mut metadata: std::collections::BTreeMap<String, Vec<Value>> = std::collections::BTreeMap::new();
        for (key, value) in found.rows.iter().filter_map(|r| object_at(object(r), "metadata")).flatten() {
            let values = metadata.entry(key.clone()).or_default();
            if !values.contains(value) {
                values.push(value.clone());
            }
        }
        out.insert("metadata".into(), json!(metadata));
    }
    Ok(Reply::ok(json!({ "volume-summary": out })))
}
