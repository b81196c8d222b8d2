//! Addresses: which there are ([`range`], pure) and who holds one ([`claim`], rows in the request's transaction).
pub(crate) mod claim;
pub(crate) mod range;

pub(crate) use claim::ALLOCATIONS;
pub(crate) use range::{Range, eui64};
