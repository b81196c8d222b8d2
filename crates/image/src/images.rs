//! Create, list, show and delete.
use crate::{
    App, attributes, filter,
    image::Image,
    import,
    protect::{Guard, Op},
    quota,
    rest::{admitted, look, require, shown},
};
use api::{Access, Call, Reply, Route, dialect::IMAGE};
use resource::{Cx, Map, Resource as _, Result, Tx, engine};
use serde_json::Value;
use std::sync::Arc;

pub(crate) fn routes(app: &Arc<App>) -> Vec<Route> {
    let app = app.clone();
    vec![
        Route::new("POST", "/v2/images", Access::Rule("add_image", "role:member"), move |call| create(app.clone(), call)),
        Route::new("GET", "/v2/images", Access::Rule("get_images", "role:reader"), list),
        Route::new("GET", "/v2/images/{id}", Access::Rule("get_image", "role:reader"), show),
        Route::new("DELETE", "/v2/images/{id}", Access::Authenticated, delete),
    ]
}

async fn create(app: Arc<App>, call: Call) -> Result<Reply> {
    let (input, id) = attributes::of_create(call.object()?)?;
    let row = call.transact(move |cx, tx| insert(cx, tx, &input, id.as_deref())).await?;
    let location = api::links(Image::DEF, &call.cx, crate::image::text(&row, "id"));
    Ok(Reply::json(201, shown(&call, &row))
        .header("location", location)
        .header("openstack-image-import-methods", import::methods(&app).join(","))
        .header("openstack-image-store-ids", app.stores.ids().join(",")))
}

/// A new image of these fields, and with this id if one is named.
pub(crate) fn insert(cx: &Cx, tx: &mut Tx<'_>, fields: &Map, id: Option<&str>) -> Result<Map> {
    let mut row = resource::create_row(Image::DEF, cx, fields, tx.now)?;
    if let Some(id) = id {
        row.insert("id".into(), id.into());
    }
    attributes::check_visibility(cx, crate::image::text(&row, "visibility"), &row)?;
    let guard = Guard::of(cx);
    for name in row.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name) {
        guard.require(name, Op::Create)?;
    }
    quota::check(tx, cx, crate::image::text(&row, "project_id"), &[(quota::COUNT, 1)])?;
    engine::insert(tx, Image::DEF, cx, row)
}

async fn list(call: Call) -> Result<Reply> {
    let cx = &call.cx;
    filter::check(cx)?;
    let mut listing = (IMAGE.listing)(Image::DEF, cx)?;
    listing.filters.extend(filter::implicit(cx));
    let reader = call.reader();
    let found = resource::list(Image::DEF, cx, &reader, &listing)?;
    let view = |row: &Map| Value::from(api::view_row(Image::DEF, &IMAGE, row, cx, &reader, false));
    let rows: Vec<Value> = found.rows.iter().filter_map(|r| r.value().as_object()).map(view).collect();
    let mut body = Map::new();
    body.insert("images".into(), rows.into());
    (IMAGE.page)(Image::DEF, cx, &listing, &found, &mut body);
    Ok(Reply::ok(body.into()))
}

async fn show(call: Call) -> Result<Reply> {
    let image = look(&call)?;
    require(&call.cx, "get_image", Some(&image.map))?;
    Ok(Reply::ok(shown(&call, &image.map)))
}

async fn delete(call: Call) -> Result<Reply> {
    let id = call.param("id").to_owned();
    call.transact(move |cx, tx| {
        admitted(tx, cx, &id, "delete_image")?;
        engine::delete(tx, Image::DEF, cx, &id)
    })
    .await?;
    Ok(Reply::empty(204))
}
