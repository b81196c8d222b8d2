//! The image's row.
use crate::{
    filter,
    garbage::drop_place,
    protect::{Guard, Op},
    signature::Signed,
    stores::LOCAL,
};
use base::Timestamp;
use resource::{Cx, Deletion, Error, Kind, Map, Object, Reader, Resource, Result, Rules, Tx};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) const STATUSES: &[&str] = &["queued", "saving", "uploading", "importing", "active", "deactivated", "killed"];
pub(crate) const VISIBILITIES: &[&str] = &["public", "community", "shared", "private"];
pub(crate) const CONTAINERS: &[&str] = &["ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"];
pub(crate) const DISKS: &[&str] = &["ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop", "gpt"];

/// A disk that servers boot from.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "image", path = "/v2/images", owner = "project", quota = "image_count_total", stamps, story)]
#[policy(
    list = "reader",
    show = "reader",
    create = "member",
    update = "role:admin or (role:member and project_id:%(project_id)s)",
    delete = "role:admin or (role:member and project_id:%(project_id)s)"
)]
pub struct Image {
    /// What its owner calls it.
    #[field(create, update, filter, sort)]
    pub name: Option<String>,
    /// Where it is on its way from `queued` to `active`.
    #[field(create, update, filter, sort, kind = Kind::Choice(STATUSES), default = "queued")]
    pub status: String,
    /// Who besides the owner sees it.
    #[field(create, update, filter, sort, kind = Kind::Choice(VISIBILITIES), default = "shared")]
    pub visibility: String,
    /// Bytes of the file.
    #[field(create, update, filter, sort)]
    pub size: Option<u64>,
    /// Bytes of the disk that a guest sees.
    #[field(create, update)]
    pub virtual_size: Option<u64>,
    /// Format of the disk.
    #[field(create, update, filter, sort, kind = Kind::Optional(&Kind::Choice(DISKS)))]
    pub disk_format: Option<String>,
    /// Format of what the disk is wrapped in.
    #[field(create, update, filter, sort, kind = Kind::Optional(&Kind::Choice(CONTAINERS)))]
    pub container_format: Option<String>,
    /// MD5 of the file, in hex.
    #[field(create, update, filter)]
    pub checksum: Option<String>,
    /// `sha512`, unless `announced_hash` is shown.
    #[field(create, update, filter)]
    pub os_hash_algo: Option<String>,
    /// SHA-512 of the file, in hex; the name of its blob.
    #[field(create, update, filter, index)]
    pub os_hash_value: Option<String>,
    /// GB of disk that a server needs to boot it.
    #[field(create, update, filter, sort, default = 0, kind = Kind::Int { min: 0, max: 2_147_483_647 })]
    pub min_disk: u32,
    /// MB of memory that a server needs to boot it.
    #[field(create, update, filter, sort, default = 0, kind = Kind::Int { min: 0, max: 2_147_483_647 })]
    pub min_ram: u32,
    /// May it not be deleted?
    #[field(create, update, filter, default = false)]
    pub protected: bool,
    /// Is it left out of lists?
    #[field(create, update, filter, default = false)]
    pub os_hidden: bool,
    /// Words to find it by.
    #[field(create, update, default = Vec::<String>::new())]
    pub tags: Vec<String>,
    /// Attributes without a meaning here; shown at the top level.
    #[field(create, update, default = Map::new())]
    pub properties: Map,
    /// Projects that a `shared` image is shared with.
    #[field(hidden, kind = Kind::Any, default = Vec::<Member>::new())]
    #[serde(default)]
    pub members: Vec<Member>,
    /// The upload that owns the states `saving` and, while bytes come in, `uploading`.
    #[field(hidden, kind = Kind::Any, default = Value::Null)]
    #[serde(default)]
    pub upload: Option<Upload>,
    /// Bytes that wait for their import.
    #[field(hidden, kind = Kind::Any, default = Value::Null)]
    #[serde(default)]
    pub staged: Option<Staged>,
    /// Did the last import fail?
    #[field(hidden, default = false)]
    #[serde(default)]
    pub import_failed: bool,
    /// Where the data is; none with data means the store `local`.
    #[field(hidden, kind = Kind::Any, default = Vec::<Place>::new())]
    #[serde(default)]
    pub places: Vec<Place>,
    /// The import that owns the state `importing`, or copies an active image.
    #[field(hidden, kind = Kind::Any, default = Value::Null)]
    #[serde(default)]
    pub import: Option<Import>,
    /// Algorithm and value that who gave the data's location said it has, which it does: shown instead of the SHA-512.
    #[field(hidden, kind = Kind::Any, default = Value::Null)]
    #[serde(default)]
    pub announced_hash: Option<(String, String)>,
    /// Stores that the last import did not reach, once there was one.
    #[field(hidden, kind = Kind::Any, default = Value::Null)]
    #[serde(default)]
    pub failed_stores: Option<Vec<String>>,
}

/// Where an image's data is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub store: String,
    /// Of the object in a bucket; a directory has the blob under its own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl Place {
    pub(crate) fn local() -> Self {
        Self { store: LOCAL.into(), key: None }
    }
}

