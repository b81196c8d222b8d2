//! Wall-clock time, passed as a value so that decisions stay pure and simulations can own it.
//!
//! Leases are never judged by this clock: they use [`std::time::Instant`], which does not jump.
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};
use time::{OffsetDateTime, PrimitiveDateTime, format_description::FormatItem, macros::format_description};

/// Microseconds since 1970-01-01T00:00:00Z. Stored as an integer; dialects choose the text form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

const SECONDS_Z: &[FormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
const SECONDS: &[FormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
const MICROS: &[FormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]");
const MICROS_Z: &[FormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

impl Timestamp {
    /// `2026-11-22T14:36:37Z`: Nova, Neutron, Glance.
    pub fn seconds_z(self) -> String {
        self.format(SECONDS_Z)
    }
    /// `2026-11-22T14:36:37.000000`: Nova's `OS-SRV-USG` and service times.
    pub fn micros(self) -> String {
        self.format(MICROS)
    }
    /// `2026-11-22T14:36:37.000000Z`: Keystone's token times.
    pub fn micros_z(self) -> String {
        self.format(MICROS_Z)
    }
    /// Whole seconds since the epoch.
    pub fn unix(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }
    pub fn from_unix(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }
    pub fn plus(self, d: std::time::Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
    }
    /// Time passed since `earlier`; zero when the clock went backwards.
    pub fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_micros(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }
    /// Reads the ISO 8601 forms that OpenStack clients send; without a zone it is UTC.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().replace(' ', "T");
        let micros = |t: OffsetDateTime| i64::try_from(t.unix_timestamp_nanos() / 1_000).ok().map(Self);
        if let Ok(t) = OffsetDateTime::parse(&text, &time::format_description::well_known::Rfc3339) {
            return micros(t);
        }
        const DATE: &[FormatItem<'_>] = format_description!("[year]-[month]-[day]");
        if let Ok(d) = time::Date::parse(&text, DATE) {
            return micros(d.midnight().assume_utc());
        }
        [SECONDS, MICROS]
            .iter()
            .find_map(|f| PrimitiveDateTime::parse(&text, f).ok())
            .and_then(|t| micros(t.assume_utc()))
            .or_else(|| {
                OffsetDateTime::parse(&text, &time::format_description::well_known::Iso8601::DEFAULT).ok().and_then(micros)
            })
            .or_else(|| {
                PrimitiveDateTime::parse(&text, &time::format_description::well_known::Iso8601::DEFAULT)
                    .ok()
                    .and_then(|t| micros(t.assume_utc()))
            })
    }
    fn format(self, items: &[FormatItem<'_>]) -> String {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000)
            .ok()
            .and_then(|t| t.format(items).ok())
            .unwrap_or_default()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.seconds_z())
    }
}

/// Where an edge gets the time from.
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
}

pub struct SystemClock;
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let d = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
    }
}

/// A clock that goes on evenly when the machine's own is set, until whoever [`set`](Self::set)s it believes that.
pub struct SteadyClock(Mutex<(Instant, Timestamp)>);
impl Default for SteadyClock {
    /// Starts at the machine's time.
    fn default() -> Self {
        Self(Mutex::new((Instant::now(), SystemClock.now())))
    }
}
impl SteadyClock {
    pub fn set(&self, now: Timestamp) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), now);
    }
}
impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        let (at, then) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        then.plus(at.elapsed())
    }
}

/// A clock that only moves when told, for tests and simulation.
#[derive(Default)]
pub struct ManualClock(AtomicI64);
impl ManualClock {
    pub fn at(t: Timestamp) -> Self {
        Self(AtomicI64::new(t.0))
    }
    pub fn advance(&self, d: std::time::Duration) {
        self.0.fetch_add(i64::try_from(d.as_micros()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }
}
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_round_trip() {
        let t = Timestamp(1_795_358_197_123_456);
        assert_eq!(t.seconds_z(), "2026-11-22T14:36:37Z");
        assert_eq!(Timestamp::parse(&t.micros()), Some(t));
        assert_eq!(Timestamp::parse(&t.micros_z()), Some(t));
        assert_eq!(Timestamp::parse("2026-11-22 14:36:37"), Some(Timestamp(1_795_358_197_000_000)));
        assert_eq!(Timestamp::parse("2026-11-22T14:36:37"), Timestamp::parse("2026-11-22T15:36:37+01:00"));
        assert_eq!(Timestamp::parse("2011-01-01"), Some(Timestamp::from_unix(1_293_840_000)));
        assert_eq!(Timestamp::parse("yesterday"), None);
    }
}
