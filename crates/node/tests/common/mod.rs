//! Both ends of an agent for tests: assignments that a test edits, and what the node said about them.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
use assign::*;
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Notify, watch};

/// Controllers, as an agent sees them.
pub struct Control {
    assignments: watch::Sender<Arc<Assignments>>,
    /// Shows each new agent whether anything was ever sent.
    first: watch::Receiver<Arc<Assignments>>,
    reports: Mutex<BTreeMap<String, Report>>,
    pub count: AtomicU64,
    more: Notify,
}

impl Default for Control {
    fn default() -> Self {
        let (assignments, first) = watch::channel(Arc::default());
        Self { assignments, first, reports: Mutex::default(), count: AtomicU64::new(0), more: Notify::new() }
    }
}

impl Uplink for Control {
    fn assignments(&self) -> watch::Receiver<Arc<Assignments>> {
        self.first.clone()
    }
    fn report(&self, reports: Vec<Report>) -> Pending<'_, Result<(), ReportError>> {
        self.count.fetch_add(reports.len() as u64, Ordering::Relaxed);
        let mut all = self.reports.lock().unwrap();
        for report in reports {
            let key = match &report {
                Report::Host(_) => "host".to_owned(),
                Report::Server(s) => s.id.clone(),
                Report::Snapshot(s) => s.image_id.clone(),
                Report::Password(p) => format!("password of {}", p.server_id),
                Report::Volume(v) => v.id.clone(),
            };
            all.insert(key, report);
        }
        self.more.notify_waiters();
        Box::pin(async { Ok(()) })
    }
}

impl Control {
    pub fn edit(&self, change: impl FnOnce(&mut Assignments)) {
        self.assignments.send_modify(|a| {
            let mut next = Assignments::clone(a);
            change(&mut next);
            *a = Arc::new(next);
        });
    }
    /// Assigns a server at its revision.
    pub fn assign(&self, server: &ServerAssignment) {
        self.edit(|a| drop(a.servers.insert(server.id.clone(), Arc::new(server.clone()))));
    }
    /// Changes an assigned server at its next revision, and waits for the answer to it.
    pub async fn change(&self, id: &str, state: GuestState, change: impl FnOnce(&mut ServerAssignment)) -> ServerReport {
        let mut next = ServerAssignment::clone(&self.assignments.borrow().servers[id]);
        next.revision += 1;
        change(&mut next);
        self.assign(&next);
        self.wait(id, |r| r.revision == next.revision && r.state == state).await
    }
    pub fn remove(&self, id: &str) {
        self.edit(|a| drop(a.servers.remove(id)));
    }
    pub fn last(&self, key: &str) -> Option<Report> {
        self.reports.lock().unwrap().get(key).cloned()
    }
    pub fn states(&self) -> Vec<GuestState> {
        let all = self.reports.lock().unwrap();
        all.values().filter_map(|r| if let Report::Server(s) = r { Some(s.state) } else { None }).collect()
    }
    pub async fn until<T>(&self, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
        let wait = async {
            loop {
                let more = self.more.notified();
                tokio::pin!(more);
                more.as_mut().enable();
                if let Some(found) = check() {
                    return found;
                }
                // A level that no report announces is looked at now and then.
                let _ = tokio::time::timeout(Duration::from_millis(20), more).await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(90), wait).await {
            Ok(found) => found,
            Err(_) => {
                panic!("{what}; last reports: {:#?}", self.reports.lock().unwrap().values().rev().take(5).collect::<Vec<_>>())
            }
        }
    }
    pub async fn wait(&self, id: &str, check: impl Fn(&ServerReport) -> bool) -> ServerReport {
        self.until(&format!("server {id}"), || match self.last(id) {
            Some(Report::Server(s)) if check(&s) => Some(s),
            _ => None,
        })
        .await
    }
    pub async fn reach(&self, id: &str, state: GuestState) -> ServerReport {
        self.wait(id, |r| r.state == state).await
    }
    /// Changes an assigned volume, or makes it, at its next revision, and waits for the answer to it.
    pub async fn keep(&self, volume: &VolumeAssignment, check: impl Fn(&VolumeReport) -> bool) -> VolumeReport {
        let mut next = volume.clone();
        next.revision = self.assignments.borrow().volumes.get(&volume.id).map_or(1, |v| v.revision + 1);
        self.edit(|a| drop(a.volumes.insert(next.id.clone(), Arc::new(next.clone()))));
        self.volume(&volume.id, |r| r.revision == next.revision && check(r)).await
    }
    pub async fn volume(&self, id: &str, check: impl Fn(&VolumeReport) -> bool) -> VolumeReport {
        self.until(&format!("volume {id}"), || match self.last(id) {
            Some(Report::Volume(v)) if check(&v) => Some(v),
            _ => None,
        })
        .await
    }
    pub async fn snapshot(&self, image: &str) -> Result<BlobInfo, String> {
        self.until(image, || match self.last(image) {
            Some(Report::Snapshot(s)) => Some(s.result),
            _ => None,
        })
        .await
    }
}

/// Blobs in a directory. `slow` never arrives.
pub struct Shelf(pub PathBuf);

impl Blobs for Shelf {
    fn fetch<'a>(&'a self, blob: &'a str, to: &'a Path) -> Pending<'a, io::Result<()>> {
        Box::pin(async move {
            if blob == "slow" {
                std::future::pending::<()>().await;
            }
            std::fs::copy(self.0.join(blob), to).map(drop)
        })
    }
    fn store<'a>(&'a self, from: &'a Path) -> Pending<'a, io::Result<BlobInfo>> {
        Box::pin(async move {
            let size = std::fs::copy(from, self.0.join("stored"))?;
            let format = "qcow2".into();
            Ok(BlobInfo { blob: "stored".into(), checksum: "c".into(), size, virtual_size: None, format })
        })
    }
}

