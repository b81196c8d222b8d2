//! The process that serves a volume: one `qemu-storage-daemon`, with one export per attachment.
//!
//! qcow2 allows one writing process, so the attachments of a volume share its daemon, and volumes share none. It is a daemon in the sense
//! of [`supervise`]: it outlives the agent, is adopted again, and runs as the volume's own user, who can open nothing but the
//! volume's newest layer and the frozen ones that it is told of. The socket lies in a directory that only that user enters; each attachment
//! gets a link to it in a directory of its own, which the consumer's node opens to the one guest that may pass.
//!
//! A consumer goes on after its daemon was killed, so what it was told is written must have left the daemon: a raw layer keeps nothing in
//! memory, and a layer with tables is served write-through until it can be merged into a raw one.
//!
//! An export ends by `block-export-del` in mode `hard`, and has ended when the daemon says so or is dead; nothing else counts.
use super::{Storage, catalog::Layer};
use crate::{
    Error,
    qemu::{
        cache::remove,
        disks,
        qmp::{Qmp, QmpError},
    },
    volume::plan::{Engine, Served},
};
use assign::{Export, LiveExport};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use supervise::{Daemon, Identity};
use tokio::time::Instant;

const ANSWER: Duration = Duration::from_secs(5);
/// Time to close the volume's files in order.
const GRACE: Duration = Duration::from_secs(5);
const NAME: &str = "storage";

/// A daemon that the agent talks to.
pub(super) struct Link {
    id: Identity,
    pub(super) qmp: Qmp,
}

/// What a daemon does.
pub(super) struct Look {
    pub(super) engine: Engine,
    pub(super) exports: Vec<Served>,
}

/// Name of an export on the wire.
fn name(export: &Export) -> String {
    format!("{}-{}", export.attachment_id, export.epoch)
}
/// An export that a daemon has.
struct Had {
    export: Export,
    /// Is every write through before it is answered?
    through: bool,
    /// The node that it reads.
    node: String,
}

/// The export's id in the daemon: it must begin with a letter, and says what was asked for.
fn id(export: &Export, through: bool) -> String {
    let mode = if export.read_only { "ro" } else { "rw" };
    format!("{mode}{}-{}", if through { "t" } else { "" }, name(export))
}
fn read_id(id: &str) -> Option<(Export, bool)> {
    let (mode, rest) = id.split_once('-')?;
    let (attachment, epoch) = rest.rsplit_once('-')?;
    let export = Export { attachment_id: attachment.to_owned(), epoch: epoch.parse().ok()?, read_only: mode.starts_with("ro") };
    Some((export, mode.ends_with('t')))
}
/// Must writes to the layer be through? Its tables are in the daemon's memory otherwise.
fn has_tables(layer: &Layer) -> bool {
    layer.format() != "raw"
}

impl Storage {
    fn run_dir(&self, id: &str) -> PathBuf {
        self.catalog.home(id).join("run")
    }
    fn monitor(&self, id: &str) -> PathBuf {
        self.run_dir(id).join("qmp")
    }
    fn socket(&self, id: &str) -> PathBuf {
        self.run_dir(id).join("nbd")
    }
    fn daemon(&self, id: &str) -> Daemon {
        let mut argv = Vec::new();
        if let Some(user) = self.user(id) {
            argv = ["setpriv".to_owned(), format!("--reuid={user}"), format!("--regid={user}")].to_vec();
            argv.extend(["--clear-groups", "--no-new-privs", "--bounding-set=-all", "--"].map(str::to_owned));
        }
        argv.push(self.config.storage_daemon.display().to_string());
        let chardev = format!("socket,id=monitor,path={},server=on,wait=off", self.monitor(id).display());
        argv.extend(["--chardev".to_owned(), chardev, "--monitor".to_owned(), "chardev=monitor".to_owned()]);
        Daemon::new(NAME, self.catalog.home(id), argv)
    }
    /// The volume's process, if there is one. A process that was never recorded was ended when this agent started.
    pub(super) fn running(&self, id: &str) -> Option<Identity> {
        self.catalog.home(id).join(format!("{NAME}.json")).exists().then(|| self.daemon(id).running()).flatten()
    }

