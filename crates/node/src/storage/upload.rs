//! Makes images of volumes. It goes on beside everything else: what is read is frozen first, and held.
use super::{Storage, layers};
use crate::{Error, agent::AbortOnDrop, qemu::cache::remove};
use assign::{BlobInfo, Blobs, VolumeAssignment, VolumeUpload};
use std::{path::PathBuf, sync::Arc};

impl Storage {
    /// Freezes the volume and starts to make an image of it.
    pub(super) async fn start_upload(&self, a: &VolumeAssignment, wanted: &VolumeUpload) -> Result<(), Error> {
        let (volume, image) = (a.id.clone(), wanted.image_id.clone());
        if !base::id::is_uuid(&image) || !matches!(wanted.format.as_str(), "raw" | "qcow2") {
            let error = Error::Format { image: image.clone(), format: wanted.format.clone() };
            return self.catalog.amend(&volume, |m| drop(m.uploads.insert(image, Err(error.to_string()))));
        }
        let chain = self.freeze(&volume, None).await?;
        let held = self.catalog.hold(&chain);
        let work = Work {
            chain: self.files(&chain),
            to: self.config.dir.join("snapshots").join(&image),
            format: wanted.format.clone(),
            user: self.user(&volume),
            blobs: self.blobs.clone(),
            attempts: self.config.attempts,
            retry: self.config.retry,
        };
        let (catalog, wake) = (self.catalog.clone(), self.waker(&volume));
        let (uploading, key) = (self.uploading.clone(), (volume.clone(), image.clone()));
        // Held until the task is known: one that ends at once must find itself.
        let mut all = self.uploads();
        let task = tokio::spawn(async move {
            let _held = held;
            let result = work.run(&image).await.map_err(|e| e.to_string());
            if let Err(error) = catalog.amend(&volume, |m| drop(m.uploads.insert(image.clone(), result))) {
                tracing::warn!(volume, image, %error, "the result of an upload is not recorded; it is made again");
            }
            // Its own handle: aborting what has ended does nothing.
            let own = uploading.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&(volume, image));
            wake();
            drop(own);
        });
        all.insert(key, AbortOnDrop(task.abort_handle()));
        Ok(())
    }
}

/// All that the work needs, so that it outlives the call that started it.
struct Work {
    chain: Vec<layers::File>,
    to: PathBuf,
    format: String,
    user: Option<u32>,
    blobs: Arc<dyn Blobs>,
    attempts: u32,
    retry: base::retry::Backoff,
}

impl Work {
    async fn run(&self, image: &str) -> Result<BlobInfo, Error> {
        let mut failures = 0;
        loop {
            let error = match self.attempt(image).await {
                Ok(info) => return Ok(info),
                Err(error) => error,
            };
            failures += 1;
            tracing::warn!(image, error = base::chain(&error), "an image of a volume could not be made");
            if !error.is_transient() || failures >= self.attempts {
                return Err(error);
            }
            tokio::time::sleep(self.retry.jittered(failures - 1)).await;
        }
    }
    async fn attempt(&self, image: &str) -> Result<BlobInfo, Error> {
        layers::export(&self.chain, &self.to, &self.format, self.user).await?;
        let stored = self.blobs.store(&self.to).await;
        if let Err(error) = remove(&self.to) {
            tracing::warn!(path = %self.to.display(), %error, "the file of an image is not removed");
        }
        stored.map_err(Error::io(format!("storing image {image}")))
    }
}
