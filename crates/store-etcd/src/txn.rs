//! Transactions: how they are put into etcd's words, sent once, and resolved when the answer is lost.
use crate::{
    Limits,
    client::{Failed, SHORT, WRITE},
    inner::Inner,
    keys::Keys,
    session::{Fate, Session, Slot, barred, lock, outcome, passed},
    verdict::{LEASE_NOT_FOUND, says, store_error},
    wire::{self, CREATED, EQUAL, LESS, MODIFIED},
};
use base::retry::Backoff;
use bytes::Bytes;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use store::{Compare, LeaseId, Outcome, Revision, StoreError, Txn, TxnError, TxnId, Write};
use tokio::time::{Instant, sleep, timeout};

/// A transaction that has no answer by then may have gone to a leader that died: it is asked what became of it. Where etcd is only slow,
/// the question comes behind the transaction and learns that it passed.
const HASTE: Duration = Duration::from_millis(400);
/// How long a transaction may wait for others of its process to make room.
const ROOM: Duration = Duration::from_secs(5);
const RESOLVE: Duration = Duration::from_secs(8);
const AGAIN: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(500));
/// Sessions in which one transaction is tried; each one that is over did surely not carry it out.
const SESSIONS: usize = 3;

pub(crate) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
pub(crate) fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
pub(crate) fn revision_of(header: Option<&wire::Header>) -> Revision {
    header.map_or(0, |h| unsigned(h.revision))
}

/// What one try came to.
enum Try {
    Done(Result<Revision, TxnError>),
    /// The session was over, so nothing happened.
    SessionOver,
}

impl Inner {
    /// Runs to its end whether or not somebody waits for it: only then is the slot free again.
    pub(crate) async fn commit(self: Arc<Self>, txn: Txn) -> Result<Revision, TxnError> {
        fits(&txn, &self.keys, self.limits)?;
        if txn.writes.is_empty() {
            return self.check(&txn).await;
        }
        let room = timeout(ROOM, self.room.acquire()).await;
        let Ok(Ok(_room)) = room else {
            return Err(StoreError::Unavailable("too many transactions of this process wait for etcd; try again".into()).into());
        };
        let mut begun = false;
        for _ in 0..SESSIONS {
            let session = match self.session().await {
                Ok(session) => session,
                Err(e) => {
                    lock(&self.ledger).settle(txn.id, Outcome::Aborted, 0);
                    return Err(e.into());
                }
            };
            let slot = session.take();
            if !self.begin(txn.id, &slot, begun) {
                slot.give_back(slot.modified);
                return Err(TxnError::Conflict { at_least: self.revision().await? });
            }
            begun = true;
            match self.attempt(&txn, &slot).await {
                Try::Done(result) => return result,
                Try::SessionOver => session.end(),
            }
        }
        lock(&self.ledger).settle(txn.id, Outcome::Aborted, 0);
        let text = "etcd ended the session of this process again and again; check the clocks of its members";
        Err(StoreError::Unavailable(text.into()).into())
    }

    /// False if the transaction may not be sent: its id was used before, or somebody saw to it that it never happens.
    fn begin(&self, id: TxnId, slot: &Slot, again: bool) -> bool {
        let mut ledger = lock(&self.ledger);
        if again { ledger.begin_again(id, slot) } else { ledger.begin(id, slot) }
    }

