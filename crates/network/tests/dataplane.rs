//! The whole way with real packets: central, one chassis, two guests as namespaces, a router, an outside.
//! Needs root and OVN; everything lives in namespaces `dvt-…` of this test and is gone afterwards.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]
#[expect(unreachable_pub, reason = "shared by two tests")]
mod cloud;

use chassis::{Attachment, Chassis};
use network::ovn::{Applied, Central, Nb, compile, model::*, names};
use std::{
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};
use supervise::{Daemon, Ready, ip, run, run_in};

const WITHIN: Duration = Duration::from_secs(30);

/// Namespaces of this test; dropping them ends what runs in them.
struct Spaces {
    prefix: String,
    names: Vec<String>,
}

impl Spaces {
    async fn add(&mut self, name: &str) -> String {
        let name = format!("{}-{name}", self.prefix);
        ip(None, &format!("netns add {name}")).await.unwrap();
        self.names.push(name.clone());
        ip(Some(&name), "link set lo up").await.unwrap();
        name
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for name in &self.names {
            let pids = Command::new("ip").args(["netns", "pids", name]).output().unwrap().stdout;
            for pid in String::from_utf8_lossy(&pids).split_whitespace() {
                let _ = Command::new("kill").args(["-9", pid]).status();
            }
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

struct Lab {
    spaces: Spaces,
    dir: tempfile::TempDir,
    host: String,
    central: Central,
    chassis: Chassis,
    nb: Nb,
    topology: Topology,
}

impl Lab {
    async fn start() -> Option<Self> {
        if run(&["id", "-u"]).await.unwrap().trim() != "0" {
            println!("skipped: needs root for network namespaces");
            return None;
        }
        let files = ["/usr/share/ovn/ovn-nb.ovsschema", "/usr/sbin/ovs-vswitchd", "/usr/bin/ovn-controller", "/usr/bin/busybox"];
        if !files.iter().all(|f| cloud::installed(f)) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut spaces = Spaces { prefix: format!("dvt-{}", std::process::id()), names: vec![] };
        let host = spaces.add("host").await;
        let mut central = Central::new(dir.path().join("ovn"));
        central.netns = Some(host.clone());
        let nb = central.ensure_databases().await.unwrap();
        let topology = cloud::topology("n1");
        nb.apply(&compile(&topology)).await.unwrap();
        central.ensure_northd().await.unwrap();
        let config = chassis::Config {
            run_dir: dir.path().join("ovs"),
            netns: Some(host.clone()),
            system_id: "n1".into(),
            southbound: vec![central.sb()],
            tls: None,
            encap_ip: "127.0.0.1".parse().unwrap(),
            underlay: None,
            integration_bridge: "dvt-int".into(),
            provider: Some(chassis::Provider {
                bridge: "dvt-ex".into(),
                physical_network: "public".into(),
                uplink: None,
                addresses: vec!["172.24.4.1/24".parse().unwrap()],
                nat: None,
            }),
            datapath: None,
        };
        let chassis = Chassis::ensure(config).await.unwrap();
        Some(Self { spaces, dir, host, central, chassis, nb, topology })
    }

    /// A guest: a namespace whose `eth0` is plugged as a port.
    async fn guest(&mut self, name: &str, port: &str, mac: base::id::Mac) -> String {
        let space = self.spaces.add(name).await;
        let interface = format!("dvt-{name}");
        ip(Some(&self.host), &format!("link add {interface} type veth peer name eth0 netns {space}")).await.unwrap();
        ip(Some(&self.host), &format!("link set {interface} up")).await.unwrap();
        ip(Some(&space), &format!("link set eth0 address {mac} up")).await.unwrap();
        chassis::no_offload(Some(&space), "eth0").await.unwrap();
        let attachment = Attachment { port_id: port.into(), mac: Some(mac.to_string()), owner: None };
        self.chassis.plug(&interface, &attachment).await.unwrap();
        self.chassis.plug(&interface, &attachment).await.unwrap();
        // A local port is everywhere, so it is never bound.
        if !port.starts_with("metadata-") {
            self.nb.wait_port_up(port, WITHIN).await.unwrap();
        }
        space
    }

    /// Takes a lease as a guest does, and uses it.
    async fn dhcp(&self, space: &str) -> String {
        let (script, lease) = (self.dir.path().join("lease.sh"), self.dir.path().join(format!("{space}.lease")));
        let text = "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nip addr add $ip/$mask dev $interface\nip link set $interface mtu $mtu\n\
                    set -- $staticroutes\nwhile [ $# -gt 1 ]; do ip route replace $1 via $2; shift 2; done\n\
                    echo \"$ip/$mask mtu=$mtu router=$router dns=$dns routes=$staticroutes\" > LEASE\n";
        std::fs::write(&script, text.replace("LEASE", &lease.display().to_string())).unwrap();
        run(&["chmod", "+x", &script.display().to_string()]).await.unwrap();
        let client = ["busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "10", "-T", "1", "-O", "121", "-O", "mtu"];
        let script = script.display().to_string();
        run_in(Some(space), &[&client[..], &["-s", &script]].concat()).await.unwrap();
        std::fs::read_to_string(lease).unwrap().trim().to_owned()
    }

    async fn apply(&self) -> Applied {
        let done = self.nb.apply(&compile(&self.topology)).await.unwrap();
        self.nb.wait_installed(WITHIN).await.unwrap();
        done
    }
}

async fn pings(space: &str, to: &str) -> bool {
    run_in(Some(space), &["ping", "-n", "-c1", "-W1", to]).await.is_ok()
}
async fn eventually(what: &str, space: &str, argv: &[&str]) -> String {
    let until = Instant::now() + WITHIN;
    loop {
        match run_in(Some(space), argv).await {
            Ok(out) => return out,
            Err(e) => assert!(Instant::now() < until, "{what}: {e}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
async fn reaches(space: &str, to: &str) {
    eventually(&format!("{space} to {to}"), space, &["ping", "-n", "-c1", "-W1", to]).await;
}

/// A shell line that succeeds if the web server at `address` says `text`.
fn get(address: &str, text: &str) -> String {
    format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 2 {address} 80 | grep -qx '{text}'")
}

/// A web server that says `text`, in a namespace.
async fn serve(lab: &Lab, space: &str, at: &str, text: &str) -> Daemon {
    let root = lab.dir.path().join(format!("{space}-www"));
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(root.join("index.html"), text).unwrap();
    let argv = ["busybox", "httpd", "-f", "-p", at, "-h", root.to_str().unwrap()];
    let argv = argv.iter().map(|a| (*a).to_owned()).collect();
    let daemon = Daemon::new(format!("httpd-{space}"), lab.dir.path(), argv).netns(Some(space.to_owned())).ready(Ready::Started);
    daemon.ensure().await.unwrap();
    daemon
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_reach_what_they_may() {
    let Some(mut lab) = Lab::start().await else { return };
    let begun = Instant::now();
    let a = lab.guest("a", "vm1", cloud::mac(11)).await;
    let b = lab.guest("b", "vm2", cloud::mac(12)).await;
    println!("two guests bound after {:?}", begun.elapsed());

    // An address by DHCP, with its router, MTU and the way to the metadata service.
    let lease = lab.dhcp(&a).await;
    let routes = "routes=169.254.169.254/32 10.1.0.2 0.0.0.0/0 10.1.0.1";
    assert_eq!(lease, format!("10.1.0.11/16 mtu=1442 router=10.1.0.1 dns=9.9.9.9 {routes}"));
    assert!(lab.dhcp(&b).await.starts_with("10.2.0.12/24 "));
    let plugged: Vec<_> = lab.chassis.list_plugged().into_iter().map(|p| (p.interface, p.port_id, p.working)).collect();
    let want = [("dvt-a", "vm1", true), ("dvt-b", "vm2", true)].map(|(i, p, w)| (i.to_owned(), p.to_owned(), w));
    assert_eq!(plugged, want);

    // Outwards is allowed, inwards is not, until a rule says so.
    lab.nb.wait_installed(WITHIN).await.unwrap();
    reaches(&b, "172.24.4.1").await;
    reaches(&a, "10.2.0.1").await;
    for (from, to) in [(&a, "10.2.0.12"), (&b, "10.1.0.11"), (&lab.host, "172.24.4.50")] {
        assert!(!pings(from, to).await, "{from} must not reach {to} before a rule allows it");
    }
    let rules = &mut lab.topology.security_groups[0].rules;
    rules.push(cloud::rule("ping", Direction::Ingress, Some(1), None, Remote::Any));
    rules.push(cloud::rule("web", Direction::Ingress, Some(6), Some(80), Remote::Group("sg-1".into())));
    lab.apply().await;
    reaches(&a, "10.2.0.12").await;
    reaches(&b, "10.1.0.11").await;
    reaches(&lab.host, "172.24.4.50").await;

    // TCP, which finds missing checksums; members of the group only.
    let web = serve(&lab, &a, "80", "hello from a").await;
    eventually("b gets a's page", &b, &["sh", "-c", &get("10.1.0.11", "hello from a")]).await;
    let outside = get("172.24.4.50", "hello from a");
    let refused = run_in(Some(&lab.host), &["sh", "-c", &outside]).await;
    assert!(refused.is_err(), "the outside is no member of the group");
    lab.topology.security_groups[0].rules.push(cloud::rule("world", Direction::Ingress, Some(6), Some(80), Remote::Any));
    lab.apply().await;
    eventually("the floating IP serves", &lab.host, &["sh", "-c", &outside]).await;
    web.stop(Duration::from_secs(1)).await.unwrap();

    silent_but_addressed(&mut lab, &b).await;
    metadata(&mut lab, &a).await;
    no_spoofing(&lab, &a, &b).await;
    distributed_floating_ip(&mut lab).await;
    rebuilt(&mut lab, &a).await;
    readopted_and_repaired(&lab, &a).await;

    lab.chassis.unplug("dvt-a").await.unwrap();
    lab.chassis.unplug("dvt-a").await.unwrap();
    assert_eq!(lab.chassis.list_plugged().len(), 2);
    lab.chassis.daemons().stop().await.unwrap();
    lab.central.stop().await.unwrap();
}

/// A group without rules lets nothing through, but a guest still gets its address.
async fn silent_but_addressed(lab: &mut Lab, guest: &str) {
    let rules = std::mem::take(&mut lab.topology.security_groups[0].rules);
    lab.apply().await;
    assert!(lab.dhcp(guest).await.starts_with("10.2.0.12/24 "));
    assert!(!pings(guest, "10.2.0.1").await, "nothing else leaves");
    lab.topology.security_groups[0].rules = rules;
    lab.apply().await;
    reaches(guest, "10.2.0.1").await;
}

/// The metadata service sees the guest's own address, on the address that every guest expects.
async fn metadata(lab: &mut Lab, guest: &str) {
    let network = NetworkId::from("net1");
    let space = lab.guest("m", &names::metadata_port(&network), names::metadata_mac(&network)).await;
    for address in ["10.1.0.2/16", "169.254.169.254/32"] {
        ip(Some(&space), &format!("addr add {address} dev eth0")).await.unwrap();
    }
    let web = serve(lab, &space, "169.254.169.254:80", "meta").await;
    eventually("metadata", guest, &["sh", "-c", &get("169.254.169.254", "meta")]).await;
    web.stop(Duration::from_secs(1)).await.unwrap();
}

/// A guest cannot speak with another's address.
async fn no_spoofing(lab: &Lab, a: &str, b: &str) {
    ip(Some(b), "addr add 10.2.0.77/24 dev eth0").await.unwrap();
    lab.nb.wait_installed(WITHIN).await.unwrap();
    assert!(run_in(Some(b), &["ping", "-n", "-c1", "-W1", "-I", "10.2.0.77", "10.1.0.11"]).await.is_err());
    ip(Some(b), "addr del 10.2.0.77/24 dev eth0").await.unwrap();
    reaches(b, "10.1.0.11").await;
    reaches(a, "10.2.0.12").await;
}

/// The floating IP answers with a MAC of its own on the guest's host.
async fn distributed_floating_ip(lab: &mut Lab) {
    lab.topology.floating_ips[0].external_mac = Some(cloud::mac(50));
    assert_eq!(lab.apply().await, Applied { inserted: 0, updated: 1, deleted: 0 });
    ip(Some(&lab.host), "neigh flush dev dvt-ex").await.unwrap();
    reaches(&lab.host, "172.24.4.50").await;
    let neighbour = ip(Some(&lab.host), "neigh show 172.24.4.50").await.unwrap();
    assert!(neighbour.contains(&cloud::mac(50).to_string()), "{neighbour}");
}

/// The northbound database is lost and written anew: every packet of a running ping still arrives.
async fn rebuilt(lab: &mut Lab, guest: &str) {
    let desired = compile(&lab.topology);
    let ping = ["ping", "-n", "-q", "-i", "0.05", "-c", "100", "172.24.4.1"];
    let ping = tokio::spawn({
        let guest = guest.to_owned();
        async move { run_in(Some(&guest), &ping).await }
    });
    lab.central.stop().await.unwrap();
    std::fs::remove_file(lab.dir.path().join("ovn/nb.db")).unwrap();
    lab.nb = lab.central.ensure_databases().await.unwrap();
    let done = lab.nb.apply(&desired).await.unwrap();
    assert_eq!(done, Applied { inserted: desired.rows.len(), updated: 0, deleted: 0 });
    lab.central.ensure_northd().await.unwrap();
    lab.nb.wait_port_up("vm1", WITHIN).await.unwrap();
    lab.nb.wait_installed(WITHIN).await.unwrap();
    assert!(!ping.is_finished(), "the ping lasts longer than the loss");
    let report = ping.await.unwrap().unwrap();
    assert!(report.contains(" 0% packet loss"), "{report}");
    reaches(&lab.host, "172.24.4.50").await;
    assert_eq!(lab.nb.apply(&desired).await.unwrap(), Applied::default());
}

/// A second Drover takes over what runs; a switch that died comes back with the host's address.
async fn readopted_and_repaired(lab: &Lab, guest: &str) {
    let again = Arc::new(Chassis::ensure(lab.chassis.config().clone()).await.unwrap());
    let watch = again.clone().watch();
    let mut switch = watch.switch();
    let running = tokio::time::timeout(WITHIN, switch.wait_for(|s| s.running.is_some())).await.unwrap().unwrap().running.unwrap();
    assert!(running.alive() && again.list_plugged() == lab.chassis.list_plugged(), "nothing was started twice");
    running.open().unwrap().kill().unwrap();
    let back = switch.wait_for(|s| s.running.is_some_and(|now| now != running));
    drop(tokio::time::timeout(WITHIN, back).await.unwrap().unwrap());
    reaches(guest, "10.2.0.12").await;
    reaches(&lab.host, "172.24.4.50").await;
    assert!(Path::new(&lab.dir.path().join("ovs/vswitchd.log")).exists());
}
