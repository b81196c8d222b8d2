//! Service providers (Keystone api-ref, `v3-ext/federation`): clouds elsewhere that take our word. Tokens name them to clients.
use resource::{Cx, Error, Kind, Map, Object, Reader, Resource, Result, Rules, Tx};
use serde::{Deserialize, Serialize};

/// A cloud that our users may go to.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "identity", path = "/v3/OS-FEDERATION/service_providers", id = "given")]
#[policy(
    list = "rule:identity:system_reader",
    show = "rule:identity:system_reader",
    update = "rule:identity:cloud_admin",
    delete = "rule:identity:cloud_admin"
)]
pub(crate) struct ServiceProvider {
    /// Where one authenticates there.
    #[field(create, update, required, min = 1, max = 225)]
    pub(crate) auth_url: String,
    /// Where assertions are sent to.
    #[field(create, update, required, min = 1, max = 225)]
    pub(crate) sp_url: String,
    /// What it is.
    #[field(create, update)]
    pub(crate) description: Option<String>,
    /// Is it shown in tokens?
    #[field(create, update, filter, default = false, kind = Kind::StrictBool)]
    pub(crate) enabled: bool,
    /// What SAML's relay state begins with.
    #[field(create, update, default = "ss:mem:")]
    pub(crate) relay_state_prefix: Option<String>,
}

fn check(row: &ServiceProvider) -> Result<()> {
    for (name, url) in [("auth_url", &row.auth_url), ("sp_url", &row.sp_url)] {
        if !["http://", "https://"].iter().any(|s| url.strip_prefix(s).is_some_and(|rest| !rest.is_empty())) {
            return Err(Error::bad_request(format!("Invalid input for field '{name}': '{url}' is not a URL of http or https.")));
        }
    }
    Ok(())
}

impl Rules for ServiceProvider {
    fn create(row: &mut Object<Self>, _cx: &Cx, _tx: &mut Tx<'_>) -> Result<()> {
        check(row)
    }

    fn update(row: &mut Object<Self>, _old: &Object<Self>, _cx: &Cx, _tx: &mut Tx<'_>) -> Result<()> {
        check(row)
    }

    fn visible(_row: &Map, _cx: &Cx, _reader: &Reader<'_>) -> bool {
        true
    }
}
