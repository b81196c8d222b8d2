//! The store's directory and what is done to whole blobs.
use super::{
    Blob, BlobError, Sealed, Writer, blocking, is_name,
    others::Neighbours,
    pump::{CHUNK, Digest, Hasher},
    read,
};
use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Image blobs in one directory. Cheap to clone.
#[derive(Clone)]
pub struct LocalStore {
    root: Arc<Path>,
    pub(super) neighbours: Arc<Neighbours>,
}

/// A blob in the store's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub blob: String,
    pub size: u64,
    /// When it was stored or touched last.
    pub modified: SystemTime,
}

impl LocalStore {
    /// Opens the store, and makes it if it is not there. Only this process's user may look inside.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, BlobError> {
        let root: PathBuf = dir.into();
        for dir in [root.clone(), root.join("blobs"), root.join("incoming")] {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(BlobError::io("create", &dir))?;
        }
        Ok(Self { root: root.into(), neighbours: Arc::default() })
    }

    /// Where the blob's file is, there or not.
    pub fn path(&self, blob: &str) -> Result<PathBuf, BlobError> {
        if !is_name(blob) {
            return Err(BlobError::BadName { name: blob.chars().filter(|c| !c.is_control()).take(140).collect() });
        }
        Ok(self.blobs_dir().join(&blob[..2]).join(blob))
    }

    /// Begins an upload of at most `limit` bytes.
    pub async fn writer(&self, limit: u64) -> Result<Writer, BlobError> {
        Writer::create(self, limit).await
    }

    /// Takes a whole stream of at most `limit` bytes.
    pub async fn put(&self, stream: &mut (impl AsyncRead + Unpin), limit: u64) -> Result<Sealed, BlobError> {
        let mut writer = self.writer(limit).await?;
        let mut buf = vec![0; CHUNK];
        loop {
            let count = stream.read(&mut buf).await.map_err(BlobError::io("read", Path::new("the stream")))?;
            if count == 0 {
                return writer.seal().await;
            }
            writer.write(&buf[..count]).await?;
        }
    }

    /// Opens a blob for reading; one that only another controller has is brought first.
    pub async fn read(&self, blob: &str) -> Result<Blob, BlobError> {
        self.keep(blob).await?;
        self.read_here(blob).await
    }

    /// Opens a blob that is here.
    pub async fn read_here(&self, blob: &str) -> Result<Blob, BlobError> {
        let path = self.path(blob)?;
        let blob = blob.to_owned();
        blocking(move || read::open(&path, blob)).await?
    }

    /// Size of the blob, or none if it is not here.
    pub async fn size(&self, blob: &str) -> Result<Option<u64>, BlobError> {
        let path = self.path(blob)?;
        blocking(move || match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(BlobError::io("look at", &path)(error)),
        })
        .await?
    }

    /// Begins the blob's grace period anew, before a new row refers to it. False if it is not here.
    pub async fn touch(&self, blob: &str) -> Result<bool, BlobError> {
        let (store, path) = (self.clone(), self.path(blob)?);
        blocking(move || {
            let _lock = store.lock()?;
            freshen(&path)
        })
        .await?
    }

    /// Removes the blob at once. False if it was not here.
    pub async fn delete(&self, blob: &str) -> Result<bool, BlobError> {
        let (store, path) = (self.clone(), self.path(blob)?);
        blocking(move || {
            let _lock = store.lock()?;
            remove(&path)
        })
        .await?
    }

    /// Reads the whole blob again; an error if its content is no longer what its name says.
    pub async fn verify(&self, blob: &str) -> Result<(), BlobError> {
        let opened = self.read(blob).await?;
        let digest = Hasher::file(opened.file()).await.map_err(BlobError::io("read", &self.path(blob)?))?;
        if digest.sha512 == blob { Ok(()) } else { Err(BlobError::Damaged { blob: blob.to_owned() }) }
    }

    /// All blobs, by name. Other files in the directory are not listed.
    pub async fn list(&self) -> Result<Vec<Stored>, BlobError> {
        let dir = self.blobs_dir();
        blocking(move || {
            let mut found = Vec::new();
            for shard in entries(&dir)? {
                found.extend(entries(&shard)?.iter().filter_map(|path| stored(path)));
            }
            found.sort_unstable_by(|a: &Stored, b| a.blob.cmp(&b.blob));
            Ok(found)
        })
        .await?
    }

    pub(super) fn blobs_dir(&self) -> PathBuf {
        self.root.join("blobs")
    }
    pub(super) fn incoming_dir(&self) -> PathBuf {
        self.root.join("incoming")
    }

    /// Excludes other publishers and sweepers, also in other processes, until the file is dropped.
    pub(super) fn lock(&self) -> Result<File, BlobError> {
        let path = self.root.join("lock");
        let opened = File::options().create(true).truncate(false).write(true).open(&path);
        let file = opened.map_err(BlobError::io("open", &path))?;
        file.lock().map_err(BlobError::io("lock", &path))?;
        Ok(file)
    }

    /// Moves a hashed file, already durable, to its name, unless the same content is there. Blocking.
    pub(super) fn place(&self, from: &Path, digest: &Digest) -> Result<(), BlobError> {
        let to = self.path(&digest.sha512)?;
        let shard = to.parent().unwrap_or(&to);
        let _lock = self.lock()?;
        let known = fs::metadata(&to).is_ok_and(|metadata| metadata.len() == digest.size);
        if known && freshen(&to)? {
            return remove(from).map(drop);
        }
        DirBuilder::new().recursive(true).mode(0o700).create(shard).map_err(BlobError::io("create", shard))?;
        fs::set_permissions(from, Permissions::from_mode(0o444)).map_err(BlobError::io("protect", from))?;
        set_modified(from).map_err(BlobError::io("touch", from))?;
        fs::rename(from, &to).map_err(BlobError::io("publish", &to))?;
        for dir in [shard, &self.blobs_dir()] {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(BlobError::io("write", dir))?;
        }
        Ok(())
    }
}

fn set_modified(path: &Path) -> io::Result<()> {
    File::open(path)?.set_modified(SystemTime::now())
}

fn freshen(path: &Path) -> Result<bool, BlobError> {
    match set_modified(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(BlobError::io("touch", path)(error)),
    }
}

pub(super) fn remove(path: &Path) -> Result<bool, BlobError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(BlobError::io("remove", path)(error)),
    }
}

/// Paths in a directory; none if it is not one.
pub(super) fn entries(dir: &Path) -> Result<Vec<PathBuf>, BlobError> {
    match fs::read_dir(dir) {
        Ok(list) => {
            list.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>().map_err(BlobError::io("list", dir))
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(BlobError::io("list", dir)(error)),
    }
}

/// The blob at a path, if it is one. It may have gone since it was listed.
pub(super) fn stored(path: &Path) -> Option<Stored> {
    let blob = path.file_name()?.to_str().filter(|name| is_name(name))?;
    let metadata = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some(Stored { blob: blob.to_owned(), size: metadata.len(), modified: metadata.modified().ok()? })
}
