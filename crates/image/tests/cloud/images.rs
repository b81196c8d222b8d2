//! Rows of images over HTTP: who sees and changes them, lists, sharing, metadata definitions.

use crate::common::{ImageCloud, patch, queued, show, upload};
use serde_json::{Value, json};
use testkit::matrix::{Somebody, violations};

#[tokio::test]
async fn every_route_lets_in_only_those_it_should() {
    let cloud = ImageCloud::start().await;
    let people = [
        Somebody { name: "nobody", client: cloud.cloud.anonymous() },
        Somebody { name: "a reader", client: cloud.cloud.user("p", "reader").await },
        Somebody { name: "a member", client: cloud.cloud.member("p").await },
        Somebody { name: "the administrator", client: cloud.cloud.admin().await },
    ];
    let routes: Vec<_> = cloud.cloud.routes.iter().filter(|r| r.path.starts_with("/image")).cloned().collect();
    assert!(routes.len() > 60, "{}", routes.len());
    let wrong = violations(&routes, &people).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn an_image_is_shown_as_glance_shows_it() {
    let cloud = ImageCloud::start().await;
    let user = cloud.cloud.member("p").await;
    let body = json!({
        "id": "0b34bf3d-a2e1-4a35-9bd6-8ee4d8d4b2a1", "name": "i", "disk_format": "raw", "container_format": "bare", "tags": ["b", "a"],
        "visibility": "private", "kernel_id": null, "os_distro": "debian",
    });
    let made = user.post("/image/v2/images", body.clone()).await.expect(201);
    assert_eq!(made.header("location"), format!("{}/image/v2/images/0b34bf3d-a2e1-4a35-9bd6-8ee4d8d4b2a1", cloud.cloud.url));
    assert_eq!(made.header("openstack-image-import-methods"), "glance-direct,web-download");
    let mut shown = made.body;
    for name in ["created_at", "updated_at", "owner"] {
        assert!(shown[name].is_string(), "{name}");
        shown.as_object_mut().unwrap().remove(name);
    }
    let wanted = json!({
        "id": "0b34bf3d-a2e1-4a35-9bd6-8ee4d8d4b2a1", "name": "i", "status": "queued", "visibility": "private", "size": null,
        "virtual_size": null, "disk_format": "raw", "container_format": "bare", "checksum": null, "os_hash_algo": null,
        "os_hash_value": null, "min_disk": 0, "min_ram": 0, "protected": false, "os_hidden": false, "tags": ["a", "b"],
        "self": "/v2/images/0b34bf3d-a2e1-4a35-9bd6-8ee4d8d4b2a1", "file": "/v2/images/0b34bf3d-a2e1-4a35-9bd6-8ee4d8d4b2a1/file",
        "schema": "/v2/schemas/image", "kernel_id": null, "os_distro": "debian",
    });
    assert_eq!(shown, wanted);
    user.post("/image/v2/images", body).await.expect(409);
}

#[tokio::test]
async fn a_create_says_what_is_wrong_with_it() {
    let cloud = ImageCloud::start().await;
    let (user, reader) = (cloud.cloud.member("p").await, cloud.cloud.user("p", "reader").await);
    for (body, status) in [
        (json!({"disk_format": "floppy"}), 400),
        (json!({"id": "x"}), 400),
        (json!({"custom": 1}), 400),
        (json!({"name": "x".repeat(256)}), 400),
        (json!({"min_disk": -1}), 400),
        (json!([]), 400),
        (json!({"status": "active"}), 403),
        (json!({"checksum": "1"}), 403),
        (json!({"os_glance_x": "1"}), 403),
        (json!({"members": "1"}), 403),
        (json!({"locations": []}), 403),
        (json!({"visibility": "public"}), 403),
        (json!({"owner": "another"}), 403),
        (json!({"tags": (0..129).map(|n| n.to_string()).collect::<Vec<_>>()}), 413),
    ] {
        let answer = user.post("/image/v2/images", body.clone()).await;
        assert_eq!(answer.status, status, "{body}: {}", String::from_utf8_lossy(&answer.bytes));
    }
    reader.post("/image/v2/images", json!({"name": "x"})).await.expect(403);
}

#[tokio::test]
async fn foreign_images_are_seen_and_changed_as_their_visibility_says() {
    let cloud = ImageCloud::start().await;
    let (owner, other, admin) = (cloud.cloud.member("p").await, cloud.cloud.member("q").await, cloud.cloud.admin().await);
    let list = |query: &'static str| {
        let other = other.clone();
        async move { other.get(&format!("/image/v2/images{query}")).await.expect(200).all("/images", "id") }
    };
    let private = queued(&owner, json!({"visibility": "private"})).await;
    let community = queued(&owner, json!({"visibility": "community"})).await;
    let public = queued(&admin, json!({"visibility": "public"})).await;
    let hidden = queued(&admin, json!({"visibility": "public", "os_hidden": true})).await;
    show(&other, &private).await.expect(404);
    show(&other, &community).await.expect(200);
    assert_eq!(list("").await, [public.as_str()]);
    assert_eq!(list("?visibility=community").await, [community.as_str()]);
    assert_eq!(list("?os_hidden=true").await, [hidden.as_str()]);
    assert_eq!(list("?visibility=private").await, Vec::<String>::new());
    patch(&other, &private, "replace", "/name", json!("mine")).await.expect(404);
    patch(&other, &community, "replace", "/name", json!("mine")).await.expect(403);
    other.delete(&format!("/image/v2/images/{public}")).await.expect(403);
    other.delete(&format!("/image/v2/images/{private}")).await.expect(404);
    upload(&other, &community, b"mine").await.expect(403);
    patch(&owner, &private, "replace", "/visibility", json!("public")).await.expect(403);
    patch(&owner, &private, "replace", "/owner", json!("q")).await.expect(403);
    patch(&admin, &private, "replace", "/visibility", json!("public")).await.expect(200);
    show(&other, &private).await.expect(200);
}

