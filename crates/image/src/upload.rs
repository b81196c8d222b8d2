//! Bytes come in: upload and stage.
use crate::{
    App, Options,
    blob::{BlobError, Sealed},
    claim::{Claim, RENEWAL},
    image::{Place, Staged},
    inspect::{self, Danger, Format, Refusal},
    signature::{self, Signed},
    stores::Received,
};
use api::{Access, Call, Reply, Route};
use futures_util::StreamExt as _;
use resource::{Error, Result};
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

pub(crate) fn routes(app: &Arc<App>) -> Vec<Route> {
    let (one, two) = (app.clone(), app.clone());
    vec![
        Route::new("PUT", "/v2/images/{id}/file", Access::Authenticated, move |call| upload(one.clone(), call)).stream(),
        Route::new("PUT", "/v2/images/{id}/stage", Access::Authenticated, move |call| stage(two.clone(), call)).stream(),
    ]
}

async fn upload(app: Arc<App>, call: Call) -> Result<Reply> {
    check_media(&call)?;
    let id = call.header("x-image-meta-store").unwrap_or(app.stores.default_id());
    let store =
        app.stores.get(id).ok_or_else(|| Error::bad_request(format!("There is no image store '{id}'; see info/stores.")))?;
    let place = store.place(call.param("id"));
    let claim = Claim::take(&call, "saving", place.clone()).await?;
    match take_in(&app, &call, &claim, &place).await {
        Ok(done) => {
            claim
                .finish(move |image, _| {
                    image.status = "active".into();
                    image.size = Some(done.size);
                    image.virtual_size = Some(done.virtual_size);
                    image.checksum = Some(done.checksum.clone());
                    image.os_hash_algo = Some("sha512".into());
                    image.os_hash_value.clone_from(&done.blob);
                    image.places = vec![place.clone()];
                })
                .await?;
            Ok(Reply::empty(204))
        }
        Err(e) => {
            claim.give_back().await;
            Err(e)
        }
    }
}

/// Refused content is an error here, and nothing of it is kept.
async fn take_in(app: &App, call: &Call, claim: &Claim, place: &Place) -> Result<Staged> {
    let signed = signature::certify(app, call, claim.asked.clone()).await?;
    let received = receive(app, call, claim, place, signed.as_ref()).await?;
    if let Some(signed) = &signed {
        signed.verify(received.sealed.also()).await.map_err(|e| e.refusal(call.param("id")))?;
    }
    let staged = judge(&app.options, &claim.declared, &received.sealed);
    if let Some(refusal) = staged.refusal {
        return Err(Error::unsupported_media(refusal));
    }
    claim.while_alive(received.publish()).await?.map_err(explain)?;
    Ok(staged)
}

/// Staged content is judged at once, but told at the import, as Glance does. Its signature is a matter of the import.
async fn stage(app: Arc<App>, call: Call) -> Result<Reply> {
    check_media(&call)?;
    let claim = Claim::take(&call, "uploading", Place::local()).await?;
    let taken = async {
        if claim.asked.is_some() {
            signature::check_key_manager(&call)?;
        }
        let received = receive(&app, &call, &claim, &Place::local(), None).await?;
        let staged = judge(&app.options, &claim.declared, &received.sealed);
        if staged.refusal.is_none() {
            claim.while_alive(received.publish()).await?.map_err(explain)?;
        }
        Ok(staged)
    };
    match taken.await {
        Ok(staged) => {
            claim.finish(move |image, _| image.staged = Some(staged.clone())).await?;
            Ok(Reply::empty(204))
        }
        Err(e) => {
            claim.give_back().await;
            Err(e)
        }
    }
}

fn check_media(call: &Call) -> Result<()> {
    let media = call.header("content-type").unwrap_or_default();
    if media.split(';').next().unwrap_or_default().trim() != "application/octet-stream" {
        return Err(Error::unsupported_media("Image data is sent as application/octet-stream; set this Content-Type."));
    }
    Ok(())
}

