//! All rows in memory with the declared indexes, fed by watch. A cache: it can be rebuilt from the store at any time.
use crate::{Batch, Entry, Event, Range, Revision, Store, StoreError, Watch, WatchEnd, barrier::Barrier};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{broadcast, oneshot, watch},
    time::{Instant, timeout},
};

mod rows;
#[cfg(test)]
mod tests;

pub(crate) use rows::index_values;
use rows::{Change, Inner, TableRows, table_of};
pub use rows::{Index, Row, Table};

/// How long the view may take to reach a revision that the store has.
const REACH: Duration = Duration::from_secs(10);

/// What changed, for those who follow the view (reconcilers): keys only, since truth is the row.
#[derive(Clone, Debug)]
pub struct Changed {
    pub revision: Revision,
    pub keys: Arc<[Arc<str>]>,
}

/// See the module.
pub struct View {
    inner: RwLock<Inner>,
    applied: watch::Sender<Revision>,
    changes: broadcast::Sender<Changed>,
    barrier: Barrier,
    store: Arc<dyn Store>,
    tables: Vec<&'static Table>,
    /// The newest revision that the store told of.
    newest: AtomicU64,
    /// When it last answered what only a store that can commit answers.
    answered: Mutex<Option<Instant>>,
    /// Dropped with the view; ends the task that follows the store.
    _open: oneshot::Sender<Infallible>,
}

