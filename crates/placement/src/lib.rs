//! The placement service
