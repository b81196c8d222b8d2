//! Imports over HTTP: into several stores, from the web, from an address, and copies.

use crate::{
    common::{ImageCloud, OCTETS, PATCH, patch, queued, show, status},
    moto::ObjectStore,
    stores::{bucket, emptied, noise, three_stores},
};
use image::Options;
use serde_json::{Value, json};
use testkit::{Answer, Client, until};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

pub(crate) async fn staged(client: &Client, body: Value, data: &[u8]) -> String {
    let id = queued(client, body).await;
    client.send_bytes("PUT", &format!("/image/v2/images/{id}/stage"), OCTETS, data.to_vec().into()).await.expect(204);
    id
}

pub(crate) async fn import(client: &Client, id: &str, body: Value) -> Answer {
    client.post(&format!("/image/v2/images/{id}/import"), body).await
}

pub(crate) async fn task(client: &Client, id: &str) -> Answer {
    client.get(&format!("/image/v2/images/{id}/tasks")).await.expect(200)
}

#[tokio::test]
async fn staged_data_goes_to_all_stores() {
    let (cloud, objects) = three_stores().await;
    let user = cloud.cloud.member("p").await;
    let data = noise(1 << 20);
    let id = staged(&user, json!({}), &data).await;
    import(&user, &id, json!({"method": {"name": "glance-direct"}, "all_stores": true})).await.expect(202);
    status(&user, &id, "active").await;
    let shown = show(&user, &id).await;
    assert_eq!(shown.text("/stores"), "local,fast,objects");
    assert_eq!(
        (shown.text("/os_glance_importing_to_stores"), shown.text("/os_glance_failed_import")),
        (String::new(), String::new())
    );
    assert_eq!(task(&user, &id).await.text("/tasks/0/status"), "success");
    assert_eq!((objects.objects().await.len(), cloud.blobs.list().await.unwrap().len()), (1, 1));
    assert!(user.get(&format!("/image/v2/images/{id}/file")).await.expect(200).bytes == data);
    user.delete(&format!("/image/v2/images/{id}")).await.expect(204);
    emptied(&objects).await;
}

#[tokio::test]
async fn an_import_says_what_is_wrong_with_it() {
    let (cloud, _objects) = three_stores().await;
    let (user, other) = (cloud.cloud.member("p").await, cloud.cloud.member("q").await);
    let id = staged(&user, json!({"visibility": "community"}), b"data").await;
    let direct = json!({"name": "glance-direct"});
    for (body, status) in [
        (json!({}), 400),
        (json!({"method": {}}), 400),
        (json!({"method": {"name": "telepathy"}}), 400),
        (json!({"method": direct, "stores": "local"}), 400),
        (json!({"method": direct, "stores": [1]}), 400),
        (json!({"method": direct, "stores": ["tape"]}), 409),
        (json!({"method": direct, "stores": ["local"], "all_stores": true}), 400),
        (json!({"method": direct, "all_stores": "yes"}), 400),
        (json!({"method": direct, "all_stores_must_succeed": "no"}), 400),
        (json!({"method": {"name": "web-download", "uri": "file:///etc/shadow"}}), 400),
        (json!({"method": {"name": "web-download", "uri": "http://[::ffff:169.254.169.254]/"}}), 400),
        (json!({"method": {"name": "web-download"}}), 400),
        (json!({"method": {"name": "web-download", "uri": "https://example.org/i"}}), 409),
        (json!({"method": {"name": "copy-image"}, "stores": ["fast"]}), 403),
    ] {
        let answer = import(&user, &id, body.clone()).await;
        assert_eq!(answer.status, status, "{body}: {}", String::from_utf8_lossy(&answer.bytes));
    }
    import(&other, &id, json!({"method": direct})).await.expect(403);
    assert_eq!(show(&user, &id).await.text("/status"), "uploading");
    assert_eq!(task(&user, &id).await.at("/tasks"), &json!([]));
    import(&user, &id, json!({"method": direct})).await.expect(202);
    import(&user, &id, json!({"method": direct})).await.expect(409);
}

