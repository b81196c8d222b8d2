//! OVN's databases as rafts of three controllers, over TLS: the leader dies, a member loses its data, all do, two are taken out.
//! The controllers are addresses of the loopback that this test alone has.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]
mod common;

use network::ovn::{
    Nb,
    cluster::{self, Certificates, Controller, Database, Pem},
};
use ovsdb::{Endpoint, Leader, Target, Tls};
use pki::{Ca, Files, Identity, Role};
use serde_json::{Value, json};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use store::Table;
use supervise::Identity as Process;
use testkit::{Setup, TestCloud};
use tokio::{sync::watch, task::JoinHandle};

const WITHIN: Duration = Duration::from_secs(60);
/// What runs on a controller.
const PROCESSES: [&str; 4] = ["northd", "relay", "nb", "sb"];
static NODES: Table = Table { name: "compute/nodes", indexes: &[] };

struct Lab {
    dir: tempfile::TempDir,
    ca: Ca,
    cloud: TestCloud,
    controllers: Vec<Controller>,
    keepers: Vec<Option<JoinHandle<()>>>,
    /// Who is a controller at all.
    roster: Arc<Mutex<Vec<IpAddr>>>,
}

/// Daemons outlive their parent, so a test that fails must end its own.
impl Drop for Lab {
    fn drop(&mut self) {
        self.keepers.iter().flatten().for_each(JoinHandle::abort);
        for controller in &self.controllers {
            PROCESSES.iter().for_each(|name| kill(controller, name));
        }
    }
}

fn process(controller: &Controller, name: &str) -> Option<Process> {
    let record = std::fs::read(controller.run_dir.join(format!("{name}.json"))).ok()?;
    serde_json::from_slice(&record).ok().filter(Process::alive)
}

fn kill(controller: &Controller, name: &str) {
    if let Some(id) = process(controller, name) {
        let _ = std::process::Command::new("kill").args(["-9", &id.pid.to_string()]).status();
    }
}

fn certified(dir: &Path, ca: &Ca, identity: &Identity) -> Pem {
    let files = Files::of(dir);
    let request = files.request().unwrap();
    files.keep(&ca.sign(&request.csr_pem, identity, &[]).unwrap()).unwrap();
    Pem { ca: files.ca, certificate: files.certificate, key: files.key }
}

fn controller(dir: &Path, ca: &Ca, n: u8) -> Controller {
    let name = format!("c{n}");
    let identity = Identity { role: Role::Controller, name: name.clone() };
    let alone = ca.for_controllers().unwrap();
    let pki = dir.join(&name).join("pki");
    let machine = certified(&pki, ca, &identity);
    let controller = certified(&pki.join("controllers"), &alone, &identity);
    let [_, a, b, _] = std::process::id().to_be_bytes();
    let own = std::process::id().to_be_bytes()[3];
    // Of this process alone: its number, and the controller's.
    let address = Ipv4Addr::new(127, 64 | (b & 0x3f), own, 10 + n + (a & 1) * 100);
    Controller {
        name,
        address: address.into(),
        run_dir: dir.join(format!("c{n}")).join("ovn"),
        netns: None,
        certificates: Certificates { machine, controller, server_name: Role::Controller.server_name() },
    }
}

