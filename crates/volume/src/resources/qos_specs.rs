//! QoS specs: what consumers and back ends shall limit. They belong to types, by association.
use crate::resources::VolumeType;
use resource::{Cx, Deletion, Error, Kind, Map, Object, Resource, Result, Rules, Tx};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A set of limits.
#[derive(Resource, Serialize, Deserialize, Clone, Debug, Default)]
#[resource(
    service = "volume",
    path = "/v3/qos-specs",
    name = "qos_specs",
    plural = "qos_specs",
    table = "qos_specs",
    unique = "name"
)]
#[policy(list = "admin", show = "admin", create = "admin", update = "admin", delete = "admin")]
#[serde(default)]
pub(crate) struct QosSpecs {
    #[field(create, required, filter, sort, min = 1, max = 255)]
    pub name: String,
    #[field(create, filter, default = "back-end", kind = Kind::Choice(&["front-end", "back-end", "both"]))]
    pub consumer: String,
    #[field(create, default = Map::new(), kind = Kind::TextMap)]
    pub specs: BTreeMap<String, String>,
}

impl QosSpecs {
    /// Types that have it.
    pub(crate) fn types(tx: &mut Tx<'_>, id: &str) -> Result<Vec<Object<VolumeType>>> {
        tx.children(&VolumeType::DEF.table, "qos_specs_id", id).iter().map(|r| Object::from_row(r)).collect()
    }
}

impl Rules for QosSpecs {
    fn delete(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        let types = Self::types(tx, &row.id)?;
        if !types.is_empty() && !cx.query.flag("force") {
            return Err(Error::bad_request(format!("QoS Specs {} is still associated with entities.", row.id)));
        }
        for mut kind in types {
            kind.qos_specs_id = None;
            kind.save(tx)?;
        }
        Ok(Deletion::Now)
    }
}
