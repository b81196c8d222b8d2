//! Locations: where an image's data is, for services, and data that is at an address already.
//!
//! An address is where data is fetched from once, hashed, inspected and kept; the image does not go on living there, where it could
//! change after it was found safe. So it passes the rules of every fetch from the web, and the old way of setting locations
//! by a patch stays closed to everyone, as its advisories ask (OSSN-0065 and its successors).
use crate::{
    App,
    digest::ALGORITHMS,
    image::{Import, Place, places, text},
    import::{WITHIN, check_idle},
    quota,
    rest::{look, require, seen},
    signature,
    tasks::{self, Begun},
    transfer::LOCATION,
};
use api::{Access, Call, Reply, Route};
use resource::{Cx, Error, Result};
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) fn routes(app: &Arc<App>) -> Vec<Route> {
    const PATH: &str = "/v2/images/{id}/locations";
    let (one, two) = (app.clone(), app.clone());
    vec![
        Route::new("POST", PATH, Access::Authenticated, move |call| add(one.clone(), call)),
        Route::new("GET", PATH, Access::Authenticated, move |call| list(two.clone(), call)),
    ]
}

async fn list(app: Arc<App>, call: Call) -> Result<Reply> {
    let image = look(&call)?;
    require(&call.cx, "fetch_image_location", Some(&image.map))?;
    let blob = text(&image.map, "os_hash_value");
    let url = |place: &Place| match (&place.key, app.stores.bucket(&place.store)) {
        (Some(key), Some((bucket, _))) => format!("s3://{}/{key}", bucket.name()),
        _ => format!("blob://{}/{blob}", place.store),
    };
    let shown = |place: &Place| json!({"url": url(place), "metadata": {"store": place.store}});
    Ok(Reply::ok(places(&image.map).iter().map(shown).collect()))
}

/// A hash that the data must have.
fn announced(body: &Value) -> Result<Option<(String, String)>> {
    let data = match body.get("validation_data") {
        None => return Ok(None),
        Some(Value::Object(data)) => data,
        Some(_) => return Err(Error::bad_request("validation_data must be an object with os_hash_algo and os_hash_value.")),
    };
    if let Some(odd) = data.keys().find(|key| !matches!(key.as_str(), "os_hash_algo" | "os_hash_value")) {
        let odd: String = odd.chars().take(64).collect();
        return Err(Error::bad_request(format!("validation_data must have os_hash_algo and os_hash_value only, not '{odd}'.")));
    }
    let (algorithm, value) = (text(data, "os_hash_algo"), text(data, "os_hash_value"));
    if data.is_empty() {
        return Ok(None);
    }
    let known = ALGORITHMS.iter().find(|(name, _)| *name == algorithm);
    let (_, digits) = known.ok_or_else(|| Error::bad_request("os_hash_algo must be one of sha1, sha256, sha512 and md5."))?;
    if value.len() != *digits || !value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Error::bad_request(format!(
            "os_hash_value is not the correct size for {algorithm}: {digits} hexadecimal digits."
        )));
    }
    Ok(Some((algorithm.to_owned(), value.to_ascii_lowercase())))
}

async fn add(app: Arc<App>, call: Call) -> Result<Reply> {
    let body = call.json().clone();
    let url =
        body.get("url").and_then(Value::as_str).ok_or_else(|| Error::bad_request("A location needs its 'url'."))?.to_owned();
    let hash = announced(&body)?;
    let id = call.param("id").to_owned();
    let image = look(&call)?;
    require(&call.cx, "add_image_location", Some(&image.map))?;
    let signed = signature::certify(&app, &call, signature::asked(&image)?).await?;
    call.transact(move |cx, tx| {
        let mut image = seen(tx, cx, &id)?;
        require(cx, "add_image_location", Some(&image.map))?;
        if image.status != "queued" {
            return Err(Error::conflict(format!("It's not allowed to add locations if image status is {}.", image.status)));
        }
        check_url(&app, cx, &url)?;
        check_idle(&image)?;
        if image.disk_format.is_none() || image.container_format.is_none() {
            return Err(Error::bad_request("Properties disk_format, container_format must be set prior to saving data."));
        }
        signature::check_unchanged(&image, signed.as_ref())?;
        quota::check(tx, cx, image.project_id(), &[(quota::SIZE, 0), (quota::STAGED, 0), (quota::UPLOADING, 1)])?;
        let todo = vec![app.stores.default_id().to_owned()];
        let task = tasks::begin(tx, cx, &Begun { image: &id, kind: "location_import", request: &body, stores: &todo });
        image.import = Some(Import {
            task,
            method: LOCATION.into(),
            uri: Some(url.clone()),
            hash: hash.clone(),
            signed: signed.clone(),
            todo,
            done: Vec::new(),
            failed: Vec::new(),
            all: true,
            until: tx.now.plus(WITHIN),
            place: None,
            attempts: 0,
        });
        image.status = "importing".into();
        image.import_failed = false;
        image.failed_stores = None;
        image.save(tx)
    })
    .await?;
    Ok(Reply::empty(202))
}

fn check_url(app: &App, cx: &Cx, url: &str) -> Result<()> {
    let closed = || Error::forbidden("http store must be enabled to use location API by normal user.");
    let rules = app.options.web.as_ref().ok_or_else(closed)?;
    if !app.options.locations && !cx.may("fetch_image_location", None) {
        return Err(closed());
    }
    rules
        .check(url)
        .map_err(|e| Error::bad_request(format!("URI for the location does not pass filtering: {}.", base::chain(&e))))
}
