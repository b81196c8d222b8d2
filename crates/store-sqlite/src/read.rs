//! Reads: a few connections of their own, so that a long one never holds up the writer, nor the writer a read.
use crate::{closed, file, lock, rows::Rows};
use rusqlite::{Connection, TransactionBehavior};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use store::{Revision, StoreError};
use tokio::sync::{Semaphore, watch};

/// Reads at once; beyond it they wait.
const READERS: usize = 4;
/// The writer publishes what it has committed within microseconds; this long means that it is gone.
const PUBLISH: Duration = Duration::from_secs(10);

pub(crate) struct Readers {
    path: PathBuf,
    /// Connections at rest; `None` once closed.
    idle: Mutex<Option<Vec<Connection>>>,
    turns: Semaphore,
    published: watch::Receiver<Revision>,
}

impl Readers {
    pub(crate) fn new(path: PathBuf, published: watch::Receiver<Revision>) -> Self {
        Self { path, idle: Mutex::new(Some(Vec::new())), turns: Semaphore::new(READERS), published }
    }

    pub(crate) fn close(&self) {
        drop(lock(&self.idle).take());
    }

    /// Runs `read` on a snapshot of committed rows. Answers with the snapshot's revision when everyone may know of it: a snapshot
    /// can be a moment ahead of what the writer has published.
    pub(crate) async fn read<T, F>(self: &Arc<Self>, read: F) -> Result<(T, Revision), StoreError>
    where
        T: Send + 'static,
        F: FnOnce(Rows<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let _turn = self.turns.acquire().await.map_err(|_| closed())?;
        let readers = self.clone();
        let stopped = |e| StoreError::Unavailable(format!("a read was stopped ({e}); try again"));
        let (value, revision) = tokio::task::spawn_blocking(move || readers.snapshot(read)).await.map_err(stopped)??;
        let mut published = self.published.clone();
        let unpublished = || StoreError::Unavailable("its writer has stopped; restart this process".into());
        let wait = tokio::time::timeout(PUBLISH, published.wait_for(|r| *r >= revision)).await;
        wait.map_err(|_| unpublished())?.map_err(|_| unpublished())?;
        Ok((value, revision))
    }

    fn snapshot<T>(&self, read: impl FnOnce(Rows<'_>) -> rusqlite::Result<T>) -> Result<(T, Revision), StoreError> {
        let failed = |e| file::failed(&self.path, "read", &e);
        let idle = lock(&self.idle).as_mut().ok_or_else(closed)?.pop();
        let mut conn = match idle {
            Some(conn) => conn,
            None => file::connect(&self.path, "query_only").map_err(failed)?,
        };
        let run = |conn: &mut Connection| {
            let tx = conn.transaction_with_behavior(TransactionBehavior::Deferred)?;
            let revision = Rows(&tx).revision()?;
            let value = read(Rows(&tx))?;
            tx.finish()?;
            Ok((value, revision))
        };
        let answer = run(&mut conn).map_err(failed)?;
        // A connection that failed is not used again.
        if let Some(idle) = lock(&self.idle).as_mut() {
            idle.push(conn);
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sqlite;
    use store::{Store, Txn, TxnId, Write};

    #[tokio::test]
    async fn a_read_waits_until_what_it_saw_is_published() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let store = Sqlite::open(&path).unwrap();
        let write = Write::Put { key: "t/a/x".into(), value: "1".into(), lease: None };
        store.txn(Txn { id: TxnId::random(), compares: Vec::new(), writes: vec![write] }).await.unwrap();
        drop(store);
        let (publish, published) = watch::channel(0);
        let readers = Arc::new(Readers::new(path, published));
        let mut read = std::pin::pin!(readers.read(|rows| rows.get("t/a/x")));
        let early = tokio::time::timeout(Duration::from_millis(100), &mut read).await;
        assert!(early.is_err(), "nobody may know of revision 1 yet");
        publish.send_replace(1);
        assert_eq!(read.await.unwrap().0.unwrap().modified, 1);
    }
}
