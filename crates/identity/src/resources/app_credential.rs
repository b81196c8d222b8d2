//! Application credentials (Keystone api-ref, `v3/users/{user_id}/application_credentials`): a part of a user's roles on one
//! project behind a secret of its own. Made by [`crate::handlers::app_credentials`].
use super::{ROLE, own};
use crate::rows::{Rows as _, text};
use resource::{Cx, Deletion, Error, Kind, Map, Object, Reader, Resource, Result, Rules, Tx};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What a program logs in with for a user.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "identity", path = "/v3/users/{user_id}/application_credentials", id = "hex", unique = "user_id,name")]
#[policy(
    list = "rule:identity:owner",
    show = "rule:identity:owner",
    create = "rule:self",
    delete = "rule:identity:cloud_admin or user_id:%(user_id)s"
)]
pub(crate) struct ApplicationCredential {
    /// Unique among the user's.
    #[field(create, required, filter, index, min = 1, max = 255)]
    pub(crate) name: String,
    /// What it is for.
    #[field(create, kind = Kind::Optional(&Kind::Text { min: 0, max: 65535 }))]
    pub(crate) description: Option<String>,
    /// When it ends.
    pub(crate) expires_at: Option<i64>,
    /// The one project that it is good for.
    pub(crate) project_id: String,
    /// May it make and delete application credentials and trusts? Dangerous.
    #[field(create, default = false, kind = Kind::StrictBool)]
    pub(crate) unrestricted: bool,
    /// The user.
    #[field(hidden, index)]
    pub(crate) user_id: String,
    #[field(hidden)]
    pub(crate) role_ids: Vec<String>,
    /// The only requests that it may make, if there are any.
    #[field(hidden)]
    pub(crate) access_rules: Option<Vec<Value>>,
    /// argon2id in PHC form.
    #[field(hidden)]
    pub(crate) secret_hash: String,
}

impl Rules for ApplicationCredential {
    fn delete(_row: &mut Object<Self>, cx: &Cx, _tx: &mut Tx<'_>) -> Result<Deletion> {
        if cx.caller.is_unrestricted() {
            return Ok(Deletion::Now);
        }
        Err(Error::forbidden("You are not authorized to perform the requested action: delete_application_credential."))
    }

    fn view(row: &Map, out: &mut Map, _cx: &Cx, mut reader: &Reader<'_>) {
        let ids = row.get("role_ids").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let role = |id: &str| {
            let role = reader.row(&ROLE.table, id)?;
            Some(json!({"id": id, "name": role.text("name"), "domain_id": text(&role, "domain_id")}))
        };
        out.insert("roles".into(), ids.filter_map(role).collect());
        let expires = row.get("expires_at").and_then(Value::as_i64);
        out.insert("expires_at".into(), expires.map(|t| base::Timestamp(t).micros()).into());
        out.insert("system".into(), Value::Null);
        if let Some(rules) = row.get("access_rules").filter(|r| r.is_array()) {
            out.insert("access_rules".into(), rules.clone());
        }
    }

    fn visible(row: &Map, cx: &Cx, _reader: &Reader<'_>) -> bool {
        own(row, cx)
    }
}
