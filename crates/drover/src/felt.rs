//! Whether this controller can serve, from how the store answers it.
//!
//! One that was away, or has just begun, is slow at first: its member of etcd catches up and its connections are made anew, while the other
//! controllers can do what there is to do. One that missed an answer, as all do in an election, is back at the next.
use std::time::Duration;
use tokio::time::Instant;

/// Who has had no answer for no longer than this was not away.
const BRIEF: Duration = Duration::from_secs(1);
/// An answer that takes no longer is a good one, and so many in a row are enough.
const GOOD: Duration = Duration::from_millis(100);
const IN_A_ROW: u32 = 6;
/// Where no answers are that good, these are all there are.
const AT_LAST: Duration = Duration::from_secs(5);

/// How the store has answered until now.
#[derive(Debug, Default)]
pub(crate) struct Felt {
    ready: bool,
    /// Since when there is no answer.
    missed: Option<Instant>,
    /// Since when there are answers.
    answered: Option<Instant>,
    good: u32,
}

impl Felt {
    /// Takes in what was asked last, and how long the answer took if there was one. Whether this controller can serve.
    pub(crate) fn takes(&mut self, answer: Option<Duration>, now: Instant) -> bool {
        let Some(took) = answer else {
            let missed = self.missed.or_else(|| self.ready.then_some(now));
            *self = Self { missed, ..Self::default() };
            return false;
        };
        let brief = self.missed.take().is_some_and(|missed| now - missed <= BRIEF);
        let answered = *self.answered.get_or_insert(now);
        self.good = if took <= GOOD { self.good + 1 } else { 0 };
        self.ready |= brief || self.good >= IN_A_ROW || now - answered >= AT_LAST;
        self.ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Option<Duration> = Some(Duration::from_millis(5));
    const SLOW: Option<Duration> = Some(Duration::from_millis(150));

    /// The answers of a store that is asked every 0.15 s.
    fn after(answers: &[Option<Duration>]) -> bool {
        let (mut felt, mut now) = (Felt::default(), Instant::now());
        let mut ready = false;
        for answer in answers {
            ready = felt.takes(*answer, now);
            now += Duration::from_millis(150);
        }
        ready
    }

    #[test]
    fn who_was_away_serves_after_good_answers_in_a_row() {
        assert!(!after(&[QUICK; 5]), "it has just begun");
        assert!(after(&[QUICK; 6]));
        let away = [vec![QUICK; 6], vec![None; 20]].concat();
        assert!(!after(&[away.clone(), vec![QUICK; 5]].concat()));
        assert!(!after(&[away.clone(), vec![QUICK; 3], vec![SLOW], vec![QUICK; 5]].concat()));
        assert!(after(&[away, vec![QUICK; 6]].concat()));
    }

    #[test]
    fn who_missed_an_answer_is_back_at_the_next() {
        let ready = vec![QUICK; 6];
        assert!(!after(&[ready.clone(), vec![None; 2]].concat()));
        assert!(after(&[ready.clone(), vec![None; 2], vec![SLOW]].concat()));
        assert!(after(&[ready, vec![SLOW; 3]].concat()), "slow answers are answers");
    }

    #[test]
    fn a_slow_store_is_served_from_as_well() {
        assert!(!after(&[SLOW; 33]));
        assert!(after(&[SLOW; 36]));
    }
}
