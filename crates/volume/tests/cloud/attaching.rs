//! Who has a volume: servers through the compute service's transactions, others through this API.
use crate::bed::{Bed, SERVERS, VOLUMES};
use serde_json::json;
use std::time::Duration;
use testkit::until;

const SERVER: &str = "11111111-2222-4333-8444-555555555555";
const OTHER: &str = "22222222-2222-4333-8444-555555555555";
/// Longer than any work on attachments may take, and shorter than a token lives.
const LATE: Duration = Duration::from_secs(16 * 60);

/// A volume that the server has plugged, and its attachment.
async fn attached(bed: &Bed, more: serde_json::Value) -> (String, String) {
    let id = bed.volume(json!({"size": 1})).await;
    let attachment = bed.attach(&id, SERVER, more).await.unwrap();
    bed.report(&id, "ready", json!({"exports": [Bed::export(&attachment)]})).await;
    bed.plug(&attachment, SERVER).await;
    bed.status(&id, "in-use").await;
    (id, attachment)
}

#[tokio::test]
async fn a_server_has_a_volume_when_both_nodes_say_so() {
    let bed = Bed::start().await;
    let id = bed.volume(json!({"size": 1})).await;
    let attachment = bed.attach(&id, SERVER, json!({})).await.unwrap();
    assert_eq!(bed.show(&id).await["status"], "attaching");
    bed.plug(&attachment, SERVER).await;
    bed.report(&id, "building", json!({})).await;
    assert_eq!(bed.show(&id).await["status"], "attaching", "nothing is exported yet");
    bed.report(&id, "ready", json!({"exports": [Bed::export(&attachment)]})).await;
    let shown = bed.status(&id, "in-use").await;
    assert_eq!((&shown["attachments"][0]["server_id"], &shown["attachments"][0]["device"]), (&json!(SERVER), &json!("/dev/vdb")));
    bed.member.delete(&format!("{VOLUMES}/{id}")).await.expect(400);
    let listed = bed.member.get(&format!("/volume/v3/attachments?instance_id={SERVER}")).await.expect(200);
    assert_eq!(listed.all("/attachments", "status"), ["attached"]);
    let refused = bed.attach(&id, OTHER, json!({})).await.unwrap_err();
    assert!(refused.message.contains("in-use"), "{refused}");

    bed.detach(&attachment).await.unwrap();
    bed.status(&id, "detaching").await;
    bed.unplug(&attachment).await;
    // The export still serves: nobody else may have it.
    bed.attach(&id, OTHER, json!({})).await.unwrap_err();
    bed.ready(&id).await;
    assert_eq!(bed.status(&id, "available").await["attachments"], json!([]));
    bed.attach(&id, OTHER, json!({})).await.unwrap();
}

#[tokio::test]
async fn an_attachment_ends_while_it_begins() {
    let bed = Bed::start().await;
    let id = bed.volume(json!({"size": 1})).await;
    let attachment = bed.attach(&id, SERVER, json!({})).await.unwrap();
    bed.report(&id, "ready", json!({"exports": [Bed::export(&attachment)]})).await;
    bed.detach(&attachment).await.unwrap();
    // The server's node was quicker: it has it for a moment.
    bed.plug(&attachment, SERVER).await;
    assert_eq!(bed.show(&id).await["status"], "detaching");
    bed.unplug(&attachment).await;
    bed.ready(&id).await;
    bed.status(&id, "available").await;
}

#[tokio::test]
async fn a_volume_that_cannot_be_plugged_is_free_again() {
    let bed = Bed::start().await;
    let id = bed.volume(json!({"size": 1})).await;
    bed.attach(&id, SERVER, json!({})).await.unwrap();
    bed.report(&id, "failed", json!({"cause": "No socket; look at the host's log."})).await;
    bed.status(&id, "available").await;
    assert_eq!(bed.messages(&id).await, ["attach volume:No socket; look at the host's log."]);
    bed.attach(&id, SERVER, json!({})).await.unwrap();
    bed.pass(&id, LATE).await;
    bed.status(&id, "available").await;
}

