//! One question to the store for all readers that wait at once.
use crate::{Revision, Store, StoreError};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::oneshot, time::timeout};

/// How long the store may take to say what its newest revision is.
const PATIENCE: Duration = Duration::from_secs(10);

type Waiter = oneshot::Sender<Result<Revision, StoreError>>;

async fn ask(store: &Arc<dyn Store>) -> Result<Revision, StoreError> {
    let silent = |_| StoreError::Unavailable(format!("it did not tell its revision in {PATIENCE:?}"));
    timeout(PATIENCE, store.revision()).await.map_err(silent)?
}

/// Coalesces [`Store::revision`]: a caller joins a question that has not been sent yet, never one already under way.
#[derive(Clone, Default)]
pub(crate) struct Barrier(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    asking: bool,
    waiters: Vec<Waiter>,
}

impl Barrier {
    pub(crate) async fn revision(&self, store: &Arc<dyn Store>) -> Result<Revision, StoreError> {
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
                // The asker died on the way: ask alone.
                Err(_) => ask(store).await,
            },
            None => {
                let _turn = Turn(self, store);
                ask(store).await
            }
        }
    }

    /// Those who came since the last question was sent; without any, the right to ask is free again.
    fn take(&self) -> Vec<Waiter> {
        let mut s = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        s.asking = !s.waiters.is_empty();
        std::mem::take(&mut s.waiters)
    }

    /// Asks for those who wait until nobody does.
    async fn serve(self, store: Arc<dyn Store>, mut waiters: Vec<Waiter>) {
        let rounds = async {
            while !waiters.is_empty() {
                let answer = ask(&store).await;
                for w in waiters {
                    // A waiter that has left needs no answer.
                    w.send(answer.clone()).ok();
                }
                waiters = self.take();
            }
        };
        let end = Free(&self);
        rounds.await;
        std::mem::forget(end);
    }
}

/// Frees the right to ask when an asker dies. Dropping the waiters wakes them, and each asks alone.
struct Free<'a>(&'a Barrier);
impl Drop for Free<'_> {
    fn drop(&mut self) {
        let mut s = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        s.asking = false;
        s.waiters.clear();
    }
}

/// The turn of the caller who asks for itself; ends with the answer, or when the caller is dropped.
struct Turn<'a>(&'a Barrier, &'a Arc<dyn Store>);
impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let waiters = self.0.take();
        if waiters.is_empty() {
            return;
        }
        match tokio::runtime::Handle::try_current() {
            // Not by this caller: under load it would serve the others for ever.
            Ok(runtime) => drop(runtime.spawn(self.0.clone().serve(self.1.clone(), waiters))),
            Err(_) => drop(Free(self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Memory, faulty::Faulty};

    #[tokio::test]
    async fn readers_that_wait_at_once_share_questions() {
        let store = Arc::new(Faulty::new(Memory::new(), 1, 0.0).with_delay(Duration::from_millis(5)));
        let (barrier, dynamic) = (Barrier::default(), store.clone() as Arc<dyn Store>);
        let all: Vec<_> = (0..200)
            .map(|i| {
                let (barrier, store) = (barrier.clone(), dynamic.clone());
                tokio::spawn(async move {
                    // They come in three crowds, so that some come while the second question is under way.
                    tokio::time::sleep(Duration::from_millis(3 * (i % 3))).await;
                    barrier.revision(&store).await
                })
            })
            .collect();
        for t in all {
            t.await.unwrap().unwrap();
        }
        assert!(store.questions() <= 6, "{} questions for three crowds", store.questions());
        barrier.revision(&dynamic).await.unwrap();
    }

    #[tokio::test]
    async fn an_asker_that_leaves_strands_nobody() {
        let store: Arc<dyn Store> = Arc::new(Faulty::new(Memory::new(), 1, 0.0).with_delay(Duration::from_millis(20)));
        let barrier = Barrier::default();
        let ask = |b: Barrier| {
            let store = store.clone();
            tokio::spawn(async move { b.revision(&store).await })
        };
        let first = ask(barrier.clone());
        tokio::task::yield_now().await;
        let second = ask(barrier.clone());
        tokio::task::yield_now().await;
        first.abort();
        let answer = tokio::time::timeout(Duration::from_secs(10), second).await.expect("the second caller is answered");
        assert_eq!(answer.unwrap().unwrap(), 0);
    }
}
