//! Whose volumes are whose, and who may do what.
use crate::bed::{Bed, VOLUMES};
use serde_json::json;

#[tokio::test]
async fn what_is_of_another_project_is_not_there() {
    let bed = Bed::start().await;
    let id = bed.volume(json!({"size": 1})).await;
    let other = bed.cloud.member("q").await.header("OpenStack-API-Version", "volume 3.70");
    let path = format!("{VOLUMES}/{id}");
    other.get(&path).await.expect(404);
    other.put(&path, json!({"volume": {"name": "mine"}})).await.expect(404);
    other.delete(&path).await.expect(404);
    other.post(&format!("{path}/action"), json!({"os-reserve": {}})).await.expect(404);
    other.get(&format!("{path}/metadata")).await.expect(404);
    other.post("/volume/v3/snapshots", json!({"snapshot": {"volume_id": id}})).await.expect(404);
    other.post(VOLUMES, json!({"volume": {"source_volid": id}})).await.expect(404);
    other.post("/volume/v3/attachments", json!({"attachment": {"volume_uuid": id}})).await.expect(404);
    assert_eq!(other.get(VOLUMES).await.expect(200).all("/volumes", "id"), [""; 0]);
    assert_eq!(other.get(&format!("{VOLUMES}?all_tenants=1")).await.expect(200).all("/volumes", "id"), [""; 0]);
    assert_eq!(bed.admin.get(VOLUMES).await.expect(200).all("/volumes", "id"), [""; 0]);
    assert_eq!(bed.admin.get(&format!("{VOLUMES}?all_tenants=1")).await.expect(200).all("/volumes", "id"), [id]);
}

#[tokio::test]
async fn readers_read_and_administrators_administer() {
    let bed = Bed::start().await;
    let id = bed.volume(json!({"size": 1})).await;
    let reader = bed.cloud.user("p", "reader").await;
    reader.get(&format!("{VOLUMES}/{id}")).await.expect(200);
    reader.post(VOLUMES, json!({"volume": {"size": 1}})).await.expect(403);
    reader.delete(&format!("{VOLUMES}/{id}")).await.expect(403);
    reader.post(&format!("{VOLUMES}/{id}/action"), json!({"os-extend": {"new_size": 2}})).await.expect(403);
    reader.post(&format!("{VOLUMES}/{id}/metadata"), json!({"metadata": {"a": "b"}})).await.expect(403);
    for (action, body) in [("os-reset_status", json!({"status": "error"})), ("os-force_delete", json!({}))] {
        bed.act(&id, action, body).await.expect(403);
    }
    for path in ["os-services", "os-hosts", "scheduler-stats/get_pools", "qos-specs", "capabilities/host-0@nbd"] {
        bed.member.get(&format!("/volume/v3/{path}")).await.expect(403);
        bed.admin.get(&format!("/volume/v3/{path}")).await.expect(200);
    }
    assert!(bed.show(&id).await.get("os-vol-host-attr:host").is_none());
}

#[tokio::test]
async fn the_project_in_the_path_must_be_the_callers() {
    let bed = Bed::start().await;
    let id = bed.volume(json!({"size": 1})).await;
    let project = bed.admin.get("/identity/v3/projects?name=p").await.expect(200).text("/projects/0/id");
    let path = format!("/volume/v3/{project}/volumes");
    assert_eq!(bed.member.get(&format!("{path}/{id}")).await.expect(200).text("/volume/id"), id);
    assert_eq!(bed.member.get(&format!("{path}/detail")).await.expect(200).all("/volumes", "id"), std::slice::from_ref(&id));
    bed.admin.get(&format!("{path}/{id}")).await.expect(400);
    bed.cloud.anonymous().get(&path).await.expect(401);
    bed.member.get("/volume/v3/volumes/").await.expect(404);
    bed.member.put(&format!("{path}/"), json!({"volume": {"name": "n"}})).await.expect(404);
    bed.cloud.anonymous().get("/volume/").await.expect(300);
    bed.cloud.anonymous().get("/volume/v3/").await.expect(200);
}

#[tokio::test]
async fn a_private_type_is_for_those_who_were_given_it() {
    let bed = Bed::start().await;
    let body =
        json!({"volume_type": {"name": "private", "os-volume-type-access:is_public": false, "extra_specs": {"secret": "s"}}});
    let kind = bed.admin.post("/volume/v3/types", body).await.expect(200).text("/volume_type/id");
    let path = format!("/volume/v3/types/{kind}");
    bed.member.get(&path).await.expect(404);
    bed.create(json!({"size": 1, "volume_type": kind})).await.expect(404);
    let project = bed.admin.get("/identity/v3/projects?name=p").await.expect(200).text("/projects/0/id");
    let add = json!({"addProjectAccess": {"project": project}});
    bed.admin.post(&format!("{path}/action"), add.clone()).await.expect(202);
    bed.admin.post(&format!("{path}/action"), add).await.expect(409);
    let listed = bed.admin.get(&format!("{path}/os-volume-type-access")).await.expect(200);
    assert_eq!(listed.all("/volume_type_access", "project_id"), std::slice::from_ref(&project));
    assert_eq!(bed.member.get(&path).await.expect(200).at("/volume_type/extra_specs"), &json!({}));
    bed.create(json!({"size": 1, "volume_type": "private"})).await.expect(202);
    bed.admin.post(&format!("{path}/action"), json!({"removeProjectAccess": {"project": project}})).await.expect(202);
    bed.create(json!({"size": 1, "volume_type": "private"})).await.expect(404);
    bed.admin.post("/volume/v3/types", json!({"volume_type": {"name": "private"}})).await.expect(409);
    bed.admin.post("/volume/v3/types", json!({"volume_type": {"name": " "}})).await.expect(400);
}

