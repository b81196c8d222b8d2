//! Everybody calls everything, and nobody calls it right.
//!
//! [`access`] holds who may do what with whose, [`nested`] what a body may name, [`fuzz`] what no request may cause, [`raw`] the same
//! below HTTP, [`canary`] where secrets must not be, [`closed`] that all of it is policy, [`document`] what is promised. Most start from one [`world`].
mod access;
mod canary;
mod closed;
mod document;
mod fuzz;
mod nested;
mod raw;
pub(crate) mod samples;
mod shape;
mod world;

pub(crate) use world::World;
