//! Garbage collection: a blob that no image row names goes after a grace.
//!
//! The grace must be longer than the time between a blob's publication and the commit of the row that names it, snapshots of
//! servers included. Every image row that changes or goes is a reason to look; one look serves all of them.
use crate::{
    blob::LocalStore,
    claim::blob_of,
    image::{Image, text},
};
use reconcile::{Next, Pending, Place, Reconciler, Work};
use resource::{Error, Resource as _, Result};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};
use store::{Db, Table};

const GRACE: Duration = Duration::from_secs(3600);
/// Sweeps are not more frequent than that.
const PAUSE: Duration = Duration::from_secs(60);

/// See the module.
pub struct Sweeper {
    blobs: Arc<LocalStore>,
    grace: Duration,
    last: Mutex<Option<Instant>>,
}

impl Sweeper {
    pub fn new(blobs: Arc<LocalStore>) -> Self {
        Self::with_grace(blobs, GRACE)
    }

    pub fn with_grace(blobs: Arc<LocalStore>, grace: Duration) -> Self {
        Self { blobs, grace, last: Mutex::new(None) }
    }

    /// Removes what no row names and is older than the grace; brings what a row names and only another controller has.
    pub async fn sweep(&self, db: &Db) -> Result<()> {
        db.fresh().await?;
        let named = named(db);
        for blob in &named {
            if let Err(e) = self.blobs.keep(blob).await {
                tracing::warn!(error = base::chain(&e), "A copy of an image's data could not be made here; it is tried again");
            }
        }
        let swept = self.blobs.sweep(SystemTime::now(), self.grace, &|blob| named.contains(blob)).await;
        let swept = swept.map_err(|e| Error::internal(base::chain(&e)))?;
        if !swept.blobs.is_empty() || swept.incoming > 0 {
            tracing::info!(
                blobs = swept.blobs.len(),
                unfinished = swept.incoming,
                bytes = swept.bytes,
                "Removed image data that no image names"
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

/// Blobs that a row names.
fn named(db: &Db) -> HashSet<String> {
    let reader = db.read();
    let mut out = HashSet::new();
    for row in reader.all(&Image::DEF.table).filter_map(|r| r.value().as_object()) {
        out.extend(blob_of(row).map(str::to_owned));
        out.extend(row.get("staged").and_then(|s| s["blob"].as_str()).map(str::to_owned));
    }
    out
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
        let named = named(&work.db);
        let stored = self.blobs.list().await.map_err(|e| Error::internal(base::chain(&e)))?;
        Ok(stored.iter().any(|s| !named.contains(&s.blob)))
    }
}

/// Whether an image's data may be given out: it is there and switched on.
pub(crate) fn has_data(row: &resource::Map) -> bool {
    matches!(text(row, "status"), "active" | "deactivated") && blob_of(row).is_some()
}
