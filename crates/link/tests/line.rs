//! Real connections on loopback: a node and its controllers.
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it expects")]
use assign::{
    Agent, Answer, Assignments, BlobInfo, Blobs, Duplex, HostReport, ImageRef, Pending, Query, QueryError, Report, ReportError,
    SnapshotAssignment, Uplink, VolumeAssignment, VolumeSource,
};
use link::{Controller, Credentials, Grant, JoinRequest, Peers, Refused, RemoteBlobs, Settings, Upstream};
use pki::{Ca, Identity, JoinToken, Request, Role};
use sha2::{Digest, Sha512};
use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{oneshot, watch},
    time::timeout,
};

const LIMIT: Duration = Duration::from_secs(30);

fn identity(role: Role, name: &str) -> Identity {
    Identity { role, name: name.into() }
}

fn credentials(ca: &Ca, who: &Identity) -> Credentials {
    let request = Request::new().unwrap();
    let issued = ca.sign(&request.csr_pem, who, &[[127, 0, 0, 1].into()]).unwrap();
    Credentials { certificate: issued.certificate_pem, key: request.key_pem, ca: issued.ca_pem }
}

/// Shared by all controllers of a test, as the store is.
struct World {
    ca: Ca,
    token: JoinToken,
    assignments: watch::Sender<Arc<Assignments>>,
    /// Who reported what, to which controller.
    heard: watch::Sender<Vec<(usize, String, Report)>>,
    addresses: Mutex<Vec<String>>,
    detached: watch::Sender<Vec<String>>,
}

struct There {
    number: usize,
    world: Arc<World>,
    agents: Mutex<HashMap<String, Arc<dyn Agent>>>,
    dir: TempDir,
}

struct Line(Arc<There>, String);
impl Uplink for Line {
    fn assignments(&self) -> watch::Receiver<Arc<Assignments>> {
        self.0.world.assignments.subscribe()
    }
    fn report(&self, reports: Vec<Report>) -> Pending<'_, Result<(), ReportError>> {
        let of = |report| (self.0.number, self.1.clone(), report);
        let refused = reports.iter().any(|r| matches!(r, Report::Snapshot(_)));
        self.0.world.heard.send_modify(|h| h.extend(reports.into_iter().map(of)));
        Box::pin(async move { if refused { Err(ReportError("no room".into())) } else { Ok(()) } })
    }
}

struct Door(Arc<There>);
impl Controller for Door {
    fn join(&self, request: JoinRequest) -> Pending<'_, Result<Grant, Refused>> {
        Box::pin(async move {
            let world = &self.0.world;
            if JoinToken::stored_of(&request.secret) != world.token.stored() {
                return Err(Refused("the token is not good".into()));
            }
            let issued = world.ca.sign(&request.csr, &identity(Role::Node, &request.name), &[request.address]);
            let issued = issued.map_err(|e| Refused(e.to_string()))?;
            let more = serde_json::Value::Null;
            Ok(Grant { certificate: issued.certificate_pem, ca: issued.ca_pem, controllers: self.controllers(), more })
        })
    }
    fn renew<'a>(&'a self, who: &'a Identity, csr: &'a str) -> Pending<'a, Result<String, Refused>> {
        Box::pin(async move { Ok(self.0.world.ca.sign(csr, who, &[]).map_err(|e| Refused(e.to_string()))?.certificate_pem) })
    }
    fn attach<'a>(&'a self, host: &'a str, agent: Arc<dyn Agent>) -> Pending<'a, Result<Arc<dyn Uplink>, Refused>> {
        self.0.agents.lock().unwrap().insert(host.into(), agent);
        Box::pin(async move { Ok(Arc::new(Line(self.0.clone(), host.into())) as Arc<dyn Uplink>) })
    }
    fn detach<'a>(&'a self, host: &'a str) -> Pending<'a, ()> {
        self.0.world.detached.send_modify(|d| d.push(format!("{} from {}", host, self.0.number)));
        Box::pin(async {})
    }
    fn agent(&self, host: &str) -> Option<Arc<dyn Agent>> {
        self.0.agents.lock().unwrap().get(host).cloned()
    }
    fn controllers(&self) -> Vec<String> {
        self.0.world.addresses.lock().unwrap().clone()
    }
    fn open<'a>(&'a self, blob: &'a str, _: bool) -> Pending<'a, io::Result<tokio::fs::File>> {
        Box::pin(tokio::fs::File::open(self.0.dir.path().join(blob)))
    }
    fn keep<'a>(&'a self, blob: &'a str) -> Pending<'a, io::Result<()>> {
        Box::pin(tokio::fs::write(self.0.dir.path().join(blob), b"kept"))
    }
    fn blobs(&self) -> &dyn Blobs {
        self
    }
    fn incoming(&self) -> &Path {
        self.0.dir.path()
    }
}
impl Blobs for Door {
    fn fetch<'a>(&'a self, _: &'a str, _: &'a Path) -> Pending<'a, io::Result<()>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
    fn store<'a>(&'a self, from: &'a Path) -> Pending<'a, io::Result<BlobInfo>> {
        Box::pin(async move {
            let bytes = tokio::fs::read(from).await?;
            let blob = name(&bytes);
            tokio::fs::write(self.0.dir.path().join(&blob), &bytes).await?;
            let (size, format) = (bytes.len() as u64, "raw".into());
            Ok(BlobInfo { blob, checksum: String::new(), size, virtual_size: None, format })
        })
    }
}

