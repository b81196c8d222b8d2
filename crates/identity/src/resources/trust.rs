//! Trusts: a user lets another act with some of its roles (Keystone api-ref, `OS-TRUST`). Made by [`crate::handlers::trusts`].
use super::ROLE;
use crate::rows::Rows as _;
use resource::{Cx, Deletion, Error, Map, Object, Reader, Resource, Result, Rules, Tx};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A delegation of roles on one project.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "identity", path = "/v3/OS-TRUST/trusts", id = "hex")]
#[policy(
    list = "any",
    show = "any",
    create = "user_id:%(trustor_user_id)s",
    delete = "rule:identity:cloud_admin or user_id:%(trustor_user_id)s"
)]
pub(crate) struct Trust {
    /// Who delegates.
    #[field(create, required, filter, index)]
    pub(crate) trustor_user_id: String,
    /// Who acts.
    #[field(create, required, filter, index)]
    pub(crate) trustee_user_id: String,
    /// Do tokens name the trustor as their user?
    #[field(create, required, kind = resource::Kind::StrictBool)]
    pub(crate) impersonation: bool,
    /// The project.
    #[field(create, filter)]
    pub(crate) project_id: Option<String>,
    /// When it ends.
    pub(crate) expires_at: Option<i64>,
    /// How many tokens it still gives; no number is no limit.
    #[field(create, kind = resource::Kind::Optional(&resource::Kind::Int { min: 1, max: i64::MAX }))]
    pub(crate) remaining_uses: Option<i64>,
    /// How many times it may be passed on.
    pub(crate) redelegation_count: i64,
    /// The trust that it was made by.
    #[field(hidden)]
    pub(crate) redelegated_trust_id: Option<String>,
    #[field(hidden)]
    pub(crate) role_ids: Vec<String>,
}

impl Rules for Trust {
    fn delete(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        if !cx.caller.is_unrestricted() {
            return Err(Error::forbidden("You are not authorized to perform the requested action: delete_trust."));
        }
        crate::cascade::trust(tx, &row.id);
        Ok(Deletion::Now)
    }

    fn view(row: &Map, out: &mut Map, cx: &Cx, mut reader: &Reader<'_>) {
        let expires = row.get("expires_at").and_then(Value::as_i64);
        out.insert("expires_at".into(), expires.map(|t| base::Timestamp(t).micros_z()).into());
        out.insert("deleted_at".into(), Value::Null);
        if let Some(parent) = row.get("redelegated_trust_id").filter(|p| p.is_string()) {
            out.insert("redelegated_trust_id".into(), parent.clone());
        }
        let id = row.get("id").and_then(Value::as_str).unwrap_or_default();
        // Lists are short.
        if cx.param("id").is_empty() {
            return;
        }
        let ids = row.get("role_ids").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let role = |id: &str| {
            let role = reader.row(&ROLE.table, id)?;
            Some(json!({"id": id, "name": role.text("name"), "links": {"self": format!("{}/v3/roles/{id}", cx.public)}}))
        };
        out.insert("roles".into(), ids.filter_map(role).collect());
        let here = format!("{}/v3/OS-TRUST/trusts/{id}/roles", cx.public);
        out.insert("roles_links".into(), json!({"self": here, "next": null, "previous": null}));
    }

    fn visible(row: &Map, cx: &Cx, _reader: &Reader<'_>) -> bool {
        let me = Some(cx.caller.user_id());
        let is = |field: &str| row.get(field).and_then(Value::as_str) == me;
        is("trustor_user_id") || is("trustee_user_id") || cx.may("identity:system_reader", None)
    }
}
