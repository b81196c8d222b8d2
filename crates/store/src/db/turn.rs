//! Whose move it is: a waiting transaction's, to begin, or its caller's, to leave. Never both.
use std::sync::atomic::{AtomicU8, Ordering};
use tokio::{sync::Notify, time::Instant};

const WAITING: u8 = 0;
const UNDER_WAY: u8 = 1;
const LEFT: u8 = 2;

/// See the module.
#[derive(Debug)]
pub struct Turn {
    state: AtomicU8,
    deadline: Option<Instant>,
    paused: Notify,
}

impl Turn {
    /// Of a transaction that is to begin, and be tried again, until the deadline.
    pub fn by(deadline: Option<Instant>) -> Self {
        Self { state: AtomicU8::new(WAITING), deadline, paused: Notify::new() }
    }

    /// Gives the transaction up, unless it is under way. True: it never will be.
    pub fn leave(&self) -> bool {
        self.step(WAITING, LEFT) || self.is(LEFT)
    }

    /// Takes the transaction up; it may be under way already. False if the caller has left, or should have.
    pub(super) fn begin(&self) -> bool {
        if self.is_past() {
            self.pause();
            return false;
        }
        self.step(WAITING, UNDER_WAY) || self.is(UNDER_WAY)
    }

    /// Nothing of it is under way any more.
    pub(super) fn pause(&self) {
        if self.step(UNDER_WAY, WAITING) {
            self.paused.notify_one();
        }
    }

    /// Returns once the deadline has passed and nothing was begun, or it failed; then nothing ever will be.
    pub(super) async fn left(&self) {
        match self.deadline {
            None => std::future::pending().await,
            Some(deadline) => tokio::time::sleep_until(deadline).await,
        }
        while !self.leave() {
            self.paused.notified().await;
        }
    }

    /// Was it given up?
    pub(super) fn is_over(&self) -> bool {
        self.is(LEFT) || self.is_past()
    }

    fn is_past(&self) -> bool {
        self.deadline.is_some_and(|d| d <= Instant::now())
    }
    fn is(&self, state: u8) -> bool {
        self.state.load(Ordering::SeqCst) == state
    }
    fn step(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}
