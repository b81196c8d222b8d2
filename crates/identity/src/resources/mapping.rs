//! Mappings (Keystone api-ref, `v3-ext/federation`): what a provider's word about somebody means here. The language is
//! [`crate::federation::rules`].
use crate::federation::rules;
use resource::{Cx, Kind, Object, Resource, Result, Rules, Tx};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// From what others say of somebody to users, groups and projects of ours.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "identity", path = "/v3/OS-FEDERATION/mappings", id = "given")]
#[policy(
    list = "rule:identity:system_reader",
    show = "rule:identity:system_reader",
    update = "rule:identity:cloud_admin",
    delete = "rule:identity:cloud_admin"
)]
pub(crate) struct Mapping {
    /// Each says what somebody has when all of `remote` is so.
    #[field(create, update, required, kind = Kind::Any)]
    pub(crate) rules: Value,
    /// `1.0`, or `2.0` where domains of projects and users count.
    #[field(create, update, default = "1.0", kind = Kind::Choice(&["1.0", "2.0"]))]
    pub(crate) schema_version: String,
}

impl Rules for Mapping {
    fn create(row: &mut Object<Self>, _cx: &Cx, _tx: &mut Tx<'_>) -> Result<()> {
        rules::check(&row.rules, &row.schema_version)
    }

    fn update(row: &mut Object<Self>, _old: &Object<Self>, _cx: &Cx, _tx: &mut Tx<'_>) -> Result<()> {
        rules::check(&row.rules, &row.schema_version)
    }
}
