//! Create, list, show and delete.
use crate::{
    attributes, filter,
    image::Image,
    import,
    info::STORE,
    rest::{admitted, look, require, shown},
};
use api::{Access, Call, Reply, Route, dialect::IMAGE};
use resource::{Map, Resource as _, Result, engine};
use serde_json::Value;

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::new("POST", "/v2/images", Access::Rule("add_image", "role:member"), create),
        Route::new("GET", "/v2/images", Access::Rule("get_images", "role:reader"), list),
        Route::new("GET", "/v2/images/{id}", Access::Rule("get_image", "role:reader"), show),
        Route::new("DELETE", "/v2/images/{id}", Access::Authenticated, delete),
    ]
}

async fn create(call: Call) -> Result<Reply> {
    let (input, id) = attributes::of_create(call.object()?)?;
    let row = call
        .transact(move |cx, tx| {
            let mut row = resource::create_row(Image::DEF, cx, &input, tx.now)?;
            if let Some(id) = &id {
                row.insert("id".into(), id.as_str().into());
            }
            attributes::check_visibility(cx, crate::image::text(&row, "visibility"), &row)?;
            engine::insert(tx, Image::DEF, cx, row)
        })
        .await?;
    let location = api::links(Image::DEF, &call.cx, crate::image::text(&row, "id"));
    Ok(Reply::json(201, shown(&call, &row))
        .header("location", location)
        .header("openstack-image-import-methods", import::METHODS.join(","))
        .header("openstack-image-store-ids", STORE))
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
