//! A provider of resources: its row and its arithmetic.
use base::Timestamp;
use resource::{Error, Map, Reader, Result, Tx};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use store::{Index, Row, Table};

/// Providers by uuid.
pub static PROVIDERS: Table = Table {
    name: "placement/resource_providers",
    indexes: &[
        Index { name: "name", path: "/name" },
        Index { name: "parent_provider_uuid", path: "/parent_provider_uuid" },
    ],
};

/// Largest number of the classic service's database; clients send it for "any".
pub(crate) const MAX: i64 = 2_147_483_647;

/// What a provider has of one resource class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    pub total: i64,
    #[serde(default)]
    pub reserved: i64,
    #[serde(default = "one")]
    pub min_unit: i64,
    #[serde(default = "max")]
    pub max_unit: i64,
    #[serde(default = "one")]
    pub step_size: i64,
    #[serde(default = "ratio")]
    pub allocation_ratio: f64,
}

fn one() -> i64 {
    1
}
fn max() -> i64 {
    MAX
}
fn ratio() -> f64 {
    1.0
}

impl Inventory {
    /// How much may be allocated in all.
    pub fn capacity(&self) -> i64 {
        ((self.total - self.reserved) as f64 * self.allocation_ratio) as i64
    }
    /// May one allocation be of this size?
    pub fn accepts(&self, amount: i64) -> bool {
        (self.min_unit..=self.max_unit).contains(&amount) && amount % self.step_size.max(1) == 0
    }
}

/// A host, a device of it, or anything else that has resources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provider {
    pub uuid: String,
    pub name: String,
    #[serde(default)]
    pub generation: i64,
    #[serde(default)]
    pub parent_provider_uuid: Option<String>,
    #[serde(default)]
    pub inventories: BTreeMap<String, Inventory>,
    #[serde(default)]
    pub traits: BTreeSet<String>,
    #[serde(default)]
    pub aggregates: BTreeSet<String>,
    /// Sum of all allocations, by resource class.
    #[serde(default)]
    pub used: BTreeMap<String, i64>,
    /// What others keep in the row.
    #[serde(flatten)]
    pub rest: Map,
}

pub(crate) fn missing(uuid: &str) -> Error {
    Error::not_found(format!("No resource provider with uuid {uuid} found"))
}

impl Provider {
    pub fn new(uuid: &str, name: &str, now: Timestamp) -> Self {
        let mut rest = Map::new();
        rest.insert("id".into(), uuid.into());
        rest.insert("v".into(), 1.into());
        rest.insert("created_at".into(), now.0.into());
        rest.insert("updated_at".into(), Value::Null);
        Self {
            uuid: uuid.into(),
            name: name.into(),
            generation: 0,
            parent_provider_uuid: None,
            inventories: BTreeMap::new(),
            traits: BTreeSet::new(),
            aggregates: BTreeSet::new(),
            used: BTreeMap::new(),
            rest,
        }
    }

    fn of(row: &Row) -> Result<Self> {
        Ok(row.decode()?)
    }

    /// Reads it in a transaction; it is compared at the commit.
    pub fn load(tx: &mut Tx<'_>, uuid: &str) -> Result<Option<Self>> {
        tx.get(&PROVIDERS, uuid).map(|row| Self::of(&row)).transpose()
    }

    /// Writes it.
    pub fn save(&self, tx: &mut Tx<'_>) -> Result<()> {
        let mut row = serde_json::to_value(self).map_err(|e| Error::internal(format!("provider {}: {e}", self.uuid)))?;
        row["updated_at"] = tx.now.0.into();
        tx.put(&PROVIDERS, &self.uuid, row);
        Ok(())
    }

    pub(crate) fn existing(tx: &mut Tx<'_>, uuid: &str) -> Result<Self> {
        Self::load(tx, uuid)?.ok_or_else(|| missing(uuid))
    }

    pub(crate) fn read(reader: &Reader<'_>, uuid: &str) -> Result<Self> {
        let row = reader.get(&PROVIDERS, uuid).ok_or_else(|| missing(uuid))?;
        Self::of(&row)
    }

    pub(crate) fn changed_at(&self) -> Timestamp {
        let stamp = |name| self.rest.get(name).and_then(Value::as_i64);
        Timestamp(stamp("updated_at").or_else(|| stamp("created_at")).unwrap_or_default())
    }

    pub(crate) fn used(&self, class: &str) -> i64 {
        self.used.get(class).copied().unwrap_or_default()
    }

    /// Is there room for this amount beside what is used?
    pub(crate) fn has_room(&self, class: &str, amount: i64) -> bool {
        self.inventories.get(class).is_some_and(|i| i.accepts(amount) && self.used(class).saturating_add(amount) <= i.capacity())
    }

    /// Resource classes of this list that are in use.
    pub(crate) fn in_use<'a>(&self, classes: impl Iterator<Item = &'a String>) -> Vec<String> {
        classes.filter(|c| self.used(c) > 0).cloned().collect()
    }

    /// Fails unless the caller knows the newest state.
    pub(crate) fn check_generation(&self, given: i64, message: &str) -> Result<()> {
        if self.generation == given { Ok(()) } else { Err(Error::conflict(message).code(crate::answer::CONCURRENT_UPDATE)) }
    }
}

/// All providers and how they hang together.
pub(crate) struct Forest {
    pub(crate) all: BTreeMap<String, Provider>,
    roots: HashMap<String, String>,
}

impl Forest {
    pub(crate) fn read(reader: &Reader<'_>) -> Result<Self> {
        let rows = reader.all(&PROVIDERS).map(|r| Provider::of(r));
        Ok(Self::new(rows.collect::<Result<_>>()?))
    }

    /// As a transaction sees it; advisory.
    pub(crate) fn load(tx: &Tx<'_>) -> Result<Self> {
        Ok(Self::new(tx.all(&PROVIDERS).iter().map(|r| Provider::of(r)).collect::<Result<_>>()?))
    }

    pub(crate) fn new(list: Vec<Provider>) -> Self {
        let all: BTreeMap<String, Provider> = list.into_iter().map(|p| (p.uuid.clone(), p)).collect();
        let roots = all.keys().map(|uuid| (uuid.clone(), walk(&all, uuid).last().unwrap_or(uuid).clone())).collect();
        Self { all, roots }
    }

    pub(crate) fn root<'a>(&'a self, uuid: &'a str) -> &'a str {
        self.roots.get(uuid).map_or(uuid, String::as_str)
    }

    /// The provider and what it is part of, up to the root.
    pub(crate) fn ancestors(&self, uuid: &str) -> BTreeSet<String> {
        walk(&self.all, uuid).into_iter().collect()
    }

    /// Everything in the tree of that root.
    pub(crate) fn tree<'a>(&'a self, root: &'a str) -> impl Iterator<Item = &'a Provider> {
        self.all.values().filter(move |p| self.root(&p.uuid) == root)
    }
}

fn walk(all: &BTreeMap<String, Provider>, uuid: &str) -> Vec<String> {
    let mut path = vec![uuid.to_owned()];
    let mut at = all.get(uuid);
    while let Some(parent) = at.and_then(|p| p.parent_provider_uuid.as_ref()) {
        // A loop cannot be made; a damaged row must not hang the service.
        if path.contains(parent) {
            break;
        }
        path.push(parent.clone());
        at = all.get(parent);
    }
    path
}
