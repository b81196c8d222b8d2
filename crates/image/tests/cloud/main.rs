//! The image service over HTTP, as clients see it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod barbican;
mod common;
mod data;
mod images;
mod imports;
mod moto;
mod rights;
mod signatures;
mod stores;
