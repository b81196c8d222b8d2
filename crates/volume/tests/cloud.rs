//! Volumes through HTTP, with the storage node's reports written as the nodes' side writes them.
#[path = "cloud/attaching.rs"]
mod attaching;
#[path = "cloud/bed.rs"]
mod bed;
#[path = "cloud/groups.rs"]
mod groups;
#[path = "cloud/life.rs"]
mod life;
#[path = "cloud/lists.rs"]
mod lists;
#[path = "cloud/quota.rs"]
mod quota;
#[path = "cloud/rights.rs"]
mod rights;
#[path = "cloud/snapshots.rs"]
mod snapshots;
