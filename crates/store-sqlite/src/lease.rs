//! Leases: in memory, judged by monotonic time. Pure; the writer deletes the rows of those that are over.
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use store::{LeaseId, StoreError};

struct Lease {
    ttl: Duration,
    /// `None` when the time to live is longer than the clock can count.
    end: Option<Instant>,
}

pub(crate) struct Leases {
    live: HashMap<LeaseId, Lease>,
    last: u64,
}

impl Leases {
    /// `boot` is below 2^31, as ids are stored as signed numbers. Ids of one boot are never given again by another, so a holder from before cannot renew a stranger's lease.
    pub(crate) fn of_boot(boot: u32) -> Self {
        Self { live: HashMap::new(), last: u64::from(boot) << 32 }
    }

    pub(crate) fn grant(&mut self, ttl: Duration, now: Instant) -> LeaseId {
        self.last += 1;
        let id = LeaseId(self.last);
        self.live.insert(id, Lease { ttl, end: now.checked_add(ttl) });
        id
    }

    pub(crate) fn keep_alive(&mut self, id: LeaseId, now: Instant) -> Result<(), StoreError> {
        if !self.is_live(id, now) {
            return Err(StoreError::LeaseOver(id));
        }
        if let Some(lease) = self.live.get_mut(&id) {
            lease.end = now.checked_add(lease.ttl);
        }
        Ok(())
    }

    pub(crate) fn is_live(&self, id: LeaseId, now: Instant) -> bool {
        self.live.get(&id).is_some_and(|l| l.end.is_none_or(|end| end > now))
    }

    /// Ends it; true if there was one.
    pub(crate) fn end(&mut self, id: LeaseId) -> bool {
        self.live.remove(&id).is_some()
    }

    /// Ends those that are over and gives them, oldest id first.
    pub(crate) fn end_expired(&mut self, now: Instant) -> Vec<LeaseId> {
        let mut over: Vec<LeaseId> = self.live.keys().copied().filter(|id| !self.is_live(*id, now)).collect();
        over.sort_unstable();
        for id in &over {
            self.live.remove(id);
        }
        over
    }

    pub(crate) fn next_end(&self) -> Option<Instant> {
        self.live.values().filter_map(|l| l.end).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_lease_ends_unless_it_is_kept_alive() {
        let now = Instant::now();
        let mut leases = Leases::of_boot(2);
        let (a, b, c) = (leases.grant(SECOND, now), leases.grant(SECOND, now), leases.grant(Duration::MAX, now));
        leases.keep_alive(b, now + SECOND / 2).unwrap();
        assert_eq!(leases.next_end(), Some(now + SECOND));
        assert!(leases.keep_alive(a, now + SECOND).is_err(), "a lease that is over stays over, whoever noticed it first");
        assert_eq!(leases.end_expired(now + SECOND), [a]);
        assert_eq!(leases.end_expired(now + 2 * SECOND), [b]);
        assert!(leases.is_live(c, now + 1000 * SECOND) && leases.next_end().is_none());
        assert!(leases.end(c) && !leases.end(c));
    }

    #[test]
    fn ids_of_two_boots_differ() {
        let now = Instant::now();
        assert_ne!(Leases::of_boot(2).grant(SECOND, now), Leases::of_boot(3).grant(SECOND, now));
    }
}
