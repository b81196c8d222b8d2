//! Address groups (api-ref `v2/address-groups`): blocks that security group rules name together.
use super::{CIDRS, SecurityGroupRule};
use crate::{admit, fail, sharing, tags};
use api::{Access, Call, Cx, Map, Reply, Result, Route};
use ipnet::IpNet;
use resource::{Deletion, Object, Reader, Resource, Rules, Tx, engine, load};
use serde::{Deserialize, Serialize};

/// Blocks under one name.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "network", path = "/v2.0/address-groups", owner = "project", stamps)]
#[policy(
    list = "reader",
    show = "reader",
    create = "member",
    update = "rule:network_row_owner",
    delete = "rule:network_row_owner"
)]
pub(crate) struct AddressGroup {
    #[field(create, update, filter, sort, default = "")]
    pub(crate) name: String,
    #[field(create, update, filter, default = "")]
    pub(crate) description: String,
    #[field(create, kind = CIDRS)]
    pub(crate) addresses: Option<Vec<IpNet>>,
    /// Shared with everybody, by an RBAC policy.
    #[field(filter, default = false)]
    pub(crate) shared: bool,
    #[field(default = Vec::<String>::new())]
    pub(crate) tags: Vec<String>,
}

impl Rules for AddressGroup {
    fn create(row: &mut Object<Self>, _cx: &Cx, _tx: &mut Tx<'_>) -> Result<()> {
        let addresses = row.addresses.get_or_insert_default();
        addresses.sort();
        addresses.dedup();
        Ok(())
    }
    fn delete(row: &mut Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        if !tx.children(&SecurityGroupRule::DEF.table, "remote_address_group_id", &row.id).is_empty() {
            return Err(fail::refused(
                "AddressGroupInUse",
                format!("Address group {} is in use on one or more security group rules.", row.id),
            ));
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
    fn filter(row: &Map, key: &str, values: &[&str], _cx: &Cx) -> Option<bool> {
        tags::filter(row, key, values)
    }
}

pub(crate) fn routes() -> Vec<Route> {
    let any = Access::Authenticated;
    vec![
        Route::new("PUT", "/v2.0/address-groups/{id}/add_addresses", any, |call| change(call, true)),
        Route::new("PUT", "/v2.0/address-groups/{id}/remove_addresses", any, |call| change(call, false)),
    ]
}

async fn change(call: Call, adding: bool) -> Result<Reply> {
    let def = AddressGroup::DEF;
    let id = admit::changeable(def, &call)?;
    let wanted = call.inner("address_group").or_else(|_| call.object())?.get("addresses").cloned().unwrap_or_default();
    let wanted: Vec<IpNet> = serde_json::from_value::<Vec<IpNet>>(wanted)
        .map_err(|_| api::Error::invalid("addresses", "it is not a list of IP networks in CIDR notation"))?
        .iter()
        .map(IpNet::trunc)
        .collect();
    let map = call
        .transact(move |_, tx| {
            let mut group: Object<AddressGroup> = load(tx, &id)?.ok_or_else(|| engine::not_found(def, &id))?;
            let held = group.addresses.get_or_insert_default();
            if adding {
                held.extend(wanted.iter().copied());
            } else {
                if let Some(lost) = wanted.iter().find(|w| !held.contains(w)) {
                    let text = format!("Address group {id} does not contain addresses {lost}.");
                    return Err(fail::missing("AddressesNotFound", text));
                }
                held.retain(|h| !wanted.contains(h));
            }
            held.sort();
            held.dedup();
            group.save(tx)?;
            tx.get(&def.table, &id).and_then(|r| r.value().as_object().cloned()).ok_or_else(|| engine::not_found(def, &id))
        })
        .await?;
    Ok(Reply::ok(api::show_one(def, &api::dialect::NETWORK, &map, &call.cx, &call.reader())))
}
