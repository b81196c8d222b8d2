//! A cluster of three in namespaces of its own, on a bridge in another.
use frontdoor::{
    AGENT_PORT, Certificate, Controller, FrontDoor, LOCAL_PORT, PORT, PULSE_PORT, Pulse, Readiness, Sockets, Vip, Voice, Watched,
};
use pki::{Ca, Identity, Request, Role};
use std::{net::IpAddr, path::PathBuf, process::Stdio, sync::Arc, time::Duration};
use supervise::{ip, run};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, UdpSocket},
    process::{Child, Command},
    task::JoinSet,
    time::Instant,
};

pub(crate) const VIP: &str = "10.78.0.100";
/// Longest wait for a level; machines are busy.
pub(crate) const SOON: Duration = Duration::from_secs(40);

pub(crate) struct Cluster {
    pub(crate) prefix: String,
    pub(crate) dir: TempDir,
    pub(crate) doors: Vec<FrontDoor>,
    pub(crate) watched: Vec<Option<Watched>>,
    pub(crate) backends: Vec<Option<Child>>,
    pulses: Vec<Option<JoinSet<()>>>,
}

/// Waits for a level.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let until = Instant::now() + SOON;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < until, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Cluster {
    /// `name` is unique among tests that run at the same time in this process.
    pub(crate) async fn start(name: &str) -> Self {
        let prefix = format!("fd{:x}{name}", std::process::id());
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = Self { prefix, dir, doors: vec![], watched: vec![], backends: vec![], pulses: vec![] };
        cluster.wire().await;
        let ca = Ca::create("test").unwrap();
        ca.keep(&cluster.path("ca")).unwrap();
        for n in 1..=3 {
            let door = cluster.door(n, &ca);
            cluster.doors.push(door);
            cluster.backends.push(None);
            cluster.pulses.push(None);
        }
        for n in 1..=3 {
            cluster.serve(n);
        }
        for n in 0..3 {
            let watched = cluster.doors[n].watch().await.unwrap();
            cluster.watched.push(Some(watched));
        }
        cluster.holder().await;
        until("all three are served", || async { (cluster.serving(1).await == 3).then_some(()) }).await;
        cluster
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    pub(crate) fn ns(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }
    /// This end of a host's link.
    pub(crate) fn port(&self, host: &str) -> String {
        format!("p-{host}")
    }

    async fn wire(&self) {
        let bridge = self.ns("sw");
        ip(None, &format!("netns add {bridge}")).await.unwrap();
        ip(Some(&bridge), "link add br0 type bridge").await.unwrap();
        ip(Some(&bridge), "link set br0 up").await.unwrap();
        for (host, last) in [("c1", 1), ("c2", 2), ("c3", 3), ("client", 9)] {
            let (ns, port) = (self.ns(host), self.port(host));
            ip(None, &format!("netns add {ns}")).await.unwrap();
            ip(Some(&ns), "link set lo up").await.unwrap();
            ip(Some(&bridge), &format!("link add {port} type veth peer name eth0 netns {ns}")).await.unwrap();
            ip(Some(&bridge), &format!("link set {port} master br0 up")).await.unwrap();
            ip(Some(&ns), &format!("addr add 10.78.0.{last}/24 dev eth0")).await.unwrap();
            ip(Some(&ns), "link set eth0 up").await.unwrap();
        }
    }

    fn door(&self, n: u8, ca: &Ca) -> FrontDoor {
        let name = format!("c{n}");
        let address = IpAddr::from([10, 78, 0, n]);
        let request = Request::new().unwrap();
        let identity = Identity { role: Role::Controller, name: name.clone() };
        let issued = ca.sign(&request.csr_pem, &identity, &[address, VIP.parse().unwrap()]).unwrap();
        let machine = Certificate { certificate: self.path(&format!("{name}.pem")), key: self.path(&format!("{name}.key")) };
        std::fs::write(&machine.certificate, issued.certificate_pem).unwrap();
        std::fs::write(&machine.key, request.key_pem).unwrap();
        let controller = |n: u8| Controller { name: format!("c{n}"), api: ([10, 78, 0, n], 8776).into() };
        FrontDoor {
            netns: Some(self.ns(&name)),
            dir: self.path(&format!("{name}-door")),
            name,
            listen: vec![address],
            port: PORT,
            local_port: LOCAL_PORT,
            vip: Some(Vip { address: format!("{VIP}/24").parse().unwrap(), interface: None }),
            ca: self.path("ca/ca.pem"),
            machine,
            public: None,
            controllers: (1..=3).map(controller).collect(),
        }
    }

    fn enter(&self, host: &str, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.ns(host))).arg(program);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Starts the API of a controller.
    pub(crate) fn serve(&mut self, n: usize) {
        let name = format!("c{n}");
        let of = &self.doors[n - 1];
        let mut command = self.enter(&name, "python3");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/backend.py"));
        command.arg(of.controllers[n - 1].api.ip().to_string()).arg("8776");
        command.args([&of.machine.certificate, &of.machine.key, &of.ca]).arg(&name).arg(self.dir.path());
        self.backends[n - 1] = Some(command.spawn().unwrap());
        self.pulses[n - 1] = None;
        self.pulses[n - 1] = Some(self.pulse(n));
    }

    /// The pulse of a controller, as it is told by the file that its API has, too.
    fn pulse(&self, n: usize) -> JoinSet<()> {
        let of = &self.doors[n - 1];
        let (pulse, voice) = (Pulse::new(&of.name, [7; 32], &of.dir), Voice::new(&of.dir, Arc::default(), || Duration::MAX));
        voice.know(&of.controllers);
        let sockets = self.sockets(n);
        let (says, ready) = (voice.clone(), self.path(&format!("{}.ready", of.name)));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let Err(e) = pulse.run(sockets).await;
            panic!("{e}");
        });
        tasks.spawn(async move {
            voice.run().await;
        });
        tasks.spawn(async move {
            loop {
                says.say(match std::fs::read_to_string(&ready).as_deref() {
                    Ok("503") => Readiness::Unready,
                    Ok("404") => Readiness::Draining,
                    _ => Readiness::Ready,
                });
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        tasks
    }

    /// In the namespace of a controller, where a thread goes to bind them.
    fn sockets(&self, n: usize) -> Sockets {
        let (ns, own) = (self.ns(&format!("c{n}")), self.doors[n - 1].controllers[n - 1].api.ip());
        let bound = std::thread::spawn(move || {
            let ns = std::fs::File::open(format!("/run/netns/{ns}")).unwrap();
            nix::sched::setns(ns, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let pulse = again(|| std::net::UdpSocket::bind((own, PULSE_PORT)));
            let agent = again(|| std::net::TcpListener::bind(("127.0.0.1", AGENT_PORT)));
            pulse.set_nonblocking(true).unwrap();
            agent.set_nonblocking(true).unwrap();
            (pulse, agent)
        });
        let (pulse, agent) = bound.join().unwrap();
        let (pulse, agent) = (UdpSocket::from_std(pulse).unwrap(), TcpListener::from_std(agent).unwrap());
        Sockets::new(pulse, agent, &self.doors[n - 1].dir).unwrap()
    }

    /// Ends the API of a controller, and what goes with it.
    pub(crate) fn kill(&mut self, n: usize) {
        self.backends[n - 1] = None;
        self.pulses[n - 1] = None;
    }

    /// What the door of a controller says of itself.
    pub(crate) async fn local(&self, n: usize, path: &str) -> String {
        let url = format!("http://127.0.0.1:{LOCAL_PORT}{path}");
        let out = self.enter(&format!("c{n}"), "curl").args(["-s", "-m", "2", "-w", "%{http_code}", &url]).output().await;
        String::from_utf8(out.unwrap().stdout).unwrap()
    }

    /// To how many controllers a door sends requests.
    pub(crate) async fn serving(&self, n: usize) -> usize {
        let page = self.local(n, "/metrics").await;
        let of_door = page.lines().filter(|l| l.starts_with("haproxy_server_status{proxy=\"api\"") && l.ends_with(" 1"));
        of_door.filter(|l| l.contains("state=\"UP\"")).count()
    }

    /// One request of the client through the public address: its status and body.
    pub(crate) async fn ask(&self, path: &str, more: &[&str]) -> (u16, String) {
        let mut command = self.enter("client", "curl");
        command.args(["-s", "-m", "30", "-w", "\n%{http_code}", "--cacert"]).arg(self.path("ca/ca.pem")).args(more);
        let out = command.arg(format!("https://{VIP}:{PORT}{path}")).output().await.unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), body.to_owned())
    }

    pub(crate) fn client(&self) -> Child {
        let mut command = self.enter("client", "python3");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/client.py"));
        command.args([VIP, &PORT.to_string()]).arg(self.path("ca/ca.pem"));
        command.stdout(std::fs::File::create(self.path("client.log")).unwrap()).spawn().unwrap()
    }

    /// The controllers (1 to 3) that have the public address.
    pub(crate) async fn holders(&self) -> Vec<usize> {
        let mut holders = vec![];
        for (n, door) in self.doors.iter().enumerate() {
            if door.status().await.unwrap().has_vip {
                holders.push(n + 1);
            }
        }
        holders
    }
    /// The one controller that has it, as soon as it is one.
    pub(crate) async fn holder(&self) -> usize {
        until("one controller has the address", || async {
            let holders = self.holders().await;
            (holders.len() == 1).then(|| holders[0])
        })
        .await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.watched.clear();
        for host in ["c1", "c2", "c3", "client", "sw"] {
            let ns = self.ns(host);
            let script = format!("ip netns pids {ns} 2>/dev/null | xargs -r kill -9; ip netns del {ns} 2>/dev/null");
            let _ = std::process::Command::new("sh").args(["-c", &script]).status();
        }
    }
}

/// Those of a task that was aborted are closed a little later.
fn again<T>(bind: impl Fn() -> std::io::Result<T>) -> T {
    let until = std::time::Instant::now() + SOON;
    loop {
        match bind() {
            Ok(bound) => return bound,
            Err(e) => assert!(std::time::Instant::now() < until, "{e}"),
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Signals the processes of a namespace that have this name.
pub(crate) async fn signal(ns: &str, name: &str, signal: &str) {
    let script = format!(
        "for p in $(ip netns pids {ns}); do [ \"$(cat /proc/$p/comm)\" != {name} ] || echo $p; done | xargs kill -{signal}"
    );
    run(&["sh", "-c", &script]).await.unwrap();
}
