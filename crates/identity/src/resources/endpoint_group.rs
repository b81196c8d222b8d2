//! Groups of endpoints by filters (Keystone api-ref, `OS-EP-FILTER`). Who sees them: [`crate::handlers::endpoint_filter`].
use crate::cascade;
use resource::{Cx, Deletion, Error, Kind, Map, Object, Resource, Result, Rules, Tx};
use serde::{Deserialize, Serialize};

/// Endpoints that have something in common.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "identity", path = "/v3/OS-EP-FILTER/endpoint_groups", id = "hex", extras)]
#[policy(
    list = "rule:identity:system_reader",
    show = "rule:identity:system_reader",
    create = "rule:identity:cloud_admin",
    update = "rule:identity:cloud_admin",
    delete = "rule:identity:cloud_admin"
)]
pub(crate) struct EndpointGroup {
    /// What operators call it.
    #[field(create, update, required, filter, min = 1)]
    pub(crate) name: String,
    /// What it is for.
    #[field(create, update, kind = Kind::Optional(&Kind::Text { min: 0, max: 65535 }))]
    pub(crate) description: Option<String>,
    /// `interface`, `service_id`, `region_id`: endpoints that have all these values.
    #[field(create, update, required)]
    pub(crate) filters: Map,
}

fn check(filters: &Map) -> Result<()> {
    match filters.keys().find(|k| !["interface", "service_id", "region_id", "enabled"].contains(&k.as_str())) {
        None => Ok(()),
        Some(key) => {
            Err(Error::bad_request(format!("Unable to filter endpoints by {key}; use interface, service_id or region_id.")))
        }
    }
}

impl Rules for EndpointGroup {
    fn create(row: &mut Object<Self>, _cx: &Cx, _tx: &mut Tx<'_>) -> Result<()> {
        check(&row.filters)
    }

    fn update(row: &mut Object<Self>, _old: &Object<Self>, _cx: &Cx, _tx: &mut Tx<'_>) -> Result<()> {
        check(&row.filters)
    }

    fn delete(row: &mut Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        cascade::links(tx, &row.id);
        Ok(Deletion::Now)
    }
}
