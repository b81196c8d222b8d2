//! Image blobs on this node, each brought here once, whoever asks, and kept while a disk rests on it.
//!
//! A blob is immutable and named by its hash. Formats that QEMU should not run from are converted once. Blobs that no disk
//! needs are removed, least recently used first, when the disk gets short.
use crate::{Error, command::Tool, host, qemu::disks, remember::Memory};
use assign::{Blobs, ImageRef};
use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::SystemTime,
};
use tokio::sync::{OwnedRwLockReadGuard, RwLock, Semaphore};

const GIB: u64 = 1 << 30;

pub(crate) struct Cache {
    dir: PathBuf,
    blobs: Arc<dyn Blobs>,
    memory: Arc<Memory>,
    /// Bytes to keep free.
    reserve: u64,
    /// Who reads foreign formats: never the agent's own user, where there is another.
    converter: Option<u32>,
    /// One lock per blob in use: written while it is brought here, read while a disk is made from it.
    busy: Mutex<HashMap<String, Weak<RwLock<()>>>>,
    /// Downloads and conversions at once.
    slots: Semaphore,
}

/// A base image that a disk can be made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) path: PathBuf,
    /// `raw` or `qcow2`.
    pub(crate) format: String,
}

impl Cache {
    pub(crate) fn open(
        dir: PathBuf,
        blobs: Arc<dyn Blobs>,
        memory: Arc<Memory>,
        reserve_gib: u64,
        converter: Option<u32>,
    ) -> Result<Self, Error> {
        fs::create_dir_all(&dir).map_err(Error::path("create", &dir))?;
        for entry in fs::read_dir(&dir).map_err(Error::path("read", &dir))?.flatten() {
            if entry.file_name().to_string_lossy().ends_with(".part") {
                fs::remove_file(entry.path()).map_err(Error::path("remove", &entry.path()))?;
            }
        }
        let slots = Semaphore::new(4);
        Ok(Self { dir, blobs, memory, reserve: reserve_gib * GIB, converter, busy: Mutex::default(), slots })
    }

