//! What a transaction's closure sees: the view, the writes of those before it in the same commit, and its own writes.
use crate::{Compare, Reader, Revision, Row, Table, view::index_values};
use base::Timestamp;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

/// Rows written by closures that share a commit, and what must hold for them. `None` is a deletion.
#[derive(Default)]
pub(crate) struct Overlay {
    pub(crate) rows: BTreeMap<Arc<str>, Option<Arc<Row>>>,
    pub(crate) reads: BTreeMap<Arc<str>, Option<Revision>>,
    pub(crate) quiet: BTreeSet<Arc<str>>,
}

impl Overlay {
    fn below<'p>(&'p self, prefix: &'p str) -> impl Iterator<Item = (&'p Arc<str>, &'p Option<Arc<Row>>)> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        self.rows.range::<str, _>(from).take_while(move |(k, _)| k.starts_with(prefix))
    }
    pub(crate) fn ops(&self) -> usize {
        self.rows.len() + self.reads.len() + self.quiet.len()
    }
    pub(crate) fn compares(&self, at: Revision) -> Vec<Compare> {
        let rows = self.reads.iter().map(|(k, r)| match r {
            None => Compare::Absent(k.clone()),
            Some(r) => Compare::Modified(k.clone(), *r),
        });
        rows.chain(self.quiet.iter().map(|p| Compare::Quiet { prefix: p.clone(), since: at })).collect()
    }
}

/// A transaction under way. What it [`get`](Tx::get)s is compared when it commits, and so is what it writes.
///
/// The closure may run several times: it must not have effects outside.
pub struct Tx<'a> {
    reader: &'a Reader<'a>,
    before: &'a Overlay,
    own: Overlay,
    /// The time of this attempt.
    pub now: Timestamp,
}

impl<'a> Tx<'a> {
    pub(crate) fn new(reader: &'a Reader<'a>, before: &'a Overlay, now: Timestamp) -> Self {
        Self { reader, before, own: Overlay::default(), now }
    }

    pub(crate) fn into_own(self) -> Overlay {
        self.own
    }

    fn pending(&self, key: &str) -> Option<&Option<Arc<Row>>> {
        self.own.rows.get(key).or_else(|| self.before.rows.get(key))
    }

    /// The row. If it changes (or appears) before the commit, the closure runs again.
    pub fn get(&mut self, table: &Table, id: &str) -> Option<Arc<Row>> {
        let key = table.key(id);
        if let Some(row) = self.pending(&key) {
            return row.clone();
        }
        let row = self.reader.key(table.name, &key);
        self.own.reads.insert(key, row.as_ref().map(|r| r.modified));
        row
    }

    /// Rows whose index holds `value`, in key order. Advisory: rows that appear before the commit are not noticed. See [`Tx::children`].
    pub fn find(&self, table: &Table, index: &str, value: &str) -> Vec<Arc<Row>> {
        let path = table.indexes.iter().find(|i| i.name == index).map_or("", |i| i.path);
        let mut values = Vec::new();
        self.with_written(table, self.reader.find(table, index, value), |row| {
            values.clear();
            index_values(row.value(), path, &mut values);
            values.iter().any(|v| v == value)
        })
    }

    /// `rows` of the table, in key order, as the writes of this commit leave them, with those written that `belongs`.
    fn with_written(&self, table: &Table, mut rows: Vec<Arc<Row>>, mut belongs: impl FnMut(&Row) -> bool) -> Vec<Arc<Row>> {
        let prefix = format!("{}/", table.name);
        let mut written: BTreeMap<&Arc<str>, Option<&Arc<Row>>> = BTreeMap::new();
        for overlay in [self.before, &self.own] {
            written.extend(overlay.below(&prefix).map(|(key, row)| (key, row.as_ref())));
        }
        if !written.is_empty() {
            rows.retain(|r| !written.contains_key(&r.key));
            rows.extend(written.into_values().flatten().filter(|r| belongs(r)).cloned());
            rows.sort_by(|a, b| a.key.cmp(&b.key));
        }
        rows
    }

    /// As [`Tx::find`], and if any row of the table is written before the commit, the closure runs again. For "nothing may refer
    /// to it": rare operations on tables that others write.
    pub fn children(&mut self, table: &Table, index: &str, value: &str) -> Vec<Arc<Row>> {
        self.own.quiet.insert(format!("{}/", table.name).into());
        self.find(table, index, value)
    }

    /// All rows of the table. Advisory, as [`Tx::find`].
    pub fn all(&self, table: &Table) -> Vec<Arc<Row>> {
        self.with_written(table, self.reader.all(table).cloned().collect(), |_| true)
    }

    /// Rows as they were before the transactions that wait with this one. Advisory, as [`Tx::find`]: for rules that want a reader.
    pub fn before(&self) -> &'a Reader<'a> {
        self.reader
    }

    /// Writes the row. The state that it replaces is compared at the commit.
    pub fn put(&mut self, table: &Table, id: &str, value: Value) {
        let old = self.get(table, id);
        let key = table.key(id);
        let created = old.map_or(0, |r| r.created);
        self.own.rows.insert(key.clone(), Some(Arc::new(Row::pending(key, created, value))));
    }

    /// Writes the row if there is none; otherwise gives the one there is. This is how names, addresses and numbers are unique.
    pub fn claim(&mut self, table: &Table, id: &str, value: Value) -> Result<(), Arc<Row>> {
        match self.get(table, id) {
            Some(row) => Err(row),
            None => {
                self.put(table, id, value);
                Ok(())
            }
        }
    }

    /// Has it written or deleted anything?
    pub fn writes(&self) -> bool {
        !self.own.rows.is_empty()
    }

    /// Keys of the rows that it makes.
    pub fn made(&self) -> impl Iterator<Item = &Arc<str>> {
        self.own.rows.iter().filter(|(_, row)| row.as_ref().is_some_and(|r| r.created == 0)).map(|(key, _)| key)
    }

    /// Deletes the row if there is one.
    pub fn delete(&mut self, table: &Table, id: &str) {
        if self.get(table, id).is_some() {
            self.own.rows.insert(table.key(id), None);
        }
    }
}