impl Lab {
    async fn start() -> Option<Self> {
        if !Path::new("/usr/share/ovn/ovn-nb.ovsschema").exists() {
            println!("skipped: install ovn-central and openvswitch-common to run this test");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::create("raft").unwrap();
        let controllers: Vec<_> = (1..=3).map(|n| controller(dir.path(), &ca, n)).collect();
        let roster = Arc::new(Mutex::new(controllers.iter().map(|c| c.address).collect()));
        let setup = Setup { services: vec![network::service()], tables: vec![&NODES], ..Setup::default() };
        let cloud = TestCloud::with(setup).await;
        Some(Self { dir, ca, cloud, controllers, keepers: vec![None, None, None], roster })
    }

    fn keep(&mut self, at: usize) {
        let known = self.roster.clone();
        let roster: cluster::Roster = Arc::new(move || {
            let now = known.lock().unwrap().clone();
            Box::pin(async move { Some(now) })
        });
        let (db, controller) = (self.cloud.cloud.db.clone(), self.controllers[at].clone());
        self.keepers[at] = Some(tokio::spawn(cluster::keep(db, controller, roster)));
    }

    /// The power goes, and with `disk` what was on it.
    async fn off(&mut self, at: usize, disk: bool) {
        if let Some(keeper) = self.keepers[at].take() {
            keeper.abort();
            let _ = keeper.await;
        }
        for name in PROCESSES {
            kill(&self.controllers[at], name);
        }
        for name in PROCESSES {
            until("it is dead", || process(&self.controllers[at], name).is_none()).await;
        }
        if disk {
            std::fs::remove_dir_all(&self.controllers[at].run_dir).unwrap();
        }
    }

    /// A host that needs OVN joins.
    async fn node(&self, name: &str, kind: &'static str) {
        let row = json!({"v": 1, "id": name, "host": name, "hypervisor_type": kind, "state": "up", "physical_networks": []});
        let name = name.to_owned();
        let put = move |tx: &mut store::Tx<'_>| {
            tx.put(&NODES, &name, row.clone());
            Ok::<(), ()>(())
        };
        self.cloud.cloud.db.transact(put).await.unwrap();
    }

    fn tls(&self) -> Tls {
        self.controllers[0].certificates.databases()
    }

    /// Another one who looks, at the leader of whichever raft answers.
    async fn nb(&self) -> Nb {
        let endpoints = self.controllers.iter().map(|c| Endpoint::ssl(SocketAddr::new(c.address, Database::Northbound.port())));
        let leader = Leader { database: Database::Northbound.name().into(), cluster: None };
        let target = Target { endpoints: watch::channel(endpoints.collect()).1, tls: Some(self.tls()), leader: Some(leader) };
        let begun = Instant::now();
        loop {
            match Nb::reach(target.clone()).await {
                Ok(nb) => return nb,
                Err(e) => assert!(begun.elapsed() < WITHIN, "{e}"),
            }
        }
    }

    async fn status(&self, at: usize, database: Database) -> String {
        let file = if database == Database::Northbound { "nb.ctl" } else { "sb.ctl" };
        let text = ovsdb::unixctl(&self.controllers[at].run_dir.join(file), "cluster/status", &[database.name()]).await;
        text.unwrap_or_default()
    }

