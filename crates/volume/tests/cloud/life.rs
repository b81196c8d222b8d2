//! The life of a volume: made, attached, detached, deleted, and what goes wrong on the way.
use crate::bed::{Bed, VOLUMES};
use serde_json::json;

const SERVER: &str = "11111111-2222-4333-8444-555555555555";

#[tokio::test]
async fn a_volume_is_available_when_its_node_has_it_and_gone_when_it_has_not() {
    let bed = Bed::start().await;
    let made = bed.create(json!({"size": 2, "name": " disk "})).await.expect(202);
    let id = made.text("/volume/id");
    assert_eq!((made.at("/volume/status"), made.at("/volume/name")), (&json!("creating"), &json!("disk")));
    let row = bed.row(&id).await;
    assert_eq!((&row["host"], &row["source"], &row["keep"]), (&json!("host-0"), &json!("blank"), &json!("present")));
    bed.report(&id, "building", json!({})).await;
    bed.ready(&id).await;
    let shown = bed.status(&id, "available").await;
    assert_eq!(shown["os-vol-host-attr:host"], "host-0@nbd#nbd");
    assert_eq!(shown["volume_type"], "__DEFAULT__");
    assert_eq!(bed.member.get(&format!("{VOLUMES}/detail?name=disk")).await.expect(200).all("/volumes", "id"), [id.clone()]);

    bed.member.delete(&format!("{VOLUMES}/{id}")).await.expect(202);
    assert_eq!(bed.show(&id).await["status"], "deleting");
    bed.member.delete(&format!("{VOLUMES}/{id}")).await.expect(202);
    bed.report(&id, "gone", json!({})).await;
    bed.gone(&format!("{VOLUMES}/{id}")).await;
    assert_eq!(bed.row(&id).await, json!(null));
}

#[tokio::test]
async fn a_server_has_a_volume_when_both_nodes_say_so() {
    let bed = Bed::start().await;
    let id = bed.volume(json!({"size": 1})).await;
    let attachment = bed.attach(&id, SERVER, json!({})).await.unwrap();
    assert_eq!(bed.show(&id).await["status"], "attaching");
    bed.report(&id, "ready", json!({"exports": [Bed::export(&attachment)]})).await;
    bed.plug(&attachment, SERVER).await;
    let shown = bed.status(&id, "in-use").await;
    assert_eq!((&shown["attachments"][0]["server_id"], &shown["attachments"][0]["device"]), (&json!(SERVER), &json!("/dev/vdb")));
    bed.member.delete(&format!("{VOLUMES}/{id}")).await.expect(400);
    let listed = bed.member.get(&format!("/volume/v3/attachments?instance_id={SERVER}")).await.expect(200);
    assert_eq!(listed.all("/attachments", "status"), ["attached"]);

    bed.detach(&attachment).await.unwrap();
    bed.status(&id, "detaching").await;
    bed.unplug(&attachment).await;
    // The export still serves: nobody else may have it.
    bed.attach(&id, "22222222-2222-4333-8444-555555555555", json!({})).await.unwrap_err();
    bed.ready(&id).await;
    assert_eq!(bed.status(&id, "available").await["attachments"], json!([]));
}
