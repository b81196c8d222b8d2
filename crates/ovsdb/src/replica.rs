//! Tables of a database, followed into memory.
use crate::Error;
use serde_json::{Map, Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::sync::watch;

/// The followed columns of a row.
pub type Row = Map<String, Value>;
/// Rows by their uuid.
pub type Table = HashMap<String, Row>;

/// The followed tables at one moment.
#[derive(Clone, Debug, Default)]
pub struct Tables(HashMap<String, Table>);

impl Tables {
    /// The rows of a table; none if it is empty or not followed.
    pub fn rows(&self, table: &str) -> impl Iterator<Item = (&str, &Row)> {
        self.0.get(table).into_iter().flatten().map(|(id, row)| (id.as_str(), row))
    }
    pub fn row(&self, table: &str, id: &str) -> Option<&Row> {
        self.0.get(table)?.get(id)
    }
    /// The first row whose column equals `value`.
    pub fn find(&self, table: &str, column: &str, value: &Value) -> Option<(&str, &Row)> {
        self.rows(table).find(|(_, row)| row.get(column) == Some(value))
    }
    pub fn len(&self, table: &str) -> usize {
        self.0.get(table).map_or(0, HashMap::len)
    }
    /// Applies `<table-updates>` of RFC 7047 section 4.1.6: `new` is the whole row, absent for a deleted one.
    fn apply(&mut self, updates: Value) {
        let Value::Object(updates) = updates else { return };
        for (table, rows) in updates {
            let (Value::Object(rows), table) = (rows, self.0.entry(table).or_default()) else { continue };
            for (id, mut change) in rows {
                match change.get_mut("new").map(Value::take) {
                    Some(Value::Object(row)) => drop(table.insert(id, row)),
                    _ => drop(table.remove(&id)),
                }
            }
        }
    }
}

/// A view of some tables that follows the database; cheap to clone. While the connection is down it shows the last state.
#[derive(Clone, Debug)]
pub struct Replica {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) database: String,
    /// What is asked for: `{table: {columns: […]}}`.
    pub(crate) wanted: Value,
    tables: RwLock<Tables>,
    /// Counts changes; 0 until the first snapshot is there.
    version: watch::Sender<u64>,
}

impl Shared {
    pub(crate) fn new(database: &str, tables: &[(&str, &[&str])]) -> Self {
        let wanted = tables.iter().map(|(t, columns)| ((*t).to_owned(), json!({ "columns": columns })));
        Self {
            database: database.to_owned(),
            wanted: Value::Object(wanted.collect()),
            tables: RwLock::default(),
            version: watch::Sender::new(0),
        }
    }
    /// Starts from a first answer: what was there before is forgotten.
    pub(crate) fn replace(&self, snapshot: Value) {
        let mut fresh = Tables::default();
        fresh.apply(snapshot);
        *self.tables.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        self.version.send_modify(|v| *v += 1);
    }
    pub(crate) fn read(&self) -> std::sync::RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }
    pub(crate) fn update(&self, updates: Value) {
        self.tables.write().unwrap_or_else(PoisonError::into_inner).apply(updates);
        self.version.send_modify(|v| *v += 1);
    }
}

impl Replica {
    /// Looks at the tables; `look` must be short, updates wait for it.
    pub fn read<R>(&self, look: impl FnOnce(&Tables) -> R) -> R {
        look(&self.shared.read())
    }
    /// Notifies after each change; the number grows.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.version.subscribe()
    }
    /// Waits until `look` finds something.
    pub async fn wait<R>(
        &self,
        within: Duration,
        what: &'static str,
        mut look: impl FnMut(&Tables) -> Option<R>,
    ) -> Result<R, Error> {
        let mut changes = self.changes();
        let found = async {
            loop {
                changes.borrow_and_update();
                if let Some(found) = self.read(&mut look) {
                    return found;
                }
                // The sender lives in `self`, so this cannot fail.
                let _ = changes.changed().await;
            }
        };
        let late = |_| Error::Deadline { what, endpoints: self.shared.database.clone(), within };
        tokio::time::timeout(within, found).await.map_err(late)
    }
}
