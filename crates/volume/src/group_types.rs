//! `/group_types` (since 3.11): kinds of groups, and their specs.
use crate::{
    common::{missing, visible},
    input::{Input, specs},
    listing,
    resources::GroupType,
};
use api::{Access, Call, Error, Reply, Result, Route};
use resource::{Object, Resource as _, engine};
use serde_json::json;

pub(crate) fn routes() -> Vec<Route> {
    let read = Access::Rule("volume:get_all_group_types", "reader");
    let (manage, spec) = (Access::Rule("group:group_types_manage", "admin"), Access::Rule("group:group_types_specs", "admin"));
    [
        Route::new(
            "GET",
            "/v3/group_types",
            read,
            |call| async move { listing::reply(GroupType::DEF, &call, false, listing::plain) },
        ),
        Route::new("POST", "/v3/group_types", manage, create),
        Route::new("GET", "/v3/group_types/{id}", read, |call| async move { show(&call) }),
        Route::new("PUT", "/v3/group_types/{id}", manage, update),
        Route::new("DELETE", "/v3/group_types/{id}", manage, remove),
        Route::new("GET", "/v3/group_types/{id}/group_specs", spec, |call| async move { show_specs(&call) }),
        Route::new("POST", "/v3/group_types/{id}/group_specs", spec, add_specs),
        Route::new("GET", "/v3/group_types/{id}/group_specs/{key}", spec, |call| async move { show_spec(&call) }),
        Route::new("PUT", "/v3/group_types/{id}/group_specs/{key}", spec, put_spec),
        Route::new("DELETE", "/v3/group_types/{id}/group_specs/{key}", spec, drop_spec),
    ]
    .into_iter()
    .map(|r| r.since("3.11"))
    .collect()
}

fn show(call: &Call) -> Result<Reply> {
    if call.param("id") == "default" {
        return Err(Error::not_found("Default group type can not be found: this cloud has none."));
    }
    let kind: Object<GroupType> = visible(call, call.param("id"))?;
    Ok(Reply::ok(listing::wrapped(GroupType::DEF, call, &kind.map, listing::plain)))
}

async fn create(call: Call) -> Result<Reply> {
    let mut given = call.inner("group_type")?.clone();
    given.retain(|_, v| !v.is_null());
    let input = Input::new(&given, &["name", "description", "is_public", "group_specs"])?;
    input.required("name")?;
    let described = input.object("group_specs")?.map(specs).transpose()?.unwrap_or_default();
    let mut fields = given.clone();
    fields.insert("group_specs".into(), json!(described));
    let row = call.transact(move |cx, tx| engine::create(tx, GroupType::DEF, cx, &fields)).await?;
    Ok(Reply::json(202, listing::wrapped(GroupType::DEF, &call, &row, listing::plain)))
}

async fn update(call: Call) -> Result<Reply> {
    let kind: Object<GroupType> = visible(&call, call.param("id"))?;
    let mut given = call.inner("group_type")?.clone();
    given.retain(|_, v| !v.is_null());
    let input = Input::new(&given, &["name", "description", "is_public"])?;
    if given.is_empty() || input.text("name")?.is_some_and(|n| n.trim().is_empty()) {
        return Err(Error::bad_request("Specify group type name, description or is_public; a name is not empty."));
    }
    let id = kind.id;
    let row = call.transact(move |cx, tx| engine::update(tx, GroupType::DEF, cx, &id, &given)).await?;
    Ok(Reply::ok(listing::wrapped(GroupType::DEF, &call, &row, listing::plain)))
}

async fn remove(call: Call) -> Result<Reply> {
    let kind: Object<GroupType> = visible(&call, call.param("id"))?;
    let id = kind.id;
    call.transact(move |cx, tx| engine::delete(tx, GroupType::DEF, cx, &id)).await?;
    Ok(Reply::empty(202))
}

fn unknown(call: &Call) -> Error {
    Error::not_found(format!("Group Type {} has no specs with key {}.", call.param("id"), call.param("key")))
}

fn show_specs(call: &Call) -> Result<Reply> {
    let kind: Object<GroupType> = visible(call, call.param("id"))?;
    Ok(Reply::ok(json!({ "group_specs": kind.group_specs })))
}

fn show_spec(call: &Call) -> Result<Reply> {
    let kind: Object<GroupType> = visible(call, call.param("id"))?;
    let key = call.param("key");
    let value = kind.group_specs.get(key).ok_or_else(|| unknown(call))?;
    Ok(Reply::ok(json!({ key: value })))
}

async fn change(call: &Call, with: impl Fn(&mut GroupType) -> Result<()> + Send + 'static) -> Result<()> {
    let kind: Object<GroupType> = visible(call, call.param("id"))?;
    let id = kind.id;
    call.transact(move |_, tx| {
        let mut kind: Object<GroupType> = resource::load(tx, &id)?.ok_or_else(|| missing(GroupType::DEF, &id))?;
        with(&mut kind.body)?;
        kind.save(tx)
    })
    .await
}

async fn add_specs(call: Call) -> Result<Reply> {
    let more = specs(call.inner("group_specs")?)?;
    let shown = more.clone();
    change(&call, move |kind| {
        kind.group_specs.extend(more.clone());
        Ok(())
    })
    .await?;
    Ok(Reply::json(202, json!({ "group_specs": shown })))
}

async fn put_spec(call: Call) -> Result<Reply> {
    let given = call.object()?;
    if given.len() != 1 || !given.contains_key(call.param("key")) {
        return Err(Error::bad_request("Request body and URI mismatch: the body must hold the one spec that the path names."));
    }
    let item = specs(given)?;
    let shown = item.clone();
    change(&call, move |kind| {
        kind.group_specs.extend(item.clone());
        Ok(())
    })
    .await?;
    Ok(Reply::ok(json!(shown)))
}

async fn drop_spec(call: Call) -> Result<Reply> {
    let (key, missing) = (call.param("key").to_owned(), unknown(&call));
    change(&call, move |kind| kind.group_specs.remove(&key).map(|_| ()).ok_or_else(|| missing.clone())).await?;
    Ok(Reply::empty(202))
}
