//! Address scopes (api-ref `v2/address-scopes`).
use super::SubnetPool;
use crate::{fail, sharing};
use api::{Cx, Map, Result};
use resource::{Deletion, Kind, Object, Reader, Resource, Rules, Tx};
use serde::{Deserialize, Serialize};

/// Pools within which no address is used twice.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "network", path = "/v2.0/address-scopes", owner = "project")]
#[policy(
    list = "reader",
    show = "reader",
    create = "member",
    update = "rule:network_row_owner",
    delete = "rule:network_row_owner"
)]
pub(crate) struct AddressScope {
    #[field(create, update, filter, sort, default = "")]
    pub(crate) name: String,
    #[field(create, required, filter, kind = Kind::Int { min: 4, max: 6 })]
    pub(crate) ip_version: u8,
    #[field(create, update, filter, policy = "admin", default = false)]
    pub(crate) shared: bool,
}

impl Rules for AddressScope {
    fn create(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        if row.ip_version == 5 {
            return Err(api::Error::invalid("ip_version", "'5' is not in [4, 6]"));
        }
        let map = row.clone().into_map()?;
        sharing::follow_flag(tx, cx, "address_scope", &map, sharing::SHARED);
        Ok(())
    }
    fn update(row: &mut Object<Self>, old: &Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        if old.shared && !row.shared {
            let text = format!("Unable to update address scope {} : Shared address scope can't be unshared.", row.id);
            return Err(fail::wrong("AddressScopeUpdateError", text));
        }
        let map = row.clone().into_map()?;
        sharing::follow_flag(tx, cx, "address_scope", &map, sharing::SHARED);
        Ok(())
    }
    fn delete(row: &mut Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        if !tx.children(&SubnetPool::DEF.table, "address_scope_id", &row.id).is_empty() {
            let text = "There are one or more subnet pools in use on the address scope";
            let text = format!("Unable to complete operation on address scope {}. {text}", row.id);
            return Err(fail::refused("AddressScopeInUse", text));
        }
        sharing::forget(tx, &row.id)?;
        Ok(Deletion::Now)
    }
    fn view(row: &Map, out: &mut Map, cx: &Cx, reader: &Reader<'_>) {
        out.insert("shared".into(), sharing::shown_as(row, cx, reader, sharing::SHARED).into());
    }
    fn visible(row: &Map, cx: &Cx, reader: &Reader<'_>) -> bool {
        sharing::sees(row, cx, reader)
    }
}
