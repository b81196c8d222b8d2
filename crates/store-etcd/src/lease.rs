//! Leases are etcd's own: it counts their time by its leader's monotonic clock, and deletes their rows in one revision.
//!
//! Its unit is the second, and its shortest lease lasts two. After a change of leader every lease has its whole time again.
use crate::{
    client::SHORT,
    inner::Inner,
    session::lock,
    txn::signed,
    verdict::{LEASE_NOT_FOUND, says, store_error},
    wire,
};
use std::time::Duration;
use store::StoreError;
use tonic::{Code, Status};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewed {
    Lives,
    Over,
}

/// etcd refuses longer ones.
const LONGEST: i64 = 9_000_000_000;

fn seconds(ttl: Duration) -> i64 {
    signed(ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0))).clamp(1, LONGEST)
}

impl Inner {
    pub(crate) async fn grant(&self, ttl: Duration) -> Result<i64, StoreError> {
        let exists = |s: &Status| s.code() == Code::FailedPrecondition && says(s, "lease already exists");
        // We choose the id, so that a grant whose answer was lost is found again.
        let request = wire::LeaseGrantRequest { ttl: seconds(ttl), id: rand::random_range(1..i64::MAX) };
        match self.client.insist::<_, wire::LeaseAnswer>(wire::LEASE_GRANT, &request).await {
            Ok(_) => Ok(request.id),
            Err(status) if exists(&status) => Ok(request.id),
            Err(status) => Err(store_error(&status)),
        }
    }

    pub(crate) async fn renew(&self, lease: i64) -> Result<Renewed, StoreError> {
        let opened = self.client.open::<_, wire::LeaseAnswer>(wire::LEASE_KEEP_ALIVE, wire::LeaseName { id: lease }).await;
        match opened {
            Ok((_, answer, _)) if answer.ttl > 0 => Ok(Renewed::Lives),
            Ok(_) => Ok(Renewed::Over),
            Err(status) if says(&status, LEASE_NOT_FOUND) => Ok(Renewed::Over),
            Err(status) => Err(store_error(&status)),
        }
    }

    pub(crate) async fn revoke(&self, lease: i64) -> Result<(), StoreError> {
        match self.client.insist::<_, wire::LeaseAnswer>(wire::LEASE_REVOKE, &wire::LeaseName { id: lease }).await {
            Ok(_) => {}
            Err(status) if says(&status, LEASE_NOT_FOUND) => {}
            Err(status) => return Err(store_error(&status)),
        }
        lock(&self.announced).remove(&lease);
        Ok(())
    }

    /// How much time it has; `None` when it is over.
    pub(crate) async fn lease_left(&self, lease: i64) -> Result<Option<Duration>, StoreError> {
        let answer: wire::LeaseAnswer = self
            .client
            .read(wire::LEASE_TIME_TO_LIVE, wire::LeaseName { id: lease }, SHORT)
            .await
            .map_err(|s| store_error(&s))?;
        Ok(u64::try_from(answer.ttl).ok().map(Duration::from_secs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_seconds_rounded_up() {
        assert_eq!(seconds(Duration::ZERO), 1);
        assert_eq!(seconds(Duration::from_millis(1001)), 2);
        assert_eq!(seconds(Duration::from_secs(60)), 60);
        assert_eq!(seconds(Duration::MAX), LONGEST);
    }
}
