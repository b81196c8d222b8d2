//! A consumer of resources: a server, a migration, or whatever else holds allocations.
use resource::{Error, Map, Result, Tx};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use store::{Index, Row, Table};

/// Consumers by uuid.
pub static ALLOCATIONS: Table =
    Table { name: "placement/allocations", indexes: &[Index { name: "project_id", path: "/project_id" }] };

/// Amounts by resource class, by provider.
pub(crate) type Amounts = BTreeMap<String, BTreeMap<String, i64>>;

/// Project and user of consumers that were made before microversion 1.8 asked for them.
pub(crate) const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

/// What a consumer holds. A consumer without allocations has no row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Consumer {
    pub consumer_id: String,
    #[serde(default)]
    pub project_id: String,
    #[serde(default)]
    pub user_id: String,
    #[serde(default)]
    pub consumer_generation: i64,
    /// `INSTANCE`, `MIGRATION`, …
    #[serde(default)]
    pub consumer_type: Option<String>,
    pub allocations: Amounts,
    /// What others keep in the row.
    #[serde(flatten)]
    pub rest: Map,
}

impl Consumer {
    pub(crate) fn of(row: &Row) -> Result<Self> {
        Ok(row.decode()?)
    }

    /// Reads it in a transaction; it is compared at the commit.
    pub fn load(tx: &mut Tx<'_>, id: &str) -> Result<Option<Self>> {
        tx.get(&ALLOCATIONS, id).map(|row| Self::of(&row)).transpose()
    }

    pub(crate) fn save(&self, tx: &mut Tx<'_>) -> Result<()> {
        let mut row = serde_json::to_value(self).map_err(|e| Error::internal(format!("consumer {}: {e}", self.consumer_id)))?;
        row["id"] = self.consumer_id.as_str().into();
        row["v"] = 1.into();
        row["updated_at"] = tx.now.0.into();
        tx.put(&ALLOCATIONS, &self.consumer_id, row);
        Ok(())
    }

    /// Its type as it is shown: without one it is `unknown`.
    pub(crate) fn shown_type(&self) -> &str {
        self.consumer_type.as_deref().unwrap_or("unknown")
    }
}