    async fn attempt(&self, txn: &Txn, slot: &Slot) -> Try {
        let leases = self.unannounced(txn, &slot.session);
        let request = request(txn, slot, &leases, &self.keys);
        let answer: Result<wire::TxnResponse, _> = self.client.write(wire::TXN, &request, HASTE).await;
        let settle = |outcome, modified| lock(&self.ledger).settle(txn.id, outcome, modified);
        Try::Done(match answer {
            Ok(answer) if answer.succeeded => {
                let revision = revision_of(answer.header.as_ref());
                settle(Outcome::Committed(revision), signed(revision));
                self.announce(leases);
                self.asked(revision);
                Ok(revision)
            }
            Ok(answer) => {
                let at_least = revision_of(answer.header.as_ref());
                self.asked(at_least);
                let now = answer
                    .responses
                    .first()
                    .and_then(|r| r.range.as_ref())
                    .and_then(|r| r.kvs.first())
                    .map_or(0, |kv| kv.modified);
                if now == 0 && slot.modified != 0 {
                    return Try::SessionOver;
                }
                settle(Outcome::Aborted, now);
                Err(TxnError::Conflict { at_least })
            }
            Err(Failed::Doubt(status)) => {
                tracing::debug!(error = %status, "The answer of a transaction was lost");
                lock(&self.ledger).doubt(txn.id);
                Err(TxnError::Unknown)
            }
            Err(Failed::Not(status)) => {
                if says(&status, LEASE_NOT_FOUND) {
                    match self.lease_that_is_over(txn).await {
                        Ok(None) => return Try::SessionOver,
                        Ok(Some(lease)) => {
                            settle(Outcome::Aborted, slot.modified);
                            return Try::Done(Err(StoreError::LeaseOver(lease).into()));
                        }
                        Err(e) => {
                            settle(Outcome::Aborted, slot.modified);
                            return Try::Done(Err(e.into()));
                        }
                    }
                }
                settle(Outcome::Aborted, slot.modified);
                Err(store_error(&status).into())
            }
        })
    }

    async fn lease_that_is_over(&self, txn: &Txn) -> Result<Option<LeaseId>, StoreError> {
        for lease in leases_of(txn) {
            if self.lease_left(lease).await?.is_none() {
                return Ok(Some(LeaseId(unsigned(lease))));
            }
        }
        Ok(None)
    }

    /// A transaction that only compares.
    async fn check(&self, txn: &Txn) -> Result<Revision, TxnError> {
        // Without a read in it, etcd would answer from what this one member knows.
        let read = wire::RangeRequest { key: self.keys.form(), keys_only: true, ..Default::default() };
        let compare = txn.compares.iter().map(|c| compare(c, &self.keys)).collect();
        let request = wire::TxnRequest { compare, success: vec![read.clone().into()], failure: vec![read.into()] };
        let answer: wire::TxnResponse = self.client.read(wire::TXN, request, SHORT).await.map_err(|s| store_error(&s))?;
        let revision = revision_of(answer.header.as_ref());
        self.asked(revision);
        if answer.succeeded { Ok(revision) } else { Err(TxnError::Conflict { at_least: revision }) }
    }

    pub(crate) async fn resolve(&self, id: TxnId) -> Result<Outcome, StoreError> {
        let until = Instant::now() + RESOLVE;
        let mut round = 0;
        loop {
            let fate = {
                let mut ledger = lock(&self.ledger);
                let fate = ledger.fate(id);
                if fate.is_none() {
                    ledger.forbid(id);
                }
                fate
            };
            let slot = match fate {
                None => return Ok(Outcome::Aborted),
                Some(Fate::Known(outcome)) => return Ok(outcome),
                Some(Fate::Running(slot) | Fate::Doubt(slot)) => slot,
            };
            // Less and less hasty, as a cluster that has too much to do must not get more.
            let within = WRITE.min(HASTE * 2_u32.saturating_pow(round));
            let failed = match self.bar(id, &slot, within).await {
                Ok(Some(outcome)) => return Ok(outcome),
                // Someone else learnt the outcome meanwhile, or the attempt went on in another session.
                Ok(None) => StoreError::Unavailable("the outcome of a transaction is still open; ask again".into()),
                Err(Failed::Not(status)) if says(&status, LEASE_NOT_FOUND) => {
                    slot.session.end();
                    return Err(forgotten());
                }
                Err(failed) => failed.into(),
            };
            if Instant::now() >= until {
                return Err(failed);
            }
            sleep(AGAIN.jittered(round)).await;
            round += 1;
        }
    }

