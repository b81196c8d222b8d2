//! Servers over HTTP, on simulated hosts, with the real services beside: identity, image, network, placement, volume.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
mod actions;
mod bed;
mod create;
mod delete;
mod figures;
mod shown;
mod volumes;
