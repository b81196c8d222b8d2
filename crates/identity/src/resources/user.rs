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
    #[field(create, update, required, filter, index, kind = Kind::Name { max: 255 })]
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
    /// Of passwords before it, the newest first.
    #[field(hidden)]
    pub(crate) previous_hashes: Option<Vec<String>>,
    #[field(hidden)]
    pub(crate) password_created_at: Option<i64>,
    /// It was set by the user, not by an administrator.
    #[field(hidden)]
    pub(crate) password_set_by_user: Option<bool>,
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

    fn view(row: &Map, out: &mut Map, cx: &Cx, reader: &Reader<'_>) {
        // An account that ended by itself is shown as what it is.
        if cx.state.get::<crate::Auth>().is_some_and(|auth| auth.is_inactive(row, reader)) {
            out.insert("enabled".into(), false.into());
        }
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

    /// A provider chooses the names of its users, and takes nobody's by that.
    fn claims(row: &Map) -> bool {
        !row.get("federated").is_some_and(Value::is_array)
    }

    fn filter(row: &Map, key: &str, values: &[&str], _cx: &Cx) -> Option<bool> {
        match key {
            "password_expires_at" => {
                let at = row.get(key).and_then(Value::as_i64);
                Some(at.is_some_and(|at| values.iter().all(|v| Expiry::parse(v).is_some_and(|e| e.fits(at)))))
            }
            "idp_id" | "protocol_id" | "unique_id" => Some(values.iter().any(|v| comes_by(row, key, v))),
            _ => inexact(row, key, values, &["name"]),
        }
    }
}

/// `password_expires_at=lt:2026-11-22T00:00:00Z`
pub(crate) struct Expiry<'a> {
    how: &'a str,
    at: i64,
}

impl<'a> Expiry<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (how, time) = text.split_once(':')?;
        let at = base::Timestamp::parse(time)?.0;
        ["lt", "lte", "gt", "gte", "eq", "neq"].contains(&how).then_some(Self { how, at })
    }
    fn fits(&self, at: i64) -> bool {
        match self.how {
            "lt" => at < self.at,
            "lte" => at <= self.at,
            "gt" => at > self.at,
            "gte" => at >= self.at,
            "eq" => at == self.at,
            _ => at != self.at,
        }
    }
}
