//! `drover backup` and `drover restore`: one file that brings a cloud's control plane back on another machine.
//!
//! ```text
//!   a cloud that runs ──backup──▶ FILE: rows, keys, secrets, options ──restore──▶ a new state directory ──drover up──▶ a cloud
//! ```
//! - **Of one moment.** etcd's own snapshot, or a copy of the SQLite file made in one read; nobody is held up.
//! - **Checked.** Every byte by SHA-256, and the rows by number and SHA-256, when it is written, by `backup verify`, and again in the store that
//!   was made of it.
//! - **A new cloud.** A cluster that is restored gets a new authority and an etcd of one member: no machine of the old one can speak to it.
//!   What hosts run is newer than a backup, so no host may follow it before an operator has said so; see `restore`.
//!
//! Not in it: image blobs, disks of servers and volumes, OVN's databases (made from rows).
mod archive;
mod restore;

pub(crate) use restore::{RestoreFlags, restore};

use crate::{
    admission,
    config::{Config, Flags, State},
    controller::Seat,
    engine::{self, Place},
    schema,
};
use archive::{Archive, Content};
use serde::{Deserialize, Serialize};
use std::{
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};
use store::Store as _;
use store_etcd::{
    copy::{self, Summary},
    member::{self, Cluster},
};
use store_sqlite::Sqlite;

/// The form of the archive's content.
const FORM: u32 = 1;
const SQLITE: &str = "store.sqlite";
const ETCD: &str = "store.etcd";
const CONFIG: &str = "config.json";
const CA: &str = "pki/ca.pem";
const CA_KEY: &str = "pki/ca.key";

const README: &str = "\
A backup of a Drover cloud's control plane.

IT HOLDS SECRETS: keys that sign tokens, keys of what is encrypted in the store, the administrator's password, and the key of the cluster's
authority. Who has this file is administrator of the cloud. Keep it where only administrators read it, and encrypt it before it leaves
the machine, for example with: gpg --symmetric FILE

Check it:    drover backup verify FILE
Use it:      drover restore FILE --state DIR      (DIR must be empty; docs/operations.md tells the rest)

Not in it: the bytes of images (images/ of the state directory), disks of servers and volumes (node/).
";

/// Which store the rows are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Sqlite,
    Etcd,
}

/// The rows, without those of running processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rows {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}
impl From<Summary> for Rows {
    fn from(s: Summary) -> Self {
        Self { rows: s.rows, bytes: s.bytes, sha256: s.sha256.iter().map(|b| format!("{b:02x}")).collect() }
    }
}

/// What the manifest tells besides the sums of files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) form: u32,
    pub(crate) drover: String,
    pub(crate) taken_at: String,
    /// The machine that took it.
    pub(crate) machine: String,
    pub(crate) store: Kind,
    pub(crate) revision: u64,
    /// As [`schema`] has it; 0 is a store from before it was written down.
    pub(crate) schema: u32,
    /// `None` where it was made of a snapshot whose cluster does not run.
    pub(crate) content: Option<Rows>,
    pub(crate) secrets: bool,
}

/// A directory for what is on its way, which nobody else can enter.
struct Scratch(PathBuf);
impl Scratch {
    fn beside(path: &Path) -> Result<Self, String> {
        let dir = path.with_extension(format!("work-{}", std::process::id()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&dir);
        made.map_err(|e| format!("Directory {} cannot be made: {e}. Name a file elsewhere.", dir.display()))?;
        Ok(Self(dir))
    }
}
impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(dir = %self.0.display(), error = %e, "A directory with parts of a backup could not be removed; remove it by hand");
        }
    }
}

/// Makes `file` of the cloud of this machine.
pub(crate) async fn backup(state: &State, file: &Path, snapshot: Option<&Path>) -> Result<About, String> {
    if file.exists() {
        return Err(format!("{} exists; name another file.", file.display()));
    }
    let config = Config::load(state, &Flags::default())?;
    if config.node.is_some() {
        return Err("A host has nothing that a backup keeps; take it on a controller.".into());
    }
    if !state.config().exists() {
        return Err(format!("There is no cloud in {}; name it with --state.", state.dir().display()));
    }
    let scratch = Scratch::beside(file)?;
    let (kind, store) = (if config.store == Place::Sqlite { Kind::Sqlite } else { Kind::Etcd }, scratch.0.join("store"));
    let taken = match (kind, snapshot) {
        (Kind::Sqlite, None) => of_sqlite(state, &store).await?,
        (Kind::Sqlite, Some(_)) => return Err("This cloud is in SQLite, which has no snapshots; leave --snapshot out.".into()),
        (Kind::Etcd, None) => of_etcd(state, &config, &store).await?,
        (Kind::Etcd, Some(snapshot)) => of_snapshot(snapshot, &store).await?,
    };
    let now = base::Clock::now(&base::SystemClock);
    let about = About {
        form: FORM,
        drover: env!("CARGO_PKG_VERSION").into(),
        taken_at: now.seconds_z(),
        machine: config.name(),
        store: kind,
        revision: taken.revision,
        schema: taken.schema,
        content: taken.content,
        secrets: true,
    };
    let name = if kind == Kind::Sqlite { SQLITE } else { ETCD };
    let mut files = vec![("README".to_owned(), Content::Bytes(README.into()))];
    files.push((CONFIG.to_owned(), Content::File(state.config())));
    for (path, bytes) in admission::shared(state)? {
        files.push((path.display().to_string(), Content::Bytes(bytes)));
    }
    if config.controller.is_some() {
        files.extend([CA, CA_KEY].map(|name| (name.to_owned(), Content::File(state.dir().join(name)))));
    }
    files.push((name.to_owned(), Content::File(store)));
    archive::write(file, &about, &files, u64::try_from(now.unix()).unwrap_or(0)).map_err(|e| base::chain(&e))?;
    Ok(about)
}

