//! The trees as guests see them, who may see them, and one real namespace.
use super::*;
use assign::{Assignments, GuestData, PasswordReport, Power, Reboot, Report, ReportError, RootDisk};
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering::SeqCst},
    time::Duration,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Controllers that refuse so many reports, then take all.
#[derive(Default)]
pub(super) struct Controllers {
    refusals: AtomicU32,
    taken: Mutex<Vec<Report>>,
    /// While it is held, reports wait.
    pub(super) gate: tokio::sync::Mutex<()>,
}
impl Controllers {
    pub(super) fn refusing(times: u32) -> Self {
        Self { refusals: times.into(), ..Self::default() }
    }
    pub(super) fn taken(&self) -> Vec<Report> {
        self.taken.lock().unwrap().clone()
    }
}
impl Uplink for Controllers {
    fn assignments(&self) -> tokio::sync::watch::Receiver<Arc<Assignments>> {
        tokio::sync::watch::channel(Arc::default()).1
    }
    fn report(&self, reports: Vec<Report>) -> Pending<'_, Result<(), ReportError>> {
        Box::pin(async move {
            let _gate = self.gate.lock().await;
            if self.refusals.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok() {
                return Err(ReportError("not now".into()));
            }
            self.taken.lock().unwrap().extend(reports);
            Ok(())
        })
    }
}

fn guest() -> GuestData {
    let ec2 = [
        ("hostname", "web.local"),
        ("local-ipv4", "10.0.0.5"),
        ("placement/availability-zone", "nova"),
        ("public-keys/0/openssh-key", "ssh-ed25519 AAAA me"),
    ];
    GuestData {
        meta_data: json!({ "uuid": "u", "public_keys": { "mine": "ssh-ed25519 AAAA me" } }),
        network_data: json!({ "links": [] }),
        user_data: Some("IyEv\nYmluL3No".into()),
        password: None,
        vendor_data: json!({}),
        ec2: ec2.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
    }
}
fn read(path: &str) -> Option<String> {
    tree::answer(&guest(), path).map(|r| String::from_utf8(r.body).unwrap())
}

#[test]
fn openstack_tree() {
    assert!(read("/openstack").unwrap().starts_with("2012-08-10\n") && read("/openstack/").unwrap().ends_with("\nlatest"));
    assert_eq!(read("/openstack/2012-08-10").as_deref(), Some("meta_data.json\nuser_data"));
    assert_eq!(
        read("//openstack/latest/").as_deref(),
        Some("meta_data.json\nuser_data\npassword\nvendor_data.json\nnetwork_data.json\nvendor_data2.json")
    );
    assert!(read("/openstack/latest/meta_data.json").unwrap().contains("\"uuid\":\"u\""));
    assert_eq!(read("/openstack/latest/user_data").as_deref(), Some("#!/bin/sh"));
    assert_eq!(read("/openstack/latest/vendor_data2.json").as_deref(), Some("{\"static\":{}}"));
    assert_eq!(read("/openstack/latest/password").as_deref(), Some(""));
    let with = GuestData { password: Some("cGFzcw==".into()), ..guest() };
    assert_eq!(tree::answer(&with, "/openstack/2013-04-04/password").unwrap().body, b"cGFzcw==");
    assert_eq!(tree::answer(&with, "/openstack/2012-08-10/password"), None);
    for nothing in [
        "/openstack/2012-08-10/network_data.json",
        "/openstack/1999-01-01",
        "/openstack/latest/x",
        "/openstack/latest/user_data/x",
    ] {
        assert_eq!(read(nothing), None, "{nothing}");
    }
    assert_eq!(tree::answer(&GuestData::default(), "/openstack/latest/user_data"), None);
    assert_eq!(tree::answer(&GuestData::default(), "/openstack/latest/meta_data.json").unwrap().body, b"{}");
}

#[test]
fn passwords_have_one_place_in_each_version_that_knows_them() {
    let is = |path: &str| tree::is_password(&guest(), path);
    assert!(["2013-04-04", "2013-10-17", "2025-04-04", "latest"].iter().all(|v| is(&format!("/openstack/{v}/password"))));
    for other in [
        "/",
        "/openstack/2012-08-10/password",
        "/openstack/1999-01-01/password",
        "/openstack/latest/user_data",
        "/latest/password",
    ] {
        assert!(!is(other), "{other}");
    }
}