    /// Each of these is a member of a raft of so many, and no other server is in it.
    async fn whole(&self, members: &[usize]) {
        for database in Database::ALL {
            for at in members {
                let begun = Instant::now();
                loop {
                    let text = self.status(*at, database).await;
                    let servers = text.lines().filter(|l| l.starts_with("    ") && l.contains(" at ssl:")).count();
                    let is_member = text.contains("Status: cluster member") && !text.contains("Leader: unknown");
                    if is_member && servers == members.len() {
                        break;
                    }
                    assert!(begun.elapsed() < WITHIN, "c{}: {text}", at + 1);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn leader(&self, database: Database) -> usize {
        let begun = Instant::now();
        loop {
            for at in 0..3 {
                if self.status(at, database).await.contains("Role: leader") {
                    return at;
                }
            }
            assert!(begun.elapsed() < WITHIN, "nobody leads");
        }
    }

    /// Makes a network through the API; returns when the database has it, once.
    async fn write(&self, nb: &Nb) -> Duration {
        let admin = self.cloud.admin().await;
        let id = common::id(&common::make(&admin, "networks", json!({"name": "n"})).await);
        let begun = Instant::now();
        let name = Value::from(format!("drover-{id}"));
        let there = |t: &ovsdb::Tables| {
            (t.rows("Logical_Switch").filter(|(_, r)| r.get("name") == Some(&name)).count() == 1).then_some(())
        };
        nb.replica().wait(WITHIN, "the network", there).await.unwrap();
        begun.elapsed()
    }

    /// Returns when the database has the port.
    async fn switch_port(&self, nb: &Nb, id: &str) {
        let there = |t: &ovsdb::Tables| t.find("Logical_Switch_Port", "name", &Value::from(id)).map(drop);
        nb.replica().wait(WITHIN, "the port", there).await.unwrap();
    }

    async fn networks(&self) -> usize {
        let list = self.cloud.admin().await.get("/network/v2.0/networks").await.expect(200);
        list.body["networks"].as_array().unwrap().len()
    }
}

/// A node's certificate is good for the relay alone, and there for the rows of its own chassis.
async fn a_chassis_writes_what_is_its_own(lab: &Lab) {
    let at = &lab.controllers[0];
    let of = |node: &str, endpoint: Endpoint| {
        let pem = certified(&lab.dir.path().join(node), &lab.ca, &Identity { role: Role::Node, name: node.into() });
        let server_name = at.certificates.server_name.clone();
        let tls = Tls { ca: pem.ca, certificate: pem.certificate, key: pem.key, server_name };
        let target = Target { endpoints: watch::channel(vec![endpoint]).1, tls: Some(tls), leader: None };
        ovsdb::Client::to(target).within(Duration::from_secs(3))
    };
    let sb = Database::Southbound;
    let read = |client: ovsdb::Client, database: &'static str, table: &'static str| async move {
        client.transact(database, vec![json!({"op": "select", "table": table, "where": []})]).await
    };
    for database in Database::ALL {
        let refused =
            read(of("n1", Endpoint::ssl(SocketAddr::new(at.address, database.port()))), database.name(), "Connection").await;
        assert!(refused.is_err(), "{database:?}: {refused:?}");
    }
    let [one, two] = ["n1", "n2"].map(|node| of(node, cluster::southbound(at.address)));
    let begun = Instant::now();
    // northd says what chassis may write when it has seen the database.
    while read(one.clone(), sb.name(), "RBAC_Role").await.map_or(0, |rows| rows[0]["rows"].as_array().map_or(0, Vec::len)) == 0 {
        assert!(begun.elapsed() < WITHIN, "no roles");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let chassis = |name: &str| {
        let encap = json!({"op": "insert", "table": "Encap", "uuid-name": "e", "row": {"type": "geneve", "ip": format!("10.0.0.{}", &name[1..]), "chassis_name": name}});
        vec![encap, json!({"op": "insert", "table": "Chassis", "row": {"name": name, "encaps": ["set", [["named-uuid", "e"]]]}})]
    };
    one.transact(sb.name(), chassis("n1")).await.unwrap();
    two.transact(sb.name(), chassis("n2")).await.unwrap();
    let (mine, of_two) = (json!([["name", "==", "n1"]]), json!([["name", "==", "n2"]]));
    let busy = |whose: &Value| vec![json!({"op": "update", "table": "Chassis", "where": whose, "row": {"nb_cfg": 7}})];
    one.transact(sb.name(), busy(&mine)).await.unwrap();
    for forbidden in [
        chassis("n3"),
        busy(&of_two),
        vec![json!({"op": "delete", "table": "Chassis", "where": of_two})],
        vec![
            json!({"op": "insert", "table": "Logical_Flow", "row": {"pipeline": "ingress", "priority": 1, "table_id": 0, "match": "1", "actions": "drop;"}}),
        ],
        vec![json!({"op": "delete", "table": "RBAC_Role", "where": []})],
        vec![json!({"op": "update", "table": "SB_Global", "where": [], "row": {"nb_cfg": 7}})],
    ] {
        let refused = one.transact(sb.name(), forbidden.clone()).await.map_err(|e| e.to_string());
        assert!(refused.as_ref().is_err_and(|e| e.contains("permission error")), "{forbidden:?}: {refused:?}");
    }
    // Nor does it make itself free of its role.
    let free = vec![json!({"op": "update", "table": "Connection", "where": [], "row": {"role": ""}})];
    let refused = one.transact("Drover_Relay", free).await.map_err(|e| e.to_string());
    assert!(refused.as_ref().is_err_and(|e| e.contains("permission error")), "{refused:?}");
}

async fn until(what: &str, is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < WITHIN, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_controllers_keep_ovn_through_what_happens_to_them() {
    let Some(mut lab) = Lab::start().await else { return };
    let (db, tls) = (lab.cloud.cloud.db.clone(), lab.tls());
    let shards = lab.cloud.shards.clone();
    let compile = move |fence| network::reconcile::run_cluster(db.clone(), fence, tls.clone());
    let compiler = tokio::spawn(shards.lead("network/ovn", compile));

    // Simulated hosts need none of it.
    lab.keep(0);
    lab.node("s1", "sim").await;
    assert!(!lab.controllers[0].run_dir.exists());
    lab.node("n1", "QEMU").await;

    // One controller alone is a raft, and it grows.
    lab.whole(&[0]).await;
    let nb = lab.nb().await;
    lab.write(&nb).await;
    until("northd runs", || process(&lab.controllers[0], "northd").is_some()).await;
    lab.keep(1);
    lab.keep(2);
    lab.whole(&[0, 1, 2]).await;
    until("northd runs everywhere", || lab.controllers.iter().all(|c| process(c, "northd").is_some())).await;
    lab.write(&nb).await;

    // Ports on real hosts wait for OVN, those on simulated ones for nobody.
    let admin = lab.cloud.admin().await;
    let network = common::net(&admin, "10.9.0.0/24").await.0;
    for (host, status) in [("s1", "ACTIVE"), ("n1", "DOWN")] {
        let body = json!({"network_id": network, "binding:host_id": host});
        let port = common::id(&common::make(&admin, "ports", body).await);
        lab.switch_port(&nb, &port).await;
        let path = format!("/network/v2.0/ports/{port}");
        testkit::until("its status", || admin.get(&path), |answer| answer.at("/port/status") == status).await;
    }

    a_chassis_writes_what_is_its_own(&lab).await;

    // The leader's host dies, and its process is gone for good until it has power again.
    let dead = lab.leader(Database::Northbound).await;
    lab.off(dead, false).await;
    let took = lab.write(&nb).await;
    println!("leader of NB killed: the next network is in OVN after {took:?}");
    lab.keep(dead);
    lab.whole(&[0, 1, 2]).await;
    lab.write(&nb).await;

    // One loses its data: it is another server then, and the old one is taken out.
    let wiped = (lab.leader(Database::Northbound).await + 1) % 3;
    lab.off(wiped, true).await;
    lab.keep(wiped);
    lab.whole(&[0, 1, 2]).await;
    lab.write(&nb).await;

    // All of them do: rows bring it back.
    for at in 0..3 {
        lab.off(at, true).await;
    }
    for at in 0..3 {
        lab.keep(at);
    }
    lab.whole(&[0, 1, 2]).await;
    let nb = lab.nb().await;
    lab.write(&nb).await;
    assert_eq!(nb.replica().read(|t| t.len("Logical_Switch")), lab.networks().await);

    // Two are gone for good, and the operator says so.
    for at in [1, 2] {
        lab.off(at, true).await;
    }
    *lab.roster.lock().unwrap() = vec![lab.controllers[0].address];
    lab.whole(&[0]).await;
    let nb = lab.nb().await;
    lab.write(&nb).await;
    assert_eq!(nb.replica().read(|t| t.len("Logical_Switch")), lab.networks().await);
    compiler.abort();
    // Its keeper must have ended before its processes: it would start them again.
    lab.off(0, true).await;
}
