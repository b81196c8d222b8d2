//! All rows in memory with the declared indexes, fed by watch. A cache: it can be rebuilt from the store at any time.
use crate::{Batch, Entry, Event, Range, Revision, Store, StoreError, Watch, WatchEnd, barrier::Barrier};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    convert::Infallible,
    sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, Weak},
    time::Duration,
};
use tokio::{
    sync::{broadcast, oneshot, watch},
    time::timeout,
};

/// How long the view may take to reach a revision that the store has.
const REACH: Duration = Duration::from_secs(10);

/// A secondary index over one field; a list field is indexed by each of its elements.
#[derive(Clone, Copy, Debug)]
pub struct Index {
    pub name: &'static str,
    /// Path into the row, `/`-separated as in RFC 6901 (`/project_id`, `/fixed_ips/*/subnet_id`); `*` walks a list.
    pub path: &'static str,
}

/// A kind of row. Keys are `<name>/<id>`; the name has exactly one slash: `network/ports`.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    pub name: &'static str,
    pub indexes: &'static [Index],
}
impl Table {
    pub fn key(&self, id: &str) -> Arc<str> {
        format!("{}/{id}", self.name).into()
    }
}

/// One row as the view holds it. Decoded on first use; shared.
#[derive(Debug)]
pub struct Row {
    pub key: Arc<str>,
    pub created: Revision,
    pub modified: Revision,
    bytes: bytes::Bytes,
    value: OnceLock<Value>,
}
impl Row {
    pub(crate) fn new(key: Arc<str>, created: Revision, modified: Revision, bytes: bytes::Bytes) -> Self {
        Self { key, created, modified, bytes, value: OnceLock::new() }
    }
    pub(crate) fn pending(key: Arc<str>, created: Revision, value: Value) -> Self {
        Self { key, created, modified: 0, bytes: bytes::Bytes::new(), value: OnceLock::from(value) }
    }
    /// A row that will surely be looked into: its bytes need not be kept besides.
    fn decoded(self) -> Self {
        self.value();
        Self { bytes: bytes::Bytes::new(), ..self }
    }
    /// The part of the key behind the table's name.
    pub fn id(&self) -> &str {
        self.key.splitn(3, '/').nth(2).unwrap_or_default()
    }
    pub fn value(&self) -> &Value {
        self.value.get_or_init(|| serde_json::from_slice(&self.bytes).unwrap_or(Value::Null))
    }
    /// A field of the row; `Null` when it has none.
    pub fn field(&self, name: &str) -> &Value {
        self.value().get(name).unwrap_or(&Value::Null)
    }
    pub fn text(&self, name: &str) -> &str {
        self.field(name).as_str().unwrap_or_default()
    }
    /// The row as its type. Fails only when the stored form is not what the type says.
    pub fn decode<T: serde::de::DeserializeOwned>(&self) -> Result<T, StoreError> {
        T::deserialize(self.value()).map_err(|e| StoreError::Damaged(format!("row {}: {e}", self.key)))
    }
}

