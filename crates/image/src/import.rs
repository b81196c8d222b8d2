//! Import of staged data. It was hashed and inspected while it came in, so the import is one transaction.
use crate::{App, image::Image, info::STORE, rest::admitted, tasks};
use api::{Access, Call, Reply, Route};
use resource::{Error, Object, Result};
use serde_json::Value;
use std::sync::Arc;

/// Import methods. `web-download` and `copy-image` are not among them: nothing is fetched, and there is one store.
pub(crate) const METHODS: &[&str] = &["glance-direct"];

pub(crate) fn routes(app: &Arc<App>) -> Vec<Route> {
    let app = app.clone();
    vec![Route::new("POST", "/v2/images/{id}/import", Access::Authenticated, move |call| import(app.clone(), call))]
}

async fn import(app: Arc<App>, call: Call) -> Result<Reply> {
    let request = call.json().clone();
    check(&request)?;
    // The grace period of the staged blob begins anew, before the row names it as the image's data.
    let staged = crate::rest::look(&call)?.body.staged.and_then(|s| s.blob);
    if let Some(blob) = &staged {
        app.blobs.touch(blob).await.map_err(crate::upload::explain)?;
    }
    let id = call.param("id").to_owned();
    call.transact(move |cx, tx| {
        let mut image = admitted(tx, cx, &id, "upload_image")?;
        let failure = finish(&mut image)?;
        image.save(tx)?;
        tasks::record(tx, cx, &id, &request, failure.as_deref());
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

fn check(request: &Value) -> Result<()> {
    let method = request.pointer("/method/name").and_then(Value::as_str);
    let method =
        method.ok_or_else(|| Error::bad_request("The body must name the import method as {\"method\": {\"name\": …}}."))?;
    if !METHODS.contains(&method) {
        return Err(Error::bad_request(format!(
            "Unknown import method name '{method}'; see info/import for those that there are."
        )));
    }
    let all = request.get("all_stores") == Some(&Value::Bool(true));
    match request.get("stores") {
        None => Ok(()),
        Some(_) if all => {
            Err(Error::bad_request("all_stores parameter can't be used with x-image-meta-store header or stores parameter"))
        }
        Some(Value::Array(stores)) if stores.iter().all(|s| s == STORE) => Ok(()),
        Some(stores) => Err(Error::conflict(format!("There is no such store: {stores}. The only one is '{STORE}'."))),
    }
}

/// The image with its staged data as its data; or queued again, with why.
fn finish(image: &mut Object<Image>) -> Result<Option<String>> {
    if image.status != "uploading" {
        return Err(Error::conflict(format!("Image {} needs to be staged before 'glance-direct' method can be used", image.id)));
    }
    let staged = image.staged.take();
    let staged = staged
        .ok_or_else(|| Error::conflict(format!("The data of image {} is still being staged; wait for its end.", image.id)))?;
    if let Some(refusal) = staged.refusal {
        image.status = "queued".into();
        image.import_failed = true;
        return Ok(Some(refusal));
    }
    image.status = "active".into();
    image.import_failed = false;
    image.size = Some(staged.size);
    image.virtual_size = Some(staged.virtual_size);
    image.checksum = Some(staged.checksum);
    image.os_hash_algo = Some("sha512".into());
    image.os_hash_value = staged.blob;
    Ok(None)
}
