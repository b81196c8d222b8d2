//! What may be imported, and the beginning of it. [`Imports`](crate::Imports) does the rest.
//!
//! Staged data was hashed and inspected while it came in, so its import into `local` alone is one transaction.
use crate::{
    App,
    image::{Image, Import, places},
    quota,
    rest::{look, require, seen},
    signature::{self, Signed},
    stores::LOCAL,
    tasks::{self, Begun},
    transfer::{self, COPY, DIRECT, WEB},
};
use api::{Access, Call, Reply, Route};
use resource::{Cx, Error, Object, Result, Tx};
use serde_json::Value;
use std::{sync::Arc, time::Duration};

/// An import that has not ended by then has failed.
pub(crate) const WITHIN: Duration = Duration::from_secs(6 * 3600);

/// Import methods, in the order of their names' fame.
pub(crate) fn methods(app: &App) -> Vec<&'static str> {
    let all = [(DIRECT, true), (WEB, app.options.web.is_some()), (COPY, app.stores.all().len() > 1)];
    all.into_iter().filter_map(|(name, offered)| offered.then_some(name)).collect()
}

pub(crate) fn routes(app: &Arc<App>) -> Vec<Route> {
    let app = app.clone();
    vec![Route::new("POST", "/v2/images/{id}/import", Access::Authenticated, move |call| import(app.clone(), call))]
}

/// What a request asks for.
#[derive(Clone)]
pub(crate) struct Asked {
    method: &'static str,
    uri: Option<String>,
    /// None: all of them.
    stores: Option<Vec<String>>,
    all_must_succeed: bool,
}

async fn import(app: Arc<App>, call: Call) -> Result<Reply> {
    let request = call.json().clone();
    let asked = asked(&app, &call, &request)?;
    let image = look(&call)?;
    admit(&call.cx, &image, asked.method)?;
    let signed = signature::certify(&app, &call, signature::asked(&image)?).await?;
    // The grace period of the staged blob begins anew, before the row names it as the image's data.
    if let Some(blob) = image.body.staged.and_then(|s| s.blob) {
        app.stores.base().touch(&blob).await.map_err(crate::upload::explain)?;
    }
    let id = call.param("id").to_owned();
    call.transact(move |cx, tx| {
        let start = Start { asked: &asked, signed: signed.as_ref(), kind: "api_image_import", request: &request };
        begin(&app, cx, tx, &id, &start)
    })
    .await?;
    Ok(Reply::empty(202))
}

fn flag(request: &Value, name: &str, default: bool) -> Result<bool> {
    match request.get(name) {
        None => Ok(default),
        Some(Value::Bool(value)) => Ok(*value),
        Some(_) => Err(Error::bad_request(format!("'{name}' must be boolean value only"))),
    }
}

pub(crate) fn asked(app: &App, call: &Call, request: &Value) -> Result<Asked> {
    let method = request.get("method").ok_or_else(|| Error::bad_request("Import request requires a 'method' field."))?;
    let name = method.get("name").and_then(Value::as_str);
    let name = name.ok_or_else(|| Error::bad_request("Import request requires a 'name' field."))?;
    let unknown =
        || Error::bad_request(format!("Unknown import method name '{name}'; see info/import for those that there are."));
    let known = methods(app).into_iter().find(|known| *known == name).ok_or_else(unknown)?;
    let all_must_succeed = flag(request, "all_stores_must_succeed", true)?;
    let stores = stores(app, call, request)?;
    let uri = match (known, &app.options.web) {
        (WEB, Some(rules)) => {
            let uri = method.get("uri").and_then(Value::as_str).unwrap_or_default();
            rules.check(uri).map_err(|e| {
                let shown: String = uri.chars().filter(|c| !c.is_control()).take(255).collect();
                Error::bad_request(format!("URI for web-download does not pass filtering: {shown}: {}.", base::chain(&e)))
            })?;
            Some(uri.to_owned())
        }
        _ => None,
    };
    Ok(Asked { method: known, uri, stores, all_must_succeed })
}

fn stores(app: &App, call: &Call, request: &Value) -> Result<Option<Vec<String>>> {
    let (header, body) = (call.header("x-image-meta-store"), request.get("stores"));
    if flag(request, "all_stores", false)? {
        return match (header, body) {
            (None, None) => Ok(None),
            _ => Err(Error::bad_request("all_stores parameter can't be used with x-image-meta-store header or stores parameter")),
        };
    }
    let ids = match (header, body) {
        (_, Some(Value::Array(list))) => {
            let texts: Option<Vec<String>> = list.iter().map(|id| id.as_str().map(str::to_owned)).collect();
            texts.ok_or_else(|| Error::bad_request("'stores' must be a list of the ids of stores."))?
        }
        (_, Some(_)) => return Err(Error::bad_request("'stores' must be a list of the ids of stores.")),
        (Some(id), None) => vec![id.to_owned()],
        (None, None) => vec![app.stores.default_id().to_owned()],
    };
    let mut once: Vec<String> = Vec::new();
    for id in ids {
        if !once.contains(&id) {
            once.push(id);
        }
    }
    let mut unknown: Vec<_> = app.stores.unknown(&once).into_iter().collect();
    unknown.sort_unstable();
    if unknown.is_empty() {
        return Ok(Some(once));
    }
    Err(Error::conflict(format!(
        "There is no such image store: {}; see info/stores for those that there are.",
        unknown.join(", ")
    )))
}

