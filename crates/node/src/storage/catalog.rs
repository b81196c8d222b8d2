//! Which layers each volume consists of: one durable manifest per volume, and the files that manifests name.
//!
//! A volume's content is a chain of layers, base first; only the last one is written to. A snapshot is a chain too, and a clone
//! begins with the chain of its source. So nothing ever refers to a volume or a snapshot, only to layers, and both can be deleted in any
//! order: a layer goes when no chain names it. The file is made first, the manifest second, and only then does a process follow:
//! an interruption leaves either a file that no manifest names, which is removed, or a layer that is still empty, which is right.
use crate::{Error, qemu::cache::remove};
use assign::BlobInfo;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

const VERSION: u32 = 1;

/// A layer's name: its format's letter, and the rest is random. The directory cannot be listed by the processes that open layers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Layer(pub(crate) String);

impl Layer {
    fn new(letter: char) -> Self {
        Self(format!("{letter}{}", &base::id::hex()[..24]))
    }
    pub(crate) fn format(&self) -> &'static str {
        if self.0.starts_with('r') { "raw" } else { "qcow2" }
    }
}

/// What is known of one volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Manifest {
    pub(crate) version: u32,
    pub(crate) size_gib: u64,
    pub(crate) generation: u64,
    /// Base first; the last one is written to.
    pub(crate) chain: Vec<Layer>,
    pub(crate) snapshots: BTreeMap<String, Vec<Layer>>,
    /// Images that were made or failed.
    pub(crate) uploads: BTreeMap<String, Result<BlobInfo, String>>,
}

#[derive(Default)]
struct State {
    manifests: BTreeMap<String, Manifest>,
    /// Volumes whose manifest cannot be read, and why. While there is one, no layer is removed.
    damaged: BTreeMap<String, String>,
    /// Layers that someone works with, and how many do.
    held: BTreeMap<Layer, u32>,
}

/// The manifests of all volumes on this node.
pub(crate) struct Catalog {
    dir: PathBuf,
    state: Arc<Mutex<State>>,
}

/// Keeps layers from being removed.
pub(crate) struct Held {
    state: Arc<Mutex<State>>,
    layers: Vec<Layer>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        for layer in &self.layers {
            if let Some(count) = state.held.get_mut(layer) {
                *count -= 1;
                if *count == 0 {
                    state.held.remove(layer);
                }
            }
        }
    }
}