/// The text under which a value is found in an index.
pub(crate) fn index_text(v: &Value) -> Option<String> {
    match v {
        Value::String(s) => Some(s.clone()),
        Value::Bool(b) => Some(b.to_string()),
        Value::Number(n) => Some(n.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

pub(crate) fn index_values(value: &Value, path: &str, out: &mut Vec<String>) {
    let path = path.trim_start_matches('/');
    let (head, rest) = path.split_once('/').map_or((path, ""), |(h, r)| (h, r));
    let each = |v: &Value, out: &mut Vec<String>| match (rest, v) {
        ("", Value::Array(list)) => out.extend(list.iter().filter_map(index_text)),
        ("", v) => out.extend(index_text(v)),
        (rest, v) => index_values(v, rest, out),
    };
    match (head, value) {
        ("*", Value::Array(list)) => list.iter().for_each(|v| each(v, out)),
        (key, Value::Object(map)) => {
            if let Some(v) = map.get(key) {
                each(v, out);
            }
        }
        _ => {}
    }
}

/// The rows that hold a value, in key order.
type Postings = HashMap<String, BTreeMap<Arc<str>, Arc<Row>>>;

#[derive(Default)]
struct TableRows {
    rows: BTreeMap<Arc<str>, Arc<Row>>,
    indexes: Vec<(Index, Postings)>,
    /// Revision of the last change, deletions too.
    modified: Revision,
}

impl TableRows {
    fn new(table: &Table) -> Self {
        let indexes = table.indexes.iter().map(|i| (*i, HashMap::new())).collect();
        Self { rows: BTreeMap::new(), indexes, modified: 0 }
    }
    fn insert(&mut self, row: Arc<Row>) {
        self.remove(&row.key);
        for (index, map) in &mut self.indexes {
            let mut values = Vec::new();
            index_values(row.value(), index.path, &mut values);
            for v in values {
                map.entry(v).or_default().insert(row.key.clone(), row.clone());
            }
        }
        self.rows.insert(row.key.clone(), row);
    }
    fn remove(&mut self, key: &str) {
        let Some(old) = self.rows.remove(key) else { return };
        for (index, map) in &mut self.indexes {
            let mut values = Vec::new();
            index_values(old.value(), index.path, &mut values);
            for v in values {
                if let Some(keys) = map.get_mut(&v) {
                    keys.remove(key);
                    if keys.is_empty() {
                        map.remove(&v);
                    }
                }
            }
        }
    }
}

#[derive(Default)]
struct Inner {
    revision: Revision,
    tables: HashMap<&'static str, TableRows>,
}

fn table_of(key: &str) -> &str {
    let first = key.find('/').map_or(key.len(), |i| i + 1);
    key[first..].find('/').map_or(key, |i| &key[..first + i])
}

/// What one event does to the rows; `None` is a deletion.
type Change = (Arc<str>, Option<Arc<Row>>);

impl Inner {
    fn put(&mut self, row: Arc<Row>) {
        if let Some(t) = self.tables.get_mut(table_of(&row.key)) {
            t.insert(row);
        }
    }
    fn apply(&mut self, revision: Revision, changes: &[Change]) {
        for (key, row) in changes {
            let Some(table) = self.tables.get_mut(table_of(key)) else { continue };
            match row {
                Some(row) => table.insert(row.clone()),
                None => table.remove(key),
            }
            table.modified = revision;
        }
        self.revision = revision;
    }
    /// Keys of rows that are not the same in both.
    fn difference(&self, other: &Self) -> Vec<Arc<str>> {
        let differ = |a: &Self, b: &Self, out: &mut BTreeSet<Arc<str>>| {
            for (name, table) in &a.tables {
                let others = b.tables.get(name);
                let same = |row: &Row| others.and_then(|t| t.rows.get(&row.key)).is_some_and(|o| o.modified == row.modified);
                out.extend(table.rows.values().filter(|r| !same(r)).map(|r| r.key.clone()));
            }
        };
        let mut keys = BTreeSet::new();
        differ(self, other, &mut keys);
        differ(other, self, &mut keys);
        keys.into_iter().collect()
    }
}

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
        self.applied.send_replace(batch.revision);
        self.tell(batch.revision, changes.into_iter().map(|(key, _)| key).collect());
    }

    /// Returns when the view holds everything that was committed before the call.
    pub async fn fresh(&self) -> Result<Revision, StoreError> {
        let revision = self.barrier.revision(&self.store).await?;
        self.reach(revision).await?;
        Ok(revision)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Entry, LeaseId, Memory, Outcome, Page, Pending, Txn, TxnError, TxnId, Write};
    use serde_json::json;
    use std::sync::Mutex;
    use tokio::sync::mpsc;

    #[test]
    fn index_paths_walk_lists() {
        let row = json!({"project_id": "p", "tags": ["a", "b"], "fixed_ips": [{"subnet_id": "s1"}, {"subnet_id": "s2"}]});
        let get = |path| {
            let mut out = Vec::new();
            index_values(&row, path, &mut out);
            out
        };
        assert_eq!(get("/project_id"), ["p"]);
        assert_eq!(get("/tags"), ["a", "b"]);
        assert_eq!(get("/fixed_ips/*/subnet_id"), ["s1", "s2"]);
        assert!(get("/none/x").is_empty());
    }

    #[test]
    fn a_table_name_has_one_slash() {
        assert_eq!(table_of("network/ports/abc/def"), "network/ports");
        assert_eq!(table_of("network/ports"), "network/ports");
    }

    static ITEMS: Table = Table { name: "test/items", indexes: &[] };

    fn put(key: &str, value: Value) -> Write {
        Write::Put { key: ITEMS.key(key), value: value.to_string().into(), lease: None }
    }
    async fn write(store: &dyn Store, writes: Vec<Write>) {
        store.txn(Txn { id: TxnId::random(), compares: Vec::new(), writes }).await.unwrap();
    }

    /// A memory engine that reads in pages of one row.
    #[derive(Default)]
    struct Odd {
        inner: Arc<Memory>,
        /// Writes to the first and the last row after every page.
        meddles: bool,
        /// Watches that tell nothing, as long as they are kept here.
        silent: Option<Mutex<Vec<mpsc::Sender<Batch>>>>,
    }
    impl Store for Odd {
        fn txn(&self, txn: Txn) -> Pending<'_, Result<Revision, TxnError>> {
            self.inner.txn(txn)
        }
        fn resolve(&self, id: TxnId) -> Pending<'_, Result<Outcome, StoreError>> {
            self.inner.resolve(id)
        }
        fn get<'a>(&'a self, key: &'a str) -> Pending<'a, Result<Option<Entry>, StoreError>> {
            self.inner.get(key)
        }
        fn range<'a>(&'a self, range: Range<'a>) -> Pending<'a, Result<Page, StoreError>> {
            Box::pin(async move {
                let page = self.inner.range(Range { limit: 1, ..range }).await;
                if self.meddles {
                    let n = self.inner.revision().await.unwrap();
                    write(&*self.inner, vec![put("a", json!({ "n": n })), put("z", json!({ "n": n }))]).await;
                }
                page
            })
        }
        fn revision(&self) -> Pending<'_, Result<Revision, StoreError>> {
            self.inner.revision()
        }
        fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> Pending<'a, Result<Watch, WatchEnd>> {
            let Some(silent) = &self.silent else { return self.inner.watch(prefix, after) };
            let (tx, rx) = mpsc::channel(1);
            silent.lock().unwrap().push(tx);
            Box::pin(async move { Ok(Watch::new(rx)) })
        }
        fn lease_grant(&self, ttl: Duration) -> Pending<'_, Result<LeaseId, StoreError>> {
            self.inner.lease_grant(ttl)
        }
        fn lease_keep_alive(&self, lease: LeaseId) -> Pending<'_, Result<(), StoreError>> {
            self.inner.lease_keep_alive(lease)
        }
        fn lease_revoke(&self, lease: LeaseId) -> Pending<'_, Result<(), StoreError>> {
            self.inner.lease_revoke(lease)
        }
    }

    #[tokio::test]
    async fn a_view_shows_no_half_transaction_however_it_was_loaded() {
        let store = Arc::new(Odd { meddles: true, ..Odd::default() });
        write(&*store, vec![put("a", json!({"n": 0})), put("m", json!({})), put("z", json!({"n": 0}))]).await;
        let view = View::open(store, &[&ITEMS]).await.unwrap();
        let (reader, n) = (view.read(), |r: &Reader<'_>, id| r.get(&ITEMS, id).unwrap().field("n").clone());
        assert_eq!(n(&reader, "a"), n(&reader, "z"), "two rows that are always written together");
        assert_eq!(reader.get(&ITEMS, "a").unwrap().modified, reader.revision());
    }

    #[tokio::test]
    async fn followers_learn_what_changed_while_the_view_was_blind() {
        let store = Arc::new(Odd { silent: Some(Mutex::default()), ..Odd::default() });
        write(&*store, ["a", "b", "c"].map(|k| put(k, json!({}))).into()).await;
        let view = View::open(store.clone(), &[&ITEMS]).await.unwrap();
        let mut changes = view.changes();
        let (delete, other) = (Write::Delete { key: ITEMS.key("b") }, Write::Delete { key: ITEMS.key("none") });
        write(&*store, vec![put("a", json!({"n": 1})), delete, other, put("d", json!({}))]).await;
        let _watch = view.load().await.unwrap();
        let changed = changes.try_recv().expect("the reload is told");
        assert_eq!(*changed.keys, ["a", "b", "d"].map(|k| ITEMS.key(k)));
        assert_eq!(changed.revision, view.read().revision());
    }

    #[tokio::test]
    async fn a_table_knows_when_it_was_changed_last() {
        static OTHERS: Table = Table { name: "test/others", indexes: &[] };
        let store = Memory::new();
        let view = View::open(store.clone(), &[&ITEMS, &OTHERS]).await.unwrap();
        write(&*store, vec![put("a", json!({}))]).await;
        view.fresh().await.unwrap();
        let first = view.read().modified(&[&ITEMS]);
        assert!(view.read().modified(&[&OTHERS]) < first);
        write(&*store, vec![Write::Delete { key: ITEMS.key("a") }]).await;
        view.fresh().await.unwrap();
        assert!(view.read().modified(&[&OTHERS, &ITEMS]) > first, "a deletion is a change");
        let _watch = view.load().await.unwrap();
        assert!(view.read().modified(&[&OTHERS]) >= first, "what was missed while the view was blind counts as a change");
    }

    #[tokio::test]
    async fn a_dropped_view_lets_go_of_the_store() {
        let store = Memory::new();
        let weak = Arc::downgrade(&store);
        drop(View::open(store, &[&ITEMS]).await.unwrap());
        let gone = async {
            while weak.strong_count() > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), gone).await.expect("nothing holds the store, though nothing was written since");
    }
}
