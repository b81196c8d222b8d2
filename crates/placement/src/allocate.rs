//! Changes of allocations, all in one transaction: what a consumer held is given back, what it asks for is taken, `used` and the
//! generations follow.
use crate::{
    answer::CONCURRENT_UPDATE,
    consumer::{Amounts, Consumer},
    provider::Provider,
};
use resource::{Error, Result, Tx};
use std::collections::{BTreeMap, BTreeSet};

/// What one consumer shall hold from now on.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub consumer_id: String,
    pub project_id: String,
    pub user_id: String,
    /// None leaves it as it is.
    pub consumer_type: Option<String>,
    /// The generation that the caller knows, `Some(None)` for a new consumer; `None` where callers do not say it.
    pub generation: Option<Option<i64>>,
    /// By provider; empty gives everything back.
    pub allocations: Amounts,
}

/// Makes all the changes, or none. Providers are compared at the commit, so two writers cannot overbook one.
pub fn replace(tx: &mut Tx<'_>, changes: &[Change]) -> Result<()> {
    let mut providers: BTreeMap<String, Provider> = BTreeMap::new();
    let mut touched: BTreeSet<String> = BTreeSet::new();
    let mut consumers: Vec<(Option<Consumer>, &Change)> = Vec::new();
    for change in changes {
        let old = Consumer::load(tx, &change.consumer_id)?;
        check_consumer(old.as_ref(), change)?;
        for uuid in change.allocations.keys() {
            let text = || Error::bad_request(format!("Allocation for resource provider '{uuid}' that does not exist."));
            if !providers.contains_key(uuid) {
                providers.insert(uuid.clone(), Provider::load(tx, uuid)?.ok_or_else(text)?);
            }
        }
        consumers.push((old, change));
    }
    // All is given back before anything is taken: amounts may move from one consumer to another.
    for (uuid, amounts) in consumers.iter().filter_map(|(old, _)| old.as_ref()).flat_map(|old| &old.allocations) {
        if !providers.contains_key(uuid) {
            match Provider::load(tx, uuid)? {
                Some(provider) => providers.insert(uuid.clone(), provider),
                None => continue,
            };
        }
        if let Some(provider) = providers.get_mut(uuid) {
            give_back(provider, amounts);
            touched.insert(uuid.clone());
        }
    }
    for (uuid, amounts) in changes.iter().flat_map(|c| &c.allocations) {
        for (class, amount) in amounts {
            crate::classes::check(tx, class).map_err(|e| Error::bad_request(format!("Unable to allocate inventory: {}", e.message)))?;
            if let Some(provider) = providers.get_mut(uuid) {
                take(provider, class, *amount)?;
                touched.insert(uuid.clone());
            }
        }
    }
    for uuid in &touched {
        if let Some(provider) = providers.get_mut(uuid) {
            provider.generation += 1;
            provider.save(tx)?;
        }
    }
    consumers.into_iter().try_for_each(|(old, change)| write(tx, old, change))
}

fn check_consumer(old: Option<&Consumer>, change: &Change) -> Result<()> {
    let Some(given) = change.generation else { return Ok(()) };
    let expected = old.map(|c| c.consumer_generation);
    if expected == given {
        return Ok(());
    }
    let show = |g: Option<i64>| g.map_or_else(|| "null".to_owned(), |g| g.to_string());
    let text = format!("consumer generation conflict - expected {} but got {}", show(expected), show(given).replace("null", "None"));
    Err(Error::conflict(text).code(CONCURRENT_UPDATE))
}

fn give_back(provider: &mut Provider, amounts: &BTreeMap<String, i64>) {
    for (class, amount) in amounts {
        let left = provider.used(class) - amount;
        if left > 0 {
            provider.used.insert(class.clone(), left);
        } else {
            provider.used.remove(class);
        }
    }
}

fn take(provider: &mut Provider, class: &str, amount: i64) -> Result<()> {
    let refuse = |text: String| Err(Error::conflict(format!("Unable to allocate inventory: {text}")));
    let uuid = &provider.uuid;
    let Some(inventory) = provider.inventories.get(class) else {
        return refuse(format!("Inventory for '{class}' on resource provider '{uuid}' invalid."));
    };
    let what = format!("Unable to create allocation for '{class}' on resource provider '{uuid}'.");
    if !inventory.accepts(amount) {
        return refuse(format!("{what} The requested amount would violate inventory constraints."));
    }
    let used = provider.used(class).saturating_add(amount);
    if used > inventory.capacity() {
        return refuse(format!("{what} The requested amount would exceed the capacity."));
    }
    provider.used.insert(class.to_owned(), used);
    Ok(())
}

fn write(tx: &mut Tx<'_>, old: Option<Consumer>, change: &Change) -> Result<()> {
    if change.allocations.is_empty() {
        tx.delete(&crate::ALLOCATIONS, &change.consumer_id);
        return Ok(());
    }
    let now = tx.now.0;
    let (generation, kind, mut rest) = match old {
        Some(old) => (old.consumer_generation, old.consumer_type, old.rest),
        None => (0, None, resource::Map::new()),
    };
    rest.entry("created_at").or_insert_with(|| now.into());
    Consumer {
        consumer_id: change.consumer_id.clone(),
        project_id: change.project_id.clone(),
        user_id: change.user_id.clone(),
        consumer_generation: generation + 1,
        consumer_type: change.consumer_type.clone().or(kind),
        allocations: change.allocations.clone(),
        rest,
    }
    .save(tx)
}
