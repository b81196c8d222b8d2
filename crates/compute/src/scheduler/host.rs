//! What schedulers ask of hosts, as their rows tell it.
//!
//! Thousands of hosts are looked at for each server, so what is asked is taken out of the JSON once for each version of a row.
use super::{Place, Spec};
use crate::{
    common::{PROVIDERS, object},
    resources::{Aggregate, Node},
};
use api::Map;
use resource::{Resource, Row};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use store::Tx;

/// What a provider has of one resource class.
#[derive(Clone, Debug)]
struct Stock {
    class: String,
    /// That servers may get: without what is reserved, times the allocation ratio.
    capacity: i64,
    used: i64,
    /// What one server may have at the most.
    max_unit: i64,
    /// Times the allocation ratio, with what is reserved: what [`Host::share_free`] is a share of.
    whole: f64,
}

/// What a host's provider has.
#[derive(Clone, Debug, Default)]
pub(super) struct Room {
    stocks: Vec<Stock>,
    traits: Vec<String>,
}

impl Room {
    pub(super) fn of(provider: &Value) -> Self {
        let stock = |(class, inventory): (&String, &Value)| {
            let number = |key: &str| inventory.get(key).and_then(Value::as_f64);
            let ratio = number("allocation_ratio").unwrap_or(1.0);
            Stock {
                class: class.clone(),
                capacity: crate::server::records::capacity(inventory),
                used: provider.get("used").and_then(|u| u.get(class)).and_then(Value::as_i64).unwrap_or(0),
                max_unit: inventory.get("max_unit").and_then(Value::as_i64).unwrap_or(i64::MAX),
                whole: number("total").unwrap_or(0.0) * ratio,
            }
        };
        let inventories = provider.get("inventories").and_then(Value::as_object);
        Self {
            stocks: inventories.into_iter().flatten().map(stock).collect(),
            traits: crate::server::request::strings(provider.get("traits")),
        }
    }
}

/// What a node's row tells.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) name: String,
    pub(super) up: bool,
    pub(super) disabled: bool,
}

impl Facts {
    fn of(node: &Value) -> Self {
        let flag = |key: &str| node.get(key).and_then(Value::as_bool).unwrap_or_default();
        let text = |key: &str| node.get(key).and_then(Value::as_str).unwrap_or_default();
        Self { name: text("host").to_owned(), up: text("state") == "up" && !flag("forced_down"), disabled: flag("disabled") }
    }
}

/// The rows that tell of hosts, as a transaction sees them.
pub(crate) struct Rows {
    nodes: Vec<Arc<Row>>,
    providers: Vec<Arc<Row>>,
    aggregates: Vec<Arc<Row>>,
}

/// A host with all that filters look at.
#[derive(Clone, Debug)]
pub(crate) struct Host<'r> {
    pub(super) node_id: &'r str,
    pub(super) facts: Arc<Facts>,
    pub(super) zone: &'r str,
    /// Metadata of its aggregates.
    pub(super) aggregates: Vec<&'r Map>,
    pub(super) room: Arc<Room>,
    /// What servers of the same request have taken of it so far.
    taken: BTreeMap<String, i64>,
}

impl<'r> Host<'r> {
    pub(super) fn new(node_id: &'r str, facts: Arc<Facts>, room: Arc<Room>) -> Self {
        Self { node_id, facts, zone: crate::zones::DEFAULT, aggregates: Vec::new(), room, taken: BTreeMap::new() }
    }

    fn stock(&self, class: &str) -> Option<&Stock> {
        self.room.stocks.iter().find(|s| s.class == class)
    }

    fn free(&self, stock: &Stock) -> i64 {
        stock.capacity - stock.used - self.taken.get(&stock.class).copied().unwrap_or(0)
    }

    pub(super) fn has_room(&self, class: &str, amount: i64) -> bool {
        self.stock(class).is_some_and(|s| amount <= s.max_unit && self.free(s) >= amount)
    }

    pub(super) fn has_trait(&self, name: &str) -> bool {
        self.room.traits.iter().any(|t| t == name)
    }

    /// How much of a class is free: 1 for a host that nobody uses.
    pub(super) fn share_free(&self, class: &str) -> f64 {
        self.stock(class).filter(|s| s.whole > 0.0).map_or(0.0, |s| self.free(s) as f64 / s.whole)
    }

    pub(super) fn take(&mut self, spec: &Spec) {
        for (class, amount) in &spec.resources {
            *self.taken.entry(class.clone()).or_default() += amount;
        }
    }

    pub(crate) fn place(&self) -> Place {
        Place { node_id: self.node_id.to_owned(), host: self.facts.name.clone() }
    }
}

impl Rows {
    pub(crate) fn read(tx: &Tx<'_>) -> Self {
        Self { nodes: tx.all(&Node::DEF.table), providers: tx.all(&PROVIDERS), aggregates: tx.all(&Aggregate::DEF.table) }
    }

    pub(crate) fn hosts(&self) -> Vec<Host<'_>> {
        let nothing = Arc::new(Room::default());
        let mut aggregates: HashMap<&str, Vec<&Map>> = HashMap::new();
        for aggregate in &self.aggregates {
            for host in aggregate.field("hosts").as_array().into_iter().flatten().filter_map(Value::as_str) {
                aggregates.entry(host).or_default().push(object(aggregate));
            }
        }
        // A node's provider has its id, and both come in the order of ids.
        let mut providers = self.providers.iter().peekable();
        let mut hosts = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            while providers.next_if(|p| p.id() < node.id()).is_some() {}
            let room = providers.next_if(|p| p.id() == node.id()).map_or_else(|| nothing.clone(), |p| p.digest(Room::of));
            let mut host = Host::new(node.id(), node.digest(Facts::of), room);
            if let Some(mine) = aggregates.get(host.facts.name.as_str()) {
                host.zone = mine.iter().find_map(|a| a.get("availability_zone")?.as_str()).unwrap_or(crate::zones::DEFAULT);
                host.aggregates = mine.iter().filter_map(|a| a.get("metadata")?.as_object()).collect();
            }
            hosts.push(host);
        }
        hosts
    }
}