struct Taken {
    revision: u64,
    schema: u32,
    content: Option<Rows>,
}

async fn of_sqlite(state: &State, to: &Path) -> Result<Taken, String> {
    store_sqlite::save(&state.database(), to).map_err(|e| base::chain(&e))?;
    look_at_sqlite(to).await
}

/// Opens a copy that nobody else has, which also checks it.
async fn look_at_sqlite(path: &Path) -> Result<Taken, String> {
    let store = Sqlite::open(path).map_err(|e| base::chain(&e))?;
    let looked = async {
        let revision = store.revision().await?;
        let content = copy::summarize(&*store).await?;
        Ok::<_, store::StoreError>(Taken { revision, schema: schema::of(&*store).await?, content: Some(content.into()) })
    };
    let looked = looked.await.map_err(|e| base::chain(&e));
    store.close();
    looked
}

async fn of_etcd(state: &State, config: &Config, to: &Path) -> Result<Taken, String> {
    let own = config.controller.as_ref().is_some_and(|c| c.etcd != Seat::External);
    let Place::Etcd { members, .. } = &config.store else { return Err("This cloud is not in etcd.".into()) };
    if !own {
        return Err(format!(
            "The etcd of this cloud is looked after by somebody else: save it with its own tools, and keys/, secrets/ and {CONFIG} of {} with it.",
            state.dir().display()
        ));
    }
    let chain = |e: member::Error| base::chain(&e);
    let cluster = Cluster::new(&engine::urls(config, members), engine::tls(state, config).as_ref()).map_err(chain)?;
    let saved = member::save(&cluster, to).await;
    saved.map_err(|e| {
        format!(
            "etcd gives no snapshot: {}. Start the cluster, or make a backup of an older snapshot (there may be some in {}) with --snapshot FILE.",
            base::chain(&e),
            state.snapshots().display()
        )
    })?;
    let revision = member::revision(to).await.map_err(chain)?;
    let opened = engine::open(state, config).await?;
    let etcd = opened.etcd.ok_or("This cloud is not in etcd.")?;
    let content = copy::summarize_at(&etcd, revision).await.map_err(|e| base::chain(&e))?;
    let schema = schema::of(&*etcd).await.map_err(|e| base::chain(&e))?;
    etcd.close().await;
    Ok(Taken { revision, schema, content: Some(content.into()) })
}

async fn of_snapshot(snapshot: &Path, to: &Path) -> Result<Taken, String> {
    let chain = |e: member::Error| base::chain(&e);
    member::verify(snapshot).map_err(chain)?;
    let revision = member::revision(snapshot).await.map_err(chain)?;
    std::fs::copy(snapshot, to).map_err(|e| format!("{} cannot be copied: {e}.", snapshot.display()))?;
    Ok(Taken { revision, schema: 0, content: None })
}

fn open(file: &Path) -> Result<Archive<About>, String> {
    let archive = Archive::<About>::open(file).map_err(|e| base::chain(&e))?;
    if archive.about.form != FORM {
        return Err(format!(
            "{} is of form {} and this Drover knows {FORM}; use the version that made it ({}).",
            file.display(),
            archive.about.form,
            archive.about.drover
        ));
    }
    Ok(archive)
}

/// Checks every byte of a backup, and that its store can be opened.
pub(crate) async fn verify(file: &Path) -> Result<About, String> {
    let archive = open(file)?;
    let about = archive.about.clone();
    let scratch = Scratch::beside(&std::env::temp_dir().join("drover-verify"))?;
    let path = scratch.0.join("store");
    let damaged = || format!("{}: its rows are not those that its manifest tells; use another backup.", file.display());
    match about.store {
        Kind::Sqlite => {
            archive.extract(SQLITE, &path).map_err(|e| base::chain(&e))?;
            if look_at_sqlite(&path).await?.content != about.content {
                return Err(damaged());
            }
        }
        Kind::Etcd => {
            archive.extract(ETCD, &path).map_err(|e| base::chain(&e))?;
            member::verify(&path).map_err(|e| base::chain(&e))?;
            if member::revision(&path).await.map_err(|e| base::chain(&e))? != about.revision {
                return Err(damaged());
            }
        }
    }
    Ok(about)
}

/// For people.
pub(crate) fn describe(about: &About) -> Vec<Vec<String>> {
    let of = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        of("taken at", about.taken_at.clone()),
        of("on", about.machine.clone()),
        of("by drover", about.drover.clone()),
        of("store", format!("{:?}", about.store).to_lowercase()),
        of("revision", about.revision.to_string()),
        of("schema", about.schema.to_string()),
    ];
    match &about.content {
        Some(c) => rows.extend([
            of("rows", c.rows.to_string()),
            of("bytes", c.bytes.to_string()),
            of("sha256 of rows", c.sha256.clone()),
        ]),
        None => rows.push(of("rows", "not counted: made of a snapshot".into())),
    }
    rows.push(of("holds secrets", "yes: who has this file is administrator of the cloud".into()));
    rows
}