fn name(bytes: &[u8]) -> String {
    Sha512::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// A controller that serves until it is dropped. It has threads of its own, so that its end breaks all its connections, as a killed process does.
struct Serving {
    there: Arc<There>,
    address: String,
    threads: Option<tokio::runtime::Runtime>,
}
impl Drop for Serving {
    fn drop(&mut self) {
        self.threads.take().unwrap().shutdown_background();
    }
}

impl World {
    fn new() -> Arc<Self> {
        let ca = Ca::create("test").unwrap();
        let token = JoinToken::new(&ca.fingerprint());
        Arc::new(Self {
            ca,
            token,
            assignments: watch::Sender::new(Arc::default()),
            heard: watch::Sender::default(),
            addresses: Mutex::default(),
            detached: watch::Sender::default(),
        })
    }

    async fn controller(self: &Arc<Self>, number: usize) -> Serving {
        let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let there = Arc::new(There { number, world: self.clone(), agents: Mutex::default(), dir });
        let us = credentials(&self.ca, &identity(Role::Controller, &format!("c{number}")));
        let door = Arc::new(Door(there.clone()));
        let (send, bound) = oneshot::channel();
        threads.spawn(async move {
            let listener = link::listen(([127, 0, 0, 1], 0).into()).await.unwrap();
            send.send(listener.local_addr().unwrap().to_string()).unwrap();
            link::serve(listener, &us, link::Service::new(door)).await.unwrap();
        });
        let address = bound.await.unwrap();
        self.addresses.lock().unwrap().push(address.clone());
        Serving { there, address, threads: Some(threads) }
    }

    fn node(&self, dir: &Path, controllers: &[&Serving]) -> Arc<Upstream> {
        self.node_with(credentials(&self.ca, &identity(Role::Node, "n1")), dir, controllers)
    }

    fn node_with(&self, credentials: Credentials, dir: &Path, controllers: &[&Serving]) -> Arc<Upstream> {
        Upstream::start(Settings {
            name: "n1".into(),
            credentials,
            controllers: controllers.iter().map(|c| c.address.clone()).collect(),
            remembered: dir.join("controllers.json"),
            version: "test".into(),
        })
    }

    fn assign(&self, change: impl FnOnce(&mut Assignments)) {
        self.assignments.send_modify(|a| change(Arc::make_mut(a)));
    }

    async fn hears(&self, what: impl Fn(&[(usize, String, Report)]) -> bool) {
        timeout(LIMIT, self.heard.subscribe().wait_for(|h| what(h))).await.unwrap().unwrap();
    }
}

fn snapshot(id: &str) -> (String, Arc<SnapshotAssignment>) {
    let assignment =
        SnapshotAssignment { image_id: id.into(), server_id: "s".into(), request_id: String::new(), format: "raw".into() };
    (id.into(), Arc::new(assignment))
}

fn volume_of(blob: &str) -> Arc<VolumeAssignment> {
    Arc::new(VolumeAssignment {
        id: "v".into(),
        revision: 1,
        request_id: String::new(),
        keep: assign::Keep::Present,
        size_gib: 1,
        source: VolumeSource::Image(ImageRef { image_id: "i".into(), blob: blob.into(), format: "raw".into() }),
        generation: 0,
        snapshots: vec![],
        exports: vec![],
        uploads: vec![],
    })
}

fn host() -> Report {
    Report::Host(HostReport {
        boot_id: "b".into(),
        hypervisor_type: "sim".into(),
        hypervisor_version: 1,
        accelerator: "tcg".into(),
        cpu_model: String::new(),
        vcpus: 1,
        memory_mib: 1,
        disk_gib: 1,
        disk_free_gib: 1,
        volume_gib: 0,
        volume_free_gib: 0,
        host_ip: "127.0.0.1".into(),
        physical_networks: Vec::new(),
    })
}

/// Answers with what it was asked; its displays say everything back.
struct Echo;
impl Agent for Echo {
    fn query(&self, query: Query) -> Pending<'_, Result<Answer, QueryError>> {
        Box::pin(async move {
            match query {
                Query::ConsoleLog { server_id, .. } => Ok(Answer::Text(format!("console of {server_id}"))),
                Query::Diagnostics { server_id } => Err(QueryError::NotHere(server_id)),
            }
        })
    }
    fn vnc(&self, server_id: &str) -> Pending<'_, Result<Box<dyn Duplex>, QueryError>> {
        let id = server_id.to_owned();
        Box::pin(async move {
            if id == "none" {
                return Err(QueryError::NotHere(id));
            }
            let (near, far) = tokio::io::duplex(1024);
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(far);
                tokio::io::copy(&mut read, &mut write).await.ok();
            });
            Ok(Box::new(near) as Box<dyn Duplex>)
        })
    }
}

