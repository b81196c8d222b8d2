//! The agent's loop on a simulated host: many servers, and what must hold between assignments and guests.
#![expect(clippy::unwrap_used, reason = "a test may fail here")]
mod common;
use assign::*;
use common::*;
use node::{Config, plan::Status, sim};
use std::{sync::Arc, time::Duration};

const SIZE: sim::Size = sim::Size { vcpus: 64, memory_mib: 1 << 20, disk_gib: 1000 };

fn config(dir: &tempfile::TempDir) -> Config {
    Config { heavy_steps: 256, orphan_grace: Duration::ZERO, ..Config::new(dir.path(), "sim-1") }
}

fn start(delays: sim::Delays) -> (Arc<node::Agent>, Arc<sim::Sim>, Arc<Control>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let control = Arc::new(Control::default());
    let (agent, sim) = sim::start(config(&dir), SIZE, delays, control.clone(), Arc::new(Shelf(dir.path().into())));
    (agent, sim, control, dir)
}

#[tokio::test]
async fn follows_a_server_through_its_life() {
    let (agent, sim, c, _dir) = start(sim::Delays::default());
    let mut s = server();
    s.ports = vec![port()];
    let id = s.id.as_str();
    c.assign(&s);
    let up = c.reach(id, GuestState::Running).await;
    assert_eq!(up.plugged, [s.ports[0].id.clone()]);
    assert!(up.launched_at.is_some());
    assert_eq!(sim.guests()[id], Status::Running);
    c.change(id, GuestState::Paused, |s| s.power = Power::Paused).await;
    c.change(id, GuestState::Stopped, |s| s.power = Power::Stopped).await;
    assert!(sim.guests().is_empty());
    c.change(id, GuestState::Running, |s| s.power = Power::Running).await;
    let rebooted = c.change(id, GuestState::Running, |s| s.reboot = Reboot { count: 1, hard: true }).await;
    assert_eq!(rebooted.reboot_count, 1);
    sim.power_off(id);
    c.reach(id, GuestState::Stopped).await;
    c.change(id, GuestState::Running, |_| {}).await;
    sim.crash(id);
    assert!(c.reach(id, GuestState::Crashed).await.cause.is_some());
    let rebuilt = c.change(id, GuestState::Running, |s| s.root.as_mut().unwrap().generation = 1).await;
    assert_eq!(rebuilt.disk_generation, 1);
    let agent: &dyn assign::Agent = &*agent;
    assert!(agent.query(Query::ConsoleLog { server_id: id.into(), lines: None }).await.is_ok());
    c.remove(id);
    c.reach(id, GuestState::Gone).await;
    assert!(matches!(agent.query(Query::Diagnostics { server_id: id.into() }).await, Err(QueryError::NotHere(_))));
    assert!(sim.guests().is_empty());
    // The same placement does not come back; a newer one does.
    s.revision = 90;
    c.assign(&s);
    s.epoch = 2;
    s.revision = 91;
    c.assign(&s);
    assert_eq!(c.wait(id, |r| r.state == GuestState::Running).await.epoch, 2);
}

#[tokio::test]
async fn an_older_epoch_changes_nothing() {
    let (_agent, sim, c, _dir) = start(sim::Delays::default());
    let mut s = server();
    s.epoch = 5;
    c.assign(&s);
    c.reach(&s.id, GuestState::Running).await;
    let mut old = s.clone();
    (old.epoch, old.revision, old.power) = (4, 9, Power::Stopped);
    c.assign(&old);
    // A second server that is done later shows that the first was looked at.
    let other = server();
    c.assign(&other);
    c.reach(&other.id, GuestState::Running).await;
    assert_eq!(sim.guests()[&s.id], Status::Running);
    assert_eq!(c.reach(&s.id, GuestState::Running).await.epoch, 5);
}

#[tokio::test]
async fn removal_wins_over_a_step_under_way() {
    let never = Duration::from_secs(3600);
    let (_agent, sim, c, _dir) = start(sim::Delays { start: never, ..Default::default() });
    let s = server();
    c.assign(&s);
    c.wait(&s.id, |r| r.step.as_deref() == Some("start QEMU")).await;
    c.remove(&s.id);
    c.reach(&s.id, GuestState::Gone).await;
    assert!(sim.guests().is_empty());
}

