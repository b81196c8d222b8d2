//! Garbage: blobs that no row names, and files of writers that died.
use super::{BlobError, LocalStore, blocking, local};
use std::{
    fs::{File, TryLockError},
    path::Path,
    time::{Duration, SystemTime},
};

/// What a sweep removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Names of the blobs.
    pub blobs: Vec<String>,
    /// Number of files that dead writers left.
    pub incoming: usize,
    /// Bytes freed, as far as no hard link keeps them.
    pub bytes: u64,
}

impl LocalStore {
    /// Removes every blob that `keep` does not want and that was not stored or touched within `grace` before `now`, and the
    /// files of dead writers: a living one holds a lock on its file.
    pub async fn sweep(
        &self,
        now: SystemTime,
        grace: Duration,
        keep: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<Swept, BlobError> {
        let listed = self.list().await?;
        let doomed: Vec<String> = listed
            .into_iter()
            .filter(|found| is_old(found.modified, now, grace) && !keep(&found.blob))
            .map(|found| found.blob)
            .collect();
        let store = self.clone();
        blocking(move || {
            let mut swept = Swept::default();
            for blob in doomed {
                store.sweep_blob(blob, now, grace, &mut swept)?;
            }
            for path in local::entries(&store.incoming_dir())? {
                store.sweep_incoming(&path, &mut swept)?;
            }
            Ok(swept)
        })
        .await?
    }

    /// Looks again under the lock: the same content may have been stored since the list was made.
    fn sweep_blob(&self, blob: String, now: SystemTime, grace: Duration, swept: &mut Swept) -> Result<(), BlobError> {
        let path = self.path(&blob)?;
        let _lock = self.lock()?;
        if let Some(found) = local::stored(&path).filter(|found| is_old(found.modified, now, grace))
            && local::remove(&path)?
        {
            swept.bytes += found.size;
            swept.blobs.push(blob);
        }
        Ok(())
    }

    fn sweep_incoming(&self, path: &Path, swept: &mut Swept) -> Result<(), BlobError> {
        let _lock = self.lock()?;
        let Ok(file) = File::open(path) else { return Ok(()) };
        let metadata = file.metadata().map_err(BlobError::io("look at", path))?;
        if !metadata.is_file() {
            return Ok(());
        }
        match file.try_lock() {
            Ok(()) => {}
            // Its writer lives, or this file system has no locks to tell.
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => return Ok(()),
        }
        if local::remove(path)? {
            swept.bytes += metadata.len();
            swept.incoming += 1;
        }
        Ok(())
    }
}

/// A time in the future, after a clock was set back, is not old.
fn is_old(modified: SystemTime, now: SystemTime, grace: Duration) -> bool {
    now.duration_since(modified).is_ok_and(|age| age > grace)
}
