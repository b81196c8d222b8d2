//! The reshaper: inventories and allocations move between providers in one step.
use crate::{
    allocate::replace,
    allocations,
    answer::{CONCURRENT_UPDATE, INVENTORY_IN_USE, PROVIDER_NOT_FOUND, invalid, service, since},
    body, inventories,
    provider::{Inventory, Provider},
};
use api::{Call, Reply, Route};
use resource::{Error, Result, Tx};
use std::collections::BTreeMap;

pub(crate) fn routes() -> Vec<Route> {
    vec![Route::new("POST", "/reshaper", service("placement:reshaper:reshape"), reshape).since("1.30")]
}

/// The generation that the caller knows, and what the provider shall have.
type Wanted = BTreeMap<String, (i64, BTreeMap<String, Inventory>)>;

async fn reshape(call: Call) -> Result<Reply> {
    let body = body::object(&call, &["inventories", "allocations"], &[])?;
    let all = body["inventories"].as_object().ok_or_else(|| invalid("'inventories' is not of type 'object'"))?;
    let mut wanted = Wanted::new();
    for (uuid, raw) in all {
        let uuid = body::dashed(uuid).filter(|_| uuid.len() == 36).ok_or_else(|| invalid("a key of 'inventories' is not a uuid"))?;
        let raw = body::keys(raw, &["resource_provider_generation", "inventories"], &[])?;
        let generation = body::integer(&raw["resource_provider_generation"], i64::MIN, i64::MAX)?;
        wanted.insert(uuid, (generation, inventories::parse_all(&raw["inventories"])?));
    }
    let changes = allocations::parse_many(call.cx.version, &body["allocations"])?;
    let all_reserved = since(&call, "1.26");
    call.transact(move |_, tx| {
        widen(tx, &wanted, all_reserved)?;
        replace(tx, &changes)?;
        narrow(tx, &wanted)
    })
    .await?;
    Ok(Reply::empty(204))
}

/// First every provider has both what it had and what it shall have, so that the allocations can move.
fn widen(tx: &mut Tx<'_>, wanted: &Wanted, all_reserved: bool) -> Result<()> {
    for (uuid, (generation, inventories)) in wanted {
        let provider = Provider::load(tx, uuid)?;
        let mut provider = provider.ok_or_else(|| {
            let text = format!("Resource provider {uuid} in inventories not found: No resource provider with uuid {uuid} found");
            Error::bad_request(text).code(PROVIDER_NOT_FOUND)
        })?;
        if provider.generation != *generation {
            let text = format!("resource provider generation conflict for provider {uuid}: actual: {}, given: {generation}", provider.generation);
            return Err(Error::conflict(text).code(CONCURRENT_UPDATE));
        }
        for (class, inventory) in inventories {
            inventories::check_capacity(all_reserved, uuid, class, inventory, "update")?;
            crate::classes::check(tx, class).map_err(|e| Error::bad_request(format!("malformed reshaper data: {}", e.message)))?;
            provider.inventories.insert(class.clone(), inventory.clone());
        }
        provider.save(tx)?;
    }
    Ok(())
}

/// Then what it shall not have goes, which nothing may use any more.
fn narrow(tx: &mut Tx<'_>, wanted: &Wanted) -> Result<()> {
    for (uuid, (_, inventories)) in wanted {
        let mut provider = Provider::existing(tx, uuid)?;
        let gone = provider.in_use(provider.inventories.keys().filter(|c| !inventories.contains_key(*c)));
        if !gone.is_empty() {
            let text = format!("update conflict: Inventory for '{}' on resource provider '{uuid}' in use.", gone.join(", "));
            return Err(Error::conflict(text).code(INVENTORY_IN_USE));
        }
        provider.inventories.clone_from(inventories);
        provider.generation += 1;
        provider.save(tx)?;
    }
    Ok(())
}