/// `local` and a bucket that is not there.
async fn a_store_fails() -> (ImageCloud, ObjectStore) {
    let dir = tempfile::tempdir().unwrap();
    let objects = ObjectStore::start(dir.path()).await;
    let configure =
        |_: &std::path::Path| vec![bucket(&objects, "broken", "no-such-bucket"), bucket(&objects, "objects", "images")];
    let cloud = ImageCloud::configured(dir, Options::default(), &configure, "local").await;
    (cloud.working(Options::default()), objects)
}

#[tokio::test]
async fn when_all_stores_must_succeed_one_that_fails_fails_all() {
    let (cloud, objects) = a_store_fails().await;
    let user = cloud.cloud.member("p").await;
    let id = staged(&user, json!({}), b"data").await;
    let body = json!({"method": {"name": "glance-direct"}, "stores": ["objects", "broken", "local"]});
    import(&user, &id, body).await.expect(202);
    status(&user, &id, "queued").await;
    let shown = show(&user, &id).await;
    assert_eq!(
        (shown.text("/os_glance_failed_import"), shown.text("/os_glance_importing_to_stores")),
        ("broken".into(), String::new())
    );
    assert_eq!(shown.at("/stores"), &Value::Null);
    let task = task(&user, &id).await;
    assert_eq!(task.text("/tasks/0/status"), "failure");
    assert!(task.text("/tasks/0/message").contains("broken"), "{task:?}");
    emptied(&objects).await;
    // The image is as good as new.
    user.send_bytes("PUT", &format!("/image/v2/images/{id}/stage"), OCTETS, "again".into()).await.expect(204);
    import(&user, &id, json!({"method": {"name": "glance-direct"}})).await.expect(202);
    status(&user, &id, "active").await;
}

#[tokio::test]
async fn when_they_need_not_one_that_fails_is_told() {
    let (cloud, objects) = a_store_fails().await;
    let user = cloud.cloud.member("p").await;
    let id = staged(&user, json!({}), b"data").await;
    let body = json!({"method": {"name": "glance-direct"}, "stores": ["broken", "objects"], "all_stores_must_succeed": false});
    import(&user, &id, body).await.expect(202);
    status(&user, &id, "active").await;
    let ended = until("its end", || task(&user, &id), |t| t.text("/tasks/0/status") != "processing").await;
    assert_eq!(ended.text("/tasks/0/status"), "success");
    let shown = show(&user, &id).await;
    assert_eq!((shown.text("/stores"), shown.text("/os_glance_failed_import")), ("objects".into(), "broken".into()));
    assert_eq!(objects.objects().await.len(), 1);
}

#[tokio::test]
async fn a_copy_goes_where_the_image_is_not_yet() {
    let (cloud, objects) = three_stores().await;
    let (user, admin) = (cloud.cloud.member("p").await, cloud.cloud.admin().await);
    let id = queued(&user, json!({})).await;
    let client = user.clone().header("x-image-meta-store", "fast");
    client.send_bytes("PUT", &format!("/image/v2/images/{id}/file"), OCTETS, "data".into()).await.expect(204);
    import(&admin, &id, json!({"method": {"name": "copy-image"}, "stores": ["fast"]})).await.expect(400);
    import(&admin, &id, json!({"method": {"name": "copy-image"}, "all_stores": true})).await.expect(202);
    let done = until("copied", || show(&user, &id), |image| image.text("/stores").split(',').count() == 3).await;
    assert_eq!((done.text("/stores"), done.text("/status")), ("fast,local,objects".into(), "active".into()));
    assert_eq!(task(&user, &id).await.text("/tasks/0/status"), "success");
    // It is everywhere: nothing to be done.
    import(&admin, &id, json!({"method": {"name": "copy-image"}, "all_stores": true})).await.expect(202);
    assert_eq!(task(&user, &id).await.at("/tasks").as_array().unwrap().len(), 1);
    assert_eq!(objects.objects().await.len(), 1);
}

