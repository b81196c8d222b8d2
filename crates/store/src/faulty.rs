//! A store that loses, refuses, delays and cuts off, from a seed. Around any engine; for tests and simulation.
//!
//! Each process of a cloud has one of its own around the engine that all share: what it meets is its own link to the store.
use crate::{
    Batch, Entry, LeaseId, Outcome, Page, Pending, Range, Revision, Store, StoreError, Txn, TxnError, TxnId, Watch, WatchEnd,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, watch};

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Refused although nothing conflicts.
    Conflict,
    /// The request is lost; the caller learns nothing.
    Lost,
    /// Carried out; the answer is lost.
    AnswerLost,
    /// Carried out later, after the caller was told that nothing is known.
    Late,
}

/// What gets through to the store. Calls that do not get through wait until they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Open,
    /// Everything but transactions.
    Held,
    /// Nothing: the link is cut, or the process at its end is stopped.
    Cut,
    /// Requests do; answers and watched changes do not.
    NoAnswers,
    /// Everything, but the disk is full: transactions that write are refused.
    Full,
}

impl Way {
    fn lets_in(self, is_txn: bool) -> bool {
        match self {
            Self::Open | Self::NoAnswers | Self::Full => true,
            Self::Held => !is_txn,
            Self::Cut => false,
        }
    }
    fn lets_out(self) -> bool {
        !matches!(self, Self::Cut | Self::NoAnswers)
    }
}

struct Dice {
    rng: StdRng,
    /// Of all transactions, in `0.0..=1.0`.
    rate: f64,
    /// Longest time that a request takes to the store, and its answer back.
    latency: Duration,
}

/// See the module.
pub struct Faulty {
    inner: Arc<dyn Store>,
    dice: Mutex<Dice>,
    delay: Duration,
    watch_delay: Duration,
    questions: AtomicU64,
    way: watch::Sender<Way>,
    before_gate: AtomicUsize,
}

impl Faulty {
    /// `rate` of all transactions meet one of the faults, in `0.0..=1.0`.
    pub fn new(inner: Arc<dyn Store>, seed: u64, rate: f64) -> Self {
        let dice = Mutex::new(Dice { rng: StdRng::seed_from_u64(seed), rate, latency: Duration::ZERO });
        let (way, before_gate) = (watch::Sender::new(Way::Open), AtomicUsize::new(0));
        Self { inner, dice, delay: Duration::ZERO, watch_delay: Duration::ZERO, questions: AtomicU64::new(0), way, before_gate }
    }

    /// Each answer of [`Store::revision`] takes this long.
    pub fn with_delay(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Watchers learn of each batch this much later than they could.
    pub fn with_watch_delay(self, watch_delay: Duration) -> Self {
        Self { watch_delay, ..self }
    }

    /// From now on `rate` of all transactions meet a fault, and each call takes up to `latency` on its way and on its way back.
    pub fn trouble(&self, rate: f64, latency: Duration) {
        let mut dice = self.dice();
        (dice.rate, dice.latency) = (rate, latency);
    }

    /// How often [`Store::revision`] was asked.
    pub fn questions(&self) -> u64 {
        self.questions.load(Ordering::SeqCst)
    }

    /// What gets through from now on.
    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// What gets through now.
    pub fn way(&self) -> Way {
        *self.way.borrow()
    }

    /// Transactions that wait to get through.
    pub fn held(&self) -> usize {
        self.before_gate.load(Ordering::SeqCst)
    }

    fn dice(&self) -> MutexGuard<'_, Dice> {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn lag(&self) {
        let time = {
            let mut dice = self.dice();
            let most = dice.latency;
            if most.is_zero() { most } else { most.mul_f64(dice.rng.random::<f64>()) }
        };
        if !time.is_zero() {
            tokio::time::sleep(time).await;
        }
    }

    /// On the way to the store.
    async fn go(&self) {
        // The sender lives as long as we do.
        self.way.subscribe().wait_for(|way| way.lets_in(false)).await.ok();
        self.lag().await;
    }

    /// On the way back.
    async fn back(&self) {
        self.lag().await;
        self.way.subscribe().wait_for(|way| way.lets_out()).await.ok();
    }

    fn draw(&self) -> Option<Fault> {
        let mut dice = self.dice();
        let rate = dice.rate;
        dice.rng.random_bool(rate).then(|| match dice.rng.random_range(0..4) {
            0 => Fault::Conflict,
            1 => Fault::Lost,
            2 => Fault::AnswerLost,
            _ => Fault::Late,
        })
    }

    async fn carry_out(&self, txn: Txn) -> Result<Revision, TxnError> {
        if !txn.writes.is_empty() && self.way() == Way::Full {
            return Err(StoreError::Full("its disk is full".into()).into());
        }
        match self.draw() {
            None => self.inner.txn(txn).await,
            Some(Fault::Conflict) => Err(TxnError::Conflict { at_least: self.inner.revision().await? }),
            Some(Fault::Lost) => Err(TxnError::Unknown),
            Some(Fault::AnswerLost) => {
                self.inner.txn(txn).await?;
                Err(TxnError::Unknown)
            }
            Some(Fault::Late) => {
                let inner = self.inner.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    inner.txn(txn).await
                });
                Err(TxnError::Unknown)
            }
        }
    }

    /// A call that reaches the store as it is, and takes its time.
    async fn call<T>(&self, call: Pending<'_, T>) -> T {
        self.go().await;
        let answer = call.await;
        self.back().await;
        answer
    }
}

