//! Roles (Keystone api-ref, `v3/roles`). What they imply: [`crate::handlers::implied`]; who has them: [`crate::grants`].
use super::{ROLE, check_domain, check_mutable, inexact, merge_options};
use crate::cascade;
use resource::{Cx, Deletion, Error, Kind, Map, Object, Resource, Result, Rules, Tx};
use serde::{Deserialize, Serialize};

/// A name for what somebody may do.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "identity", path = "/v3/roles", id = "hex", extras, unique = "domain_id,name")]
#[policy(
    list = "rule:identity:any_reader or (role:manager and not domain_id:None)",
    show = "rule:identity:system_reader or (rule:admin and None:%(domain_id)s) or (role:manager and rule:identity:managed_role)",
    create = "rule:identity:cloud_admin",
    update = "rule:identity:cloud_admin",
    delete = "rule:identity:cloud_admin"
)]
pub(crate) struct Role {
    /// Unique in its domain, or among those that have none.
    #[field(create, update, required, filter, index, kind = Kind::Name { max: 255 })]
    pub(crate) name: String,
    /// A role of one domain only carries others; tokens do not show it.
    #[field(create, update, filter, index)]
    pub(crate) domain_id: Option<String>,
    /// What it allows.
    #[field(create, update, kind = Kind::Optional(&Kind::Text { min: 0, max: 65535 }))]
    pub(crate) description: Option<String>,
    /// `immutable`
    #[field(create, update, default = Map::new())]
    pub(crate) options: Map,
}

impl Rules for Role {
    fn create(row: &mut Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        row.options = merge_options(ROLE, &Map::new(), &row.options)?;
        row.domain_id.as_ref().map_or(Ok(()), |id| check_domain(tx, id))
    }

    fn update(row: &mut Object<Self>, old: &Object<Self>, _cx: &Cx, _tx: &mut Tx<'_>) -> Result<()> {
        row.options = merge_options(ROLE, &old.options, &row.options)?;
        check_mutable(ROLE, &old.id, &old.options, Some(&row.options))?;
        if row.domain_id != old.domain_id {
            return Err(Error::bad_request("The domain of a role does not change; make a new role."));
        }
        Ok(())
    }

    fn delete(row: &mut Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        check_mutable(ROLE, &row.id, &row.options, None)?;
        cascade::role(tx, &row.id);
        Ok(Deletion::Now)
    }

    fn filter(row: &Map, key: &str, values: &[&str], _cx: &Cx) -> Option<bool> {
        inexact(row, key, values, &["name", "description"])
    }
}
