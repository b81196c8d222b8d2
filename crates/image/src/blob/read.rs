//! Downloads: a blob's bytes, or a range of them, in chunks.
use super::{
    BlobError,
    pump::{CHUNK, read_chunk},
};
use bytes::Bytes;
use std::{fs::File, io, ops::Range, path::Path, sync::Arc};
use tokio::task::{JoinHandle, spawn_blocking};

/// An open blob. It stays readable when it is deleted meanwhile.
#[derive(Clone, Debug)]
pub struct Blob {
    file: Arc<File>,
    size: u64,
}

pub(super) fn open(path: &Path, blob: String) -> Result<Blob, BlobError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(BlobError::Missing { blob }),
        Err(error) => return Err(BlobError::io("open", path)(error)),
    };
    let size = file.metadata().map_err(BlobError::io("look at", path))?.len();
    Ok(Blob { file: Arc::new(file), size })
}

impl Blob {
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The file, to be read only.
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// The bytes of a range, which is cut to the blob's size.
    pub fn chunks(&self, range: Range<u64>) -> Chunks {
        let end = range.end.min(self.size);
        Chunks { file: self.file(), at: range.start.min(end), end, ahead: None }
    }
}

/// A range of a blob, one chunk at a time; the next one is read while the last one is sent.
#[derive(Debug)]
pub struct Chunks {
    file: Arc<File>,
    at: u64,
    end: u64,
    ahead: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Chunks {
    /// The next bytes, none after the last. When the wait is cancelled, nothing is lost.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.at >= self.end {
            return Ok(None);
        }
        let handle = self.ahead.get_or_insert_with(|| read_ahead(&self.file, self.at, self.end));
        let read = handle.await;
        self.ahead = None;
        let chunk = read.map_err(io::Error::other).flatten()?;
        self.at += chunk.len() as u64;
        if self.at < self.end {
            self.ahead = Some(read_ahead(&self.file, self.at, self.end));
        }
        Ok(Some(chunk))
    }
}

fn read_ahead(file: &Arc<File>, at: u64, end: u64) -> JoinHandle<io::Result<Bytes>> {
    let file = Arc::clone(file);
    let len = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
    spawn_blocking(move || {
        let chunk = read_chunk(&file, at, len)?;
        if chunk.len() == len { Ok(chunk) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    })
}