    /// Where the image is, or will be once fetched.
    pub(crate) fn base(&self, image: &ImageRef) -> Result<Base, Error> {
        if image.blob.is_empty() || !image.blob.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            return Err(self.failed(image, "its blob name is not a hash".into(), false));
        }
        match image.format.as_str() {
            // An ISO image is booted as the disk that it also is.
            "raw" | "iso" => Ok(Base { path: self.dir.join(&image.blob), format: "raw".into() }),
            "qcow2" => Ok(Base { path: self.dir.join(&image.blob), format: "qcow2".into() }),
            "vmdk" | "vhdx" | "vhd" | "vdi" => {
                Ok(Base { path: self.dir.join(format!("{}.qcow2", image.blob)), format: "qcow2".into() })
            }
            _ => Err(Error::Format { image: image.image_id.clone(), format: image.format.clone() }),
        }
    }

    /// Brings the image here, unless it is. The base stays while the returned hold lives.
    pub(crate) async fn hold(&self, image: &ImageRef) -> Result<(Base, Hold), Error> {
        let base = self.base(image)?;
        let lock = self.lock_of(&image.blob);
        loop {
            let hold = lock.clone().read_owned().await;
            if base.path.exists() {
                touch(&base.path);
                return Ok((base, Hold(hold)));
            }
            drop(hold);
            let _alone = lock.write().await;
            if !base.path.exists() {
                // Closed only when the agent ends.
                let _slot = self.slots.acquire().await;
                self.make_room();
                self.bring(image, &base).await?;
            }
        }
    }

    async fn bring(&self, image: &ImageRef, base: &Base) -> Result<(), Error> {
        let part = self.dir.join(format!("{}.part", image.blob));
        remove(&part)?;
        tracing::info!(image = image.image_id, "an image is brought to the node");
        self.blobs.fetch(&image.blob, &part).await.map_err(|e| match e.kind() {
            io::ErrorKind::StorageFull => Error::NoSpace(format!("image {}", image.image_id)),
            io::ErrorKind::NotFound => self.failed(image, "its data is missing".into(), false),
            _ => self.failed(image, e.to_string(), true),
        })?;
        if base.path.extension().is_some() {
            let made = self.dir.join(format!("{}.qcow2.part", image.blob));
            fs::File::create(&made).map_err(Error::path("create", &made))?;
            disks::give(&part, self.converter)?;
            disks::give(&made, self.converter)?;
            let convert = Tool::limited("qemu-img", 2 * GIB, 1800)
                .user(self.converter)
                .args(["convert", "-f", driver(&image.format), "-O", "qcow2"])
                .args([&part, &made])
                .run()
                .await;
            let dropped = remove(&part);
            convert.inspect_err(|_| drop(remove(&made)))?;
            dropped?;
            if self.converter.is_some() {
                chown(&made, Some(0), Some(0)).map_err(Error::path("take back", &made))?;
            }
            return publish(&made, &base.path);
        }
        publish(&part, &base.path)
    }

    fn lock_of(&self, blob: &str) -> Arc<RwLock<()>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = busy.get(blob).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(RwLock::new(()));
        busy.insert(blob.to_owned(), Arc::downgrade(&lock));
        lock
    }

    /// Removes blobs that nobody needs until the reserve is free.
    pub(crate) fn make_room(&self) {
        let is_short = || host::room(&self.dir).is_ok_and(|r| r.free < self.reserve);
        if !is_short() {
            return;
        }
        let needed = self.memory.blobs();
        let busy: Vec<String> = {
            let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
            busy.iter().filter(|(_, l)| l.strong_count() > 0).map(|(b, _)| b.clone()).collect()
        };
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        let mut idle: Vec<(SystemTime, PathBuf)> = entries
            .flatten()
            .filter(|e| {
                let name = e.file_name().to_string_lossy().into_owned();
                let blob = name.trim_end_matches(".part").trim_end_matches(".qcow2");
                !needed.contains(blob) && !busy.iter().any(|b| b == blob)
            })
            .filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path())))
            .collect();
        idle.sort();
        for (_, path) in idle {
            if !is_short() {
                return;
            }
            match fs::remove_file(&path) {
                Ok(()) => tracing::info!(path = %path.display(), "an unused image was removed to make room"),
                Err(error) => tracing::warn!(path = %path.display(), %error, "an unused image is not removed"),
            }
        }
    }

    fn failed(&self, image: &ImageRef, cause: String, transient: bool) -> Error {
        Error::Image { image: image.image_id.clone(), cause, transient }
    }
}

/// Keeps a base from being removed before the disk on it is remembered.
pub(crate) struct Hold(#[expect(dead_code, reason = "held for its drop")] OwnedRwLockReadGuard<()>);

/// QEMU's name of a format.
fn driver(format: &str) -> &str {
    if format == "vhd" { "vpc" } else { format }
}

fn publish(part: &Path, path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(part, fs::Permissions::from_mode(0o644)).map_err(Error::path("open to guests", part))?;
    let file = fs::File::open(part).map_err(Error::path("open", part))?;
    file.sync_all().map_err(Error::path("write", part))?;
    fs::rename(part, path).map_err(Error::path("create", path))
}

/// Removes a file; it may be missing.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::path("remove", path)(e)),
    }
}

