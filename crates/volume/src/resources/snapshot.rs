//! Snapshots of volumes: the row. Their data is kept with the volume's, on its node.
use resource::{Cx, Deletion, Kind, Map, Object, Reader, Resource, Result, Rules, Tx};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The content of a volume at one instant.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "volume", path = "/v3/snapshots", owner = "project", detail, stamps, shows_deleting, story)]
#[policy(list = "reader", show = "reader", create = "member", update = "member", delete = "member")]
#[serde(default)]
pub(crate) struct Snapshot {
    /// What its owner calls it.
    #[field(create, update, filter, sort, brief)]
    pub name: Option<String>,
    #[field(create, update, filter, brief)]
    pub description: Option<String>,
    #[field(create, filter, sort, brief, index)]
    pub volume_id: String,
    #[field(filter, sort, brief)]
    pub status: String,
    #[field(create, update, brief, kind = Kind::TextMap)]
    pub metadata: BTreeMap<String, String>,
    /// GiB of the volume when it was made.
    #[field(hidden)]
    pub volume_size: u64,
    #[field(hidden)]
    pub volume_type_id: Option<String>,
    #[field(since = "3.41", filter)]
    pub user_id: String,
    #[field(hidden, index)]
    pub group_snapshot_id: Option<String>,
    /// Also of a volume that is in use, or is being deleted with its snapshots.
    #[field(create, hidden)]
    pub force: bool,
    #[field(hidden)]
    pub progress: String,
    /// `present` or `deleted`.
    #[field(hidden)]
    pub keep: String,
    /// The volume's intent that a report must answer.
    #[field(hidden)]
    pub intent: u64,
    #[field(hidden, kind = Kind::Any)]
    pub task: Option<Task>,
    #[field(hidden, kind = Kind::Any)]
    pub deadline: Option<i64>,
}

/// What the service works on for a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Task {
    Create,
    Delete,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            name: None,
            description: None,
            volume_id: String::new(),
            status: "creating".to_owned(),
            metadata: BTreeMap::new(),
            volume_size: 0,
            volume_type_id: None,
            user_id: String::new(),
            group_snapshot_id: None,
            force: false,
            progress: "0%".to_owned(),
            keep: "present".to_owned(),
            intent: 0,
            task: None,
            deadline: None,
        }
    }
}

impl Rules for Snapshot {
    fn create(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        crate::snapshots::admit(row, cx, tx)
    }
    fn update(row: &mut Object<Self>, _old: &Object<Self>, _cx: &Cx, _tx: &mut Tx<'_>) -> Result<()> {
        crate::create::check_metadata(&row.metadata)
    }
    fn delete(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        crate::snapshots::begin_delete(row, cx, tx, false)
    }
    fn view(row: &Map, out: &mut Map, cx: &Cx, _reader: &Reader<'_>) {
        crate::view::snapshot(row, out, cx);
    }
    fn filter(row: &Map, key: &str, values: &[&str], _cx: &Cx) -> Option<bool> {
        crate::filters::snapshot(row, key, values)
    }
}

impl Snapshot {
    pub(crate) fn finish(&mut self, status: &str) {
        self.task = None;
        self.deadline = None;
        self.status = status.to_owned();
    }
}