#[tokio::test]
async fn a_shared_image_is_listed_once_it_is_accepted() {
    let cloud = ImageCloud::start().await;
    let (owner, other, third) = (cloud.cloud.member("p").await, cloud.cloud.member("q").await, cloud.cloud.member("r").await);
    let project = queued(&other, json!({})).await;
    let project = show(&other, &project).await.text("/owner");
    let id = queued(&owner, json!({})).await;
    let members = format!("/image/v2/images/{id}/members");
    let one = format!("{members}/{project}");
    other.get(&one).await.expect(404);
    owner.post(&members, json!({ "member": project })).await.expect(200);
    owner.post(&members, json!({ "member": project })).await.expect(409);
    owner.post(&members, json!({})).await.expect(400);
    show(&other, &id).await.expect(200);
    show(&third, &id).await.expect(404);
    let listed = |query: &'static str| {
        let (other, id) = (other.clone(), id.clone());
        async move { other.get(&format!("/image/v2/images{query}")).await.expect(200).all("/images", "id").contains(&id) }
    };
    assert!(!listed("").await && listed("?member_status=pending").await && listed("?member_status=all").await);
    owner.put(&one, json!({"status": "accepted"})).await.expect(403);
    other.put(&one, json!({"status": "perhaps"})).await.expect(400);
    other.put(&one, json!({"status": "accepted"})).await.expect(200);
    assert!(listed("").await);
    other.post(&members, json!({"member": "r"})).await.expect(403);
    other.delete(&one).await.expect(403);
    owner.delete(&one).await.expect(204);
    show(&other, &id).await.expect(404);
    patch(&owner, &id, "replace", "/visibility", json!("private")).await.expect(200);
    owner.post(&members, json!({ "member": project })).await.expect(403);
}

