//! Users (Keystone api-ref, `v3/users`). Handlers of their own create and change them, since hashing takes a while:
//! [`crate::handlers::users`].
use super::{USER, check_domain, in_sight, inexact, merge_options};
use crate::cascade;
use resource::{Cx, Deletion, Error, Kind, Map, Object, Reader, Resource, Result, Rules, Tx};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Somebody or something that logs in.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "identity", path = "/v3/users", id = "hex", extras, unique = "domain_id,name")]
#[policy(
    list = "rule:identity:domain_lister",
    show = "rule:identity:domain_reader or user_id:%(id)s",
    create = "rule:identity:domain_manager",
    update = "rule:identity:domain_manager",
    delete = "rule:identity:domain_manager"
)]
pub(crate) struct User {
    /// Unique in the domain.
    #[field(create, update, required, filter, index, min = 1, max = 255)]
    pub(crate) name: String,
    /// The domain that the user is in.
    #[field(create, update, filter, index, default = "")]
    pub(crate) domain_id: String,
    /// May the user log in?
    #[field(create, update, filter, default = true, kind = Kind::StrictBool)]
    pub(crate) enabled: bool,
    /// The project of tokens that ask for none.
    #[field(create, update, index)]
    pub(crate) default_project_id: Option<String>,
    /// Rules for passwords that this user is free of.
    #[field(create, update, default = Map::new())]
    pub(crate) options: Map,
    /// When the password must be changed.
    pub(crate) password_expires_at: Option<i64>,
    /// argon2id in PHC form.
    #[field(hidden)]
    pub(crate) password_hash: Option<String>,
    /// Tokens of before this instant are no good.
    #[field(hidden)]
    pub(crate) tokens_after: Option<i64>,
    /// Which provider's user it is, and what that calls it.
    pub(crate) federated: Option<Value>,
    /// Of one from a directory: the id there, and whether it is gone from there.
    #[field(hidden)]
    pub(crate) directory: Option<Value>,
}

/// Is it a user of that provider, by that protocol, or with that id there?
fn comes_by(row: &Map, key: &str, value: &str) -> bool {
    let links = row.get("federated").and_then(Value::as_array).into_iter().flatten();
    let is = |map: &Value| map.get(key).is_some_and(|v| v == value);
    links.into_iter().any(|l| is(l) || l["protocols"].as_array().is_some_and(|all| all.iter().any(is)))
}

impl Rules for User {
    fn create(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        if row.domain_id.is_empty() {
            row.domain_id = super::home_domain(cx);
        }
        check_domain(tx, &row.domain_id)?;
        super::check_own(tx, &row.domain_id, None)?;
        row.options = merge_options(USER, &Map::new(), &row.options)?;
        Ok(())
    }

    fn update(row: &mut Object<Self>, old: &Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        super::check_own(tx, &old.domain_id, old.directory.as_ref())?;
        if row.domain_id != old.domain_id {
            return Err(Error::bad_request("The domain of a user does not change; make a new user."));
        }
        row.options = merge_options(USER, &old.options, &row.options)?;
        if old.enabled && !row.enabled || row.password_hash != old.password_hash {
            row.tokens_after = Some(tx.now.0);
        }
        Ok(())
    }

    fn delete(row: &mut Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        super::check_own(tx, &row.domain_id, row.directory.as_ref())?;
        cascade::user(tx, &row.id);
        Ok(Deletion::Now)
    }

    fn view(row: &Map, out: &mut Map, _cx: &Cx, _reader: &Reader<'_>) {
        if row.get("default_project_id").is_none_or(Value::is_null) {
            out.shift_remove("default_project_id");
        }
        if row.get("federated").is_none_or(Value::is_null) {
            out.shift_remove("federated");
        }
        let expires = row.get("password_expires_at").and_then(Value::as_i64);
        out.insert("password_expires_at".into(), expires.map(|t| base::Timestamp(t).micros()).into());
    }

    fn visible(row: &Map, cx: &Cx, reader: &Reader<'_>) -> bool {
        super::is_there(row, reader) && (in_sight(row, cx) || row.get("id").and_then(Value::as_str) == Some(cx.caller.user_id()))
    }

    fn filter(row: &Map, key: &str, values: &[&str], _cx: &Cx) -> Option<bool> {
        match key {
            // Passwords expire for nobody yet, so no user has a time to compare.
            "password_expires_at" => Some(false),
            "idp_id" | "protocol_id" | "unique_id" => Some(values.iter().any(|v| comes_by(row, key, v))),
            _ => inexact(row, key, values, &["name"]),
        }
    }
}
