//! Services of the catalog (Keystone api-ref, `v3/services`).
use super::ENDPOINT;
use crate::cascade;
use resource::{Cx, Deletion, Kind, Map, Object, Reader, Resource, Result, Rules, Tx};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the cloud serves.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "identity", path = "/v3/services", id = "hex", extras)]
#[policy(
    list = "rule:identity:system_reader",
    show = "rule:identity:system_reader",
    create = "rule:identity:cloud_admin",
    update = "rule:identity:cloud_admin",
    delete = "rule:identity:cloud_admin"
)]
pub(crate) struct Service {
    /// As clients look for it: `compute`, `network`.
    #[field(create, update, required, filter, index, min = 1, max = 255)]
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// What operators call it.
    #[field(create, update, filter, index, default = "")]
    pub(crate) name: String,
    /// What it does.
    #[field(create, update, kind = Kind::Optional(&Kind::Text { min: 0, max: 65535 }))]
    pub(crate) description: Option<String>,
    /// Is it in the catalog?
    #[field(create, update, default = true, kind = Kind::StrictBool)]
    pub(crate) enabled: bool,
}

impl Rules for Service {
    fn delete(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        for endpoint in tx.children(&ENDPOINT.table, "service_id", &row.id) {
            resource::engine::delete(tx, ENDPOINT, cx, endpoint.id())?;
        }
        cascade::links(tx, &row.id);
        Ok(Deletion::Now)
    }

    fn view(row: &Map, out: &mut Map, _cx: &Cx, _reader: &Reader<'_>) {
        if row.get("description").is_none_or(Value::is_null) {
            out.shift_remove("description");
        }
    }
}
