//! The placement service: what hosts have to give, who holds how much of it, and where more would fit (Placement API 1.0 to 1.39).
//!
//! Two kinds of rows are shared with the compute service, which writes them in its own transactions: providers and the allocations of
//! consumers. [`rows`] says what they hold. The invariant of both services: a provider's `used` is the sum of what all allocations
//! take of it, and whoever changes one changes the other in the same transaction and counts the provider's generation up.
//!
//! ```text
//! handlers (providers, inventories, traits, …) ─→ rows
//! allocations, reshaper ─→ ledger (moves claims between consumers and providers, checks room) ─→ rows
//! candidates: request (what is asked) ─→ search (pure: which providers together can give it) ─→ answer
//! ```
mod aggregates;
mod allocations;
mod candidates;
mod classes;
mod inventories;
mod ledger;
mod providers;
mod query;
mod reshaper;
mod rest;
mod root;
mod rows;
mod schema;
mod standard;
mod traits;
mod usages;

use api::{Access, Call, Microversions, Reply, Result, Route, Service, dialect::PLACEMENT};
use base::Version;

/// The first part of every path.
const PREFIX: &str = "/placement";
const MIN: Version = Version::of("1.0");
const MAX: Version = Version::of("1.39");

/// Most of the API is for administrators and services.
const OPERATOR: &str = "service";
const TOTAL_USAGES: (&str, &str) =
    ("placement:usages", "role:admin or role:service or (role:reader and project_id:%(project_id)s)");

/// A route that reads; its answer is JSON, so the caller must accept that.
fn get(path: &'static str, rule: &'static str, since: &'static str, handler: fn(&Call) -> Result<Reply>) -> Route {
    let read = move |call: Call| async move {
        rest::check_accept(&call)?;
        handler(&call)
    };
    Route::new("GET", path, Access::Rule(rule, OPERATOR), read).since(since)
}

fn write<F, Fut>(method: &'static str, path: &'static str, rule: &'static str, since: &'static str, handler: F) -> Route
where
    F: Fn(Call) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Reply>> + Send + 'static,
{
    Route::new(method, path, Access::Rule(rule, OPERATOR), handler).since(since)
}

/// The placement service for the edge.
pub fn service() -> Service {
    Service {
        name: "placement",
        prefix: PREFIX,
        dialect: &PLACEMENT,
        microversions: Some(Microversions { name: "placement", legacy_header: None, min: MIN, max: MAX }),
        resources: Vec::new(),
        routes: routes(),
        tables: vec![&rows::PROVIDERS, &rows::ALLOCATIONS, &rows::TRAITS, &rows::CLASSES],
        rules: vec![TOTAL_USAGES],
        quotas: Vec::new(),
    }
}

fn routes() -> Vec<Route> {
    const PROVIDERS: &str = "/resource_providers";
    const PROVIDER: &str = "/resource_providers/{uuid}";
    const INVENTORIES: &str = "/resource_providers/{uuid}/inventories";
    const INVENTORY: &str = "/resource_providers/{uuid}/inventories/{resource_class}";
    const AGGREGATES: &str = "/resource_providers/{uuid}/aggregates";
    const PROVIDER_TRAITS: &str = "/resource_providers/{uuid}/traits";
    const CLASS: &str = "/resource_classes/{name}";
    const TRAIT: &str = "/traits/{name}";
    const CONSUMER: &str = "/allocations/{consumer_uuid}";
    vec![
        Route::new("GET", "/", Access::Public, |call| async move { Ok(root::versions(&call)) }),
        get(PROVIDERS, "placement:resource_providers:list", "1.0", providers::list),
        write("POST", PROVIDERS, "placement:resource_providers:create", "1.0", providers::create),
        get(PROVIDER, "placement:resource_providers:show", "1.0", providers::show),
        write("PUT", PROVIDER, "placement:resource_providers:update", "1.0", providers::update),
        write("DELETE", PROVIDER, "placement:resource_providers:delete", "1.0", providers::delete),
        get(INVENTORIES, "placement:resource_providers:inventories:list", "1.0", inventories::list),
        write("POST", INVENTORIES, "placement:resource_providers:inventories:create", "1.0", inventories::create),
        write("PUT", INVENTORIES, "placement:resource_providers:inventories:update", "1.0", inventories::replace),
        write("DELETE", INVENTORIES, "placement:resource_providers:inventories:delete", "1.5", inventories::clear),
        get(INVENTORY, "placement:resource_providers:inventories:show", "1.0", inventories::show),
        write("PUT", INVENTORY, "placement:resource_providers:inventories:update", "1.0", inventories::update),
        write("DELETE", INVENTORY, "placement:resource_providers:inventories:delete", "1.0", inventories::delete),
        get("/resource_providers/{uuid}/usages", "placement:resource_providers:usages", "1.0", usages::of_provider),
        get(
            "/resource_providers/{uuid}/allocations",
            "placement:resource_providers:allocations:list",
            "1.0",
            allocations::of_provider,
        ),
        get(AGGREGATES, "placement:resource_providers:aggregates:list", "1.1", aggregates::show),
        write("PUT", AGGREGATES, "placement:resource_providers:aggregates:update", "1.1", aggregates::replace),
        get(PROVIDER_TRAITS, "placement:resource_providers:traits:list", "1.6", traits::of_provider),
        write("PUT", PROVIDER_TRAITS, "placement:resource_providers:traits:update", "1.6", traits::replace),
        write("DELETE", PROVIDER_TRAITS, "placement:resource_providers:traits:delete", "1.6", traits::clear),
        get("/resource_classes", "placement:resource_classes:list", "1.2", classes::list),
        write("POST", "/resource_classes", "placement:resource_classes:create", "1.2", classes::create),
        get(CLASS, "placement:resource_classes:show", "1.2", classes::show),
        write("PUT", CLASS, "placement:resource_classes:update", "1.2", classes::rename).until("1.6"),
        write("PUT", CLASS, "placement:resource_classes:update", "1.7", classes::ensure),
        write("DELETE", CLASS, "placement:resource_classes:delete", "1.2", classes::delete),
        get("/traits", "placement:traits:list", "1.6", traits::list),
        // It answers without a body, so what the caller accepts does not matter.
        write("GET", TRAIT, "placement:traits:show", "1.6", |call| async move { traits::show(&call) }),
        write("PUT", TRAIT, "placement:traits:update", "1.6", traits::ensure),
        write("DELETE", TRAIT, "placement:traits:delete", "1.6", traits::delete),
        // Since 1.13; the path is known before that, so that other methods are not allowed rather than not found.
        write("POST", "/allocations", "placement:allocations:manage", "1.0", allocations::set_many),
        get(CONSUMER, "placement:allocations:list", "1.0", allocations::of_consumer),
        write("PUT", CONSUMER, "placement:allocations:update", "1.0", allocations::set),
        write("DELETE", CONSUMER, "placement:allocations:delete", "1.0", allocations::delete),
        get("/allocation_candidates", "placement:allocation_candidates:list", "1.10", candidates::list),
        Route::new("GET", "/usages", Access::Authenticated, |call| async move { usages::total(&call) }).since("1.9"),
        write("POST", "/reshaper", "placement:reshaper:reshape", "1.30", reshaper::reshape),
    ]
}