    /// Sees to it that the transaction cannot commit any more, unless it has.
    async fn bar(&self, id: TxnId, slot: &Slot, within: Duration) -> Result<Option<Outcome>, Failed> {
        let key = self.keys.slot(slot.session.lease, slot.number);
        let request = wire::TxnRequest {
            compare: vec![unmoved(slot, &self.keys)],
            success: vec![wire::PutRequest { key: key.clone(), value: barred(id).into(), lease: slot.session.lease }.into()],
            failure: vec![wire::RangeRequest { key, ..Default::default() }.into()],
        };
        let answer: wire::TxnResponse = self.client.write(wire::TXN, &request, within).await?;
        if answer.succeeded {
            let modified = answer.header.map_or(0, |h| h.revision);
            lock(&self.ledger).settle(id, Outcome::Aborted, modified);
            return Ok(Some(Outcome::Aborted));
        }
        let Some(kv) = answer.responses.into_iter().next().and_then(|r| r.range).and_then(|r| r.kvs.into_iter().next()) else {
            let still_open = !matches!(lock(&self.ledger).fate(id), Some(Fate::Known(_)));
            if still_open {
                slot.session.end();
                return Err(Failed::Not(tonic::Status::not_found(LEASE_NOT_FOUND)));
            }
            return Ok(None);
        };
        let outcome = outcome(id, &kv.value, kv.modified);
        if let Some(outcome) = outcome {
            lock(&self.ledger).settle(id, outcome, kv.modified);
        }
        Ok(outcome)
    }

    /// Leases whose key below `l/` this process has not seen to yet.
    fn unannounced(&self, txn: &Txn, session: &Session) -> BTreeSet<i64> {
        let announced = lock(&self.announced);
        let mut leases = leases_of(txn);
        leases.insert(session.lease);
        leases.retain(|l| !announced.contains(l));
        leases
    }

    fn announce(&self, leases: BTreeSet<i64>) {
        /// Beyond it they are announced again, which costs a write each and does no harm.
        const MANY: usize = 16_384;
        let mut announced = lock(&self.announced);
        if announced.len() > MANY {
            announced.clear();
        }
        announced.extend(leases);
    }
}

fn forgotten() -> StoreError {
    StoreError::Unavailable(
        "the outcome of a transaction cannot be learnt any more, as this process was cut off from etcd for too long; restart it"
            .into(),
    )
}

fn leases_of(txn: &Txn) -> BTreeSet<i64> {
    let lease = |w: &Write| match w {
        Write::Put { lease, .. } => lease.map(|l| signed(l.0)),
        Write::Delete { .. } => None,
    };
    txn.writes.iter().filter_map(lease).collect()
}

fn fits(txn: &Txn, keys: &Keys, limits: Limits) -> Result<(), StoreError> {
    let ops = txn.compares.len().max(txn.writes.len()) + leases_of(txn).len() + 2;
    if ops > limits.txn_ops {
        return Err(StoreError::Full(format!(
            "a transaction has {ops} operations and etcd takes {}; start its members with a larger --max-txn-ops and say so here",
            limits.txn_ops
        )));
    }
    let (compares, writes) = (
        txn.compares.iter().map(|c| match c {
            Compare::Absent(k) | Compare::Modified(k, _) => k.len(),
            Compare::Quiet { prefix, .. } => 2 * prefix.len(),
        }),
        txn.writes.iter().map(|w| match w {
            Write::Put { key, value, .. } => key.len() + value.len(),
            Write::Delete { key } => key.len(),
        }),
    );
    // Each carries its prefix, numbers and lengths.
    let bytes = compares.chain(writes).map(|n| n + keys.form().len() + 48).sum::<usize>() + 512;
    if bytes > limits.request_bytes {
        return Err(StoreError::Full(format!(
            "a transaction has {bytes} bytes and etcd takes {}; start its members with a larger --max-request-bytes and say so here",
            limits.request_bytes
        )));
    }
    Ok(())
}

fn unmoved(slot: &Slot, keys: &Keys) -> wire::Compare {
    let key = keys.slot(slot.session.lease, slot.number);
    wire::Compare { result: EQUAL, target: MODIFIED, key, modified: Some(slot.modified), ..Default::default() }
}

