//! Server groups (Nova api-ref, `os-server-groups`): servers that shall share a host, or not.
use resource::{Kind, Resource, Rules};
use serde::{Deserialize, Serialize};

/// Servers that are placed together or apart.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(
    service = "compute",
    path = "/v2.1/os-server-groups",
    name = "server_group",
    plural = "server_groups",
    owner = "project"
)]
#[policy(list = "reader", show = "reader", create = "member", delete = "member")]
pub(crate) struct ServerGroup {
    #[field(create, required, kind = Kind::Text { min: 1, max: 255 })]
    pub name: String,
    /// `affinity`, `anti-affinity`, `soft-affinity` or `soft-anti-affinity`.
    #[field(create)]
    pub policy: String,
    /// Most members on one host, for anti-affinity.
    #[field(hidden)]
    pub max_server_per_host: Option<i64>,
    #[field()]
    pub user_id: String,
}

impl Rules for ServerGroup {}
