//! Volumes over HTTP, with the storage node's reports written as the nodes' side writes them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod attaching;
mod bed;
mod groups;
mod life;
mod lists;
mod matrix;
mod quota;
mod rights;
mod snapshots;