impl Catalog {
    /// Reads what earlier agents left below `dir`.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        for sub in [dir.to_owned(), dir.join("layers")] {
            fs::create_dir_all(&sub).map_err(Error::path("create", &sub))?;
            // Processes pass through to what they were told of; they cannot list.
            fs::set_permissions(&sub, fs::Permissions::from_mode(0o711)).map_err(Error::path("protect", &sub))?;
        }
        let mut state = State::default();
        for entry in fs::read_dir(dir).map_err(Error::path("read", dir))? {
            let entry = entry.map_err(Error::path("read", dir))?;
            let Some(id) = entry.file_name().into_string().ok().filter(|n| base::id::is_uuid(n)) else { continue };
            match read(&entry.path().join("manifest.json")) {
                Ok(Some(manifest)) => drop(state.manifests.insert(id, manifest)),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(volume = id, %error, "the manifest of a volume cannot be read; no layer is removed until it can");
                    state.damaged.insert(id, error);
                }
            }
        }
        Ok(Self { dir: dir.to_owned(), state: Arc::new(Mutex::new(state)) })
    }

    /// The directory of a volume.
    pub(crate) fn home(&self, id: &str) -> PathBuf {
        self.dir.join(id)
    }
    pub(crate) fn path(&self, layer: &Layer) -> PathBuf {
        self.dir.join("layers").join(format!("{}.{}", layer.0, layer.format()))
    }
    pub(crate) fn get(&self, id: &str) -> Option<Manifest> {
        lock(&self.state).manifests.get(id).cloned()
    }
    /// Why the volume's manifest cannot be read.
    pub(crate) fn damage(&self, id: &str) -> Option<String> {
        lock(&self.state).damaged.get(id).cloned()
    }
    pub(crate) fn has(&self, id: &str) -> bool {
        let state = lock(&self.state);
        state.manifests.contains_key(id) || state.damaged.contains_key(id)
    }

    /// A new layer's name, held until its manifest is written. One with nothing below is raw: what a guest was told is written stays
    /// written when the process that serves it is killed. Others have tables that such a process keeps in memory for a while.
    pub(crate) fn new_layer(&self, has_below: bool) -> (Layer, Held) {
        let layer = Layer::new(if has_below { 'q' } else { 'r' });
        let held = self.hold(std::slice::from_ref(&layer));
        (layer, held)
    }
    pub(crate) fn hold(&self, layers: &[Layer]) -> Held {
        let mut state = lock(&self.state);
        for layer in layers {
            *state.held.entry(layer.clone()).or_default() += 1;
        }
        Held { state: self.state.clone(), layers: layers.to_vec() }
    }

    /// Changes a manifest, or makes it; durable when this returns. Nothing is changed on an error.
    pub(crate) fn update(&self, id: &str, change: impl FnOnce(&mut Manifest)) -> Result<Manifest, Error> {
        let mut state = lock(&self.state);
        let old = state.manifests.get(id);
        let mut next = old.cloned().unwrap_or_default();
        change(&mut next);
        next.version = VERSION;
        if old != Some(&next) {
            let home = self.home(id);
            fs::create_dir_all(&home).map_err(Error::path("create", &home))?;
            fs::set_permissions(&home, fs::Permissions::from_mode(0o711)).map_err(Error::path("protect", &home))?;
            write(&home.join("manifest.json"), &next)?;
            state.manifests.insert(id.to_owned(), next.clone());
        }
        Ok(next)
    }

    /// Changes a manifest that is there.
    pub(crate) fn amend(&self, id: &str, change: impl FnOnce(&mut Manifest)) -> Result<(), Error> {
        let mut state = lock(&self.state);
        let Some(old) = state.manifests.get_mut(id) else { return Ok(()) };
        let mut next = old.clone();
        change(&mut next);
        if *old != next {
            write(&self.home(id).join("manifest.json"), &next)?;
            *old = next;
        }
        Ok(())
    }

    /// Forgets a volume; its layers go with the next [`Catalog::collect`].
    pub(crate) fn forget(&self, id: &str) -> Result<(), Error> {
        let mut state = lock(&self.state);
        let home = self.home(id);
        remove(&home.join("manifest.json"))?;
        if home.exists() {
            sync(&home).map_err(Error::path("write", &home))?;
        }
        state.manifests.remove(id);
        state.damaged.remove(id);
        Ok(())
    }

    /// Removes the layers that no chain names; returns which.
    pub(crate) fn collect(&self) -> Vec<Layer> {
        let state = lock(&self.state);
        if !state.damaged.is_empty() {
            return Vec::new();
        }
        let chains = state.manifests.values().flat_map(|m| m.snapshots.values().chain([&m.chain]));
        let needed: BTreeSet<&Layer> = chains.flatten().chain(state.held.keys()).collect();
        let files = fs::read_dir(self.dir.join("layers")).into_iter().flatten().flatten();
        let mut gone = Vec::new();
        for file in files {
            let name = file.file_name().to_string_lossy().into_owned();
            let layer = Layer(name.split('.').next().unwrap_or_default().to_owned());
            if needed.contains(&layer) {
                continue;
            }
            match fs::remove_file(file.path()) {
                Ok(()) => gone.push(layer),
                Err(error) => tracing::warn!(layer = layer.0, %error, "a layer is not removed"),
            }
        }
        gone
    }

    /// A layer of the volume's chain and the one above it that can become one: no chain ends with the lower one, and no other
    /// volume names either.
    pub(crate) fn mergeable(&self, id: &str) -> Option<(Layer, Layer)> {
        let state = lock(&self.state);
        let own = state.manifests.get(id)?;
        let mut foreign: BTreeSet<&Layer> = state.held.keys().collect();
        for (other, manifest) in &state.manifests {
            if other != id {
                foreign.extend(manifest.snapshots.values().chain([&manifest.chain]).flatten());
            }
        }
        let ends: BTreeSet<&Layer> = own.snapshots.values().filter_map(|c| c.last()).collect();
        let pairs = own.chain.iter().zip(own.chain.iter().skip(1));
        let is_free = |(lower, upper): &(&Layer, &Layer)| {
            // A snapshot of before a revert may go on differently above the lower layer.
            let is_shared = own.snapshots.values().any(|c| {
                let at = c.iter().position(|l| l == *lower);
                at.is_some_and(|i| c.get(i + 1) != Some(upper))
            });
            !foreign.contains(lower) && !foreign.contains(upper) && !ends.contains(lower) && !is_shared
        };
        pairs.filter(is_free).map(|(l, u)| (l.clone(), u.clone())).next()
    }
}

fn read(path: &Path) -> Result<Option<Manifest>, String> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| e.to_string()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e.to_string()),
    }
}