#[tokio::test]
async fn lists_are_filtered_sorted_and_paged() {
    let cloud = ImageCloud::start().await;
    let user = cloud.cloud.member("p").await;
    for (name, data, body) in [
        ("a", &b"1"[..], json!({"tags": ["x", "y"], "color": "red"})),
        ("b", b"22", json!({"tags": ["x"], "color": "blue"})),
        ("c,d", b"333", json!({"protected": true})),
    ] {
        let id = queued(&user, body).await;
        patch(&user, &id, "replace", "/name", json!(name)).await.expect(200);
        upload(&user, &id, data).await.expect(204);
    }
    let names = |query: &'static str| {
        let user = user.clone();
        async move { user.get(&format!("/image/v2/images?{query}")).await.expect(200).all("/images", "name").join(" ") }
    };
    assert_eq!(names("sort=name:asc").await, "a b c,d");
    assert_eq!(names("sort_key=size&sort_dir=desc").await, "c,d b a");
    assert_eq!(names("tag=x&tag=y").await, "a");
    assert_eq!(names("color=blue").await, "b");
    assert_eq!(names("name=in:a,%22c,d%22&sort=name:asc").await, "a c,d");
    assert_eq!(names("size_min=2&size_max=2").await, "b");
    assert_eq!(names("protected=True").await, "c,d");
    assert_eq!(names("created_at=gt:2100-01-01T00:00:00Z").await, "");
    assert_eq!(names("status=queued").await, "");
    let page = user.get("/image/v2/images?limit=2&sort=name:asc").await.expect(200);
    assert_eq!(page.all("/images", "name"), ["a", "b"]);
    let next = user.get(&format!("/image{}", page.text("/next"))).await.expect(200);
    assert_eq!((next.all("/images", "name"), next.at("/next")), (vec!["c,d".to_owned()], &Value::Null));
    for bad in
        ["limit=x", "marker=none", "sort=color:asc", "size_min=x", "created_at=gt:never", "member_status=odd", "visibility=odd"]
    {
        user.get(&format!("/image/v2/images?{bad}")).await.expect(400);
    }
}

#[tokio::test]
async fn a_protected_image_stays() {
    let cloud = ImageCloud::start().await;
    let user = cloud.cloud.member("p").await;
    let id = queued(&user, json!({"protected": true})).await;
    user.delete(&format!("/image/v2/images/{id}")).await.expect(403);
    patch(&user, &id, "replace", "/protected", json!(false)).await.expect(200);
    user.delete(&format!("/image/v2/images/{id}")).await.expect(204);
    show(&user, &id).await.expect(404);
    user.delete(&format!("/image/v2/images/{id}")).await.expect(404);
}

#[tokio::test]
async fn a_namespace_goes_with_what_it_holds() {
    let cloud = ImageCloud::start().await;
    let (admin, user) = (cloud.cloud.admin().await, cloud.cloud.member("p").await);
    const NS: &str = "/image/v2/metadefs/namespaces";
    user.post(NS, json!({"namespace": "n"})).await.expect(403);
    let body = json!({
        "namespace": "n", "visibility": "public", "protected": true, "tags": [{"name": "t"}],
        "resource_type_associations": [{"name": "OS::Nova::Server", "prefix": "hw_"}],
        "properties": {"p": {"title": "P", "type": "string"}},
    });
    admin.post(NS, body.clone()).await.expect(201);
    admin.post(NS, body).await.expect(409);
    admin.post(&format!("{NS}/n/objects"), json!({"name": "o"})).await.expect(201);
    admin.post(&format!("{NS}/n/properties"), json!({"name": "bad", "title": "no type"})).await.expect(400);
    let shown = user.get(&format!("{NS}/n?resource_type=OS::Nova::Server")).await.expect(200);
    assert_eq!(shown.text("/properties/hw_p/title"), "P");
    assert_eq!((shown.text("/tags/0/name"), shown.text("/objects/0/name")), ("t".into(), "o".into()));
    admin.delete(&format!("{NS}/n")).await.expect(403);
    let renamed = json!({"namespace": "m", "protected": false, "visibility": "private"});
    admin.put(&format!("{NS}/n"), renamed).await.expect(200);
    admin.get(&format!("{NS}/n/objects/o")).await.expect(404);
    admin.get(&format!("{NS}/m/objects/o")).await.expect(200);
    user.get(&format!("{NS}/m")).await.expect(404);
    admin.delete(&format!("{NS}/m")).await.expect(204);
    admin.post(NS, json!({"namespace": "m"})).await.expect(201);
    assert_eq!(admin.get(&format!("{NS}/m/objects")).await.expect(200).at("/objects"), &json!([]));
}

