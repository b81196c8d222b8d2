//! Moves claims between consumers and providers: all of them or none, in the caller's transaction.
//!
//! Guarantees that a provider's `used` stays the sum of what consumers hold of it, that no claim goes beyond what a provider has, and
//! that each provider on which claims are made counts its generation up.
use crate::{
    rows::{ALLOCATIONS, Amounts, Consumer, Provider, find_provider, has_class, load_consumer, stale},
    schema,
};
use api::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use store::Tx;

/// What one consumer shall hold from now on, in place of what it holds.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) consumer: String,
    pub(crate) project_id: String,
    pub(crate) user_id: String,
    /// Stays what it is when it is not given.
    pub(crate) consumer_type: Option<String>,
    pub(crate) generation: Expected,
    /// By provider; empty takes everything from the consumer.
    pub(crate) allocations: BTreeMap<String, Amounts>,
}

/// What the caller believes of the consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Nothing: versions before 1.28.
    Any,
    /// It holds nothing yet.
    New,
    At(i64),
}

impl Expected {
    fn check(self, consumer: Option<&Consumer>) -> Result<()> {
        let conflict = |expected: String, got: String| {
            Err(stale(format!("consumer generation conflict - expected {expected} but got {got}")))
        };
        match (self, consumer.map(|c| c.consumer_generation)) {
            (Self::Any, _) | (Self::New, None) => Ok(()),
            (Self::At(given), Some(now)) if given == now => Ok(()),
            (Self::At(given), Some(now)) => conflict(now.to_string(), given.to_string()),
            (Self::New, Some(now)) => conflict(now.to_string(), "None".to_owned()),
            (Self::At(given), None) => conflict("null".to_owned(), given.to_string()),
        }
    }
}

/// Providers at work in one transaction. What was changed is written by [`Ledger::save`].
#[derive(Default)]
pub(crate) struct Ledger {
    providers: BTreeMap<String, Provider>,
    /// Those to be written.
    changed: BTreeSet<String>,
}

impl Ledger {
    /// The provider, if there is one; it is compared at the commit.
    pub(crate) fn get(&mut self, tx: &mut Tx<'_>, uuid: &str) -> Result<Option<&mut Provider>> {
        if !self.providers.contains_key(uuid)
            && let Some(provider) = find_provider(tx, uuid)?
        {
            self.providers.insert(uuid.to_owned(), provider);
        }
        Ok(self.providers.get_mut(uuid))
    }

    /// Counts a change of the provider.
    pub(crate) fn count(&mut self, uuid: &str) {
        if let Some(provider) = self.providers.get_mut(uuid) {
            provider.generation += 1;
        }
        self.changed.insert(uuid.to_owned());
    }

    /// Writes what changed.
    pub(crate) fn save(mut self, tx: &mut Tx<'_>) -> Result<()> {
        for uuid in &self.changed {
            if let Some(provider) = self.providers.get_mut(uuid) {
                provider.put(tx)?;
            }
        }
        Ok(())
    }

    fn take_back(&mut self, tx: &mut Tx<'_>, held: &BTreeMap<String, Amounts>) -> Result<()> {
        for (uuid, amounts) in held {
            let Some(provider) = self.get(tx, uuid)? else { continue };
            for (class, amount) in amounts {
                let used = provider.used.entry(class.clone()).or_default();
                *used -= amount;
            }
            provider.used.retain(|_, n| *n > 0);
            self.changed.insert(uuid.clone());
        }
        Ok(())
    }

    /// Makes all consumers hold what the claims say. `no_class` words the error for a resource class that does not exist.
    pub(crate) fn replace(&mut self, tx: &mut Tx<'_>, claims: &[Claim], no_class: impl Fn(&Claim, &str) -> Error) -> Result<()> {
        let mut consumers = Vec::new();
        for claim in claims {
            let consumer = load_consumer(tx, &claim.consumer)?;
            claim.generation.check(consumer.as_ref())?;
            consumers.push(consumer);
        }
        for claim in claims {
            for (uuid, amounts) in &claim.allocations {
                if self.get(tx, uuid)?.is_none() {
                    return Err(Error::bad_request(format!("Allocation for resource provider '{uuid}' that does not exist.")));
                }
                if let Some(class) = amounts.keys().find(|class| !has_class(tx, class)) {
                    return Err(no_class(claim, class));
                }
            }
        }
        let before: BTreeMap<String, Amounts> = self.providers.iter().map(|(uuid, p)| (uuid.clone(), p.used.clone())).collect();
        let mut visited = BTreeSet::new();
        for consumer in consumers.iter().flatten() {
            visited.extend(consumer.allocations.keys().cloned());
            self.take_back(tx, &consumer.allocations)?;
        }
        for claim in claims {
            for (uuid, amounts) in &claim.allocations {
                let Some(provider) = self.get(tx, uuid)? else { continue };
                let before = before.get(uuid);
                for (class, amount) in amounts {
                    let used = before.and_then(|b| b.get(class)).copied().unwrap_or(0);
                    admit(provider, class, *amount, used)
                        .map_err(|e| Error::conflict(format!("Unable to allocate inventory: {e}")))?;
                    *provider.used.entry(class.clone()).or_default() += amount;
                }
                visited.insert(uuid.clone());
            }
        }
        visited.iter().for_each(|uuid| self.count(uuid));
        for (claim, consumer) in claims.iter().zip(consumers) {
            write(tx, claim, consumer)?;
        }
        Ok(())
    }

