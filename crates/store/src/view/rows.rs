//! Rows in memory, by key and by index. No I/O, no lock.
use crate::{Revision, StoreError};
use serde_json::Value;
use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, OnceLock},
};

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
    digest: OnceLock<Arc<dyn Any + Send + Sync>>,
}
impl Row {
    pub(crate) fn new(key: Arc<str>, created: Revision, modified: Revision, bytes: bytes::Bytes) -> Self {
        Self { key, created, modified, bytes, value: OnceLock::new(), digest: OnceLock::new() }
    }
    pub(crate) fn pending(key: Arc<str>, created: Revision, value: Value) -> Self {
        let value = OnceLock::from(value);
        Self { key, created, modified: 0, bytes: bytes::Bytes::new(), value, digest: OnceLock::new() }
    }
    /// A row that will surely be looked into: its bytes need not be kept besides.
    pub(super) fn decoded(self) -> Self {
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
    /// What `make` takes out of the row, made once and kept with it: for rows that are read by the thousand for one request. One type
    /// for each table; another is made anew each time.
    pub fn digest<T: Send + Sync + 'static>(&self, make: impl Fn(&Value) -> T) -> Arc<T> {
        let kept = self.digest.get_or_init(|| Arc::new(make(self.value())));
        Arc::downcast(kept.clone()).unwrap_or_else(|_| Arc::new(make(self.value())))
    }
    /// The row as its type. Fails only when the stored form is not what the type says.
    pub fn decode<T: serde::de::DeserializeOwned>(&self) -> Result<T, StoreError> {
        T::deserialize(self.value()).map_err(|e| StoreError::Damaged(format!("row {}: {e}", self.key)))
    }
}

/// The text under which a value is found in an index.
fn index_text(v: &Value) -> Option<String> {
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
pub(super) struct TableRows {
    pub(super) rows: BTreeMap<Arc<str>, Arc<Row>>,
    pub(super) indexes: Vec<(Index, Postings)>,
    /// Revision of the last change, deletions too.
    pub(super) modified: Revision,
}

impl TableRows {
    pub(super) fn new(table: &Table) -> Self {
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
pub(super) struct Inner {
    pub(super) revision: Revision,
    pub(super) tables: HashMap<&'static str, TableRows>,
}

pub(super) fn table_of(key: &str) -> &str {
    let first = key.find('/').map_or(key.len(), |i| i + 1);
    key[first..].find('/').map_or(key, |i| &key[..first + i])
}

/// What one event does to the rows; `None` is a deletion.
pub(super) type Change = (Arc<str>, Option<Arc<Row>>);

impl Inner {
    pub(super) fn put(&mut self, row: Arc<Row>) {
        if let Some(t) = self.tables.get_mut(table_of(&row.key)) {
            t.insert(row);
        }
    }
    pub(super) fn apply(&mut self, revision: Revision, changes: &[Change]) {
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
    pub(super) fn difference(&self, other: &Self) -> Vec<Arc<str>> {
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
