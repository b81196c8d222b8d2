//! Bytes on their way out: from the first store that gives them.
use super::{Kind, LOCAL, Stores};
use crate::{
    blob::{Beyond, Blob, BlobError, Chunks},
    claim::blob_of,
    image::{Image, Place, places},
};
use assign::Pending;
use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt as _, try_unfold};
use resource::{Map, Resource as _};
use std::{io, ops::Range};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;
use web::s3::{Bucket, Download};

/// An image whose bytes are there.
pub(crate) enum Opened {
    File(Blob),
    Object { bucket: Bucket, key: String, size: u64 },
}

impl Opened {
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::File(blob) => blob.size(),
            Self::Object { size, .. } => *size,
        }
    }

    /// The bytes of a range, which must lie within the image. Few of them are in memory at a time.
    pub(crate) fn stream(&self, range: Range<u64>) -> BoxStream<'static, io::Result<Bytes>> {
        match self {
            Self::File(blob) => {
                let next = |mut chunks: Chunks| async move { Ok(chunks.next().await?.map(|bytes| (bytes, chunks))) };
                try_unfold(blob.chunks(range), next).boxed()
            }
            Self::Object { bucket, key, .. } => {
                let next = |mut download: Download| async move {
                    let bytes = download.next().await.map_err(io::Error::from)?;
                    Ok(bytes.map(|bytes| (bytes, download)))
                };
                try_unfold(bucket.read(key, range), next).boxed()
            }
        }
    }
}

impl Stores {
    /// The bytes of an image's row: those that are on this controller, or else from the best store.
    pub(crate) async fn open_image(&self, row: &Map) -> Result<Opened, BlobError> {
        let blob = blob_of(row).unwrap_or_default();
        if let Ok(here) = self.base.read_here(blob).await {
            if places(row).iter().all(|place| place.store != LOCAL) {
                self.hints().hit(blob);
                self.base.touch(blob).await?;
            }
            return Ok(Opened::File(here));
        }
        let mut failed = BlobError::Missing { blob: blob.to_owned() };
        for place in self.by_weight(row) {
            match self.open_place(blob, &place).await {
                Ok(opened) => return Ok(opened),
                Err(e) => {
                    tracing::warn!(store = place.store, error = base::chain(&e), "An image's data did not come from a store");
                    failed = e;
                }
            }
        }
        Err(failed)
    }

    fn by_weight(&self, row: &Map) -> Vec<Place> {
        let mut places = places(row);
        places.sort_by_key(|place| std::cmp::Reverse(self.get(&place.store).map_or(i64::MIN, |store| store.weight)));
        places
    }

    async fn open_place(&self, blob: &str, place: &Place) -> Result<Opened, BlobError> {
        let store = self.get(&place.store).ok_or_else(|| BlobError::NoStore { store: place.store.clone() })?;
        match (&store.kind, &place.key) {
            (Kind::Local(local), _) => Ok(Opened::File(local.read(blob).await?)),
            (Kind::S3 { bucket, .. }, Some(key)) => {
                let size = bucket.size(key).await.map_err(store.failed())?;
                let size = size.ok_or_else(|| BlobError::Missing { blob: blob.to_owned() })?;
                Ok(Opened::Object { bucket: bucket.clone(), key: key.clone(), size })
            }
            (Kind::S3 { .. }, None) => Err(BlobError::Missing { blob: blob.to_owned() }),
        }
    }

    async fn open_beyond(&self, blob: &str) -> io::Result<Box<dyn AsyncRead + Send + Unpin>> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        // A name that is in another directory of this controller.
        for local in self.directories() {
            if let Ok(found) = local.read_here(blob).await {
                return Ok(Box::new(StreamReader::new(Opened::File(found.clone()).stream(0..found.size()))));
            }
        }
        let rows = self.db().ok_or_else(missing)?.read().find(&Image::DEF.table, "os_hash_value", blob);
        for row in rows.iter().filter_map(|row| row.value().as_object()) {
            for place in self.by_weight(row).into_iter().filter(|place| place.store != LOCAL && place.key.is_some()) {
                match self.open_place(blob, &place).await {
                    Ok(opened) => return Ok(Box::new(StreamReader::new(opened.stream(0..opened.size())))),
                    Err(BlobError::Missing { .. }) => {}
                    Err(e) => return Err(e.into()),
                }
            }
        }
        Err(missing())
    }
}

impl Beyond for Stores {
    fn open<'a>(&'a self, blob: &'a str) -> Pending<'a, io::Result<Box<dyn AsyncRead + Send + Unpin>>> {
        Box::pin(self.open_beyond(blob))
    }
}
