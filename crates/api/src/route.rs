//! Routes: the surface of a service, as data.
use crate::{Call, Dialect, Reply, meter::Meter};
use base::Version;
use resource::{ResourceDef, Result};
use std::{future::Future, pin::Pin, sync::Arc};
use store::Table;

pub type Handler = Arc<dyn Fn(Call) -> Pin<Box<dyn Future<Output = Result<Reply>> + Send>> + Send + Sync>;

/// Who may call. Every route says it; the access matrix is made from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody, without a token (discovery, authentication).
    Public,
    /// Any valid token; the handler decides by the row.
    Authenticated,
    /// A rule of the policy book by name, with its default text.
    Rule(&'static str, &'static str),
}

/// How the body of a request is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyForm {
    /// No body, or JSON of bounded size.
    Json,
    /// Handed to the handler as it comes.
    Stream,
}

#[derive(Clone)]
pub struct Route {
    pub method: &'static str,
    /// Below the service's prefix; `{name}` is a parameter.
    pub path: &'static str,
    pub access: Access,
    pub body: BodyForm,
    /// First microversion that has the route, and the last.
    pub since: Version,
    pub until: Version,
    /// Its handler looks at rows.
    pub rows: bool,
    /// Status of what it makes, if it is not what the service's dialect has.
    pub created: Option<u16>,
    pub handler: Handler,
    pub(crate) meter: Arc<Meter>,
}

impl Route {
    pub fn new<F, Fut>(method: &'static str, path: &'static str, access: Access, handler: F) -> Self
    where
        F: Fn(Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply>> + Send + 'static,
    {
        Self {
            method,
            path,
            access,
            body: BodyForm::Json,
            since: Version::MIN,
            until: Version::MAX,
            rows: true,
            created: None,
            handler: Arc::new(move |call| Box::pin(handler(call))),
            meter: Arc::default(),
        }
    }
    /// The same at another path.
    #[must_use]
    pub fn at(self, path: &'static str) -> Self {
        Self { path, ..self }
    }
    /// It looks at no row, and is served without the store.
    #[must_use]
    pub fn without_rows(mut self) -> Self {
        self.rows = false;
        self
    }
    #[must_use]
    pub fn created(mut self, status: u16) -> Self {
        self.created = Some(status);
        self
    }
    #[must_use]
    pub fn stream(mut self) -> Self {
        self.body = BodyForm::Stream;
        self
    }
    #[must_use]
    pub fn since(mut self, version: &'static str) -> Self {
        self.since = Version::of(version);
        self
    }
    #[must_use]
    pub fn until(mut self, version: &'static str) -> Self {
        self.until = Version::of(version);
        self
    }
}

/// Microversions of a service (API-WG microversion specification).
#[derive(Clone, Copy, Debug)]
pub struct Microversions {
    /// In `OpenStack-API-Version: compute 2.96`.
    pub name: &'static str,
    /// Nova's older header, if any.
    pub legacy_header: Option<&'static str>,
    pub min: Version,
    pub max: Version,
}

/// One service as the edge sees it.
pub struct Service {
    /// `network`; also the first part of its tables' names.
    pub name: &'static str,
    /// `/network`
    pub prefix: &'static str,
    pub dialect: &'static Dialect,
    pub microversions: Option<Microversions>,
    pub resources: Vec<&'static ResourceDef>,
    /// Handlers beside those that the resources' tables yield. One with the same method and path wins over the table's.
    pub routes: Vec<Route>,
    /// Tables besides those of the resources.
    pub tables: Vec<&'static Table>,
    /// Named rules besides those of routes: name and default text.
    pub rules: Vec<(&'static str, &'static str)>,
    /// Default limits of quotas by name.
    pub quotas: Vec<(&'static str, i64)>,
}
