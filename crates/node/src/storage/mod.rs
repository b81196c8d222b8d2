//! Volumes kept on this node: layers below `volumes/`, served over NBD by one process per volume.
//!
//! The catalog says what a volume consists of, layers are made by `qemu-img`, and the engine serves them. Every step can be taken twice
//! and dropped half-way. A volume's steps never overlap; one that reads another volume takes the other one's turn too.
mod catalog;
mod engine;
mod layers;
mod upload;

use crate::{
    Config, Error,
    agent::AbortOnDrop,
    config::GuestUsers,
    driver::{Nudge, Owned, Volumes},
    qemu::{cache::Cache, process},
    volume::plan::{Data, Engine, Seen, Step},
};
use assign::{Blobs, Pending, VolumeAssignment, VolumeSource};
use catalog::{Catalog, Layer, Manifest};
use std::{
    collections::{BTreeSet, HashMap},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

/// A chain longer than this is not made: reading through it would be slow, and it is merged when nobody uses the volume.
const MOST_LAYERS: usize = 200;

/// Images that are being made of volumes, by volume and image.
type Uploading = HashMap<(String, String), AbortOnDrop>;

/// The volumes of a real node.
pub(crate) struct Storage {
    config: Config,
    catalog: Arc<Catalog>,
    cache: Arc<Cache>,
    blobs: Arc<dyn Blobs>,
    users: Option<GuestUsers>,
    links: Mutex<HashMap<String, Arc<engine::Link>>>,
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    uploading: Arc<Mutex<Uploading>>,
    /// Processes that nothing accounted for at the last look.
    suspects: Mutex<BTreeSet<(u32, u64)>>,
    nudge: Arc<OnceLock<Nudge>>,
}

/// The name of a layer's node in a daemon; at most 31 bytes.
fn node(layer: &Layer) -> String {
    format!("l{}", layer.0)
}

impl Storage {
    /// Opens the node's volumes.
    pub(crate) async fn open(
        config: &Config,
        blobs: Arc<dyn Blobs>,
        cache: Arc<Cache>,
        users: Option<GuestUsers>,
    ) -> Result<Arc<Self>, Error> {
        let catalog = Arc::new(Catalog::open(&config.dir.join("volumes"))?);
        let exports = config.dir.join("exports");
        fs::create_dir_all(&exports).map_err(Error::path("create", &exports))?;
        fs::set_permissions(&exports, fs::Permissions::from_mode(0o711)).map_err(Error::path("protect", &exports))?;
        let storage = Self {
            config: config.clone(),
            catalog,
            cache,
            blobs,
            users,
            links: Mutex::default(),
            turns: Mutex::default(),
            uploading: Arc::default(),
            suspects: Mutex::default(),
            nudge: Arc::default(),
        };
        // An agent that was killed between a start and its record left a process that nobody would revoke.
        for (pid, start) in storage.strangers() {
            process::kill(pid, start).await?;
        }
        storage.catalog.collect();
        Ok(Arc::new(storage))
    }

    fn user(&self, id: &str) -> Option<u32> {
        self.users.map(|u| u.of(id))
    }
    fn exports_dir(&self) -> PathBuf {
        self.config.dir.join("exports")
    }
    /// Where a consumer finds the socket of its attachment.
    fn entrance(&self, attachment: &str) -> PathBuf {
        self.config.entrance(attachment)
    }
    fn links(&self) -> MutexGuard<'_, HashMap<String, Arc<engine::Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn uploads(&self) -> MutexGuard<'_, Uploading> {
        self.uploading.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn turn(&self, id: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry(id.to_owned()).or_default().clone()
    }
    /// A callback that wakes the volume's task.
    fn waker(&self, id: &str) -> impl Fn() + Send + 'static {
        let (nudge, id) = (self.nudge.clone(), id.to_owned());
        move || {
            if let Some(nudge) = nudge.get() {
                nudge(&id);
            }
        }
    }
    fn manifest(&self, id: &str) -> Result<Manifest, Error> {
        self.catalog.get(id).ok_or_else(|| Error::VolumeLost(id.to_owned()))
    }
    fn file(&self, layer: &Layer) -> layers::File {
        layers::File { name: node(layer), path: self.catalog.path(layer), format: layer.format() }
    }
    fn files(&self, chain: &[Layer]) -> Vec<layers::File> {
        chain.iter().map(|l| self.file(l)).collect()
    }

    async fn seen(&self, id: &str) -> Seen {
        let Some(manifest) = self.catalog.get(id) else {
            let data =
                self.catalog.damage(id).map_or(Data::Nothing, |_| Data::Lost(Error::VolumeLost(id.to_owned()).to_string()));
            let look = self.look(id, &[]).await;
            // A daemon without a manifest serves what is to be removed.
            return Seen { data, engine: look.engine, exports: look.exports, ..Seen::default() };
        };
        let look = self.look(id, &manifest.chain).await;
        let is_whole = manifest.chain.iter().all(|l| self.catalog.path(l).exists());
        let data = match is_whole {
            true => Data::Present { size_gib: manifest.size_gib, generation: manifest.generation },
            false => Data::Lost(Error::VolumeLost(id.to_owned()).to_string()),
        };
        let uploading = self.uploads().keys().filter(|(v, _)| v == id).map(|(_, image)| image.clone()).collect();
        // A snapshot is whole when nobody writes to its layers any more.
        let is_frozen = look.engine != Engine::Behind;
        let snapshots = manifest.snapshots.into_keys().filter(|_| is_frozen).collect();
        let mergeable = look.engine == Engine::Off && self.catalog.mergeable(id).is_some();
        Seen { data, snapshots, engine: look.engine, exports: look.exports, uploads: manifest.uploads, uploading, mergeable }
    }

    async fn act(&self, step: &Step, a: &VolumeAssignment) -> Result<(), Error> {
        let id = a.id.as_str();
        let turn = self.turn(id);
        let _turn = turn.lock().await;
        match step {
            Step::Make => {
                // A drop between the manifest and its report must not make it again.
                if self.catalog.get(id).is_some() { Ok(()) } else { self.fill(a).await }
            }
            Step::Replace => self.fill(a).await.map(|()| drop(self.catalog.collect())),
            Step::Grow => self.grow(a).await,
            Step::TakeSnapshot(snapshot) => {
                let taken = self.manifest(id)?.snapshots.contains_key(snapshot);
                if taken { self.follow(id).await } else { self.freeze(id, Some(snapshot)).await.map(drop) }
            }
            Step::DropSnapshot(snapshot) => {
                self.catalog.amend(id, |m| drop(m.snapshots.remove(snapshot)))?;
                self.catalog.collect();
                Ok(())
            }
            Step::Follow => self.follow(id).await,
            Step::EndEngine => self.end_engine(id, Duration::from_secs(2)).await,
            Step::Serve(export) => self.serve(id, export).await,
            Step::Revoke(export) => self.revoke(id, export).await,
            Step::StartUpload(upload) => self.start_upload(a, upload).await,
            Step::ForgetUpload(image) => {
                self.uploads().remove(&(id.to_owned(), image.clone()));
                self.catalog.amend(id, |m| drop(m.uploads.remove(image)))
            }
            Step::Merge => self.merge(id).await,
            Step::Remove => self.remove(id).await,
        }
    }

    /// Makes the content from the source and takes it as the volume's.
    async fn fill(&self, a: &VolumeAssignment) -> Result<(), Error> {
        let user = self.user(&a.id);
        let has_below = matches!(a.source, VolumeSource::Snapshot { .. } | VolumeSource::Volume { .. });
        let (layer, _held) = self.catalog.new_layer(has_below);
        let path = self.catalog.path(&layer);
        let mut chain = Vec::new();
        let mut size_gib = a.size_gib;
        // What lies below must not go before the manifest names it.
        let _below = match &a.source {
            VolumeSource::Blank => {
                layers::blank(&path, size_gib, user)?;
                None
            }
            VolumeSource::Image(image) => {
                let (base, _hold) = self.cache.hold(image).await?;
                layers::copy(&base, &path, size_gib, user).await?;
                None
            }
            VolumeSource::Snapshot { volume_id, snapshot_id } => {
                let source = self.manifest(volume_id)?;
                chain = source.snapshots.get(snapshot_id).cloned().ok_or_else(|| Error::SourceMissing(snapshot_id.clone()))?;
                Some(self.catalog.hold(&chain))
            }
            VolumeSource::Volume { volume_id } => {
                let turn = self.turn(volume_id);
                let _turn = turn.lock().await;
                chain = self.freeze(volume_id, None).await?;
                Some(self.catalog.hold(&chain))
            }
        };
        if let Some(below) = chain.last().map(|l| self.file(l)) {
            let own = crate::qemu::disks::virtual_size(&below.path, below.format)?.div_ceil(1 << 30);
            size_gib = size_gib.max(own);
            layers::overlay(&below, &path, size_gib, user).await?;
        }
        chain.push(layer);
        let manifest = self.catalog.update(&a.id, |m| {
            (m.chain, m.size_gib, m.generation) = (chain, size_gib, a.generation);
        })?;
        layers::protect(&self.files(&manifest.chain), user)?;
        tracing::info!(volume = a.id, request = a.request_id, size_gib, "the data of a volume was made");
        Ok(())
    }

    /// Begins a new layer, so that nobody writes to the ones below; returns these.
    async fn freeze(&self, id: &str, snapshot: Option<&str>) -> Result<Vec<Layer>, Error> {
        let old = self.manifest(id)?;
        if old.chain.len() >= MOST_LAYERS {
            return Err(Error::TooManyLayers(id.to_owned()));
        }
        let below = old.chain.last().map(|l| self.file(l)).ok_or_else(|| Error::VolumeLost(id.to_owned()))?;
        let (layer, _held) = self.catalog.new_layer(true);
        layers::overlay(&below, &self.catalog.path(&layer), old.size_gib, self.user(id)).await?;
        let new = self.catalog.update(id, |m| {
            if let Some(snapshot) = snapshot {
                m.snapshots.insert(snapshot.to_owned(), m.chain.clone());
            }
            m.chain.push(layer);
        })?;
        self.follow(id).await?;
        layers::protect(&self.files(&new.chain), self.user(id))?;
        Ok(old.chain)
    }

    async fn grow(&self, a: &VolumeAssignment) -> Result<(), Error> {
        match self.link(&a.id).await? {
            Some(link) => self.grow_served(&a.id, &link, a.size_gib).await?,
            None => layers::grow(&self.files(&self.manifest(&a.id)?.chain), a.size_gib, self.user(&a.id)).await?,
        }
        self.catalog.amend(&a.id, |m| m.size_gib = a.size_gib)
    }

    /// Makes one layer of two.
    async fn merge(&self, id: &str) -> Result<(), Error> {
        let Some((lower, upper)) = self.catalog.mergeable(id) else { return Ok(()) };
        let manifest = self.manifest(id)?;
        let below: Vec<Layer> = manifest.chain.iter().take_while(|l| **l != upper).chain([&upper]).cloned().collect();
        layers::commit(&self.files(&below), self.user(id)).await?;
        // The lower one now is both. Snapshots that end with the upper one are the same with the lower one.
        let merged = self.catalog.update(id, |m| {
            let chains = m.snapshots.values_mut().chain([&mut m.chain]);
            chains.filter(|c| c.contains(&lower)).for_each(|c| c.retain(|l| *l != upper));
        })?;
        self.catalog.collect();
        layers::protect(&self.files(&merged.chain), self.user(id))
    }

    async fn remove(&self, id: &str) -> Result<(), Error> {
        self.uploads().retain(|(volume, _), _| volume != id);
        self.end_engine(id, Duration::ZERO).await?;
        self.catalog.forget(id)?;
        self.catalog.collect();
        let home = self.catalog.home(id);
        match fs::remove_dir_all(&home) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::path("remove", &home)(e)),
            _ => Ok(()),
        }
    }

    /// Daemons that no record names.
    fn strangers(&self) -> BTreeSet<(u32, u64)> {
        let found = engine::daemons(&self.config.dir.join("volumes")).into_iter();
        let with_start = found.filter_map(|(pid, id)| Some((pid, process::start_time(pid)?, id)));
        let is_known = |pid: u32, start: u64, id: &str| {
            self.running(id).is_some_and(|r| i64::from(r.pid) == i64::from(pid) && r.started == start)
        };
        with_start.filter(|(pid, start, id)| !is_known(*pid, *start, id)).map(|(pid, start, _)| (pid, start)).collect()
    }

    async fn sweep_all(&self, owned: Owned<'_>) -> Vec<String> {
        let mut removed: Vec<String> = self.catalog.collect().into_iter().map(|l| format!("layer {}", l.0)).collect();
        let strangers = self.strangers();
        let before = std::mem::replace(&mut *self.suspects.lock().unwrap_or_else(PoisonError::into_inner), strangers.clone());
        for (pid, start) in strangers.intersection(&before).copied() {
            match process::kill(pid, start).await {
                Ok(()) => removed.push(format!("storage daemon {pid}")),
                Err(error) => tracing::warn!(pid, %error, "a leftover storage daemon is not ended"),
            }
        }
        let list = |dir: PathBuf| -> Vec<String> {
            let all = fs::read_dir(dir).into_iter().flatten().flatten();
            all.filter_map(|e| e.file_name().into_string().ok()).filter(|n| base::id::is_uuid(n)).collect()
        };
        let (homes, entrances) = (list(self.config.dir.join("volumes")), list(self.exports_dir()));
        let owned = owned();
        for id in homes.into_iter().filter(|id| !owned.contains(id) && !self.catalog.has(id)) {
            let gone = match self.end_engine(&id, Duration::ZERO).await {
                Ok(()) => self.remove(&id).await,
                Err(error) => Err(error),
            };
            match gone {
                Ok(()) => removed.push(format!("directory of volume {id}")),
                Err(error) => tracing::warn!(volume = id, %error, "a leftover directory is not removed"),
            }
        }
        for id in entrances.into_iter().filter(|id| !owned.contains(id)) {
            // A volume that is left alone may still be served.
            if fs::symlink_metadata(self.entrance(&id)).is_ok_and(|m| std::os::unix::fs::MetadataExt::nlink(&m) > 1) {
                continue;
            }
            match self.shut_out(&id) {
                Ok(()) => removed.push(format!("socket of attachment {id}")),
                Err(error) => tracing::warn!(attachment = id, %error, "a leftover socket is not removed"),
            }
        }
        removed
    }
}