    /// The connection to the volume's daemon; `None` when it does not run.
    pub(super) async fn link(&self, id: &str) -> Result<Option<Arc<Link>>, Error> {
        let Some(process) = self.running(id) else {
            self.links().remove(id);
            return Ok(None);
        };
        let open = self.links().get(id).cloned();
        if let Some(link) = open.filter(|l| l.id == process && l.qmp.is_open()) {
            return Ok(Some(link));
        }
        self.links().remove(id);
        let wake = self.waker(id);
        let on_event = move |event: Option<&crate::qemu::qmp::Event>| {
            if event.is_none() {
                wake();
            }
        };
        let qmp = Qmp::connect(&self.monitor(id), ANSWER, on_event).await?;
        let link = Arc::new(Link { id: process, qmp });
        self.links().insert(id.to_owned(), link.clone());
        Ok(Some(link))
    }

    async fn started(&self, id: &str) -> Result<Arc<Link>, Error> {
        let run = self.run_dir(id);
        fs::create_dir_all(&run).map_err(Error::path("create", &run))?;
        disks::give(&run, self.user(id))?;
        if self.running(id).is_none() {
            for leftover in ["qmp", "nbd", "nbd.new"] {
                remove(&run.join(leftover))?;
            }
        }
        self.daemon(id).ensure().await.map_err(|e| Error::Serve { cause: base::chain(&e) })?;
        let deadline = Instant::now() + self.config.start_timeout;
        loop {
            let error = match self.link(id).await {
                Ok(Some(link)) => return Ok(link),
                Ok(None) => return Err(Error::Serve { cause: "its process ended at once".into() }),
                Err(error) => error,
            };
            if Instant::now() > deadline {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What the volume's daemon does; `chain` names the volume's layers.
    pub(super) async fn look(&self, id: &str, chain: &[Layer]) -> Look {
        let unfit = || Look { engine: Engine::Unfit, exports: Vec::new() };
        let link = match self.link(id).await {
            Ok(Some(link)) => link,
            Ok(None) => return Look { engine: Engine::Off, exports: Vec::new() },
            Err(error) if self.running(id).is_some() => {
                tracing::warn!(volume = id, error = base::chain(&error), "a storage daemon does not answer");
                return unfit();
            }
            Err(_) => return Look { engine: Engine::Off, exports: Vec::new() },
        };
        let Ok(exports) = exports(&link.qmp).await else {
            return if self.running(id).is_some() { unfit() } else { Look { engine: Engine::Off, exports: Vec::new() } };
        };
        let mut engine = Engine::On;
        let mut served = Vec::new();
        for Had { export, through, node } in exports {
            match chain.iter().position(|l| super::node(l) == node) {
                Some(i) if i + 1 == chain.len() && (through || !has_tables(&chain[i])) => {}
                Some(_) if engine == Engine::On => engine = Engine::Behind,
                Some(_) => {}
                None => engine = Engine::Unfit,
            }
            let entrance = self.entrance(&export.attachment_id);
            // An export without its way in is made whole by serving it again.
            if same_file(&entrance, &self.socket(id)) {
                let endpoint = format!("unix:{}", entrance.display());
                let (attachment_id, epoch) = (export.attachment_id.clone(), export.epoch);
                let live = LiveExport { attachment_id, epoch, endpoint, export: name(&export) };
                served.push(Served { export, live });
            }
        }
        Look { engine, exports: served }
    }

    /// Makes an export and its way in; starts the daemon when there is none.
    pub(super) async fn serve(&self, id: &str, export: &Export) -> Result<(), Error> {
        let manifest = self.manifest(id)?;
        let files = self.files(&manifest.chain);
        super::layers::protect(&files, self.user(id))?;
        let link = self.started(id).await?;
        let qmp = &link.qmp;
        let names: Vec<String> = manifest.chain.iter().map(super::node).collect();
        let Some(newest) = manifest.chain.last() else { return Err(Error::VolumeLost(id.to_owned())) };
        let open = nodes(qmp).await?;
        if !names.iter().any(|n| open.contains(n)) {
            qmp.run("blockdev-add", super::layers::open(&files)).await?;
        } else if !open.contains(&super::node(newest)) {
            self.follow(id).await?;
        }
        self.listen(id, qmp).await?;
        add(qmp, export, newest).await?;
        self.let_in(id, &export.attachment_id)?;
        tracing::info!(volume = id, attachment = export.attachment_id, epoch = export.epoch, "a volume is served");
        Ok(())
    }

    /// The socket appears under its name only when it can be connected to.
    async fn listen(&self, id: &str, qmp: &Qmp) -> Result<(), Error> {
        let (socket, new) = (self.socket(id), self.run_dir(id).join("nbd.new"));
        if socket.exists() {
            return Ok(());
        }
        if !new.exists() {
            let addr = json!({ "addr": { "type": "unix", "data": { "path": new } } });
            qmp.run("nbd-server-start", addr).await?;
        }
        fs::set_permissions(&new, fs::Permissions::from_mode(0o666)).map_err(Error::path("open to guests", &new))?;
        fs::rename(&new, &socket).map_err(Error::path("create", &socket))
    }

    /// A link to the socket in the attachment's directory. Who may pass is the consumer's matter; until then it is nobody.
    fn let_in(&self, id: &str, attachment: &str) -> Result<(), Error> {
        let entrance = self.entrance(attachment);
        if same_file(&entrance, &self.socket(id)) {
            return Ok(());
        }
        let dir = self.exports_dir().join(attachment);
        if !dir.exists() {
            fs::create_dir_all(&dir).map_err(Error::path("create", &dir))?;
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).map_err(Error::path("protect", &dir))?;
        }
        let new = dir.join("new");
        remove(&new)?;
        fs::hard_link(self.socket(id), &new).map_err(Error::path("create", &new))?;
        fs::rename(&new, &entrance).map_err(Error::path("create", &entrance))
    }

    /// Ends an export, and returns when it has ended for certain. With the last one the daemon ends.
    pub(super) async fn revoke(&self, id: &str, export: &Export) -> Result<(), Error> {
        let left = match self.link(id).await {
            Ok(None) => 0,
            Ok(Some(link)) => match end(&link.qmp, export).await {
                Ok(left) => left,
                Err(error) => {
                    tracing::warn!(
                        volume = id,
                        error = base::chain(&error),
                        "a storage daemon did not end an export; it is killed"
                    );
                    self.end_engine(id, Duration::ZERO).await?;
                    0
                }
            },
            Err(_) => {
                self.end_engine(id, Duration::ZERO).await?;
                0
            }
        };
        self.shut_out(&export.attachment_id)?;
        tracing::info!(volume = id, attachment = export.attachment_id, epoch = export.epoch, "access to a volume was revoked");
        if left == 0 {
            self.end_engine(id, GRACE).await?;
        }
        Ok(())
    }

    pub(super) fn shut_out(&self, attachment: &str) -> Result<(), Error> {
        let dir = self.exports_dir().join(attachment);
        match fs::remove_dir_all(&dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::path("remove", &dir)(e)),
            _ => Ok(()),
        }
    }

    pub(super) async fn end_engine(&self, id: &str, grace: Duration) -> Result<(), Error> {
        self.links().remove(id);
        if !self.catalog.home(id).exists() {
            return Ok(());
        }
        self.daemon(id).stop(grace).await.map_err(|e| Error::Serve { cause: base::chain(&e) })?;
        for socket in ["qmp", "nbd", "nbd.new"] {
            remove(&self.run_dir(id).join(socket))?;
        }
        Ok(())
    }

    /// The daemon goes on in the newest layer; what it wrote to before is frozen when this returns. No daemon, no matter.
    pub(super) async fn follow(&self, id: &str) -> Result<(), Error> {
        let manifest = self.manifest(id)?;
        let Some(link) = self.link(id).await? else { return Ok(()) };
        let open = nodes(&link.qmp).await?;
        let names: Vec<String> = manifest.chain.iter().map(super::node).collect();
        let active = exports(&link.qmp).await?.into_iter().next().map(|had| had.node);
        let at = names.iter().rposition(|n| active.as_ref().map_or(open.contains(n), |a| n == a));
        let Some(at) = at else { return Err(Error::Serve { cause: "it serves other data".into() }) };
        for i in at + 1..names.len() {
            // An interruption between the two commands leaves a layer that is open and covers nothing yet.
            if !open.contains(&names[i]) {
                let node = super::layers::layer(&self.file(&manifest.chain[i]), false, Value::Null);
                link.qmp.run("blockdev-add", node).await?;
            }
            link.qmp.run("blockdev-snapshot", json!({ "node": names[i - 1], "overlay": names[i] })).await?;
        }
        let Some(newest) = manifest.chain.last().filter(|l| has_tables(l)) else { return Ok(()) };
        for had in exports(&link.qmp).await?.into_iter().filter(|had| !had.through) {
            // Its consumer reconnects and finds it under the same name.
            end(&link.qmp, &had.export).await?;
            add(&link.qmp, &had.export, newest).await?;
        }
        Ok(())
    }

    /// Grows the newest layer below its exports: they end, and come back under the same names; consumers reconnect.
    pub(super) async fn grow_served(&self, id: &str, link: &Link, size_gib: u64) -> Result<(), Error> {
        let served = exports(&link.qmp).await?;
        for had in &served {
            end(&link.qmp, &had.export).await?;
        }
        let newest = self.manifest(id)?.chain.last().map(super::node).unwrap_or_default();
        let grown = link.qmp.run("block_resize", json!({ "node-name": newest, "size": size_gib << 30 })).await;
        for had in &served {
            self.serve(id, &had.export).await?;
        }
        grown.map(drop).map_err(Error::from)
    }
}

async fn nodes(qmp: &Qmp) -> Result<BTreeSet<String>, Error> {
    let nodes = qmp.run("query-named-block-nodes", json!({ "flat": true })).await?;
    let names = nodes.as_array().into_iter().flatten().filter_map(|n| n["node-name"].as_str());
    Ok(names.map(str::to_owned).collect())
}

/// Adds an export of the newest layer.
async fn add(qmp: &Qmp, export: &Export, newest: &Layer) -> Result<(), Error> {
    let through = has_tables(newest);
    let wanted = json!({ "type": "nbd", "id": id(export, through), "node-name": super::node(newest), "name": name(export),
        "writable": !export.read_only, "writethrough": through });
    match qmp.run("block-export-add", wanted).await {
        Ok(_) => Ok(()),
        Err(QmpError::Refused { .. }) if exports(qmp).await?.iter().any(|had| had.export == *export) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Exports that serve.
async fn exports(qmp: &Qmp) -> Result<Vec<Had>, Error> {
    let all = qmp.run("query-block-exports", json!({})).await?;
    let of = |e: &Value| {
        let (export, through) = read_id(e["id"].as_str()?)?;
        Some(Had { export, through, node: e["node-name"].as_str()?.to_owned() })
    };
    Ok(all.as_array().into_iter().flatten().filter_map(of).collect())
}

/// Ends an export and waits until it has ended; how many are left.
async fn end(qmp: &Qmp, export: &Export) -> Result<usize, Error> {
    let mut events = qmp.events();
    let through = exports(qmp).await?.iter().any(|had| had.export == *export && had.through);
    let id = id(export, through);
    match qmp.run("block-export-del", json!({ "id": id, "mode": "hard" })).await {
        Ok(_) => {}
        // It has ended before; that is looked at below.
        Err(QmpError::Refused { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let deadline = Instant::now() + ANSWER;
    loop {
        // An export that shuts down is still listed, until its event.
        let left = exports(qmp).await?;
        if !left.iter().any(|had| had.export == *export) {
            return Ok(left.len());
        }
        let event = async {
            while let Ok(event) = events.recv().await {
                if event.name == "BLOCK_EXPORT_DELETED" && event.data["id"] == id.as_str() {
                    return;
                }
            }
        };
        if tokio::time::timeout_at(deadline, event).await.is_err() {
            return Err(Error::Silent(format!("when export {id} was to end")));
        }
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    let of = |p: &Path| fs::symlink_metadata(p).ok().map(|m| (m.dev(), m.ino()));
    of(a).is_some() && of(a) == of(b)
}

/// Volumes whose daemon runs, by command line: pid and volume.
pub(super) fn daemons(dir: &Path) -> Vec<(u32, String)> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let owner = |pid: u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let text = String::from_utf8_lossy(&line);
        let start = format!("socket,id=monitor,path={}/", dir.display());
        let path = text.split('\0').find_map(|a| a.strip_prefix(&start))?;
        let id = path.split('/').next().filter(|id| base::id::is_uuid(id))?;
        Some((pid, id.to_owned()))
    };
    pids.filter_map(owner).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_exports_say_what_was_asked_for() {
        for (read_only, through) in [(true, true), (true, false), (false, true), (false, false)] {
            let export = Export { attachment_id: base::id::uuid(), epoch: 17, read_only };
            assert_eq!(read_id(&id(&export, through)), Some((export, through)));
        }
        assert_eq!(read_id("other"), None);
    }
}
