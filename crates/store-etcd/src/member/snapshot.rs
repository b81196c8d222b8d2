//! Snapshots: taken while the cluster runs, checked, and restored into a new cluster.
use super::{Cluster, Error, Peer, Spec, has_data, private};
use crate::wire;
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{Read, Write},
    path::Path,
    process::Stdio,
    time::Duration,
};
use store::Revision;
use tokio::time::{error::Elapsed, timeout};
use tonic::Status;

/// Between two parts of a snapshot.
const PART: Duration = Duration::from_secs(10);
const RESTORE: Duration = Duration::from_secs(900);
/// etcd's pages; the hash follows the last one.
const PAGE: u64 = 512;
const HASH: usize = 32;

/// A snapshot that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub bytes: u64,
    pub sha256: [u8; HASH],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    Now,
    /// There were data already; nothing was done.
    Before,
}

/// Takes a snapshot of what the first endpoint that answers has, into `path`, which is there as a whole or not at all.
pub async fn save(cluster: &Cluster, path: &Path) -> Result<Snapshot, Error> {
    let part = path.with_extension("part");
    let endpoints = cluster.client.endpoints();
    let endpoint = endpoints.nearest();
    let late = || Status::deadline_exceeded(format!("{} sent nothing of the snapshot for {PART:?}", endpoint.url));
    let opening = wire::download::<_, wire::SnapshotPart>(endpoint.channel(), wire::SNAPSHOT, wire::Empty {});
    let mut parts = timeout(PART, opening).await.map_err(|_| Error::call(late()))?.map_err(Error::call)?;
    let mut file = File::create(&part).map_err(Error::file("create", &part))?;
    loop {
        let next = timeout(PART, parts.message()).await.map_err(|_| Error::call(late()))?.map_err(Error::call)?;
        let Some(next) = next else { break };
        file.write_all(&next.blob).map_err(Error::file("write", &part))?;
    }
    file.sync_all().map_err(Error::file("write", &part))?;
    drop(file);
    let snapshot = verify(&part)?;
    std::fs::rename(&part, path).map_err(Error::file("write", path))?;
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        File::open(dir).and_then(|d| d.sync_all()).map_err(Error::file("write", dir))?;
    }
    Ok(snapshot)
}

/// Checks a snapshot against the hash at its end. Blocks while it reads.
pub fn verify(path: &Path) -> Result<Snapshot, Error> {
    let bad = |why: String| Error::BadSnapshot { path: path.into(), why };
    let mut file = File::open(path).map_err(Error::file("read", path))?;
    let bytes = file.metadata().map_err(Error::file("read", path))?.len();
    if bytes == 0 || bytes % PAGE != HASH as u64 {
        return Err(bad(format!("{bytes} bytes are not pages and a hash")));
    }
    let (mut left, mut hash, mut buffer) = (bytes - HASH as u64, Sha256::new(), vec![0; 1 << 20]);
    while left > 0 {
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact(&mut buffer[..n]).map_err(Error::file("read", path))?;
        hash.update(&buffer[..n]);
        left -= n as u64;
    }
    let mut told = [0; HASH];
    file.read_exact(&mut told).map_err(Error::file("read", path))?;
    let sha256: [u8; HASH] = hash.finalize().into();
    if sha256 != told {
        return Err(bad("its content does not have the hash that is written at its end".into()));
    }
    Ok(Snapshot { bytes, sha256 })
}

/// Up to which revision a snapshot goes, as etcd's own program reads it.
pub async fn revision(path: &Path) -> Result<Revision, Error> {
    let bad = |why: String| Error::BadSnapshot { path: path.into(), why };
    let mut ask = program();
    ask.args(["snapshot", "status", "--write-out=json"]).arg(path);
    let out = finished(timeout(RESTORE, ask.output()).await)?;
    let status: serde_json::Value = serde_json::from_slice(&out).map_err(|e| bad(e.to_string()))?;
    status["revision"].as_u64().ok_or_else(|| bad("it has no revision".into()))
}

/// `etcdutl`, which took this work over, or the `etcdctl` of before.
fn program() -> tokio::process::Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let new = std::env::split_paths(&path).any(|dir| dir.join("etcdutl").is_file());
    let mut program = tokio::process::Command::new(if new { "etcdutl" } else { "etcdctl" });
    program.env("ETCDCTL_API", "3").stdin(Stdio::null()).kill_on_drop(true);
    program
}

fn finished(ran: Result<std::io::Result<std::process::Output>, Elapsed>) -> Result<Vec<u8>, Error> {
    let failed = |stderr| Error::Restore { stderr };
    let out = ran
        .map_err(|_| failed(format!("etcd's program took longer than {RESTORE:?}; look at the disk")))?
        .map_err(|e| failed(format!("etcdctl cannot be run: {e}; install the package etcd-client")))?;
    if !out.status.success() {
        return Err(failed(String::from_utf8_lossy(&out.stderr).trim().to_owned()));
    }
    Ok(out.stdout)
}

/// Makes a member's data from a snapshot: it and all of `members` begin a new cluster with the same content, each from its own copy of
/// the file. What was written after the snapshot is lost, so every process that saw it must start anew.
pub async fn ensure_restored(spec: &Spec, snapshot: &Path, members: &[Peer], token: &str) -> Result<Restored, Error> {
    if has_data(&spec.data_dir) {
        return Ok(Restored::Before);
    }
    verify(snapshot)?;
    // etcdctl wants to make the directory itself. A half-made one must not count as data.
    let fresh = spec.data_dir.with_extension("restoring");
    if fresh.exists() {
        std::fs::remove_dir_all(&fresh).map_err(Error::file("remove", &fresh))?;
    }
    let list: Vec<String> = members.iter().map(|m| format!("{}={}", m.name, m.peer_url)).collect();
    let mut restore = program();
    restore
        .args(["snapshot", "restore"])
        .arg(snapshot)
        .arg(format!("--name={}", spec.name))
        .arg(format!("--initial-cluster={}", list.join(",")))
        .arg(format!("--initial-cluster-token={token}"))
        .arg(format!("--initial-advertise-peer-urls={}", spec.peer_url))
        .arg("--data-dir")
        .arg(&fresh);
    finished(timeout(RESTORE, restore.output()).await)?;
    private(&fresh)?;
    if spec.data_dir.exists() {
        std::fs::remove_dir(&spec.data_dir).map_err(Error::file("replace", &spec.data_dir))?;
    }
    // Who this member is in its new cluster is learnt when it starts.
    std::fs::remove_file(spec.data_dir.with_extension("member")).or_else(none).map_err(Error::file("remove", &spec.data_dir))?;
    std::fs::rename(&fresh, &spec.data_dir).map_err(Error::file("make", &spec.data_dir))?;
    Ok(Restored::Now)
}

fn none(e: std::io::Error) -> std::io::Result<()> {
    if e.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(e) }
}
