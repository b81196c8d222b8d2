//! The life of a volume: made, changed, deleted, and what goes wrong on the way.
use crate::bed::{Bed, VOLUMES};
use serde_json::json;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_volume_is_available_when_its_node_has_it_and_gone_when_it_has_not() {
    let bed = Bed::start().await;
    let made = bed.create(json!({"size": 2, "name": " disk "})).await.expect(202);
    let id = made.text("/volume/id");
    assert_eq!((made.at("/volume/status"), made.at("/volume/name")), (&json!("creating"), &json!("disk")));
    let row = bed.row(&id).await;
    assert_eq!((&row["host"], &row["source"], &row["keep"]), (&json!("host-0"), &json!("blank"), &json!("present")));
    bed.report(&id, "building", json!({})).await;
    // An answer to an older wish says nothing about this one.
    bed.report(&id, "ready", json!({"revision": 0})).await;
    assert_eq!(bed.show(&id).await["status"], "creating");
    bed.ready(&id).await;
    let shown = bed.status(&id, "available").await;
    assert_eq!(shown["os-vol-host-attr:host"], "host-0@nbd#nbd");
    assert_eq!(shown["volume_type"], "__DEFAULT__");
    assert_eq!(
        bed.member.get(&format!("{VOLUMES}/detail?name=disk")).await.expect(200).all("/volumes", "id"),
        std::slice::from_ref(&id)
    );

    bed.member.delete(&format!("{VOLUMES}/{id}")).await.expect(202);
    assert_eq!(bed.show(&id).await["status"], "deleting");
    bed.member.delete(&format!("{VOLUMES}/{id}")).await.expect(202);
    bed.report(&id, "gone", json!({})).await;
    bed.gone(&format!("{VOLUMES}/{id}")).await;
    assert_eq!(bed.row(&id).await, json!(null));
    assert_eq!(bed.used().await, (0, 0, 0));
}

#[tokio::test]
async fn a_volume_that_cannot_be_made_is_in_error_and_says_why() {
    let bed = Bed::start().await;
    let id = bed.create(json!({"size": 1})).await.expect(202).text("/volume/id");
    bed.report(&id, "failed", json!({"cause": "The disk is full; remove something."})).await;
    bed.status(&id, "error").await;
    assert_eq!(bed.messages(&id).await, ["create volume:The disk is full; remove something."]);
    // It failed for that revision; what the node says later of it does not heal a volume in error.
    bed.ready(&id).await;
    assert_eq!(bed.show(&id).await["status"], "error");
    bed.member.delete(&format!("{VOLUMES}/{id}")).await.expect(202);
    bed.report(&id, "gone", json!({})).await;
    bed.gone(&format!("{VOLUMES}/{id}")).await;
}

#[tokio::test]
async fn delete_wins_over_a_volume_that_is_being_made() {
    let bed = Bed::start().await;
    let id = bed.create(json!({"size": 3})).await.expect(202).text("/volume/id");
    let asked = bed.row(&id).await["intent"].as_u64().unwrap();
    bed.member.delete(&format!("{VOLUMES}/{id}")).await.expect(202);
    // The node's late word about the making changes nothing.
    bed.report(&id, "ready", json!({"revision": asked})).await;
    assert_eq!(bed.show(&id).await["status"], "deleting");
    assert_eq!(bed.used().await.1, 3, "its room is its own until it is gone");
    bed.report(&id, "gone", json!({})).await;
    bed.gone(&format!("{VOLUMES}/{id}")).await;
    assert_eq!(bed.used().await, (0, 0, 0));
}

#[tokio::test]
async fn work_that_is_late_is_given_up() {
    let bed = Bed::start().await;
    let making = bed.create(json!({"size": 1})).await.expect(202).text("/volume/id");
    bed.pass(&making, 31 * MINUTE).await;
    bed.status(&making, "error").await;
    let growing = bed.volume(json!({"size": 1})).await;
    bed.act(&growing, "os-extend", json!({"new_size": 5})).await.expect(202);
    bed.pass(&growing, 6 * MINUTE).await;
    assert_eq!(bed.status(&growing, "error_extending").await["size"], 1);
    bed.member.delete(&format!("{VOLUMES}/{making}")).await.expect(202);
    bed.pass(&making, 11 * MINUTE).await;
    bed.status(&making, "error_deleting").await;
    // Its node comes back at last.
    bed.report(&making, "gone", json!({})).await;
    bed.gone(&format!("{VOLUMES}/{making}")).await;
    assert_eq!(bed.used().await, (1, 1, 0), "one volume of the old size");
}

