//! Bytes on their way into a store: spooled to a file of this controller, hashed and inspected there, and then the store's.
use super::{Kind, Stores, push::Push};
use crate::{
    blob::{BlobError, Sealed, Writer},
    image::Place,
};
use std::{fs::File, sync::Arc};

/// Takes an image's bytes in order. Dropped, it leaves nothing.
pub(crate) struct Intake {
    writer: Writer,
    push: Option<(String, Push)>,
}

/// All of them, waiting for the decision whether they are welcome. Dropped, it leaves nothing.
pub(crate) struct Received {
    pub(crate) sealed: Sealed,
    push: Option<(String, Push)>,
}

impl Stores {
    /// Begins to take at most `limit` bytes for a place.
    pub(crate) async fn intake(&self, place: &Place, limit: u64) -> Result<Intake, BlobError> {
        let store = self.get(&place.store).ok_or_else(|| BlobError::NoStore { store: place.store.clone() })?;
        match (&store.kind, &place.key) {
            (Kind::S3 { bucket, .. }, Some(key)) => {
                let writer = self.base.writer(limit).await?;
                let spool = Arc::new(writer.reader()?);
                let upload = bucket.begin(key).await.map_err(store.failed())?;
                Ok(Intake { writer, push: Some((store.id.clone(), Push::start(upload, spool))) })
            }
            (Kind::S3 { .. }, None) => Err(BlobError::NoStore { store: place.store.clone() }),
            (Kind::Local(local), _) => Ok(Intake { writer: local.writer(limit).await?, push: None }),
        }
    }

    /// Puts a blob that `local` has into a place.
    pub(crate) async fn put(&self, blob: &str, place: &Place) -> Result<(), BlobError> {
        let store = self.get(&place.store).ok_or_else(|| BlobError::NoStore { store: place.store.clone() })?;
        self.base.keep(blob).await?;
        match (&store.kind, &place.key) {
            (Kind::Local(local), _) if Arc::ptr_eq(local, &self.base) => self.base.share(blob).await,
            (Kind::Local(local), _) => {
                let opened = self.base.read_here(blob).await?;
                let mut stream = tokio::fs::File::from_std(clone(&opened.file())?);
                let sealed = local.put(&mut stream, u64::MAX).await?;
                if sealed.blob() != blob {
                    return Err(BlobError::Damaged { blob: blob.to_owned() });
                }
                sealed.publish().await.map(drop)
            }
            (Kind::S3 { bucket, .. }, Some(key)) => {
                let opened = self.base.read_here(blob).await?;
                let upload = bucket.begin(key).await.map_err(store.failed())?;
                Push::start(upload, opened.file()).finish(opened.size()).await.map_err(store.failed())
            }
            (Kind::S3 { .. }, None) => Err(BlobError::NoStore { store: place.store.clone() }),
        }
    }
}

/// The same file from its start: this handle is read by nobody else.
fn clone(file: &File) -> Result<File, BlobError> {
    use std::io::Seek as _;
    let failed = BlobError::io("read", std::path::Path::new("a blob"));
    let again = || {
        let mut file = file.try_clone()?;
        file.rewind()?;
        Ok(file)
    };
    again().map_err(failed)
}

impl Intake {
    /// Has them hashed by that algorithm too; to be said before the first byte.
    pub(crate) fn also(&mut self, algorithm: &str) -> Result<(), BlobError> {
        self.writer.also(algorithm)
    }

    pub(crate) fn size(&self) -> u64 {
        self.writer.size()
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.writer.write(bytes).await?;
        match &self.push {
            // Its error is told when it is waited for.
            Some((store, push)) if push.is_broken() => {
                let store = store.clone();
                let Some((_, push)) = self.push.take() else { return Ok(()) };
                push.finish(self.writer.size()).await.map_err(|source| BlobError::Remote { store, source })?;
                Err(BlobError::Torn)
            }
            Some((_, push)) => {
                push.reach(self.writer.on_disk());
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(crate) async fn seal(self) -> Result<Received, BlobError> {
        Ok(Received { sealed: self.writer.seal().await?, push: self.push })
    }
}

impl Received {
    /// They are welcome: makes them the store's.
    pub(crate) async fn publish(self) -> Result<(), BlobError> {
        match self.push {
            Some((store, push)) => {
                // The file is dropped afterwards: what it held is in the bucket.
                push.finish(self.sealed.size()).await.map_err(|source| BlobError::Remote { store, source })
            }
            None => self.sealed.publish().await.map(drop),
        }
    }
}
