//! The image's row.
use crate::filter;
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
    /// Always `sha512`.
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
        for task in tx.find(&crate::tasks::TASKS, "image_id", &row.id) {
            tx.delete(&crate::tasks::TASKS, task.id());
        }
        Ok(Deletion::Now)
    }

    fn view(row: &Map, out: &mut Map, _cx: &Cx, _reader: &Reader<'_>) {
        out.remove("properties");
        let id = text(row, "id");
        out.insert("owner".into(), row.get("project_id").cloned().unwrap_or(Value::Null));
        out.insert("self".into(), format!("/v2/images/{id}").into());
        out.insert("file".into(), format!("/v2/images/{id}/file").into());
        if matches!(text(row, "status"), "active" | "deactivated") {
            out.insert("stores".into(), crate::info::STORE.into());
        }
        if row.get("import_failed") == Some(&Value::Bool(true)) {
            out.insert("os_glance_failed_import".into(), crate::info::STORE.into());
            out.insert("os_glance_importing_to_stores".into(), "".into());
        }
        for (name, value) in row.get("properties").and_then(Value::as_object).into_iter().flatten() {
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