#[tokio::test]
async fn a_volume_grows_when_its_node_has_the_room() {
    let bed = Bed::start().await;
    let id = bed.volume(json!({"size": 1})).await;
    bed.act(&id, "os-extend", json!({"new_size": 1})).await.expect(400);
    bed.act(&id, "os-extend", json!({"new_size": "three"})).await.expect(400);
    bed.act(&id, "os-extend", json!({"new_size": 3})).await.expect(202);
    let shown = bed.show(&id).await;
    assert_eq!((&shown["status"], &shown["size"]), (&json!("extending"), &json!(1)), "it has what it has");
    assert_eq!(bed.row(&id).await["size"], 3, "what the node is to make");
    bed.act(&id, "os-extend", json!({"new_size": 4})).await.expect(400);
    bed.report(&id, "ready", json!({"size_gib": 2})).await;
    assert_eq!(bed.show(&id).await["status"], "extending");
    bed.ready(&id).await;
    assert_eq!(bed.status(&id, "available").await["size"], 3);
    assert_eq!(bed.used().await, (1, 3, 0));
    bed.act(&id, "os-extend", json!({"new_size": 9})).await.expect(202);
    bed.report(&id, "failed", json!({"size_gib": 3, "cause": "No room."})).await;
    assert_eq!(bed.status(&id, "error_extending").await["size"], 3);
    assert_eq!(bed.used().await, (1, 3, 0));
}

#[tokio::test]
async fn a_volume_without_a_host_is_in_error_at_once_and_can_be_deleted() {
    let bed = Bed::start().await;
    let kind = json!({"volume_type": {"name": "odd", "extra_specs": {"vendor_name": "somebody else"}}});
    let kind = bed.admin.post("/volume/v3/types", kind).await.expect(200).text("/volume_type/id");
    let id = bed.create(json!({"size": 1, "volume_type": kind})).await.expect(202).text("/volume/id");
    assert_eq!(bed.show(&id).await["status"], "error");
    assert_eq!(bed.messages(&id).await.len(), 1);
    let message = bed.member.get("/volume/v3/messages").await.expect(200).text("/messages/0/id");
    bed.member.delete(&format!("/volume/v3/messages/{message}")).await.expect(204);
    bed.member.delete(&format!("{VOLUMES}/{id}")).await.expect(202);
    bed.gone(&format!("{VOLUMES}/{id}")).await;
    assert_eq!(bed.used().await, (0, 0, 0));
}

#[tokio::test]
async fn the_host_with_the_most_room_is_taken() {
    let bed = Bed::start().await;
    bed.host("host-1", 200).await;
    let id = bed.volume(json!({"size": 50})).await;
    assert_eq!(bed.row(&id).await["host"], "host-1");
    bed.admin.put("/volume/v3/os-services/disable", json!({"host": "host-1@nbd", "binary": "cinder-volume"})).await.expect(200);
    let other = bed.volume(json!({"size": 1})).await;
    assert_eq!(bed.row(&other).await["host"], "host-0");
    let copy = bed.create(json!({"source_volid": id})).await.expect(202);
    assert_eq!(copy.at("/volume/size"), 50, "as large as what it is made of");
    let row = bed.row(&copy.text("/volume/id")).await;
    assert_eq!(row["host"], "host-1", "a copy is made where its source lies");
    assert_eq!(row["source"], json!({"volume": {"volume_id": id}}));
    bed.member.delete(&format!("{VOLUMES}/{id}")).await.expect(400);
}

