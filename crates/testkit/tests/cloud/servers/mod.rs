//! Servers over HTTP, on simulated hosts, with the real services beside: identity, image, network, placement, volume.
mod actions;
mod create;
mod delete;
mod figures;
mod shown;
mod volumes;
