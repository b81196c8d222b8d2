//! What projects may use and what callers may touch: unified limits, property protections, signatures.

use crate::common::{ImageCloud, OCTETS, patch, queued, show, upload};
use image::{ProtectionFormat, Protections, Stores, blob::LocalStore};
use serde_json::{Value, json};
use std::sync::Arc;
use testkit::{Client, Setup, TestCloud};

/// Registers a limit of the image service.
async fn limit(admin: &Client, name: &str, value: i64) {
    let service = admin.get("/identity/v3/services?type=image").await.expect(200).text("/services/0/id");
    let limits = json!([{"service_id": service, "resource_name": name, "default_limit": value}]);
    admin.post("/identity/v3/registered_limits", json!({"registered_limits": limits})).await.expect(201);
}

#[tokio::test]
async fn registered_limits_hold_and_a_project_may_have_its_own() {
    let cloud = ImageCloud::start().await;
    let (user, admin) = (cloud.cloud.member("p").await, cloud.cloud.admin().await);
    limit(&admin, "image_count_total", 2).await;
    let one = queued(&user, json!({})).await;
    queued(&user, json!({})).await;
    let body = json!({"name": "third", "disk_format": "raw", "container_format": "bare"});
    user.post("/image/v2/images", body.clone()).await.expect(413);
    let usage = user.get("/image/v2/info/usage").await.expect(200);
    assert_eq!(usage.at("/usage/image_count_total"), &json!({"limit": 2, "usage": 2}));
    let service = admin.get("/identity/v3/services?type=image").await.expect(200).text("/services/0/id");
    let project = show(&user, &one).await.text("/owner");
    let own = json!([{"service_id": service, "resource_name": "image_count_total", "resource_limit": 3, "project_id": project}]);
    admin.post("/identity/v3/limits", json!({ "limits": own })).await.expect(201);
    user.post("/image/v2/images", body.clone()).await.expect(201);
    user.post("/image/v2/images", body).await.expect(413);
}

#[tokio::test]
async fn bytes_are_limited_before_they_come() {
    let cloud = ImageCloud::start().await;
    let (user, admin) = (cloud.cloud.member("p").await, cloud.cloud.admin().await);
    limit(&admin, "image_size_total", 2).await;
    limit(&admin, "image_stage_total", 1).await;
    limit(&admin, "image_count_uploading", 1).await;
    let mib = |n: usize| bytes::Bytes::from(vec![7_u8; n << 20]);
    let to = |id: &str, what: &str| format!("/image/v2/images/{id}/{what}");
    let (one, two, three) = (queued(&user, json!({})).await, queued(&user, json!({})).await, queued(&user, json!({})).await);
    user.send_bytes("PUT", &to(&one, "file"), OCTETS, mib(3)).await.expect(413);
    assert_eq!(show(&user, &one).await.text("/status"), "queued");
    user.send_bytes("PUT", &to(&one, "file"), OCTETS, mib(1)).await.expect(204);
    user.send_bytes("PUT", &to(&two, "stage"), OCTETS, mib(2)).await.expect(413);
    user.send_bytes("PUT", &to(&two, "stage"), OCTETS, mib(1)).await.expect(204);
    // One is on its way already.
    user.send_bytes("PUT", &to(&three, "file"), OCTETS, "x".into()).await.expect(413);
    let usage = user.get("/image/v2/info/usage").await.expect(200);
    let used = |name: &str| usage.at(&format!("/usage/{name}/usage")).clone();
    assert_eq!(
        (used("image_size_total"), used("image_stage_total"), used("image_count_uploading")),
        (json!(1), json!(1), json!(1))
    );
    user.post(&to(&two, "import"), json!({"method": {"name": "glance-direct"}})).await.expect(202);
    user.send_bytes("PUT", &to(&three, "file"), OCTETS, mib(1)).await.expect(413);
    user.delete(&format!("/image/v2/images/{one}")).await.expect(204);
    user.send_bytes("PUT", &to(&three, "file"), OCTETS, mib(1)).await.expect(204);
}

const PROTECTED: &str = "
[^x_secret$]
create = admin
read = admin
update = admin
delete = admin
[^x_price$]
create = admin
read = @
update = !
delete = admin
[.*]
create = @
read = @
update = @
delete = @
";

#[tokio::test]
async fn protected_properties_are_touched_and_seen_by_those_who_may() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Arc::new(LocalStore::open(dir.path().join("images")).unwrap());
    let services = vec![image::service_with(Stores::only(blobs), image::Options::default())];
    let protections = Arc::new(Protections::parse(PROTECTED, ProtectionFormat::Roles).unwrap());
    let prepare: testkit::Prepare = Box::new(move |_, state| state.insert(protections));
    let cloud = TestCloud::with(Setup { services, prepare, ..Setup::default() }).await;
    let (user, admin) = (cloud.member("p").await, cloud.admin().await);
    let id = queued(&user, json!({"color": "red"})).await;
    user.post("/image/v2/images", json!({"name": "i", "x_price": "1"})).await.expect(403);
    patch(&user, &id, "add", "/x_secret", json!("1")).await.expect(403);
    patch(&admin, &id, "add", "/x_secret", json!("canary")).await.expect(200);
    patch(&admin, &id, "add", "/x_price", json!("7")).await.expect(200);
    let seen = show(&user, &id).await;
    assert_eq!((seen.text("/x_price"), seen.at("/x_secret")), ("7".into(), &Value::Null));
    assert_eq!(show(&admin, &id).await.text("/x_secret"), "canary");
    // Nor is it found out by the list, or by what a change answers.
    let listed = user.get("/image/v2/images?x_secret=canary").await.expect(200);
    assert_eq!(listed.at("/images"), &json!([]));
    patch(&user, &id, "replace", "/x_secret", json!("2")).await.expect(409);
    patch(&user, &id, "remove", "/x_secret", Value::Null).await.expect(409);
    patch(&user, &id, "replace", "/x_price", json!("1")).await.expect(403);
    patch(&admin, &id, "replace", "/x_price", json!("1")).await.expect(403);
    patch(&user, &id, "remove", "/x_price", Value::Null).await.expect(403);
    patch(&admin, &id, "remove", "/x_price", Value::Null).await.expect(200);
    patch(&user, &id, "replace", "/color", json!("blue")).await.expect(200);
    assert_eq!(show(&admin, &id).await.text("/x_secret"), "canary", "it is kept by the changes of those who do not see it");
}

#[tokio::test]
async fn an_image_whose_signature_nobody_can_verify_is_not_taken() {
    let cloud = ImageCloud::start().await;
    let user = cloud.cloud.member("p").await;
    let signed = json!({
        "img_signature": "c2ln", "img_signature_hash_method": "SHA-256", "img_signature_key_type": "RSA-PSS",
        "img_signature_certificate_uuid": "b1f2fe0a-4c8a-4b0e-9d0a-2f7a3c0f9a51",
    });
    let id = queued(&user, signed).await;
    upload(&user, &id, b"data").await.expect(400);
    user.send_bytes("PUT", &format!("/image/v2/images/{id}/stage"), OCTETS, "data".into()).await.expect(400);
    let web = json!({"method": {"name": "web-download", "uri": "https://example.org/image"}});
    user.post(&format!("/image/v2/images/{id}/import"), web).await.expect(400);
    assert_eq!(show(&user, &id).await.text("/status"), "queued");
    patch(&user, &id, "remove", "/img_signature", Value::Null).await.expect(200);
    upload(&user, &id, b"data").await.expect(204);
}
