//! The embedded store engine: one SQLite file, written by one thread.
//!
//! ```text
//!  txn, resolve, lease_grant, lease_revoke ──> queue ──> writer thread ──> COMMIT (WAL, fsync) ──> watchers, answers
//!  get, range ─────────────────────────────────────────> read connections
//!  revision, watch, lease_keep_alive ──────────────────> memory
//! ```
//!
//! - **Group commit.** The writer takes everything that waits and commits it in one SQLite transaction. Each transaction in it is
//!   decided in turn, on the rows that those before it left, and has a revision of its own; one that conflicts is left out.
//! - **Durable before the answer.** Nobody, neither caller nor watcher nor reader, learns of a revision before it is on the disk.
//! - **Linearizable.** A read that saw a revision is answered after [`Store::revision`] tells it.
//! - **One process.** A lock file keeps every other process out of the file.
//! - **A full disk** refuses writes with [`StoreError::Full`]; reads and watches go on, and writes work again when there is space.
//!
//! Leases live in memory and end with the process: opening the file deletes their rows. What became of recent transactions is
//! remembered in memory too, since whoever could ask ends with the process as well.
mod file;
mod lease;
mod read;
mod rows;
mod save;
mod writer;

pub use save::save;

use read::Readers;
use std::{
    fs::File,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use store::{
    Entry, Hub, LeaseId, Outcome, Page, Pending, Range, Revision, Store, StoreError, Txn, TxnError, TxnId, Watch, WatchEnd,
};
use tokio::sync::{Semaphore, oneshot, watch};
use writer::{Request, Work, Writer};

/// Requests that may wait for the writer; beyond it callers wait to enqueue.
const QUEUE: usize = 8192;
/// Compares and writes in one transaction. SQLite has no limit of its own; this bounds how long one may hold up the others.
const MAX_OPS: usize = 100_000;

/// What the writer, the readers and the callers share.
struct Shared {
    hub: Mutex<Hub>,
    leases: Mutex<lease::Leases>,
    /// The newest revision that is on the disk and known to `hub`.
    published: watch::Sender<Revision>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See the module.
pub struct Sqlite {
    shared: Arc<Shared>,
    readers: Arc<Readers>,
    places: Arc<Semaphore>,
    /// `None` once closed.
    queue: Mutex<Option<mpsc::Sender<Request>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    process_lock: Mutex<Option<File>>,
}

impl Sqlite {
    /// Opens the file, makes it if there is none, checks it, and starts the writer. Blocks for as long as the checks take.
    pub fn open(path: impl AsRef<Path>) -> Result<Arc<Self>, StoreError> {
        let file::Opened { conn, path, process_lock, revision, boot } = file::open(path.as_ref())?;
        let shared = Arc::new(Shared {
            hub: Mutex::new(Hub::at(revision)),
            leases: Mutex::new(lease::Leases::of_boot(boot)),
            published: watch::channel(revision).0,
        });
        let (queue, requests) = mpsc::channel();
        let writer = Writer::new(conn, path.clone(), revision, shared.clone());
        let writer = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(requests))
            .map_err(|e| StoreError::Unavailable(format!("{}: no thread for the writer: {e}", path.display())))?;
        Ok(Arc::new(Self {
            readers: Arc::new(Readers::new(path, shared.published.subscribe())),
            shared,
            places: Arc::new(Semaphore::new(QUEUE)),
            queue: Mutex::new(Some(queue)),
            writer: Mutex::new(Some(writer)),
            process_lock: Mutex::new(Some(process_lock)),
        }))
    }

    /// Carries out what waits, ends the watches and closes the file; blocks until it is done. Safe twice. Dropping does the same.
    pub fn close(&self) {
        drop(lock(&self.queue).take());
        if let Some(writer) = lock(&self.writer).take()
            && writer.join().is_err()
        {
            tracing::error!("The store's writer panicked; what it had not answered may or may not be stored");
        }
        self.readers.close();
        let mut hub = lock(&self.shared.hub);
        *hub = Hub::at(hub.revision());
        drop(hub);
        drop(lock(&self.process_lock).take());
    }

    fn is_closed(&self) -> bool {
        lock(&self.queue).is_none()
    }

    /// Hands work to the writer. `Ok(None)`: it took the work and ended without an answer.
    async fn ask<T>(&self, work: impl FnOnce(oneshot::Sender<T>) -> Work) -> Result<Option<T>, StoreError> {
        let place = self.places.clone().acquire_owned().await.map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        let request = Request { work: work(reply), place };
        match &*lock(&self.queue) {
            Some(queue) => queue.send(request).map_err(|_| dead())?,
            None => return Err(closed()),
        }
        Ok(answer.await.ok())
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("it is closed; this process is shutting down".into())
}
fn dead() -> StoreError {
    StoreError::Unavailable("its writer has stopped; restart this process".into())
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.close();
    }
}

impl Store for Sqlite {
    fn txn(&self, txn: Txn) -> Pending<'_, Result<Revision, TxnError>> {
        Box::pin(async move { self.ask(|reply| Work::Txn(txn, reply)).await?.unwrap_or(Err(TxnError::Unknown)) })
    }
    fn resolve(&self, id: TxnId) -> Pending<'_, Result<Outcome, StoreError>> {
        Box::pin(async move { self.ask(|reply| Work::Resolve(id, reply)).await?.unwrap_or_else(|| Err(dead())) })
    }
    fn get<'a>(&'a self, key: &'a str) -> Pending<'a, Result<Option<Entry>, StoreError>> {
        Box::pin(async move {
            let key: Arc<str> = key.into();
            self.readers.read(move |rows| rows.get(&key)).await.map(|(entry, _)| entry)
        })
    }
    fn range<'a>(&'a self, range: Range<'a>) -> Pending<'a, Result<Page, StoreError>> {
        Box::pin(async move {
            let (prefix, after, limit) = (range.prefix.to_owned(), range.after.map(str::to_owned), range.limit);
            let ((entries, more), revision) = self.readers.read(move |rows| rows.page(&prefix, after.as_deref(), limit)).await?;
            Ok(Page { entries, more, revision })
        })
    }
    fn revision(&self) -> Pending<'_, Result<Revision, StoreError>> {
        Box::pin(async move { if self.is_closed() { Err(closed()) } else { Ok(*self.shared.published.borrow()) } })
    }
    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> Pending<'a, Result<Watch, WatchEnd>> {
        Box::pin(async move {
            let mut hub = lock(&self.shared.hub);
            if self.is_closed() { Err(WatchEnd::Closed) } else { hub.watch(prefix, after) }
        })
    }
    fn lease_grant(&self, ttl: Duration) -> Pending<'_, Result<LeaseId, StoreError>> {
        Box::pin(async move { self.ask(|reply| Work::Grant(ttl, reply)).await?.ok_or_else(dead) })
    }
    fn lease_keep_alive(&self, lease: LeaseId) -> Pending<'_, Result<(), StoreError>> {
        // Not through the queue: a slow disk must not end leases.
        Box::pin(async move {
            if self.is_closed() {
                return Err(closed());
            }
            lock(&self.shared.leases).keep_alive(lease, Instant::now())
        })
    }
    fn lease_revoke(&self, lease: LeaseId) -> Pending<'_, Result<(), StoreError>> {
        Box::pin(async move { self.ask(|reply| Work::Revoke(lease, reply)).await?.unwrap_or_else(|| Err(dead())) })
    }
    fn max_ops(&self) -> usize {
        MAX_OPS
    }
}
