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
mod actions;
mod attach;
mod attachments;
mod backups;
mod common;
mod create;
mod default_types;
mod delete;
mod encryption;
mod facts;
mod filters;
mod group_routes;
mod group_types;
mod groups;
mod hosts;
mod input;
mod listing;
mod metadata;
mod qos;
mod quota;
mod quota_routes;
mod reconcilers;
mod resources;
mod services;
mod settle;
mod snapshot_routes;
mod snapshots;
mod timing;
mod transfers;
mod type_routes;
mod types;
mod uploads;
mod versions;
mod view;
mod volumes;

pub use reconcilers::reconcilers;
pub use types::bootstrap;

use api::{
    Dialect, Route, Service,
    dialect::{BLOCK_STORAGE, block_storage},
};
use resource::Resource as _;
use resources::{Attachment, Group, GroupSnapshot, GroupType, Message, QosSpecs, Snapshot, Volume, VolumeType};

/// Messages are gone when their deletion is answered.
static AT_ONCE: Dialect = block_storage(200, 204);

/// The API of Cinder v3.
pub fn service() -> Service {
    let messages = api::resource_routes(Message::DEF, &AT_ONCE).into_iter().map(|r| r.since("3.3"));
    let routes: Vec<Route> = [
        versions::routes(),
        volumes::routes(),
        actions::routes(),
        metadata::routes(),
        snapshot_routes::routes(),
        attachments::routes(),
        backups::routes(),
        type_routes::routes(),
        encryption::routes(),
        qos::routes(),
        default_types::routes(),
        transfers::routes(),
        quota_routes::routes(),
        group_types::routes(),
        group_routes::routes(),
        services::routes(),
        facts::routes(),
    ]
    .into_iter()
    .flatten()
    .chain(messages)
    .collect();
    let mut rules = vec![("volume:force_delete", "admin"), ("volume:attachment_complete", "member")];
    rules.extend(actions::RULES);
    rules.extend(metadata::RULES);
    rules.extend(snapshot_routes::RULES);
    rules.extend(group_routes::RULES);
    Service {
        name: "volume",
        prefix: "/volume",
        dialect: &BLOCK_STORAGE,
        microversions: Some(versions::MICROVERSIONS),
        resources: vec![
            Volume::DEF,
            Snapshot::DEF,
            Attachment::DEF,
            VolumeType::DEF,
            QosSpecs::DEF,
            Group::DEF,
            GroupSnapshot::DEF,
            GroupType::DEF,
            Message::DEF,
        ],
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
        rules,
        quotas: quota::QUOTAS.to_vec(),
    }
}