#[test]
fn ec2_tree() {
    assert!(read("/").unwrap().starts_with("1.0\n2007-01-19"));
    assert_eq!(read("/latest").as_deref(), Some("meta-data/\nuser-data"));
    assert_eq!(read("/latest/meta-data/").as_deref(), Some("hostname\nlocal-ipv4\nplacement/\npublic-keys/"));
    assert_eq!(read("/2009-04-04/meta-data/hostname").as_deref(), Some("web.local"));
    assert_eq!(read("/latest/meta-data/public-keys/").as_deref(), Some("0=mine"));
    assert_eq!(read("/latest/meta-data/public-keys/0").as_deref(), Some("openssh-key"));
    assert_eq!(read("/latest/meta-data/public-keys/0/openssh-key/").as_deref(), Some("ssh-ed25519 AAAA me"));
    assert_eq!(read("/latest/meta-data/x/../hostname").as_deref(), Some("web.local"));
    assert_eq!(read("/latest/user-data").as_deref(), Some("#!/bin/sh"));
    for nothing in ["/latest/meta-data/host", "/latest/dynamic", "/1066/meta-data", "/latest/meta-data/hostname/x"] {
        assert_eq!(read(nothing), None, "{nothing}");
    }
}

#[test]
fn config_drive_has_both_trees() {
    let with = GuestData { password: Some("cGFzcw==".into()), ..guest() };
    let files: BTreeMap<String, Vec<u8>> = tree::config_drive(&with).into_iter().collect();
    assert_eq!(files["openstack/latest/user_data"], b"#!/bin/sh");
    assert!(files.contains_key("openstack/2018-08-27/network_data.json") && !files.contains_key("openstack/latest/password"));
    let ec2: serde_json::Value = serde_json::from_slice(&files["ec2/latest/meta-data.json"]).unwrap();
    assert_eq!(ec2["public-keys"]["0"]["openssh-key"], "ssh-ed25519 AAAA me");
}

/// A server with one address.
pub(super) fn server(id: &str, network: &str, ip: &str) -> Arc<ServerAssignment> {
    let image = assign::ImageRef { image_id: "i".into(), blob: "b".into(), format: "raw".into() };
    let port = assign::PortAssignment {
        id: format!("port-{id}"),
        network_id: network.into(),
        mac: "fa:16:3e:00:00:09".into(),
        mtu: 1442,
        fixed_ips: vec![ip.into()],
    };
    Arc::new(ServerAssignment {
        id: id.into(),
        epoch: 1,
        revision: 1,
        request_id: String::new(),
        name: id.into(),
        power: Power::Running,
        reboot: Reboot::default(),
        vcpus: 1,
        memory_mib: 64,
        root: Some(RootDisk { image, size_gib: 0, generation: 0 }),
        volumes: vec![],
        rescue: None,
        ports: vec![port],
        config_drive: false,
        guest: Arc::new(GuestData { meta_data: json!({ "uuid": id }), ..guest() }),
        properties: BTreeMap::new(),
    })
}

#[test]
fn a_guest_is_its_network_and_address() {
    let d = Directory::default();
    d.publish(&server("a", "n1", "10.0.0.5"));
    d.publish(&server("b", "n2", "10.0.0.5"));
    let who = |network: &str, ip: &str| d.find(network, ip.parse().unwrap()).map(|s| s.id.clone());
    assert_eq!((who("n1", "10.0.0.5"), who("n2", "10.0.0.5")), (Some("a".into()), Some("b".into())));
    assert_eq!((who("n1", "10.0.0.6"), who("n3", "10.0.0.5")), (None, None));
    d.publish(&server("c", "n1", "10.0.0.5"));
    d.withdraw("a");
    assert_eq!(who("n1", "10.0.0.5"), Some("c".into()));
    d.publish(&server("c", "n1", "10.0.0.7"));
    assert_eq!((who("n1", "10.0.0.5"), who("n1", "10.0.0.7")), (None, Some("c".into())));
}

