//! The statements on rows, within one SQLite transaction. Used by the writer and the readers alike.
use rusqlite::{Connection, OptionalExtension, Result, Row, params};
use std::sync::Arc;
use store::{Entry, LeaseId, Revision};

const COLUMNS: &str = "key, value, created, modified, lease";

fn entry(row: &Row<'_>) -> Result<Entry> {
    Ok(Entry {
        key: row.get_ref(0)?.as_str()?.into(),
        value: row.get_ref(1)?.as_blob()?.to_vec().into(),
        created: row.get(2)?,
        modified: row.get(3)?,
        lease: row.get::<_, Option<u64>>(4)?.map(LeaseId),
    })
}

/// See the module. The caller has opened the transaction.
pub(crate) struct Rows<'a>(pub(crate) &'a Connection);

impl Rows<'_> {
    pub(crate) fn revision(&self) -> Result<Revision> {
        self.0.prepare_cached("SELECT value FROM meta WHERE name = 'revision'")?.query_row([], |r| r.get(0))
    }

    pub(crate) fn set_revision(&self, revision: Revision) -> Result<()> {
        self.0.prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'revision'")?.execute([revision]).map(|_| ())
    }

    /// Adds one to a counter and gives the new value.
    pub(crate) fn count_up(&self, counter: &str) -> Result<u64> {
        self.0
            .prepare_cached("UPDATE meta SET value = value + 1 WHERE name = ?1 RETURNING value")?
            .query_row([counter], |r| r.get(0))
    }

    pub(crate) fn get(&self, key: &str) -> Result<Option<Entry>> {
        self.0.prepare_cached(&format!("SELECT {COLUMNS} FROM rows WHERE key = ?1"))?.query_row([key], entry).optional()
    }

    pub(crate) fn modified(&self, key: &str) -> Result<Option<Revision>> {
        self.0.prepare_cached("SELECT modified FROM rows WHERE key = ?1")?.query_row([key], |r| r.get(0)).optional()
    }

    /// Rows with the prefix behind `after`, in key order, and whether there are more.
    pub(crate) fn page(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<(Vec<Entry>, bool)> {
        let (from, condition) = match after {
            Some(after) if after >= prefix => (after, ">"),
            _ => (prefix, ">="),
        };
        let mut statement =
            self.0.prepare_cached(&format!("SELECT {COLUMNS} FROM rows WHERE key {condition} ?1 ORDER BY key"))?;
        let mut found = statement.query([from])?;
        let mut entries = Vec::new();
        // The index yields rows one at a time: stopping early reads no further.
        while let Some(row) = found.next()? {
            if !row.get_ref(0)?.as_str()?.starts_with(prefix) {
                break;
            }
            if entries.len() == limit {
                return Ok((entries, true));
            }
            entries.push(entry(row)?);
        }
        Ok((entries, false))
    }

    /// Whether a row below the prefix was written after `since`; reads all of them.
    pub(crate) fn any_since(&self, prefix: &str, since: Revision) -> Result<bool> {
        let mut statement = self.0.prepare_cached("SELECT key, modified FROM rows WHERE key >= ?1 ORDER BY key")?;
        let mut found = statement.query([prefix])?;
        while let Some(row) = found.next()? {
            if !row.get_ref(0)?.as_str()?.starts_with(prefix) {
                break;
            }
            if row.get::<_, Revision>(1)? > since {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes the row and gives the revision that created it.
    pub(crate) fn put(&self, key: &str, value: &[u8], at: Revision, lease: Option<LeaseId>) -> Result<Revision> {
        self.0
            .prepare_cached(
                "INSERT INTO rows (key, value, created, modified, lease) VALUES (?1, ?2, ?3, ?3, ?4)
                 ON CONFLICT (key) DO UPDATE SET value = ?2, modified = ?3, lease = ?4 RETURNING created",
            )?
            .query_row(params![key, value, at, lease.map(|l| l.0)], |r| r.get(0))
    }

    /// Deletes the row; true if there was one.
    pub(crate) fn delete(&self, key: &str) -> Result<bool> {
        Ok(self.0.prepare_cached("DELETE FROM rows WHERE key = ?1")?.execute([key])? > 0)
    }

    /// Deletes the rows of a lease and gives their keys, in order.
    pub(crate) fn delete_leased(&self, lease: LeaseId) -> Result<Vec<Arc<str>>> {
        let mut statement = self.0.prepare_cached("DELETE FROM rows WHERE lease = ?1 RETURNING key")?;
        let keys = statement.query_map([lease.0], |r| Ok(r.get_ref(0)?.as_str()?.into()))?;
        let mut keys = keys.collect::<Result<Vec<Arc<str>>>>()?;
        keys.sort_unstable();
        Ok(keys)
    }

    /// Deletes the rows of all leases and gives how many those were.
    pub(crate) fn delete_all_leased(&self) -> Result<usize> {
        self.0.execute("DELETE FROM rows WHERE lease IS NOT NULL", [])
    }
}