#[tokio::test]
async fn a_guest_that_keeps_the_device_keeps_the_volume() {
    let bed = Bed::start().await;
    let (id, attachment) = attached(&bed, json!({})).await;
    bed.detach(&attachment).await.unwrap();
    bed.pass(&id, LATE).await;
    bed.status(&id, "in-use").await;
    assert_eq!(bed.messages(&id).await.len(), 1);
    bed.report(&id, "ready", json!({"exports": [Bed::export(&attachment)]})).await;
    bed.detach(&attachment).await.unwrap();
    bed.unplug(&attachment).await;
    // Its export does not end in time, and then it does.
    bed.clock_on(LATE);
    bed.report(&id, "ready", json!({"exports": [Bed::export(&attachment)]})).await;
    bed.status(&id, "error_detaching").await;
    bed.ready(&id).await;
    bed.status(&id, "available").await;
}

#[tokio::test]
async fn an_administrator_takes_a_volume_away() {
    let bed = Bed::start().await;
    let (id, attachment) = attached(&bed, json!({})).await;
    let path = format!("{VOLUMES}/{id}/action");
    bed.member.post(&path, json!({"os-force_detach": {}})).await.expect(403);
    bed.admin.post(&path, json!({"os-force_detach": {}})).await.expect(400);
    bed.admin.post(&path, json!({"os-force_detach": {"attachment_id": attachment}})).await.expect(202);
    // The end of the export is the fence.
    assert_eq!(bed.show(&id).await["status"], "detaching");
    bed.ready(&id).await;
    bed.status(&id, "available").await;
}

#[tokio::test]
async fn a_volume_goes_with_its_server_if_that_was_asked_for() {
    let bed = Bed::start().await;
    bed.put(&SERVERS, SERVER, json!({"deleting": false})).await;
    let (kept, attachment) = attached(&bed, json!({"delete_on_termination": true})).await;
    bed.detach(&attachment).await.unwrap();
    bed.unplug(&attachment).await;
    bed.ready(&kept).await;
    bed.status(&kept, "available").await;

    let (id, attachment) = attached(&bed, json!({"delete_on_termination": true})).await;
    bed.put(&SERVERS, SERVER, json!({"deleting": true})).await;
    bed.detach(&attachment).await.unwrap();
    bed.unplug(&attachment).await;
    bed.ready(&id).await;
    bed.status(&id, "deleting").await;
    bed.report(&id, "gone", json!({})).await;
    bed.gone(&format!("{VOLUMES}/{id}")).await;
    assert_eq!(bed.used().await, (1, 1, 0));
}

#[tokio::test]
async fn several_servers_share_what_is_for_several() {
    let bed = Bed::start().await;
    let specs = json!({"volume_type": {"name": "shared", "extra_specs": {"multiattach": "<is> True"}}});
    bed.admin.post("/volume/v3/types", specs).await.expect(200);
    let id = bed.volume(json!({"size": 1, "volume_type": "shared"})).await;
    let one = bed.attach(&id, SERVER, json!({})).await.unwrap();
    bed.attach(&id, SERVER, json!({})).await.unwrap_err();
    let two = bed.attach(&id, OTHER, json!({})).await.unwrap();
    bed.report(&id, "ready", json!({"exports": [Bed::export(&one), Bed::export(&two)]})).await;
    bed.plug(&one, SERVER).await;
    bed.plug(&two, OTHER).await;
    let both = |a: &testkit::Answer| a.at("/volume/attachments").as_array().is_some_and(|l| l.len() == 2);
    let path = format!("{VOLUMES}/{id}");
    until("both have it", || bed.member.get(&path), both).await;
    bed.detach(&one).await.unwrap();
    bed.unplug(&one).await;
    bed.report(&id, "ready", json!({"exports": [Bed::export(&two)]})).await;
    let one_left = |a: &testkit::Answer| a.at("/volume/attachments").as_array().is_some_and(|l| l.len() == 1);
    let shown = until("one has it", || bed.member.get(&path), one_left).await;
    assert_eq!(shown.at("/volume/status"), "in-use");

    // One is taken away by force; the other's export is no reason to wait.
    let three = bed.attach(&id, SERVER, json!({})).await.unwrap();
    bed.report(&id, "ready", json!({"exports": [Bed::export(&two), Bed::export(&three)]})).await;
    bed.plug(&three, SERVER).await;
    until("both have it", || bed.member.get(&path), both).await;
    let force = json!({"os-force_detach": {"attachment_id": three}});
    bed.admin.post(&format!("{path}/action"), force).await.expect(202);
    bed.status(&id, "detaching").await;
    bed.report(&id, "ready", json!({"exports": [Bed::export(&two)]})).await;
    bed.status(&id, "in-use").await;
}

