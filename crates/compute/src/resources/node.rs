//! Nodes: one row per host that runs guests. `os-hypervisors`, `os-services` and `os-hosts` are views of it.
use resource::{Kind, Resource, Rules};
use serde::{Deserialize, Serialize};

/// A host that runs guests. The row's id is its UUID, also the id of its resource provider.
#[derive(Resource, Serialize, Deserialize, Clone, Debug, Default)]
#[resource(
    service = "compute",
    path = "/v2.1/os-hypervisors",
    name = "hypervisor",
    plural = "hypervisors",
    table = "nodes",
    id = "given",
    story
)]
#[policy(list = "admin", show = "admin")]
#[serde(default)]
pub(crate) struct Node {
    #[field(index)]
    pub host: String,
    /// The id that old microversions show.
    #[field(hidden)]
    pub number: i64,
    #[field(hidden)]
    pub boot_id: String,
    /// `up` or `down`.
    #[field()]
    pub state: String,
    #[field(hidden)]
    pub disabled: bool,
    #[field(hidden)]
    pub disabled_reason: Option<String>,
    #[field(hidden)]
    pub forced_down: bool,
    /// When it last changed its state or told something new; heartbeats are not written.
    #[field(hidden, kind = Kind::Any)]
    pub last_seen: i64,
    /// The process that the host's agent talks to, by its member id; what becomes of it is known there only.
    #[field(hidden)]
    pub seat: String,
    /// When this boot of the host was first seen.
    #[field(hidden, kind = Kind::Any)]
    pub up_since: i64,
    #[field(hidden)]
    pub hypervisor_type: String,
    #[field(hidden)]
    pub hypervisor_version: u64,
    #[field(hidden)]
    pub accelerator: String,
    #[field(hidden)]
    pub cpu_model: String,
    #[field(hidden)]
    pub vcpus: u32,
    #[field(hidden)]
    pub memory_mib: u64,
    #[field(hidden)]
    pub disk_gib: u64,
    #[field(hidden)]
    pub disk_free_gib: u64,
    /// GiB of room for volumes; 0 on a host that keeps none.
    #[field(hidden)]
    pub volume_gib: u64,
    #[field(hidden)]
    pub volume_free_gib: u64,
    #[field(hidden)]
    pub host_ip: String,
    /// Provider networks that it is on.
    #[field(hidden, kind = Kind::Any)]
    pub physical_networks: Vec<String>,
}

impl Rules for Node {}

impl Node {
    pub(crate) fn is_up(&self) -> bool {
        self.state == "up" && !self.forced_down
    }
}
