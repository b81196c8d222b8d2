//! Three doors in network namespaces, real haproxy and keepalived, and what their clients see of faults. Needs root.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]
mod common;
mod faults;
mod requests;
