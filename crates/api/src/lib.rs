//! The HTTP edge: one pipeline for every service.
//!
//! ```text
//! route → authenticate → microversion → fresh view → policy → handler (one transaction) → view → dialect
//! ```
//! Services describe resources and handlers; they see no HTTP library. A [`Dialect`] is a service's wire habits. Errors become
//! HTTP in one place ([`dialect`]).
mod assembly;
mod call;
mod crud;
pub mod dialect;
pub mod idempotency;
mod incoming;
mod meter;
mod openapi;
mod pipeline;
pub mod policy;
mod reply;
mod route;
mod server;
mod ticket;
mod tls;

pub use assembly::{quotas, registry, tables};
pub use call::{Authenticator, Body, Call, Cloud, Supposed, TokenKeys};
pub use crud::{body_of, links, listing_reply, resource_routes, show_one, view_row};
pub use dialect::Dialect;
pub use openapi::openapi;
pub use pipeline::{Edge, rules};
pub use policy::Policy;
pub use reply::{ByteStream, Reply, ReplyBody, WebSocketTask};
pub use resource::{Cx, Error, ErrorKind, Map, Result};
pub use route::{Access, BodyForm, Handler, Microversions, Route, Service};
pub use server::{serve, serve_tls};
pub use tls::{ServerTls, TlsError, TlsListener};
