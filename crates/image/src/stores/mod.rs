//! The stores that the operator enabled, and what an image's bytes do with them.
//!
//! `local` is always among them: it is what every controller keeps in its state directory ([`LocalStore`]), where bytes are staged, hashed
//! and inspected before any store gets them, and whence nodes fetch. Blobs of images that are only in other stores are in it as a cache.
//! Further ones are of the same kind in other directories, or buckets that speak S3. An image's row says where it is ([`Place`]); in
//! a bucket each upload has a key of its own, never used twice, so that the removal of one can never hit another.
mod intake;
mod open;
mod push;

pub(crate) use intake::Received;

use crate::{
    blob::{BlobError, LocalStore},
    cache::Hints,
    image::Place,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, OnceLock, Weak},
};
use store::Db;
use web::s3::{self, Bucket, Credentials};

/// The store that is always there.
pub const LOCAL: &str = "local";

/// A store as the operator configures it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// What users call it.
    pub id: String,
    #[serde(default)]
    pub description: String,
    /// Of several stores that have an image, the one with the most is read from.
    #[serde(default)]
    pub weight: i64,
    #[serde(flatten)]
    pub backend: Backend,
}

/// Where a store's bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Backend {
    /// A directory of each controller.
    Local { path: PathBuf },
    /// A bucket, by S3. The file `credentials` has the access key and the secret key, a line each.
    S3 {
        endpoint: String,
        bucket: String,
        #[serde(default = "region")]
        region: String,
        #[serde(default)]
        prefix: String,
        credentials: PathBuf,
        #[serde(default)]
        ca: Option<PathBuf>,
    },
}

fn region() -> String {
    "us-east-1".into()
}

impl Definition {
    /// Can it be used as it is written? No server is asked, and no directory made.
    pub fn check(&self) -> Result<(), StoresError> {
        self.check_id()?;
        match &self.backend {
            Backend::Local { .. } => Ok(()),
            Backend::S3 { .. } => kind(self).map(drop),
        }
    }

    fn check_id(&self) -> Result<(), StoresError> {
        let (id, known) = (&self.id, |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if id.is_empty() || id.len() > 64 || !id.chars().all(known) || id.starts_with("os_glance_") {
            return Err(StoresError::BadId { id: id.clone() });
        }
        Ok(())
    }
}

/// Why the stores cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoresError {
    #[error("`{id}` is not the id of a store; use letters, digits, `-`, `_` and `.`, and none that begins with os_glance_")]
    BadId { id: String },
    #[error("there are two stores `{id}`; give each an id of its own")]
    Twice { id: String },
    #[error("the default store `{id}` is none of the enabled ones; enable it or name another")]
    NoDefault { id: String },
    #[error("image store `{id}` cannot be used; see its configuration")]
    Bucket { id: String, source: web::Error },
    #[error("image store `{id}` cannot be used; see its directory")]
    Directory { id: String, source: BlobError },
}

/// A store that is enabled.
pub(crate) struct Enabled {
    pub(crate) id: String,
    pub(crate) description: String,
    pub(crate) weight: i64,
    pub(crate) kind: Kind,
}

pub(crate) enum Kind {
    Local(Arc<LocalStore>),
    S3 { bucket: Bucket, prefix: String },
}

impl Enabled {
    /// Where the next upload of the image is to go.
    pub(crate) fn place(&self, image: &str) -> Place {
        let key = match &self.kind {
            Kind::Local(_) => None,
            Kind::S3 { prefix, .. } => Some(format!("{prefix}{image}/{}", base::id::hex())),
        };
        Place { store: self.id.clone(), key }
    }

    pub(crate) fn failed(&self) -> impl FnOnce(web::Error) -> BlobError {
        let store = self.id.clone();
        move |source| BlobError::Remote { store, source }
    }
}

/// See the module.
pub struct Stores {
    base: Arc<LocalStore>,
    all: Vec<Enabled>,
    default: String,
    /// Known once the cloud runs: which images name a blob.
    db: OnceLock<Db>,
    hints: Hints,
}

impl Stores {
    /// `local` alone.
    pub fn only(base: Arc<LocalStore>) -> Arc<Self> {
        Arc::new(Self::of(base))
    }

    fn of(base: Arc<LocalStore>) -> Self {
        let local = Enabled {
            id: LOCAL.into(),
            description: "Copies kept by the cloud itself".into(),
            weight: 0,
            kind: Kind::Local(base.clone()),
        };
        Self { base, all: vec![local], default: LOCAL.into(), db: OnceLock::new(), hints: Hints::default() }
    }

