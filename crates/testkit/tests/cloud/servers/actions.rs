//! Actions, each to the state that it is asked for, on a simulated host.
use crate::bed::{Bed, SERVERS};
use serde_json::{Value, json};
use testkit::until;

#[tokio::test]
async fn power_goes_where_it_is_asked_to() {
    let bed = Bed::start(1).await;
    let id = bed.server(json!({})).await;
    for (action, status) in [
        ("pause", "PAUSED"),
        ("unpause", "ACTIVE"),
        ("suspend", "SUSPENDED"),
        ("resume", "ACTIVE"),
        ("os-stop", "SHUTOFF"),
        ("os-start", "ACTIVE"),
    ] {
        bed.act(&id, action, Value::Null).await.expect(202);
        bed.status(&id, status).await;
    }
    for kind in ["SOFT", "HARD"] {
        bed.act(&id, "reboot", json!({ "type": kind })).await.expect(202);
        bed.status(&id, "ACTIVE").await;
    }
    let actions = bed.member.get(&format!("{SERVERS}/{id}/os-instance-actions")).await.expect(200);
    assert_eq!(
        actions.all("/instanceActions", "action"),
        ["reboot", "reboot", "start", "stop", "resume", "suspend", "unpause", "pause", "create"]
    );
    let request = actions.text("/instanceActions/0/request_id");
    let one = bed.admin.get(&format!("{SERVERS}/{id}/os-instance-actions/{request}")).await.expect(200);
    assert_eq!(
        (one.at("/instanceAction/events/0/result"), one.at("/instanceAction/events/0/event")),
        (&json!("Success"), &json!("compute_reboot_instance"))
    );
}

#[tokio::test]
async fn conflicts_and_unknown_actions_are_named() {
    let bed = Bed::start(1).await;
    let id = bed.server(json!({})).await;
    let message =
        |a: &testkit::Answer| a.body.as_object().unwrap().values().next().unwrap()["message"].as_str().unwrap().to_owned();
    let start = bed.act(&id, "os-start", Value::Null).await.expect(409);
    assert_eq!(message(&start), format!("Cannot 'start' instance {id} while it is in vm_state active"));
    for action in ["unpause", "resume", "unrescue", "confirmResize", "revertResize", "unshelve", "shelveOffload", "restore"] {
        let answer = bed.admin.post(&format!("{SERVERS}/{id}/action"), json!({ action: null })).await;
        assert_eq!(answer.status, 409, "{action}: {}", answer.body);
    }
    bed.act(&id, "fly", Value::Null).await.expect(400);
    bed.act(&id, "reboot", json!({"type": "NO"})).await.expect(400);
    bed.member.post(&format!("{SERVERS}/{id}/action"), json!({"pause": null, "unpause": null})).await.expect(400);
    bed.act("11111111-2222-4333-8444-555555555555", "pause", Value::Null).await.expect(404);
    let other = bed.cloud.member("q").await;
    other.post(&format!("{SERVERS}/{id}/action"), json!({"pause": null})).await.expect(404);
    bed.cloud.user("p", "reader").await.post(&format!("{SERVERS}/{id}/action"), json!({"pause": null})).await.expect(403);
    bed.act(&id, "lock", Value::Null).await.expect(202);
    bed.act(&id, "os-stop", Value::Null).await.expect(409);
    bed.member.delete(&format!("{SERVERS}/{id}")).await.expect(409);
    bed.act(&id, "unlock", Value::Null).await.expect(202);
    bed.act(&id, "os-stop", Value::Null).await.expect(202);
    bed.status(&id, "SHUTOFF").await;
    bed.act(&id, "changePassword", json!({"adminPass": "x"})).await.expect(409);
}

#[tokio::test]
async fn rebuild_and_rescue_change_what_boots() {
    let bed = Bed::start(1).await;
    let id = bed.server(json!({})).await;
    let image = bed.make_image(&bed.admin, "public").await;
    let rebuilt = bed
        .act(&id, "rebuild", json!({"imageRef": image, "name": "new", "metadata": {"k": "v"}, "adminPass": "secret"}))
        .await
        .expect(202);
    assert_eq!(
        (rebuilt.at("/server/status"), rebuilt.at("/server/adminPass"), rebuilt.at("/server/image/id")),
        (&json!("REBUILD"), &json!("secret"), &json!(image))
    );
    let server = bed.status(&id, "ACTIVE").await;
    assert_eq!((&server["name"], &server["metadata"]), (&json!("new"), &json!({"k": "v"})));
    let rescued = bed.act(&id, "rescue", json!({"adminPass": "x"})).await.expect(200);
    assert_eq!(rescued.body, json!({"adminPass": "x"}));
    bed.status(&id, "RESCUE").await;
    bed.act(&id, "rebuild", json!({ "imageRef": image })).await.expect(409);
    bed.act(&id, "unrescue", Value::Null).await.expect(202);
    bed.status(&id, "ACTIVE").await;
    bed.act(&id, "os-stop", Value::Null).await.expect(202);
    bed.status(&id, "SHUTOFF").await;
    bed.act(&id, "rebuild", json!({ "imageRef": bed.image })).await.expect(202);
    bed.status(&id, "SHUTOFF").await;
}

