//! The part that engines of one process share: recent history, watchers, and what became of recent transactions.
use crate::{Batch, Event, Outcome, Revision, TxnId, Watch, WatchEnd};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};
use tokio::sync::mpsc;

/// Batches that a watcher may lag behind before it is cut off.
const WATCH_QUEUE: usize = 4096;
/// Revisions of history that are kept for watchers that come back.
const HISTORY: usize = 16_384;
/// Transactions whose outcome is remembered; one that resolves later than this many commits is a bug in the caller.
const OUTCOMES: usize = 65_536;

struct Watcher {
    prefix: Box<str>,
    batches: mpsc::Sender<Batch>,
}

/// Not a lock by itself: engines keep it beside their rows, under the same lock.
#[derive(Default)]
pub struct Hub {
    revision: Revision,
    history: VecDeque<Batch>,
    watchers: Vec<Watcher>,
    outcomes: HashMap<TxnId, Outcome>,
    order: VecDeque<TxnId>,
}

impl Hub {
    pub fn at(revision: Revision) -> Self {
        Self { revision, ..Self::default() }
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// May this transaction still commit?
    pub fn is_aborted(&self, id: TxnId) -> bool {
        self.outcomes.get(&id) == Some(&Outcome::Aborted)
    }

    /// Takes in what was committed and tells the watchers. `revision` must be the next one.
    pub fn publish(&mut self, id: Option<TxnId>, events: Arc<[Event]>) -> Revision {
        self.revision += 1;
        let batch = Batch { revision: self.revision, events };
        if let Some(id) = id {
            self.note(id, Outcome::Committed(self.revision));
        }
        self.watchers.retain(|w| w.batches.try_send(below(&batch, &w.prefix)).is_ok());
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(batch);
        self.revision
    }

    /// The known outcome; an unknown transaction becomes aborted for good.
    pub fn resolve(&mut self, id: TxnId) -> Outcome {
        if let Some(o) = self.outcomes.get(&id) {
            return *o;
        }
        self.note(id, Outcome::Aborted);
        Outcome::Aborted
    }

    pub fn watch(&mut self, prefix: &str, after: Revision) -> Result<Watch, WatchEnd> {
        let oldest = self.revision - self.history.len() as u64;
        if after < oldest {
            return Err(WatchEnd::Compacted);
        }
        let missed = self.history.iter().filter(|b| b.revision > after);
        let (tx, rx) = mpsc::channel(WATCH_QUEUE + HISTORY);
        for batch in missed {
            if tx.try_send(below(batch, prefix)).is_err() {
                return Err(WatchEnd::Lagged);
            }
        }
        self.watchers.push(Watcher { prefix: prefix.into(), batches: tx });
        Ok(Watch::new(rx))
    }

    fn note(&mut self, id: TxnId, outcome: Outcome) {
        if self.order.len() == OUTCOMES
            && let Some(old) = self.order.pop_front()
        {
            self.outcomes.remove(&old);
        }
        self.order.push_back(id);
        self.outcomes.insert(id, outcome);
    }
}

fn below(batch: &Batch, prefix: &str) -> Batch {
    let inside = |e: &Event| match e {
        Event::Put(entry) => entry.key.starts_with(prefix),
        Event::Delete(key) => key.starts_with(prefix),
    };
    if batch.events.iter().all(inside) {
        return batch.clone();
    }
    Batch { revision: batch.revision, events: batch.events.iter().filter(|e| inside(e)).cloned().collect() }
}
