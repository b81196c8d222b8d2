//! All rows in memory with the declared indexes, fed by watch. A cache: it can be rebuilt from the store at any time.
use crate::{Batch, Event, Range, Revision, Store, StoreError, WatchEnd, barrier::Barrier};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, OnceLock, RwLock, RwLockReadGuard},
    time::Duration,
};
use tokio::sync::watch;

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
        let cell = OnceLock::new();
        cell.get_or_init(|| value);
        Self { key, created, modified: 0, bytes: bytes::Bytes::new(), value: cell }
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

#[derive(Default)]
struct TableRows {
    rows: BTreeMap<Arc<str>, Arc<Row>>,
    indexes: Vec<(Index, HashMap<String, BTreeSet<Arc<str>>>)>,
}

impl TableRows {
    fn new(table: &Table) -> Self {
        Self { rows: BTreeMap::new(), indexes: table.indexes.iter().map(|i| (*i, HashMap::new())).collect() }
    }
    fn insert(&mut self, row: Arc<Row>) {
        self.remove(&row.key);
        for (index, map) in &mut self.indexes {
            let mut values = Vec::new();
            index_values(row.value(), index.path, &mut values);
            for v in values {
                map.entry(v).or_default().insert(row.key.clone());
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

impl Inner {
    fn put(&mut self, row: Arc<Row>) {
        if let Some(t) = self.tables.get_mut(table_of(&row.key)) {
            t.insert(row);
        }
    }
    fn apply(&mut self, batch: &Batch) {
        for event in batch.events.iter() {
            match event {
                Event::Put(e) => self.put(Arc::new(Row::new(e.key.clone(), e.created, e.modified, e.value.clone()))),
                Event::Delete(key) => {
                    if let Some(t) = self.tables.get_mut(table_of(key)) {
                        t.remove(key);
                    }
                }
            }
        }
        self.revision = batch.revision;
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
    changes: tokio::sync::broadcast::Sender<Changed>,
    barrier: Barrier,
    store: Arc<dyn Store>,
    tables: Vec<&'static Table>,
}

impl View {
    /// Loads all rows of `tables` and follows the store until the view is dropped.
    pub async fn open(store: Arc<dyn Store>, tables: &[&'static Table]) -> Result<Arc<Self>, StoreError> {
        let view = Arc::new(Self {
            inner: RwLock::default(),
            applied: watch::channel(0).0,
            changes: tokio::sync::broadcast::channel(4096).0,
            barrier: Barrier::default(),
            store,
            tables: tables.to_vec(),
        });
        let start = view.load().await?;
        let weak = Arc::downgrade(&view);
        let store = view.store.clone();
        tokio::spawn(follow(weak, store, start));
        Ok(view)
    }

    /// Reads everything anew; the rows may be newer than the returned revision, and replaying from it mends that.
    async fn load(&self) -> Result<Revision, StoreError> {
        let start = self.store.revision().await?;
        let mut fresh = Inner { revision: start, tables: self.tables.iter().map(|t| (t.name, TableRows::new(t))).collect() };
        let mut after: Option<Arc<str>> = None;
        loop {
            let page = self.store.range(Range { prefix: "", after: after.as_deref(), limit: 4096 }).await?;
            after = page.entries.last().map(|e| e.key.clone());
            for e in page.entries {
                fresh.put(Arc::new(Row::new(e.key, e.created, e.modified, e.value)));
            }
            if !page.more {
                break;
            }
        }
        *self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner) = fresh;
        self.applied.send_replace(start);
        Ok(start)
    }

    fn apply(&self, batch: &Batch) {
        {
            let mut inner = self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            if batch.revision <= inner.revision {
                return;
            }
            inner.apply(batch);
        }
        self.applied.send_replace(batch.revision);
        if !batch.events.is_empty() {
            let keys = batch
                .events
                .iter()
                .map(|e| match e {
                    Event::Put(e) => e.key.clone(),
                    Event::Delete(k) => k.clone(),
                })
                .collect();
            // Nobody listening is not an error.
            self.changes.send(Changed { revision: batch.revision, keys }).ok();
        }
    }

    /// Returns when the view holds everything that was committed before the call.
    pub async fn fresh(&self) -> Result<Revision, StoreError> {
        let revision = self.barrier.revision(&*self.store).await?;
        self.reach(revision).await?;
        Ok(revision)
    }

    /// Returns when the view holds `revision`.
    pub async fn reach(&self, revision: Revision) -> Result<(), StoreError> {
        let mut applied = self.applied.subscribe();
        match tokio::time::timeout(Duration::from_secs(10), applied.wait_for(|r| *r >= revision)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(StoreError::Unavailable("the view is closed".into())),
            Err(_) => Err(StoreError::Unavailable(format!("the view did not reach revision {revision} in 10 s"))),
        }
    }

    /// Keys of rows as they change. A slow listener sees `Lagged` and must look at everything again.
    pub fn changes(&self) -> tokio::sync::broadcast::Receiver<Changed> {
        self.changes.subscribe()
    }

    /// A consistent look at all rows. Do not hold it across an await: writers wait for it.
    pub fn read(&self) -> Reader<'_> {
        Reader(self.inner.read().unwrap_or_else(std::sync::PoisonError::into_inner))
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
        map.and_then(|m| m.get(value))
            .into_iter()
            .flatten()
            .filter_map(|k| t.rows.get(k).cloned())
            .collect()
    }
    pub fn has_index(&self, table: &Table, index: &str) -> bool {
        self.0.tables.get(table.name).is_some_and(|t| t.indexes.iter().any(|(i, _)| i.name == index))
    }
}

async fn follow(view: std::sync::Weak<View>, store: Arc<dyn Store>, mut at: Revision) {
    let backoff = base::retry::Backoff::new(Duration::from_millis(20), Duration::from_secs(2));
    let mut attempt = 0;
    loop {
        match store.watch("", at).await {
            Ok(mut watch) => {
                attempt = 0;
                while let Ok(batch) = watch.next().await {
                    let Some(view) = view.upgrade() else { return };
                    at = batch.revision;
                    view.apply(&batch);
                }
            }
            Err(WatchEnd::Compacted) => {
                let Some(view) = view.upgrade() else { return };
                match view.load().await {
                    Ok(revision) => at = revision,
                    Err(e) => tracing::warn!(error = %e, "The view could not be read anew; trying again"),
                }
            }
            Err(WatchEnd::Lagged | WatchEnd::Closed) => {}
        }
        if view.strong_count() == 0 {
            return;
        }
        tokio::time::sleep(backoff.jittered(attempt)).await;
        attempt += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
}
