//! Group types: what kinds of groups there are.
use crate::resources::Group;
use resource::{Cx, Deletion, Error, Kind, Map, Object, Reader, Resource, Result, Rules, Tx};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A kind of groups.
#[derive(Resource, Serialize, Deserialize, Clone, Debug, Default)]
#[resource(service = "volume", path = "/v3/group_types", unique = "name")]
#[policy(list = "reader", show = "reader", create = "admin", update = "admin", delete = "admin")]
#[serde(default)]
pub(crate) struct GroupType {
    #[field(create, update, required, filter, sort, min = 1, max = 255)]
    pub name: String,
    #[field(create, update)]
    pub description: Option<String>,
    #[field(create, update, default = true)]
    pub is_public: bool,
    #[field(create, default = Map::new(), kind = Kind::TextMap)]
    pub group_specs: BTreeMap<String, String>,
}

impl Rules for GroupType {
    fn delete(row: &mut Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        if !tx.children(&Group::DEF.table, "group_type", &row.id).is_empty() {
            return Err(Error::bad_request("Target group type is still in use; delete its groups first."));
        }
        Ok(Deletion::Now)
    }
    fn view(_row: &Map, out: &mut Map, cx: &Cx, _reader: &Reader<'_>) {
        // What a type is made of is the operator's.
        if !cx.is_admin() {
            out.remove("group_specs");
        }
    }
    fn visible(row: &Map, cx: &Cx, _reader: &Reader<'_>) -> bool {
        cx.is_admin() || crate::common::flag(row, "is_public")
    }
    fn filter(row: &Map, key: &str, values: &[&str], cx: &Cx) -> Option<bool> {
        match key {
            "is_public" => crate::filters::volume_type(row, key, values, cx),
            _ => None,
        }
    }
}
