//! Flavors (Nova api-ref, `flavors`): list and show come from the table, the rest has forms of its own in [`crate::proxies`].
use crate::common::{at, flag, int, object, text};
use api::Cx;
use resource::{Kind, Map, Reader, Resource, Rules};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A size of servers.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "compute", path = "/v2.1/flavors", id = "given", detail, unique = "name")]
#[policy(list = "reader", show = "reader", create = "admin", update = "admin", delete = "admin")]
pub(crate) struct Flavor {
    #[field(create, required, brief, sort, min = 1)]
    pub name: String,
    /// MiB.
    #[field(create, required, sort, kind = Kind::Int { min: 1, max: 0x7fff_ffff })]
    pub ram: i64,
    /// GiB of the root disk; 0 takes the image's own size.
    #[field(create, required, sort, kind = Kind::Int { min: 0, max: 0x7fff_ffff })]
    pub disk: i64,
    #[field(create, default = "", sort, kind = Kind::Any)]
    pub swap: Value,
    #[serde(rename = "OS-FLV-EXT-DATA:ephemeral")]
    #[field(create, default = 0, kind = Kind::Int { min: 0, max: 0x7fff_ffff })]
    pub ephemeral: i64,
    #[serde(rename = "OS-FLV-DISABLED:disabled")]
    #[field(default = false)]
    pub disabled: bool,
    #[field(create, required, sort, kind = Kind::Int { min: 1, max: 0x7fff_ffff })]
    pub vcpus: i64,
    #[serde(rename = "os-flavor-access:is_public")]
    #[field(create, default = true)]
    pub is_public: bool,
    #[field(create, default = 1.0)]
    pub rxtx_factor: f64,
    #[field(create, update, brief, since = "2.55")]
    pub description: Option<String>,
    #[field(since = "2.61", kind = Kind::TextMap, default = BTreeMap::<String, String>::new())]
    pub extra_specs: BTreeMap<String, String>,
    /// Projects that may use it while it is not public.
    #[field(hidden, default = Vec::<String>::new())]
    pub projects: Vec<String>,
}

impl Rules for Flavor {
    fn view(_row: &Map, out: &mut Map, cx: &Cx, _reader: &Reader<'_>) {
        // Until 2.75 no swap was shown as an empty text.
        let swap = out.get("swap").and_then(Value::as_i64).unwrap_or(0);
        out.insert("swap".into(), if swap == 0 && !at(cx, 75) { "".into() } else { swap.into() });
        if !cx.may("os_compute_api:os-flavor-extra-specs:index", None) {
            out.remove("extra_specs");
        }
        if at(cx, 102) {
            out.remove("rxtx_factor");
            out.remove("OS-FLV-DISABLED:disabled");
        }
    }
    fn visible(row: &Map, cx: &Cx, _reader: &Reader<'_>) -> bool {
        flag(row, "os-flavor-access:is_public") || cx.caller.project_id().is_some_and(|p| is_shared(row, p)) || cx.is_admin()
    }
}

/// Is it shared with the project by name?
pub(crate) fn is_shared(row: &Map, project: &str) -> bool {
    row.get("projects").and_then(Value::as_array).is_some_and(|l| l.iter().any(|v| v.as_str() == Some(project)))
}

/// What callers may give as an id.
pub(crate) fn is_id(text: &str) -> bool {
    text.trim() == text && text.bytes().all(|b| b.is_ascii_alphanumeric() || b". _-".contains(&b))
}

/// The flavor as a server keeps it.
pub(crate) fn copy(row: &resource::Row) -> super::server::FlavorCopy {
    let map = object(row);
    super::server::FlavorCopy {
        id: row.id().to_owned(),
        name: text(map, "name").to_owned(),
        vcpus: int(map, "vcpus"),
        ram: int(map, "ram"),
        disk: int(map, "disk"),
        ephemeral: int(map, "OS-FLV-EXT-DATA:ephemeral"),
        swap: int(map, "swap"),
        extra_specs: row.field("extra_specs").as_object().map_or_else(BTreeMap::new, |m| {
            m.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect()
        }),
    }
}
