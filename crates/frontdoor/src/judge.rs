//! What a door does about each controller, and what time it is, as pure functions of what the controllers say of themselves.
use base::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a controller says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Readiness {
    /// It can serve right now.
    Ready,
    /// It cannot: it does not reach the store, for example.
    Unready,
    /// It finishes what it has and wants nothing new.
    Draining,
}

/// The last that is known of a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) readiness: Readiness,
    /// Since it said something else than that it is unready.
    pub(crate) unready: Duration,
    /// Since it said anything.
    pub(crate) silent: Duration,
}

/// Twenty words a second are said: a controller that missed three gets nothing new. A busy one loses nothing by that.
pub(crate) const SILENT: Duration = Duration::from_millis(175);
/// What it has not finished is taken from it: requests that may be repeated are, on another.
const GONE: Duration = Duration::from_millis(400);
/// The same for one that answers: its requests wait for the store, which may only be slow.
const LOST: Duration = Duration::from_secs(5);

impl Known {
    fn serves(self) -> bool {
        self.readiness == Readiness::Ready && self.silent < SILENT
    }
}

/// haproxy's words for its agent about one controller among `all`. Where nobody can serve, nobody is taken out: an election in the store
/// lasts a moment, and requests wait for it where they are.
pub(crate) fn word(one: Known, all: &[Known]) -> &'static str {
    match one {
        _ if !all.iter().any(|k| k.serves()) => "up ready\n",
        _ if one.silent >= GONE || one.unready >= LOST => "down\n",
        _ if one.serves() => "up ready\n",
        _ => "up drain\n",
    }
}

/// Is nothing heard of any other controller, neither by its pulse nor by the store, which answers when most of them do? Whoever is so must
/// not keep the address: what it sends may arrive still, so that the others would leave it to it. On a machine that is too busy words are
/// late, and the store's answers go on. `store` is how long it has been silent.
///
/// Those who left in order, and said so, do not count: the last one that serves owes its clients their answers. It keeps the address as
/// long as it may still reach the store, as some of them may come back unheard.
pub(crate) fn alone(own: Known, store: Duration, others: &[Known]) -> bool {
    let mut stayed = others.iter().filter(|k| k.readiness != Readiness::Draining).peekable();
    match stayed.peek() {
        None => !others.is_empty() && own.unready.max(own.silent) >= LOST,
        Some(_) => store >= SILENT && stayed.all(|k| k.silent >= SILENT),
    }
}

/// Clocks that differ by less agree: they are kept by NTP, and a question takes its time.
const AGREED: Duration = Duration::from_secs(2);

/// What most of `all` controllers take for the time: this one's clock where it agrees with most, another one's where it is this one that
/// differs. Nothing when no time has a majority: then nobody's clock is a reason to change one's mind.
pub(crate) fn time(own: Timestamp, others: &[Timestamp], all: usize) -> Option<Timestamp> {
    let agree = |a: Timestamp, b: Timestamp| a.since(b).max(b.since(a)) < AGREED;
    let has_majority = |of: Timestamp| others.iter().chain([&own]).filter(|t| agree(of, **t)).count() > all / 2;
    [own].into_iter().chain(others.iter().copied()).find(|t| has_majority(*t))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_what_most_clocks_say() {
        let at = Timestamp::from_unix;
        for (own, others, all, expected) in [
            (100, &[][..], 1, Some(100)),
            (100, &[101], 2, Some(100)),
            (100, &[400], 2, None),
            (100, &[101, 400], 3, Some(100)),
            (400, &[100, 101], 3, Some(100)),
            (100, &[400], 3, None),
            (100, &[101], 3, Some(100)),
            (100, &[], 3, None),
            (100, &[400, 700], 3, None),
            (700, &[100, 100, 700], 4, None),
        ] {
            let others: Vec<_> = others.iter().map(|s| at(*s)).collect();
            assert_eq!(time(at(own), &others, all), expected.map(at), "{own} among {others:?} of {all}");
        }
    }

    const NOW: Duration = Duration::ZERO;
    const READY: Known = Known { readiness: Readiness::Ready, unready: NOW, silent: NOW };

    fn unready(ms: u64) -> Known {
        Known { readiness: Readiness::Unready, unready: Duration::from_millis(ms), silent: NOW }
    }
    fn silent(ms: u64) -> Known {
        Known { silent: Duration::from_millis(ms), ..READY }
    }

    #[test]
    fn who_cannot_serve_is_left_to_others_first_and_given_up_later() {
        let draining = Known { readiness: Readiness::Draining, ..READY };
        for (one, expected) in [
            (READY, "up ready\n"),
            (silent(150), "up ready\n"),
            (silent(300), "up drain\n"),
            (silent(400), "down\n"),
            (unready(0), "up drain\n"),
            (unready(4900), "up drain\n"),
            (unready(5000), "down\n"),
            (draining, "up drain\n"),
        ] {
            assert_eq!(word(one, &[one, READY]), expected, "{one:?}");
        }
    }

    #[test]
    fn where_nobody_can_serve_requests_wait() {
        for one in [unready(5000), silent(5000), Known { readiness: Readiness::Draining, ..READY }] {
            assert_eq!(word(one, &[one, unready(5000), silent(5000)]), "up ready\n");
        }
    }

    #[test]
    fn alone_is_who_hears_nobody_and_should() {
        let silence = Duration::from_millis(200);
        assert!(!alone(unready(9000), silence, &[]), "a cluster of one");
        assert!(!alone(READY, silence, &[silent(5000), unready(5000)]), "one is heard");
        assert!(alone(READY, silence, &[silent(5000), silent(300)]));
        assert!(!alone(READY, silence / 2, &[silent(5000), silent(300)]), "most of them answer the store");
    }

    #[test]
    fn who_left_in_order_leaves_the_address_behind() {
        let silence = Duration::from_secs(9);
        let left = Known { readiness: Readiness::Draining, ..silent(9000) };
        assert!(!alone(READY, silence, &[left, left]), "the last one answers those who ask it");
        assert!(alone(READY, silence, &[left, silent(300)]), "the other one may have it");
        assert!(!alone(READY, silence, &[left, READY]));
        assert!(!alone(unready(4900), silence, &[left, left]), "an election, perhaps");
        for own in [unready(5000), silent(5000)] {
            assert!(alone(own, silence, &[left, left]), "the others may be back, and not be heard");
        }
    }
}