#[tokio::test]
async fn marks_and_records_of_older_services() {
    let bed = Bed::start().await;
    let id = bed.volume(json!({"size": 1})).await;
    bed.act(&id, "os-reserve", json!({})).await.expect(202);
    assert_eq!(bed.show(&id).await["status"], "attaching");
    bed.act(&id, "os-reserve", json!({})).await.expect(400);
    bed.act(&id, "os-unreserve", json!({})).await.expect(202);
    bed.act(&id, "os-unreserve", json!({})).await.expect(400);
    bed.act(&id, "os-reserve", json!({})).await.expect(202);
    bed.pass(&id, LATE).await;
    bed.status(&id, "available").await;

    bed.act(&id, "os-attach", json!({"instance_uuid": SERVER})).await.expect(400);
    bed.act(&id, "os-attach", json!({"instance_uuid": SERVER, "mountpoint": "/dev/vdc"})).await.expect(202);
    let shown = bed.status(&id, "in-use").await;
    assert_eq!(shown["attachments"][0]["device"], "/dev/vdc");
    assert_eq!(shown["metadata"]["attached_mode"], "rw");
    bed.act(&id, "os-begin_detaching", json!({})).await.expect(202);
    assert_eq!(bed.show(&id).await["status"], "detaching");
    bed.act(&id, "os-roll_detaching", json!({})).await.expect(202);
    bed.act(&id, "os-detach", json!({})).await.expect(202);
    assert_eq!(bed.status(&id, "available").await["attachments"], json!([]));
}

#[tokio::test]
async fn others_than_servers_get_an_export_and_plug_by_themselves() {
    let bed = Bed::start().await;
    let id = bed.volume(json!({"size": 1})).await;
    let path = "/volume/v3/attachments";
    let body = json!({"attachment": {"volume_uuid": id, "instance_uuid": SERVER}});
    let reserved = bed.member.post(path, body.clone()).await.expect(200);
    assert_eq!(reserved.at("/attachment/status"), "reserved");
    assert_eq!(bed.show(&id).await["status"], "reserved");
    bed.member.post(path, body).await.expect(400);
    let a = reserved.text("/attachment/id");
    let one = format!("{path}/{a}");
    bed.member.post(&format!("{one}/action"), json!({"os-complete": {}})).await.expect(400);
    bed.member.put(&one, json!({"attachment": {"connector": null}})).await.expect(400);
    let connector = json!({"attachment": {"connector": {"host": "elsewhere", "mountpoint": "/dev/sdx"}}});
    let export = async {
        until("it is wanted", || bed.member.get(&one), |s| s.at("/attachment/status") == "attaching").await;
        bed.report(&id, "ready", json!({"exports": [Bed::export(&a)]})).await;
    };
    let (connected, ()) = tokio::join!(bed.member.put(&one, connector), export);
    assert_eq!(connected.expect(200).at("/attachment/connection_info/endpoint"), "unix:/run/x");
    bed.member.post(&format!("{one}/action"), json!({"os-complete": {}})).await.expect(204);
    bed.status(&id, "in-use").await;
    bed.member.delete(&one).await.expect(200);
    bed.status(&id, "detaching").await;
    bed.ready(&id).await;
    bed.status(&id, "available").await;
    bed.gone(&one).await;
    let old = bed.cloud.member("p").await.header("OpenStack-API-Version", "volume 3.26");
    old.get(path).await.expect(404);
}
