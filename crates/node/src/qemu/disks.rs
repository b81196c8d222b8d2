//! A server's own disks: qcow2 overlays on cached images. Formats are always said, never guessed.
use crate::{
    Error,
    command::Tool,
    qemu::cache::{Base, remove},
};
use std::{
    fs,
    io::Read as _,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

const MEMORY: u64 = 1 << 30;
const SECONDS: u64 = 30;

/// File of the root disk of a generation: a rebuilt disk never takes the place of the old one half-way.
pub(crate) fn root(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("disk-{generation}.qcow2"))
}
pub(crate) fn rescue(dir: &Path) -> PathBuf {
    dir.join("rescue.qcow2")
}

/// Makes an overlay; `size_gib` of 0 takes the base's own size.
pub(crate) async fn create(base: &Base, to: &Path, size_gib: u64, owner: Option<u32>) -> Result<(), Error> {
    let part = to.with_extension("part");
    remove(&part)?;
    let mut args: Vec<std::ffi::OsString> =
        ["create", "-q", "-f", "qcow2", "-F", base.format.as_str(), "-b"].iter().map(Into::into).collect();
    args.extend([base.path.clone().into(), part.clone().into()]);
    if size_gib > 0 {
        let own = virtual_size(&base.path, &base.format)?;
        let wanted = size_gib << 30;
        // An image larger than the disk is refused by the control plane; a disk never cuts it short.
        args.push(wanted.max(own).to_string().into());
    }
    Tool::limited("qemu-img", MEMORY, SECONDS).args(args).run().await?;
    give(&part, owner)?;
    fs::rename(&part, to).map_err(Error::path("create", to))
}

/// Grows a disk that no process has open.
pub(crate) async fn grow(disk: &Path, size_gib: u64) -> Result<(), Error> {
    let wanted = size_gib << 30;
    if virtual_size(disk, "qcow2")? >= wanted {
        return Ok(());
    }
    let args = [disk.as_os_str().to_owned(), wanted.to_string().into()];
    Tool::limited("qemu-img", MEMORY, SECONDS).args(["resize", "-q", "-f", "qcow2"]).args(args).run().await.map(drop)
}

/// Bytes that a guest sees: a qcow2 header says it, a raw file has it.
pub(crate) fn virtual_size(disk: &Path, format: &str) -> Result<u64, Error> {
    let mut file = fs::File::open(disk).map_err(Error::path("open", disk))?;
    if format == "raw" {
        return Ok(file.metadata().map_err(Error::path("measure", disk))?.len());
    }
    let mut header = [0u8; 32];
    file.read_exact(&mut header).map_err(Error::path("read", disk))?;
    match header {
        [b'Q', b'F', b'I', 0xfb, .., a, b, c, d, e, f, g, h] => Ok(u64::from_be_bytes([a, b, c, d, e, f, g, h])),
        _ => Err(Error::Tool { tool: "disk".into(), cause: format!("{} is no qcow2 file", disk.display()), transient: false }),
    }
}

/// Makes a file the guest's own, and nobody else's.
pub(crate) fn give(path: &Path, owner: Option<u32>) -> Result<(), Error> {
    let mode = if path.is_dir() { 0o700 } else { 0o600 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(Error::path("protect", path))?;
    if let Some(user) = owner {
        chown(path, Some(user), Some(user)).map_err(Error::path("give", path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn overlays_have_the_asked_size_and_grow() {
        let dir = tempfile::tempdir().unwrap();
        let base = Base { path: dir.path().join("base"), format: "raw".into() };
        fs::File::create(&base.path).unwrap().set_len(3 << 20).unwrap();
        let disk = root(dir.path(), 0);
        create(&base, &disk, 0, None).await.unwrap();
        assert_eq!(virtual_size(&disk, "qcow2").unwrap(), 3 << 20);
        create(&base, &disk, 1, None).await.unwrap();
        assert_eq!(virtual_size(&disk, "qcow2").unwrap(), 1 << 30);
        grow(&disk, 2).await.unwrap();
        grow(&disk, 1).await.unwrap();
        assert_eq!(virtual_size(&disk, "qcow2").unwrap(), 2 << 30);
        let wrong = Base { path: base.path.clone(), format: "qcow2".into() };
        assert!(create(&wrong, &dir.path().join("x"), 0, None).await.is_err());
        assert!(!dir.path().join("x").exists());
    }
}
