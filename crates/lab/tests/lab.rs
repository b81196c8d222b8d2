//! The lab's own part, with a stand-in for what runs on its hosts. Needs root.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
use lab::{Answer, Command, Error, Status, run};
use std::{
    path::Path,
    sync::Mutex,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(30);

struct Own {
    prefix: String,
    dir: tempfile::TempDir,
    told: Mutex<String>,
}

impl Own {
    async fn run(&self, command: Command) -> Result<Answer, Error> {
        let stand_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand-in");
        run(&command, self.dir.path(), &stand_in, &|line| self.told.lock().unwrap().push_str(line)).await
    }
    async fn ok(&self, command: Command) {
        self.run(command).await.unwrap();
    }
    fn up(&self) -> Command {
        Command::Up { controllers: Some(2), nodes: Some(1), real: false, prefix: Some(self.prefix.clone()) }
    }
    async fn host(&self, name: &str) -> Status {
        let Answer::Status(all) = self.run(Command::Status).await.unwrap() else { unreachable!("status answers so") };
        all.into_iter().find(|s| s.host == name).unwrap()
    }
    /// Waits until a host is as wanted.
    async fn until(&self, name: &str, what: &str, is: impl Fn(&Status) -> bool) -> Status {
        let until = Instant::now() + SOON;
        loop {
            let now = self.host(name).await;
            if is(&now) {
                return now;
            }
            assert!(Instant::now() < until, "not in time: {name} {what}; last: {now:?}");
        }
    }
    /// Whether a script succeeds on a host.
    async fn sh(&self, host: &str, script: &str) -> bool {
        let argv = ["sh", "-c", script].map(str::to_owned).into();
        let Answer::Ended(status) = self.run(Command::Exec { host: host.into(), argv }).await.unwrap() else {
            unreachable!("exec answers so")
        };
        status.success()
    }
    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.dir.path().join("lab").join(path)).unwrap()
    }
    /// How many groups of processes there are for hosts.
    fn groups(&self) -> usize {
        let script = format!(
            "ls -d /sys/fs/cgroup/{0}-* /sys/fs/cgroup/cpu*/{0}-* | xargs -r -n 1 realpath | sort -u | wc -l",
            self.prefix
        );
        let out = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().parse().unwrap()
    }
    async fn namespaces(&self) -> usize {
        let all = supervise::run(&["ip", "netns", "list"]).await.unwrap();
        all.lines().filter(|l| l.starts_with(&format!("{}-", self.prefix))).count()
    }
}

/// A test that failed leaves nothing either.
impl Drop for Own {
    fn drop(&mut self) {
        let script = format!(
            "for n in $(ip netns list | cut -d' ' -f1 | grep '^{0}-'); do ip netns pids $n | xargs -r kill -9; ip netns del $n; done; rmdir /sys/fs/cgroup/{0}-* /sys/fs/cgroup/cpu/{0}-*",
            self.prefix
        );
        let _ = std::process::Command::new("sh").args(["-c", &script]).stderr(std::process::Stdio::null()).status();
    }
}

