//! Metadata of images through the old road (Nova api-ref, `images/{id}/metadata`, until 2.38).
use super::images;
use crate::{
    common::object,
    quota,
    shape::{self, Shape, req},
};
use api::{Access, Call, Error, Map, Reply, Result, Route};
use resource::engine;
use serde_json::{Value, json};

const ALL: Shape = Shape::Object(&[req("metadata", &shape::METADATA)]);
const ONE: Shape = Shape::Object(&[req("meta", &shape::METADATA)]);

async fn list(call: Call) -> Result<Reply> {
    let row = images::look(&call)?;
    Ok(Reply::ok(json!({ "metadata": images::metadata(object(&row)) })))
}

async fn show(call: Call) -> Result<Reply> {
    let key = call.param("key");
    let row = images::look(&call)?;
    match images::metadata(object(&row)).get(key) {
        Some(value) => Ok(Reply::ok(json!({ "meta": { key: value } }))),
        None => Err(Error::not_found("The resource could not be found.")),
    }
}

/// Changes the image's properties in one transaction, and gives what they are now.
async fn change(call: &Call, f: impl Fn(&mut Map) -> Result<()> + Send + 'static) -> Result<Map> {
    let row = images::look(call)?;
    let id = row.id().to_owned();
    if !call.cx.may("modify_image", Some(object(&row))) {
        return Err(Error::forbidden(format!("Not authorized for image {id}.")));
    }
    let def = call.cx.registry.get("image/images")?;
    call.transact(move |cx, tx| {
        let row = tx.get(&def.table, &id).ok_or_else(images::missing)?;
        let mut properties = images::metadata(object(&row));
        f(&mut properties)?;
        let project = cx.caller.project_id().unwrap_or_default();
        let limit = quota::limit(tx, cx, project, "metadata_items");
        if limit >= 0 && properties.len() as i64 > limit {
            return Err(Error::forbidden("Image metadata limit exceeded"));
        }
        let input = crate::common::map(json!({ "properties": properties }));
        engine::update(tx, def, cx, &id, &input)?;
        Ok(properties)
    })
    .await
}

fn given(call: &Call, key: &str) -> Result<Map> {
    Ok(call.object()?.get(key).and_then(Value::as_object).cloned().unwrap_or_default())
}

async fn add(call: Call) -> Result<Reply> {
    images::look(&call)?;
    ALL.check(call.json(), &call.cx)?;
    let input = given(&call, "metadata")?;
    let now = change(&call, move |properties| {
        properties.extend(input.clone());
        Ok(())
    })
    .await?;
    Ok(Reply::ok(json!({ "metadata": now })))
}

async fn replace(call: Call) -> Result<Reply> {
    images::look(&call)?;
    ALL.check(call.json(), &call.cx)?;
    let input = given(&call, "metadata")?;
    let now = change(&call, move |properties| {
        properties.clone_from(&input);
        Ok(())
    })
    .await?;
    Ok(Reply::ok(json!({ "metadata": now })))
}

async fn set(call: Call) -> Result<Reply> {
    ONE.check(call.json(), &call.cx)?;
    let (meta, key) = (given(&call, "meta")?, call.param("key").to_owned());
    if meta.len() != 1 {
        return Err(Error::bad_request("Invalid input for field/attribute meta. It must hold one item."));
    }
    let Some(value) = meta.get(&key).cloned() else { return Err(Error::bad_request("Request body and URI mismatch")) };
    change(&call, move |properties| {
        properties.insert(key.clone(), value.clone());
        Ok(())
    })
    .await?;
    Ok(Reply::ok(json!({ "meta": meta })))
}

async fn delete(call: Call) -> Result<Reply> {
    let key = call.param("key").to_owned();
    change(&call, move |properties| match properties.shift_remove(&key) {
        Some(_) => Ok(()),
        None => Err(Error::not_found("Invalid metadata key")),
    })
    .await?;
    Ok(Reply::empty(204))
}

pub(super) fn routes() -> Vec<Route> {
    let (any, reads) = (Access::Authenticated, Access::Rule("get_images", "reader"));
    let (all, one) = ("/v2.1/images/{id}/metadata", "/v2.1/images/{id}/metadata/{key}");
    let routes = vec![
        Route::new("GET", all, reads, list),
        Route::new("POST", all, any, add),
        Route::new("PUT", all, any, replace),
        Route::new("GET", one, reads, show),
        Route::new("PUT", one, any, set),
        Route::new("DELETE", one, any, delete),
    ];
    routes.into_iter().map(|r| r.until("2.38")).collect()
}