/// A guest's question from inside a namespace, over a real wire.
async fn ask(namespace: &str, request: &str) -> String {
    let path = format!("/run/netns/{namespace}");
    let socket = std::thread::spawn(move || {
        nix::sched::setns(std::fs::File::open(path).unwrap(), nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let stream =
            std::net::TcpStream::connect_timeout(&"169.254.169.254:80".parse().unwrap(), Duration::from_secs(5)).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    });
    let mut stream = tokio::net::TcpStream::from_std(socket.join().unwrap()).unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn answers_in_a_real_namespace_by_source_address_only() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let unique = base::id::hex();
    let (network_id, guest_ns) = (unique.clone(), format!("ndtg-{}", &unique[..8]));
    let config =
        Config { namespace_prefix: "ndtm-".into(), interface_prefix: "nd1".into(), ..Config::new("/tmp/nd-unused", "h") };
    let switch = Arc::new(crate::sim::Switch::default());
    let uplink = Arc::new(Controllers::default());
    let responder = Responder::new(&config, switch.clone(), uplink.clone());
    let network = MetadataNetwork {
        network_id: network_id.clone(),
        port: "localport".into(),
        mac: "fa:16:3e:00:00:01".into(),
        addresses: vec!["10.0.0.2/24".into()],
        mtu: 1442,
    };
    responder.ensure(&network).await.unwrap();
    responder.ensure(&network).await.unwrap();
    let place = responder.place(&network_id);
    assert_eq!(switch.plugged()[&place.outer], "localport");
    // The outer end stands in for the guest's wire: it moves into a namespace of its own.
    let ip = async |args: &str| crate::command::Tool::new("ip").args(args.split(' ')).run().await.unwrap();
    ip(&format!("netns add {guest_ns}")).await;
    ip(&format!("link set {} netns {guest_ns}", place.outer)).await;
    for ours in ["10.0.0.5", "10.0.0.66"] {
        ip(&format!("-n {guest_ns} address add {ours}/24 dev {}", place.outer)).await;
    }
    ip(&format!("-n {guest_ns} link set {} up", place.outer)).await;
    ip(&format!("-n {guest_ns} route add 169.254.169.254/32 via 10.0.0.2 src 10.0.0.5")).await;
    responder.publish(&server("asks", &network_id, "10.0.0.5"));
    responder.publish(&server("other", &network_id, "10.0.0.66"));
    let head = "HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Forwarded-For: 10.0.0.66\r\nX-Instance-ID: other\r\n\r\n";
    let answer = ask(&guest_ns, &format!("GET /openstack/latest/meta_data.json {head}")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("{\"uuid\":\"asks\"}"), "{answer}");
    assert!(answer.contains("content-type: application/json"), "{answer}");
    assert!(ask(&guest_ns, &format!("POST / {head}")).await.starts_with("HTTP/1.1 405"));
    let post =
        format!("POST /openstack/2013-10-17/password {}", head.replace("\r\n\r\n", "\r\nContent-Length: 8\r\n\r\ncGFzcw=="));
    assert!(ask(&guest_ns, &post).await.starts_with("HTTP/1.1 200"));
    let told = PasswordReport { server_id: "asks".into(), epoch: 1, password: "cGFzcw==".into() };
    assert_eq!(uplink.taken(), [Report::Password(told)]);
    assert!(ask(&guest_ns, &format!("GET /openstack/latest/password {head}")).await.ends_with("\r\n\r\ncGFzcw=="));
    assert!(ask(&guest_ns, &post).await.starts_with("HTTP/1.1 409"));
    responder.withdraw("asks");
    assert!(ask(&guest_ns, &format!("GET / {head}")).await.starts_with("HTTP/1.1 404"));
    ip(&format!("netns delete {guest_ns}")).await;
    responder.remove(&network_id).await.unwrap();
    assert!(namespace::Place::all("ndtm-", "nd1").iter().all(|p| p.namespace != place.namespace));
    assert!(!switch.plugged().contains_key(&place.outer));
}
