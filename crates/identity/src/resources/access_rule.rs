//! Access rules of application credentials, kept to be used again (Keystone api-ref, `v3/users/{user_id}/access_rules`).
use super::APP_CREDENTIAL;
use resource::{Cx, Deletion, Error, Map, Object, Reader, Resource, Result, Rules, Tx};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A request that an application credential may make.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "identity", path = "/v3/users/{user_id}/access_rules", id = "hex")]
#[policy(
    list = "rule:identity:access_rule_reader",
    show = "rule:identity:access_rule_reader",
    delete = "(role:admin and system_scope:all) or user_id:%(user_id)s"
)]
pub(crate) struct AccessRule {
    /// Type of the service, as in the catalog.
    #[field(filter)]
    pub(crate) service: String,
    /// Path below the service's root, with `*` and `**`.
    #[field(filter)]
    pub(crate) path: String,
    /// HTTP method.
    #[field(filter)]
    pub(crate) method: String,
    /// The user.
    #[field(hidden, index)]
    pub(crate) user_id: String,
}

impl Rules for AccessRule {
    fn delete(row: &mut Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        let uses = |rules: &Value| rules.as_array().is_some_and(|all| all.iter().any(|r| r["id"] == row.id.as_str()));
        if tx.children(&APP_CREDENTIAL.table, "user_id", &row.user_id).iter().any(|a| uses(a.field("access_rules"))) {
            return Err(Error::forbidden(format!(
                "Access rule {} is in use by an application credential; delete that first.",
                row.id
            )));
        }
        Ok(Deletion::Now)
    }

    fn visible(row: &Map, cx: &Cx, _reader: &Reader<'_>) -> bool {
        cx.may("identity:get_access_rule", Some(row))
    }
}
