//! `/types`: volume types, who may use them, and their extra specs.
use crate::{
    common::{missing, object, text, visible},
    input::{Input, specs},
    listing,
    resources::{VolumeType, volume_type::DEFAULT},
    types,
};
use api::{Access, Call, Error, Map, Reply, Result, Route};
use resource::{Object, Resource as _, engine};
use serde_json::{Value, json};

pub(crate) fn routes() -> Vec<Route> {
    let list = Access::Rule("volume:get_all_volume_types", "reader");
    let admin = |name| Access::Rule(name, "admin");
    let manage = admin("volume_extension:types_manage");
    let specs_manage = admin("volume_extension:types_extra_specs");
    let access = admin("volume_extension:volume_type_access");
    vec![
        Route::new("GET", "/v3/types", list, |call| async move { all(&call) }),
        Route::new("POST", "/v3/types", manage, create),
        Route::new("GET", "/v3/types/{id}", list, |call| async move { show(&call) }),
        Route::new("PUT", "/v3/types/{id}", manage, update),
        Route::new("DELETE", "/v3/types/{id}", manage, remove),
        Route::new("POST", "/v3/types/{id}/action", access, act),
        Route::new("GET", "/v3/types/{id}/os-volume-type-access", access, |call| async move { projects(&call) }),
        Route::new("GET", "/v3/types/{id}/extra_specs", list, |call| async move { show_specs(&call) }),
        Route::new("POST", "/v3/types/{id}/extra_specs", specs_manage, add_specs),
        // `PUT /types/{id}/extra_specs/`: the name is missing.
        Route::new("PUT", "/v3/types/{id}/extra_specs", specs_manage, nameless),
        Route::new("GET", "/v3/types/{id}/extra_specs/{key}", list, |call| async move { show_spec(&call) }),
        Route::new("PUT", "/v3/types/{id}/extra_specs/{key}", specs_manage, put_spec),
        Route::new("DELETE", "/v3/types/{id}/extra_specs/{key}", specs_manage, drop_spec),
    ]
}

fn all(call: &Call) -> Result<Reply> {
    listing::reply(VolumeType::DEF, call, false, listing::plain)
}

fn shown(call: &Call, row: &Map) -> Value {
    listing::wrapped(VolumeType::DEF, call, row, listing::plain)
}

/// The type of the path; `default` is the caller's own.
fn look(call: &Call) -> Result<Object<VolumeType>> {
    if call.param("id") != "default" {
        return visible(call, call.param("id"));
    }
    let project = call.cx.caller.project_id().unwrap_or_default();
    let own = call.reader().get(&types::DEFAULTS, project).map(|r| r.text("volume_type_id").to_owned());
    own.and_then(|id| visible(call, &id).ok()).map_or_else(|| visible(call, types::DEFAULT_ID), Ok)
}

fn show(call: &Call) -> Result<Reply> {
    Ok(Reply::ok(shown(call, &look(call)?.map)))
}

async fn create(call: Call) -> Result<Reply> {
    let known = ["name", "description", "extra_specs", "os-volume-type-access:is_public", "is_public"];
    let given = Input::new(call.inner("volume_type")?, &known)?;
    let name = given.required("name")?.trim().to_owned();
    let is_public = given.flag("os-volume-type-access:is_public")?.or(given.flag("is_public")?).unwrap_or(true);
    let mut input = crate::common::map(json!({ "name": name, "description": given.text("description")? }));
    let extra = given.object("extra_specs")?.map(specs).transpose()?.unwrap_or_default();
    input.insert("extra_specs".into(), json!(extra));
    let row = call
        .transact(move |cx, tx| {
            let mut row = resource::create_row(VolumeType::DEF, cx, &input, tx.now)?;
            row.insert("is_public".into(), is_public.into());
            engine::insert(tx, VolumeType::DEF, cx, row)
        })
        .await?;
    let mut body = shown(&call, &row);
    // A create does not tell of what is not chosen in it.
    if let Some(kind) = body["volume_type"].as_object_mut() {
        kind.shift_remove("qos_specs_id");
    }
    Ok(Reply::ok(body))
}

async fn update(call: Call) -> Result<Reply> {
    let kind: Object<VolumeType> = visible(&call, call.param("id"))?;
    let given = Input::new(call.inner("volume_type")?, &["name", "description", "is_public"])?;
    let mut input = Map::new();
    if let Some(name) = given.text("name")? {
        if name.trim().is_empty() {
            return Err(Error::bad_request("Volume type name can not be empty."));
        }
        input.insert("name".into(), name.trim().into());
    }
    if let Some(description) = given.text("description")? {
        input.insert("description".into(), description.into());
    }
    if let Some(is_public) = given.flag("is_public")? {
        if kind.name == DEFAULT && !is_public {
            return Err(Error::bad_request("The default volume type is for all; it stays public."));
        }
        input.insert("is_public".into(), is_public.into());
    }
    if input.is_empty() {
        return Err(Error::bad_request("Specify volume type name, description, is_public or a combination thereof."));
    }
    let id = kind.id;
    let row = call.transact(move |cx, tx| engine::update(tx, VolumeType::DEF, cx, &id, &input)).await?;
    let mut body = shown(&call, &row);
    if let Some(kind) = body["volume_type"].as_object_mut() {
        kind.retain(|key, _| matches!(key.as_str(), "id" | "name" | "description" | "is_public" | "extra_specs"));
    }
    Ok(Reply::ok(body))
}

