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
//! safe and to be what `disk_format` says, and, when its properties announce a signature, to have it.
//!
//! Not done here: image data that stays outside of the stores.
mod actions;
mod attributes;
pub mod blob;
mod cache;
mod claim;
mod digest;
mod download;
mod filter;
mod garbage;
mod image;
mod images;
mod import;
mod imports;
mod info;
pub mod inspect;
mod locations;
mod members;
mod metadefs;
mod named;
mod patch;
mod protect;
mod quota;
mod rest;
mod schemas;
mod signature;
mod stores;
mod sweeper;
mod tags;
mod task_import;
mod tasks;
mod transfer;
mod upload;
mod uploads;
mod versions;

pub use garbage::Garbage;
pub use image::{Image, Import, Member, Place, Staged};
pub use imports::Imports;
pub use protect::{Format as ProtectionFormat, Protections, ProtectionsError};
pub use stores::{Backend, Definition, LOCAL, Stores, StoresError};
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
    /// What may be fetched from the web; nothing if there are no rules.
    pub web: Option<web::fetch::Rules>,
    /// May users give the address of data that is to become an image's?
    pub locations: bool,
    /// Bytes of images in other stores that a controller keeps for its nodes.
    pub cache: u64,
    /// Whom TLS believes when the key manager is asked for the certificate of a signed image.
    pub trust: web::Trust,
    /// How long it may take to give it.
    pub certificate_within: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_size: 1 << 40,
            max_virtual_size: 16 << 40,
            max_growth: 1000,
            require_format: true,
            idle: Duration::from_secs(60),
            web: Some(web::fetch::Rules::default()),
            locations: false,
            cache: 20 << 30,
            trust: web::Trust::default(),
            certificate_within: Duration::from_secs(10),
        }
    }
}

/// What handlers and reconcilers of one process share.
pub(crate) struct App {
    pub(crate) stores: Arc<Stores>,
    pub(crate) options: Options,
}

/// The service with the store `local` alone.
pub fn service(blobs: Arc<LocalStore>) -> Service {
    service_with(Stores::only(blobs), Options::default())
}

/// The service on the stores that are enabled.
pub fn service_with(stores: Arc<Stores>, options: Options) -> Service {
    let app = Arc::new(App { stores, options });
    let routes: Vec<Route> = [
        cache::routes(&app),
        versions::routes(&app),
        images::routes(&app),
        patch::routes(),
        upload::routes(&app),
        download::routes(&app),
        members::routes(),
        tags::routes(),
        actions::routes(),
        import::routes(&app),
        task_import::routes(&app),
        tasks::routes(),
        info::routes(&app),
        locations::routes(&app),
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
        tables: vec![&garbage::GARBAGE, &tasks::TASKS, &metadefs::NAMESPACES, &metadefs::ITEMS],
        rules: rest::RULES.to_vec(),
        quotas: quota::ALL.map(|name| (name, -1)).to_vec(),
    }
}