impl View {
    /// Loads all rows of `tables` and follows the store until the view is dropped.
    pub async fn open(store: Arc<dyn Store>, tables: &[&'static Table]) -> Result<Arc<Self>, StoreError> {
        let (open, closed) = oneshot::channel();
        let view = Arc::new(Self {
            inner: RwLock::default(),
            applied: watch::channel(0).0,
            changes: broadcast::channel(4096).0,
            barrier: Barrier::default(),
            store,
            tables: tables.to_vec(),
            newest: AtomicU64::new(0),
            answered: Mutex::default(),
            _open: open,
        });
        let watch = view.load().await?;
        let following = follow(Arc::downgrade(&view), view.store.clone(), watch);
        tokio::spawn(async move {
            tokio::select! {
                _ = closed => {}
                () = following => {}
            }
        });
        Ok(view)
    }

    /// Reads everything anew and gives the watch that goes on from there.
    ///
    /// The pages are read one after another while others write, so together they are no state that ever was. They are shown when
    /// the replay of what was committed meanwhile has passed the end of the reading.
    async fn load(&self) -> Result<Watch, StoreError> {
        let ended = |e: WatchEnd| StoreError::Unavailable(format!("the rows could not be followed while they were read: {e}"));
        let start = self.store.revision().await?;
        let mut watch = self.store.watch("", start).await.map_err(ended)?;
        let mut fresh = Inner { revision: start, tables: self.tables.iter().map(|t| (t.name, TableRows::new(t))).collect() };
        let mut after: Option<Arc<str>> = None;
        loop {
            let page = self.store.range(Range { prefix: "", after: after.as_deref(), limit: 4096 }).await?;
            after = page.entries.last().map(|e| e.key.clone());
            page.entries.iter().for_each(|e| fresh.put(self.row(e)));
            if !page.more {
                break;
            }
        }
        let end = self.store.revision().await?;
        while fresh.revision < end {
            let late = |_| StoreError::Unavailable("the store told nothing of what was written while it was read".into());
            let batch = timeout(REACH, watch.next()).await.map_err(late)?.map_err(ended)?;
            fresh.apply(batch.revision, &self.changes_of(&batch));
        }
        // What was deleted while nobody watched left no row that could tell when.
        let revision = fresh.revision;
        fresh.tables.values_mut().for_each(|t| t.modified = revision);
        self.show(fresh);
        Ok(watch)
    }

    /// Puts other rows in the place of all, and tells followers what is different.
    fn show(&self, fresh: Inner) {
        let revision = fresh.revision;
        let keys = if self.changes.receiver_count() == 0 { Vec::new() } else { self.read().0.difference(&fresh) };
        let old = std::mem::replace(&mut *self.inner.write().unwrap_or_else(PoisonError::into_inner), fresh);
        // Freeing many rows takes a while: not under the lock.
        drop(old);
        self.applied.send_replace(revision);
        self.tell(revision, keys);
    }

    fn tell(&self, revision: Revision, keys: Vec<Arc<str>>) {
        if !keys.is_empty() {
            // Nobody listening is not an error.
            self.changes.send(Changed { revision, keys: keys.into() }).ok();
        }
    }

    fn row(&self, e: &Entry) -> Arc<Row> {
        let row = Row::new(e.key.clone(), e.created, e.modified, e.value.clone());
        let is_indexed = self.tables.iter().any(|t| !t.indexes.is_empty() && t.name == table_of(&e.key));
        Arc::new(if is_indexed { row.decoded() } else { row })
    }

    /// Makes the rows of a batch, and decodes those that an index will ask for, before readers are made to wait.
    fn changes_of(&self, batch: &Batch) -> Vec<Change> {
        let change = |e: &Event| match e {
            Event::Put(e) => (e.key.clone(), Some(self.row(e))),
            Event::Delete(key) => (key.clone(), None),
        };
        batch.events.iter().map(change).collect()
    }

    fn apply(&self, batch: &Batch) {
        let changes = self.changes_of(batch);
        {
            let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
            if batch.revision <= inner.revision {
                return;
            }
            inner.apply(batch.revision, &changes);
        }
        // Who waits for the revision finds its changes told.
        self.tell(batch.revision, changes.into_iter().map(|(key, _)| key).collect());
        self.applied.send_replace(batch.revision);
    }

    /// Returns when the view holds everything that was committed before the call.
    pub async fn fresh(&self) -> Result<Revision, StoreError> {
        let revision = self.barrier.revision(&self.store).await?;
        self.newest.fetch_max(revision, Ordering::Relaxed);
        self.hear();
        self.reach(revision).await?;
        Ok(revision)
    }

    /// The store has just shown that it can commit.
    pub(crate) fn hear(&self) {
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// How long ago the store last showed that it can commit: by an answer to [`fresh`](Self::fresh), or a commit.
    pub(crate) fn silence(&self) -> Duration {
        let answered = *self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        answered.map_or(Duration::MAX, |at| at.elapsed())
    }

    /// How many revisions the view is behind what the store was last known to have.
    pub fn lag(&self) -> u64 {
        self.newest.load(Ordering::Relaxed).saturating_sub(*self.applied.borrow())
    }

    /// Returns when the view holds `revision`.
    pub async fn reach(&self, revision: Revision) -> Result<(), StoreError> {
        let mut applied = self.applied.subscribe();
        match timeout(REACH, applied.wait_for(|r| *r >= revision)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(StoreError::Unavailable("the view is closed".into())),
            Err(_) => Err(StoreError::Unavailable(format!("the view did not reach revision {revision} in {REACH:?}"))),
        }
    }

    /// Keys of rows as they change. A slow listener sees `Lagged` and must look at everything again.
    pub fn changes(&self) -> tokio::sync::broadcast::Receiver<Changed> {
        self.changes.subscribe()
    }

    /// A consistent look at all rows. Do not hold it across an await: writers wait for it. Nor ask for a second one while holding
    /// one (a transaction's closure holds one): a writer that waits between the two would block both for ever.
    pub fn read(&self) -> Reader<'_> {
        Reader(self.inner.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Rows at one revision.
pub struct Reader<'a>(RwLockReadGuard<'a, Inner>);

impl Reader<'_> {
    pub fn revision(&self) -> Revision {
        self.0.revision
    }
    pub fn get(&self, table: &Table, id: &str) -> Option<Arc<Row>> {
        self.key(table.name, &table.key(id))
    }
    pub(crate) fn key(&self, table: &str, key: &str) -> Option<Arc<Row>> {
        self.0.tables.get(table)?.rows.get(key).cloned()
    }
    /// A revision that is not older than the last change of any of these tables, deletions too: what caches of their rows compare.
    pub fn modified(&self, tables: &[&Table]) -> Revision {
        tables.iter().filter_map(|t| self.0.tables.get(t.name)).map(|t| t.modified).max().unwrap_or_default()
    }
    /// All rows of a table in key order.
    pub fn all(&self, table: &Table) -> impl Iterator<Item = &Arc<Row>> {
        self.0.tables.get(table.name).into_iter().flat_map(|t| t.rows.values())
    }
    pub fn count(&self, table: &Table) -> usize {
        self.0.tables.get(table.name).map_or(0, |t| t.rows.len())
    }
    /// Rows whose index holds `value`, in key order. The index must be declared.
    pub fn find(&self, table: &Table, index: &str, value: &str) -> Vec<Arc<Row>> {
        let Some(t) = self.0.tables.get(table.name) else { return Vec::new() };
        let map = t.indexes.iter().find(|(i, _)| i.name == index).map(|(_, m)| m);
        debug_assert!(map.is_some(), "index {index} of {} is not declared", table.name);
        map.and_then(|m| m.get(value)).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }
    pub fn has_index(&self, table: &Table, index: &str) -> bool {
        self.0.tables.get(table.name).is_some_and(|t| t.indexes.iter().any(|(i, _)| i.name == index))
    }
}

async fn follow(view: Weak<View>, store: Arc<dyn Store>, mut watch: Watch) {
    let backoff = base::retry::Backoff::new(Duration::from_millis(20), Duration::from_secs(2));
    let mut attempt = 0;
    loop {
        while let Ok(batch) = watch.next().await {
            let Some(view) = view.upgrade() else { return };
            attempt = 0;
            view.apply(&batch);
        }
        watch = loop {
            tokio::time::sleep(backoff.jittered(attempt)).await;
            attempt = attempt.saturating_add(1);
            let Some(view) = view.upgrade() else { return };
            let at = view.read().revision();
            match store.watch("", at).await {
                Ok(watch) => break watch,
                Err(WatchEnd::Compacted) => match view.load().await {
                    Ok(watch) => break watch,
                    Err(e) => tracing::warn!(error = %e, "The view could not be read anew; trying again"),
                },
                Err(WatchEnd::Lagged | WatchEnd::Closed) => {}
            }
        };
    }
}