    /// `local` and what the operator configured. Nothing is asked of a server yet.
    pub fn open(base: Arc<LocalStore>, definitions: &[Definition], default: &str) -> Result<Arc<Self>, StoresError> {
        let mut stores = Self::of(base);
        for definition in definitions {
            definition.check_id()?;
            let id = definition.id.clone();
            if stores.get(&id).is_some() {
                return Err(StoresError::Twice { id });
            }
            let (kind, description) = (kind(definition)?, definition.description.clone());
            stores.all.push(Enabled { id, description, weight: definition.weight, kind });
        }
        if stores.get(default).is_none() {
            return Err(StoresError::NoDefault { id: default.to_owned() });
        }
        default.clone_into(&mut stores.default);
        Ok(Arc::new(stores))
    }

    /// From now on, blobs that no controller has in `local` are looked for in the other stores.
    pub fn attach(self: &Arc<Self>, db: Db) {
        self.db.set(db).ok();
        for directory in self.directories() {
            let weak: Weak<Self> = Arc::downgrade(self);
            directory.look_beyond(weak);
        }
    }

    /// What is called `local`.
    pub fn base(&self) -> &Arc<LocalStore> {
        &self.base
    }

    /// Every directory with blobs of this controller.
    pub fn directories(&self) -> impl Iterator<Item = &Arc<LocalStore>> {
        self.by_directory().map(|(_, directory)| directory)
    }

    pub(crate) fn by_directory(&self) -> impl Iterator<Item = (&str, &Arc<LocalStore>)> {
        self.all.iter().filter_map(|store| match &store.kind {
            Kind::Local(local) => Some((store.id.as_str(), local)),
            Kind::S3 { .. } => None,
        })
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Enabled> {
        self.all.iter().find(|store| store.id == id)
    }

    pub(crate) fn all(&self) -> &[Enabled] {
        &self.all
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.all.iter().map(|store| store.id.clone()).collect()
    }

    pub(crate) fn default_id(&self) -> &str {
        &self.default
    }

    pub(crate) fn hints(&self) -> &Hints {
        &self.hints
    }

    pub(crate) fn db(&self) -> Option<&Db> {
        self.db.get()
    }

    /// What keeps the object of a place, if it is one of a bucket that is enabled.
    pub(crate) fn bucket(&self, id: &str) -> Option<(&Bucket, &str)> {
        match &self.get(id)?.kind {
            Kind::Local(_) => None,
            Kind::S3 { bucket, prefix } => Some((bucket, prefix)),
        }
    }

    /// The file of a blob that is in one of the directories.
    pub async fn file_here(&self, blob: &str) -> Result<PathBuf, BlobError> {
        for directory in self.directories() {
            if directory.size(blob).await?.is_some() {
                return directory.path(blob);
            }
        }
        Err(BlobError::Missing { blob: blob.to_owned() })
    }

    /// Asks every bucket whether it is there, and tells the log of those that are not.
    pub async fn check(&self) {
        for store in &self.all {
            if let Kind::S3 { bucket, .. } = &store.kind
                && let Err(e) = bucket.check().await
            {
                tracing::error!(
                    store = store.id,
                    error = base::chain(&e),
                    "An image store cannot be used; see its endpoint, bucket and credentials"
                );
            }
        }
    }

    /// The stores of a request that are none of ours.
    pub(crate) fn unknown<'a>(&self, ids: &'a [String]) -> HashSet<&'a str> {
        ids.iter().map(String::as_str).filter(|id| self.get(id).is_none()).collect()
    }
}

fn kind(definition: &Definition) -> Result<Kind, StoresError> {
    let id = || definition.id.clone();
    match definition.backend.clone() {
        Backend::Local { path } => {
            let opened = LocalStore::open(path).map_err(|source| StoresError::Directory { id: id(), source })?;
            Ok(Kind::Local(Arc::new(opened)))
        }
        Backend::S3 { endpoint, bucket, region, prefix, credentials, ca } => {
            let bad = |source| StoresError::Bucket { id: id(), source };
            let credentials = Credentials::read(&credentials).map_err(bad)?;
            let place = s3::Place { endpoint, bucket, region, ca };
            Ok(Kind::S3 { bucket: Bucket::open(place, credentials).map_err(bad)?, prefix })
        }
    }
}