/// Ends all storage daemons at once, known or not, without an agent. Guests must have ended before.
pub(crate) async fn stop_all(config: &Config) -> Result<(), Error> {
    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };
    for (pid, _) in engine::daemons(&config.dir.join("volumes")) {
        let Some(start) = process::start_time(pid) else { continue };
        // It closes its files in order when asked; what does not obey is killed.
        if let Ok(target) = i32::try_from(pid) {
            let _ = kill(Pid::from_raw(target), Signal::SIGTERM);
        }
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        while process::is_alive(pid, start) && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        process::kill(pid, start).await?;
    }
    Ok(())
}

impl Volumes for Storage {
    fn on_change(&self, nudge: Nudge) {
        // One agent per host.
        let _ = self.nudge.set(nudge);
    }
    fn observe<'a>(&'a self, id: &'a str) -> Pending<'a, Result<Seen, Error>> {
        Box::pin(async move { Ok(self.seen(id).await) })
    }
    fn carry_out<'a>(&'a self, step: &'a Step, volume: &'a VolumeAssignment) -> Pending<'a, Result<(), Error>> {
        Box::pin(self.act(step, volume))
    }
    fn sweep<'a>(&'a self, owned: Owned<'a>) -> Pending<'a, Vec<String>> {
        Box::pin(self.sweep_all(owned))
    }
}