#[tokio::test]
async fn definitions_are_what_clients_can_build_forms_of() {
    let cloud = ImageCloud::start().await;
    let admin = cloud.cloud.admin().await;
    const NS: &str = "/image/v2/metadefs/namespaces";
    admin.post(NS, json!({"namespace": "n"})).await.expect(201);
    let bad = json!({"title": "P", "type": "string", "minLength": "1"});
    for (name, value) in [
        ("properties", json!({ "p": bad })),
        ("properties", json!([])),
        ("objects", json!("AAA")),
        ("objects", json!([{"name": "o", "properties": {"p": {"type": "string"}}}])),
        ("resource_type_associations", json!([{"name": "t", "properties_target": 1}])),
    ] {
        admin.post(NS, json!({"namespace": "bad", name: value})).await.expect(400);
    }
    admin.get(&format!("{NS}/bad")).await.expect(404);
    let named = |mut body: Value, name: &str| {
        body["name"] = name.into();
        body
    };
    admin.post(&format!("{NS}/n/properties"), named(bad.clone(), "p")).await.expect(400);
    admin.post(&format!("{NS}/n/properties"), json!({"name": "p", "title": "P", "type": "string"})).await.expect(201);
    admin.put(&format!("{NS}/n/properties/p"), named(bad.clone(), "p")).await.expect(400);
    admin.post(&format!("{NS}/n/objects"), json!({"name": "o", "required": ["a", "a"]})).await.expect(400);
    admin.post(&format!("{NS}/n/objects"), json!({"name": "o", "properties": {"p": bad}})).await.expect(400);
    admin.post(&format!("{NS}/n/resource_types"), json!({"name": "t", "prefix": {}})).await.expect(400);
    // What only the service says is not taken from others.
    for (path, body) in [
        (NS.to_owned(), json!({"namespace": "own", "self": "/v2"})),
        (format!("{NS}/n/objects"), json!({"name": "o", "schema": "/v2"})),
        (format!("{NS}/n/properties"), json!({"name": "q", "title": "Q", "type": "string", "created_at": ""})),
        (format!("{NS}/n/resource_types"), json!({"name": "t", "updated_at": ""})),
    ] {
        admin.post(&path, body).await.expect(403);
    }
}

#[tokio::test]
async fn versions_and_usage_tell_the_truth() {
    let cloud = ImageCloud::start().await;
    let (nobody, user) = (cloud.cloud.anonymous(), cloud.cloud.member("p").await);
    let versions = nobody.get("/image").await.expect(300);
    assert_eq!(versions.text("/versions/0/links/0/href"), format!("{}/image/v2/", cloud.cloud.url));
    nobody.get("/image/versions").await.expect(200);
    nobody.get("/image/v2/images").await.expect(401);
    user.get("/image/v2/cache").await.expect(403);
    cloud.cloud.admin().await.get("/image/v2/cache").await.expect(404);
    assert_eq!(versions.text("/versions/0/id"), "v2.17", "there is nothing to be cached here");
    let id = queued(&user, json!({})).await;
    upload(&user, &id, b"data").await.expect(204);
    let usage = user.get("/image/v2/info/usage").await.expect(200);
    assert_eq!(usage.at("/usage/image_count_total"), &json!({"limit": -1, "usage": 1}));
    assert_eq!(usage.at("/usage/image_size_total/usage"), &json!(0), "whole MiB");
    user.get(&format!("/image/v2/images/{id}/locations")).await.expect(403);
}
