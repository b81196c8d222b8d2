//! An upload: bytes come in order, and become a blob or leave no trace.
use super::{
    BlobError, LocalStore, blocking,
    pump::{CHUNK, Digest, Hasher, Lane},
};
use crate::inspect::{Inspection, inspect};
use assign::BlobInfo;
use bytes::{Bytes, BytesMut};
use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
};

/// A file in `incoming/` that is removed unless it was moved away.
pub(super) struct Incoming {
    path: PathBuf,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Once published the name is gone; otherwise a failure here leaves the file to the sweep.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Incoming {
    /// Makes the file and locks it for as long as it is open, so that a sweep sees that it is alive.
    pub(super) fn create(dir: &Path) -> Result<(Self, File), BlobError> {
        let path = dir.join(base::id::hex());
        let made = File::options().read(true).write(true).create_new(true).open(&path);
        let file = made.map_err(BlobError::io("create", &path))?;
        let incoming = Self { path };
        file.lock().map_err(BlobError::io("lock", &incoming.path))?;
        Ok((incoming, file))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Takes an image in order, hashes it on the way, and holds at most a few MiB of it in memory.
///
/// Dropped before [`Writer::seal`], it leaves nothing. A write that is cancelled makes the writer useless.
pub struct Writer {
    store: LocalStore,
    // Before `incoming`, so that the file is closed first.
    disk: Lane<File>,
    hasher: Hasher,
    buffer: BytesMut,
    size: u64,
    /// Bytes whose write has begun, and those whose write has ended.
    started: u64,
    written: u64,
    limit: u64,
    torn: bool,
    incoming: Incoming,
}

impl Writer {
    pub(super) async fn create(store: &LocalStore, limit: u64) -> Result<Self, BlobError> {
        let place = store.clone();
        let (incoming, file) = blocking(move || {
            // A sweep must not come between the file and its lock.
            let _lock = place.lock()?;
            Incoming::create(&place.incoming_dir())
        })
        .await??;
        Ok(Self {
            store: store.clone(),
            disk: Lane::Ready(file),
            hasher: Hasher::new(),
            buffer: BytesMut::new(),
            size: 0,
            started: 0,
            written: 0,
            limit,
            torn: false,
            incoming,
        })
    }

    /// Has it hashed by that algorithm too (see [`Sealed::also`]); to be said before the first byte.
    pub(crate) fn also(&mut self, algorithm: &str) -> Result<(), BlobError> {
        self.hasher.also(algorithm).map_err(BlobError::io("hash", &self.incoming.path))
    }

    /// Bytes that can be read back by now: all but what is in memory.
    pub(crate) fn on_disk(&self) -> u64 {
        self.written
    }

    /// The file that the bytes are written to, to be read while it grows.
    pub(crate) fn reader(&self) -> Result<File, BlobError> {
        File::open(&self.incoming.path).map_err(BlobError::io("open", &self.incoming.path))
    }

    /// Bytes taken so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends; waits when the disk or a hash is behind. An error is final.
    pub async fn write(&mut self, mut data: &[u8]) -> Result<(), BlobError> {
        if std::mem::replace(&mut self.torn, true) {
            return Err(BlobError::Torn);
        }
        self.size = self.size.saturating_add(data.len() as u64);
        if self.size > self.limit {
            return Err(BlobError::TooLarge { limit: self.limit });
        }
        while !data.is_empty() {
            self.buffer.reserve(CHUNK - self.buffer.len());
            let (part, rest) = data.split_at(data.len().min(CHUNK - self.buffer.len()));
            self.buffer.extend_from_slice(part);
            data = rest;
            if self.buffer.len() == CHUNK {
                self.flush().await?;
            }
        }
        self.torn = false;
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), BlobError> {
        let chunk: Bytes = std::mem::take(&mut self.buffer).freeze();
        let failed = |doing| BlobError::io(doing, &self.incoming.path);
        self.hasher.update(&chunk).await.map_err(failed("hash"))?;
        let length = chunk.len() as u64;
        self.disk.run(move |file| file.write_all(&chunk)).await.map_err(failed("write"))?;
        // It is being written now; all before it is.
        self.written = self.started;
        self.started += length;
        Ok(())
    }

    /// Ends the stream: the bytes are on disk, named and inspected, but not yet a blob.
    pub async fn seal(mut self) -> Result<Sealed, BlobError> {
        if self.torn {
            return Err(BlobError::Torn);
        }
        self.flush().await?;
        let Self { store, disk, hasher, incoming, .. } = self;
        let digest = hasher.finish().await.map_err(BlobError::io("hash", &incoming.path))?;
        let file = disk.finish().await.map_err(BlobError::io("write", &incoming.path))?;
        blocking(move || {
            file.sync_all().map_err(BlobError::io("write", &incoming.path))?;
            let inspection = inspect(&file).map_err(BlobError::io("inspect", &incoming.path))?;
            Ok(Sealed { store, _file: file, incoming, digest, inspection })
        })
        .await?
    }
}

/// A whole image that waits for the decision whether it is welcome. Dropped, it leaves nothing.
pub struct Sealed {
    store: LocalStore,
    /// Keeps the lock that tells sweeps to stay away.
    _file: File,
    incoming: Incoming,
    digest: Digest,
    inspection: Inspection,
}

impl Sealed {
    /// SHA-512 in hex: the blob's name, and Glance's `os_hash_value`.
    pub fn blob(&self) -> &str {
        &self.digest.sha512
    }
    /// MD5 in hex: Glance's `checksum`.
    pub fn checksum(&self) -> &str {
        &self.digest.md5
    }
    /// The hash that [`Writer::also`] asked for.
    pub(crate) fn also(&self) -> Option<&[u8]> {
        self.digest.also.as_deref()
    }
    pub fn size(&self) -> u64 {
        self.digest.size
    }
    pub fn inspection(&self) -> &Inspection {
        &self.inspection
    }

    /// Makes it a blob, here and in another store if there is one. Does not ask whether it is safe: see [`crate::inspect::check`].
    pub async fn publish(self) -> Result<BlobInfo, BlobError> {
        let store = self.store.clone();
        let info = blocking(move || self.place()).await??;
        store.share(&info.blob).await?;
        Ok(info)
    }

    /// Makes it a blob here. Blocking.
    pub(super) fn place(self) -> Result<BlobInfo, BlobError> {
        self.store.place(self.incoming.path(), &self.digest)?;
        Ok(info(&self.digest, &self.inspection))
    }
}

pub(super) fn info(digest: &Digest, inspection: &Inspection) -> BlobInfo {
    BlobInfo {
        blob: digest.sha512.clone(),
        checksum: digest.md5.clone(),
        size: digest.size,
        virtual_size: Some(inspection.virtual_size),
        format: inspection.format.name().to_owned(),
    }
}
