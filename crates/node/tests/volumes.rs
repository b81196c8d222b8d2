//! Volumes on real storage daemons and real QEMU processes: data, access, and what an agent that is killed leaves.
#![expect(clippy::unwrap_used, reason = "a test may fail here")]
mod common;
use assign::*;
use common::*;
use node::{Agent, Config, sim::Switch};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

/// A node of its own. Dropping it ends what still runs.
struct Lab {
    dir: tempfile::TempDir,
    control: Arc<Control>,
}

impl Lab {
    /// `None` where the agent cannot be root.
    fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            return None;
        }
        let dir = tempfile::Builder::new().prefix("nv").tempdir().unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(dir.path().join("shelf")).unwrap();
        fs::File::create(dir.path().join("shelf/empty")).unwrap().set_len(1 << 20).unwrap();
        fs::write(dir.path().join("shelf/marked"), [0x5a; 1 << 20]).unwrap();
        Some(Self { dir, control: Arc::default() })
    }
    fn config(&self) -> Config {
        Config {
            accelerator: Some("tcg".into()),
            stop_timeout: Duration::from_millis(300),
            unplug_timeout: Duration::from_millis(300),
            orphan_grace: Duration::from_millis(200),
            sweep_every: Duration::from_millis(500),
            ..Config::new(self.dir.path().join("n"), "node-1")
        }
    }
    async fn start(&self) -> Arc<Agent> {
        let shelf = Arc::new(Shelf(self.dir.path().join("shelf")));
        node::start(self.config(), self.control.clone(), shelf, Arc::<Switch>::default()).await.unwrap()
    }
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("n").join(name)
    }
    /// Processes with a word on their command line.
    fn pids(word: &Path) -> Vec<i32> {
        let all = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
        let word = word.display().to_string();
        let is_zombie = |p: &i32| fs::read_to_string(format!("/proc/{p}/stat")).is_ok_and(|s| s.contains(") Z "));
        all.filter(|p| fs::read_to_string(format!("/proc/{p}/cmdline")).is_ok_and(|c| c.contains(&word)))
            .filter(|p| !is_zombie(p))
            .collect()
    }
    fn daemons(&self) -> Vec<i32> {
        Self::pids(&self.path("volumes"))
    }
    fn layers(&self) -> usize {
        fs::read_dir(self.path("volumes/layers")).unwrap().count()
    }
    /// Nothing is left of any volume.
    async fn is_empty(&self) {
        let left = || {
            let exports = fs::read_dir(self.path("exports")).unwrap().count();
            let homes = fs::read_dir(self.path("volumes")).unwrap().count() - 1;
            (self.daemons().len() + self.layers() + exports + homes == 0).then_some(())
        };
        self.control.until("nothing is left", left).await;
    }
    /// Removes a volume and waits until it is gone.
    async fn delete(&self, v: &VolumeAssignment) {
        let gone = VolumeAssignment { keep: Keep::Deleted, exports: vec![], ..v.clone() };
        self.control.keep(&gone, |r| r.state == VolumeState::Gone).await;
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for pid in Self::pids(&self.path("")) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}
fn export(epoch: u64) -> Export {
    Export { attachment_id: base::id::uuid(), epoch, read_only: false }
}
fn ready(r: &VolumeReport) -> bool {
    r.state == VolumeState::Ready
}
/// Reads and writes through an export, as a guest would.
fn io(live: &LiveExport, command: &str) -> Output {
    let path = live.endpoint.strip_prefix("unix:").unwrap();
    let options = format!("driver=nbd,server.type=unix,server.path={path},export={}", live.export);
    Command::new("qemu-io").args(["--image-opts", &options, "-c", command]).output().unwrap()
}
fn does(live: &LiveExport, command: &str) {
    let out = io(live, command);
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && !said.contains("failed"), "{command}: {said}");
}
fn fails(live: &LiveExport, command: &str) {
    assert!(!io(live, command).status.success(), "{command} should fail");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_snapshots_and_clones_in_any_order() {
    let Some(lab) = Lab::new() else { return };
    let (_agent, c) = (lab.start().await, &lab.control);
    let e = export(1);
    let mut v = VolumeAssignment { exports: vec![e.clone()], ..volume() };
    let made = c.keep(&v, |r| ready(r) && r.exports.len() == 1).await;
    let live = &made.exports[0];
    assert_eq!((made.size_gib, live.export.clone()), (1, format!("{}-1", e.attachment_id)));
    does(live, "write -P 1 0 64k");
    // A snapshot while it is written to.
    v.snapshots = vec![base::id::uuid()];
    let snapped = c.keep(&v, |r| ready(r) && r.snapshots.len() == 1).await;
    assert_eq!(snapped.exports, made.exports);
    does(live, "write -P 2 0 64k");
    let from = |source| VolumeAssignment { source, exports: vec![export(1)], ..volume() };
    let of_snapshot = from(VolumeSource::Snapshot { volume_id: v.id.clone(), snapshot_id: v.snapshots[0].clone() });
    let of_volume = from(VolumeSource::Volume { volume_id: v.id.clone() });
    let of_image = from(VolumeSource::Image(image("marked")));
    let old = c.keep(&of_snapshot, |r| r.exports.len() == 1).await;
    let new = c.keep(&of_volume, |r| r.exports.len() == 1).await;
    let third = c.keep(&of_image, |r| r.exports.len() == 1).await;
    does(live, "write -P 3 0 64k");
    does(&old.exports[0], "read -P 1 0 64k");
    does(&new.exports[0], "read -P 2 0 64k");
    does(&third.exports[0], "read -P 0x5a 0 1M");
    does(&third.exports[0], "read -P 0 1023M 1M");
    // Sources go first.
    lab.delete(&v).await;
    does(&old.exports[0], "read -P 1 0 64k");
    does(&new.exports[0], "read -P 2 0 64k");
    for v in [&of_snapshot, &of_image, &of_volume] {
        lab.delete(v).await;
    }
    lab.is_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_is_granted_revoked_and_kept_alive() {
    let Some(lab) = Lab::new() else { return };
    let c = &lab.control;
    let mut agent = lab.start().await;
    let first = export(1);
    let mut v = VolumeAssignment { exports: vec![first.clone()], ..volume() };
    let live = c.keep(&v, |r| r.exports.len() == 1).await.exports[0].clone();
    let daemon = lab.daemons();
    assert_eq!(daemon.len(), 1);
    let status = fs::read_to_string(format!("/proc/{}/status", daemon[0])).unwrap();
    assert!(status.contains("NoNewPrivs:\t1") && status.lines().any(|l| l.starts_with("Uid:\t12")), "{status}");
    does(&live, "write -P 7 4k 4k");

    // It outlives the agent, and the next one adopts it.
    drop(agent);
    does(&live, "read -P 7 4k 4k");
    agent = lab.start().await;
    let again = c.keep(&v, |r| r.exports.len() == 1).await;
    assert_eq!((again.exports[0].clone(), lab.daemons()), (live.clone(), daemon.clone()));

    // Killed, it comes back under the same name.
    kill(daemon[0]);
    c.until("a new daemon", || (lab.daemons().first().is_some_and(|p| *p != daemon[0])).then_some(())).await;
    c.until("access again", || io(&live, "read -P 7 4k 4k").status.success().then_some(())).await;

    // A second consumer, and a newer epoch of the first.
    let second = export(1);
    v.exports.push(second.clone());
    let two = c.keep(&v, |r| r.exports.len() == 2).await;
    v.exports[0].epoch = 2;
    let moved = c.keep(&v, |r| r.exports.iter().any(|e| e.epoch == 2)).await;
    fails(&live, "read 0 4k");
    let of = |r: &VolumeReport, e: &Export| r.exports.iter().find(|l| l.attachment_id == e.attachment_id).unwrap().clone();
    assert_eq!(of(&two, &second), of(&moved, &second));
    does(&of(&moved, &first), "read -P 7 4k 4k");
    v.exports.remove(0);
    c.keep(&v, |r| r.exports.len() == 1).await;
    fails(&of(&moved, &first), "read 0 4k");
    does(&of(&moved, &second), "read -P 7 4k 4k");

    // Read-only, and none at all.
    v.exports[0].read_only = true;
    let read_only = c.keep(&v, |r| ready(r) && r.exports.len() == 1).await.exports[0].clone();
    fails(&read_only, "write 0 4k");
    v.exports.clear();
    c.keep(&v, |r| ready(r) && r.exports.is_empty()).await;
    assert!(lab.daemons().is_empty());
    lab.delete(&v).await;
    lab.is_empty().await;
    drop(agent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grows_reverts_merges_and_uploads() {
    let Some(lab) = Lab::new() else { return };
    let (_agent, c) = (lab.start().await, &lab.control);
    let mut v = volume();
    c.keep(&v, ready).await;
    v.size_gib = 2;
    assert_eq!(c.keep(&v, ready).await.size_gib, 2);
    v.exports = vec![export(1)];
    let live = c.keep(&v, |r| r.exports.len() == 1).await.exports[0].clone();
    does(&live, "write -P 1 2047M 1M");
    v.size_gib = 3;
    let grown = c.keep(&v, |r| ready(r) && r.size_gib == 3).await;
    assert_eq!(grown.exports, std::slice::from_ref(&live));
    does(&live, "write -P 2 3071M 1M");
    let snapshots = [base::id::uuid(), base::id::uuid()];
    v.snapshots = snapshots.to_vec();
    c.keep(&v, |r| ready(r) && r.snapshots.len() == 2).await;
    does(&live, "write -P 3 3071M 1M");

    // The content of a snapshot again; the other snapshot stays.
    v.exports.clear();
    v.source = VolumeSource::Snapshot { volume_id: v.id.clone(), snapshot_id: snapshots[0].clone() };
    v.generation = 1;
    c.keep(&v, |r| ready(r) && r.generation == 1).await;
    // What only deleted snapshots needed becomes one layer.
    v.snapshots.clear();
    c.keep(&v, |r| ready(r) && r.snapshots.is_empty()).await;
    c.until("one layer", || (lab.layers() == 1).then_some(())).await;

    let upload = VolumeUpload { image_id: base::id::uuid(), format: "qcow2".into() };
    v.uploads = vec![upload.clone(), VolumeUpload { image_id: base::id::uuid(), format: "vdi".into() }];
    v.exports = vec![export(1)];
    let told = c.keep(&v, |r| r.uploads.len() == 2 && r.exports.len() == 1).await;
    assert!(told.uploads[&upload.image_id].is_ok() && told.uploads[&v.uploads[1].image_id].is_err());
    does(&told.exports[0], "read -P 2 3071M 1M");
    does(&told.exports[0], "read -P 1 2047M 1M");
    let stored = lab.dir.path().join("shelf/stored");
    let read = Command::new("qemu-io").args(["-r", "-f", "qcow2", "-c", "read -P 2 3071M 1M"]).arg(&stored).output().unwrap();
    assert!(read.status.success(), "the image has the content and no backing file: {read:?}");
    v.uploads.clear();
    c.keep(&v, |r| r.uploads.is_empty()).await;
    lab.delete(&v).await;
    lab.is_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_told_and_do_not_stop_the_rest() {
    let Some(lab) = Lab::new() else { return };
    let (_agent, c) = (lab.start().await, &lab.control);
    let none = VolumeAssignment { source: VolumeSource::Image(image("no-such-blob")), ..volume() };
    assert!(c.keep(&none, |r| r.state == VolumeState::Failed).await.cause.unwrap().contains("data is missing"));
    let slow = VolumeAssignment { source: VolumeSource::Image(image("slow")), ..volume() };
    c.edit(|a| drop(a.volumes.insert(slow.id.clone(), Arc::new(slow.clone()))));
    let (volume_id, snapshot_id) = (base::id::uuid(), base::id::uuid());
    let orphan = VolumeAssignment { source: VolumeSource::Snapshot { volume_id, snapshot_id }, ..volume() };
    assert!(c.keep(&orphan, |r| r.state == VolumeState::Failed).await.cause.is_some());
    for v in [&none, &slow, &orphan] {
        lab.delete(v).await;
    }
    // Data that vanished is never made anew in silence.
    let kept = volume();
    c.keep(&kept, ready).await;
    let layers = fs::read_dir(lab.path("volumes/layers")).unwrap();
    layers.for_each(|l| fs::remove_file(l.unwrap().path()).unwrap());
    let lost = c.keep(&kept, |r| r.state == VolumeState::Failed).await;
    assert!(lost.cause.unwrap().contains("missing"));
    lab.delete(&kept).await;
    lab.is_empty().await;
}

/// An agent that is dropped at any instant is as good as one that is killed: what it did not finish, the next one does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_at_any_instant_loses_nothing() {
    let Some(lab) = Lab::new() else { return };
    let c = &lab.control;
    let source = volume();
    let mut agent = lab.start().await;
    let writer = export(1);
    let mut source = VolumeAssignment { exports: vec![writer], ..source };
    let live = c.keep(&source, |r| r.exports.len() == 1).await.exports[0].clone();
    for (pattern, pause) in (1..).zip([0, 2, 5, 10, 15, 20, 30, 45, 60, 90, 130, 200]) {
        does(&live, &format!("write -P {pattern} 0 64k"));
        // Everything at once: a snapshot, growth, a clone, another consumer.
        let snapshot = base::id::uuid();
        source.snapshots.push(snapshot);
        source.size_gib += 1;
        source.revision += 100;
        source.exports.truncate(1);
        source.exports.push(export(1));
        let source_of_clone = VolumeSource::Volume { volume_id: source.id.clone() };
        let clone = VolumeAssignment { source: source_of_clone, exports: vec![export(1)], size_gib: 20, ..volume() };
        c.edit(|a| {
            a.volumes.insert(source.id.clone(), Arc::new(source.clone()));
            a.volumes.insert(clone.id.clone(), Arc::new(clone.clone()));
        });
        tokio::time::sleep(Duration::from_millis(pause)).await;
        drop(agent);
        // The guest goes on meanwhile, if its export is up just now.
        io(&live, &format!("write -P {} 64k 64k", pattern + 100));
        agent = lab.start().await;
        let now = c
            .keep(&source, |r| {
                let exports: Vec<_> = r.exports.iter().map(|e| e.attachment_id.clone()).collect();
                ready(r)
                    && r.snapshots.len() == source.snapshots.len()
                    && r.size_gib == source.size_gib
                    && source.exports.iter().all(|e| exports.contains(&e.attachment_id))
                    && exports.len() == 2
            })
            .await;
        assert!(now.exports.contains(&live));
        source.revision = now.revision;
        let cloned = c.keep(&clone, |r| ready(r) && r.exports.len() == 1).await;
        does(&live, &format!("read -P {pattern} 0 64k"));
        does(&cloned.exports[0], &format!("read -P {pattern} 0 64k"));
        assert_eq!(lab.daemons().len(), 2);
        lab.delete(&clone).await;
    }
    lab.delete(&source).await;
    lab.is_empty().await;
    drop(agent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_has_volumes_and_boots_from_one() {
    let Some(lab) = Lab::new() else { return };
    let c = &lab.control;
    let mut agent = lab.start().await;
    let (root, data) = (export(1), export(1));
    let boot = VolumeAssignment { source: VolumeSource::Image(image("marked")), exports: vec![root.clone()], ..volume() };
    let mut v = VolumeAssignment { exports: vec![data.clone()], ..volume() };
    let root = attached(&c.keep(&boot, |r| r.exports.len() == 1).await, &root.attachment_id);
    let root = AttachedVolume { boot: true, ..root };
    let data = attached(&c.keep(&v, |r| r.exports.len() == 1).await, &data.attachment_id);
    let mut s = server();
    (s.root, s.volumes) = (None, vec![root.clone()]);
    let id = s.id.clone();
    c.assign(&s);
    let up = c.reach(&id, GuestState::Running).await;
    assert_eq!(up.volumes, std::slice::from_ref(&root.attachment_id));
    let names = |r: &ServerReport| r.volumes.iter().cloned().collect::<std::collections::BTreeSet<_>>();
    let both = [root.attachment_id.clone(), data.attachment_id.clone()].into();
    c.change(&id, GuestState::Running, |s| s.volumes.push(data.clone())).await;
    c.wait(&id, |r| names(r) == both).await;

    // Grown while it is used.
    v.size_gib = 2;
    c.keep(&v, |r| ready(r) && r.size_gib == 2).await;
    c.change(&id, GuestState::Running, |s| s.volumes[1].size_gib = 2).await;
    let told = || {
        let state = fs::read(lab.path("servers").join(&id).join("state.json")).unwrap();
        let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
        (state["process"]["volumes"][&data.attachment_id]["size_gib"] == 2).then_some(())
    };
    c.until("the guest is told its size", told).await;

    // After a restart of the agent, of the storage daemon and of the guest it is still there.
    drop(agent);
    agent = lab.start().await;
    for pid in lab.daemons() {
        kill(pid);
    }
    c.until("daemons again", || (lab.daemons().len() == 2).then_some(())).await;
    c.change(&id, GuestState::Running, |s| s.reboot = Reboot { count: 1, hard: true }).await;
    c.wait(&id, |r| names(r) == both && r.state == GuestState::Running).await;
    let off = c.change(&id, GuestState::Stopped, |s| s.power = Power::Stopped).await;
    assert_eq!(names(&off), both);

    // Off, it lets go at once; on, firmware never does, and says why while the server goes on.
    let detached = c.change(&id, GuestState::Stopped, |s| s.volumes.truncate(1)).await;
    assert_eq!(detached.volumes, std::slice::from_ref(&root.attachment_id));
    c.change(&id, GuestState::Running, |s| (s.power, s.volumes) = (Power::Running, vec![root.clone(), data.clone()])).await;
    c.wait(&id, |r| names(r) == both).await;
    let held = c.change(&id, GuestState::Running, |s| s.volumes.truncate(1)).await;
    assert_eq!(names(&held), both);

    // One that cannot be plugged does not hurt the guest, and stops only the next start.
    let elsewhere = AttachedVolume { endpoint: "unix:/elsewhere".into(), attachment_id: base::id::uuid(), ..data.clone() };
    let told = c.change(&id, GuestState::Running, |s| s.volumes = vec![root.clone(), data.clone(), elsewhere]).await;
    assert_eq!((names(&told), told.cause.is_some()), (both, true));
    c.remove(&id);
    c.reach(&id, GuestState::Gone).await;
    for v in [&v, &boot] {
        lab.delete(v).await;
    }
    lab.is_empty().await;
    drop(agent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_node_leaves_no_daemon_and_serves_again() {
    let Some(lab) = Lab::new() else { return };
    let (agent, c) = (lab.start().await, &lab.control);
    let v = VolumeAssignment { exports: vec![export(1)], ..volume() };
    let live = c.keep(&v, |r| r.exports.len() == 1).await.exports[0].clone();
    does(&live, "write -P 9 0 4k");
    drop(agent);
    node::stop_all(&lab.config()).await.unwrap();
    assert!(lab.daemons().is_empty());
    // Strangers: a directory without a manifest, a socket of nobody, a layer that no manifest names.
    fs::create_dir(lab.path("volumes").join(base::id::uuid())).unwrap();
    fs::create_dir(lab.path("exports").join(base::id::uuid())).unwrap();
    fs::write(lab.path("volumes/layers/abc.qcow2"), b"x").unwrap();
    let _agent = lab.start().await;
    c.keep(&v, |r| r.exports == [live.clone()]).await;
    does(&live, "read -P 9 0 4k");
    let swept = || {
        let count = |name: &str| fs::read_dir(lab.path(name)).unwrap().count();
        (count("volumes") == 2 && count("exports") == 1 && lab.layers() == 1).then_some(())
    };
    c.until("strangers are gone", swept).await;
    lab.delete(&v).await;
    lab.is_empty().await;
}

/// A guest that goes on after its storage daemon was killed must find all that it was told is written, flushed or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_survives_the_kill_of_its_daemon() {
    let Some(lab) = Lab::new() else { return };
    let (_agent, c) = (lab.start().await, &lab.control);
    let mut v = VolumeAssignment { exports: vec![export(1)], ..volume() };
    for round in 0..2 {
        let live = c.keep(&v, |r| ready(r) && r.exports.len() == 1 && r.snapshots.len() == round).await.exports[0].clone();
        let path = live.endpoint.strip_prefix("unix:").unwrap();
        let options = format!("driver=nbd,server.type=unix,server.path={path},export={}", live.export);
        let mut writer = Command::new("stdbuf")
            .args(["-oL", "qemu-io", "--image-opts", &options, "-c", "write -P 5 1M 64k", "-c", "sleep 60000"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(writer.stdout.take().unwrap()), &mut said).unwrap();
        assert!(said.starts_with("wrote 65536"), "{said}");
        // It never closes, so it never flushes.
        let old = lab.daemons();
        kill(old[0]);
        writer.kill().unwrap();
        writer.wait().unwrap();
        c.until("a new daemon", || lab.daemons().first().is_some_and(|p| *p != old[0]).then_some(())).await;
        c.until("access again", || io(&live, "read 0 4k").status.success().then_some(())).await;
        does(&live, "read -P 5 1M 64k");
        does(&live, "write -P 6 1M 64k");
        // The same above a snapshot. Its export is made anew.
        v.snapshots.push(base::id::uuid());
    }
    lab.delete(&v).await;
    lab.is_empty().await;
}
