//! Three doors in network namespaces, real haproxy and keepalived, and what their clients see of faults. Needs root.
mod common;
mod faults;
mod requests;
