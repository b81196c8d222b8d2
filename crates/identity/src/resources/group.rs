//! Groups (Keystone api-ref, `v3/groups`); their members: [`crate::handlers::groups`].
use super::{check_domain, home_domain, in_sight, inexact};
use crate::{
    cascade,
    rows::{MEMBERSHIPS, Rows as _},
};
use resource::{Cx, Deletion, Error, Kind, Map, Object, Reader, Resource, Result, Rules, Tx};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Users who get roles together.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "identity", path = "/v3/groups", id = "hex", extras, unique = "domain_id,name")]
#[policy(
    list = "rule:identity:domain_lister",
    show = "rule:identity:domain_reader",
    create = "rule:identity:domain_manager",
    update = "rule:identity:domain_manager",
    delete = "rule:identity:domain_manager"
)]
pub(crate) struct Group {
    /// Unique in the domain.
    #[field(create, update, required, filter, index, kind = Kind::Name { max: 64 })]
    pub(crate) name: String,
    /// The domain that it is in.
    #[field(create, update, filter, index, default = "")]
    pub(crate) domain_id: String,
    /// What it is for.
    #[field(create, update, default = "", kind = Kind::Optional(&Kind::Text { min: 0, max: 65535 }))]
    pub(crate) description: Option<String>,
    /// Of one from a directory: the id there, and whether it is gone from there.
    #[field(hidden)]
    pub(crate) directory: Option<Value>,
}

impl Rules for Group {
    fn create(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        if row.domain_id.is_empty() {
            row.domain_id = home_domain(cx);
        }
        check_domain(tx, &row.domain_id)?;
        super::check_own(tx, &row.domain_id, None)
    }

    fn update(row: &mut Object<Self>, old: &Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        super::check_own(tx, &old.domain_id, old.directory.as_ref())?;
        if row.domain_id == old.domain_id {
            return Ok(());
        }
        Err(Error::bad_request("The domain of a group does not change; make a new group."))
    }

    fn delete(row: &mut Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        super::check_own(tx, &row.domain_id, row.directory.as_ref())?;
        cascade::group(tx, &row.id);
        Ok(Deletion::Now)
    }

    fn visible(row: &Map, cx: &Cx, mut reader: &Reader<'_>) -> bool {
        let id = row.get("id").and_then(Value::as_str).unwrap_or_default();
        // Members know their groups.
        super::is_there(row, reader)
            && (in_sight(row, cx) || reader.row(&MEMBERSHIPS, &format!("{id}:{}", cx.caller.user_id())).is_some())
    }

    fn filter(row: &Map, key: &str, values: &[&str], _cx: &Cx) -> Option<bool> {
        inexact(row, key, values, &["name", "description"])
    }
}