fn console(id: &str) -> Query {
    Query::ConsoleLog { server_id: id.into(), lines: None }
}

async fn assigned(node: &Upstream, what: impl Fn(&Assignments) -> bool) -> Arc<Assignments> {
    let mut assignments = node.assignments();
    let found = timeout(LIMIT, assignments.wait_for(|a| what(a))).await;
    found.expect("the assignments come in time").unwrap().clone()
}

#[tokio::test]
async fn a_machine_joins_and_its_name_is_in_its_certificate() {
    let world = World::new();
    let controller = world.controller(1).await;
    let (who, at, request) = (identity(Role::Node, "n7"), [127, 0, 0, 9].into(), Request::new().unwrap());
    for _ in 0..2 {
        let admitted = link::join(&controller.address, &world.token, &who, at, &request).await.unwrap();
        assert_eq!(admitted.grant.controllers, std::slice::from_ref(&controller.address));
        assert!(admitted.grant.certificate.contains("BEGIN CERTIFICATE") && admitted.key == request.key_pem);
    }
    let secretless = JoinToken::new(&world.ca.fingerprint());
    let refused = link::join(&controller.address, &secretless, &who, at, &request).await.err().unwrap();
    assert!(refused.to_string().contains("not good"), "{refused}");
    let other = JoinToken::new(&Ca::create("test").unwrap().fingerprint());
    let refused = link::join(&controller.address, &other, &who, at, &request).await.err().unwrap();
    assert!(refused.to_string().contains("another one than the token's"), "{refused}");
}

#[tokio::test]
async fn levels_come_down_and_reports_go_up() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let controller = world.controller(1).await;
    world.assign(|a| a.snapshots.extend([snapshot("a"), snapshot("b")]));
    let node = world.node(dir.path(), &[&controller]);
    let first = assigned(&node, |a| a.snapshots.len() == 2).await;
    world.assign(|a| {
        a.snapshots.remove("a");
        a.snapshots.extend([snapshot("c")]);
    });
    let next = assigned(&node, |a| a.snapshots.contains_key("c")).await;
    assert_eq!(next.snapshots.keys().collect::<Vec<_>>(), ["b", "c"]);
    assert!(Arc::ptr_eq(&first.snapshots["b"], &next.snapshots["b"]));
    node.report(vec![host()]).await.unwrap();
    world.hears(|h| h.iter().any(|(_, who, r)| who == "n1" && matches!(r, Report::Host(_)))).await;
    let refused = Report::Snapshot(assign::SnapshotReport { image_id: "b".into(), result: Err("x".into()) });
    assert!(node.report(vec![refused]).await.unwrap_err().to_string().contains("no room"));
}

