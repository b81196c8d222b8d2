//! The identity service (Keystone v3): who there is, who may do what where, and what is served where.
//!
//! - [`service`] is the API, to be served below `/identity`; its rows are what every other service is authorised by.
//! - [`Auth`] turns tokens into callers, for all services. The cloud's state must hold it: handlers ask for it there.
//! - [`directory`] has the users of domains that keep them in LDAP.
//! - [`federation`] has users for whom identity providers vouch.
//! - [`bootstrap`] makes what a cloud needs before anybody can log in.
//!
//! What it guarantees: a token is judged by the rows as they are now, in every process, so what was revoked, disabled or taken
//! away is refused by the next request. Passwords and secrets are kept as hashes, or sealed with keys that are not in the store.
//!
//! What it does not do: SAML.
mod authenticator;
mod bootstrap;
mod cascade;
mod compliance;
mod directory;
mod federation;
mod grants;
mod handlers;
mod key_ring;
mod lockout;
mod recent;
mod resources;
mod rows;
mod standing;
mod suppose;
mod token_body;

pub use authenticator::{Auth, AuthConfig};
pub use bootstrap::{BootstrapConfig, CATALOG, CatalogService, NewUser, bootstrap, ensure_user};
pub use compliance::SecurityCompliance;
pub use federation::oidc::FederationConfig;
pub use resources::LimitModel;

use ::api::{Service, dialect::IDENTITY};

/// The API of Keystone v3.
pub fn service() -> Service {
    Service {
        name: "identity",
        prefix: "/identity",
        dialect: &IDENTITY,
        microversions: None,
        resources: resources::all(),
        routes: handlers::routes(),
        tables: rows::TABLES.to_vec(),
        rules: handlers::rules(),
        quotas: Vec::new(),
    }
}
