//! Groups: volumes that are copied and deleted together.
use resource::{Kind, Object, Resource, Result, Rules, Tx};
use serde::{Deserialize, Serialize};

/// Volumes that belong together.
#[derive(Resource, Serialize, Deserialize, Clone, Debug, Default)]
#[resource(service = "volume", path = "/v3/groups", owner = "project", shows_deleting, index = "group_type:/group_type")]
#[policy(list = "reader", show = "reader", update = "member")]
#[serde(default)]
pub(crate) struct Group {
    #[field(update, filter, sort)]
    pub name: String,
    #[field(update)]
    pub description: Option<String>,
    #[field(filter, sort)]
    pub status: String,
    #[field()]
    pub availability_zone: String,
    #[field(filter)]
    pub group_type: String,
    #[field(kind = Kind::Any)]
    pub volume_types: Vec<String>,
    #[field(since = "3.14")]
    pub group_snapshot_id: Option<String>,
    #[field(since = "3.14")]
    pub source_group_id: Option<String>,
    #[field(hidden)]
    pub user_id: String,
    /// Does the status follow the volumes?
    #[field(hidden)]
    pub working: bool,
}

impl Rules for Group {}

/// Snapshots of all volumes of a group.
#[derive(Resource, Serialize, Deserialize, Clone, Debug, Default)]
#[resource(service = "volume", path = "/v3/group_snapshots", owner = "project", shows_deleting)]
#[policy(list = "reader", show = "reader")]
#[serde(default)]
pub(crate) struct GroupSnapshot {
    #[field(filter, sort)]
    pub name: String,
    #[field()]
    pub description: Option<String>,
    #[field(filter, sort)]
    pub status: String,
    #[field(filter, index)]
    pub group_id: String,
    #[field()]
    pub group_type_id: String,
    #[field(hidden)]
    pub user_id: String,
    /// Does the status follow the snapshots?
    #[field(hidden)]
    pub working: bool,
}

impl Rules for GroupSnapshot {}

/// What is left of a set's parts: how many, whether one is under way, whether one failed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Parts {
    pub count: usize,
    pub busy: bool,
    pub failed: bool,
}

/// A set whose status follows its parts.
pub(crate) trait Set: Resource {
    fn status(&mut self) -> (&mut String, &mut bool);
}
impl Set for Group {
    fn status(&mut self) -> (&mut String, &mut bool) {
        (&mut self.status, &mut self.working)
    }
}
impl Set for GroupSnapshot {
    fn status(&mut self) -> (&mut String, &mut bool) {
        (&mut self.status, &mut self.working)
    }
}

/// Moves the status of a set on when its parts are done. Gives the set when it is to be removed.
pub(crate) fn follow<T: Set>(tx: &mut Tx<'_>, id: &str, parts: Parts) -> Result<Option<Object<T>>> {
    let Some(mut set) = resource::load_any::<T>(tx, id)? else { return Ok(None) };
    let (status, working) = set.body.status();
    if !*working {
        return Ok(None);
    }
    match status.as_str() {
        "deleting" if parts.count == 0 => return Ok(Some(set)),
        "deleting" if parts.failed => *status = "error_deleting".to_owned(),
        "creating" if parts.failed => *status = "error".to_owned(),
        "creating" if !parts.busy => *status = "available".to_owned(),
        _ => return Ok(None),
    }
    *working = false;
    set.save(tx)?;
    Ok(None)
}
