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
/// Bytes of history that are kept; a burst of large groups shortens it.
const HISTORY_BYTES: usize = 4 << 20;
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
    history_bytes: usize,
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
        self.history_bytes += weight(&batch);
        self.history.push_back(batch);
        while (self.history.len() > HISTORY || self.history_bytes > HISTORY_BYTES)
            && let Some(old) = self.history.pop_front()
        {
            self.history_bytes -= weight(&old);
        }
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

    /// The revision behind which the history begins.
    fn forgotten(&self) -> Revision {
        self.revision - self.history.len() as u64
    }

    /// Keys below `prefix` that were put after `since`, whatever became of them; `None` when the history does not reach back so far.
    pub fn puts_after(&self, prefix: &str, since: Revision) -> Option<Vec<Arc<str>>> {
        let skip = usize::try_from(since.checked_sub(self.forgotten())?).ok()?;
        let events = self.history.iter().skip(skip).flat_map(|b| b.events.iter());
        let put = |e: &Event| match e {
            Event::Put(e) if e.key.starts_with(prefix) => Some(e.key.clone()),
            Event::Put(_) | Event::Delete(_) => None,
        };
        Some(events.filter_map(put).collect())
    }

    pub fn watch(&mut self, prefix: &str, after: Revision) -> Result<Watch, WatchEnd> {
        if after < self.forgotten() {
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

/// About how much memory a batch holds.
fn weight(batch: &Batch) -> usize {
    let event = |e: &Event| match e {
        Event::Put(e) => size_of::<Event>() + e.key.len() + e.value.len(),
        Event::Delete(key) => size_of::<Event>() + key.len(),
    };
    size_of::<Batch>() + batch.events.iter().map(event).sum::<usize>()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Entry;

    fn put(key: &str, bytes: usize) -> Arc<[Event]> {
        let entry = Entry { key: key.into(), value: vec![0; bytes].into(), created: 0, modified: 0, lease: None };
        Arc::new([Event::Put(entry)])
    }

    #[test]
    fn history_is_bounded_in_number_and_in_bytes() {
        let mut hub = Hub::at(5);
        for _ in 0..HISTORY + 10 {
            hub.publish(None, put("a/b/c", 1));
        }
        assert_eq!(hub.history.len(), HISTORY);
        for _ in 0..100 {
            hub.publish(None, put("a/b/c", 1 << 20));
        }
        assert!(hub.history.len() < 16 && hub.history_bytes <= HISTORY_BYTES);
        assert_eq!(hub.history_bytes, hub.history.iter().map(weight).sum::<usize>());
        assert!(hub.watch("", hub.revision() - 3).is_ok());
        assert_eq!(hub.watch("", 6).err(), Some(WatchEnd::Compacted));
    }

    #[test]
    fn puts_are_found_as_far_as_the_history_reaches() {
        let mut hub = Hub::at(5);
        hub.publish(None, put("a/b/1", 1));
        hub.publish(None, put("a/c/2", 1));
        hub.publish(None, Arc::new([Event::Delete("a/b/1".into())]));
        assert_eq!(hub.puts_after("a/b/", 4), None);
        assert_eq!(hub.puts_after("a/b/", 5).unwrap(), ["a/b/1".into()]);
        assert!(hub.puts_after("a/b/", 6).unwrap().is_empty() && hub.puts_after("", 100).unwrap().is_empty());
    }
}
