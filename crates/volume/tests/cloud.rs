//! Volumes through HTTP, with the storage node's reports written as the nodes' side writes them.
#[path = "cloud/bed.rs"]
mod bed;
#[path = "cloud/life.rs"]
mod life;
