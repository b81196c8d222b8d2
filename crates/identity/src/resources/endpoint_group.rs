//! Groups of endpoints by filters (Keystone api-ref, `OS-EP-FILTER`). Who sees them: [`crate::handlers::endpoint_filter`].
use super::endpoint::INTERFACES;
use crate::cascade;
use resource::{Cx, Deletion, Error, FieldType as _, Kind, Map, Object, Resource, Result, Rules, Tx};
use serde::{Deserialize, Serialize};

/// Endpoints that have something in common.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "identity", path = "/v3/OS-EP-FILTER/endpoint_groups", id = "hex")]
#[policy(
    list = "rule:identity:system_reader",
    show = "rule:identity:system_reader",
    create = "rule:identity:cloud_admin",
    update = "rule:identity:cloud_admin",
    delete = "rule:identity:cloud_admin"
)]
pub(crate) struct EndpointGroup {
    /// What operators call it.
    #[field(create, update, required, filter, kind = Kind::Name { max: 255 })]
    pub(crate) name: String,
    /// What it is for.
    #[field(create, update, kind = Kind::Optional(&Kind::Text { min: 0, max: 65535 }))]
    pub(crate) description: Option<String>,
    /// `interface`, `service_id`, `region_id`: endpoints that have all these values.
    #[field(create, update, required)]
    pub(crate) filters: Map,
}

fn check(filters: &Map) -> Result<()> {
    if filters.is_empty() {
        return Err(Error::bad_request("filters field is required and cannot be empty; use interface, service_id or region_id."));
    }
    for (key, value) in filters {
        let kind = match key.as_str() {
            "interface" => Kind::Choice(&INTERFACES),
            "service_id" => String::KIND,
            "region_id" => Option::<String>::KIND,
            key => {
                return Err(Error::bad_request(format!(
                    "Unable to filter endpoints by {key}; use interface, service_id or region_id."
                )));
            }
        };
        kind.check(value).map_err(|reason| Error::invalid(key, reason))?;
    }
    Ok(())
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