/// Marks a blob as used now; only the order of removal depends on it.
fn touch(path: &Path) {
    let _ = fs::File::options().append(true).open(path).and_then(|f| f.set_modified(SystemTime::now()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use assign::{BlobInfo, Pending};
    use std::sync::atomic::{AtomicU32, Ordering};

    #[derive(Default)]
    struct Counting(AtomicU32);
    impl Blobs for Counting {
        fn fetch<'a>(&'a self, blob: &'a str, to: &'a Path) -> Pending<'a, io::Result<()>> {
            Box::pin(async move {
                self.0.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                if blob == "missing" { Err(io::ErrorKind::NotFound.into()) } else { fs::write(to, blob) }
            })
        }
        fn store<'a>(&'a self, _: &'a Path) -> Pending<'a, io::Result<BlobInfo>> {
            Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
        }
    }
    fn image(blob: &str, format: &str) -> ImageRef {
        ImageRef { image_id: "i".into(), blob: blob.into(), format: format.into() }
    }

    #[tokio::test]
    async fn fetched_once_and_evicted_only_when_unused() {
        let dir = tempfile::tempdir().unwrap();
        let (blobs, memory) = (Arc::new(Counting::default()), Arc::new(Memory::volatile()));
        let mut cache = Cache::open(dir.path().join("images"), blobs.clone(), memory.clone(), 0, None).unwrap();
        let (a, b) = (image("aa", "raw"), image("bb", "qcow2"));
        let (x, again, y) = tokio::join!(cache.hold(&a), cache.hold(&a), cache.hold(&b));
        let ((x, held), (y, _)) = (x.unwrap(), y.unwrap());
        drop((held, again));
        cache.hold(&a).await.unwrap();
        assert_eq!(blobs.0.load(Ordering::SeqCst), 2);
        memory
            .update("s", |r| {
                r.disk = Some(crate::remember::Disk { generation: 0, size_gib: 0, blob: "aa".into(), format: "raw".into() });
            })
            .unwrap();
        cache.reserve = u64::MAX;
        cache.make_room();
        assert!(x.path.exists() && !y.path.exists());
    }

    #[tokio::test]
    async fn refuses_what_it_cannot_boot_or_name() {
        let dir = tempfile::tempdir().unwrap();
        let cache =
            Cache::open(dir.path().join("i"), Arc::new(Counting::default()), Arc::new(Memory::volatile()), 0, None).unwrap();
        assert!(matches!(cache.base(&image("a", "luks")), Err(Error::Format { .. })));
        assert!(matches!(cache.base(&image("../a", "raw")), Err(Error::Image { transient: false, .. })));
        let missing = cache.hold(&image("missing", "raw")).await.err().unwrap();
        assert!(!missing.is_transient(), "{missing}");
    }

    /// A store with one file.
    struct Shelf(PathBuf);
    impl Blobs for Shelf {
        fn fetch<'a>(&'a self, _: &'a str, to: &'a Path) -> Pending<'a, io::Result<()>> {
            Box::pin(async move { fs::copy(&self.0, to).map(drop) })
        }
        fn store<'a>(&'a self, _: &'a Path) -> Pending<'a, io::Result<BlobInfo>> {
            Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
        }
    }

    #[tokio::test]
    async fn foreign_formats_become_qcow2_by_a_user_who_may_nothing_else() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let converter = nix::unistd::geteuid().is_root().then_some(64_999);
        for format in ["vmdk", "vhdx", "vhd", "vdi"] {
            let file = dir.path().join(format);
            let args = ["create", "-q", "-f", driver(format), file.to_str().unwrap(), "4M"];
            Tool::new("qemu-img").args(args).run().await.unwrap();
            let shelf = Arc::new(Shelf(file));
            let cache = Cache::open(dir.path().join("cache"), shelf, Arc::new(Memory::volatile()), 0, converter).unwrap();
            let (base, _hold) = cache.hold(&image(&format!("blob-{format}"), format)).await.unwrap();
            assert_eq!((base.format.as_str(), &fs::read(&base.path).unwrap()[..4]), ("qcow2", &b"QFI\xfb"[..]), "{format}");
            assert!(disks::virtual_size(&base.path, "qcow2").unwrap() >= 4 << 20, "{format}");
        }
        let left = fs::read_dir(dir.path().join("cache")).unwrap().count();
        assert_eq!(left, 4, "the originals do not stay");
    }
}
