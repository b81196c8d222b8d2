//! Volume types: what kinds of volumes there are, and who may use them.
use resource::{Cx, Deletion, Error, Kind, Map, Object, Reader, Resource, Result, Rules, Tx};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A kind of volumes.
#[derive(Resource, Serialize, Deserialize, Clone, Debug, Default)]
#[resource(
    service = "volume",
    path = "/v3/types",
    name = "volume_type",
    plural = "volume_types",
    table = "types",
    unique = "name"
)]
#[policy(list = "reader", show = "reader", create = "admin", update = "admin", delete = "admin")]
#[serde(default)]
pub(crate) struct VolumeType {
    #[field(create, update, required, filter, sort, min = 1, max = 255)]
    pub name: String,
    #[field(create, update)]
    pub description: Option<String>,
    #[field(update, default = true)]
    pub is_public: bool,
    #[field(create, default = Map::new(), kind = Kind::TextMap)]
    pub extra_specs: BTreeMap<String, String>,
    #[field(hidden, index)]
    pub qos_specs_id: Option<String>,
    /// Projects that may use it though it is not public.
    #[field(hidden, default = Vec::<String>::new(), kind = Kind::Any)]
    pub projects: Vec<String>,
    /// How volumes of it shall be encrypted.
    #[field(hidden, default = Value::Null, kind = Kind::Any)]
    pub encryption: Option<Encryption>,
}

/// How volumes of a type shall be encrypted.
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
pub(crate) struct Encryption {
    pub encryption_id: String,
    pub provider: String,
    pub control_location: String,
    pub cipher: Option<String>,
    pub key_size: Option<i64>,
    pub created_at: i64,
    pub updated_at: Option<i64>,
}

/// The type of volumes that name none. It is made at start and stays.
pub(crate) const DEFAULT: &str = "__DEFAULT__";

impl VolumeType {
    /// May the project use it?
    pub(crate) fn is_open_to(&self, project: Option<&str>) -> bool {
        self.is_public || project.is_some_and(|p| self.projects.iter().any(|q| q == p))
    }
    pub(crate) fn allows_multiattach(&self) -> bool {
        self.extra_specs.get("multiattach").is_some_and(|v| v.trim().eq_ignore_ascii_case("<is> true"))
    }
}

impl Rules for VolumeType {
    fn delete(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        crate::types::check_unused(row, cx, tx)?;
        Ok(Deletion::Now)
    }
    fn view(row: &Map, out: &mut Map, cx: &Cx, _reader: &Reader<'_>) {
        crate::view::volume_type(row, out, cx);
    }
    fn visible(row: &Map, cx: &Cx, _reader: &Reader<'_>) -> bool {
        let is_open = |t: &Object<Self>| t.is_open_to(cx.caller.project_id());
        cx.is_admin() || Object::<Self>::from_map(row.clone()).is_ok_and(|t| is_open(&t))
    }
    fn filter(row: &Map, key: &str, values: &[&str], cx: &Cx) -> Option<bool> {
        crate::filters::volume_type(row, key, values, cx)
    }
    fn update(row: &mut Object<Self>, old: &Object<Self>, _cx: &Cx, _tx: &mut Tx<'_>) -> Result<()> {
        if row.name.trim().is_empty() {
            return Err(Error::bad_request("Volume type name can not be empty."));
        }
        if old.name == DEFAULT && row.name != DEFAULT {
            return Err(Error::bad_request("The default volume type cannot be renamed; make another one."));
        }
        Ok(())
    }
    fn create(row: &mut Object<Self>, _cx: &Cx, _tx: &mut Tx<'_>) -> Result<()> {
        if row.name.trim().is_empty() {
            return Err(Error::bad_request("Volume type name can not be empty."));
        }
        Ok(())
    }
}
