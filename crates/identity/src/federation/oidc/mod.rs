//! OpenID Connect: what a provider says of somebody, checked. In upstream a module of Apache does this.
mod address;
mod assertion;
mod jws;
mod provider;
mod settings;

pub(crate) use assertion::{of as assertion, remote_user};
pub(crate) use provider::{Fault, Login, Provider};
pub(crate) use settings::{Settings, check, seal, shown};

use super::protocol_key;
use crate::{Auth, rows::PROTOCOLS};
use api::{Error, Result};
use ipnet::IpNet;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use store::Revision;

/// What the operator says of users that others vouch for.
#[derive(Clone, Debug, Default)]
pub struct FederationConfig {
    /// Pages that get the token of a login in the browser, as they are called there.
    pub trusted_dashboards: Vec<String>,
    /// Networks of providers that are not public; they may be asked without TLS.
    pub networks: Vec<IpNet>,
}

/// Providers as they were opened from their rows. Memory only.
#[derive(Default)]
pub(crate) struct Providers(Mutex<HashMap<String, (Revision, Arc<Provider>)>>);

impl Providers {
    /// The provider of a protocol. Fails with 404 where there is no such protocol, or one that does not speak OpenID Connect.
    pub(crate) fn of(&self, auth: &Auth, idp: &str, protocol: &str) -> Result<Arc<Provider>> {
        let lost = |what: &str| Error::not_found(format!("Could not find {what} {protocol} for Identity Provider: {idp}."));
        let key = protocol_key(idp, protocol);
        let row = auth.db.read().get(&PROTOCOLS, &key);
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(row) = row else {
            open.remove(&key);
            return Err(lost("federated protocol"));
        };
        if let Some((_, provider)) = open.get(&key).filter(|(revision, _)| *revision == row.modified) {
            return Ok(provider.clone());
        }
        if !row.field("oidc").is_object() {
            return Err(lost("OpenID Connect settings of protocol"));
        }
        let settings = Settings::read(row.field("oidc"), &key, &auth.secret_box());
        let settings = settings.ok_or_else(|| {
            Error::unavailable(format!(
                "The secret of protocol {protocol} of {idp} cannot be opened; an administrator must set it again."
            ))
        })?;
        let provider = Arc::new(Provider::new(settings, auth.config.federation.networks.clone()));
        open.insert(key, (row.modified, provider.clone()));
        Ok(provider)
    }
}

/// 401 for a word that does not count, 503 for a provider that cannot be asked. Why is for the operator.
pub(crate) fn failed(idp: &str, fault: &Fault) -> Error {
    let why = base::chain(fault);
    if fault.is_refusal() {
        return Error::unauthorized(crate::authenticator::NOT_AUTHENTICATED).context(why);
    }
    let text = format!("The identity provider {idp} cannot be asked right now; try again, or tell whoever runs the cloud.");
    Error::unavailable(text).context(why)
}
