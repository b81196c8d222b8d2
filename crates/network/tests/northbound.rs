//! Desired rows against a real northbound database: what is written, what is left alone, and how long it takes.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]
#[expect(unreachable_pub, reason = "shared by two tests")]
mod cloud;

use network::ovn::{Applied, Central, compile, model::*};
use ovsdb::{Client, value};
use serde_json::json;
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(10);
const DB: &str = "OVN_Northbound";

struct Fixture {
    dir: tempfile::TempDir,
    central: Central,
}

/// Daemons outlive their parent, so a test that fails must end its own.
impl Drop for Fixture {
    fn drop(&mut self) {
        for name in ["nb", "sb"] {
            let record = std::fs::read(self.dir.path().join(format!("ovn/{name}.json"))).unwrap_or_default();
            let id: Option<supervise::Identity> = serde_json::from_slice(&record).ok();
            if let Some(id) = id.filter(supervise::Identity::alive) {
                let _ = std::process::Command::new("kill").args(["-9", &id.pid.to_string()]).status();
            }
        }
    }
}

impl Fixture {
    fn new() -> Option<Self> {
        if !cloud::installed("/usr/share/ovn/ovn-nb.ovsschema") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let central = Central::new(dir.path().join("ovn"));
        Some(Self { dir, central })
    }
    async fn stop(self) {
        self.central.stop().await.unwrap();
    }
}

#[tokio::test]
async fn changes_are_minimal_and_strangers_stay() {
    let Some(f) = Fixture::new() else { return };
    let nb = f.central.ensure_databases().await.unwrap();
    let mut topology = cloud::topology("n1");
    let desired = compile(&topology);
    assert_eq!(desired.problems, Vec::<String>::new());
    assert_eq!(nb.apply(&desired).await.unwrap(), Applied { inserted: desired.rows.len(), updated: 0, deleted: 0 });
    assert_eq!(nb.apply(&desired).await.unwrap(), Applied::default(), "twice is once");

    // Somebody else's switch, and somebody else's port on ours.
    let client = Client::new(vec![f.central.nb()]);
    let port = json!({"op": "insert", "table": "Logical_Switch_Port", "uuid-name": "p", "row": {"name": "stranger"}});
    let member = json!([["ports", "insert", value::set([value::named("p")])]]);
    let place = json!({"op": "mutate", "table": "Logical_Switch", "where": [["name", "==", "drover-net1"]], "mutations": member});
    let switch = json!({"op": "insert", "table": "Logical_Switch", "row": {"name": "theirs"}});
    client.transact(DB, vec![port, place, switch]).await.unwrap();

    // One port goes: its row, and its memberships of a switch and two groups.
    topology.ports.retain(|p| p.id.as_str() != "vm2");
    let changed = nb.apply(&compile(&topology)).await.unwrap();
    assert_eq!(changed, Applied { inserted: 0, updated: 4 - 1, deleted: 1 }, "switch, its group, the drop group");
    topology.security_groups[0].stateful = false;
    topology.networks[0].mtu = 1300;
    let changed = nb.apply(&compile(&topology)).await.unwrap();
    assert_eq!((changed.inserted, changed.deleted), (0, 0));
    assert_eq!(nb.apply(&compile(&topology)).await.unwrap(), Applied::default());

    let gone = nb.apply(&compile(&Topology::default())).await.unwrap();
    assert!(gone.deleted > 20, "{gone:?}");
    let left = nb
        .replica()
        .read(|t| t.rows("Logical_Switch").filter_map(|(_, r)| r["name"].as_str().map(str::to_owned)).collect::<Vec<_>>());
    assert_eq!(left, ["theirs"], "our switch goes even with a stranger's port on it");
    f.stop().await;
}

#[tokio::test]
async fn two_writers_do_not_mix() {
    let Some(f) = Fixture::new() else { return };
    let (one, two) = (f.central.ensure_databases().await.unwrap(), f.central.ensure_databases().await.unwrap());
    let desired = compile(&cloud::topology("n1"));
    let (a, b) = tokio::join!(one.apply(&desired), two.apply(&desired));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a.inserted + b.inserted, desired.rows.len(), "each row once: {a:?} {b:?}");
    assert_eq!(one.apply(&desired).await.unwrap(), Applied::default());
    f.stop().await;
}

#[tokio::test]
async fn who_was_taken_over_from_writes_nothing() {
    let Some(f) = Fixture::new() else { return };
    let (old, new) = (f.central.ensure_databases().await.unwrap(), f.central.ensure_databases().await.unwrap());
    let mut topology = cloud::topology("n1");
    let all = compile(&topology);
    old.apply(&all).await.unwrap();
    let stamp = |t: &ovsdb::Tables| t.rows("NB_Global").next().map(|(_, row)| row["external_ids"].clone()).unwrap();
    let before = old.replica().read(stamp);
    let same = |t: &ovsdb::Tables| (stamp(t) == before).then_some(());
    new.replica().wait(WITHIN, "what the old one wrote", same).await.unwrap();
    // There is nothing to change, and still the old one is shut out from now on.
    assert_eq!(new.attempt(&all, true).await.unwrap(), Some(Applied { inserted: 0, updated: 0, deleted: 0 }));
    // As the old one would send it, had it been paused since it looked.
    let wait = json!({"op": "wait", "table": "NB_Global", "timeout": 0, "where": [], "columns": ["external_ids"], "until": "==",
        "rows": [{"external_ids": before}]});
    let late = json!({"op": "delete", "table": "Logical_Switch", "where": []});
    let refused = Client::new(vec![f.central.nb()]).transact(DB, vec![wait, late]).await;
    assert!(matches!(&refused, Err(ovsdb::Error::Operation { op, .. }) if op == "wait"), "{refused:?}");
    // When it has heard of the other it may compare anew: whether it may write is for its fence to say.
    topology.ports.pop();
    let fewer = compile(&topology);
    let mut tries = 0;
    while old.attempt(&fewer, false).await.unwrap().is_none() {
        tries += 1;
    }
    assert!(tries <= 1, "{tries}");
    f.stop().await;
}

#[tokio::test]
async fn a_thousand_ports_are_cheap() {
    let Some(f) = Fixture::new() else { return };
    let nb = f.central.ensure_databases().await.unwrap();
    let mut topology = cloud::topology("n1");
    let sample = topology.ports.iter().find(|p| p.id.as_str() == "vm1").unwrap().clone();
    topology.ports.extend((0..1000u16).map(|i| {
        let mut port = sample.clone();
        port.id = format!("p{i}").into();
        port.mac = base::id::Mac([2, 0, 0, 9, (i >> 8) as u8, i as u8]);
        port.fixed_ips[0].ip = format!("10.1.{}.{}", 16 + i / 250, 1 + i % 250).parse().unwrap();
        port
    }));
    nb.apply(&compile(&topology)).await.unwrap();
    topology.ports.pop();
    let begun = Instant::now();
    let desired = compile(&topology);
    let compiled = begun.elapsed();
    let plan = nb.replica().read(|t| network::ovn::sync::plan(&desired, t));
    let planned = begun.elapsed();
    assert_eq!((plan.counts.deleted, plan.counts.inserted), (1, 0));
    assert!(plan.operations.len() < 6, "{:?}", plan.operations);
    let written = Instant::now();
    nb.apply(&desired).await.unwrap();
    println!("1000 ports: compile {compiled:?}, with diff {planned:?}, one port removed in {:?}", written.elapsed());
    f.stop().await;
}