async fn remove(call: Call) -> Result<Reply> {
    let kind: Object<VolumeType> = visible(&call, call.param("id"))?;
    let id = kind.id;
    call.transact(move |cx, tx| engine::delete(tx, VolumeType::DEF, cx, &id)).await?;
    Ok(Reply::empty(202))
}

/// Changes the type of the path in one transaction.
pub(crate) async fn change<T: Send + 'static>(
    call: &Call,
    with: impl Fn(&mut resource::Tx<'_>, &mut Object<VolumeType>) -> Result<T> + Send + 'static,
) -> Result<T> {
    let kind: Object<VolumeType> = visible(call, call.param("id"))?;
    let id = kind.id;
    call.transact(move |_, tx| {
        let mut kind: Object<VolumeType> = resource::load(tx, &id)?.ok_or_else(|| missing(VolumeType::DEF, &id))?;
        let done = with(tx, &mut kind)?;
        kind.save(tx)?;
        Ok(done)
    })
    .await
}

async fn act(call: Call) -> Result<Reply> {
    let (action, body) = crate::actions::named(&call)?;
    if !matches!(action, "addProjectAccess" | "removeProjectAccess") {
        return Err(Error::bad_request(format!("There is no such action: {action}.")));
    }
    let add = action == "addProjectAccess";
    let project = Input::of(body, action, &["project"])?.required("project")?.to_owned();
    change(&call, move |_, kind| {
        if kind.is_public {
            return Err(Error::conflict("Type access modification is not applicable to public volume type."));
        }
        let has = kind.projects.contains(&project);
        match (add, has) {
            (true, true) => {
                Err(Error::conflict(format!("Volume type access for {} / {project} combination already exists.", kind.id)))
            }
            (false, false) => {
                Err(Error::not_found(format!("Volume type access not found for {} / {project} combination.", kind.id)))
            }
            (true, false) => {
                kind.projects.push(project.clone());
                Ok(())
            }
            (false, true) => {
                kind.projects.retain(|p| *p != project);
                Ok(())
            }
        }
    })
    .await?;
    Ok(Reply::empty(202))
}

fn projects(call: &Call) -> Result<Reply> {
    let kind: Object<VolumeType> = visible(call, call.param("id"))?;
    if kind.is_public {
        return Err(Error::not_found(format!("Access list not available for public volume types: {} is one.", kind.id)));
    }
    let list: Vec<Value> = kind.projects.iter().map(|p| json!({ "volume_type_id": kind.id, "project_id": p })).collect();
    Ok(Reply::ok(json!({ "volume_type_access": list })))
}

fn visible_specs(call: &Call) -> Result<Map> {
    let kind: Object<VolumeType> = visible(call, call.param("id"))?;
    let shown = shown(call, &kind.map);
    Ok(shown["volume_type"]["extra_specs"].as_object().cloned().unwrap_or_default())
}

fn show_specs(call: &Call) -> Result<Reply> {
    Ok(Reply::ok(json!({ "extra_specs": visible_specs(call)? })))
}

fn unknown(call: &Call) -> Error {
    Error::not_found(format!("Volume Type {} has no extra specs with key {}.", call.param("id"), call.param("key")))
}

fn show_spec(call: &Call) -> Result<Reply> {
    let key = call.param("key");
    let specs = visible_specs(call)?;
    let value = specs.get(key).ok_or_else(|| unknown(call))?;
    Ok(Reply::ok(json!({ key: value })))
}

async fn nameless(_: Call) -> Result<Reply> {
    Err(Error::bad_request("Request body and URI mismatch: the path must name an extra spec."))
}

async fn add_specs(call: Call) -> Result<Reply> {
    let _: Object<VolumeType> = visible(&call, call.param("id"))?;
    let more = specs(call.inner("extra_specs")?)?;
    let shown = more.clone();
    change(&call, move |_, kind| {
        kind.extra_specs.extend(more.clone());
        Ok(())
    })
    .await?;
    Ok(Reply::ok(json!({ "extra_specs": shown })))
}

async fn put_spec(call: Call) -> Result<Reply> {
    let _: Object<VolumeType> = visible(&call, call.param("id"))?;
    let key = call.param("key").to_owned();
    let given = call.object()?;
    if given.len() != 1 || !given.contains_key(&key) {
        return Err(Error::bad_request(
            "Request body and URI mismatch: the body must hold the one extra spec that the path names.",
        ));
    }
    let item = specs(given)?;
    let shown = item.clone();
    change(&call, move |_, kind| {
        kind.extra_specs.extend(item.clone());
        Ok(())
    })
    .await?;
    Ok(Reply::ok(json!(shown)))
}

async fn drop_spec(call: Call) -> Result<Reply> {
    let (key, missing) = (call.param("key").to_owned(), unknown(&call));
    change(&call, move |_, kind| kind.extra_specs.remove(&key).map(|_| ()).ok_or_else(|| missing.clone())).await?;
    Ok(Reply::empty(202))
}

/// Names of types by id, for lists that show both.
pub(crate) fn names(call: &Call) -> Vec<(String, String)> {
    call.reader().all(&VolumeType::DEF.table).map(|r| (r.id().to_owned(), text(object(r), "name").to_owned())).collect()
}
