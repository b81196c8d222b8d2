//! The block storage service (Cinder v3): what volumes there shall be, who may use them, and what was seen of them.
//!
//! ```text
//!   request ──one transaction──▶ volume, snapshot, attachment rows ──levels──▶ storage node, servers' nodes
//!                                        ▲                                            │ reports
//!                                        └──── settle ◀── volume/seen, volume/plugged ┘
//! ```
//! Rows say what is wished; nodes report what is. [`settle`] alone moves a status from wished to done, and gives up what is late. The
//! compute service makes attachments through the table here, in its own transaction, and reads them for its servers.
//!
//! Not done here: encryption of data (a type that asks for it gets no volumes), backups, replication, migration between hosts.
mod attach;
mod attachments;
mod common;
mod create;
mod delete;
mod filters;
mod hosts;
mod listing;
mod quota;
mod reconcilers;
mod resources;
mod settle;
mod snapshots;
mod timing;
mod transfers;
mod types;
mod uploads;
mod versions;
mod view;
mod volumes;

pub use reconcilers::reconcilers;
pub use types::bootstrap;

use api::{Route, Service, dialect::BLOCK_STORAGE};
use resource::Resource as _;
use resources::{Attachment, Message, Snapshot, Volume, VolumeType};

/// The API of Cinder v3.
pub fn service() -> Service {
    let routes: Vec<Route> = [versions::routes(), volumes::routes(), attachments::routes()].into_iter().flatten().collect();
    Service {
        name: "volume",
        prefix: "/volume",
        dialect: &BLOCK_STORAGE,
        microversions: Some(versions::MICROVERSIONS),
        resources: vec![Volume::DEF, Snapshot::DEF, Attachment::DEF, VolumeType::DEF, Message::DEF],
        routes,
        tables: vec![
            &common::SEEN,
            &common::PLUGGED,
            &common::UPLOADS,
            &hosts::SERVICES,
            &hosts::NODES,
            &transfers::TRANSFERS,
            &types::DEFAULTS,
        ],
        rules: vec![("volume:force_delete", "admin")],
        quotas: quota::QUOTAS.to_vec(),
    }
}