#[tokio::test]
async fn a_node_goes_to_another_controller_and_gets_all_anew() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let first = world.controller(1).await;
    world.assign(|a| a.snapshots.extend([snapshot("a")]));
    // It knows one; the other it learns of.
    let node = world.node(dir.path(), &[&first]);
    assigned(&node, |a| a.snapshots.len() == 1).await;
    // Its next line is with another certificate.
    let request = Request::new().unwrap();
    let certificate = node.renew(&request.csr_pem).await.unwrap();
    node.renewed(Credentials { certificate, key: request.key_pem, ca: world.ca.certificate().into() });
    node.report(vec![host()]).await.unwrap();
    let second = world.controller(2).await;
    let remembered = dir.path().join("controllers.json");
    let knows = async {
        while !std::fs::read_to_string(&remembered).is_ok_and(|t| t.contains(&second.address)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, knows).await.unwrap();
    drop(first);
    world.assign(|a| {
        a.snapshots.clear();
        a.snapshots.extend([snapshot("z")]);
    });
    let after = assigned(&node, |a| a.snapshots.contains_key("z")).await;
    assert_eq!(after.snapshots.len(), 1, "what was taken away meanwhile is gone");
    world.hears(|h| h.iter().any(|(to, _, r)| *to == 2 && matches!(r, Report::Host(_)))).await;
    node.report(vec![host()]).await.unwrap();
}

#[tokio::test]
async fn a_newer_line_of_a_node_ends_the_older_and_the_last_one_detaches() {
    let (world, dir, other) = (World::new(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let controller = world.controller(1).await;
    world.assign(|a| a.snapshots.extend([snapshot("a")]));
    let old = world.node(dir.path(), &[&controller]);
    assigned(&old, |a| a.snapshots.len() == 1).await;
    drop(old);
    let new = world.node(other.path(), &[&controller]);
    assigned(&new, |a| a.snapshots.len() == 1).await;
    drop(new);
    let detached = timeout(LIMIT, world.detached.subscribe().wait_for(|d| !d.is_empty())).await.unwrap().unwrap().clone();
    // Where the older had ended before there was a newer, both ends are waited out, and told.
    assert!(detached.len() <= 2 && detached.iter().all(|d| d == "n1 from 1"), "{detached:?}");
}

#[tokio::test]
async fn questions_and_displays_reach_the_node_from_any_controller() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let controller = world.controller(1).await;
    let node = world.node(dir.path(), &[&controller]);
    world.assign(|a| a.snapshots.extend([snapshot("a")]));
    assigned(&node, |a| a.snapshots.len() == 1).await;
    let echo: Arc<dyn Agent> = Arc::new(Echo);
    let direct = Door(controller.there.clone()).agent("n1").unwrap();
    assert!(matches!(direct.query(console("s")).await, Err(QueryError::Unreachable(_))), "nobody answers yet");
    node.serve(&echo);
    let peers = Peers::new(credentials(&world.ca, &identity(Role::Controller, "c2")));
    let through = peers.agent(&controller.address, "n1").unwrap();
    for agent in [&direct, &through] {
        assert_eq!(agent.query(console("s")).await.unwrap(), Answer::Text("console of s".into()));
        let away = agent.query(Query::Diagnostics { server_id: "gone".into() }).await;
        assert!(matches!(away, Err(QueryError::NotHere(id)) if id == "gone"));
        let mut display = agent.vnc("s").await.unwrap();
        display.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        timeout(LIMIT, display.read_exact(&mut back)).await.unwrap().unwrap();
        assert_eq!(&back, b"hello");
    }
    assert!(matches!(direct.vnc("none").await, Err(QueryError::NotHere(_))));
    let unknown = peers.agent(&controller.address, "n2").unwrap();
    assert!(matches!(unknown.query(console("s")).await, Err(QueryError::Unreachable(_))));
}

#[tokio::test]
async fn a_node_gets_the_blobs_that_it_needs_and_no_other() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let controller = world.controller(1).await;
    let content = vec![7; 3 << 20];
    let (needed, foreign, spoilt) = (name(&content), name(b"foreign"), name(b"as it was"));
    let there = controller.there.dir.path();
    std::fs::write(there.join(&needed), &content).unwrap();
    std::fs::write(there.join(&foreign), b"foreign").unwrap();
    std::fs::write(there.join(&spoilt), b"as it is").unwrap();
    world.assign(|a| {
        a.volumes.insert("v".into(), volume_of(&needed));
        a.volumes.insert("w".into(), volume_of(&spoilt));
    });
    let node = world.node(dir.path(), &[&controller]);
    assigned(&node, |a| a.volumes.len() == 2).await;
    let blobs = RemoteBlobs(node.clone());
    let to = |n: &str| -> PathBuf { dir.path().join(n) };
    blobs.fetch(&needed, &to("a")).await.unwrap();
    assert_eq!(std::fs::read(to("a")).unwrap(), content);
    let denied = blobs.fetch(&foreign, &to("b")).await.unwrap_err();
    assert!(denied.to_string().contains("no assignment"), "{denied}");
    let wrong = blobs.fetch(&spoilt, &to("c")).await.unwrap_err();
    assert_eq!(wrong.kind(), io::ErrorKind::InvalidData);
    assert!(!to("b").exists() && !to("c").exists());
    std::fs::write(to("image"), b"disk").unwrap();
    let denied = blobs.store(&to("image")).await.unwrap_err();
    assert!(denied.to_string().contains("asks for an image"), "{denied}");
    world.assign(|a| a.snapshots.extend([snapshot("i")]));
    assigned(&node, |a| a.snapshots.len() == 1).await;
    let info = blobs.store(&to("image")).await.unwrap();
    assert_eq!((info.blob, info.size), (name(b"disk"), 4));
    assert!(!to("image").exists());
    let peer = Peers::new(credentials(&world.ca, &identity(Role::Controller, "c2")));
    let way = peer.way(&controller.address).unwrap();
    let mut bytes = Vec::new();
    way.open(&foreign).await.unwrap().read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, b"foreign");
    assert_eq!(way.open("nowhere").await.err().unwrap().kind(), io::ErrorKind::NotFound);
    way.keep("new").await.unwrap();
    assert!(there.join("new").exists());
}

