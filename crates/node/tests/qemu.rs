//! The agent on real QEMU processes, real taps and files. The guests are only firmware that finds nothing to boot.
#![expect(clippy::unwrap_used, reason = "a test may fail here")]
mod common;
use assign::*;
use common::*;
use node::{Agent, Config, sim::Switch};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};
use tokio::io::AsyncReadExt as _;

/// A node of its own: directory, interface prefix, controllers and switch. Dropping it ends what still runs.
struct Lab {
    dir: tempfile::TempDir,
    control: Arc<Control>,
    switch: Arc<Switch>,
    prefix: String,
}

impl Lab {
    /// `None` where taps cannot be made.
    fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() || !Path::new("/dev/net/tun").exists() {
            return None;
        }
        let dir = tempfile::Builder::new().prefix("nd").tempdir().unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(dir.path().join("shelf")).unwrap();
        fs::File::create(dir.path().join("shelf/empty")).unwrap().set_len(1 << 20).unwrap();
        fs::write(dir.path().join("shelf/poweroff"), speaks_and_powers_off()).unwrap();
        fs::File::create(dir.path().join("shelf/rescue")).unwrap().set_len(2 << 20).unwrap();
        let prefix = format!("n{}", &base::id::hex()[..3]);
        Some(Self { dir, control: Arc::default(), switch: Arc::default(), prefix })
    }
    fn config(&self) -> Config {
        Config {
            interface_prefix: self.prefix.clone(),
            namespace_prefix: format!("{}-meta-", self.prefix),
            accelerator: Some("tcg".into()),
            stop_timeout: Duration::from_millis(300),
            soft_reboot_timeout: Duration::from_millis(300),
            unplug_timeout: Duration::from_millis(300),
            orphan_grace: Duration::from_millis(200),
            sweep_every: Duration::from_millis(500),
            ..Config::new(self.dir.path().join("n"), "node-1")
        }
    }
    async fn start(&self) -> Arc<Agent> {
        let shelf = Arc::new(Shelf(self.dir.path().join("shelf")));
        node::start(self.config(), self.control.clone(), shelf, self.switch.clone()).await.unwrap()
    }
    fn server_dir(&self, id: &str) -> PathBuf {
        self.dir.path().join("n/servers").join(id)
    }
    /// The process of a server, by its command line.
    fn pid(&self, id: &str) -> Option<i32> {
        let socket = format!("unix:{},", self.server_dir(id).join("qmp.sock").display());
        pids().find(|p| fs::read_to_string(format!("/proc/{p}/cmdline")).is_ok_and(|c| c.contains(&socket)) && !is_zombie(*p))
    }
    fn kill(&self, id: &str) {
        let pid = nix::unistd::Pid::from_raw(self.pid(id).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    fn taps(&self) -> Vec<String> {
        let all = fs::read_dir("/sys/class/net").unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        all.filter(|n| n.starts_with(&self.prefix)).collect()
    }
    async fn gone(&self, id: &str) {
        self.control.reach(id, GuestState::Gone).await;
        assert_eq!(self.pid(id), None);
        assert!(!self.server_dir(id).exists());
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for id in fs::read_dir(self.dir.path().join("n/servers")).into_iter().flatten().flatten() {
            if let Some(pid) = self.pid(&id.file_name().into_string().unwrap()) {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
        }
        for tap in self.taps() {
            let _ = Command::new("ip").args(["link", "delete", &tap]).status();
        }
    }
}

/// A boot sector: writes `up` to the serial line and powers off through the PIIX4's PM1a register.
fn speaks_and_powers_off() -> Vec<u8> {
    let mut sector = vec![0xba, 0xf8, 0x03]; // mov dx, 0x3f8
    for letter in b"up\n" {
        sector.extend([0xb0, *letter, 0xee]); // mov al, letter; out dx, al
    }
    sector.extend([0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef]); // mov dx, 0x604; mov ax, 0x2000; out dx, ax
    sector.extend([0xf4, 0xeb, 0xfd]); // hlt, for ever
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector.resize(1 << 20, 0);
    sector
}

fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok())
}
fn is_zombie(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| s.rsplit(')').next().unwrap_or("").trim().starts_with('Z'))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn life_of_a_server() {
    let Some(lab) = Lab::new() else { return };
    let (agent, c) = (lab.start().await, &lab.control);
    let mut s = server();
    (s.ports, s.config_drive) = (vec![port()], true);
    let (id, began) = (s.id.as_str(), std::time::Instant::now());
    c.assign(&s);
    let up = c.reach(id, GuestState::Running).await;
    println!("assignment to running: {:?}", began.elapsed());
    assert_eq!((up.plugged.clone(), lab.switch.plugged().len()), (vec![s.ports[0].id.clone()], 1));
    let pid = lab.pid(id).unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Seccomp:\t2"), "{status}");
    assert!(status.lines().any(|l| l.starts_with("Uid:\t12")), "a user of its own: {status}");
    assert_eq!(nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid))).unwrap().as_raw(), pid);

    let ask: &dyn assign::Agent = &*agent;
    let Ok(Answer::Json(d)) = ask.query(Query::Diagnostics { server_id: id.into() }).await else { panic!("no diagnostics") };
    assert_eq!((&d["num_nics"], &d["num_cpus"], d["disk_details"].as_array().map(Vec::len)), (&1.into(), &1.into(), Some(1)));
    assert!(matches!(ask.query(Query::ConsoleLog { server_id: id.into(), lines: Some(5) }).await, Ok(Answer::Text(_))));
    let mut banner = [0; 4];
    ask.vnc(id).await.unwrap().read_exact(&mut banner).await.unwrap();
    assert_eq!(&banner, b"RFB ");

    c.change(id, GuestState::Paused, |s| s.power = Power::Paused).await;
    c.change(id, GuestState::Running, |s| s.power = Power::Running).await;
    assert_eq!(lab.pid(id), Some(pid));
    c.change(id, GuestState::Stopped, |s| s.power = Power::Stopped).await;
    assert_eq!(lab.pid(id), None);
    c.change(id, GuestState::Running, |s| s.power = Power::Running).await;

    let before = lab.pid(id);
    for (count, hard) in [(1, true), (2, false)] {
        let r = c.change(id, GuestState::Running, |s| s.reboot = Reboot { count, hard }).await;
        assert_eq!(r.reboot_count, count);
    }
    assert_ne!(lab.pid(id), before);

    let second = port();
    let r = c.change(id, GuestState::Running, |s| s.ports.push(second.clone())).await;
    assert_eq!((r.plugged.len(), lab.taps().len()), (2, 2));
    let r = c.change(id, GuestState::Running, |s| drop(s.ports.remove(0))).await;
    assert_eq!((r.plugged, lab.taps().len()), (vec![second.id.clone()], 1));

    lab.kill(id);
    let crashed = c.reach(id, GuestState::Crashed).await;
    assert!(crashed.cause.unwrap().contains("start or reboot it"));
    c.change(id, GuestState::Running, |_| {}).await;

    c.remove(id);
    lab.gone(id).await;
    assert!(lab.taps().is_empty() && lab.switch.plugged().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_outlive_the_agent() {
    let Some(lab) = Lab::new() else { return };
    let c = &lab.control;
    let agent = lab.start().await;
    let (kept, killed, dropped) = (server(), server(), server());
    for s in [&kept, &killed, &dropped] {
        c.assign(s);
    }
    let launched = c.reach(&kept.id, GuestState::Running).await.launched_at;
    c.reach(&killed.id, GuestState::Running).await;
    c.reach(&dropped.id, GuestState::Running).await;
    let pid = lab.pid(&kept.id);
    drop(agent);
    lab.kill(&killed.id);
    c.remove(&dropped.id);
    assert!(lab.pid(&dropped.id).is_some());
    let _agent = lab.start().await;
    c.reach(&killed.id, GuestState::Crashed).await;
    lab.gone(&dropped.id).await;
    // The adopted guest obeys, and is the same.
    let paused = c.change(&kept.id, GuestState::Paused, |s| s.power = Power::Paused).await;
    assert_eq!((lab.pid(&kept.id), paused.launched_at), (pid, launched));
    for id in [&kept.id, &killed.id] {
        c.remove(id);
        lab.gone(id).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rebuild_resize_rescue_and_snapshot() {
    let Some(lab) = Lab::new() else { return };
    let (_agent, c) = (lab.start().await, &lab.control);
    let s = server();
    let id = s.id.as_str();
    c.assign(&s);
    c.reach(id, GuestState::Running).await;
    let wanted = |id: &str| {
        let (image_id, server_id) = (base::id::uuid(), id.to_owned());
        Arc::new(SnapshotAssignment { image_id, server_id, request_id: "r".into(), format: "qcow2".into() })
    };
    let live = wanted(id);
    c.edit(|a| drop(a.snapshots.insert(live.image_id.clone(), live.clone())));
    c.snapshot(&live.image_id).await.unwrap();
    let info = |file: &Path| {
        let out = Command::new("qemu-img").args(["info", "-U", "--output=json"]).arg(file).output().unwrap().stdout;
        serde_json::from_slice::<serde_json::Value>(&out).unwrap()
    };
    let stored = lab.dir.path().join("shelf/stored");
    assert_eq!(
        (&info(&stored)["virtual-size"], &info(&stored)["backing-filename"]),
        (&(1 << 20).into(), &serde_json::Value::Null)
    );
    fs::remove_file(&stored).unwrap();

    let rebuilt = c.change(id, GuestState::Running, |s| s.root.as_mut().unwrap().generation = 1).await;
    assert_eq!(rebuilt.disk_generation, 1);
    assert!(!lab.server_dir(id).join("disk-0.qcow2").exists());
    c.change(id, GuestState::Running, |s| (s.vcpus, s.memory_mib, s.root.as_mut().unwrap().size_gib) = (2, 96, 1)).await;
    assert_eq!(info(&lab.server_dir(id).join("disk-1.qcow2"))["virtual-size"], 1 << 30);
    let command = fs::read_to_string(format!("/proc/{}/cmdline", lab.pid(id).unwrap())).unwrap();
    assert!(command.contains("-m\0".to_owned().as_str()) && command.contains("96M") && command.contains("sockets=2"));
    assert!(c.change(id, GuestState::Running, |s| s.rescue = Some(image("rescue"))).await.rescued);
    assert!(lab.server_dir(id).join("rescue.qcow2").exists());
    assert!(!c.change(id, GuestState::Running, |s| s.rescue = None).await.rescued);
    assert!(!lab.server_dir(id).join("rescue.qcow2").exists());

    c.change(id, GuestState::Stopped, |s| s.power = Power::Stopped).await;
    let cold = wanted(id);
    c.edit(|a| drop(a.snapshots.insert(cold.image_id.clone(), cold.clone())));
    c.snapshot(&cold.image_id).await.unwrap();
    assert_eq!(info(&stored)["virtual-size"], 1 << 30);
    c.remove(id);
    lab.gone(id).await;
    assert_eq!(fs::read_dir(lab.dir.path().join("n/snapshots")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_told_and_deletes_always_finish() {
    let Some(lab) = Lab::new() else { return };
    let (_agent, c) = (lab.start().await, &lab.control);
    let (mut missing, mut slow, mut odd) = (server(), server(), server());
    missing.root.as_mut().unwrap().image = image("no-such-blob");
    slow.root.as_mut().unwrap().image = image("slow");
    odd.root.as_mut().unwrap().image.format = "luks".into();
    for s in [&missing, &slow, &odd] {
        c.assign(s);
    }
    assert!(c.reach(&missing.id, GuestState::Failed).await.cause.unwrap().contains("data is missing"));
    assert!(c.reach(&odd.id, GuestState::Failed).await.cause.unwrap().contains("cannot be booted"));
    c.wait(&slow.id, |r| r.step.as_deref().is_some_and(|s| s.starts_with("fetch image"))).await;
    // A new revision is a new chance.
    c.change(&missing.id, GuestState::Running, |s| s.root.as_mut().unwrap().image = image("empty")).await;
    for s in [&missing, &slow, &odd] {
        c.remove(&s.id);
    }
    for s in [&missing, &slow, &odd] {
        lab.gone(&s.id).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leftovers_are_removed_and_strangers_are_not() {
    let Some(lab) = Lab::new() else { return };
    let ours = format!("{}tdeadbeef01", lab.prefix);
    let other = format!("x{}", &base::id::hex()[..6]);
    for name in [&ours, &other] {
        assert!(Command::new("ip").args(["tuntap", "add", "dev", name, "mode", "tap"]).status().unwrap().success());
    }
    let agent = lab.start().await;
    let s = server();
    lab.control.assign(&s);
    lab.control.reach(&s.id, GuestState::Running).await;
    let pid = lab.pid(&s.id).unwrap();
    drop(agent);
    // The state is lost with the disk it was on: nobody owns the process any more.
    fs::remove_dir_all(lab.server_dir(&s.id)).unwrap();
    lab.control.remove(&s.id);
    let _agent = lab.start().await;
    let is_clean = || {
        let dead = !Path::new(&format!("/proc/{pid}")).exists() || is_zombie(pid);
        (lab.taps().is_empty() && dead).then_some(())
    };
    lab.control.until("leftovers go", is_clean).await;
    let kept = Path::new("/sys/class/net").join(&other).exists();
    Command::new("ip").args(["link", "delete", &other]).status().unwrap();
    assert!(kept);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_was_not_recorded_is_replaced() {
    let Some(lab) = Lab::new() else { return };
    let agent = lab.start().await;
    let s = server();
    lab.control.assign(&s);
    lab.control.reach(&s.id, GuestState::Running).await;
    let old = lab.pid(&s.id).unwrap();
    drop(agent);
    // As an agent leaves it that is killed between the two.
    let file = lab.server_dir(&s.id).join("state.json");
    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(state["process"].take()["pid"], old);
    fs::write(&file, state.to_string()).unwrap();
    // No sweep comes to help.
    let config = Config { orphan_grace: Duration::from_secs(3600), ..lab.config() };
    let shelf = Arc::new(Shelf(lab.dir.path().join("shelf")));
    let _agent = node::start(config, lab.control.clone(), shelf, lab.switch.clone()).await.unwrap();
    lab.control.until("another process", || lab.pid(&s.id).filter(|pid| *pid != old)).await;
    lab.control.reach(&s.id, GuestState::Running).await;
    lab.control.remove(&s.id);
    lab.gone(&s.id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_powers_itself_off() {
    let Some(lab) = Lab::new() else { return };
    let c = &lab.control;
    let mut agent = lab.start().await;
    let mut s = server();
    s.root.as_mut().unwrap().image = image("poweroff");
    let id = s.id.as_str();
    c.assign(&s);
    let report = c.reach(id, GuestState::Stopped).await;
    assert_eq!((report.revision, lab.pid(id)), (1, None));
    let ask: &dyn assign::Agent = &*agent;
    assert_eq!(ask.query(Query::ConsoleLog { server_id: id.into(), lines: None }).await.unwrap(), Answer::Text("up\n".into()));
    // It stays off over a restart of the agent, and starts when told so: only to power off again.
    drop(agent);
    agent = lab.start().await;
    c.edit(|_| {});
    assert_eq!(c.reach(id, GuestState::Stopped).await.revision, 1);
    c.change(id, GuestState::Stopped, |_| {}).await;
    let ask: &dyn assign::Agent = &*agent;
    let Ok(Answer::Text(said)) = ask.query(Query::ConsoleLog { server_id: id.into(), lines: None }).await else { panic!() };
    assert_eq!(said, "up\nup\n");
    c.remove(id);
    lab.gone(id).await;
}

/// A node that comes up before its controllers must not take silence for removal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_no_removal() {
    let Some(mut lab) = Lab::new() else { return };
    let agent = lab.start().await;
    let s = server();
    lab.control.assign(&s);
    lab.control.reach(&s.id, GuestState::Running).await;
    let pid = lab.pid(&s.id);
    drop(agent);
    lab.control = Arc::default();
    let _agent = lab.start().await;
    lab.control.until("host report", || lab.control.last("host")).await;
    // Three times the grace of orphans.
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(lab.pid(&s.id), pid);
    lab.control.edit(|_| {});
    lab.gone(&s.id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_is_reported() {
    let Some(lab) = Lab::new() else { return };
    let _agent = lab.start().await;
    let host = lab.control.until("host report", || lab.control.last("host")).await;
    let Report::Host(host) = host else { panic!("{host:?}") };
    assert_eq!((host.hypervisor_type.as_str(), host.accelerator.as_str()), ("QEMU", "tcg"));
    assert!(host.hypervisor_version > 1_000_000 && host.vcpus > 0 && host.memory_mib > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_node_starts_again_what_is_wanted() {
    let Some(lab) = Lab::new() else { return };
    let (agent, c) = (lab.start().await, &lab.control);
    let mut s = server();
    s.ports = vec![port()];
    c.assign(&s);
    let launched = c.reach(&s.id, GuestState::Running).await.launched_at;
    drop(agent);
    node::stop_all(&lab.config()).await.unwrap();
    assert_eq!((lab.pid(&s.id), lab.taps().len()), (None, 0));
    assert!(lab.server_dir(&s.id).join("disk-0.qcow2").exists());
    let _agent = lab.start().await;
    c.wait(&s.id, |r| r.state == GuestState::Running && r.launched_at != launched).await;
    assert_eq!(lab.taps().len(), 1);
    c.remove(&s.id);
    lab.gone(&s.id).await;
}