fn sync(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

/// Replaces a file so that after a power cut either the old or the new content is there.
fn write(path: &Path, value: &Manifest) -> Result<(), Error> {
    let attempt = || -> io::Result<()> {
        let temporary = path.with_extension("new");
        // The names of layers are for nobody else.
        let mut file = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        let home = path.parent().unwrap_or(Path::new("/"));
        sync(home)?;
        // The directory itself may be new.
        sync(home.parent().unwrap_or(Path::new("/")))
    };
    attempt().map_err(Error::path("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(names: &str) -> Vec<Layer> {
        names.chars().map(|c| Layer(c.to_string())).collect()
    }
    fn catalog(dir: &Path) -> (Catalog, String, String) {
        let c = Catalog::open(dir).unwrap();
        for name in "abcdx".chars() {
            fs::write(c.path(&Layer(name.to_string())), b"").unwrap();
        }
        (c, base::id::uuid(), base::id::uuid())
    }

    #[test]
    fn a_layer_stays_while_a_chain_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let (c, v, clone) = catalog(dir.path());
        c.update(&v, |m| {
            m.chain = layers("abc");
            m.snapshots.insert("s".into(), layers("ab"));
        })
        .unwrap();
        c.update(&clone, |m| m.chain = layers("abd")).unwrap();
        assert_eq!(c.collect(), layers("x"));
        // The volume goes before its snapshot's clone.
        c.forget(&v).unwrap();
        assert_eq!(c.collect(), layers("c"));
        let again = Catalog::open(dir.path()).unwrap();
        assert_eq!((again.get(&v), again.get(&clone).map(|m| m.chain)), (None, Some(layers("abd"))));
        let held = again.hold(&layers("a"));
        again.forget(&clone).unwrap();
        let mut gone = again.collect();
        gone.sort();
        assert_eq!(gone, layers("bd"));
        drop(held);
        assert_eq!(again.collect(), layers("a"));
    }

    #[test]
    fn a_manifest_that_cannot_be_read_protects_all_layers() {
        let dir = tempfile::tempdir().unwrap();
        let (c, v, _) = catalog(dir.path());
        c.update(&v, |m| m.chain = layers("a")).unwrap();
        fs::write(c.home(&v).join("manifest.json"), b"{\"chain\":").unwrap();
        let again = Catalog::open(dir.path()).unwrap();
        assert!(again.damage(&v).is_some() && again.has(&v) && again.get(&v).is_none());
        assert_eq!(again.collect(), []);
        again.forget(&v).unwrap();
        assert_eq!(again.collect().len(), 5);
    }

    #[test]
    fn only_what_nobody_else_needs_is_merged() {
        let dir = tempfile::tempdir().unwrap();
        let (c, v, clone) = catalog(dir.path());
        let pair = |l: &str, u: &str| Some((Layer(l.into()), Layer(u.into())));
        c.update(&v, |m| {
            m.chain = layers("abc");
            m.snapshots.insert("s".into(), layers("a"));
        })
        .unwrap();
        assert_eq!(c.mergeable(&v), pair("b", "c"));
        c.update(&v, |m| m.snapshots.clear()).unwrap();
        assert_eq!(c.mergeable(&v), pair("a", "b"));
        c.update(&clone, |m| m.chain = layers("ad")).unwrap();
        assert_eq!(c.mergeable(&v), pair("b", "c"));
        let _held = c.hold(&layers("c"));
        assert_eq!(c.mergeable(&v), None);
    }

    /// A revert leaves snapshots that go on above the same base in another way.
    #[test]
    fn a_base_with_two_ways_up_is_not_merged() {
        let dir = tempfile::tempdir().unwrap();
        let (c, v, _) = catalog(dir.path());
        c.update(&v, |m| {
            m.chain = layers("ad");
            m.snapshots.insert("newer".into(), layers("abc"));
        })
        .unwrap();
        assert_eq!(c.mergeable(&v), None);
    }

    /// The stored form of version 1; a change of the struct must still read it.
    #[test]
    fn golden_form() {
        let text =
            r#"{"version":1,"size_gib":2,"generation":1,"chain":["a","b"],"snapshots":{"s":["a"]},"uploads":{"i":{"Err":"no"}}}"#;
        let m: Manifest = serde_json::from_str(text).unwrap();
        assert_eq!((m.size_gib, m.chain.len(), m.snapshots["s"].len()), (2, 2, 1));
        assert_eq!(serde_json::to_string(&m).unwrap(), text);
    }
}