#[tokio::test]
async fn a_certificate_opens_what_it_is_for() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let controller = world.controller(1).await;
    world.assign(|a| a.snapshots.extend([snapshot("a")]));
    // A node that plays controller.
    let peers = Peers::new(credentials(&world.ca, &identity(Role::Node, "n9")));
    let refused = peers.agent(&controller.address, "n1").unwrap().query(console("s")).await.unwrap_err();
    assert!(refused.to_string().contains("not for the holder"), "{refused}");
    let refused = peers.way(&controller.address).unwrap().keep("x").await.unwrap_err();
    assert!(refused.to_string().contains("not for the holder"), "{refused}");
    // A node plays nobody else: the message has no name in it, and what it is comes from its certificate.
    let node = world.node_with(credentials(&world.ca, &identity(Role::Node, "n9")), dir.path(), &[&controller]);
    assigned(&node, |a| a.snapshots.len() == 1).await;
    node.report(vec![host()]).await.unwrap();
    world.hears(|h| h.iter().all(|(_, who, _)| who == "n9") && !h.is_empty()).await;
    // A controller's certificate attaches no node, and one of another authority gets nowhere.
    let other = Ca::create("test").unwrap();
    for wrong in [
        credentials(&world.ca, &identity(Role::Controller, "c1")),
        Credentials { ca: world.ca.certificate().into(), ..credentials(&other, &identity(Role::Node, "n1")) },
    ] {
        let elsewhere = tempfile::tempdir().unwrap();
        let node = world.node_with(wrong, elsewhere.path(), &[&controller]);
        let report = timeout(Duration::from_secs(1), node.report(vec![host()])).await;
        assert!(report.is_err(), "nothing is taken from it");
        assert!(node.assignments().borrow().snapshots.is_empty());
    }
}
