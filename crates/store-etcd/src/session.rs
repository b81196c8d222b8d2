//! How the outcome of a transaction is known although its answer was lost.
//!
//! ```text
//!            begin                    answer
//!   slot ────────────▶ running(slot) ─────────▶ known(committed | aborted), the slot is free again
//!                          │ no answer                 ▲
//!                          └──────────▶ doubt(slot) ───┘ resolve
//! ```
//!
//! A slot is a key of this process. A transaction takes a free one, compares that it was last written by the transaction that this
//! process knows of, and writes its own id there. To resolve one, the same compare is sent with a write of "aborted": if it holds,
//! the transaction did not happen, and now its compare fails for ever; if not, the key tells which of both was there. A slot is used again
//! only when what went through it is known.
//!
//! All slots of a process belong to a lease, its session, and go with it. A transaction writes its slot under that lease, so one
//! that was delayed somewhere for longer than the session cannot commit any more.
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use store::{Outcome, Revision, TxnId};

/// Transactions whose outcome is remembered; one that resolves later than this many commits is a bug in the caller.
const OUTCOMES: usize = 16_384;

pub(crate) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lease of this process, and its slots that are free.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) lease: i64,
    over: AtomicBool,
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    slots: Vec<(u32, i64)>,
    made: u32,
}

/// The right to write one key.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) session: Arc<Session>,
    pub(crate) number: u32,
    /// Revision that wrote it last; 0 before the first.
    pub(crate) modified: i64,
}

impl Session {
    pub(crate) fn new(lease: i64) -> Arc<Self> {
        Arc::new(Self { lease, over: AtomicBool::new(false), free: Mutex::default() })
    }
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }
    /// The slot that was used last, so that few are made.
    pub(crate) fn take(self: &Arc<Self>) -> Slot {
        let mut free = lock(&self.free);
        let (number, modified) = free.slots.pop().unwrap_or_else(|| {
            free.made += 1;
            (free.made, 0)
        });
        Slot { session: self.clone(), number, modified }
    }
}

impl Slot {
    /// Frees it; `modified` is the revision that it has now.
    pub(crate) fn give_back(&self, modified: i64) {
        lock(&self.session.free).slots.push((self.number, modified));
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Fate {
    Running(Slot),
    Doubt(Slot),
    Known(Outcome),
}

/// What became of the transactions of this process.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    fates: HashMap<TxnId, Fate>,
    order: VecDeque<TxnId>,
}

impl Ledger {
    pub(crate) fn fate(&self, id: TxnId) -> Option<Fate> {
        self.fates.get(&id).cloned()
    }

    /// False if the id was used before: then it must not be sent.
    pub(crate) fn begin(&mut self, id: TxnId, slot: &Slot) -> bool {
        if self.fates.contains_key(&id) {
            return false;
        }
        self.note(id, Fate::Running(slot.clone()));
        true
    }

    /// The same attempt goes on with another slot, as the first one surely did nothing. False if it was resolved meanwhile.
    pub(crate) fn begin_again(&mut self, id: TxnId, slot: &Slot) -> bool {
        match self.fates.get_mut(&id) {
            Some(fate @ Fate::Running(_)) => {
                *fate = Fate::Running(slot.clone());
                true
            }
            Some(Fate::Doubt(_) | Fate::Known(_)) | None => false,
        }
    }

    pub(crate) fn doubt(&mut self, id: TxnId) {
        if let Some(fate) = self.fates.get_mut(&id)
            && let Fate::Running(slot) = fate
        {
            *fate = Fate::Doubt(slot.clone());
        }
    }

    /// Takes the outcome in, and frees the slot unless that was done before.
    pub(crate) fn settle(&mut self, id: TxnId, outcome: Outcome, slot_modified: i64) {
        if let Some(fate) = self.fates.get_mut(&id)
            && let Fate::Running(slot) | Fate::Doubt(slot) = fate
        {
            slot.give_back(slot_modified);
            *fate = Fate::Known(outcome);
        }
    }

    /// It was never sent, and from now on may not be.
    pub(crate) fn forbid(&mut self, id: TxnId) {
        if !self.fates.contains_key(&id) {
            self.note(id, Fate::Known(Outcome::Aborted));
        }
    }

    fn note(&mut self, id: TxnId, fate: Fate) {
        if self.order.len() == OUTCOMES
            && let Some(old) = self.order.pop_front()
        {
            self.fates.remove(&old);
        }
        self.order.push_back(id);
        self.fates.insert(id, fate);
    }
}

/// What a slot holds: who went through it, or whose way was barred.
pub(crate) fn passed(id: TxnId) -> String {
    format!("+{:032x}", id.0)
}
pub(crate) fn barred(id: TxnId) -> String {
    format!("-{:032x}", id.0)
}

/// Reads what a slot holds after the attempt to bar `id`; `None` if it is about another transaction.
pub(crate) fn outcome(id: TxnId, value: &[u8], modified: i64) -> Option<Outcome> {
    if value == passed(id).as_bytes() {
        return Some(Outcome::Committed(Revision::try_from(modified).unwrap_or_default()));
    }
    (value == barred(id).as_bytes()).then_some(Outcome::Aborted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_in_doubt_is_not_used_again_before_it_is_known() {
        let session = Session::new(7);
        let mut ledger = Ledger::default();
        let slot = session.take();
        assert!(ledger.begin(TxnId(1), &slot) && !ledger.begin(TxnId(1), &slot));
        ledger.doubt(TxnId(1));
        assert_eq!(session.take().number, 2, "the first slot is not free");
        assert!(!ledger.begin_again(TxnId(1), &slot));
        ledger.settle(TxnId(1), Outcome::Committed(5), 5);
        ledger.settle(TxnId(1), Outcome::Aborted, 6);
        assert!(matches!(ledger.fate(TxnId(1)), Some(Fate::Known(Outcome::Committed(5)))));
        let again = session.take();
        assert_eq!((again.number, again.modified), (1, 5));
        assert_eq!(session.take().number, 3, "it was given back once");
    }

    #[test]
    fn what_was_resolved_before_it_was_sent_is_never_sent() {
        let (session, mut ledger) = (Session::new(7), Ledger::default());
        ledger.forbid(TxnId(1));
        assert!(!ledger.begin(TxnId(1), &session.take()));
    }

    #[test]
    fn the_memory_of_outcomes_is_bounded() {
        let mut ledger = Ledger::default();
        for i in 0..OUTCOMES as u128 + 10 {
            ledger.forbid(TxnId(i));
        }
        assert_eq!((ledger.fates.len(), ledger.order.len()), (OUTCOMES, OUTCOMES));
        assert!(ledger.fate(TxnId(9)).is_none() && ledger.fate(TxnId(10)).is_some());
    }

    #[test]
    fn a_slot_tells_who_passed() {
        let id = TxnId(u128::MAX);
        assert_eq!(outcome(id, passed(id).as_bytes(), 9), Some(Outcome::Committed(9)));
        assert_eq!(outcome(id, barred(id).as_bytes(), 9), Some(Outcome::Aborted));
        assert_eq!(outcome(TxnId(1), passed(id).as_bytes(), 9), None);
    }
}