pub fn image(blob: &str) -> ImageRef {
    ImageRef { image_id: base::id::uuid(), blob: blob.into(), format: "raw".into() }
}

pub fn port() -> PortAssignment {
    PortAssignment {
        id: base::id::uuid(),
        network_id: base::id::uuid(),
        mac: base::id::Mac::random().to_string(),
        mtu: 1442,
        fixed_ips: vec!["10.0.0.5".into()],
    }
}

/// A small server on the empty disk: its firmware runs and finds nothing to boot.
pub fn server() -> ServerAssignment {
    ServerAssignment {
        id: base::id::uuid(),
        epoch: 1,
        revision: 1,
        request_id: "req-1".into(),
        name: "test".into(),
        power: Power::Running,
        reboot: Reboot::default(),
        vcpus: 1,
        memory_mib: 64,
        root: Some(RootDisk { image: image("empty"), size_gib: 0, generation: 0 }),
        rescue: None,
        ports: vec![],
        volumes: vec![],
        config_drive: false,
        guest: Arc::default(),
        properties: BTreeMap::new(),
    }
}

/// A blank volume of one GiB.
pub fn volume() -> VolumeAssignment {
    VolumeAssignment {
        id: base::id::uuid(),
        revision: 1,
        request_id: "req-1".into(),
        keep: Keep::Present,
        size_gib: 1,
        source: VolumeSource::Blank,
        generation: 0,
        snapshots: vec![],
        exports: vec![],
        uploads: vec![],
    }
}

/// What a server must be told of a served volume.
pub fn attached(volume: &VolumeReport, attachment: &str) -> AttachedVolume {
    let live = volume.exports.iter().find(|e| e.attachment_id == attachment).unwrap().clone();
    AttachedVolume {
        attachment_id: live.attachment_id,
        volume_id: volume.id.clone(),
        epoch: live.epoch,
        endpoint: live.endpoint,
        export: live.export,
        size_gib: volume.size_gib,
        read_only: false,
        boot: false,
    }
}
