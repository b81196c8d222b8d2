//! OAuth1 consumers (Keystone api-ref, `OS-OAUTH1`). What they get from users: [`crate::handlers`].
use crate::cascade;
use resource::{Cx, Deletion, Kind, Object, Resource, Result, Rules, Tx};
use serde::{Deserialize, Serialize};

/// A third party that may ask for access.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "identity", path = "/v3/OS-OAUTH1/consumers", id = "hex", extras)]
#[policy(
    list = "rule:identity:system_reader",
    show = "rule:identity:system_reader",
    create = "rule:identity:cloud_admin",
    update = "rule:identity:cloud_admin",
    delete = "rule:identity:cloud_admin"
)]
pub(crate) struct Consumer {
    /// What it is.
    #[field(create, update, kind = Kind::Optional(&Kind::Text { min: 0, max: 65535 }))]
    pub(crate) description: Option<String>,
    /// The secret, shown once; sealed with keys that are not in the store.
    #[field(hidden)]
    pub(crate) sealed: String,
}

impl Rules for Consumer {
    fn delete(row: &mut Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        cascade::oauth1(tx, "consumer_id", &row.id);
        Ok(Deletion::Now)
    }
}
