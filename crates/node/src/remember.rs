//! What a node must still know after its agent, or the whole machine, was restarted.
//!
//! One JSON file per server, replaced atomically and durable before the call returns; the process id is recorded before anything else
//! is awaited, so a guest is never lost. Of servers that are gone only the epoch stays, for a week: an old assignment that arrives
//! late must not bring them back.
use crate::Error;
use base::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

const VERSION: u32 = 1;
const TOMBSTONES_KEPT: Duration = Duration::from_secs(7 * 86_400);

/// The durable state of one server on this node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Remembered {
    pub version: u32,
    /// Newest epoch seen.
    pub epoch: u64,
    /// Newest revision seen.
    pub revision: u64,
    /// Last reboot carried out.
    pub reboot_done: u64,
    pub disk: Option<Disk>,
    pub process: Option<Process>,
    /// Ports plugged into the switch, by port id.
    pub ports: BTreeMap<String, PluggedPort>,
    /// Volumes that the server holds, with their epochs, by attachment id: plugged, or to be plugged at the next start.
    pub volumes: BTreeMap<String, u64>,
    /// How the guest ended unasked; it stays down for the revision named here.
    pub halted: Option<Halted>,
    /// Removed from this node at `epoch`.
    pub gone: bool,
}

/// The root disk in place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    pub generation: u64,
    /// GiB asked for; 0 is the image's own size.
    pub size_gib: u64,
    /// Blob of the image below the overlay: it must stay in the cache.
    pub blob: String,
    pub format: String,
}

/// A QEMU process, recognised after a restart of the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    pub pid: u32,
    /// Clock ticks after boot, from `/proc/<pid>/stat`: tells a reused pid.
    pub start_time: u64,
    pub boot_id: String,
    pub vcpus: u32,
    pub memory_mib: u64,
    /// Blob of the rescue image that it was booted from.
    pub rescue: Option<String>,
    /// Format of the rescue image.
    pub rescue_format: Option<String>,
    pub machine: String,
    pub launched_at: Timestamp,
    /// Slot of each interface, by port id.
    pub nics: BTreeMap<String, u8>,
    /// Volumes that it has open, by attachment id.
    pub volumes: BTreeMap<String, PluggedVolume>,
    /// We are ending it: its exit is no crash.
    pub ending: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluggedVolume {
    pub volume_id: String,
    pub epoch: u64,
    /// `None`: it is the root disk.
    pub slot: Option<u8>,
    /// GiB that the guest was told.
    pub size_gib: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluggedPort {
    pub interface: String,
    pub mac: String,
}

/// An end that nobody asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halted {
    pub revision: u64,
    /// `None`: the guest powered itself off. Otherwise why it died.
    pub crash: Option<String>,
}

/// The remembered state of all servers.
pub struct Memory {
    /// `None`: kept in memory only, for simulated nodes.
    dir: Option<PathBuf>,
    servers: Mutex<HashMap<String, Arc<Mutex<Remembered>>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    /// A memory that forgets everything with the process.
    pub fn volatile() -> Self {
        Self { dir: None, servers: Mutex::default() }
    }
    /// Reads what earlier agents left in `dir`.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let mut servers = HashMap::new();
        for sub in ["servers", "gone"] {
            let sub = dir.join(sub);
            fs::create_dir_all(&sub).map_err(Error::path("create", &sub))?;
        }
        for entry in fs::read_dir(dir.join("servers")).map_err(Error::path("read", dir))? {
            let entry = entry.map_err(Error::path("read", dir))?;
            let Ok(id) = entry.file_name().into_string() else { continue };
            servers.insert(id, Arc::new(Mutex::new(read(&entry.path().join("state.json")))));
        }
        for entry in fs::read_dir(dir.join("gone")).map_err(Error::path("read", dir))? {
            let entry = entry.map_err(Error::path("read", dir))?;
            let Ok(id) = entry.file_name().into_string() else { continue };
            let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
            if age.is_some_and(|a| a > TOMBSTONES_KEPT) {
                let _ = fs::remove_file(entry.path());
            } else {
                servers.entry(id).or_insert_with(|| Arc::new(Mutex::new(read(&entry.path()))));
            }
        }
        Ok(Self { dir: Some(dir.to_owned()), servers: Mutex::new(servers) })
    }
    /// Servers that have something on this node.
    pub fn ids(&self) -> Vec<String> {
        let all: Vec<_> = lock(&self.servers).iter().map(|(id, r)| (id.clone(), r.clone())).collect();
        all.into_iter().filter(|(_, r)| !lock(r).gone).map(|(id, _)| id).collect()
    }
    /// What is known of a server; the default when it was never here.
    pub fn get(&self, id: &str) -> Remembered {
        let entry = lock(&self.servers).get(id).cloned();
        entry.map(|e| lock(&e).clone()).unwrap_or_default()
    }
    /// Is anything of the server on this node?
    pub fn is_here(&self, id: &str) -> bool {
        let entry = lock(&self.servers).get(id).cloned();
        entry.is_some_and(|e| !lock(&e).gone)
    }
    /// Changes what is known of a server; durable when this returns. Nothing is changed on an error.
    pub fn update(&self, id: &str, change: impl FnOnce(&mut Remembered)) -> Result<Remembered, Error> {
        let entry = lock(&self.servers).entry(id.to_owned()).or_default().clone();
        let mut held = lock(&entry);
        let mut next = held.clone();
        change(&mut next);
        next.version = VERSION;
        if next != *held {
            if let Some(dir) = &self.dir {
                let own = dir.join("servers").join(id);
                fs::create_dir_all(&own).map_err(Error::path("create", &own))?;
                write(&own.join("state.json"), &next)?;
            }
            *held = next.clone();
        }
        Ok(next)
    }
    /// Leaves only the epoch of a server; call it when its directory is gone.
    pub fn forget(&self, id: &str) -> Result<(), Error> {
        let entry = lock(&self.servers).entry(id.to_owned()).or_default().clone();
        let mut held = lock(&entry);
        let next =
            Remembered { version: VERSION, epoch: held.epoch, revision: held.revision, gone: true, ..Remembered::default() };
        // Of one that never came to be there is no epoch to keep.
        if let Some(dir) = self.dir.as_ref().filter(|_| held.epoch > 0) {
            write(&dir.join("gone").join(id), &next)?;
        }
        *held = next;
        Ok(())
    }
    /// Blobs that disks on this node rest on.
    pub fn blobs(&self) -> std::collections::BTreeSet<String> {
        let all: Vec<_> = lock(&self.servers).values().cloned().collect();
        all.iter()
            .flat_map(|r| {
                let r = lock(r);
                [r.disk.as_ref().map(|d| d.blob.clone()), r.process.as_ref().and_then(|p| p.rescue.clone())]
            })
            .flatten()
            .collect()
    }
}