/// A web server that gives one answer; its port.
pub(crate) async fn web_server(answer: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 2048];
            let _ = stream.read(&mut head).await.unwrap();
            stream.write_all(&answer).await.ok();
        }
    });
    port
}

pub(crate) fn ok(data: &[u8]) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", data.len()).into_bytes();
    out.extend_from_slice(data);
    out
}

pub(crate) async fn web_cloud(ports: Vec<u16>) -> ImageCloud {
    let rules = web::fetch::Rules { allow: vec!["127.0.0.1/32".parse().unwrap()], ports, ..Default::default() };
    let options = Options { web: Some(rules), locations: true, ..Options::default() };
    ImageCloud::with(options.clone()).await.working(options)
}

#[tokio::test]
async fn an_image_is_fetched_from_the_web() {
    let data = noise(3 << 20);
    let ports = [
        web_server(ok(&data)).await,
        web_server(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n".to_vec()).await,
        web_server(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\nconnection: close\r\n\r\nshort".to_vec()).await,
        web_server(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec()).await,
    ];
    let cloud = web_cloud(ports.to_vec()).await;
    let user = cloud.cloud.member("p").await;
    let from = |port: u16| json!({"method": {"name": "web-download", "uri": format!("http://127.0.0.1:{port}/image")}});
    let id = queued(&user, json!({})).await;
    import(&user, &id, from(ports[0])).await.expect(202);
    status(&user, &id, "active").await;
    assert_eq!(show(&user, &id).await.at("/size"), &json!(data.len()));
    assert!(user.get(&format!("/image/v2/images/{id}/file")).await.expect(200).bytes == data);
    for (port, format, why) in [
        (ports[1], "raw", "redirects are not followed"),
        (ports[2], "raw", "could not be reached"),
        (ports[3], "raw", "404"),
        (ports[0], "qcow2", "refused"),
    ] {
        let id = queued(&user, json!({ "disk_format": format })).await;
        import(&user, &id, from(port)).await.expect(202);
        let failed = until("its failure", || show(&user, &id), |image| image.text("/os_glance_failed_import") == "local").await;
        assert_eq!(failed.text("/status"), "queued");
        let told = task(&user, &id).await;
        assert_eq!(told.text("/tasks/0/status"), "failure");
        assert!(told.text("/tasks/0/message").contains(why), "{told:?}");
    }
    assert!(cloud.incoming().is_empty());
    assert_eq!(cloud.blobs.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_task_makes_an_image_and_fetches_it() {
    let data = noise(1 << 20);
    let port = web_server(ok(&data)).await;
    let cloud = web_cloud(vec![port]).await;
    let (user, admin) = (cloud.cloud.member("p").await, cloud.cloud.admin().await);
    let input = json!({"import_from": format!("http://127.0.0.1:{port}/image"), "import_from_format": "raw", "image_properties": {"name": "n"}});
    user.post("/image/v2/tasks", json!({"type": "import", "input": input})).await.expect(403);
    let made = admin.post("/image/v2/tasks", json!({"type": "import", "input": input})).await.expect(201);
    assert_eq!(made.at("/input"), &input);
    let at = format!("/image/v2/tasks/{}", made.text("/id"));
    let ended = until("its end", || admin.get(&at), |task| task.text("/status") == "success").await;
    let id = ended.text("/result/image_id");
    assert_eq!((show(&admin, &id).await.text("/name").as_str(), ended.text("/type").as_str()), ("n", "import"));
    assert!(admin.get(&format!("/image/v2/images/{id}/file")).await.expect(200).bytes == data);
    let bad = |name: &str, value: serde_json::Value| {
        let mut input = input.clone();
        input[name] = value;
        json!({"type": "import", "input": input})
    };
    for body in [
        json!({"type": "export", "input": input}),
        json!({"type": "import"}),
        json!({"type": "import", "input": {}}),
        bad("import_from", json!("http://169.254.169.254/")),
        bad("import_from", json!(1)),
        bad("image_properties", json!("name")),
        bad("image_properties", json!({"visibility": "everywhere"})),
        bad(
            "image_properties",
            json!({"img_signature": "c2ln", "img_signature_hash_method": "SHA-256",
            "img_signature_key_type": "RSA-PSS", "img_signature_certificate_uuid": "5f1a4b1c-7b5e-4c7a-9d7e-0d4c4a3b2f10"}),
        ),
    ] {
        admin.post("/image/v2/tasks", body).await.expect(400);
    }
    assert_eq!(admin.get("/image/v2/images").await.expect(200).at("/images").as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_location_is_fetched_once_and_must_be_what_was_announced() {
    let port = web_server(ok(b"0123456789")).await;
    let cloud = web_cloud(vec![port]).await;
    let (user, other, admin) = (cloud.cloud.member("p").await, cloud.cloud.member("q").await, cloud.cloud.admin().await);
    let url = format!("http://127.0.0.1:{port}/image");
    let id = queued(&user, json!({"visibility": "community"})).await;
    let at = |id: &str| format!("/image/v2/images/{id}/locations");
    for (body, status) in [
        (json!({}), 400),
        (json!({"url": "file:///etc/shadow"}), 400),
        (json!({"url": "http://127.0.0.2/"}), 400),
        (json!({"url": url, "validation_data": "md5"}), 400),
        (json!({"url": url, "validation_data": {"os_hash_algo": "md5"}}), 400),
        (json!({"url": url, "validation_data": {"os_hash_algo": "crc", "os_hash_value": "1"}}), 400),
        (json!({"url": url, "validation_data": {"checksum": "1"}}), 400),
    ] {
        user.post(&at(&id), body).await.expect(status);
    }
    other.post(&at(&id), json!({ "url": url })).await.expect(403);
    let hash = json!({"os_hash_algo": "md5", "os_hash_value": "781e5e245d69b566979b86e28d23f2c7"});
    user.post(&at(&id), json!({"url": url, "validation_data": hash})).await.expect(202);
    status(&user, &id, "active").await;
    let shown = show(&user, &id).await;
    assert_eq!(shown.text("/checksum"), "781e5e245d69b566979b86e28d23f2c7");
    assert_eq!((shown.text("/os_hash_algo"), shown.text("/os_hash_value")), ("md5".into(), shown.text("/checksum")));
    assert_eq!(task(&user, &id).await.text("/tasks/0/type"), "location_import");
    user.post(&at(&id), json!({ "url": url })).await.expect(409);
    user.get(&at(&id)).await.expect(403);
    let listed = admin.get(&at(&id)).await.expect(200);
    assert_eq!((listed.text("/0/metadata/store"), listed.text("/0/url").starts_with("blob://local/")), ("local".into(), true));

    let id = queued(&user, json!({})).await;
    let wrong = json!({"os_hash_algo": "sha256", "os_hash_value": "0".repeat(64)});
    user.post(&at(&id), json!({"url": url, "validation_data": wrong})).await.expect(202);
    let failed = until("its failure", || show(&user, &id), |image| image.text("/os_glance_failed_import") == "local").await;
    assert_eq!((failed.text("/status"), failed.at("/stores")), ("queued".into(), &Value::Null));
}

#[tokio::test]
async fn locations_stay_closed_unless_the_operator_opens_them() {
    let cloud = ImageCloud::start().await;
    let (user, admin) = (cloud.cloud.member("p").await, cloud.cloud.admin().await);
    let id = queued(&user, json!({})).await;
    let location = json!({"url": "http://example.org/image"});
    user.post(&format!("/image/v2/images/{id}/locations"), location.clone()).await.expect(403);
    for client in [&user, &admin] {
        patch(client, &id, "add", "/locations/-", location.clone()).await.expect(403);
        patch(client, &id, "replace", "/locations", json!([location])).await.expect(403);
        let body = json!([{"op": "remove", "path": "/locations/0"}]).to_string();
        client.send_bytes("PATCH", &format!("/image/v2/images/{id}"), PATCH, body.into()).await.expect(403);
    }
}
