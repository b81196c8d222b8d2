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

/// An empty layer.
pub(super) async fn blank(path: &Path, size_gib: u64, user: Option<u32>) -> Result<(), Error> {
    claim(path, user)?;
    let args = [path.as_os_str().to_owned(), (size_gib * GIB).to_string().into()];
    let tool = Tool::limited("qemu-img", MEMORY, SECONDS).user(user);
    tool.args(["create", "-q", "-f", "qcow2"]).args(args).run().await?;
    sync(path)
}

/// A layer with the content of an image, grown to the size.
pub(super) async fn copy(base: &Base, path: &Path, size_gib: u64, user: Option<u32>) -> Result<(), Error> {
    let own = disks::virtual_size(&base.path, &base.format)?;
    if own > size_gib * GIB {
        return Err(Error::TooSmall { size_gib, needed_gib: own.div_ceil(GIB) });
    }
    claim(path, user)?;
    let tool = Tool::limited("qemu-img", MEMORY, COPY_SECONDS).user(user);
    tool.args(["convert", "-f", &base.format, "-O", "qcow2"]).args([&base.path, path]).run().await?;
    grow(&[path.to_owned()], size_gib, user).await?;
    sync(path)
}

/// An empty layer on another one.
pub(super) async fn overlay(below: &Path, path: &Path, size_gib: u64, user: Option<u32>) -> Result<(), Error> {
    claim(path, user)?;
    // The layer below may be written to by another process: it is not opened.
    let mut args: Vec<OsString> = ["create", "-q", "-f", "qcow2", "-u", "-F", "qcow2", "-b"].iter().map(Into::into).collect();
    args.extend([below.into(), path.into(), (size_gib * GIB).to_string().into()]);
    Tool::limited("qemu-img", MEMORY, SECONDS).user(user).args(args).run().await?;
    sync(path)
}

/// Grows the newest layer of a volume that no process has open.
pub(super) async fn grow(chain: &[PathBuf], size_gib: u64, user: Option<u32>) -> Result<(), Error> {
    let Some(newest) = chain.last() else { return Ok(()) };
    if disks::virtual_size(newest, "qcow2")? >= size_gib * GIB {
        return Ok(());
    }
    let args = [format!("json:{}", unnamed(chain)), (size_gib * GIB).to_string()];
    Tool::limited("qemu-img", MEMORY, SECONDS).user(user).args(["resize", "-q"]).args(args).run().await?;
    sync(newest)
}

/// Writes a chain's content into a file of its own.
pub(super) async fn export(chain: &[PathBuf], to: &Path, format: &str, user: Option<u32>) -> Result<(), Error> {
    claim(to, user)?;
    let source = format!("json:{}", unnamed(chain));
    let tool = Tool::limited("qemu-img", MEMORY, COPY_SECONDS).user(user);
    let result = tool.args(["convert", "-O", format]).args([OsString::from(source), to.into()]).run().await;
    result.inspect_err(|_| drop(remove(to))).map(drop)
}

/// Writes a chain's newest layer into the one below it. It may be interrupted: the upper one still covers what was not written.
pub(super) async fn commit(chain: &[PathBuf], user: Option<u32>) -> Result<(), Error> {
    let Some([lower, upper]) = chain.last_chunk() else { return Ok(()) };
    disks::give(lower, user)?;
    disks::give(upper, user)?;
    let tool = Tool::limited("qemu-img", MEMORY, COPY_SECONDS).user(user);
    // `-d`: the upper layer is removed afterwards, so it is not emptied.
    tool.args(["commit", "-q", "-d"]).args([format!("json:{}", unnamed(chain))]).run().await?;
    sync(lower)
}

/// The frozen layers belong to nobody and cannot be written; the newest one belongs to the volume's user.
pub(super) fn protect(chain: &[PathBuf], user: Option<u32>) -> Result<(), Error> {
    let Some((newest, frozen)) = chain.split_last() else { return Ok(()) };
    for path in frozen {
        if user.is_some() {
            chown(path, Some(0), Some(0)).map_err(Error::path("take back", path))?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o444)).map_err(Error::path("protect", path))?;
    }
    disks::give(newest, user)
}

/// A chain for QEMU, each layer with its format, name and file; the last one may be written.
pub(super) fn open(chain: &[(String, PathBuf)]) -> Value {
    let mut node = Value::Null;
    for (i, (name, path)) in chain.iter().enumerate() {
        node = layer(name, path, i + 1 < chain.len(), node);
    }
    node
}

/// One layer on `below`.
pub(super) fn layer(name: &str, path: &Path, read_only: bool, below: Value) -> Value {
    let mut node = json!({ "driver": "qcow2", "node-name": name, "read-only": read_only, "backing": below,
        "file": { "driver": "file", "filename": path, "read-only": read_only } });
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
fn unnamed(chain: &[PathBuf]) -> Value {
    chain.iter().fold(Value::Null, |below, path| {
        json!({ "driver": "qcow2", "backing": below, "file": { "driver": "file", "filename": path } })
    })
}