/// Refuses what the image's status does not allow.
fn check_status(image: &Object<Image>, method: &str) -> Result<()> {
    let refused = match (image.status.as_str(), method) {
        ("active", COPY) | ("queued", WEB) | ("uploading", DIRECT) => None,
        (_, COPY) => Some("Only images with status active can be targeted for copying".to_owned()),
        ("active", _) => Some("Image with status active cannot be target for import".to_owned()),
        (_, WEB) => Some(format!("Image needs to be in 'queued' state to use '{method}' method")),
        (_, _) => Some(format!("Image {} needs to be staged before '{method}' method can be used", image.id)),
    };
    if let Some(message) = refused {
        return Err(Error::conflict(message));
    }
    for (name, value) in [("container_format", &image.container_format), ("disk_format", &image.disk_format)] {
        if value.is_none() {
            return Err(Error::conflict(format!("'{name}' needs to be set before import")));
        }
    }
    Ok(())
}

/// Nothing else brings bytes into the image.
pub(crate) fn check_idle(image: &Object<Image>) -> Result<()> {
    if image.import.is_some() || image.upload.is_some() {
        return Err(Error::conflict(format!(
            "New operation on image '{}' is not permitted as prior operation is still in progress",
            image.id
        )));
    }
    Ok(())
}

/// May this caller import into the image, and can it be imported into now?
fn admit(cx: &Cx, image: &Object<Image>, method: &str) -> Result<()> {
    require(cx, if method == COPY { "copy_image" } else { "upload_image" }, Some(&image.map))?;
    check_status(image, method)?;
    check_idle(image)
}

/// How an import starts, and what its task says of it.
pub(crate) struct Start<'a> {
    pub(crate) asked: &'a Asked,
    pub(crate) signed: Option<&'a Signed>,
    pub(crate) kind: &'static str,
    pub(crate) request: &'a Value,
}

/// Gives the task; none when there is nothing to do.
pub(crate) fn begin(app: &App, cx: &Cx, tx: &mut Tx<'_>, id: &str, start: &Start<'_>) -> Result<Option<String>> {
    let Start { asked, signed, kind, request } = *start;
    let mut image = seen(tx, cx, id)?;
    admit(cx, &image, asked.method)?;
    signature::check_unchanged(&image, signed)?;
    let todo = targets(app, &image, asked)?;
    if todo.is_empty() {
        return Ok(None);
    }
    check_quota(cx, tx, &image, asked.method)?;
    let task = tasks::begin(tx, cx, &Begun { image: id, kind, request, stores: &todo });
    let stays = todo == [LOCAL] && signed.is_none();
    let at_once = asked.method == DIRECT && (stays || image.staged.as_ref().is_some_and(|s| s.refusal.is_some()));
    image.import_failed = false;
    image.failed_stores = None;
    image.import = Some(Import {
        task: task.clone(),
        method: asked.method.into(),
        uri: asked.uri.clone(),
        hash: None,
        signed: signed.cloned(),
        todo,
        done: Vec::new(),
        failed: Vec::new(),
        all: asked.all_must_succeed,
        until: tx.now.plus(WITHIN),
        place: None,
        attempts: 0,
    });
    if asked.method == DIRECT && image.staged.is_none() {
        return Err(Error::conflict(format!("The data of image {id} is still being staged; wait for its end.")));
    }
    if asked.method != COPY {
        image.status = "importing".into();
    }
    if at_once {
        transfer::at_once(&mut image.body);
        transfer::end(tx, &mut image)?;
    }
    image.save(tx)?;
    Ok(Some(task))
}

fn check_quota(cx: &Cx, tx: &mut Tx<'_>, image: &Object<Image>, method: &str) -> Result<()> {
    let size = quota::mib(image.size.unwrap_or(0));
    let deltas = match method {
        // It is staged and counted already.
        DIRECT => vec![(quota::SIZE, image.staged.as_ref().map_or(0, |staged| quota::mib(staged.size)))],
        COPY => vec![(quota::SIZE, 0), (quota::STAGED, size), (quota::UPLOADING, 1)],
        _ => vec![(quota::SIZE, 0), (quota::STAGED, 0), (quota::UPLOADING, 1)],
    };
    quota::check(tx, cx, image.project_id(), &deltas)
}

fn targets(app: &App, image: &Object<Image>, asked: &Asked) -> Result<Vec<String>> {
    let present: Vec<String> = places(&image.map).into_iter().map(|place| place.store).collect();
    let Some(stores) = &asked.stores else {
        return Ok(app.stores.ids().into_iter().filter(|id| asked.method != COPY || !present.contains(id)).collect());
    };
    match stores.iter().find(|id| asked.method == COPY && present.contains(id)) {
        Some(id) => Err(Error::bad_request(format!("Image is already present at store '{id}'"))),
        None => Ok(stores.clone()),
    }
}