fn compare(c: &Compare, keys: &Keys) -> wire::Compare {
    match c {
        Compare::Absent(key) => {
            wire::Compare { result: EQUAL, target: CREATED, key: keys.row(key), created: Some(0), ..Default::default() }
        }
        // No row has revision 0, but for etcd a missing one has: never true.
        Compare::Modified(key, 0) => {
            wire::Compare { result: LESS, target: MODIFIED, key: keys.row(key), modified: Some(0), ..Default::default() }
        }
        Compare::Modified(key, revision) => {
            let modified = Some(signed(*revision));
            wire::Compare { result: EQUAL, target: MODIFIED, key: keys.row(key), modified, ..Default::default() }
        }
        Compare::Quiet { prefix, since } => {
            let (key, end) = keys.rows(prefix);
            let modified = Some(signed(*since).saturating_add(1));
            wire::Compare { result: LESS, target: MODIFIED, key, modified, end, ..Default::default() }
        }
    }
}

fn request(txn: &Txn, slot: &Slot, leases: &BTreeSet<i64>, keys: &Keys) -> wire::TxnRequest {
    let slot_key = keys.slot(slot.session.lease, slot.number);
    let compares = txn.compares.iter().map(|c| compare(c, keys));
    let writes = txn.writes.iter().map(|w| match w {
        Write::Put { key, value, lease } => {
            wire::PutRequest { key: keys.row(key), value: value.clone(), lease: lease.map_or(0, |l| signed(l.0)) }.into()
        }
        Write::Delete { key } => wire::DeleteRequest { key: keys.row(key) }.into(),
    });
    let announcements = leases.iter().map(|l| wire::PutRequest { key: keys.lease(*l), value: Bytes::new(), lease: *l }.into());
    let pass = wire::PutRequest { key: slot_key.clone(), value: passed(txn.id).into(), lease: slot.session.lease };
    wire::TxnRequest {
        compare: std::iter::once(unmoved(slot, keys)).chain(compares).collect(),
        success: writes.chain(announcements).chain([pass.into()]).collect(),
        failure: vec![wire::RangeRequest { key: slot_key, ..Default::default() }.into()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn txn(writes: Vec<Write>) -> Txn {
        Txn { id: TxnId(1), compares: vec![], writes }
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_size() {
        let keys = Keys::of("c").unwrap();
        let put = |n: usize| Write::Put { key: format!("t/{n}").into(), value: vec![0; n].into(), lease: None };
        let limits = Limits { txn_ops: 128, request_bytes: 1 << 20 };
        assert!(fits(&txn((0..126).map(put).collect()), &keys, limits).is_ok());
        let many = fits(&txn((0..127).map(put).collect()), &keys, limits).unwrap_err().to_string();
        assert!(many.contains("129 operations and etcd takes 128"), "{many}");
        let large = fits(&txn(vec![put(1 << 20)]), &keys, limits).unwrap_err().to_string();
        assert!(large.contains("etcd takes 1048576"), "{large}");
    }

    #[test]
    fn the_estimate_of_bytes_is_not_below_the_truth() {
        use prost::Message;
        let keys = Keys::of("a-cloud").unwrap();
        let lease = Some(LeaseId(u64::MAX >> 1));
        let writes = (0..100).map(|i| Write::Put { key: format!("t/{i}").into(), value: "v".into(), lease }).collect();
        let compares = (0..100)
            .map(|i| match i % 3 {
                0 => Compare::Absent(format!("t/{i}").into()),
                1 => Compare::Modified(format!("t/{i}").into(), u64::MAX >> 1),
                _ => Compare::Quiet { prefix: format!("t/{i}").into(), since: u64::MAX >> 1 },
            })
            .collect();
        let t = Txn { id: TxnId(u128::MAX), compares, writes };
        let slot = Session::new(i64::MAX).take();
        let real = request(&t, &slot, &leases_of(&t), &keys).encoded_len();
        assert!(
            fits(&t, &keys, Limits { txn_ops: 1000, request_bytes: real }).is_err(),
            "what is just as large as {real} is refused"
        );
    }
}
