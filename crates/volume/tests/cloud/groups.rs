//! Groups: made, copied and deleted with their volumes.
use crate::bed::{Bed, VOLUMES};
use serde_json::{Value, json};
use testkit::until;

const GROUPS: &str = "/volume/v3/groups";
const SETS: &str = "/volume/v3/group_snapshots";

async fn group(bed: &Bed) -> (String, String) {
    let kind = bed.admin.post("/volume/v3/group_types", json!({"group_type": {"name": "g"}})).await.expect(202);
    let default = bed.admin.get("/volume/v3/types/default").await.expect(200).text("/volume_type/id");
    let body = json!({"group": {"name": "one", "group_type": kind.text("/group_type/id"), "volume_types": [default]}});
    (bed.member.post(GROUPS, body).await.expect(202).text("/group/id"), kind.text("/group_type/id"))
}

async fn set_status(bed: &Bed, path: &str, what: &str, wanted: &str) {
    let pointer = format!("/{what}/status");
    until(&format!("{path} is {wanted}"), || bed.member.get(path), |a| a.at(&pointer) == wanted).await;
}

#[tokio::test]
async fn a_group_is_copied_and_deleted_with_its_volumes() {
    let bed = Bed::start().await;
    let (id, kind) = group(&bed).await;
    let path = format!("{GROUPS}/{id}");
    let volume = bed.volume(json!({"size": 1, "group_id": id})).await;
    bed.member.delete(&format!("{VOLUMES}/{volume}")).await.expect(400);
    let made = bed.member.post(SETS, json!({"group_snapshot": {"group_id": id, "name": "now"}})).await.expect(202);
    let set = format!("{SETS}/{}", made.text("/group_snapshot/id"));
    let snapshot = bed.member.get("/volume/v3/snapshots").await.expect(200).text("/snapshots/0/id");
    bed.member.delete(&format!("/volume/v3/snapshots/{snapshot}")).await.expect(400);
    set_status(&bed, &set, "group_snapshot", "creating").await;
    bed.report(&volume, "ready", json!({"snapshots": [snapshot]})).await;
    set_status(&bed, &set, "group_snapshot", "available").await;

    let from = json!({"create-from-src": {"name": "two", "group_snapshot_id": made.text("/group_snapshot/id")}});
    let two = bed.member.post(&format!("{GROUPS}/action"), from).await.expect(202).text("/group/id");
    let two = format!("{GROUPS}/{two}");
    let copy = bed.member.get(&format!("{two}?list_volume=True")).await.expect(200).text("/group/volumes/0");
    set_status(&bed, &two, "group", "creating").await;
    bed.ready(&copy).await;
    set_status(&bed, &two, "group", "available").await;

    bed.member.post(&format!("{path}/action"), json!({"delete": {"delete-volumes": true}})).await.expect(400);
    bed.member.delete(&set).await.expect(202);
    set_status(&bed, &set, "group_snapshot", "deleting").await;
    bed.ready(&volume).await;
    bed.gone(&set).await;
    bed.member.post(&format!("{path}/action"), json!({"delete": {}})).await.expect(400);
    bed.member.post(&format!("{path}/action"), json!({"delete": {"delete-volumes": true}})).await.expect(202);
    set_status(&bed, &path, "group", "deleting").await;
    bed.report(&volume, "gone", json!({})).await;
    bed.gone(&path).await;
    bed.admin.delete(&format!("/volume/v3/group_types/{kind}")).await.expect(400);
    assert_eq!(bed.used().await, (1, 1, 0));
}

#[tokio::test]
async fn volumes_join_and_leave() {
    let bed = Bed::start().await;
    let (id, _) = group(&bed).await;
    let path = format!("{GROUPS}/{id}");
    let volume = bed.volume(json!({"size": 1})).await;
    let change = |body: Value| bed.member.put(&path, json!({ "group": body }));
    change(json!({})).await.expect(400);
    change(json!({"add_volumes": volume, "name": "renamed"})).await.expect(202);
    change(json!({"add_volumes": volume})).await.expect(400);
    assert_eq!(bed.show(&volume).await["group_id"], json!(id));
    change(json!({"remove_volumes": volume})).await.expect(202);
    assert_eq!(bed.show(&volume).await["group_id"], Value::Null);
    assert_eq!(bed.member.get(&format!("{GROUPS}/detail")).await.expect(200).all("/groups", "name"), ["renamed"]);
    bed.admin.post("/volume/v3/types", json!({"volume_type": {"name": "other"}})).await.expect(200);
    bed.create(json!({"size": 1, "volume_type": "other", "group_id": id})).await.expect(400);
    bed.member.post(&format!("{path}/action"), json!({"delete": {"delete-volumes": false}})).await.expect(202);
    bed.gone(&path).await;
}