/// An import or copy under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// Its task.
    pub task: String,
    /// `glance-direct`, `web-download`, `copy-image` or `location`.
    pub method: String,
    /// Whence the data comes, if it is not here.
    #[serde(default)]
    pub uri: Option<String>,
    /// What its data must hash to: algorithm and value.
    #[serde(default)]
    pub hash: Option<(String, String)>,
    /// The signature that its data must have; none once it was found to have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<Signed>,
    /// Stores that are still to get it, the next one first.
    pub todo: Vec<String>,
    /// Stores that have it, when it counts only once all have.
    #[serde(default)]
    pub done: Vec<Place>,
    #[serde(default)]
    pub failed: Vec<String>,
    /// Nothing of it counts unless every store gets it.
    pub all: bool,
    /// Past it, the import has failed.
    pub until: Timestamp,
    /// Where the next store is getting it.
    #[serde(default)]
    pub place: Option<Place>,
    /// Tries of the next store that failed.
    #[serde(default)]
    pub attempts: u32,
}

/// A project that an image is shared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub member_id: String,
    /// `pending`, `accepted` or `rejected`.
    pub status: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// An upload under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    pub id: String,
    /// Its process renews this; past it, the upload is dead.
    pub until: Timestamp,
    /// Where the bytes go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

/// Staged bytes, already inspected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// None when they were refused: then nothing was kept.
    pub blob: Option<String>,
    pub checksum: String,
    pub size: u64,
    pub virtual_size: u64,
    /// Why they are not welcome.
    pub refusal: Option<String>,
}

impl Image {
    pub fn member(&self, project: &str) -> Option<&Member> {
        self.members.iter().find(|m| m.member_id == project)
    }
    pub(crate) fn member_mut(&mut self, project: &str) -> Option<&mut Member> {
        self.members.iter_mut().find(|m| m.member_id == project)
    }
}

/// Where the data of a row is; nowhere if it has none.
pub(crate) fn places(row: &Map) -> Vec<Place> {
    let said = row.get("places").and_then(|p| Vec::<Place>::deserialize(p).ok()).unwrap_or_default();
    match (said.is_empty(), text(row, "status")) {
        (true, "active" | "deactivated") => vec![Place::local()],
        _ => said,
    }
}

/// What an import shows of itself: stores to come, and stores that failed. None if there was none yet.
fn progress(row: &Map) -> Option<(String, String)> {
    let list = |of: &Value| of.as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(",");
    let import = row.get("import").filter(|i| i.is_object());
    let failed = row.get("failed_stores").filter(|f| f.is_array());
    match (import, failed, row.get("import_failed")) {
        (Some(import), _, _) => Some((list(&import["todo"]), list(&import["failed"]))),
        (None, Some(failed), _) => Some((String::new(), list(failed))),
        (None, None, Some(Value::Bool(true))) => Some((String::new(), LOCAL.into())),
        (None, None, _) => None,
    }
}

pub(crate) fn text<'a>(row: &'a Map, field: &str) -> &'a str {
    row.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The caller's membership of a shared image.
pub(crate) fn membership<'a>(row: &'a Map, cx: &Cx) -> Option<&'a str> {
    let project = cx.caller.project_id()?;
    let member = row.get("members")?.as_array()?.iter().find(|m| m["member_id"] == project)?;
    member["status"].as_str().filter(|_| text(row, "visibility") == "shared")
}

pub(crate) fn is_owner(row: &Map, cx: &Cx) -> bool {
    cx.caller.project_id().is_some_and(|p| text(row, "project_id") == p)
}

/// May the caller know that the image exists?
pub(crate) fn may_see(row: &Map, cx: &Cx) -> bool {
    matches!(text(row, "visibility"), "public" | "community")
        || is_owner(row, cx)
        || membership(row, cx).is_some()
        || cx.is_admin()
}

impl Rules for Image {
    fn delete(row: &mut Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        if row.protected {
            return Err(Error::forbidden(format!("Image {} is protected and cannot be deleted.", row.id)));
        }
        for place in crate::imports::all_places(row) {
            drop_place(tx, &place);
        }
        for task in tx.find(&crate::tasks::TASKS, "image_id", &row.id) {
            tx.delete(&crate::tasks::TASKS, task.id());
        }
        Ok(Deletion::Now)
    }

    fn view(row: &Map, out: &mut Map, cx: &Cx, _reader: &Reader<'_>) {
        out.remove("properties");
        let id = text(row, "id");
        out.insert("owner".into(), row.get("project_id").cloned().unwrap_or(Value::Null));
        out.insert("self".into(), format!("/v2/images/{id}").into());
        out.insert("file".into(), format!("/v2/images/{id}/file").into());
        if let Some([algorithm, value]) = row.get("announced_hash").and_then(Value::as_array).map(Vec::as_slice) {
            out.insert("os_hash_algo".into(), algorithm.clone());
            out.insert("os_hash_value".into(), value.clone());
        }
        let stores: Vec<String> = places(row).into_iter().map(|place| place.store).collect();
        if !stores.is_empty() {
            out.insert("stores".into(), stores.join(",").into());
        }
        if let Some((coming, failed)) = progress(row) {
            out.insert("os_glance_importing_to_stores".into(), coming.into());
            out.insert("os_glance_failed_import".into(), failed.into());
        }
        let guard = Guard::of(cx);
        let properties = row.get("properties").and_then(Value::as_object).into_iter().flatten();
        for (name, value) in properties.filter(|(name, _)| guard.allows(name, Op::Read)) {
            out.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }

    fn visible(row: &Map, cx: &Cx, _reader: &Reader<'_>) -> bool {
        may_see(row, cx)
    }

    fn filter(row: &Map, key: &str, values: &[&str], cx: &Cx) -> Option<bool> {
        Some(filter::passes(row, key, values, cx))
    }
}
