//! The compute service (Nova v2.1): servers and all that belongs to them.
//!
//! A create is one transaction: quota, host, allocation, ports and row, or nothing. Nodes make rows true and report; a pure state
//! machine ([`server::plan`]) turns reports into rows. What other services own (images, networks, ports) is reached through the
//! registry of tables, never by calls.
//!
//! ```text
//!  POST /servers ─▶ request ─▶ create ─(scheduler)─▶ rows ─▶ nodes ─▶ agent
//!  GET  /servers ◀─ view ◀──────────────────────────  rows ◀─ plan ◀── reports
//! ```
mod actions;
mod common;
pub mod nodes;
mod proxies;
mod quota;
mod resources;
mod scheduler;
mod server;
mod shape;
mod zones;

use api::{Access, Cloud, Route, Service, dialect::COMPUTE};
use reconcile::Reconciler;
use resource::Resource;
use std::{sync::Arc, time::Duration};

pub use nodes::Nodes;

/// What operators may set. Shared through the state map; without one the defaults hold.
#[derive(Clone, Debug)]
pub struct Config {
    /// A server that is not up after this is in error. Since 0.1.
    pub build_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { build_timeout: Duration::from_secs(300) }
    }
}

/// What keeps servers from being stuck, and old rows from staying.
pub fn reconcilers(cloud: &Arc<Cloud>) -> Vec<Arc<dyn Reconciler>> {
    vec![Arc::new(server::deadlines::Deadlines { cloud: Arc::downgrade(cloud) }), Arc::new(server::deadlines::OldRows)]
}

/// The service as the HTTP edge sees it.
pub fn service() -> Service {
    let resources = vec![
        resources::Server::DEF,
        resources::Flavor::DEF,
        resources::Keypair::DEF,
        resources::ServerGroup::DEF,
        resources::Aggregate::DEF,
        resources::Node::DEF,
    ];
    let mut routes = [servers(), server::parts::routes(), server::attachments::routes(), proxies::routes()].concat();
    routes.extend(proxies::legacy(&routes, &resources));
    let mut rules = actions::rules();
    rules.extend([
        ("os_compute_api:os-attach-interfaces:create", "member"),
        ("os_compute_api:os-attach-interfaces:delete", "member"),
        ("os_compute_api:os-volumes-attachments:create", "member"),
        ("os_compute_api:os-volumes-attachments:delete", "member"),
        ("os_compute_api:os-volumes-attachments:swap", "role:admin or role:service"),
        ("os_compute_api:os-volumes-attachments:update", "member"),
        ("os_compute_api:os-extended-server-attributes", "admin"),
        ("os_compute_api:os-instance-actions:events", "admin"),
        ("os_compute_api:os-lock-server:unlock:unlock_override", "admin"),
        ("os_compute_api:os-migrate-server:migrate:host", "admin"),
        ("os_compute_api:os-remote-consoles", "member"),
        ("os_compute_api:os-server-diagnostics", "admin"),
        ("os_compute_api:os-server-password:clear", "member"),
        ("os_compute_api:os-server-tags:update", "member"),
        ("os_compute_api:os-shelve:unshelve_to_host", "admin"),
        ("os_compute_api:server-metadata:update", "member"),
        ("os_compute_api:servers:allow_all_filters", "admin"),
        ("os_compute_api:servers:create", "member"),
        ("os_compute_api:servers:create:forced_host", "admin"),
        ("os_compute_api:servers:delete", "member"),
        ("os_compute_api:servers:detail:get_all_tenants", "admin"),
        ("os_compute_api:servers:index:get_all_tenants", "admin"),
        ("os_compute_api:servers:show", "reader"),
        ("os_compute_api:servers:show:flavor-extra-specs", "reader"),
        ("os_compute_api:servers:show:host_status", "admin"),
        ("os_compute_api:servers:update", "member"),
        ("compute:server:topology:index", "reader"),
        ("compute:servers:create:requested_destination", "admin"),
        ("network:attach_external_network", "admin"),
    ]);
    rules.extend(proxies::rules());
    Service {
        name: "compute",
        prefix: "/compute",
        dialect: &COMPUTE,
        microversions: Some(proxies::MICROVERSIONS),
        resources,
        routes,
        tables: vec![
            &common::COUNTERS,
            &common::USER_DATA,
            &common::SNAPSHOTS,
            &common::ACTIONS,
            &common::DELETED,
            &common::CONSOLES,
            &proxies::MIGRATIONS,
        ],
        rules,
        quotas: quota::QUOTAS.to_vec(),
    }
}

fn servers() -> Vec<Route> {
    let any = Access::Authenticated;
    let rule = |name, text| Access::Rule(name, text);
    vec![
        Route::new("GET", "/v2.1/servers", rule("os_compute_api:servers:index", "reader"), server::list::brief),
        Route::new("GET", "/v2.1/servers/detail", rule("os_compute_api:servers:detail", "reader"), server::list::detailed),
        Route::new("POST", "/v2.1/servers", any, server::create::create).created(202),
        Route::new("GET", "/v2.1/servers/{id}", any, server::update::show),
        Route::new("PUT", "/v2.1/servers/{id}", any, server::update::update),
        Route::new("DELETE", "/v2.1/servers/{id}", any, server::delete::delete),
        Route::new("POST", "/v2.1/servers/{id}/action", any, actions::act),
        Route::new("POST", "/v2.1/servers/{id}/remote-consoles", any, actions::remote_console).since("2.6"),
        Route::new(
            "GET",
            "/v2.1/os-console-auth-tokens/{token}",
            rule("os_compute_api:os-console-auth-tokens", "admin"),
            actions::token,
        ),
        Route::new("GET", "/vnc/{token}", Access::Public, actions::vnc),
        Route::new("GET", "/v2.1/servers/{id}/ips", rule("os_compute_api:ips:index", "reader"), server::update::addresses),
        Route::new(
            "GET",
            "/v2.1/servers/{id}/ips/{network}",
            rule("os_compute_api:ips:show", "reader"),
            server::update::addresses,
        ),
        Route::new(
            "GET",
            "/v2.1/servers/{id}/os-security-groups",
            rule("os_compute_api:os-security-groups:list", "reader"),
            server::update::security_groups,
        ),
        Route::new(
            "GET",
            "/v2.1/servers/{id}/os-server-password",
            rule("os_compute_api:os-server-password:show", "reader"),
            server::update::password,
        ),
        Route::new("DELETE", "/v2.1/servers/{id}/os-server-password", any, server::update::clear_password),
        Route::new("GET", "/v2.1/servers/{id}/diagnostics", any, server::update::diagnostics),
        Route::new("GET", "/v2.1/servers/{id}/topology", any, server::update::topology).since("2.78"),
        Route::new(
            "GET",
            "/v2.1/servers/{id}/migrations",
            rule("os_compute_api:servers:migrations:index", "admin"),
            server::update::migrations,
        )
        .since("2.23"),
        Route::new(
            "GET",
            "/v2.1/servers/{id}/migrations/{migration}",
            rule("os_compute_api:servers:migrations:show", "admin"),
            server::update::migration,
        )
        .since("2.23"),
        Route::new(
            "DELETE",
            "/v2.1/servers/{id}/migrations/{migration}",
            rule("os_compute_api:servers:migrations:delete", "admin"),
            server::update::migration,
        )
        .since("2.24"),
        Route::new(
            "POST",
            "/v2.1/servers/{id}/migrations/{migration}/action",
            rule("os_compute_api:servers:migrations:force_complete", "admin"),
            server::update::migration,
        )
        .since("2.22"),
    ]
}