fn host(name: &str) -> String {
    name.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lab_has_faults_and_leaves_nothing() {
    let lab = Own { prefix: format!("lt{:x}", std::process::id()), dir: tempfile::tempdir().unwrap(), told: Mutex::default() };
    assert!(matches!(lab.run(Command::Status).await, Err(Error::NoLab { .. })));
    lab.ok(lab.up()).await;
    assert_eq!(lab.namespaces().await, 5);
    assert_eq!(
        lab.read("c2/starts").trim(),
        "--name c2 --address 10.77.0.2 --vip 10.77.0.100/24 --interface eth0 --join controller-token@10.77.0.1:8775"
    );
    assert_eq!(lab.read("n1/starts").trim(), "--name n1 --join node-token@10.77.0.1:8775 --simulate");
    assert!(lab.read("clouds.yaml").contains("  lab-admin:\n"));
    let c1 = lab.until("c1", "is ready", |s| s.api.as_deref() == Some("ready")).await;
    assert_eq!((c1.power.as_str(), c1.link.as_str(), c1.vip, c1.processes["python3"]), ("on", "up", true, 2));
    assert!(!lab.host("c2").await.vip);

    // Each host is a machine of its own.
    assert!(lab.sh("c2", "[ $(hostname) = c2 ] && [ ! -e /run/systemd ] && ip -br addr | grep -q 10.77.0.2").await);
    // With a share of its own, unless the machine does not let us.
    let shared = !lab.told.lock().unwrap().contains("no shares");
    let group = format!("/{}-c2", lab.prefix);
    assert_eq!(lab.sh("c2", &format!("grep -q {group}$ /proc/self/cgroup && grep -q {group}$ /proc/1/cgroup")).await, shared);
    assert_eq!(lab.groups(), if shared { 3 } else { 0 });
    let boot = lab.read("run/c2.boot");

    // Kills: only of what is there.
    lab.ok(Command::Kill { host: host("c2"), what: "python3".into() }).await;
    lab.until("c2", "has no API", |s| s.api.as_deref() == Some("silent")).await;
    let nothing = lab.run(Command::Kill { host: host("c2"), what: "python3".into() }).await;
    assert!(matches!(nothing, Err(Error::NothingRuns { .. })));
    assert!(lab.host("c1").await.api.as_deref() == Some("ready"), "another host's processes are left alone");

    // Power: all processes, the link and what was set on it go, the disk stays, and the next boot is another one.
    assert!(lab.sh("c2", "ip addr add 10.77.0.200/24 dev eth0").await);
    for _ in 0..2 {
        lab.ok(Command::PowerOff { host: host("c2") }).await;
    }
    let off = lab.host("c2").await;
    assert_eq!((off.power.as_str(), off.link.as_str(), off.processes.len()), ("off", "unplugged", 0));
    assert!(matches!(lab.run(Command::Kill { host: host("c2"), what: "python3".into() }).await, Err(Error::Off { .. })));
    lab.ok(Command::PowerOn { host: host("c2") }).await;
    lab.until("c2", "is ready again", |s| s.api.as_deref() == Some("ready")).await;
    assert_eq!(lab.read("c2/starts").lines().count(), 2);
    assert!(lab.sh("c2", "[ $(ip -br -4 addr show eth0 | wc -w) = 3 ] && ip -br addr show eth0 | grep -q 10.77.0.2/").await);
    assert!(lab.read("c2/starts").ends_with("\n\n"), "it is started with the options that it keeps");
    assert_ne!(lab.read("run/c2.boot"), boot);
    assert!(lab.sh("c2", &format!("! grep -q {} /proc/sys/kernel/random/boot_id", boot.trim())).await);

    // Cuts, one way and the other.
    let listen = "timeout 20 python3 -c 'import socket; s = socket.socket(2, 2); s.bind((\"\", 99)); s.recv(9)'";
    let say = "bash -c 'for i in $(seq 15); do echo x > /dev/udp/10.77.0.1/99; sleep 0.1; done'";
    // Neighbours are known, so that a packet of the way that is open needs no answer.
    let known = "ip neigh replace $(ip -br addr show eth0 | grep -q 77.0.1/ && echo 10.77.0.2 || echo 10.77.0.1) lladdr ff:ff:ff:ff:ff:ff nud permanent dev eth0";
    assert!(lab.sh("c2", known).await);
    lab.ok(Command::Cut { host: host("c2"), into: true, out: false }).await;
    assert_eq!(lab.host("c2").await.link, "cut in");
    let (heard, _) = tokio::join!(lab.sh("c1", listen), lab.sh("c2", say));
    assert!(heard, "what it sends arrives");
    lab.ok(Command::Cut { host: host("c2"), into: false, out: true }).await;
    assert_eq!(lab.host("c2").await.link, "cut out");
    let short = listen.replace("timeout 20", "timeout 2");
    let (heard, _) = tokio::join!(lab.sh("c1", &short), lab.sh("c2", say));
    assert!(!heard, "what it sends does not arrive");
    lab.ok(Command::Cut { host: host("c2"), into: false, out: false }).await;
    assert_eq!(lab.host("c2").await.link, "cut");
    for _ in 0..2 {
        lab.ok(Command::Heal { host: host("c2") }).await;
    }
    assert!(lab.sh("c2", "ip neigh flush all").await);
    lab.until("c2", "is reached", |s| s.link == "up" && s.api.as_deref() == Some("ready")).await;

    // A pause: nothing answers, and then goes on.
    lab.ok(Command::Pause { host: host("c2"), what: None }).await;
    let paused = lab.host("c2").await;
    assert_eq!((paused.power.as_str(), paused.api.as_deref()), ("paused", Some("silent")));
    lab.ok(Command::Resume { host: host("c2") }).await;
    lab.until("c2", "goes on", |s| s.power == "on" && s.api.as_deref() == Some("ready")).await;

    // What is there stays as it is; another shape needs a new lab.
    lab.ok(lab.up()).await;
    lab.until("c1", "is as it was", |s| s.processes["python3"] == 2).await;
    let larger = Command::Up { controllers: Some(3), nodes: None, real: false, prefix: None };
    assert!(matches!(lab.run(larger).await, Err(Error::OtherShape { .. })));
    assert!(matches!(lab.run(Command::Heal { host: host("c7") }).await, Err(Error::NoHost { .. })));

    for _ in 0..2 {
        lab.ok(Command::Down { keep: false }).await;
    }
    assert_eq!(lab.namespaces().await, 0);
    assert_eq!(lab.groups(), 0);
    assert!(!lab.dir.path().join("lab").exists());
    let dir = lab.dir.path().display().to_string();
    let lines = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|d| std::fs::read(d.path().join("cmdline")).ok());
    assert!(!lines.into_iter().any(|l| String::from_utf8_lossy(&l).contains(&dir)), "no process is left");
}
