//! Host aggregates (Nova api-ref, `os-aggregates`): hosts with common properties; one with a zone makes it an availability zone.
use resource::{Kind, Resource, Rules};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A set of hosts. The row's id is a number.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(
    service = "compute",
    path = "/v2.1/os-aggregates",
    name = "aggregate",
    plural = "aggregates",
    id = "given",
    unique = "name"
)]
#[policy(list = "admin", show = "admin", create = "admin", update = "admin", delete = "admin")]
pub(crate) struct Aggregate {
    #[field(create, update, required)]
    pub name: String,
    #[field(since = "2.41")]
    pub uuid: String,
    #[field(create, update)]
    pub availability_zone: Option<String>,
    #[field()]
    pub hosts: Vec<String>,
    /// Without the zone, which is shown as metadata too.
    #[field(kind = Kind::TextMap)]
    pub metadata: BTreeMap<String, String>,
}

impl Rules for Aggregate {}