#[tokio::test]
async fn a_private_group_type_is_nobodys_but_the_administrators() {
    let bed = Bed::start().await;
    let body = json!({"group_type": {"name": "private", "is_public": false}});
    let kind = bed.admin.post("/volume/v3/group_types", body).await.expect(202).text("/group_type/id");
    for named in [kind.as_str(), "private"] {
        let group = json!({"group": {"group_type": named, "volume_types": ["__DEFAULT__"]}});
        bed.member.post("/volume/v3/groups", group.clone()).await.expect(404);
        bed.admin.post("/volume/v3/groups", group).await.expect(202);
    }
}

#[tokio::test]
async fn hints_tell_nothing_of_other_projects_volumes() {
    let bed = Bed::start().await;
    let id = bed.volume(json!({"size": 1})).await;
    bed.host("host-1", 1000).await;
    let made = async |client: &testkit::Client| {
        let body = json!({"volume": {"size": 1}, "OS-SCH-HNT:scheduler_hints": {"same_host": [id]}});
        let volume = client.post(VOLUMES, body).await.expect(202).text("/volume/id");
        bed.admin.get(&format!("{VOLUMES}/{volume}")).await.expect(200).text("/volume/os-vol-host-attr:host")
    };
    assert_eq!(made(&bed.member).await, "host-0@nbd#nbd");
    assert_eq!(made(&bed.cloud.member("q").await).await, "host-1@nbd#nbd", "the one with the most room");
}

#[tokio::test]
async fn a_volume_changes_hands_by_its_key() {
    let bed = Bed::start().await;
    let id = bed.volume(json!({"size": 2})).await;
    let other = bed.cloud.member("q").await.header("OpenStack-API-Version", "volume 3.57");
    let path = "/volume/v3/volume-transfers";
    let transfer = bed.member.post(path, json!({"transfer": {"volume_id": id, "name": "gift"}})).await.expect(202);
    let (t, key) = (transfer.text("/transfer/id"), transfer.text("/transfer/auth_key"));
    assert_eq!(bed.show(&id).await["status"], "awaiting-transfer");
    bed.member.delete(&format!("{VOLUMES}/{id}")).await.expect(400);
    assert!(!bed.member.get(&format!("{path}/{t}")).await.expect(200).body.to_string().contains(&key));
    other.get(&format!("{path}/{t}")).await.expect(404);
    let accept = format!("{path}/{t}/accept");
    other.post(&accept, json!({"accept": {"auth_key": "wrong"}})).await.expect(400);
    other.post(&accept, json!({"accept": {"auth_key": key}})).await.expect(202);
    other.post(&accept, json!({"accept": {"auth_key": key}})).await.expect(404);
    assert_eq!(other.get(&format!("{VOLUMES}/{id}")).await.expect(200).at("/volume/status"), "available");
    bed.member.get(&format!("{VOLUMES}/{id}")).await.expect(404);
    assert_eq!(bed.used().await, (0, 0, 0));
    let limits = other.get("/volume/v3/limits").await.expect(200);
    assert_eq!(limits.at("/limits/absolute/totalGigabytesUsed"), 2);

    let back = other.post("/volume/v3/os-volume-transfer", json!({"transfer": {"volume_id": id}})).await.expect(202);
    other.delete(&format!("/volume/v3/os-volume-transfer/{}", back.text("/transfer/id"))).await.expect(202);
    assert_eq!(other.get(&format!("{VOLUMES}/{id}")).await.expect(200).at("/volume/status"), "available");
}

#[tokio::test]
async fn access_rules_name_the_service_as_the_catalog_does() {
    let bed = Bed::start().await;
    let me = bed.admin.get("/identity/v3/users?name=p-member").await.expect(200).text("/users/0/id");
    let rules = json!([
        {"service": "block-storage", "method": "GET", "path": "/v3/volumes"},
        {"service": "volumev3", "method": "GET", "path": "/v3/types"},
    ]);
    let body = json!({"application_credential": {"name": "app", "unrestricted": true, "access_rules": rules}});
    let made = bed.member.post(&format!("/identity/v3/users/{me}/application_credentials"), body).await.expect(201);
    let secret = json!({"id": made.text("/application_credential/id"), "secret": made.text("/application_credential/secret")});
    let auth = json!({"identity": {"methods": ["application_credential"], "application_credential": secret}});
    let answer = bed.cloud.anonymous().post("/identity/v3/auth/tokens", json!({ "auth": auth })).await.expect(201);
    let app = bed.cloud.anonymous().token(answer.header("x-subject-token"));
    app.get(VOLUMES).await.expect(200);
    app.get("/volume/v3/types").await.expect(200);
    app.get("/volume/v3/snapshots").await.expect(401);
    app.post(VOLUMES, json!({"volume": {"size": 1}})).await.expect(401);
}
