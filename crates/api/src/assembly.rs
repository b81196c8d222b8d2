//! What all services together need of the store and the settings.
use crate::{Service, idempotency::KEYS, policy::OVERRIDES};
use resource::{Registry, engine};
use std::collections::{HashMap, HashSet};
use store::Table;

/// Every table once: the engine's and the pipeline's own, those of resources, and those that services name.
pub fn tables(services: &[Service]) -> Vec<&'static Table> {
    let of = |s: &Service| s.resources.iter().map(|d| &d.table).chain(s.tables.iter().copied()).collect::<Vec<_>>();
    let mut all: Vec<&'static Table> =
        engine::TABLES.into_iter().chain([&KEYS, &OVERRIDES]).chain(services.iter().flat_map(of)).collect();
    let mut seen = HashSet::new();
    all.retain(|t| seen.insert(t.name));
    all
}

/// Default limits as [`resource::Settings`] wants them.
pub fn quotas(services: &[Service]) -> HashMap<String, i64> {
    services.iter().flat_map(|s| s.quotas.iter().map(|(name, limit)| (format!("{}:{name}", s.name), *limit))).collect()
}

/// Every resource, so that services find each other's.
pub fn registry(services: &[Service]) -> Registry {
    Registry::new(services.iter().flat_map(|s| s.resources.iter().copied()).collect())
}
