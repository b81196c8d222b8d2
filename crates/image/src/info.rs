//! What this service offers: import methods, stores, and how much of them a project uses.
use crate::{
    App,
    garbage::drop_place,
    image::places,
    import, quota,
    rest::admitted,
    stores::{Enabled, Kind},
};
use api::{Access, Call, Reply, Route};
use resource::{Error, Map, Result};
use serde_json::json;
use std::sync::Arc;

pub(crate) fn routes(app: &Arc<App>) -> Vec<Route> {
    let (one, two, three, four) = (app.clone(), app.clone(), app.clone(), app.clone());
    vec![
        Route::new("GET", "/v2/info/import", Access::Authenticated, move |call| methods(one.clone(), call)),
        Route::new("GET", "/v2/info/stores", Access::Authenticated, move |call| stores(two.clone(), call)),
        Route::new("GET", "/v2/info/stores/detail", Access::Rule("stores_info_detail", "role:admin"), move |call| {
            stores_detail(three.clone(), call)
        }),
        Route::new("GET", "/v2/info/usage", Access::Authenticated, usage),
        Route::new("DELETE", "/v2/stores/{store}/{id}", Access::Authenticated, move |call| delete_from(four.clone(), call)),
    ]
}

async fn methods(app: Arc<App>, _call: Call) -> Result<Reply> {
    let value = import::methods(&app);
    Ok(Reply::ok(json!({"import-methods": {"description": "Import methods available.", "type": "array", "value": value}})))
}

fn shown(app: &App, store: &Enabled) -> Map {
    let mut out = Map::new();
    out.insert("id".into(), store.id.as_str().into());
    if !store.description.is_empty() {
        out.insert("description".into(), store.description.as_str().into());
    }
    if store.id == app.stores.default_id() {
        out.insert("default".into(), "true".into());
    }
    out
}

async fn stores(app: Arc<App>, _call: Call) -> Result<Reply> {
    let all: Vec<Map> = app.stores.all().iter().map(|store| shown(&app, store)).collect();
    Ok(Reply::ok(json!({ "stores": all })))
}

/// What an administrator sees of a store; no address and no credentials.
async fn stores_detail(app: Arc<App>, _call: Call) -> Result<Reply> {
    let detail = |store: &Enabled| {
        let mut out = shown(&app, store);
        let (kind, properties) = match &store.kind {
            Kind::Local(_) => ("file", json!({})),
            Kind::S3 { bucket, .. } => ("s3", json!({"s3_store_bucket": bucket.name()})),
        };
        out.insert("type".into(), kind.into());
        out.insert("properties".into(), properties);
        out.insert("weight".into(), store.weight.into());
        out
    };
    Ok(Reply::ok(json!({"stores": app.stores.all().iter().map(detail).collect::<Vec<Map>>()})))
}

async fn usage(call: Call) -> Result<Reply> {
    let body = call
        .transact(|cx, tx| {
            let project = cx.project()?;
            let mut shown = Map::new();
            for (name, usage) in quota::used(tx, &project)? {
                shown.insert(name.into(), json!({"limit": quota::limit(tx, cx, &project, name), "usage": usage}));
            }
            Ok(json!({"usage": shown}))
        })
        .await?;
    Ok(Reply::ok(body))
}

/// Takes an image's data out of one of its stores, never out of the last one.
async fn delete_from(app: Arc<App>, call: Call) -> Result<Reply> {
    let (id, store) = (call.param("id").to_owned(), call.param("store").to_owned());
    if app.stores.get(&store).is_none() {
        return Err(Error::conflict("The selected store is not available on this node; see info/stores."));
    }
    call.transact(move |cx, tx| {
        let mut image = admitted(tx, cx, &id, "delete_image_location")?;
        if image.status != "active" {
            return Err(Error::conflict("It's not allowed to remove image data from store if image status is not 'active'"));
        }
        let mut places = places(&image.map);
        let Some(at) = places.iter().position(|place| place.store == store) else {
            return Err(Error::not_found(format!("Image {id} is not stored in store {store}.")));
        };
        if places.len() == 1 {
            return Err(Error::forbidden(
                "Cannot delete image data from the only store containing it. Consider deleting the image instead.",
            ));
        }
        drop_place(tx, &places.remove(at));
        image.places = places;
        image.save(tx)
    })
    .await?;
    Ok(Reply::empty(204))
}
