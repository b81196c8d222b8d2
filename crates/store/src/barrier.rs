//! One question to the store for all readers that wait at once.
use crate::{Revision, Store, StoreError};
use std::sync::{Mutex, PoisonError};
use tokio::sync::oneshot;

type Waiter = oneshot::Sender<Result<Revision, StoreError>>;

/// Coalesces [`Store::revision`]: a caller joins a question that has not been sent yet, never one already under way.
#[derive(Default)]
pub(crate) struct Barrier(Mutex<State>);

#[derive(Default)]
struct State {
    asking: bool,
    waiters: Vec<Waiter>,
}

impl Barrier {
    pub(crate) async fn revision(&self, store: &dyn Store) -> Result<Revision, StoreError> {
        let receiver = {
            let mut s = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if s.asking {
                let (tx, rx) = oneshot::channel();
                s.waiters.push(tx);
                Some(rx)
            } else {
                s.asking = true;
                None
            }
        };
        match receiver {
            Some(rx) => match rx.await {
                Ok(answer) => answer,
                // The asker was dropped on the way: ask alone.
                Err(_) => store.revision().await,
            },
            None => {
                let guard = Asking(self);
                let answer = store.revision().await;
                guard.pass_on(store).await;
                answer
            }
        }
    }

    fn take(&self) -> Vec<Waiter> {
        let mut s = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if s.waiters.is_empty() {
            s.asking = false;
        }
        std::mem::take(&mut s.waiters)
    }
}

/// Holds the right to ask; gives it back even when the caller is dropped.
struct Asking<'a>(&'a Barrier);
impl Asking<'_> {
    async fn pass_on(self, store: &dyn Store) {
        let waiters = self.0.take();
        if !waiters.is_empty() {
            let answer = store.revision().await;
            for w in waiters {
                // A waiter that has left needs no answer.
                w.send(answer.clone()).ok();
            }
        }
    }
}
impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut s = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        s.asking = false;
        // Dropping the senders wakes those who came since; each asks alone.
        s.waiters.clear();
    }
}
