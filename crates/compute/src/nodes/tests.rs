//! From rows to assignments and from reports to rows, on the memory engine.
use super::{
    host,
    levels::Levels,
    testbed::{Bed, Has, host_report, images, network_rows, of_server, port_row, ports, report, server_row, servers, until},
};
use crate::{
    common::{ALLOCATIONS, CONSOLES, DELETED, PROVIDERS, SNAPSHOTS, USER_DATA},
    resources::Node,
};
use assign::{Assignments, BlobInfo, GuestState, HostReport, PasswordReport, Report, ServerReport, SnapshotReport, Uplink};
use base::Clock as _;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use resource::{Resource, engine};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use store::Table;
use tokio::sync::watch;

type Rows = Vec<(&'static Table, String, Value)>;

/// A server with one port on the network `n`.
fn one(id: &str, host: &str) -> Rows {
    let port = format!("port-{id}");
    vec![(servers(), id.to_owned(), server_row(id, host, &[&port])), (ports(), port.clone(), port_row(&port, id, "n", host))]
}

async fn next(seen: &mut watch::Receiver<Arc<Assignments>>) -> Arc<Assignments> {
    tokio::time::timeout(Duration::from_secs(20), seen.changed()).await.expect("assignments change").unwrap();
    seen.borrow_and_update().clone()
}

#[tokio::test]
async fn the_first_set_is_complete_and_counts_as_sent() {
    let mut bed = Bed::new().await;
    let mut rows = network_rows("n");
    for i in 0..600 {
        rows.extend(one(&format!("s{i:03}"), if i % 2 == 0 { "a" } else { "b" }));
    }
    for some in rows.chunks(100) {
        bed.put(some.to_vec()).await;
    }
    bed.run();
    for (host, count) in [("a", 300), ("b", 300), ("idle", 0)] {
        let (_line, seen) = bed.join(host).await;
        assert!(seen.has_changed().unwrap(), "the agent of {host} must know that this is what it was sent");
        let first = seen.borrow().clone();
        assert_eq!((first.servers.len(), first.networks.len()), (count, usize::from(count > 0)), "{host}");
    }
}

#[tokio::test]
async fn a_change_rebuilds_what_it_touches_and_nothing_else() {
    let bed = Bed::start().await;
    let mut rows = network_rows("n");
    ["s1", "s2", "s3"].iter().for_each(|id| rows.extend(one(id, "a")));
    bed.put(rows).await;
    let (_line, mut seen) = bed.join("a").await;
    until("three servers are assigned", || seen.borrow().servers.len() == 3).await;
    let first = seen.borrow_and_update().clone();
    let of = |a: &Assignments, id: &str| a.servers[id].clone();

    // The state of a port is nothing to its node; then the name of another server is.
    let mut port = port_row("port-s1", "s1", "n", "a");
    port["status"] = "ACTIVE".into();
    bed.put(vec![(ports(), "port-s1".into(), port)]).await;
    bed.change("s2", |row| drop(row.insert("name".into(), "new".into()))).await;
    let second = next(&mut seen).await;
    assert_eq!(second.servers["s2"].name, "new");
    for (id, kept) in [("s1", true), ("s2", false), ("s3", true)] {
        assert_eq!(Arc::ptr_eq(&of(&first, id), &of(&second, id)), kept, "{id}");
    }
    assert!(Arc::ptr_eq(&first.networks["n"], &second.networks["n"]));

    // One transaction over all of them is one new set.
    bed.put(["s1", "s2", "s3"].iter().map(|id| (&USER_DATA, (*id).to_owned(), json!({"data": "IyEv"}))).collect()).await;
    let third = next(&mut seen).await;
    assert!(third.servers.values().all(|s| s.guest.user_data.as_deref() == Some("IyEv")));
    assert!(!seen.has_changed().unwrap());
}

#[tokio::test]
async fn rows_of_other_services_reach_the_guest() {
    let bed = Bed::start().await;
    let [networks, _, groups, floating] = super::build::foreign_tables();
    bed.put(network_rows("n").into_iter().chain(one("s1", "a")).collect()).await;
    let (_line, mut seen) = bed.join("a").await;
    until("the server is assigned", || seen.borrow().servers.len() == 1).await;
    let first = seen.borrow_and_update().clone();
    let server = &first.servers["s1"];
    assert_eq!((server.ports[0].mtu, server.ports[0].fixed_ips.as_slice()), (1442, ["10.0.0.9".to_owned()].as_slice()));
    assert_eq!((server.epoch, server.revision, server.root.as_ref().unwrap().size_gib, server.memory_mib), (1, 1, 1, 256));
    let network = &first.networks["n"];
    assert_eq!((network.port.as_str(), network.mac.as_str(), network.mtu), ("metadata-n", "meta mac of n", 1442));
    assert_eq!(network.addresses, ["10.0.0.2/24"]);

    let ec2 = |a: &Assignments, key: &str| a.servers["s1"].guest.ec2[key].clone();
    bed.put(vec![(groups, "sg".into(), json!({"id": "sg", "name": "web"}))]).await;
    assert_eq!(ec2(&*next(&mut seen).await, "security-groups"), "web");
    bed.put(vec![(floating, "f".into(), json!({"id": "f", "port_id": "port-s1", "floating_ip_address": "203.0.113.1"}))]).await;
    assert_eq!(ec2(&*next(&mut seen).await, "public-ipv4"), "203.0.113.1");
    bed.put(vec![(floating, "f".into(), Value::Null)]).await;
    assert_eq!(ec2(&*next(&mut seen).await, "public-ipv4"), "");
    bed.put(vec![(networks, "n".into(), json!({"id": "n", "mtu": 1300}))]).await;
    let smaller = next(&mut seen).await;
    assert_eq!((smaller.servers["s1"].ports[0].mtu, smaller.networks["n"].mtu), (1300, 1300));
    bed.put(vec![(ports(), "meta-n".into(), Value::Null)]).await;
    assert!(next(&mut seen).await.networks.is_empty());
    bed.put(network_rows("n")).await;
    assert_eq!(next(&mut seen).await.networks.len(), 1);
    bed.put(vec![(ports(), "port-s1".into(), Value::Null)]).await;
    let without = next(&mut seen).await;
    assert!(without.servers["s1"].ports.is_empty() && without.networks.is_empty());
}

/// Whatever happens to rows: what is kept incrementally is what a new process would build.
#[tokio::test]
async fn incremental_is_the_same_as_from_scratch() {
    for seed in 0..6 {
        let mut rng = StdRng::seed_from_u64(seed);
        let bed = Bed::new().await;
        let mut changes = bed.db.view.changes();
        let mut kept = Levels::default();
        for step in 0..150 {
            let rows = random_rows(&mut rng);
            bed.put(rows).await;
            let mut dirty = BTreeSet::new();
            let reader = bed.db.read();
            while let Ok(changed) = changes.try_recv() {
                changed.keys.iter().for_each(|key| kept.touched_by(&reader, key, &mut dirty));
            }
            kept.apply(&reader, &dirty.into_iter().collect::<Vec<_>>());
            let mut fresh = Levels::default();
            let all: Vec<_> = fresh.everything(&reader).into_iter().collect();
            fresh.apply(&reader, &all);
            assert_eq!(format!("{:?}", kept.now()), format!("{:?}", fresh.now()), "seed {seed}, step {step}");
            assert_eq!(kept.remembered(), fresh.remembered(), "seed {seed}, step {step}: something was not forgotten");
            let ids = |l: &Levels| l.leaving().into_keys().collect::<Vec<_>>();
            assert_eq!(ids(&kept), ids(&fresh), "seed {seed}, step {step}");
        }
    }
}

fn random_rows(rng: &mut StdRng) -> Rows {
    let [networks, subnets, groups, floating] = super::build::foreign_tables();
    let s = format!("s{}", rng.random_range(0..4));
    let n = format!("n{}", rng.random_range(0..3));
    let host = ["a", "b"][rng.random_range(0..2)];
    let port = format!("port-{s}-{}", rng.random_range(0..2));
    let value = rng.random_range(0..3);
    let row = |table, id: &str, row: Value| vec![(table, id.to_owned(), row)];
    match rng.random_range(0..13) {
        0 | 1 => row(servers(), &s, server_row(&s, host, &[&format!("port-{s}-0"), &format!("port-{s}-1")])),
        2 => row(servers(), &s, Value::Null),
        3 => {
            let mut leaving = server_row(&s, host, &[&port]);
            if value == 0 {
                leaving["deleting"] = true.into();
            } else {
                leaving["task_state"] = "shelving_offloading".into();
            }
            row(servers(), &s, leaving)
        }
        4 | 5 => row(ports(), &port, port_row(&port, &s, &n, host)),
        6 => row(ports(), &port, Value::Null),
        7 => network_rows(&n),
        8 => row(ports(), &format!("meta-{n}"), Value::Null),
        9 => row(networks, &n, json!({"id": n, "mtu": 1400 + value})),
        10 => row(
            subnets,
            &format!("sub-{n}"),
            if value == 0 { Value::Null } else { json!({"cidr": format!("10.0.0.0/2{value}")}) },
        ),
        11 => {
            let fip = json!({"port_id": port, "floating_ip_address": format!("203.0.113.{value}")});
            let mut rows = row(floating, "f", if value == 0 { Value::Null } else { fip });
            rows.extend(row(groups, "sg", json!({"name": format!("group {value}")})));
            rows
        }
        _ => row(
            &SNAPSHOTS,
            &format!("image-{s}"),
            if value == 0 { Value::Null } else { json!({"server_id": s, "format": "raw"}) },
        ),
    }
}

#[tokio::test]
async fn a_boot_ends_active_with_its_story() {
    let bed = Bed::start().await;
    bed.put(network_rows("n").into_iter().chain(one("s1", "a")).collect()).await;
    let (line, _seen) = bed.join("a").await;
    let building = ServerReport { step: Some("start QEMU".into()), ..report("s1", GuestState::Building) };
    line.report(of_server(building)).await.unwrap();
    let before = bed.row(servers(), "s1").unwrap().modified;
    line.report(of_server(report("s1", GuestState::Running))).await.unwrap();
    let server = bed.server("s1").unwrap();
    assert_eq!((server.vm_state.as_str(), server.task_state.as_deref(), server.deadline), ("active", None, None));
    let row = bed.row(servers(), "s1").unwrap();
    assert!(row.modified > before);
    assert!(bed.story("s1").last().unwrap().starts_with("Node a: running (start QEMU 0."), "{:?}", bed.story("s1"));
    line.report(of_server(report("s1", GuestState::Running))).await.unwrap();
    assert_eq!(bed.row(servers(), "s1").unwrap().modified, row.modified, "the same again writes nothing");
}

#[tokio::test]
async fn stale_and_foreign_reports_change_nothing() {
    let bed = Bed::start().await;
    bed.put(one("s1", "a")).await;
    bed.change("s1", |row| row.extend(crate::common::map(json!({"epoch": 3, "intent": 7})))).await;
    let (a, _) = bed.join("a").await;
    let (b, _) = bed.join("b").await;
    let before = bed.row(servers(), "s1").unwrap().modified;
    let good = ServerReport { epoch: 3, revision: 7, ..report("s1", GuestState::Running) };
    let cases: [(&Arc<dyn Uplink>, ServerReport); 5] = [
        (&a, ServerReport { epoch: 2, ..good.clone() }),
        (&a, ServerReport { revision: 6, ..good.clone() }),
        (&b, good.clone()),
        (&a, ServerReport { id: "unknown".into(), ..good.clone() }),
        (&a, ServerReport { state: GuestState::Gone, ..good.clone() }),
    ];
    for (line, stale) in cases {
        line.report(of_server(stale.clone())).await.unwrap();
        assert_eq!(bed.row(servers(), "s1").unwrap().modified, before, "{stale:?}");
    }
    a.report(of_server(good)).await.unwrap();
    assert_eq!(bed.server("s1").unwrap().vm_state, "active");
}

#[tokio::test]
async fn a_guests_password_is_kept_and_assigned() {
    let bed = Bed::start().await;
    bed.put(one("s1", "a")).await;
    let (a, mut seen) = bed.join("a").await;
    let (b, _) = bed.join("b").await;
    until("it is assigned", || seen.borrow_and_update().servers.contains_key("s1")).await;
    assert_eq!(seen.borrow().servers["s1"].guest.password, None);
    let good = PasswordReport { server_id: "s1".into(), epoch: 1, password: "cGFzcw==".into() };
    let before = bed.row(servers(), "s1").unwrap().modified;
    for (line, stale) in [
        (&b, good.clone()),
        (&a, PasswordReport { epoch: 0, ..good.clone() }),
        (&a, PasswordReport { server_id: "unknown".into(), ..good.clone() }),
    ] {
        line.report(vec![Report::Password(stale.clone())]).await.unwrap();
        assert_eq!(bed.row(servers(), "s1").unwrap().modified, before, "{stale:?}");
    }
    a.report(vec![Report::Password(good.clone())]).await.unwrap();
    let row = bed.row(servers(), "s1").unwrap();
    assert_eq!((row.text("password"), row.text("task_state")), ("cGFzcw==", "spawning"));
    let assigned = next(&mut seen).await.servers["s1"].clone();
    assert_eq!((assigned.guest.password.as_deref(), assigned.revision), (Some("cGFzcw=="), 1));
    a.report(vec![Report::Password(good.clone())]).await.unwrap();
    assert_eq!(bed.row(servers(), "s1").unwrap().modified, row.modified, "the same again writes nothing");
    assert!(!format!("{good:?}").contains("cGFzcw=="), "logs show no passwords");
}

fn allocation(server: &str, provider: &str) -> (&'static Table, String, Value) {
    let held = json!({"consumer_id": server, "allocations": {provider: {"VCPU": 2, "MEMORY_MB": 256, "DISK_GB": 1}}});
    (&ALLOCATIONS, server.to_owned(), held)
}

#[tokio::test]
async fn gone_gives_back_everything_exactly_once() {
    let bed = Bed::start().await;
    let (line, mut seen) = bed.join("a").await;
    line.report(vec![Report::Host(host_report())]).await.unwrap();
    let provider = host::node_id("a");
    let given = port_row("given-1", "s1", "n", "a");
    let mut rows = network_rows("n");
    rows.extend(one("s1", "a"));
    rows.extend(one("s2", "a"));
    rows.push((servers(), "s1".into(), server_row("s1", "a", &["port-s1", "given-1"])));
    rows.push((ports(), "given-1".into(), given));
    rows.push((&USER_DATA, "s1".into(), json!({"data": "x"})));
    rows.extend([allocation("s1", &provider), allocation("s2", &provider)]);
    let used = bed.row(&PROVIDERS, &provider).map(|r| r.value().clone());
    let mut used = used.unwrap();
    used["used"] = json!({"VCPU": 4, "MEMORY_MB": 512, "DISK_GB": 2});
    rows.push((&PROVIDERS, provider.clone(), used));
    for (name, n) in [("instances", 2), ("cores", 4), ("ram", 512)] {
        for holder in ["p", "p/u"] {
            rows.push((&engine::USAGE, format!("{holder}:compute:{name}"), json!({"project": holder, "used": n})));
        }
    }
    rows.push((&engine::USAGE, "p:network:port".into(), json!({"project": "p", "used": 3})));
    bed.put(rows).await;
    until("both are assigned", || seen.borrow_and_update().servers.len() == 2).await;

    bed.change("s1", |row| {
        row.insert("deleting".into(), true.into());
        row.insert("task_state".into(), "deleting".into());
    })
    .await;
    assert_eq!(next(&mut seen).await.servers.keys().collect::<Vec<_>>(), ["s2"], "what is being deleted is not assigned");
    line.report(of_server(report("s1", GuestState::Stopped))).await.unwrap();
    assert!(bed.server("s1").is_some(), "it is not gone before its node says so");

    let check = |when: &str| {
        assert!(bed.server("s1").is_none() && bed.row(ports(), "port-s1").is_none(), "{when}");
        let given = bed.row(ports(), "given-1").unwrap();
        assert_eq!((given.text("device_id"), given.text("binding:host_id")), ("", ""), "{when}");
        assert!(bed.row(&ALLOCATIONS, "s1").is_none() && bed.row(&ALLOCATIONS, "s2").is_some(), "{when}");
        let used = bed.row(&PROVIDERS, &provider).unwrap().field("used").clone();
        assert_eq!(used, json!({"VCPU": 2, "MEMORY_MB": 256, "DISK_GB": 1}), "{when}");
        for (key, n) in [("p:compute:instances", 1), ("p:compute:cores", 2), ("p/u:compute:ram", 256), ("p:network:port", 2)] {
            assert_eq!(bed.row(&engine::USAGE, key).unwrap().field("used"), n, "{when}: {key}");
        }
        assert!(bed.row(&USER_DATA, "s1").is_none() && bed.row(&engine::STORIES, "s1").is_none(), "{when}");
        assert_eq!(bed.row(&DELETED, "s1").unwrap().text("vm_state"), "deleted", "{when}");
        assert!(bed.server("s2").is_some() && bed.row(ports(), "port-s2").is_some(), "{when}");
    };
    line.report(of_server(report("s1", GuestState::Gone))).await.unwrap();
    check("after Gone");
    line.report(of_server(report("s1", GuestState::Gone))).await.unwrap();
    check("after Gone was told twice");
}

#[tokio::test]
async fn a_refused_report_does_not_hold_up_the_others() {
    let bed = Bed::start().await;
    let (line, _seen) = bed.join("a").await;
    let mut stuck = port_row("port-s1", "s1", "n", "a");
    stuck["name"] = "stuck".into();
    bed.put(one("s1", "a").into_iter().chain(one("s2", "a")).chain([(ports(), "port-s1".to_owned(), stuck)]).collect()).await;
    bed.change("s1", |row| drop(row.insert("deleting".into(), true.into()))).await;
    let batch = vec![Report::Server(report("s1", GuestState::Gone)), Report::Server(report("s2", GuestState::Running))];
    let refused = line.report(batch.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("stuck"), "{refused}");
    assert_eq!(bed.server("s2").unwrap().vm_state, "active");
    assert!(bed.server("s1").is_some());
    bed.put(vec![(ports(), "port-s1".into(), port_row("port-s1", "s1", "n", "a"))]).await;
    line.report(batch).await.unwrap();
    assert!(bed.server("s1").is_none());
}

#[tokio::test]
async fn a_host_becomes_a_node_and_a_provider() {
    let bed = Bed::start().await;
    let (line, _seen) = bed.join("a").await;
    let id = host::node_id("a");
    let tell = |r: HostReport| line.report(vec![Report::Host(r)]);
    tell(host_report()).await.unwrap();
    let node = bed.row(&Node::DEF.table, &id).unwrap();
    assert_eq!((node.text("host"), node.text("state"), node.field("number")), ("a", "up", &json!(1)));
    let provider = bed.row(&PROVIDERS, &id).unwrap();
    assert_eq!((provider.text("name"), provider.field("generation"), provider.text("uuid")), ("a", &json!(0), id.as_str()));
    let memory =
        json!({"reserved": 512, "min_unit": 1, "step_size": 1, "allocation_ratio": 1.0, "total": 8192, "max_unit": 8192});
    assert_eq!(provider.field("inventories")["MEMORY_MB"], memory);
    assert_eq!(provider.field("inventories")["VCPU"]["allocation_ratio"], 16.0);
    assert!(provider.field("traits").as_array().unwrap().contains(&"COMPUTE_NODE".into()));

    tell(host_report()).await.unwrap();
    assert_eq!(bed.row(&Node::DEF.table, &id).unwrap().modified, node.modified, "the same again writes nothing");
    assert_eq!(bed.row(&PROVIDERS, &id).unwrap().modified, provider.modified);

    let mut changed = provider.value().clone();
    changed["inventories"]["VCPU"]["allocation_ratio"] = 4.0.into();
    changed["inventories"]["CUSTOM_GOLD"] = json!({"total": 2});
    changed["traits"] = json!(["CUSTOM_FAST"]);
    changed["used"] = json!({"VCPU": 1});
    bed.put(vec![(&PROVIDERS, id.clone(), changed)]).await;
    tell(HostReport { vcpus: 8, ..host_report() }).await.unwrap();
    let provider = bed.row(&PROVIDERS, &id).unwrap();
    let inventories = provider.field("inventories");
    assert_eq!((&inventories["VCPU"]["total"], &inventories["VCPU"]["allocation_ratio"]), (&json!(8), &json!(4.0)));
    assert_eq!(inventories["CUSTOM_GOLD"], json!({"total": 2}));
    assert_eq!((provider.field("traits"), provider.field("used")), (&json!(["CUSTOM_FAST"]), &json!({"VCPU": 1})));
    assert_eq!(provider.field("generation"), 1);

    bed.nodes.lost("a").await.unwrap();
    assert_eq!(bed.row(&Node::DEF.table, &id).unwrap().text("state"), "down");
    assert!(bed.nodes.agent("a").is_none());
    tell(HostReport { boot_id: "b2".into(), ..host_report() }).await.unwrap();
    assert_eq!(bed.row(&Node::DEF.table, &id).unwrap().text("state"), "up");
    let story = bed.story(&id);
    let told: Vec<&str> = story.iter().map(|t| t.split(':').next().unwrap()).collect();
    assert_eq!(told, ["Host a joined", "Host a is down", "Host a came back"]);
}

async fn deleting_on(bed: &Bed, host: &str) {
    bed.put(one("s1", host)).await;
    bed.change("s1", |row| drop(row.insert("deleting".into(), true.into()))).await;
}

#[tokio::test]
async fn a_deletion_ends_where_the_node_never_had_the_server() {
    let bed = Bed::start().await;
    let (line, _seen) = bed.join("a").await;
    line.report(vec![Report::Host(host_report())]).await.unwrap();
    deleting_on(&bed, "a").await;
    bed.nodes.attach("a", Arc::new(Has(vec!["s1".into()])));
    let waits = tokio::time::timeout(Duration::from_millis(1200), until("-", || bed.server("s1").is_none())).await;
    assert!(waits.is_err(), "a node that has it must say that it is gone");
    bed.nodes.attach("a", Arc::new(Has(Vec::new())));
    until("the server goes when its node does not know it", || bed.server("s1").is_none()).await;
    assert!(bed.row(ports(), "port-s1").is_none());
}

#[tokio::test]
async fn a_deletion_ends_when_the_node_is_down_for_a_minute() {
    let bed = Bed::start().await;
    let (line, _seen) = bed.join("a").await;
    line.report(vec![Report::Host(host_report())]).await.unwrap();
    bed.nodes.lost("a").await.unwrap();
    deleting_on(&bed, "a").await;
    bed.clock.advance(Duration::from_secs(59));
    let waits = tokio::time::timeout(Duration::from_millis(800), until("-", || bed.server("s1").is_none())).await;
    assert!(waits.is_err(), "a node that went down just now may come back");
    bed.clock.advance(Duration::from_secs(2));
    until("the server goes without its node", || bed.server("s1").is_none()).await;
}

#[tokio::test]
async fn what_passes_its_deadline_ends() {
    let bed = Bed::start().await;
    let (line, _seen) = bed.join("a").await;
    line.report(vec![Report::Host(host_report())]).await.unwrap();
    bed.put(one("s1", "a").into_iter().chain(one("s2", "a")).collect()).await;
    let deadline = bed.clock.now().plus(Duration::from_secs(100)).0;
    for id in ["s1", "s2"] {
        bed.change(id, move |row| drop(row.insert("deadline".into(), deadline.into()))).await;
    }
    bed.change("s2", |row| drop(row.insert("deleting".into(), true.into()))).await;
    bed.put(vec![(&CONSOLES, "old".into(), json!({"server_id": "s1", "expires_at": deadline}))]).await;
    bed.clock.advance(Duration::from_secs(101));
    let _runner = bed.reconcile();
    let over = || bed.server("s2").is_none() && bed.server("s1").is_some_and(|s| s.vm_state == "error");
    until("both servers end", over).await;
    until("the token is cleared away", || bed.row(&CONSOLES, "old").is_none()).await;
    let server = bed.server("s1").unwrap();
    assert_eq!((server.task_state.as_deref(), server.deadline), (None, None));
    assert!(bed.story("s1").last().unwrap().starts_with("Failed: "), "{:?}", bed.story("s1"));
}

fn blob() -> BlobInfo {
    BlobInfo { blob: "512".into(), checksum: "md5".into(), size: 9, virtual_size: Some(10), format: "qcow2".into() }
}

async fn snapshot_of(bed: &Bed, task: &'static str, kind: &str) {
    bed.put(one("s1", "a")).await;
    bed.change("s1", move |row| {
        row.extend(crate::common::map(json!({"vm_state": "active", "task_state": task, "snapshot": "img1", "launched_at": 1})));
    })
    .await;
    let work = json!({"server_id": "s1", "node_id": host::node_id("a"), "format": "qcow2", "request_id": "req-2", "kind": kind});
    let image = json!({"id": "img1", "project_id": "p", "status": "saving"});
    bed.put(vec![(&SNAPSHOTS, "img1".into(), work), (images(), "img1".into(), image)]).await;
}

#[tokio::test]
async fn a_snapshot_becomes_an_active_image() {
    let bed = Bed::start().await;
    let (line, mut seen) = bed.join("a").await;
    snapshot_of(&bed, "image_snapshot", "snapshot").await;
    until("it is asked for", || seen.borrow_and_update().snapshots.contains_key("img1")).await;
    assert_eq!(seen.borrow().snapshots["img1"].request_id, "req-2");
    line.report(vec![Report::Snapshot(SnapshotReport { image_id: "img1".into(), result: Ok(blob()) })]).await.unwrap();
    let image = bed.row(images(), "img1").unwrap();
    assert_eq!((image.text("status"), image.text("os_hash_value"), image.text("disk_format")), ("active", "512", "qcow2"));
    let server = bed.server("s1").unwrap();
    assert_eq!((server.vm_state.as_str(), server.task_state.as_deref(), server.snapshot.as_deref()), ("active", None, None));
    until("it is not asked for any more", || seen.borrow_and_update().snapshots.is_empty()).await;
}

#[tokio::test]
async fn a_failed_snapshot_leaves_the_server_as_it_was() {
    let bed = Bed::start().await;
    let (line, _seen) = bed.join("a").await;
    snapshot_of(&bed, "image_snapshot", "snapshot").await;
    let failed = Report::Snapshot(SnapshotReport { image_id: "img1".into(), result: Err("The disk is full.".into()) });
    line.report(vec![failed]).await.unwrap();
    let server = bed.server("s1").unwrap();
    assert_eq!((server.vm_state.as_str(), server.task_state.as_deref()), ("active", None));
    assert!(bed.row(images(), "img1").is_none() && bed.row(&SNAPSHOTS, "img1").is_none());
    assert_eq!(bed.story("s1").last().unwrap(), "Image img1 was not made: The disk is full.");
}

#[tokio::test]
async fn a_shelved_server_leaves_its_node_and_keeps_its_image() {
    let bed = Bed::start().await;
    let (line, mut seen) = bed.join("a").await;
    line.report(vec![Report::Host(host_report())]).await.unwrap();
    snapshot_of(&bed, "shelving", "shelve").await;
    bed.put(vec![(&SNAPSHOTS, "img1".into(), Value::Null), allocation("s1", &host::node_id("a"))]).await;
    bed.change("s1", |row| row.extend(crate::common::map(json!({"power": "stopped", "shelved_image": "img1"})))).await;
    line.report(of_server(report("s1", GuestState::Stopped))).await.unwrap();
    until("its disk is asked for when it is off", || seen.borrow_and_update().snapshots.contains_key("img1")).await;
    line.report(vec![Report::Snapshot(SnapshotReport { image_id: "img1".into(), result: Ok(blob()) })]).await.unwrap();
    let server = bed.server("s1").unwrap();
    assert_eq!((server.vm_state.as_str(), server.task_state.as_deref()), ("shelved", Some("shelving_offloading")));
    until("it is taken from its node", || seen.borrow_and_update().servers.is_empty()).await;
    line.report(of_server(report("s1", GuestState::Gone))).await.unwrap();
    let server = bed.server("s1").unwrap();
    assert_eq!(
        (server.vm_state.as_str(), server.host.as_deref(), server.task_state.as_deref()),
        ("shelved_offloaded", None, None)
    );
    assert_eq!(server.shelved_image.as_deref(), Some("img1"));
    assert!(bed.row(&ALLOCATIONS, "s1").is_none());
    assert_eq!(bed.row(ports(), "port-s1").unwrap().text("binding:host_id"), "");
}

#[tokio::test]
async fn reports_before_the_cloud_is_there_are_kept_by_their_node() {
    let bed = Bed::new().await;
    let taken = bed.nodes.take("a", vec![Report::Host(host_report())]).await;
    assert!(taken.is_err_and(|e| e.kind == api::ErrorKind::Unavailable));
}
