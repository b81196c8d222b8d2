//! Policy blobs that remote services may fetch (Keystone api-ref, `v3/policies`). Drover's own policy is not here.
use crate::cascade;
use resource::{Cx, Deletion, Kind, Object, Resource, Result, Rules, Tx};
use serde::{Deserialize, Serialize};

/// A text that some service reads as policy.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "identity", path = "/v3/policies", id = "hex", extras)]
#[policy(
    list = "rule:identity:system_reader",
    show = "rule:identity:system_reader",
    create = "rule:identity:cloud_admin",
    update = "rule:identity:cloud_admin",
    delete = "rule:identity:cloud_admin"
)]
pub(crate) struct Policy {
    /// The text; what it means is the service's affair.
    #[field(create, update, required, kind = Kind::Any)]
    pub(crate) blob: serde_json::Value,
    /// Its media type.
    #[field(create, update, required, filter, max = 255)]
    #[serde(rename = "type")]
    pub(crate) kind: String,
}

impl Rules for Policy {
    fn delete(row: &mut Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        cascade::links(tx, &row.id);
        Ok(Deletion::Now)
    }
}
