//! What operators type. It speaks only HTTP: whatever it shows, an API shows too.
//!
//! stdout is data, a table or `--json`; the rest is stderr. Exit codes: 0 done, 1 refused or failed, 2 wrong usage.
mod client;
mod commands;
mod policy;
mod table;

pub use client::{Client, Error, Login};
pub use commands::{Command, NodeCommand, run};
pub use table::{print_json, print_table};
