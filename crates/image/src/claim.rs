//! Who may bring bytes into an image: one upload at a time, known by an id in the row and alive until a deadline that it renews.
//!
//! A claim that is dropped, because its request failed or its client left, puts the image back to `queued`. When its whole
//! process dies, [`Uploads`](crate::Uploads) does so after the deadline.
use crate::{
    garbage::drop_place,
    image::{Image, Place, Upload, text},
    quota,
    rest::admitted,
    signature::{self, Asked},
    upload::Declared,
};
use api::Call;
use base::Timestamp;
use resource::{Error, Object, Result, Tx, engine};
use std::time::Duration;
use store::Db;

/// How long an upload counts as alive without a word of its process.
const LEASE: Duration = Duration::from_secs(30);
/// How often its process says so.
pub(crate) const RENEWAL: Duration = Duration::from_secs(10);

/// The right to bring bytes into an image.
pub(crate) struct Claim {
    db: Db,
    image: String,
    upload: String,
    armed: bool,
    pub(crate) declared: Declared,
    /// How the bytes are to be verified.
    pub(crate) asked: Option<Asked>,
}

fn until(now: Timestamp) -> Timestamp {
    now.plus(LEASE)
}

impl Claim {
    /// Takes the image of the path from `queued` to `status`; its bytes go to `place`.
    pub(crate) async fn take(call: &Call, status: &'static str, place: Place) -> Result<Self> {
        let (id, upload) = (call.param("id").to_owned(), base::id::uuid());
        let announced = call.header("content-length").and_then(|v| v.parse().ok()).map_or(0, quota::mib);
        let mine = upload.clone();
        let (image, asked) = call
            .transact(move |cx, tx| {
                let mut image = admitted(tx, cx, &id, "upload_image")?;
                if image.status != "queued" {
                    return Err(Error::conflict(format!(
                        "Image status transition from {} to {status} is not allowed",
                        image.status
                    )));
                }
                if image.disk_format.is_none() || image.container_format.is_none() {
                    return Err(Error::bad_request("Properties disk_format, container_format must be set prior to saving data."));
                }
                let asked = signature::asked(&image)?;
                let of_bytes = if status == "saving" { quota::SIZE } else { quota::STAGED };
                quota::check(tx, cx, image.project_id(), &[(of_bytes, announced), (quota::UPLOADING, 1)])?;
                image.upload = Some(Upload { id: mine.clone(), until: until(tx.now), place: Some(place.clone()) });
                image.status = status.into();
                image.import_failed = false;
                image.failed_stores = None;
                image.save(tx)?;
                Ok((image, asked))
            })
            .await?;
        Ok(Self {
            db: call.cloud.db.clone(),
            image: image.id.clone(),
            upload,
            armed: true,
            asked,
            declared: Declared {
                disk_format: image.body.disk_format.unwrap_or_default(),
                container_format: image.body.container_format.unwrap_or_default(),
            },
        })
    }

    /// Says that the upload is alive. Fails when the image is gone.
    pub(crate) async fn renew(&self) -> Result<()> {
        let (id, upload) = (self.image.clone(), self.upload.clone());
        self.db
            .transact(move |tx| {
                let mut image = own(tx, &id, &upload)?;
                if let Some(upload) = &mut image.upload {
                    upload.until = until(tx.now);
                }
                image.save(tx)
            })
            .await?;
        Ok(())
    }

    /// Stays alive while the work takes its time.
    pub(crate) async fn while_alive<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        let mut work = std::pin::pin!(work);
        loop {
            match tokio::time::timeout(RENEWAL, &mut work).await {
                Ok(done) => return Ok(done),
                Err(_) => self.renew().await?,
            }
        }
    }

    /// Ends the upload well: `change` completes the row.
    pub(crate) async fn finish<F>(mut self, mut change: F) -> Result<()>
    where
        F: FnMut(&mut Object<Image>, &mut Tx<'_>) + Send + 'static,
    {
        let (id, upload) = (self.image.clone(), self.upload.clone());
        self.db
            .transact(move |tx| {
                let mut image = own(tx, &id, &upload)?;
                image.upload = None;
                change(&mut image, tx);
                image.save(tx)
            })
            .await?;
        self.armed = false;
        Ok(())
    }

    /// Ends the upload without its bytes.
    pub(crate) async fn give_back(mut self) {
        self.armed = false;
        back_to_queued(self.db.clone(), self.image.clone(), self.upload.clone()).await;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let (true, Ok(runtime)) = (self.armed, tokio::runtime::Handle::try_current()) {
            runtime.spawn(back_to_queued(self.db.clone(), self.image.clone(), self.upload.clone()));
        }
    }
}

fn own(tx: &mut Tx<'_>, id: &str, upload: &str) -> Result<Object<Image>> {
    let image = resource::load::<Image>(tx, id)?.filter(|image| image.upload.as_ref().is_some_and(|u| u.id == upload));
    image.ok_or_else(|| {
        Error::gone(format!("Image {id} could not be found after upload. The image may have been deleted during the upload."))
    })
}

async fn back_to_queued(db: Db, image: String, upload: String) {
    let id = image.clone();
    let done = db.transact(move |tx| release(tx, &image, &upload)).await.map_err(Error::from);
    if let Err(e) = done {
        tracing::warn!(image = %id, error = %e, "An image could not be put back to queued; its deadline will do so");
    }
}

/// Puts an image back to `queued` if that upload still owns it.
pub(crate) fn release(tx: &mut Tx<'_>, id: &str, upload: &str) -> Result<()> {
    let Ok(mut image) = own(tx, id, upload) else { return Ok(()) };
    if let Some(place) = image.upload.take().and_then(|upload| upload.place) {
        drop_place(tx, &place);
    }
    image.staged = None;
    image.status = "queued".into();
    image.save(tx)?;
    let request = image.request_id().to_owned();
    engine::tell(tx, id, &request, "The upload ended before its end; the image is queued again, upload it again");
    Ok(())
}

/// The blob that an image names: its content's SHA-512.
pub(crate) fn blob_of(row: &resource::Map) -> Option<&str> {
    (text(row, "os_hash_algo") == "sha512").then(|| text(row, "os_hash_value")).filter(|blob| !blob.is_empty())
}
