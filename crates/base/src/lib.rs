//! What every crate shares: ids, the clock, API versions, backoff and the error chain. No I/O.
pub mod clock;
pub mod error;
pub mod id;
pub mod metrics;
pub mod retry;
pub mod version;

pub use clock::{Clock, ManualClock, SteadyClock, SystemClock, Timestamp};
pub use error::chain;
pub use version::Version;
