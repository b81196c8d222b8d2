//! Garbage collection: a blob that no image row names goes after a grace.
//!
//! The grace must be longer than the time between a blob's publication and the commit of the row that names it, snapshots of
//! servers included. Every image row that changes or goes is a reason to look; one look serves all of them.
use crate::{
    blob::LocalStore,
    claim::blob_of,
    image::{Image, text},
    named::Named,
    stores::{LOCAL, Stores},
};
use reconcile::{Next, Pending, Place, Reconciler, Work};
use resource::{Error, Resource as _, Result};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};
use store::{Db, Table};

const GRACE: Duration = Duration::from_secs(3600);
/// Sweeps are not more frequent than that.
const PAUSE: Duration = Duration::from_secs(60);
/// What was stored or used so recently is not put out to make room.
const YOUNG: Duration = Duration::from_secs(900);

/// See the module.
pub struct Sweeper {
    stores: Arc<Stores>,
    /// Bytes of images in other stores that stay in `local`.
    cache: u64,
    grace: Duration,
    last: Mutex<Option<Instant>>,
}

impl Sweeper {
    pub fn new(blobs: Arc<LocalStore>) -> Self {
        Self::with_grace(blobs, GRACE)
    }

    pub fn with_grace(blobs: Arc<LocalStore>, grace: Duration) -> Self {
        Self::of(Stores::only(blobs), 0, grace)
    }

    /// Of all directories of this controller, of which `local` may hold so many bytes for other stores.
    pub fn of_stores(stores: Arc<Stores>, cache: u64) -> Self {
        Self::of(stores, cache, GRACE)
    }

    pub fn of(stores: Arc<Stores>, cache: u64, grace: Duration) -> Self {
        Self { stores, cache, grace, last: Mutex::new(None) }
    }

    /// Removes what no row names and is older than the grace; brings what a row names and only another controller has.
    pub async fn sweep(&self, db: &Db) -> Result<()> {
        db.fresh().await?;
        let named = Named::of(db);
        for (id, directory) in self.stores.by_directory() {
            let wanted = named.of_store(id);
            for blob in wanted {
                if let Err(e) = directory.keep(blob).await {
                    tracing::warn!(
                        error = base::chain(&e),
                        "A copy of an image's data could not be made here; it is tried again"
                    );
                }
            }
            let cached = |blob: &str| id == LOCAL && named.elsewhere.contains(blob);
            self.remove(directory, self.grace, &|blob| wanted.contains(blob) || cached(blob)).await?;
        }
        self.stores.prune(&named, self.cache, self.grace.min(YOUNG)).await.map(drop)
    }

    async fn remove(&self, directory: &LocalStore, grace: Duration, keep: &(dyn Fn(&str) -> bool + Sync)) -> Result<()> {
        let swept = directory.sweep(SystemTime::now(), grace, keep).await.map_err(|e| Error::internal(base::chain(&e)))?;
        if !swept.blobs.is_empty() || swept.incoming > 0 {
            tracing::info!(
                blobs = swept.blobs.len(),
                unfinished = swept.incoming,
                bytes = swept.bytes,
                "Removed image data that is not needed here"
            );
        }
        Ok(())
    }

    /// How long to wait for the next sweep; none if it is this call's turn.
    fn pause(&self) -> Option<Duration> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = PAUSE.min(self.grace);
        let left = last.and_then(|at| pause.checked_sub(at.elapsed()));
        if left.is_none() {
            *last = Some(Instant::now());
        }
        left
    }
}

impl Reconciler for Sweeper {
    fn name(&self) -> &'static str {
        "image-sweeper"
    }
    fn tables(&self) -> Vec<&'static Table> {
        vec![&Image::DEF.table]
    }
    /// Each process has blobs of its own.
    fn place(&self) -> Place {
        Place::Everywhere
    }
    fn concurrency(&self) -> usize {
        1
    }
    fn reconcile<'a>(&'a self, key: &'a str, work: &'a Work) -> Pending<'a, Result<Next>> {
        Box::pin(async move {
            let id = key.rsplit('/').next().unwrap_or_default();
            let row = work.db.read().get(&Image::DEF.table, id);
            if let Some(left) = self.pause() {
                // A row that is there is looked at again by the resync.
                return Ok(if row.is_some() { Next::Done } else { Next::After(left) });
            }
            self.sweep(&work.db).await?;
            match row {
                // What it named was young until now, perhaps.
                None if self.young(work).await? => Ok(Next::After(self.grace)),
                _ => Ok(Next::Done),
            }
        })
    }
}

impl Sweeper {
    /// Is there a blob that no row names and that the grace still keeps?
    async fn young(&self, work: &Work) -> Result<bool> {
        let named = Named::of(&work.db);
        for (id, directory) in self.stores.by_directory() {
            let stored = directory.list().await.map_err(|e| Error::internal(base::chain(&e)))?;
            if stored.iter().any(|s| !named.of_store(id).contains(&s.blob)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether an image's data may be given out: it is there and switched on.
pub(crate) fn has_data(row: &resource::Map) -> bool {
    matches!(text(row, "status"), "active" | "deactivated") && blob_of(row).is_some()
}
