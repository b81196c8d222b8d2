//! Snapshots, copies of them, and the way back.
use crate::bed::{Bed, VOLUMES};
use serde_json::{Value, json};
use std::time::Duration;
use testkit::until;

const SNAPSHOTS: &str = "/volume/v3/snapshots";

async fn ask(bed: &Bed, volume: &str) -> String {
    let body = json!({"snapshot": {"volume_id": volume, "name": "s"}});
    bed.member.post(SNAPSHOTS, body).await.expect(202).text("/snapshot/id")
}

async fn status(bed: &Bed, id: &str, wanted: &str) {
    let path = format!("{SNAPSHOTS}/{id}");
    until(&format!("the snapshot is {wanted}"), || bed.member.get(&path), |a| a.at("/snapshot/status") == wanted).await;
}

async fn snapshot(bed: &Bed, volume: &str) -> String {
    let id = ask(bed, volume).await;
    bed.report(volume, "ready", json!({"snapshots": [id]})).await;
    status(bed, &id, "available").await;
    id
}

#[tokio::test]
async fn a_snapshot_is_there_when_the_node_names_it() {
    let bed = Bed::start().await;
    let volume = bed.volume(json!({"size": 2})).await;
    let id = ask(&bed, &volume).await;
    bed.report(&volume, "building", json!({"snapshots": []})).await;
    status(&bed, &id, "creating").await;
    bed.report(&volume, "ready", json!({"snapshots": [id]})).await;
    status(&bed, &id, "available").await;
    for (wanted, status) in [(json!(null), 404), (json!("x"), 400), (json!("99999999-2222-4333-8444-555555555555"), 404)] {
        bed.member.post(SNAPSHOTS, json!({"snapshot": {"volume_id": wanted}})).await.expect(status);
    }
    assert_eq!(bed.used().await, (1, 4, 1), "a snapshot takes the room of its volume");
    bed.member.delete(&format!("{VOLUMES}/{volume}")).await.expect(400);
    bed.member.delete(&format!("{SNAPSHOTS}/{id}")).await.expect(202);
    // Still there.
    bed.report(&volume, "building", json!({"snapshots": [id]})).await;
    status(&bed, &id, "deleting").await;
    bed.ready(&volume).await;
    bed.gone(&format!("{SNAPSHOTS}/{id}")).await;
    assert_eq!(bed.used().await, (1, 2, 0));
}

#[tokio::test]
async fn a_snapshot_that_fails_does_not_hurt_its_volume() {
    let bed = Bed::start().await;
    let volume = bed.volume(json!({"size": 1})).await;
    let id = ask(&bed, &volume).await;
    bed.report(&volume, "failed", json!({"cause": "No room."})).await;
    status(&bed, &id, "error").await;
    assert_eq!(bed.show(&volume).await["status"], "available");
    assert_eq!(bed.messages(&id).await, ["create snapshot:No room."]);
    let late = ask(&bed, &volume).await;
    bed.pass(&volume, Duration::from_secs(11 * 60)).await;
    status(&bed, &late, "error").await;
    bed.member.delete(&format!("{SNAPSHOTS}/{id}")).await.expect(202);
    bed.member.delete(&format!("{SNAPSHOTS}/{late}")).await.expect(202);
    bed.ready(&volume).await;
    bed.gone(&format!("{SNAPSHOTS}/{id}")).await;
    bed.gone(&format!("{SNAPSHOTS}/{late}")).await;
    assert_eq!(bed.used().await, (1, 1, 0));
}

#[tokio::test]
async fn volumes_are_made_of_snapshots_and_keep_them() {
    let bed = Bed::start().await;
    let volume = bed.volume(json!({"size": 2})).await;
    let id = snapshot(&bed, &volume).await;
    bed.create(json!({"size": 1, "snapshot_id": id})).await.expect(400);
    let copy = bed.create(json!({"snapshot_id": id})).await.expect(202);
    assert_eq!(copy.at("/volume/size"), 2);
    let copy = copy.text("/volume/id");
    assert_eq!(bed.row(&copy).await["source"], json!({"snapshot": {"volume_id": volume, "snapshot_id": id}}));
    bed.member.delete(&format!("{SNAPSHOTS}/{id}")).await.expect(400);
    bed.member.delete(&format!("{VOLUMES}/{volume}?cascade=True")).await.expect(400);
    bed.ready(&copy).await;
    bed.status(&copy, "available").await;
    bed.member.delete(&format!("{VOLUMES}/{volume}?cascade=True")).await.expect(202);
    bed.report(&volume, "gone", json!({})).await;
    bed.gone(&format!("{VOLUMES}/{volume}")).await;
    bed.gone(&format!("{SNAPSHOTS}/{id}")).await;
    assert_eq!(bed.used().await, (1, 2, 0));
}

#[tokio::test]
async fn a_volume_goes_back_to_its_newest_snapshot() {
    let bed = Bed::start().await;
    let volume = bed.volume(json!({"size": 1})).await;
    let first = snapshot(&bed, &volume).await;
    bed.clock_on(Duration::from_secs(1));
    let second = ask(&bed, &volume).await;
    bed.report(&volume, "ready", json!({"snapshots": [first, second]})).await;
    status(&bed, &second, "available").await;
    bed.act(&volume, "revert", json!({"snapshot_id": first})).await.expect(400);
    bed.act(&volume, "revert", json!({"snapshot_id": second})).await.expect(202);
    assert_eq!(bed.show(&volume).await["status"], "reverting");
    let row = bed.row(&volume).await;
    assert_eq!((&row["generation"], &row["source"]["snapshot"]["snapshot_id"]), (&json!(2), &json!(second)));
    bed.report(&volume, "ready", json!({"snapshots": [first, second], "generation": 1})).await;
    assert_eq!(bed.show(&volume).await["status"], "reverting");
    bed.report(&volume, "ready", json!({"snapshots": [first, second]})).await;
    bed.status(&volume, "available").await;
}

#[tokio::test]
async fn a_status_that_was_set_stays() {
    let bed = Bed::start().await;
    let volume = bed.volume(json!({"size": 1})).await;
    let id = snapshot(&bed, &volume).await;
    let path = format!("{SNAPSHOTS}/{id}/action");
    let act = |name: &'static str, value: Value| bed.admin.post(&path, json!({ name: value }));
    act("os-reset_status", json!({"status": "creating"})).await.expect(202);
    act("os-update_snapshot_status", json!({"status": "error", "progress": "80%"})).await.expect(202);
    bed.report(&volume, "ready", json!({"snapshots": [id]})).await;
    let shown = bed.member.get(&format!("{SNAPSHOTS}/{id}")).await.expect(200);
    assert_eq!(shown.at("/snapshot/os-extended-snapshot-attributes:progress"), "80%");
    assert_eq!(shown.at("/snapshot/status"), "error");
    act("os-force_delete", json!({})).await.expect(202);
    bed.ready(&volume).await;
    bed.gone(&format!("{SNAPSHOTS}/{id}")).await;
}
