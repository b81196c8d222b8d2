//! Regions (Keystone api-ref, `v3/regions`).
use super::{ENDPOINT, REGION};
use resource::{Cx, Deletion, Error, Kind, Object, Resource, Result, Rules, Tx};
use serde::{Deserialize, Serialize};

/// A part of the cloud with endpoints of its own.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "identity", path = "/v3/regions", id = "given", extras)]
#[policy(
    list = "any",
    show = "any",
    create = "rule:identity:cloud_admin",
    update = "rule:identity:cloud_admin",
    delete = "rule:identity:cloud_admin"
)]
pub(crate) struct Region {
    /// What operators call it.
    #[field(create, update, default = "", kind = Kind::Optional(&Kind::Text { min: 0, max: 255 }))]
    pub(crate) description: Option<String>,
    /// The region that this one is part of.
    #[field(create, update, filter, index)]
    pub(crate) parent_region_id: Option<String>,
}

/// A parent exists and is not below its child.
fn check_parent(row: &Object<Region>, tx: &mut Tx<'_>) -> Result<()> {
    let mut next = row.parent_region_id.clone();
    let mut seen = vec![row.id.clone()];
    while let Some(id) = next {
        if seen.contains(&id) {
            return Err(Error::bad_request(format!("Region {id} cannot be above itself; choose another parent region.")));
        }
        let parent = resource::load::<Region>(tx, &id)?.ok_or_else(|| resource::engine::not_found(REGION, &id))?;
        next = parent.parent_region_id.clone();
        seen.push(id);
    }
    Ok(())
}

impl Rules for Region {
    fn create(row: &mut Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        row.description.get_or_insert_default();
        check_parent(row, tx)
    }

    fn update(row: &mut Object<Self>, _old: &Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        row.description.get_or_insert_default();
        check_parent(row, tx)
    }

    fn delete(row: &mut Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        if !tx.children(&REGION.table, "parent_region_id", &row.id).is_empty() {
            return Err(Error::forbidden(format!(
                "Unable to delete region {} because it or its child regions have associated endpoints or regions.",
                row.id
            )));
        }
        if !tx.children(&ENDPOINT.table, "region_id", &row.id).is_empty() {
            return Err(Error::forbidden(format!(
                "Unable to delete region {} because it or its child regions have associated endpoints.",
                row.id
            )));
        }
        Ok(Deletion::Now)
    }
}