/// Passes on what is watched, when it gets through.
async fn relay(mut watch: Watch, to: mpsc::Sender<Batch>, delay: Duration, mut way: watch::Receiver<Way>) {
    let pass = async {
        while let Ok(batch) = watch.next().await {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            // A link that is no more lets nothing through.
            if way.wait_for(|way| way.lets_out()).await.is_err() || to.send(batch).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = pass => {}
        () = to.closed() => {}
    }
}

impl Store for Faulty {
    fn txn(&self, txn: Txn) -> Pending<'_, Result<Revision, TxnError>> {
        Box::pin(async move {
            self.before_gate.fetch_add(1, Ordering::SeqCst);
            self.way.subscribe().wait_for(|way| way.lets_in(true)).await.ok();
            self.before_gate.fetch_sub(1, Ordering::SeqCst);
            self.lag().await;
            let answer = self.carry_out(txn).await;
            self.back().await;
            answer
        })
    }
    fn resolve(&self, id: TxnId) -> Pending<'_, Result<Outcome, StoreError>> {
        Box::pin(self.call(self.inner.resolve(id)))
    }
    fn get<'a>(&'a self, key: &'a str) -> Pending<'a, Result<Option<Entry>, StoreError>> {
        Box::pin(self.call(self.inner.get(key)))
    }
    fn range<'a>(&'a self, range: Range<'a>) -> Pending<'a, Result<Page, StoreError>> {
        Box::pin(self.call(self.inner.range(range)))
    }
    fn revision(&self) -> Pending<'_, Result<Revision, StoreError>> {
        Box::pin(async move {
            self.questions.fetch_add(1, Ordering::SeqCst);
            if !self.delay.is_zero() {
                tokio::time::sleep(self.delay).await;
            }
            self.call(self.inner.revision()).await
        })
    }
    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> Pending<'a, Result<Watch, WatchEnd>> {
        Box::pin(async move {
            let watch = self.call(self.inner.watch(prefix, after)).await?;
            let (late, batches) = mpsc::channel(1024);
            tokio::spawn(relay(watch, late, self.watch_delay, self.way.subscribe()));
            Ok(Watch::new(batches))
        })
    }
    fn lease_grant(&self, ttl: Duration) -> Pending<'_, Result<LeaseId, StoreError>> {
        Box::pin(self.call(self.inner.lease_grant(ttl)))
    }
    fn lease_keep_alive(&self, lease: LeaseId) -> Pending<'_, Result<(), StoreError>> {
        Box::pin(self.call(self.inner.lease_keep_alive(lease)))
    }
    fn lease_revoke(&self, lease: LeaseId) -> Pending<'_, Result<(), StoreError>> {
        Box::pin(self.call(self.inner.lease_revoke(lease)))
    }
    fn max_ops(&self) -> usize {
        self.inner.max_ops()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Memory, Write};
    use tokio::time::timeout;

    fn put(key: &str) -> Txn {
        let write = Write::Put { key: key.into(), value: "{}".into(), lease: None };
        Txn { id: TxnId::random(), compares: Vec::new(), writes: vec![write] }
    }

    #[tokio::test(start_paused = true)]
    async fn each_way_lets_through_what_it_says() {
        let inner = Memory::new();
        let store = Faulty::new(inner.clone(), 1, 0.0);
        let mut watch = store.watch("", 0).await.unwrap();
        let soon = Duration::from_secs(1);
        let reads = async |way| {
            store.set(way);
            timeout(soon, store.revision()).await.is_ok()
        };
        let writes = async |way| {
            store.set(way);
            timeout(soon, store.txn(put("a/b/c"))).await.ok()
        };
        assert!(matches!(writes(Way::Open).await, Some(Ok(1))) && reads(Way::Open).await);
        assert!(matches!(writes(Way::Full).await, Some(Err(TxnError::Store(StoreError::Full(_))))) && reads(Way::Full).await);
        assert!(writes(Way::Held).await.is_none() && reads(Way::Held).await);
        assert!(writes(Way::Cut).await.is_none() && !reads(Way::Cut).await);
        assert_eq!(inner.revision().await.unwrap(), 1);
        assert!(writes(Way::NoAnswers).await.is_none() && !reads(Way::NoAnswers).await);
        assert_eq!(inner.revision().await.unwrap(), 2, "it was carried out");
        assert_eq!(watch.next().await.unwrap().revision, 1);
        assert!(timeout(soon, watch.next()).await.is_err(), "changes are answers, too");
        store.set(Way::Open);
        assert_eq!(watch.next().await.unwrap().revision, 2);
    }
}
