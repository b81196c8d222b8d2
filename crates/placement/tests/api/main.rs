//! The placement API over HTTP: what its api-ref and its functional tests promise.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod allocations;
mod cloud;
mod providers;
mod used;