/// Takes the body of the request to its end, and hashes it as its signature wants.
async fn receive(app: &App, call: &Call, claim: &Claim, place: &Place, signed: Option<&Signed>) -> Result<Received> {
    let declared: Option<u64> = call.header("content-length").and_then(|v| v.parse().ok());
    if declared.is_some_and(|size| size > app.options.max_size) {
        return Err(explain(BlobError::TooLarge { limit: app.options.max_size }));
    }
    let mut stream = call.take_stream()?;
    let mut writer = app.stores.intake(place, app.options.max_size).await.map_err(explain)?;
    if let Some(signed) = signed {
        writer.also(signed.algorithm()).map_err(explain)?;
    }
    let (mut renewal, mut idle) = (Instant::now() + RENEWAL, Instant::now() + app.options.idle);
    loop {
        match timeout_at(renewal.min(idle), stream.next()).await {
            Ok(None) => break,
            Ok(Some(Ok(bytes))) => {
                writer.write(&bytes).await.map_err(explain)?;
                idle = Instant::now() + app.options.idle;
            }
            Ok(Some(Err(e))) => return Err(Error::bad_request("The upload was cut off; start it again.").context(e.to_string())),
            Err(_) if Instant::now() >= idle => {
                return Err(Error::bad_request("The upload stood still for too long; start it again."));
            }
            Err(_) => {}
        }
        if Instant::now() >= renewal {
            claim.renew().await?;
            renewal = Instant::now() + RENEWAL;
        }
    }
    let announced: Option<u64> = call.header("x-openstack-image-size").and_then(|v| v.parse().ok());
    if let Some(size) = announced.filter(|size| *size != writer.size()) {
        let message = format!("{size} bytes were announced, but {} came; upload the whole file.", writer.size());
        return Err(Error::bad_request(message));
    }
    writer.seal().await.map_err(explain)
}

/// What an image's bytes are declared to be.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    pub(crate) disk_format: String,
    pub(crate) container_format: String,
}

/// Decides whether bytes are welcome under that name.
pub(crate) fn judge(options: &Options, declared: &Declared, sealed: &Sealed) -> Staged {
    let refusal = refusal(options, declared, sealed.inspection());
    Staged {
        blob: refusal.is_none().then(|| sealed.blob().to_owned()),
        checksum: sealed.checksum().to_owned(),
        size: sealed.size(),
        virtual_size: sealed.inspection().virtual_size,
        refusal: refusal.map(|r| format!("The image's content is refused: {r}.")),
    }
}

fn refusal(options: &Options, declared: &Declared, inspection: &inspect::Inspection) -> Option<Refusal> {
    // An archive around disks is no disk: nothing opens it, so it must only not pass for one.
    let wrapped = matches!(declared.container_format.as_str(), "ova" | "docker" | "compressed");
    // Bytes that no program takes for a disk format do no harm under a wrong name; they only cannot boot.
    let unknown = inspection.format == Format::Raw && (wrapped || !options.require_format);
    let checked = match &inspection.safety {
        Ok(()) if unknown => Ok(()),
        Err(Danger::Empty) if !options.require_format => Ok(()),
        Ok(()) | Err(_) => inspect::check(&declared.disk_format, inspection),
    };
    checked.and_then(|()| inspect::check_growth(inspection, options.max_virtual_size, options.max_growth)).err()
}

/// What a failure of the store means for the one who uploads or downloads.
pub(crate) fn explain(error: BlobError) -> Error {
    let text = base::chain(&error);
    match error {
        BlobError::TooLarge { .. } => Error::too_large(format!("The incoming image is too large: {text}.")),
        BlobError::Full => Error::too_large(format!("Image storage media is full: {text}.")),
        BlobError::Unsafe(_) => Error::unsupported_media(format!("The image's content is refused: {text}.")),
        BlobError::Remote { .. } => {
            Error::unavailable("The image store did not take or give the data; try again, or use another store.").context(text)
        }
        BlobError::NoStore { .. } => Error::conflict(format!("The image's data cannot be reached: {text}.")),
        BlobError::Elsewhere { .. } => {
            Error::unavailable("The image's data could not be copied between controllers; try again.").context(text)
        }
        BlobError::Missing { .. } => {
            Error::unavailable("The image's data cannot be found; an operator must look at the store.").context(text)
        }
        _ => Error::internal(text),
    }
}
