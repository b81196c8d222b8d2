//! Servers (Nova api-ref, `servers`): the row. What users asked for and what was seen of it.
//!
//! `intent` grows with each wish of a user that a node must act upon; a report counts only when it answers the newest. `epoch` grows
//! with each placement. Shown attributes are computed in [`crate::server::view`].
use assign::{Power, Reboot};
use resource::{Kind, Resource, Rules};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A virtual machine of a project.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "compute", path = "/v2.1/servers", owner = "project", detail, shows_deleting, story)]
#[policy(list = "reader", show = "reader", create = "member", update = "member", delete = "member")]
#[serde(default)]
pub(crate) struct Server {
    /// The name as users see it.
    #[field(create, update, required, brief, sort)]
    pub name: String,
    #[field(create, update, since = "2.19")]
    pub description: Option<String>,
    #[field(create, update, since = "2.90")]
    pub hostname: String,
    #[field()]
    pub user_id: String,
    #[field(create)]
    pub key_name: Option<String>,
    /// The key as it was when the server was made.
    #[field(hidden, kind = Kind::Any)]
    pub key: Option<KeyCopy>,
    /// Id of the image that users see; empty without one.
    #[field(hidden, index)]
    pub image_id: String,
    /// What the root disk is made from.
    #[field(hidden, kind = Kind::Any)]
    pub root: Option<ImageCopy>,
    /// Its root disk is the volume whose attachment says `boot`; then `root` only says what the disk was made from.
    #[field(hidden)]
    pub boot_volume: bool,
    /// The flavor as it was when the server was made or resized.
    #[field(hidden, kind = Kind::Any)]
    pub flavor: FlavorCopy,
    #[field(create, kind = Kind::TextMap)]
    pub metadata: BTreeMap<String, String>,
    #[field(since = "2.26")]
    pub tags: Vec<String>,
    #[field(hidden)]
    pub access_ipv4: String,
    #[field(hidden)]
    pub access_ipv6: String,
    #[field(create)]
    pub config_drive: bool,
    /// `AUTO` or `MANUAL`.
    #[field(hidden)]
    pub disk_config: String,
    /// Zone that the user asked for; a server without one may go anywhere.
    #[field(since = "2.96")]
    pub pinned_availability_zone: Option<String>,
    #[field(hidden)]
    pub reservation_id: String,
    #[field(hidden)]
    pub launch_index: u32,
    #[field(hidden)]
    pub vm_state: String,
    #[field(hidden)]
    pub task_state: Option<String>,
    /// Nova's numbers, see [`crate::server::state::power`].
    #[field(hidden)]
    pub power_state: i64,
    /// The power state that the user wants.
    #[field(hidden, kind = Kind::Any)]
    pub power: Power,
    #[field(hidden, kind = Kind::Any)]
    pub reboot: Reboot,
    /// Grows with each rebuild of the root disk.
    #[field(hidden)]
    pub generation: u64,
    #[field(hidden)]
    pub intent: u64,
    #[field(hidden)]
    pub epoch: u64,
    /// Image of the rescue system while it is wanted.
    #[field(hidden, kind = Kind::Any)]
    pub rescue: Option<ImageCopy>,
    #[field(hidden, kind = Kind::Any)]
    pub resize: Option<Resize>,
    /// Image under way for `createImage`, `createBackup` or `shelve`.
    #[field(hidden)]
    pub snapshot: Option<String>,
    /// Image that a shelved server comes back from.
    #[field(hidden)]
    pub shelved_image: Option<String>,
    #[field(hidden, index)]
    pub node_id: Option<String>,
    #[field(hidden, index)]
    pub host: Option<String>,
    #[field(hidden, kind = Kind::Any)]
    pub launched_at: Option<i64>,
    #[field(hidden, kind = Kind::Any)]
    pub terminated_at: Option<i64>,
    #[field(hidden, kind = Kind::Any)]
    pub fault: Option<Fault>,
    /// `owner` or `admin`.
    #[field(hidden)]
    pub locked_by: Option<String>,
    #[field(since = "2.73")]
    pub locked_reason: Option<String>,
    #[field(hidden, kind = Kind::Object)]
    pub scheduler_hints: serde_json::Map<String, Value>,
    #[field(hidden, index)]
    pub group_id: Option<String>,
    #[field(hidden, kind = Kind::Any)]
    pub nics: Vec<Nic>,
    /// When the task under way is given up, in microseconds since the epoch.
    #[field(hidden, kind = Kind::Any)]
    pub deadline: Option<i64>,
    /// Restarts after crashes: how many, and when the first was.
    #[field(hidden, kind = Kind::Any)]
    pub crashes: Crashes,
    /// Random bytes for the guest's pool, base64.
    #[field(hidden)]
    pub seed: String,
    /// What the guest posted to the metadata service, usually encrypted with the user's key; empty without one.
    #[field(hidden)]
    pub password: String,
    /// Row of [`ACTIONS`](crate::common::ACTIONS) that is under way.
    #[field(hidden)]
    pub action: Option<String>,
    /// Was the power state before the server was shelved or rescued other than running?
    #[field(hidden)]
    pub was_stopped: bool,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            name: String::new(),
            description: None,
            hostname: String::new(),
            user_id: String::new(),
            key_name: None,
            key: None,
            image_id: String::new(),
            root: None,
            boot_volume: false,
            flavor: FlavorCopy::default(),
            metadata: BTreeMap::new(),
            tags: Vec::new(),
            access_ipv4: String::new(),
            access_ipv6: String::new(),
            config_drive: false,
            disk_config: "MANUAL".to_owned(),
            pinned_availability_zone: None,
            reservation_id: String::new(),
            launch_index: 0,
            vm_state: "building".to_owned(),
            task_state: None,
            power_state: 0,
            power: Power::Running,
            reboot: Reboot::default(),
            generation: 1,
            intent: 1,
            epoch: 0,
            rescue: None,
            resize: None,
            snapshot: None,
            shelved_image: None,
            node_id: None,
            host: None,
            launched_at: None,
            terminated_at: None,
            fault: None,
            locked_by: None,
            locked_reason: None,
            scheduler_hints: serde_json::Map::new(),
            group_id: None,
            nics: Vec::new(),
            deadline: None,
            crashes: Crashes::default(),
            seed: String::new(),
            password: String::new(),
            action: None,
            was_stopped: false,
        }
    }
}