    /// Takes everything from the consumer. False when it held nothing. No generation counts that: more room harms nobody's plan.
    pub(crate) fn release(&mut self, tx: &mut Tx<'_>, consumer: &str) -> Result<bool> {
        let Some(held) = load_consumer(tx, consumer)? else { return Ok(false) };
        self.take_back(tx, &held.allocations)?;
        tx.delete(&ALLOCATIONS, consumer);
        Ok(true)
    }
}

/// May this much more be taken? A provider that is beyond its capacity may become less so: never above `before`.
fn admit(provider: &Provider, class: &str, amount: i64, before: i64) -> Result<(), String> {
    let uuid = &provider.uuid;
    let Some(inventory) = provider.inventories.get(class) else {
        return Err(format!("Inventory for '{class}' on resource provider '{uuid}' invalid."));
    };
    let refusal = format!("Unable to create allocation for '{class}' on resource provider '{uuid}'. The requested amount would");
    if !inventory.suits(amount) {
        return Err(format!("{refusal} violate inventory constraints."));
    }
    let after = provider.used(class).saturating_add(amount);
    if after > inventory.capacity() && after > before {
        return Err(format!("{refusal} exceed the capacity."));
    }
    Ok(())
}

fn write(tx: &mut Tx<'_>, claim: &Claim, old: Option<Consumer>) -> Result<()> {
    if claim.allocations.is_empty() {
        tx.delete(&ALLOCATIONS, &claim.consumer);
        return Ok(());
    }
    let old_type = old.as_ref().and_then(|c| c.consumer_type.clone());
    let mut consumer = Consumer {
        consumer_id: claim.consumer.clone(),
        project_id: claim.project_id.clone(),
        user_id: claim.user_id.clone(),
        consumer_generation: old.as_ref().map_or(0, |c| c.consumer_generation) + 1,
        consumer_type: claim.consumer_type.clone().or(old_type),
        allocations: claim.allocations.clone(),
        updated_at: None,
        rest: old.map(|c| c.rest).unwrap_or_default(),
    };
    consumer.put(tx)
}

/// 400 in the words of a schema, for a class of resources that is none.
pub(crate) fn unknown_class(prefix: &str, class: &str) -> Error {
    Error::bad_request(format!("{prefix} {}", crate::inventories::no_class(class)))
}

/// Checks the form of a consumer's type.
pub(crate) fn consumer_type(value: &serde_json::Value) -> Result<String> {
    schema::text(value, 1, 255)?;
    schema::matching(value, 255, schema::SYMBOL, crate::standard::is_symbol).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn host(used: i64) -> Provider {
        let inventory = json!({"total": 10, "reserved": 2, "max_unit": 6, "step_size": 2});
        serde_json::from_value(json!({"uuid": "p", "name": "n", "inventories": {"VCPU": inventory}, "used": {"VCPU": used}}))
            .unwrap()
    }

    #[test]
    fn claims_must_fit() {
        assert!(admit(&host(4), "VCPU", 4, 4).is_ok());
        assert!(admit(&host(6), "VCPU", 4, 6).expect_err("full").contains("exceed the capacity"));
        assert!(admit(&host(0), "VCPU", 3, 0).expect_err("odd").contains("constraints"));
        assert!(admit(&host(0), "VCPU", 8, 0).expect_err("large").contains("constraints"));
        assert!(admit(&host(0), "DISK_GB", 1, 0).expect_err("none").contains("invalid"));
    }

    #[test]
    fn what_is_too_much_may_become_less() {
        assert!(admit(&host(12), "VCPU", 2, 16).is_ok());
        assert!(admit(&host(12), "VCPU", 6, 16).is_err());
    }

    #[test]
    fn generations_say_what_the_caller_saw() {
        let consumer: Consumer = serde_json::from_value(json!({ "consumer_generation": 3 })).unwrap();
        assert!(Expected::At(3).check(Some(&consumer)).is_ok() && Expected::New.check(None).is_ok());
        for (expected, found) in [(Expected::At(2), Some(&consumer)), (Expected::New, Some(&consumer)), (Expected::At(0), None)] {
            assert_eq!(expected.check(found).expect_err("stale").code.as_deref(), Some("placement.concurrent_update"));
        }
    }
}
