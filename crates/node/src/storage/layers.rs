//! Makes and changes layers by `qemu-img`: formats are always said, the whole chain is always named, and the tool has no more rights
//! than the volume's own user.
use crate::{Error, command::Tool, qemu::cache::Base, qemu::cache::remove, qemu::disks};
use serde_json::{Value, json};
use std::{
    ffi::OsString,
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

const MEMORY: u64 = 2 << 30;
/// Processor time; copies of large volumes take long.
const COPY_SECONDS: u64 = 3600;
const SECONDS: u64 = 30;
const GIB: u64 = 1 << 30;

/// A layer's file.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// `raw` or `qcow2`.
    pub(super) format: &'static str,
}

/// An empty file that only the volume's user may touch.
fn claim(path: &Path, user: Option<u32>) -> Result<(), Error> {
    remove(path)?;
    fs::File::create(path).map_err(Error::path("create", path))?;
    disks::give(path, user)
}

fn sync(path: &Path) -> Result<(), Error> {
    let file = fs::File::open(path).map_err(Error::path("open", path))?;
    file.sync_all().map_err(Error::path("write", path))
}

/// An empty raw layer.
pub(super) fn blank(path: &Path, size_gib: u64, user: Option<u32>) -> Result<(), Error> {
    claim(path, user)?;
    let file = fs::File::options().write(true).open(path).map_err(Error::path("open", path))?;
    file.set_len(size_gib * GIB).map_err(Error::path("create", path))?;
    file.sync_all().map_err(Error::path("write", path))
}

/// A raw layer with the content of an image, grown to the size.
pub(super) async fn copy(base: &Base, path: &Path, size_gib: u64, user: Option<u32>) -> Result<(), Error> {
    let own = disks::virtual_size(&base.path, &base.format)?;
    if own > size_gib * GIB {
        return Err(Error::TooSmall { size_gib, needed_gib: own.div_ceil(GIB) });
    }
    claim(path, user)?;
    let tool = Tool::limited("qemu-img", MEMORY, COPY_SECONDS).user(user);
    tool.args(["convert", "-f", &base.format, "-O", "raw"]).args([&base.path, path]).run().await?;
    let file = fs::File::options().write(true).open(path).map_err(Error::path("open", path))?;
    file.set_len(size_gib * GIB).map_err(Error::path("grow", path))?;
    file.sync_all().map_err(Error::path("write", path))
}

/// An empty qcow2 layer on another one.
pub(super) async fn overlay(below: &File, path: &Path, size_gib: u64, user: Option<u32>) -> Result<(), Error> {
    claim(path, user)?;
    // The layer below may be written to by another process: it is not opened.
    let mut args: Vec<OsString> =
        ["create", "-q", "-f", "qcow2", "-u", "-F", below.format, "-b"].iter().map(Into::into).collect();
    args.extend([below.path.clone().into(), path.into(), (size_gib * GIB).to_string().into()]);
    Tool::limited("qemu-img", MEMORY, SECONDS).user(user).args(args).run().await?;
    sync(path)
}

/// Grows the newest layer of a volume that no process has open.
pub(super) async fn grow(chain: &[File], size_gib: u64, user: Option<u32>) -> Result<(), Error> {
    let Some(newest) = chain.last() else { return Ok(()) };
    if disks::virtual_size(&newest.path, newest.format)? >= size_gib * GIB {
        return Ok(());
    }
    let args = [format!("json:{}", unnamed(chain)), (size_gib * GIB).to_string()];
    Tool::limited("qemu-img", MEMORY, SECONDS).user(user).args(["resize", "-q"]).args(args).run().await?;
    sync(&newest.path)
}

/// Writes a chain's content into a file of its own.
pub(super) async fn export(chain: &[File], to: &Path, format: &str, user: Option<u32>) -> Result<(), Error> {
    claim(to, user)?;
    let source = format!("json:{}", unnamed(chain));
    let tool = Tool::limited("qemu-img", MEMORY, COPY_SECONDS).user(user);
    let result = tool.args(["convert", "-O", format]).args([OsString::from(source), to.into()]).run().await;
    result.inspect_err(|_| drop(remove(to))).map(drop)
}

/// Writes a chain's newest layer into the one below it. It may be interrupted: the upper one still covers what was not written.
pub(super) async fn commit(chain: &[File], user: Option<u32>) -> Result<(), Error> {
    let Some([lower, upper]) = chain.last_chunk() else { return Ok(()) };
    disks::give(&lower.path, user)?;
    disks::give(&upper.path, user)?;
    let tool = Tool::limited("qemu-img", MEMORY, COPY_SECONDS).user(user);
    // `-d`: the upper layer is removed afterwards, so it is not emptied.
    tool.args(["commit", "-q", "-d"]).args([format!("json:{}", unnamed(chain))]).run().await?;
    sync(&lower.path)
}

/// The frozen layers belong to nobody and cannot be written; the newest one belongs to the volume's user.
pub(super) fn protect(chain: &[File], user: Option<u32>) -> Result<(), Error> {
    let Some((newest, frozen)) = chain.split_last() else { return Ok(()) };
    for File { path, .. } in frozen {
        if user.is_some() {
            chown(path, Some(0), Some(0)).map_err(Error::path("take back", path))?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o444)).map_err(Error::path("protect", path))?;
    }
    disks::give(&newest.path, user)
}

/// A chain for QEMU, each layer with its format, name and file; the last one may be written.
pub(super) fn open(chain: &[File]) -> Value {
    let mut node = Value::Null;
    for (i, file) in chain.iter().enumerate() {
        node = layer(file, i + 1 < chain.len(), node);
    }
    node
}

/// One layer on `below`.
pub(super) fn layer(file: &File, read_only: bool, below: Value) -> Value {
    let mut node = json!({ "driver": file.format, "node-name": file.name, "read-only": read_only,
        "file": { "driver": "file", "filename": file.path, "read-only": read_only } });
    if file.format == "qcow2" {
        node["backing"] = below;
    }
    if !read_only {
        node["discard"] = json!("unmap");
        node["detect-zeroes"] = json!("unmap");
        node["file"]["discard"] = json!("unmap");
        // Once frozen it is opened anew, and may then only be read.
        node["file"]["auto-read-only"] = json!(true);
    }
    node
}

/// A chain for `qemu-img`: the backing files that headers name may be out of date, and are not looked at.
fn unnamed(chain: &[File]) -> Value {
    chain.iter().fold(Value::Null, |below, File { path, format, .. }| {
        let mut node = json!({ "driver": format, "file": { "driver": "file", "filename": path } });
        if *format == "qcow2" {
            node["backing"] = below;
        }
        node
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_say_all_formats_and_files() {
        let file = |name: &str, format| File { name: name.into(), path: format!("/l/{name}").into(), format };
        let chain = [file("r1", "raw"), file("q2", "qcow2")];
        let golden = r#"{"driver":"qcow2","backing":{"driver":"raw","file":{"driver":"file","filename":"/l/r1"}},"file":{"driver":"file","filename":"/l/q2"}}"#;
        assert_eq!(unnamed(&chain), serde_json::from_str::<Value>(golden).unwrap());
        let opened = open(&chain);
        assert_eq!((&opened["read-only"], &opened["backing"]["read-only"]), (&json!(false), &json!(true)));
        assert_eq!(opened["backing"].get("backing"), None);
    }
}
