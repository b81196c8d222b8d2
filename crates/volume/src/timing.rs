//! How long each kind of work may take before it is given up. Data moves at the speed of disks, so these are generous.
use std::time::Duration;

/// A new volume: its image or source is copied.
pub(crate) const CREATE: Duration = Duration::from_secs(1800);
pub(crate) const DELETE: Duration = Duration::from_secs(600);
pub(crate) const EXTEND: Duration = Duration::from_secs(300);
/// The content is replaced.
pub(crate) const REPLACE: Duration = Duration::from_secs(1800);
pub(crate) const UPLOAD: Duration = Duration::from_secs(3600);
pub(crate) const SNAPSHOT: Duration = Duration::from_secs(600);
/// The export, and the server's node that plugs it.
pub(crate) const ATTACH: Duration = Duration::from_secs(300);
/// A server that is being made waits for its image and its volume first.
pub(crate) const ATTACH_BOOT: Duration = Duration::from_secs(3600);
/// A guest must give the device up.
pub(crate) const DETACH: Duration = Duration::from_secs(300);
/// An `os-reserve` that nobody follows up.
pub(crate) const RESERVE: Duration = Duration::from_secs(900);
