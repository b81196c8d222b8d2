//! How long a request may take, and what its client is owed once its work has begun.
//!
//! A request has a deadline: the client's (`Prefer: wait=SECONDS`, RFC 7240) or ours. Work that has not begun by then is dropped, and so
//! is work whose client has left. A transaction that has begun is waited for: of it nobody could say that it did not happen.
use crate::{Error, Result, idempotency::Keyed};
use axum::http::HeaderMap;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use store::Turn;
use tokio::time::{Instant, timeout, timeout_at};

/// The longest deadline, and that of clients who name none.
pub(crate) const LONGEST: Duration = Duration::from_secs(60);
/// How much longer a transaction that has begun may take.
const GRACE: Duration = Duration::from_secs(30);

/// When a request that came at `start` is over. `None` for those that carry streams.
pub(crate) fn deadline(headers: &HeaderMap, start: Instant) -> Instant {
    let preferences = headers.get_all("prefer").iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split([',', ';']));
    let wait = preferences.filter_map(|p| p.split_once('=')).find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"));
    let seconds = wait.and_then(|(_, seconds)| seconds.trim().trim_matches('"').parse::<u64>().ok());
    start + seconds.map_or(LONGEST, Duration::from_secs).min(LONGEST)
}

pub(crate) fn late() -> Error {
    Error::unavailable("The request took too long and was given up before it changed anything; try again.")
}

fn unknown() -> Error {
    Error::unavailable(
        "The request took too long, and whether it was carried out is not known yet; look before you repeat it, or repeat it with its Idempotency-Key.",
    )
}

/// A request's right to be carried out.
#[derive(Default)]
pub(crate) struct Ticket {
    pub(crate) deadline: Option<Instant>,
    pub(crate) keyed: Option<Keyed>,
    /// Of the transaction that waits or is under way.
    turn: Mutex<Option<Arc<Turn>>>,
    /// Something was committed.
    written: AtomicBool,
}

impl Ticket {
    pub(crate) fn new(deadline: Option<Instant>, keyed: Option<Keyed>) -> Arc<Self> {
        Arc::new(Self { deadline, keyed, ..Self::default() })
    }
    pub(crate) fn has_written(&self) -> bool {
        self.written.load(Ordering::SeqCst)
    }
    pub(crate) fn note_written(&self) {
        self.written.store(true, Ordering::SeqCst);
    }
    /// The turn of the next transaction.
    pub(crate) fn turn(&self) -> Arc<Turn> {
        let turn = Arc::new(Turn::by(self.deadline));
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = Some(turn.clone());
        turn
    }
    /// Gives up what has not begun. True: nothing was changed, and nothing will be.
    pub(crate) fn leave(&self) -> bool {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner).clone();
        turn.is_none_or(|t| t.leave()) && !self.has_written()
    }
    /// Waits for work until the deadline, and longer for what has begun.
    pub(crate) async fn bound<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(deadline) = self.deadline else { return work.await };
        tokio::pin!(work);
        match timeout_at(deadline, &mut work).await {
            Ok(done) => done,
            Err(_) if self.leave() => Err(late()),
            Err(_) => timeout(GRACE, work).await.map_err(|_| unknown())?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_say_how_long_they_wait() {
        let seconds = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("prefer", value.parse().expect("a header"));
            let start = Instant::now();
            (deadline(&headers, start) - start).as_secs()
        };
        assert_eq!(seconds("wait=5"), 5);
        assert_eq!(seconds("respond-async, Wait = \"7\"; foo=1"), 7);
        assert_eq!(seconds("wait=100000"), 60);
        for none in ["return=minimal", "wait", "wait=-1", "wait=x", "wait="] {
            assert_eq!(seconds(none), 60, "{none}");
        }
    }
}
