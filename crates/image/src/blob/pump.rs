//! Hashing beside the stream: SHA-512, MD5, a hash that was signed if there is one, and the disk each work on their own thread, one chunk at a time.
//!
//! A lane keeps no thread between chunks, so slow clients cannot use up the pool of blocking threads, and it holds at most one
//! chunk, so memory does not grow with the image.
use super::hex;
use crate::digest::{self, Hash};
use bytes::Bytes;
use md5::Md5;
use sha2::{Digest as _, Sha512};
use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};
use tokio::task::{JoinHandle, spawn_blocking};

/// Bytes that are hashed, read and written at once.
pub(super) const CHUNK: usize = 1 << 20;

/// State that moves to a blocking thread and back, in order.
pub(super) enum Lane<T> {
    Ready(T),
    Busy(JoinHandle<io::Result<T>>),
    Broken,
}

impl<T: Send + 'static> Lane<T> {
    /// Starts `work` when the work before it is done.
    pub(super) async fn run(&mut self, work: impl FnOnce(&mut T) -> io::Result<()> + Send + 'static) -> io::Result<()> {
        self.settle().await?;
        match std::mem::replace(self, Self::Broken) {
            Self::Ready(mut state) => {
                *self = Self::Busy(spawn_blocking(move || work(&mut state).map(|()| state)));
                Ok(())
            }
            Self::Busy(_) | Self::Broken => Err(io::Error::other("a part of this stream failed before")),
        }
    }

    /// Waits for the work that was started. When the wait is cancelled, nothing is lost.
    async fn settle(&mut self) -> io::Result<()> {
        if let Self::Busy(handle) = self {
            let done = handle.await.map_err(io::Error::other).flatten();
            *self = Self::Broken;
            *self = Self::Ready(done?);
        }
        Ok(())
    }

    pub(super) async fn finish(mut self) -> io::Result<T> {
        self.settle().await?;
        match self {
            Self::Ready(state) => Ok(state),
            Self::Busy(_) | Self::Broken => Err(io::Error::other("a part of this stream failed before")),
        }
    }
}

/// What a whole stream hashed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Digest {
    /// Hex: the blob's name.
    pub(super) sha512: String,
    /// Hex: Glance's `checksum`.
    pub(super) md5: String,
    /// As it was asked for by [`Hasher::also`].
    pub(super) also: Option<Box<[u8]>>,
    pub(super) size: u64,
}

/// One more hash.
enum Also {
    None,
    /// It is computed anyway.
    Sha512,
    Other(Lane<Hash>),
}

/// All hashes, computed at the same time.
pub(super) struct Hasher {
    sha512: Lane<Sha512>,
    md5: Lane<Md5>,
    also: Also,
    size: u64,
}

impl Hasher {
    pub(super) fn new() -> Self {
        Self { sha512: Lane::Ready(Sha512::new()), md5: Lane::Ready(Md5::new()), also: Also::None, size: 0 }
    }

    /// Computes that hash besides. To be said before the first byte.
    pub(super) fn also(&mut self, algorithm: &str) -> io::Result<()> {
        self.also = match algorithm {
            "sha512" => Also::Sha512,
            _ => Also::Other(Lane::Ready(digest::begin(algorithm)?)),
        };
        Ok(())
    }

    pub(super) async fn update(&mut self, chunk: &Bytes) -> io::Result<()> {
        self.size += chunk.len() as u64;
        let (one, two) = (chunk.clone(), chunk.clone());
        self.sha512
            .run(move |hash| {
                hash.update(&one);
                Ok(())
            })
            .await?;
        if let Also::Other(also) = &mut self.also {
            let three = chunk.clone();
            also.run(move |hash| {
                hash.update(&three);
                Ok(())
            })
            .await?;
        }
        self.md5
            .run(move |hash| {
                hash.update(&two);
                Ok(())
            })
            .await
    }

    pub(super) async fn finish(self) -> io::Result<Digest> {
        let sha512 = self.sha512.finish().await?.finalize();
        let md5 = self.md5.finish().await?.finalize();
        let also = match self.also {
            Also::None => None,
            Also::Sha512 => Some(sha512.to_vec().into()),
            Also::Other(also) => Some(also.finish().await?.finalize()),
        };
        Ok(Digest { sha512: hex(&sha512), md5: hex(&md5), also, size: self.size })
    }

    /// Hashes a file from start to end; the next chunk is read while the last one is hashed.
    pub(super) async fn file(file: Arc<File>) -> io::Result<Digest> {
        let mut hasher = Self::new();
        loop {
            let (file, at) = (Arc::clone(&file), hasher.size);
            let chunk = spawn_blocking(move || read_chunk(&file, at, CHUNK)).await.map_err(io::Error::other).flatten()?;
            if chunk.is_empty() {
                return hasher.finish().await;
            }
            hasher.update(&chunk).await?;
        }
    }
}

/// Up to `len` bytes at `offset`; empty at the end of the file.
pub(super) fn read_chunk(file: &File, offset: u64, len: usize) -> io::Result<Bytes> {
    let mut buf = vec![0; len];
    let mut done = 0;
    while done < len {
        match file.read_at(&mut buf[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buf.truncate(done);
    Ok(buf.into())
}
