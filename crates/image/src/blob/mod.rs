//! Images as immutable blobs on a local file system, each named by the SHA-512 of its content.
//!
//! ```text
//! <root>/lock            held while a blob is published, touched or deleted
//! <root>/incoming/<id>   being written; locked by its writer, so that a dead writer's file is told from a slow one's
//! <root>/blobs/ab/<sha512>
//!
//! Writer ──seal──▶ Sealed ──publish──▶ blob      (dropped anywhere: nothing is left)
//! ```
//! A blob appears whole, hashed and on disk, or not at all. The same content is stored once. Several processes may use one
//! store. What no row refers to is removed by [`LocalStore::sweep`] after a grace period, which must be longer than the time
//! between publishing a blob and committing the row that names it; storing content again, and [`LocalStore::touch`], begin the
//! grace period anew.
//!
//! With other controllers' stores ([`Others`]) a blob is published when one of them has it too, and brought from there when it is missing here.
//!
//! Not done here: any decision whether an image is welcome; see [`crate::inspect::check`].
mod local;
mod node;
mod others;
mod pump;
mod read;
mod sweep;
#[cfg(test)]
mod tests;
mod writer;

pub use local::{LocalStore, Stored};
pub use others::{Beyond, Others};
pub use read::{Blob, Chunks};
pub use sweep::Swept;
pub use writer::{Sealed, Writer};

use crate::inspect::Danger;
use std::{
    io,
    path::{Path, PathBuf},
};

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    #[error("`{name}` is not the name of a blob; give its SHA-512 in 128 lower-case hex digits")]
    BadName { name: String },
    #[error("blob {blob} is not in this store; fetch it from another copy or upload the image again")]
    Missing { blob: String },
    #[error("the image store is full; free space on it and try again")]
    Full,
    #[error("the image is larger than {limit} bytes; make it smaller or raise the limit")]
    TooLarge { limit: u64 },
    #[error("the upload was broken off within a write; start it again")]
    Torn,
    #[error("{path} is not a regular file; give the image file itself")]
    NotAFile { path: PathBuf },
    #[error("blob {blob} does not match its name; delete it and fetch another copy")]
    Damaged { blob: String },
    #[error("blob {blob} could not be copied between controllers; see that they reach each other and try again")]
    Elsewhere { blob: String, source: io::Error },
    #[error("image store `{store}` failed; see that it runs and try again")]
    Remote { store: String, source: web::Error },
    #[error("there is no image store `{store}`; see info/stores for those that there are")]
    NoStore { store: String },
    #[error(transparent)]
    Unsafe(#[from] Danger),
    #[error("could not {doing} {path}; check the image store's disk")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

impl BlobError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io { doing, path: path.to_owned(), source },
        }
    }

    fn kind(&self) -> io::ErrorKind {
        match self {
            Self::BadName { .. } | Self::NotAFile { .. } | Self::NoStore { .. } => io::ErrorKind::InvalidInput,
            Self::Missing { .. } => io::ErrorKind::NotFound,
            Self::Full => io::ErrorKind::StorageFull,
            Self::TooLarge { .. } => io::ErrorKind::FileTooLarge,
            Self::Torn => io::ErrorKind::Interrupted,
            Self::Damaged { .. } | Self::Unsafe(_) => io::ErrorKind::InvalidData,
            Self::Remote { .. } => io::ErrorKind::Other,
            Self::Io { source, .. } | Self::Elsewhere { source, .. } => source.kind(),
        }
    }
}

impl From<BlobError> for io::Error {
    fn from(error: BlobError) -> Self {
        Self::new(error.kind(), error)
    }
}

/// Runs blocking file work off the runtime's threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, BlobError> {
    let path = Path::new("a worker thread");
    tokio::task::spawn_blocking(work).await.map_err(|error| BlobError::io("run", path)(io::Error::other(error)))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// A name that is safe to make a path of: 128 lower-case hex digits.
fn is_name(name: &str) -> bool {
    name.len() == 128 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
