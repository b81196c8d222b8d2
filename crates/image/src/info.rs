//! What this service offers: import methods, stores, and how much of them a project uses.
use crate::{
    image::Image,
    import,
    rest::{look, require},
};
use api::{Access, Call, Reply, Route};
use resource::{Error, Result, engine};
use serde_json::json;

/// The one store: blobs that drover keeps itself.
pub(crate) const STORE: &str = "local";

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::new("GET", "/v2/info/import", Access::Authenticated, methods),
        Route::new("GET", "/v2/info/stores", Access::Authenticated, stores),
        Route::new("GET", "/v2/info/stores/detail", Access::Rule("stores_info_detail", "role:admin"), stores_detail),
        Route::new("GET", "/v2/info/usage", Access::Authenticated, usage),
        Route::new("DELETE", "/v2/stores/{store}/{id}", Access::Authenticated, delete_from),
    ]
}

async fn methods(_call: Call) -> Result<Reply> {
    let body = json!({"import-methods": {"description": "Import methods available.", "type": "array", "value": import::METHODS}});
    Ok(Reply::ok(body))
}

async fn stores(_call: Call) -> Result<Reply> {
    Ok(Reply::ok(json!({"stores": [{"id": STORE, "description": "Copies kept by the cloud itself", "default": "true"}]})))
}

async fn stores_detail(_call: Call) -> Result<Reply> {
    let store = json!({"id": STORE, "type": "file", "description": "Copies kept by the cloud itself", "default": "true", "properties": {}, "weight": 0});
    Ok(Reply::ok(json!({"stores": [store]})))
}

async fn usage(call: Call) -> Result<Reply> {
    let body = call
        .transact(|cx, tx| {
            let project = cx.project()?;
            let images = resource::find::<Image>(tx, "project_id", &project)?;
            let mib = |bytes: u64| bytes.div_ceil(1 << 20);
            let uploading = |status: &str| matches!(status, "saving" | "uploading" | "importing");
            let used = [
                ("image_size_total", mib(images.iter().filter_map(|i| i.size).sum())),
                ("image_count_total", images.len() as u64),
                ("image_stage_total", mib(images.iter().filter_map(|i| i.staged.as_ref().map(|s| s.size)).sum())),
                ("image_count_uploading", images.iter().filter(|i| uploading(&i.status)).count() as u64),
            ];
            let mut shown = resource::Map::new();
            for (name, usage) in used {
                shown.insert(name.into(), json!({"limit": engine::limit(tx, cx, &project, "image", name), "usage": usage}));
            }
            Ok(json!({"usage": shown}))
        })
        .await?;
    Ok(Reply::ok(body))
}

/// There is one store, and data is not taken from an image's last one.
async fn delete_from(call: Call) -> Result<Reply> {
    let (image, store) = (look(&call)?, call.param("store"));
    require(&call.cx, "delete_image", Some(&image.map))?;
    if store != STORE || !crate::sweeper::has_data(&image.map) {
        return Err(Error::not_found(format!("Image {} is not stored in {store}.", image.id)));
    }
    Err(Error::forbidden(format!("The data of image {} is in no other store; delete the image instead.", image.id)))
}
