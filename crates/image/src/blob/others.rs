//! The stores of the cloud's other controllers: what is missing here is brought, and what is new here is not the only copy for long.
use super::{BlobError, LocalStore, blocking};
use assign::Pending;
use std::{
    io,
    sync::{Arc, OnceLock, Weak},
};
use tokio::{io::AsyncRead, sync::Mutex};

/// See the module.
pub trait Others: Send + Sync {
    /// The bytes of a blob that one of them has; `NotFound` when none does.
    fn open<'a>(&'a self, blob: &'a str) -> Pending<'a, io::Result<Box<dyn AsyncRead + Send + Unpin>>>;
    /// Returns when one of them has the blob too, or when there is nobody else.
    fn share<'a>(&'a self, blob: &'a str) -> Pending<'a, io::Result<()>>;
}

/// Stores of another kind, where a blob may be that no controller has.
pub trait Beyond: Send + Sync {
    /// The bytes of a blob; `NotFound` when they are nowhere.
    fn open<'a>(&'a self, blob: &'a str) -> Pending<'a, io::Result<Box<dyn AsyncRead + Send + Unpin>>>;
}

/// The others, once they are known, and whose turn it is to bring something.
#[derive(Default)]
pub(super) struct Neighbours {
    others: OnceLock<Arc<dyn Others>>,
    /// It has this store itself.
    beyond: OnceLock<Weak<dyn Beyond>>,
    /// By the first digit of a blob's name, so that nothing is brought twice at once.
    turns: [Mutex<()>; 16],
}

impl Neighbours {
    async fn open(&self, blob: &str) -> io::Result<Box<dyn AsyncRead + Send + Unpin>> {
        let asked = match self.others.get() {
            Some(others) => others.open(blob).await,
            None => Err(io::ErrorKind::NotFound.into()),
        };
        match asked {
            Ok(bytes) => Ok(bytes),
            Err(e) => match self.beyond.get().and_then(Weak::upgrade) {
                Some(beyond) => beyond.open(blob).await,
                None => Err(e),
            },
        }
    }
}

impl LocalStore {
    /// Makes this store one of several.
    pub fn join(&self, others: Arc<dyn Others>) {
        self.neighbours.others.set(others).ok();
    }

    /// What no controller has is looked for there.
    pub(crate) fn look_beyond(&self, beyond: Weak<dyn Beyond>) {
        self.neighbours.beyond.set(beyond).ok();
    }

    /// Sees to it that the blob is here.
    pub async fn keep(&self, blob: &str) -> Result<(), BlobError> {
        match self.read_here(blob).await {
            Err(BlobError::Missing { .. }) => self.bring_here(blob).await,
            other => other.map(drop),
        }
    }

    async fn bring_here(&self, blob: &str) -> Result<(), BlobError> {
        let missing = || BlobError::Missing { blob: blob.to_owned() };
        let digit = blob.chars().next().and_then(|c| c.to_digit(16)).unwrap_or(0);
        let turn = self.neighbours.turns.get(digit as usize).ok_or_else(missing)?;
        let _turn = turn.lock().await;
        if self.size(blob).await?.is_some() {
            return Ok(());
        }
        let mut bytes = self.neighbours.open(blob).await.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => missing(),
            _ => BlobError::Elsewhere { blob: blob.to_owned(), source },
        })?;
        let sealed = self.put(&mut bytes, u64::MAX).await?;
        if sealed.blob() != blob {
            return Err(BlobError::Damaged { blob: blob.to_owned() });
        }
        blocking(move || sealed.place()).await?.map(drop)
    }

    /// Returns when the blob would survive the loss of this store, if there is another.
    pub(crate) async fn share(&self, blob: &str) -> Result<(), BlobError> {
        let Some(others) = self.neighbours.others.get() else { return Ok(()) };
        others.share(blob).await.map_err(|source| BlobError::Elsewhere { blob: blob.to_owned(), source })
    }
}
