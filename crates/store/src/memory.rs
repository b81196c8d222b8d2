//! The memory engine: for tests and simulation. It keeps every promise except to survive the process.
use crate::{
    Compare, Entry, Event, Hub, LeaseId, Outcome, Page, Pending, Range, Revision, Store, StoreError, Txn, TxnError, TxnId, Watch,
    WatchEnd, Write,
};
use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

#[derive(Default)]
struct Inner {
    rows: BTreeMap<Arc<str>, Entry>,
    leases: HashMap<LeaseId, (Duration, Instant)>,
    next_lease: u64,
    hub: Hub,
}

/// See the module.
#[derive(Default)]
pub struct Memory(Mutex<Inner>);

impl Memory {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.expire(Instant::now());
        inner
    }
}

impl Inner {
    fn expire(&mut self, now: Instant) {
        let over: Vec<LeaseId> = self.leases.iter().filter(|(_, (_, end))| *end <= now).map(|(id, _)| *id).collect();
        for lease in over {
            self.end_lease(lease);
        }
    }

    fn end_lease(&mut self, lease: LeaseId) {
        self.leases.remove(&lease);
        let keys: Vec<Arc<str>> = self.rows.values().filter(|e| e.lease == Some(lease)).map(|e| e.key.clone()).collect();
        if !keys.is_empty() {
            let events = keys.iter().map(|k| Event::Delete(k.clone())).collect();
            for k in &keys {
                self.rows.remove(k);
            }
            self.hub.publish(None, events);
        }
    }

    fn commit(&mut self, txn: Txn) -> Result<Revision, TxnError> {
        let now = self.hub.revision();
        let holds = |c: &Compare| match c {
            Compare::Absent(k) => !self.rows.contains_key(k),
            Compare::Modified(k, r) => self.rows.get(k).is_some_and(|e| e.modified == *r),
            Compare::Quiet { prefix, since } => self
                .rows
                .range::<str, _>((Bound::Included(&**prefix), Bound::Unbounded))
                .take_while(|(k, _)| k.starts_with(&**prefix))
                .all(|(_, e)| e.modified <= *since),
        };
        if self.hub.is_aborted(txn.id) || !txn.compares.iter().all(holds) {
            return Err(TxnError::Conflict { at_least: now });
        }
        for w in &txn.writes {
            if let Write::Put { lease: Some(l), .. } = w
                && !self.leases.contains_key(l)
            {
                return Err(StoreError::LeaseOver(*l).into());
            }
        }
        if txn.writes.is_empty() {
            return Ok(now);
        }
        let revision = now + 1;
        let mut events = Vec::with_capacity(txn.writes.len());
        for w in txn.writes {
            match w {
                Write::Put { key, value, lease } => {
                    let created = self.rows.get(&key).map_or(revision, |e| e.created);
                    let entry = Entry { key: key.clone(), value, created, modified: revision, lease };
                    self.rows.insert(key, entry.clone());
                    events.push(Event::Put(entry));
                }
                Write::Delete { key } => {
                    if self.rows.remove(&key).is_some() {
                        events.push(Event::Delete(key));
                    }
                }
            }
        }
        Ok(self.hub.publish(Some(txn.id), events.into()))
    }
}

impl Store for Memory {
    fn txn(&self, txn: Txn) -> Pending<'_, Result<Revision, TxnError>> {
        Box::pin(async move { self.lock().commit(txn) })
    }
    fn resolve(&self, id: TxnId) -> Pending<'_, Result<Outcome, StoreError>> {
        Box::pin(async move { Ok(self.lock().hub.resolve(id)) })
    }
    fn get<'a>(&'a self, key: &'a str) -> Pending<'a, Result<Option<Entry>, StoreError>> {
        Box::pin(async move { Ok(self.lock().rows.get(key).cloned()) })
    }
    fn range<'a>(&'a self, range: Range<'a>) -> Pending<'a, Result<Page, StoreError>> {
        Box::pin(async move {
            let inner = self.lock();
            let start = match range.after {
                Some(after) if after >= range.prefix => Bound::Excluded(after),
                _ => Bound::Included(range.prefix),
            };
            let mut rows = inner
                .rows
                .range::<str, _>((start, Bound::Unbounded))
                .map(|(_, e)| e)
                .take_while(|e| e.key.starts_with(range.prefix));
            let entries: Vec<Entry> = rows.by_ref().take(range.limit).cloned().collect();
            Ok(Page { more: rows.next().is_some(), entries, revision: inner.hub.revision() })
        })
    }
    fn revision(&self) -> Pending<'_, Result<Revision, StoreError>> {
        Box::pin(async move { Ok(self.lock().hub.revision()) })
    }
    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> Pending<'a, Result<Watch, WatchEnd>> {
        Box::pin(async move { self.lock().hub.watch(prefix, after) })
    }
    fn lease_grant(&self, ttl: Duration) -> Pending<'_, Result<LeaseId, StoreError>> {
        Box::pin(async move {
            let mut inner = self.lock();
            inner.next_lease += 1;
            let id = LeaseId(inner.next_lease);
            inner.leases.insert(id, (ttl, Instant::now() + ttl));
            Ok(id)
        })
    }
    fn lease_keep_alive(&self, lease: LeaseId) -> Pending<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let mut inner = self.lock();
            let (ttl, end) = inner.leases.get_mut(&lease).ok_or(StoreError::LeaseOver(lease))?;
            *end = Instant::now() + *ttl;
            Ok(())
        })
    }
    fn lease_revoke(&self, lease: LeaseId) -> Pending<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.lock().end_lease(lease);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn conforms() {
        crate::conformance::run(&|| Box::pin(async { Memory::new() as Arc<dyn Store> })).await;
    }
}
