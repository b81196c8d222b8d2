//! Backoff with jitter: every retry in Drover waits by this rule.
use std::time::Duration;

/// Exponential growth from `first` to `most`, each wait drawn from the upper half of its step.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    pub first: Duration,
    pub most: Duration,
}

impl Backoff {
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most }
    }
    /// The wait before retry number `attempt`, counted from 0; `dice` is uniform in `0.0..1.0`.
    pub fn wait(&self, attempt: u32, dice: f64) -> Duration {
        let step = self.first.saturating_mul(2u32.saturating_pow(attempt.min(20))).min(self.most);
        step.mul_f64(0.5 + 0.5 * dice.clamp(0.0, 1.0))
    }
    /// [`Self::wait`] with a random draw.
    pub fn jittered(&self, attempt: u32) -> Duration {
        self.wait(attempt, rand::random::<f64>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_stops_growing() {
        let b = Backoff::new(Duration::from_millis(10), Duration::from_millis(100));
        assert_eq!(b.wait(0, 1.0), Duration::from_millis(10));
        assert_eq!(b.wait(2, 1.0), Duration::from_millis(40));
        assert_eq!(b.wait(40, 0.0), Duration::from_millis(50));
    }
}