fn read(path: &Path) -> Remembered {
    let text = match fs::read(path) {
        Ok(t) => t,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Remembered::default(),
        Err(e) => {
            tracing::error!(path = %path.display(), error = %e, "state of a server cannot be read; it is treated as new");
            return Remembered::default();
        }
    };
    serde_json::from_slice(&text).unwrap_or_else(|e| {
        tracing::error!(path = %path.display(), error = %e, "state of a server cannot be parsed; it is treated as new");
        Remembered::default()
    })
}

/// Replaces a file so that after a power cut either the old or the new content is there.
fn write(path: &Path, value: &Remembered) -> Result<(), Error> {
    let attempt = || -> io::Result<()> {
        let temporary = path.with_extension("new");
        let mut file = fs::File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
    };
    attempt().map_err(Error::path("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_a_restart_and_keeps_the_epoch_of_the_gone() {
        let dir = tempfile::tempdir().unwrap();
        let m = Memory::open(dir.path()).unwrap();
        m.update("a", |r| r.epoch = 4).unwrap();
        m.update("b", |r| (r.epoch, r.reboot_done) = (7, 2)).unwrap();
        fs::remove_dir_all(dir.path().join("servers/a")).unwrap();
        m.forget("a").unwrap();
        drop(m);
        let m = Memory::open(dir.path()).unwrap();
        assert_eq!(m.ids(), ["b"]);
        assert!(m.is_here("b") && !m.is_here("a") && !m.is_here("c"));
        assert_eq!((m.get("b").epoch, m.get("b").reboot_done), (7, 2));
        assert!(m.get("a").gone && m.get("a").epoch == 4);
    }

    #[test]
    fn a_torn_file_does_not_stop_the_node() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("servers/x")).unwrap();
        fs::write(dir.path().join("servers/x/state.json"), b"{\"epoch\":").unwrap();
        let m = Memory::open(dir.path()).unwrap();
        assert_eq!(m.ids(), ["x"]);
        assert_eq!(m.get("x"), Remembered::default());
    }

    /// The stored form of version 1; a change of the struct must still read it.
    #[test]
    fn golden_form() {
        let text = r#"{"version":1,"epoch":3,"revision":9,"reboot_done":1,"disk":{"generation":0,"size_gib":1,"blob":"ab","format":"qcow2"},
            "process":{"pid":42,"start_time":77,"boot_id":"b","vcpus":1,"memory_mib":192,"rescue":null,"machine":"pc-i440fx-7.2",
            "launched_at":5,"nics":{"p1":0},"ending":false},"ports":{"p1":{"interface":"dvt1","mac":"fa:16:3e:00:00:01"}},
            "halted":null,"gone":false}"#;
        let r: Remembered = serde_json::from_str(text).unwrap();
        assert_eq!((r.epoch, r.process.map(|p| p.pid), r.ports["p1"].interface.as_str()), (3, Some(42), "dvt1"));
    }
}
