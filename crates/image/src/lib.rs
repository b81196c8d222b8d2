//! The image service (Glance v2)
pub mod blob;
pub mod inspect;