impl Rules for Server {}

impl Server {
    pub(crate) fn is_locked(&self) -> bool {
        self.locked_by.is_some()
    }
}

/// A keypair as it was.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyCopy {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub public_key: String,
}

/// A flavor as it was.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub(crate) struct FlavorCopy {
    pub id: String,
    pub name: String,
    pub vcpus: i64,
    /// MiB.
    pub ram: i64,
    /// GiB.
    pub disk: i64,
    pub ephemeral: i64,
    /// MiB.
    pub swap: i64,
    pub extra_specs: BTreeMap<String, String>,
}

/// An image as it was.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub(crate) struct ImageCopy {
    pub id: String,
    pub blob: String,
    pub format: String,
    pub container_format: String,
    pub min_disk: i64,
    pub min_ram: i64,
    pub properties: BTreeMap<String, String>,
}

/// A resize that waits for its confirmation.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resize {
    /// Id of the row in [`MIGRATIONS`](crate::proxies::MIGRATIONS).
    #[serde(default)]
    pub migration: String,
    pub old: FlavorCopy,
    pub was_stopped: bool,
    pub old_disk_config: String,
}

/// An interface of the server, in the guest's order.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub(crate) struct Nic {
    pub port_id: String,
    pub tag: Option<String>,
    /// Was the port made for this server, and so goes with it?
    pub ours: bool,
}

/// Why a server is in error.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub(crate) struct Fault {
    pub code: u16,
    pub message: String,
    pub details: String,
    pub created: i64,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub(crate) struct Crashes {
    pub count: u32,
    pub since: i64,
}