#[tokio::test]
async fn an_administrator_sets_a_status_and_it_stays() {
    let bed = Bed::start().await;
    let id = bed.volume(json!({"size": 1})).await;
    let path = format!("{VOLUMES}/{id}/action");
    let act = |name: &'static str, value: serde_json::Value| bed.admin.post(&path, json!({ name: value }));
    for status in ["error", "available", "maintenance", "creating", "attaching"] {
        act("os-reset_status", json!({ "status": status })).await.expect(202);
        bed.ready(&id).await;
        assert_eq!(bed.show(&id).await["status"], status);
    }
    act("os-reset_status", json!({"status": "fine"})).await.expect(400);
    bed.member.delete(&format!("{VOLUMES}/{id}")).await.expect(400);
    act("os-force_delete", json!({})).await.expect(202);
    bed.report(&id, "gone", json!({})).await;
    bed.gone(&format!("{VOLUMES}/{id}")).await;
}

#[tokio::test]
async fn a_type_changes_with_what_is_counted_for_it() {
    let bed = Bed::start().await;
    let id = bed.volume(json!({"size": 2})).await;
    let kind = bed.admin.post("/volume/v3/types", json!({"volume_type": {"name": "fast"}})).await.expect(200);
    let kind = kind.text("/volume_type/id");
    bed.act(&id, "os-retype", json!({"new_type": "nothing"})).await.expect(404);
    bed.act(&id, "os-retype", json!({"new_type": "fast", "migration_policy": "never"})).await.expect(202);
    assert_eq!(bed.show(&id).await["volume_type"], "fast");
    assert_eq!(bed.show(&id).await["status"], "available");
    bed.admin.delete(&format!("/volume/v3/types/{kind}")).await.expect(400);
    let project = bed.admin.get("/identity/v3/projects?name=p").await.expect(200).text("/projects/0/id");
    let usage = bed.admin.get(&format!("/volume/v3/os-quota-sets/{project}?usage=True")).await.expect(200);
    let of = |name: &str| usage.at(&format!("/quota_set/{name}/in_use")).as_i64();
    assert_eq!((of("gigabytes_fast"), of("gigabytes___DEFAULT__"), of("gigabytes")), (Some(2), Some(0), Some(2)));
    bed.admin.post(&format!("/volume/v3/types/{kind}/encryption"), json!({"encryption": {"provider": "luks"}})).await.expect(400);
    bed.act(&id, "os-retype", json!({"new_type": "__DEFAULT__"})).await.expect(202);
    bed.admin.post(&format!("/volume/v3/types/{kind}/encryption"), json!({"encryption": {"provider": "luks"}})).await.expect(200);
    let refused = bed.create(json!({"size": 1, "volume_type": "fast"})).await.expect(400);
    assert!(refused.text("/badRequest/message").contains("encryption"));
    bed.act(&id, "os-retype", json!({"new_type": "fast"})).await.expect(400);
}

#[tokio::test]
async fn what_a_create_says_is_checked() {
    let bed = Bed::start().await;
    let id = bed.volume(json!({"size": 2})).await;
    let nobody = "99999999-2222-4333-8444-555555555555";
    for (body, status) in [
        (json!({}), 400),
        (json!({"size": 0}), 400),
        (json!({"size": -1}), 400),
        (json!({"size": "#$%"}), 400),
        (json!({"size": 1, "snapshot_id": nobody}), 404),
        (json!({"size": 1, "source_volid": nobody}), 404),
        (json!({"size": 1, "source_volid": id}), 400),
        (json!({"size": 1, "volume_type": nobody}), 404),
        (json!({"size": 1, "availability_zone": "mars"}), 400),
        (json!({"size": 1, "metadata": {"": "x"}}), 400),
        (json!({"size": 1, "name": "n".repeat(256)}), 400),
        (json!({"size": 1, "source_volid": id, "snapshot_id": nobody}), 400),
    ] {
        bed.create(body).await.expect(status);
    }
    assert_eq!(bed.used().await, (1, 2, 0), "nothing of it was counted");
    let empty =
        json!({"size": 1, "volume_type": "", "availability_zone": "", "snapshot_id": "", "name": null, "description": null});
    assert_eq!(bed.create(empty).await.expect(202).at("/volume/volume_type"), "__DEFAULT__");
}
