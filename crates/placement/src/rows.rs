//! The rows of this service. Providers and allocations are shared with the compute service, which knows the tables by name only.
use crate::standard;
use api::{Error, Map, Result};
use resource::{Index, Reader, Row, Table, Tx};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// By provider uuid.
pub(crate) static PROVIDERS: Table = Table {
    name: "placement/resource_providers",
    indexes: &[
        Index { name: "name", path: "/name" },
        Index { name: "parent", path: "/parent_provider_uuid" },
        Index { name: "trait", path: "/traits" },
        Index { name: "aggregate", path: "/aggregates" },
    ],
};
/// By consumer uuid.
pub(crate) static ALLOCATIONS: Table =
    Table { name: "placement/allocations", indexes: &[Index { name: "project", path: "/project_id" }] };
/// Custom traits, by name.
pub(crate) static TRAITS: Table = Table { name: "placement/traits", indexes: &[] };
/// Custom resource classes, by name.
pub(crate) static CLASSES: Table = Table { name: "placement/resource_classes", indexes: &[] };

/// Amounts by resource class.
pub(crate) type Amounts = BTreeMap<String, i64>;

const fn one() -> i64 {
    1
}
const fn most() -> i64 {
    i32::MAX as i64
}
const fn even() -> f64 {
    1.0
}

/// What a provider has of one resource class.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub(crate) struct Inventory {
    pub(crate) total: i64,
    #[serde(default)]
    pub(crate) reserved: i64,
    #[serde(default = "one")]
    pub(crate) min_unit: i64,
    #[serde(default = "most")]
    pub(crate) max_unit: i64,
    #[serde(default = "one")]
    pub(crate) step_size: i64,
    #[serde(default = "even")]
    pub(crate) allocation_ratio: f64,
}

impl Inventory {
    /// What can be given away in all.
    pub(crate) fn capacity(&self) -> i64 {
        ((self.total - self.reserved) as f64 * self.allocation_ratio) as i64
    }
    /// May one consumer take this much at once?
    pub(crate) fn suits(&self, amount: i64) -> bool {
        (self.min_unit..=self.max_unit).contains(&amount) && amount % self.step_size.max(1) == 0
    }
    /// Would this much fit beside what is used?
    pub(crate) fn fits(&self, used: i64, amount: i64) -> bool {
        self.suits(amount) && used.saturating_add(amount) <= self.capacity()
    }
}

/// A host or a part of one, or something that hosts share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Provider {
    #[serde(default)]
    pub(crate) uuid: String,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) generation: i64,
    #[serde(default)]
    pub(crate) parent_provider_uuid: Option<String>,
    #[serde(default)]
    pub(crate) inventories: BTreeMap<String, Inventory>,
    #[serde(default)]
    pub(crate) traits: BTreeSet<String>,
    #[serde(default)]
    pub(crate) aggregates: Vec<String>,
    /// The sum of all allocations on it.
    #[serde(default)]
    pub(crate) used: Amounts,
    #[serde(default)]
    pub(crate) created_at: Option<i64>,
    #[serde(default)]
    pub(crate) updated_at: Option<i64>,
    /// What other services keep in the row.
    #[serde(flatten)]
    pub(crate) rest: Map,
}

impl Provider {
    pub(crate) fn from_row(row: &Row) -> Result<Self> {
        let mut provider: Self = row.decode()?;
        row.id().clone_into(&mut provider.uuid);
        Ok(provider)
    }
    pub(crate) fn used(&self, class: &str) -> i64 {
        self.used.get(class).copied().unwrap_or(0)
    }
    pub(crate) fn has_room(&self, class: &str, amount: i64) -> bool {
        self.inventories.get(class).is_some_and(|i| i.fits(self.used(class), amount))
    }
    /// When it changed last.
    pub(crate) fn modified(&self) -> Option<i64> {
        self.updated_at.or(self.created_at)
    }
    /// Writes the row as it is.
    pub(crate) fn put(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        self.updated_at = Some(tx.now.0);
        self.rest.insert("id".into(), self.uuid.as_str().into());
        let value = serde_json::to_value(&*self).map_err(|e| Error::internal(format!("provider {}: {e}", self.uuid)))?;
        tx.put(&PROVIDERS, &self.uuid, value);
        Ok(())
    }
    /// Writes the row as changed in what generations protect.
    pub(crate) fn save(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        self.generation += 1;
        self.put(tx)
    }
}

/// What one consumer holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Consumer {
    #[serde(default)]
    pub(crate) consumer_id: String,
    #[serde(default)]
    pub(crate) project_id: String,
    #[serde(default)]
    pub(crate) user_id: String,
    #[serde(default)]
    pub(crate) consumer_generation: i64,
    #[serde(default)]
    pub(crate) consumer_type: Option<String>,
    /// Amounts by provider.
    #[serde(default)]
    pub(crate) allocations: BTreeMap<String, Amounts>,
    #[serde(default)]
    pub(crate) updated_at: Option<i64>,
    /// What other services keep in the row.
    #[serde(flatten)]
    pub(crate) rest: Map,
}

