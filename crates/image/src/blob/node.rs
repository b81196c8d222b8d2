//! The store as a node on the same machine sees it.
use super::{
    BlobError, LocalStore, blocking,
    local::remove,
    pump::{Digest, Hasher},
    writer,
};
use crate::inspect::{Inspection, inspect};
use assign::{BlobInfo, Blobs, Pending};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

impl Blobs for LocalStore {
    /// A hard link where that is possible, so that it costs no space: **the file must never be written to**. Otherwise a copy,
    /// hashed after it was made.
    fn fetch<'a>(&'a self, blob: &'a str, to: &'a Path) -> Pending<'a, io::Result<()>> {
        Box::pin(async move { Ok(self.bring(blob, to).await?) })
    }

    /// Refuses files that are not safe to open. On success `from` is gone; after an error it is as it was.
    fn store<'a>(&'a self, from: &'a Path) -> Pending<'a, io::Result<BlobInfo>> {
        Box::pin(async move { Ok(self.adopt(from).await?) })
    }
}

impl LocalStore {
    async fn bring(&self, blob: &str, to: &Path) -> Result<(), BlobError> {
        let (path, target) = (self.path(blob)?, to.to_owned());
        let opened = self.read(blob).await?;
        let linked = blocking({
            let target = target.clone();
            move || match fs::hard_link(&path, &target) {
                Ok(()) => Ok(true),
                Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {
                    Err(BlobError::io("link", &target)(error))
                }
                // Another file system, or one without links.
                Err(_) => Ok(false),
            }
        })
        .await??;
        if linked { Ok(()) } else { copy(blob, opened.file(), target).await }
    }

    async fn adopt(&self, from: &Path) -> Result<BlobInfo, BlobError> {
        let (path, dir) = (from.to_owned(), self.incoming_dir());
        let (file, in_place) = blocking(move || open_own(&path, &dir)).await??;
        if !in_place {
            let mut stream = tokio::fs::File::from_std(file);
            let sealed = self.put(&mut stream, u64::MAX).await?;
            sealed.inspection().safety.clone()?;
            let info = sealed.publish().await?;
            let path = from.to_owned();
            blocking(move || remove(&path)).await??;
            return Ok(info);
        }
        let file = Arc::new(file);
        let digest = Hasher::file(Arc::clone(&file)).await.map_err(BlobError::io("hash", from))?;
        let (store, path) = (self.clone(), from.to_owned());
        let info = blocking(move || store.adopt_in_place(&path, &file, &digest)).await??;
        self.share(&info.blob).await?;
        Ok(info)
    }

    fn adopt_in_place(&self, path: &Path, file: &File, digest: &Digest) -> Result<BlobInfo, BlobError> {
        let inspection: Inspection = inspect(file).map_err(BlobError::io("inspect", path))?;
        inspection.safety.clone()?;
        file.sync_all().map_err(BlobError::io("write", path))?;
        self.place(path, digest)?;
        Ok(writer::info(digest, &inspection))
    }
}

/// Opens a regular file; tells whether it may be moved to `dir` as it is: on the same file system and without another name
/// through which it could be changed.
fn open_own(path: &Path, dir: &Path) -> Result<(File, bool), BlobError> {
    let failed = |error| BlobError::io("open", path)(error);
    let named = fs::symlink_metadata(path).map_err(failed)?;
    if !named.is_file() {
        return Err(BlobError::NotAFile { path: path.to_owned() });
    }
    let file = File::open(path).map_err(failed)?;
    let opened = file.metadata().map_err(failed)?;
    if (opened.dev(), opened.ino()) != (named.dev(), named.ino()) {
        return Err(BlobError::NotAFile { path: path.to_owned() });
    }
    let here = fs::metadata(dir).map_err(BlobError::io("look at", dir))?.dev();
    Ok((file, opened.dev() == here && opened.nlink() == 1))
}

/// A copy that is renamed to its name when it is whole and proved.
async fn copy(blob: &str, from: Arc<File>, to: PathBuf) -> Result<(), BlobError> {
    let partial = Partial(to.with_file_name(format!(".{}.partial", base::id::hex())));
    let path = partial.0.clone();
    let made = blocking(move || {
        let failed = |error| BlobError::io("copy to", &path)(error);
        let mut copy = File::options().read(true).write(true).create_new(true).open(&path).map_err(failed)?;
        io::copy(&mut &*from, &mut copy).map_err(|error| BlobError::io("copy to", &path)(error))?;
        copy.sync_all().map_err(|error| BlobError::io("copy to", &path)(error))?;
        Ok::<_, BlobError>(copy)
    })
    .await??;
    let digest = Hasher::file(Arc::new(made)).await.map_err(BlobError::io("read", &partial.0))?;
    if digest.sha512 != blob {
        return Err(BlobError::Damaged { blob: blob.to_owned() });
    }
    // A link, unlike a rename, does not replace what is there.
    blocking(move || {
        let done = fs::hard_link(&partial.0, &to).or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Err(error),
            _ => fs::rename(&partial.0, &to),
        });
        done.map_err(BlobError::io("name", &to))
    })
    .await?
}

struct Partial(PathBuf);
impl Drop for Partial {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
