//! NAT with real packets: a guest, a host and the world as namespaces `nt-…`; needs root. They are gone afterwards.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]
use chassis::Nat;
use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use supervise::{ip, run, run_in};

const WITHIN: Duration = Duration::from_secs(10);
/// Prints the address of whoever connects, for as many as come.
const SERVER: &str = "import socket
s = socket.create_server(('', 8080))
while True:
    c, peer = s.accept()
    c.send(peer[0].encode())
    c.close()";
const CLIENT: &str = "import socket, sys
s = socket.create_connection((sys.argv[1], 8080), timeout=float(sys.argv[2]), source_address=(sys.argv[3], 0))
print(s.recv(64).decode())";

/// guest 172.24.4.10 ── br-t 172.24.4.1 [host] 198.51.100.1 ── 198.51.100.2 world, which has no way back to 172.24.4.0/24.
struct Lab {
    names: Vec<String>,
    children: Vec<Child>,
}

impl Lab {
    async fn start(name: &str) -> Option<Self> {
        if run(&["id", "-u"]).await.unwrap().trim() != "0" {
            println!("skipped: needs root for network namespaces");
            return None;
        }
        let prefix = format!("nt-{}-{name}", std::process::id());
        let names = ["guest", "host", "world"].map(|n| format!("{prefix}-{n}")).to_vec();
        let lab = Self { names, children: vec![] };
        for ns in &lab.names {
            ip(None, &format!("netns add {ns}")).await.unwrap();
            ip(Some(ns), "link set lo up").await.unwrap();
        }
        let (guest, host, world) = (&lab.names[0], &lab.names[1], &lab.names[2]);
        ip(None, &format!("link add eth0 netns {guest} type veth peer name br-t netns {host}")).await.unwrap();
        ip(None, &format!("link add eth0 netns {world} type veth peer name up0 netns {host}")).await.unwrap();
        for (ns, link, address) in [
            (guest, "eth0", "172.24.4.10/24"),
            (host, "br-t", "172.24.4.1/24"),
            (host, "up0", "198.51.100.1/24"),
            (world, "eth0", "198.51.100.2/24"),
        ] {
            ip(Some(ns), &format!("address add {address} dev {link}")).await.unwrap();
            ip(Some(ns), &format!("link set {link} up")).await.unwrap();
        }
        ip(Some(guest), "address add 10.9.9.9/32 dev lo").await.unwrap();
        ip(Some(guest), "route add default via 172.24.4.1").await.unwrap();
        // The cloud of the host's own provider would answer there.
        ip(Some(world), "address add 169.254.169.254/32 dev lo").await.unwrap();
        ip(Some(host), "route add 169.254.169.254/32 via 198.51.100.2").await.unwrap();
        ip(Some(host), "route add 10.9.9.9/32 via 172.24.4.10").await.unwrap();
        lab.forwarding_set(false).await;
        Some(lab)
    }
    fn nat(&self, tag: &str) -> Nat {
        let gateway = "172.24.4.1/24".parse().unwrap();
        Nat { netns: Some(self.names[1].clone()), tag: tag.into(), bridge: "br-t".into(), gateway }
    }
    /// Starts a server on all addresses and waits until it listens.
    async fn serve(&mut self, ns: usize) {
        let name = self.names[ns].clone();
        let child = Command::new("ip").args(["netns", "exec", &name, "python3", "-c", SERVER]).stdout(Stdio::null()).spawn();
        self.children.push(child.unwrap());
        let until = Instant::now() + WITHIN;
        while self.connect(ns, "127.0.0.1", "127.0.0.1").await.is_none() {
            assert!(Instant::now() < until, "the server in {name} does not listen");
        }
    }
    /// What the server at `address` answers to whom it sees as the client.
    async fn connect(&self, ns: usize, address: &str, source: &str) -> Option<String> {
        let argv = ["python3", "-c", CLIENT, address, "0.7", source];
        run_in(Some(&self.names[ns]), &argv).await.ok().map(|out| out.trim().to_owned())
    }
    async fn ping(&self, ns: usize, address: &str) -> bool {
        run_in(Some(&self.names[ns]), &["ping", "-c", "1", "-W", "1", address]).await.is_ok()
    }
    async fn forwarding(&self) -> String {
        let value = run_in(Some(&self.names[1]), &["cat", "/proc/sys/net/ipv4/ip_forward"]).await.unwrap();
        value.trim().to_owned()
    }
    async fn forwarding_set(&self, on: bool) {
        let command = format!("echo {} > /proc/sys/net/ipv4/ip_forward", u8::from(on));
        run_in(Some(&self.names[1]), &["sh", "-c", &command]).await.unwrap();
    }
    async fn tables(&self) -> String {
        run_in(Some(&self.names[1]), &["nft", "list", "tables"]).await.unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

const GUEST: &str = "172.24.4.10";
const WORLD: &str = "198.51.100.2";

#[tokio::test]
async fn guests_reach_the_world_and_not_the_host() {
    let Some(mut lab) = Lab::start("way").await else { return };
    for ns in 0..3 {
        lab.serve(ns).await;
    }
    assert_eq!(lab.connect(0, WORLD, GUEST).await, None, "there is no way without NAT");
    assert_eq!(lab.connect(0, "172.24.4.1", GUEST).await.as_deref(), Some(GUEST), "without a filter the host is open");
    let nat = lab.nat("t");
    nat.ensure().await.unwrap();
    nat.ensure().await.unwrap();
    assert_eq!(lab.connect(0, WORLD, GUEST).await.as_deref(), Some("198.51.100.1"), "the world sees the host");
    for own in ["172.24.4.1", "198.51.100.1"] {
        assert_eq!(lab.connect(0, own, GUEST).await, None, "the host's {own} is closed");
    }
    assert!(lab.ping(0, "172.24.4.1").await, "the gateway answers ping");
    assert!(!lab.ping(0, "198.51.100.1").await, "the host's other addresses do not");
    assert_eq!(lab.connect(1, GUEST, "172.24.4.1").await.as_deref(), Some("172.24.4.1"), "the host reaches guests");
    assert_eq!(lab.connect(0, "169.254.169.254", GUEST).await, None, "the metadata of the host's own cloud is not for guests");
    assert_eq!(lab.connect(1, "169.254.169.254", "198.51.100.1").await.as_deref(), Some("198.51.100.1"), "it is for the host");
    ip(Some(&lab.names[2]), "route add 10.9.9.9/32 via 198.51.100.1").await.unwrap();
    assert_eq!(lab.connect(0, WORLD, "10.9.9.9").await, None, "foreign sources do not leave");
    nat.remove().await.unwrap();
    nat.remove().await.unwrap();
    assert_eq!(lab.connect(0, WORLD, GUEST).await, None);
    assert!(!lab.tables().await.contains("drover"), "nothing is left");
}

#[tokio::test]
async fn the_last_cloud_that_leaves_puts_forwarding_back() {
    let Some(lab) = Lab::start("two").await else { return };
    let (a, b) = (lab.nat("a"), lab.nat("b"));
    a.ensure().await.unwrap();
    assert_eq!(lab.forwarding().await, "1");
    b.ensure().await.unwrap();
    a.remove().await.unwrap();
    assert_eq!(lab.forwarding().await, "1", "the other still needs it");
    b.remove().await.unwrap();
    assert_eq!(lab.forwarding().await, "0");
    lab.forwarding_set(true).await;
    a.ensure().await.unwrap();
    a.remove().await.unwrap();
    assert_eq!(lab.forwarding().await, "1", "it was on before we came");
}

#[tokio::test]
async fn what_others_flushed_is_put_back() {
    let Some(lab) = Lab::start("flush").await else { return };
    let nat = lab.nat("f");
    nat.ensure().await.unwrap();
    let mut was_off = false;
    nat.recheck(&mut was_off).await.unwrap();
    assert!(was_off);
    run_in(Some(&lab.names[1]), &["nft", "flush", "ruleset"]).await.unwrap();
    nat.recheck(&mut was_off).await.unwrap();
    assert!(lab.tables().await.contains("drover_f"));
    nat.remove().await.unwrap();
    assert_eq!(lab.forwarding().await, "0", "what was known before the flush is still known");
}