impl Consumer {
    pub(crate) fn from_row(row: &Row) -> Result<Self> {
        let mut consumer: Self = row.decode()?;
        row.id().clone_into(&mut consumer.consumer_id);
        Ok(consumer)
    }
    pub(crate) fn put(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        self.updated_at = Some(tx.now.0);
        let value = serde_json::to_value(&*self).map_err(|e| Error::internal(format!("consumer {}: {e}", self.consumer_id)))?;
        tx.put(&ALLOCATIONS, &self.consumer_id, value);
        Ok(())
    }
}

/// No such provider.
pub(crate) fn lost(uuid: &str) -> Error {
    Error::not_found(format!("No resource provider with uuid {uuid} found"))
}

/// The provider in the view, or 404.
pub(crate) fn provider(reader: &Reader<'_>, uuid: &str) -> Result<Provider> {
    Provider::from_row(&*reader.get(&PROVIDERS, uuid).ok_or_else(|| lost(uuid))?)
}

/// The provider in a transaction, if there is one; it is compared at the commit.
pub(crate) fn find_provider(tx: &mut Tx<'_>, uuid: &str) -> Result<Option<Provider>> {
    tx.get(&PROVIDERS, uuid).map(|r| Provider::from_row(&r)).transpose()
}

/// The provider in a transaction, or 404; it is compared at the commit.
pub(crate) fn load_provider(tx: &mut Tx<'_>, uuid: &str) -> Result<Provider> {
    find_provider(tx, uuid)?.ok_or_else(|| lost(uuid))
}

/// The consumer in a transaction, if it holds anything; it is compared at the commit.
pub(crate) fn load_consumer(tx: &mut Tx<'_>, uuid: &str) -> Result<Option<Consumer>> {
    tx.get(&ALLOCATIONS, uuid).map(|r| Consumer::from_row(&r)).transpose()
}

/// Is there such a resource class? A custom one is compared at the commit.
pub(crate) fn has_class(tx: &mut Tx<'_>, name: &str) -> bool {
    standard::is_class(name) || tx.get(&CLASSES, name).is_some()
}

/// Is there such a trait? A custom one is compared at the commit.
pub(crate) fn has_trait(tx: &mut Tx<'_>, name: &str) -> bool {
    standard::is_trait(name) || tx.get(&TRAITS, name).is_some()
}

pub(crate) fn knows_class(reader: &Reader<'_>, name: &str) -> bool {
    standard::is_class(name) || reader.get(&CLASSES, name).is_some()
}

pub(crate) fn knows_trait(reader: &Reader<'_>, name: &str) -> bool {
    standard::is_trait(name) || reader.get(&TRAITS, name).is_some()
}

/// 409: somebody else was quicker; read again and repeat.
pub(crate) fn stale(message: impl Into<String>) -> Error {
    Error::conflict(message).code("placement.concurrent_update")
}

/// A time in a row.
pub(crate) fn stamp(row: &Row) -> Option<i64> {
    row.field("updated_at").as_i64().or_else(|| row.field("created_at").as_i64())
}

/// A number in a request's body that was checked to be one.
pub(crate) fn int(map: &Map, key: &str) -> Option<i64> {
    map.get(key).and_then(Value::as_i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_of_the_compute_service_are_understood_and_kept() {
        let row = json!({
            "id": "p", "uuid": "p", "name": "host", "generation": 3, "parent_provider_uuid": null, "node_id": "n",
            "inventories": {"VCPU": {"total": 4, "reserved": 1, "allocation_ratio": 4.0}}, "traits": ["COMPUTE_NODE"], "used": {"VCPU": 2},
        });
        let provider: Provider = serde_json::from_value(row).unwrap();
        assert_eq!(provider.inventories["VCPU"].capacity(), 12);
        assert!(provider.has_room("VCPU", 10) && !provider.has_room("VCPU", 11) && !provider.has_room("DISK_GB", 1));
        assert_eq!(serde_json::to_value(&provider).unwrap()["node_id"], "n");
    }

    #[test]
    fn units_and_steps_limit_one_claim() {
        let inventory = Inventory { total: 100, reserved: 0, min_unit: 4, max_unit: 12, step_size: 4, allocation_ratio: 1.0 };
        assert_eq!([2, 4, 6, 12, 16].map(|n| inventory.suits(n)), [false, true, false, true, false]);
        assert!(inventory.fits(96, 4) && !inventory.fits(97, 4));
    }
}
