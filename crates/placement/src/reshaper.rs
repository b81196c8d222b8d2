//! `POST /reshaper`: inventories and allocations change together, as when a class of resources moves from a host to a part of it.
use crate::{
    allocations,
    inventories::{self, Assign, Inventories},
    ledger::{self, Ledger},
    rest,
    rows::stale,
    schema,
};
use api::{Call, Error, Reply, Result};

pub(crate) async fn reshape(call: Call) -> Result<Reply> {
    let map = schema::object(rest::body(&call)?, &["inventories", "allocations"], 2)?;
    let given = schema::any_object(&map["inventories"])?;
    schema::some(given)?;
    schema::only(given, Some(schema::UUID_KEY), schema::is_uuid_key)?;
    let wanted = given.iter().map(|(uuid, v)| Ok((uuid.clone(), inventories::read_all(v)?)));
    let wanted = wanted.collect::<Result<Vec<(String, (i64, Inventories))>>>()?;
    let claims = allocations::claims(&call.cx, &map["allocations"])?;
    call.transact(move |_, tx| {
        let mut ledger = Ledger::default();
        for (uuid, (generation, new)) in &wanted {
            let Some(provider) = ledger.get(tx, uuid)? else {
                return Err(Error::bad_request(format!(
                    "Resource provider {uuid} in inventories not found: No resource provider with uuid {uuid} found"
                ))
                .code("placement.resource_provider.not_found"));
            };
            if provider.generation != *generation {
                return Err(stale(format!(
                    "resource provider generation conflict for provider {uuid}: actual: {}, given: {generation}",
                    provider.generation
                )));
            }
            // First what is and what shall be, so that allocations can move; what shall go goes at the end.
            let mut both = provider.inventories.clone();
            both.extend(new.clone());
            inventories::assign(tx, provider, &both).map_err(refused)?;
            if !new.is_empty() {
                ledger.count(uuid);
            }
        }
        ledger.replace(tx, &claims, |_, class| ledger::unknown_class("malformed reshaper data:", class))?;
        for (uuid, (_, new)) in &wanted {
            if let Some(provider) = ledger.get(tx, uuid)? {
                inventories::assign(tx, provider, new).map_err(refused)?;
            }
            ledger.count(uuid);
        }
        ledger.save(tx)
    })
    .await?;
    Ok(Reply::empty(204))
}

fn refused(why: Assign) -> Error {
    match why {
        Assign::NoClass(e) => Error::bad_request(format!("malformed reshaper data: {e}")),
        Assign::InUse(e) => inventories::in_use(format!("update conflict: {e}")),
    }
}