#[tokio::test]
async fn resize_holds_both_sizes_until_it_is_decided() {
    let bed = Bed::start(1).await;
    let id = bed.server(json!({})).await;
    bed.act(&id, "resize", json!({"flavorRef": "tiny"})).await.expect(400);
    bed.act(&id, "resize", json!({"flavorRef": "none"})).await.expect(400);
    bed.act(&id, "resize", json!({"flavorRef": ""})).await.expect(400);
    bed.act(&id, "resize", json!({"flavorRef": "small"})).await.expect(202);
    let server = bed.status(&id, "VERIFY_RESIZE").await;
    assert_eq!(server["flavor"]["id"], "small");
    assert_eq!(bed.held().await.2, [1, 2, 512]);
    bed.act(&id, "revertResize", Value::Null).await.expect(202);
    assert_eq!(bed.status(&id, "ACTIVE").await["flavor"]["id"], "tiny");
    assert_eq!(bed.held().await.2, [1, 1, 256]);
    bed.act(&id, "resize", json!({"flavorRef": "small"})).await.expect(202);
    bed.status(&id, "VERIFY_RESIZE").await;
    bed.act(&id, "confirmResize", Value::Null).await.expect(204);
    bed.status(&id, "ACTIVE").await;
    bed.act(&id, "resize", json!({"flavorRef": "tiny"})).await.expect(202);
    bed.status(&id, "VERIFY_RESIZE").await;
    assert_eq!(bed.held().await.2, [1, 2, 512], "the larger one counts until the smaller is confirmed");
    bed.act(&id, "confirmResize", Value::Null).await.expect(204);
    assert_eq!(bed.held().await, (1, 1, vec![1, 1, 256]));
    let migrations = bed.admin.get("/compute/v2.1/os-migrations").await.expect(200);
    assert_eq!(migrations.all("/migrations", "status"), ["reverted", "confirmed", "confirmed"]);
}

async fn image_status(bed: &Bed, id: &str, wanted: &str) -> Value {
    let path = format!("/image/v2/images/{id}");
    until(&format!("image is {wanted}"), || bed.member.get(&path), |a| a.at("/status") == wanted).await.body
}

#[tokio::test]
async fn images_are_made_of_servers() {
    let bed = Bed::start(1).await;
    let id = bed.server(json!({})).await;
    let made = bed.act(&id, "createImage", json!({"name": "snap", "metadata": {"image_type": "test"}})).await.expect(202);
    let image = made.header("location").rsplit('/').next().unwrap().to_owned();
    let image = image_status(&bed, &image, "active").await;
    assert_eq!(
        (&image["name"], &image["image_type"], &image["instance_uuid"], &image["hw_rng_model"]),
        (&json!("snap"), &json!("test"), &json!(id), &json!("virtio"))
    );
    bed.status(&id, "ACTIVE").await;
    let second = bed.server(json!({"imageRef": image["id"]})).await;
    bed.member.delete(&format!("{SERVERS}/{second}")).await.expect(204);
    let mut names = Vec::new();
    for i in 1..=3 {
        let body = json!({"name": format!("backup-{i}"), "backup_type": "daily", "rotation": 2});
        let made = bed.act(&id, "createBackup", body).await.expect(202);
        let image = made.header("location").rsplit('/').next().unwrap().to_owned();
        names.push(image_status(&bed, &image, "active").await["name"].clone());
        bed.status(&id, "ACTIVE").await;
    }
    let list = bed.member.get("/image/v2/images?image_type=backup&sort=name:asc").await.expect(200);
    assert_eq!(list.all("/images", "name"), ["backup-2", "backup-3"], "{names:?}");
}

#[tokio::test]
async fn a_shelved_server_leaves_its_host_and_comes_back() {
    let bed = Bed::start(2).await;
    let id = bed.server(json!({})).await;
    bed.act(&id, "shelve", Value::Null).await.expect(202);
    let server = bed.status(&id, "SHELVED_OFFLOADED").await;
    assert!(server["OS-EXT-SRV-ATTR:host"].is_null());
    assert_eq!(bed.held().await, (1, 0, vec![1, 1, 256]), "its port and quota stay");
    assert!(bed.hosts.iter().all(|h| h.1.guests().is_empty()));
    let images = bed.member.get("/image/v2/images?name=s-shelved").await.expect(200);
    assert_eq!(images.body["images"].as_array().unwrap().len(), 1);
    bed.act(&id, "shelve", Value::Null).await.expect(409);
    bed.act(&id, "unshelve", Value::Null).await.expect(202);
    let server = bed.status(&id, "ACTIVE").await;
    assert_eq!((&server["image"]["id"], server["addresses"]["n"].as_array().unwrap().len()), (&json!(bed.image), 1));
    assert_eq!(bed.held().await.1, 1);
    until(
        "the image is gone",
        || bed.member.get("/image/v2/images?name=s-shelved"),
        |a| a.body["images"].as_array().is_some_and(Vec::is_empty),
    )
    .await;
}

