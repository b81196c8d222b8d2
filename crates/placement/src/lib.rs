//! The placement service: what providers have, who uses how much of it, and where a request would fit (microversions 1.0 to 1.39).
//!
//! A provider is one row with its inventories, traits, aggregates and what is used of it; a consumer is one row with its
//! allocations. Both are written in one transaction, by this API and by the scheduler alike, so `used` is always the sum of the
//! allocations, and a provider's `generation` grows with every change that a reader of its inventory must notice.
mod aggregates;
mod allocate;
mod allocations;
mod answer;
mod body;
mod candidates;
mod classes;
mod consumer;
mod inventories;
mod provider;
mod providers;
mod query;
mod reshaper;
mod root;
mod traits;
mod usages;

pub use allocate::{Change, replace};
pub use consumer::{ALLOCATIONS, Consumer};
pub use provider::{Inventory, PROVIDERS, Provider};

use api::{Microversions, Service, dialect::PLACEMENT};
use base::Version;

/// The service.
pub fn service() -> Service {
    let routes = [
        root::routes(),
        providers::routes(),
        inventories::routes(),
        aggregates::routes(),
        traits::routes(),
        classes::routes(),
        allocations::routes(),
        usages::routes(),
        candidates::routes(),
        reshaper::routes(),
    ];
    Service {
        name: "placement",
        prefix: "/placement",
        dialect: &PLACEMENT,
        microversions: Some(Microversions {
            name: "placement",
            legacy_header: None,
            min: Version::of("1.0"),
            max: Version::of("1.39"),
        }),
        resources: Vec::new(),
        routes: routes.into_iter().flatten().collect(),
        tables: vec![&PROVIDERS, &ALLOCATIONS, &traits::TRAITS, &classes::CLASSES],
        rules: Vec::new(),
        quotas: Vec::new(),
    }
}
