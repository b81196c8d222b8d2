//! Volumes: the row. What users asked for, and what was seen of it.
//!
//! ```text
//!            Ready              attach                plugged
//!  creating ─────▶ available ──────────▶ attaching ──────────▶ in-use
//!     │ Failed       ▲ │ ▲ ▲                                     │ detach
//!     ▼              │ │ │ └───── export ended ◀── detaching ◀───┘
//!   error            │ │ └── extending, retyping, reverting, uploading, awaiting-transfer
//!     └────────┬─────┘ │
//!              ▼       ▼ delete
//!            deleting ───▶ gone          (a task that passes its deadline ends in an error status; delete always wins)
//! ```
//! `intent` grows with each change that the storage node must act upon; a report counts only when it answers the newest. `task` says
//! what the service works on: without one, the status is what somebody set and stays.
use assign::VolumeSource;
use resource::{Cx, Deletion, Kind, Map, Object, Reader, Resource, Result, Rules, Tx};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A disk that outlives servers.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "volume", path = "/v3/volumes", owner = "project", detail, stamps, shows_deleting, story)]
#[policy(list = "reader", show = "reader", create = "member", update = "member", delete = "member")]
#[serde(default)]
pub(crate) struct Volume {
    /// What its owner calls it.
    #[field(create, update, filter, sort, brief)]
    pub name: Option<String>,
    #[field(create, update, filter)]
    pub description: Option<String>,
    /// GiB; what the node shall have.
    #[field(create, filter, sort, kind = Kind::Int { min: 1, max: MAX_SIZE })]
    pub size: u64,
    #[field(filter, sort)]
    pub status: String,
    #[field(create, filter, sort)]
    pub availability_zone: Option<String>,
    /// Name or id of the type, as the request gave it.
    #[field(create, hidden)]
    pub volume_type: Option<String>,
    #[field(hidden, filter, index)]
    pub volume_type_id: Option<String>,
    #[field(filter, sort)]
    pub bootable: bool,
    #[field(create, filter)]
    pub multiattach: bool,
    #[field(filter)]
    pub encrypted: bool,
    #[field(create, filter, index)]
    pub snapshot_id: Option<String>,
    #[field(create, filter, index)]
    pub source_volid: Option<String>,
    #[field(create, hidden)]
    #[serde(rename = "imageRef")]
    pub image_ref: Option<String>,
    #[field(create, update, kind = Kind::TextMap)]
    pub metadata: BTreeMap<String, String>,
    /// Set by the service: `readonly`, `attached_mode`. Shown with the metadata.
    #[field(hidden, kind = Kind::TextMap)]
    pub admin_metadata: BTreeMap<String, String>,
    #[field(hidden, kind = Kind::TextMap)]
    pub volume_image_metadata: BTreeMap<String, String>,
    #[field()]
    pub user_id: String,
    #[field(create, filter, hidden, index)]
    pub group_id: Option<String>,
    #[field()]
    pub consistencygroup_id: Option<String>,
    #[field()]
    pub replication_status: Option<String>,
    #[field(hidden, filter)]
    pub migration_status: Option<String>,
    /// Where the status returns to when the task is done.
    #[field(hidden)]
    pub previous_status: Option<String>,
    /// The storage node; empty when none had room.
    #[field(hidden, index, filter)]
    pub host: String,
    /// What a new volume, or a new generation, is made of.
    #[field(hidden, kind = Kind::Any)]
    pub source: VolumeSource,
    #[field(hidden)]
    pub intent: u64,
    #[field(hidden)]
    pub generation: u64,
    /// `present` or `deleted`.
    #[field(hidden)]
    pub keep: String,
    #[field(hidden, kind = Kind::Any)]
    pub task: Option<Task>,
    /// When the task is given up, in microseconds since the epoch.
    #[field(hidden, kind = Kind::Any)]
    pub deadline: Option<i64>,
    /// GiB that users see while it grows.
    #[field(hidden, kind = Kind::Any)]
    pub grows_from: Option<u64>,
    #[field(hidden, kind = Kind::Object)]
    pub scheduler_hints: Map,
}

/// GiB of the largest volume.
pub(crate) const MAX_SIZE: i64 = 0x7fff_ffff;

/// What the service works on for a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Task {
    Create,
    Extend,
    /// The content is replaced: a revert or a new image.
    Replace,
    Upload,
    Delete,
    /// An `os-reserve` waits for whoever asked for it.
    Reserve,
    /// Exports that no attachment names any more are being ended.
    Revoke,
}

impl Default for Volume {
    fn default() -> Self {
        Self {
            name: None,
            description: None,
            size: 0,
            status: "creating".to_owned(),
            availability_zone: None,
            volume_type: None,
            volume_type_id: None,
            bootable: false,
            multiattach: false,
            encrypted: false,
            snapshot_id: None,
            source_volid: None,
            image_ref: None,
            metadata: BTreeMap::new(),
            admin_metadata: BTreeMap::new(),
            volume_image_metadata: BTreeMap::new(),
            user_id: String::new(),
            group_id: None,
            consistencygroup_id: None,
            replication_status: None,
            migration_status: None,
            previous_status: None,
            host: String::new(),
            source: VolumeSource::Blank,
            intent: 1,
            generation: 1,
            keep: "present".to_owned(),
            task: None,
            deadline: None,
            grows_from: None,
            scheduler_hints: Map::new(),
        }
    }
}

impl Rules for Volume {
    fn create(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        crate::create::admit(row, cx, tx)
    }
    fn update(row: &mut Object<Self>, _old: &Object<Self>, _cx: &Cx, _tx: &mut Tx<'_>) -> Result<()> {
        crate::create::check_metadata(&row.metadata)
    }
    fn delete(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        crate::delete::begin(row, cx, tx, crate::delete::How::default())
    }
    fn view(row: &Map, out: &mut Map, cx: &Cx, reader: &Reader<'_>) {
        crate::view::volume(row, out, cx, reader);
    }
    fn filter(row: &Map, key: &str, values: &[&str], _cx: &Cx) -> Option<bool> {
        crate::filters::volume(row, key, values)
    }
}

impl Volume {
    /// The storage node has something new to do. Starts the clock of a task, if there is one.
    pub(crate) fn wish(&mut self, task: Option<Task>, now: base::Timestamp, patience: std::time::Duration) {
        self.intent += 1;
        if let Some(task) = task {
            self.task = Some(task);
            self.deadline = Some(now.plus(patience).0);
        }
    }
    pub(crate) fn finish(&mut self, status: &str) {
        self.task = None;
        self.deadline = None;
        self.previous_status = None;
        self.status = status.to_owned();
    }
    pub(crate) fn is_kept(&self) -> bool {
        self.keep == "present"
    }
    pub(crate) fn shown_size(&self) -> u64 {
        self.grows_from.unwrap_or(self.size)
    }
}
