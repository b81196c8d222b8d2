//! A store that loses, refuses and delays commits at a rate, from a seed. Around any engine; for tests.
use crate::{Entry, LeaseId, Outcome, Page, Pending, Range, Revision, Store, StoreError, Txn, TxnError, TxnId, Watch, WatchEnd};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
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

/// See the module.
pub struct Faulty {
    inner: Arc<dyn Store>,
    dice: Mutex<StdRng>,
    rate: f64,
    delay: Duration,
    watch_delay: Duration,
    questions: AtomicU64,
    /// Closed while it is true.
    gate: watch::Sender<bool>,
    before_gate: AtomicUsize,
}

impl Faulty {
    /// `rate` of all transactions meet one of the faults, in `0.0..=1.0`.
    pub fn new(inner: Arc<dyn Store>, seed: u64, rate: f64) -> Self {
        let dice = Mutex::new(StdRng::seed_from_u64(seed));
        let (gate, before_gate) = (watch::channel(false).0, AtomicUsize::new(0));
        Self {
            inner,
            dice,
            rate,
            delay: Duration::ZERO,
            watch_delay: Duration::ZERO,
            questions: AtomicU64::new(0),
            gate,
            before_gate,
        }
    }

    /// Each answer of [`Store::revision`] takes this long.
    pub fn with_delay(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Watchers learn of each batch this much later than they could.
    pub fn with_watch_delay(self, watch_delay: Duration) -> Self {
        Self { watch_delay, ..self }
    }

    /// How often [`Store::revision`] was asked.
    pub fn questions(&self) -> u64 {
        self.questions.load(Ordering::SeqCst)
    }

    /// Commits wait from now on, or do not any more.
    pub fn hold(&self, hold: bool) {
        self.gate.send_replace(hold);
    }

    /// Commits that wait.
    pub fn held(&self) -> usize {
        self.before_gate.load(Ordering::SeqCst)
    }

    async fn pass_gate(&self) {
        self.before_gate.fetch_add(1, Ordering::SeqCst);
        // The sender lives as long as we do.
        self.gate.subscribe().wait_for(|closed| !closed).await.ok();
        self.before_gate.fetch_sub(1, Ordering::SeqCst);
    }

    fn draw(&self) -> Option<Fault> {
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        dice.random_bool(self.rate).then(|| match dice.random_range(0..4) {
            0 => Fault::Conflict,
            1 => Fault::Lost,
            2 => Fault::AnswerLost,
            _ => Fault::Late,
        })
    }
}

impl Store for Faulty {
    fn txn(&self, txn: Txn) -> Pending<'_, Result<Revision, TxnError>> {
        Box::pin(async move {
            self.pass_gate().await;
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
        })
    }
    fn resolve(&self, id: TxnId) -> Pending<'_, Result<Outcome, StoreError>> {
        self.inner.resolve(id)
    }
    fn get<'a>(&'a self, key: &'a str) -> Pending<'a, Result<Option<Entry>, StoreError>> {
        self.inner.get(key)
    }
    fn range<'a>(&'a self, range: Range<'a>) -> Pending<'a, Result<Page, StoreError>> {
        self.inner.range(range)
    }
    fn revision(&self) -> Pending<'_, Result<Revision, StoreError>> {
        Box::pin(async move {
            self.questions.fetch_add(1, Ordering::SeqCst);
            if !self.delay.is_zero() {
                tokio::time::sleep(self.delay).await;
            }
            self.inner.revision().await
        })
    }
    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> Pending<'a, Result<Watch, WatchEnd>> {
        Box::pin(async move {
            let mut watch = self.inner.watch(prefix, after).await?;
            if self.watch_delay.is_zero() {
                return Ok(watch);
            }
            let (late, batches) = mpsc::channel(1024);
            let delay = self.watch_delay;
            tokio::spawn(async move {
                while let Ok(batch) = watch.next().await {
                    tokio::time::sleep(delay).await;
                    if late.send(batch).await.is_err() {
                        return;
                    }
                }
            });
            Ok(Watch::new(batches))
        })
    }
    fn lease_grant(&self, ttl: Duration) -> Pending<'_, Result<LeaseId, StoreError>> {
        self.inner.lease_grant(ttl)
    }
    fn lease_keep_alive(&self, lease: LeaseId) -> Pending<'_, Result<(), StoreError>> {
        self.inner.lease_keep_alive(lease)
    }
    fn lease_revoke(&self, lease: LeaseId) -> Pending<'_, Result<(), StoreError>> {
        self.inner.lease_revoke(lease)
    }
    fn max_ops(&self) -> usize {
        self.inner.max_ops()
    }
}
