//! The image service (Glance v2): what images are, who may see them, and how their bytes come in and go out.
//!
//! ```text
//!            upload                          deactivate
//!   queued ────────▶ saving ──────▶ active ◀──────────▶ deactivated
//!     │  ▲             │ refused,      ▲     reactivate
//!     │  └─────────────┘ cut, died     │ import
//!     └──── stage ──▶ uploading ───────┘        (refused: back to queued)
//! ```
//! An image row names its blob by `os_hash_value`; blobs are immutable and shared. `saving` and `uploading` have an owner and a
//! deadline ([`Uploads`]); a blob that no row names is removed ([`Sweeper`]). Content is accepted only when [`inspect`] finds it
//! safe and to be what `disk_format` says.
//!
//! Not done here: import from the web, copies between stores, the cache API, locations outside of the store.
mod actions;
mod attributes;
pub mod blob;
mod claim;
mod download;
mod filter;
mod image;
mod images;
mod import;
mod info;
pub mod inspect;
mod members;
mod metadefs;
mod patch;
mod rest;
mod schemas;
mod sweeper;
mod tags;
mod tasks;
mod upload;
mod uploads;
mod versions;

pub use image::{Image, Member, Staged};
pub use sweeper::Sweeper;
pub use uploads::Uploads;

use api::{Route, Service, dialect::IMAGE};
use blob::LocalStore;
use resource::Resource as _;
use std::{sync::Arc, time::Duration};

/// What an operator may choose.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of the largest image.
    pub max_size: u64,
    /// Bytes of the largest disk inside of an image.
    pub max_virtual_size: u64,
    /// Large disks may have so many times the bytes of their file.
    pub max_growth: u64,
    /// Refuse content that is in no known format when `disk_format` names one. Content that is dangerous, or in another known
    /// format than declared, is refused in any case.
    pub require_format: bool,
    /// An upload that sends nothing for so long is given up.
    pub idle: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_size: 1 << 40,
            max_virtual_size: 16 << 40,
            max_growth: 1000,
            require_format: true,
            idle: Duration::from_secs(60),
        }
    }
}

/// What handlers and reconcilers of one process share.
pub(crate) struct App {
    pub(crate) blobs: Arc<LocalStore>,
    pub(crate) options: Options,
}

/// The service on a store of blobs.
pub fn service(blobs: Arc<LocalStore>) -> Service {
    service_with(blobs, Options::default())
}

/// As [`service`], with options.
pub fn service_with(blobs: Arc<LocalStore>, options: Options) -> Service {
    let app = Arc::new(App { blobs, options });
    let routes: Vec<Route> = [
        versions::routes(),
        images::routes(),
        patch::routes(),
        upload::routes(&app),
        download::routes(&app),
        members::routes(),
        tags::routes(),
        actions::routes(),
        import::routes(&app),
        tasks::routes(),
        info::routes(),
        schemas::routes(),
        metadefs::routes(),
    ]
    .into_iter()
    .flatten()
    .collect();
    Service {
        name: "image",
        prefix: "/image",
        dialect: &IMAGE,
        microversions: None,
        resources: vec![Image::DEF],
        routes,
        tables: vec![&tasks::TASKS, &metadefs::NAMESPACES, &metadefs::ITEMS],
        rules: rest::RULES.to_vec(),
        quotas: vec![
            ("image_count_total", -1),
            ("image_size_total", -1),
            ("image_stage_total", -1),
            ("image_count_uploading", -1),
        ],
    }
}