#[tokio::test]
async fn a_new_wish_interrupts_a_slow_shutdown() {
    let never = Duration::from_secs(3600);
    let (_agent, sim, c, _dir) = start(sim::Delays { shutdown: never, ..Default::default() });
    let s = server();
    c.assign(&s);
    c.reach(&s.id, GuestState::Running).await;
    let mut stop = s.clone();
    (stop.revision, stop.power) = (2, Power::Stopped);
    c.assign(&stop);
    c.wait(&s.id, |r| r.step.as_deref() == Some("shut guest down")).await;
    c.change(&s.id, GuestState::Running, |s| s.power = Power::Running).await;
    assert_eq!(sim.guests()[&s.id], Status::Running);
}

#[tokio::test]
async fn a_snapshot_is_reported_once_made() {
    let (_agent, _sim, c, dir) = start(sim::Delays::default());
    let s = server();
    c.assign(&s);
    c.reach(&s.id, GuestState::Running).await;
    let wanted = |server: &str| {
        let (image_id, server_id) = (base::id::uuid(), server.to_owned());
        Arc::new(SnapshotAssignment { image_id, server_id, request_id: "r".into(), format: "qcow2".into() })
    };
    let (good, bad) = (wanted(&s.id), wanted("not-here"));
    c.edit(|a| a.snapshots.extend([(good.image_id.clone(), good.clone()), (bad.image_id.clone(), bad.clone())]));
    assert_eq!(c.snapshot(&good.image_id).await.unwrap().size, 512);
    assert!(c.snapshot(&bad.image_id).await.unwrap_err().contains("not-here"));
    assert!(!dir.path().join(format!("snapshot-{}", good.image_id)).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_servers() {
    let ms = Duration::from_millis(20);
    let (_agent, sim, c, _dir) = start(sim::Delays { disk: ms, start: ms, ..Default::default() });
    let all: Vec<ServerAssignment> = (0..10_000)
        .map(|_| {
            let mut s = server();
            s.ports = vec![port()];
            s
        })
        .collect();
    let began = std::time::Instant::now();
    c.edit(|a| a.servers.extend(all.iter().map(|s| (s.id.clone(), Arc::new(s.clone())))));
    let count = |state| c.states().iter().filter(|s| **s == state).count();
    c.until("all run", || (count(GuestState::Running) == all.len()).then_some(())).await;
    println!("10,000 boots in {:?}, {} reports", began.elapsed(), c.count.load(std::sync::atomic::Ordering::Relaxed));
    assert_eq!(sim.guests().len(), all.len());
    let began = std::time::Instant::now();
    c.edit(|a| a.servers.clear());
    c.until("all are gone", || (count(GuestState::Gone) == all.len()).then_some(())).await;
    println!("10,000 removals in {:?}", began.elapsed());
    assert!(sim.guests().is_empty());
}

#[tokio::test]
async fn volumes_are_there_at_once() {
    let (_agent, sim, c, _dir) = start(sim::Delays::default());
    let mut v = volume();
    v.exports = vec![Export { attachment_id: base::id::uuid(), epoch: 1, read_only: false }];
    v.snapshots = vec![base::id::uuid()];
    let made = c.keep(&v, |r| r.exports.len() == 1 && r.snapshots.len() == 1).await;
    assert_eq!((made.state, made.size_gib), (VolumeState::Ready, 1));
    let mut s = server();
    let data = attached(&made, &v.exports[0].attachment_id);
    s.volumes = vec![data.clone()];
    c.assign(&s);
    assert_eq!(c.reach(&s.id, GuestState::Running).await.volumes, [data.attachment_id]);
    assert_eq!(c.change(&s.id, GuestState::Running, |s| s.volumes.clear()).await.volumes, [] as [String; 0]);
    let gone = VolumeAssignment { keep: Keep::Deleted, exports: vec![], ..v };
    c.keep(&gone, |r| r.state == VolumeState::Gone).await;
    assert!(sim.shelf().volumes().is_empty());
}