#[tokio::test]
async fn interfaces_groups_tags_and_metadata_change_while_it_runs() {
    let bed = Bed::start(1).await;
    let id = bed.server(json!({})).await;
    let second = bed.make_network(&bed.member, "second", "10.3.0.0/24").await;
    let path = format!("{SERVERS}/{id}/os-interface");
    let added = bed.member.post(&path, json!({"interfaceAttachment": {"net_id": second}})).await.expect(200);
    let port = added.text("/interfaceAttachment/port_id");
    assert_eq!(bed.status(&id, "ACTIVE").await["addresses"]["second"].as_array().unwrap().len(), 1);
    bed.member.delete(&format!("{path}/{port}")).await.expect(202);
    bed.member.get(&format!("/network/v2.0/ports/{port}")).await.expect(404);
    bed.member.delete(&format!("{path}/{port}")).await.expect(404);
    bed.member.post("/network/v2.0/security-groups", json!({"security_group": {"name": "web"}})).await.expect(201);
    bed.act(&id, "addSecurityGroup", json!({"name": "web"})).await.expect(202);
    let groups = bed.member.get(&format!("{SERVERS}/{id}/os-security-groups")).await.expect(200);
    assert_eq!(groups.all("/security_groups", "name"), ["default", "web"]);
    bed.act(&id, "removeSecurityGroup", json!({"name": "web"})).await.expect(202);
    bed.act(&id, "removeSecurityGroup", json!({"name": "web"})).await.expect(404);
    let meta = format!("{SERVERS}/{id}/metadata");
    bed.member.post(&meta, json!({"metadata": {"a": "1", "b": "2"}})).await.expect(200);
    bed.member.put(&format!("{meta}/a"), json!({"meta": {"b": "2"}})).await.expect(400);
    bed.member.put(&format!("{meta}/a"), json!({"meta": {"a": "3"}})).await.expect(200);
    bed.member.delete(&format!("{meta}/b")).await.expect(204);
    assert_eq!(bed.member.get(&meta).await.expect(200).body, json!({"metadata": {"a": "3"}}));
    let tags = bed.member.clone().header("openstack-api-version", "compute 2.26");
    let path = format!("{SERVERS}/{id}/tags");
    tags.put(&path, json!({"tags": ["x", "y"]})).await.expect(200);
    tags.put(&format!("{path}/z"), Value::Null).await.expect(201);
    tags.put(&format!("{path}/z"), Value::Null).await.expect(204);
    tags.put(&path, json!({"tags": ["a/b"]})).await.expect(400);
    tags.delete(&format!("{path}/x")).await.expect(204);
    assert_eq!(tags.get(&path).await.expect(200).body, json!({"tags": ["y", "z"]}));
    assert_eq!(tags.get(&format!("{SERVERS}?tags=y,z")).await.expect(200).all("/servers", "id"), [id.as_str()]);
    bed.member.get(&path).await.expect(404);
}

#[tokio::test]
async fn what_happens_to_guests_is_seen() {
    let bed = Bed::start(1).await;
    let id = bed.server(json!({})).await;
    bed.hosts[0].1.power_off(&id);
    bed.status(&id, "SHUTOFF").await;
    bed.act(&id, "os-start", Value::Null).await.expect(202);
    bed.status(&id, "ACTIVE").await;
    bed.hosts[0].1.crash(&id);
    let sim = bed.hosts[0].1.clone();
    let path = format!("{SERVERS}/{id}");
    until(
        "it runs again",
        || bed.admin.get(&path),
        |a| a.at("/server/OS-EXT-STS:power_state") == 1 && sim.guests().contains_key(&id),
    )
    .await;
    let log = bed.act(&id, "os-getConsoleOutput", json!({"length": 3})).await.expect(200);
    assert!(log.at("/output").is_string());
    let console = bed.act(&id, "os-getVNCConsole", json!({"type": "novnc"})).await.expect(200);
    assert!(console.text("/console/url").starts_with(&format!("{}/compute/vnc/", bed.cloud.url)));
    bed.act(&id, "os-getVNCConsole", json!({"type": "xvpvnc"})).await.expect(400);
    bed.admin.post(&format!("{SERVERS}/{id}/action"), json!({"os-resetState": {"state": "error"}})).await.expect(202);
    bed.status(&id, "ERROR").await;
    bed.act(&id, "reboot", json!({"type": "HARD"})).await.expect(202);
    bed.status(&id, "ACTIVE").await;
}
