//! What tests of several crates share: a whole cloud in one process, its clients, and waits.
//!
//! [`TestCloud::start`] serves every service over HTTP on a port of its own, on the memory store, with the identity service
//! bootstrapped: tests talk to it as any client would. Nothing of it is a mock. It ends when it is dropped.
mod client;
mod cloud;
pub mod matrix;
mod wait;

pub use client::{Answer, Client};
pub use cloud::{ADMIN_PASSWORD, Assembled, Prepare, Setup, TestCloud};
pub use wait::{holds, until};
