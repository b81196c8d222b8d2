//! Bytes of images over HTTP: upload, refusal, download, cut connections, staging, deadlines and garbage.

use crate::common::{ImageCloud, OCTETS, queued, show, status, upload};
use image::{Image, Options, Sweeper, Uploads};
use reconcile::{Next, Reconciler as _, Work};
use resource::Resource as _;
use serde_json::{Value, json};
use std::time::Duration;
use testkit::Client;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

/// A chunked upload of which the first bytes are sent.
async fn half_an_upload(cloud: &ImageCloud, client: &Client, id: &str) -> TcpStream {
    let host = cloud.cloud.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let token = client.token.as_deref().unwrap();
    let head = format!(
        "PUT /image/v2/images/{id}/file HTTP/1.1\r\nhost: {host}\r\nx-auth-token: {token}\r\ncontent-type: {OCTETS}\r\n\
         transfer-encoding: chunked\r\n\r\n5\r\nbytes\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn bytes_go_in_and_come_out() {
    let cloud = ImageCloud::start().await;
    let user = cloud.cloud.member("p").await;
    let id = queued(&user, json!({})).await;
    let file = format!("/image/v2/images/{id}/file");
    user.get(&file).await.expect(204);
    upload(&user, &id, b"0123456789").await.expect(204);
    let shown = show(&user, &id).await.expect(200);
    assert_eq!((shown.text("/status"), shown.at("/size"), shown.at("/virtual_size")), ("active".into(), &json!(10), &json!(10)));
    assert_eq!(shown.text("/checksum"), "781e5e245d69b566979b86e28d23f2c7");
    assert_eq!(shown.text("/stores"), "local");
    let whole = user.get(&file).await.expect(200);
    assert_eq!(
        (&whole.bytes[..], whole.header("content-md5"), whole.header("content-length")),
        (&b"0123456789"[..], "781e5e245d69b566979b86e28d23f2c7", "10")
    );
    let part = user.clone().header("range", "bytes=2-4").get(&file).await.expect(206);
    assert_eq!((&part.bytes[..], part.header("content-range")), (&b"234"[..], "bytes 2-4/10"));
    user.clone().header("range", "bytes=10-").get(&file).await.expect(416);
    upload(&user, &id, b"again").await.expect(409);
    assert_eq!(cloud.blobs.list().await.unwrap().len(), 1);
    assert!(cloud.incoming().is_empty());
}

#[tokio::test]
async fn content_that_is_not_as_declared_is_refused_and_leaves_nothing() {
    let cloud = ImageCloud::start().await;
    let user = cloud.cloud.member("p").await;
    let qcow2_with_backing_file = {
        let mut head = vec![0_u8; 1024];
        head[..8].copy_from_slice(b"QFI\xfb\0\0\0\x02");
        head[15] = 0xa0;
        head[19] = 4;
        head.leak()
    };
    for (format, data) in
        [("raw", &*qcow2_with_backing_file), ("qcow2", qcow2_with_backing_file), ("qcow2", b"no magic"), ("vmdk", b"no magic")]
    {
        let id = queued(&user, json!({ "disk_format": format })).await;
        let answer = user.send_bytes("PUT", &format!("/image/v2/images/{id}/file"), OCTETS, data.into()).await;
        assert_eq!(answer.status, 415, "{format}: {answer:?}");
        assert_eq!(show(&user, &id).await.text("/status"), "queued");
    }
    assert!(cloud.blobs.list().await.unwrap().is_empty() && cloud.incoming().is_empty());
}

#[tokio::test]
async fn unknown_content_passes_under_any_format_only_when_the_operator_says_so() {
    let cloud = ImageCloud::with(Options { require_format: false, ..Options::default() }).await;
    let user = cloud.cloud.member("p").await;
    let id = queued(&user, json!({"disk_format": "qcow2"})).await;
    upload(&user, &id, b"no magic").await.expect(204);
    let id = queued(&user, json!({"disk_format": "qcow2"})).await;
    upload(&user, &id, b"KDMV vmdk, perhaps").await.expect(415);
}

#[tokio::test]
async fn limits_and_media_types_are_kept() {
    let cloud = ImageCloud::with(Options { max_size: 4, ..Options::default() }).await;
    let user = cloud.cloud.member("p").await;
    let id = queued(&user, json!({})).await;
    upload(&user, &id, b"12345").await.expect(413);
    user.send_bytes("PUT", &format!("/image/v2/images/{id}/file"), "text/plain", "1".into()).await.expect(415);
    assert_eq!(show(&user, &id).await.text("/status"), "queued");
    upload(&user, &id, b"1234").await.expect(204);
    let bare = user.post("/image/v2/images", json!({"name": "no formats"})).await.expect(201).text("/id");
    upload(&user, &bare, b"1").await.expect(400);
    assert!(cloud.incoming().is_empty());
}

#[tokio::test]
async fn a_cut_upload_leaves_a_queued_image_and_nothing_else() {
    let cloud = ImageCloud::start().await;
    let user = cloud.cloud.member("p").await;
    let id = queued(&user, json!({})).await;
    let connection = half_an_upload(&cloud, &user, &id).await;
    status(&user, &id, "saving").await;
    upload(&user, &id, b"meanwhile").await.expect(409);
    drop(connection);
    status(&user, &id, "queued").await;
    upload(&user, &id, b"second try").await.expect(204);
    assert_eq!(cloud.blobs.list().await.unwrap().len(), 1);
    assert!(cloud.incoming().is_empty());
}

#[tokio::test]
async fn an_image_that_is_deleted_while_it_comes_in_stays_deleted() {
    let cloud = ImageCloud::start().await;
    let user = cloud.cloud.member("p").await;
    let id = queued(&user, json!({})).await;
    let mut connection = half_an_upload(&cloud, &user, &id).await;
    status(&user, &id, "saving").await;
    user.delete(&format!("/image/v2/images/{id}")).await.expect(204);
    connection.write_all(b"0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let read = async {
        loop {
            let mut part = [0; 512];
            connection.readable().await.unwrap();
            match connection.try_read(&mut part) {
                Ok(n) => answer.push_str(std::str::from_utf8(&part[..n]).unwrap()),
                Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::WouldBlock),
            }
            if answer.contains("\r\n") {
                return answer;
            }
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(20), read).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 410"), "{answer}");
    show(&user, &id).await.expect(404);
}

#[tokio::test]
async fn staged_bytes_are_imported_or_refused() {
    let cloud = ImageCloud::start().await;
    let user = cloud.cloud.member("p").await;
    let import = json!({"method": {"name": "glance-direct"}});
    let id = queued(&user, json!({})).await;
    let at = |what: &str| format!("/image/v2/images/{id}/{what}");
    user.post(&at("import"), import.clone()).await.expect(409);
    user.post(&at("import"), json!({"method": {"name": "web-download", "uri": "http://169.254.169.254/"}})).await.expect(400);
    user.send_bytes("PUT", &at("stage"), OCTETS, "staged".into()).await.expect(204);
    assert_eq!(show(&user, &id).await.text("/status"), "uploading");
    user.get(&at("file")).await.expect(204);
    user.post(&at("import"), import.clone()).await.expect(202);
    assert_eq!(show(&user, &id).await.text("/status"), "active");
    let tasks = user.get(&at("tasks")).await.expect(200);
    assert_eq!(
        (tasks.text("/tasks/0/status"), tasks.text("/tasks/0/input/import_req/method/name")),
        ("success".into(), "glance-direct".into())
    );

    let id = queued(&user, json!({"disk_format": "qcow2"})).await;
    let at = |what: &str| format!("/image/v2/images/{id}/{what}");
    user.send_bytes("PUT", &at("stage"), OCTETS, "no qcow2".into()).await.expect(204);
    user.post(&at("import"), import).await.expect(202);
    let shown = show(&user, &id).await;
    assert_eq!((shown.text("/status"), shown.text("/os_glance_failed_import")), ("queued".into(), "local".into()));
    assert_eq!(user.get(&at("tasks")).await.text("/tasks/0/status"), "failure");
    assert_eq!(cloud.blobs.list().await.unwrap().len(), 1);
    user.delete(&format!("/image/v2/images/{id}")).await.expect(204);
    user.get(&at("tasks")).await.expect(404);
}

#[tokio::test]
async fn an_upload_whose_process_died_is_queued_after_its_deadline() {
    let cloud = ImageCloud::start().await;
    let user = cloud.cloud.member("p").await;
    let (dead, live) = (queued(&user, json!({})).await, queued(&user, json!({})).await);
    let db = cloud.cloud.cloud.db.clone();
    let now = db.now().0;
    for (id, until) in [(&dead, now - 1), (&live, now + 3_600_000_000)] {
        let id = id.clone();
        db.transact(move |tx| {
            let mut row = tx.get(&Image::DEF.table, &id).unwrap().value().clone();
            row["status"] = "saving".into();
            row["upload"] = json!({"id": "an upload", "until": until});
            tx.put(&Image::DEF.table, &id, row);
            Ok::<_, ()>(())
        })
        .await
        .unwrap();
    }
    let work = Work::everywhere(db);
    for _ in 0..2 {
        assert_eq!(Uploads.reconcile(&format!("image/images/{dead}"), &work).await.unwrap(), Next::Done);
        let next = Uploads.reconcile(&format!("image/images/{live}"), &work).await.unwrap();
        assert!(matches!(next, Next::After(wait) if wait > Duration::from_secs(3000)), "{next:?}");
    }
    assert_eq!(show(&user, &dead).await.text("/status"), "queued");
    assert_eq!(show(&user, &live).await.text("/status"), "saving");
    upload(&user, &dead, b"again").await.expect(204);
}

#[tokio::test]
async fn a_blob_goes_when_no_image_names_it() {
    let cloud = ImageCloud::start().await;
    let user = cloud.cloud.member("p").await;
    let db = cloud.cloud.cloud.db.clone();
    let count = || async { cloud.blobs.list().await.unwrap().len() };
    let (one, two, staged) = (queued(&user, json!({})).await, queued(&user, json!({})).await, queued(&user, json!({})).await);
    upload(&user, &one, b"the same").await.expect(204);
    upload(&user, &two, b"the same").await.expect(204);
    user.send_bytes("PUT", &format!("/image/v2/images/{staged}/stage"), OCTETS, "staged".into()).await.expect(204);
    assert_eq!(count().await, 2);
    let eager = Sweeper::with_grace(cloud.blobs.clone(), Duration::ZERO);
    user.delete(&format!("/image/v2/images/{one}")).await.expect(204);
    eager.sweep(&db).await.unwrap();
    assert_eq!(count().await, 2, "another image has the same content, and staged data is named too");
    user.delete(&format!("/image/v2/images/{two}")).await.expect(204);
    Sweeper::new(cloud.blobs.clone()).sweep(&db).await.unwrap();
    assert_eq!(count().await, 2, "its grace is not over");
    let work = Work::everywhere(db.clone());
    for _ in 0..2 {
        eager.reconcile(&format!("image/images/{two}"), &work).await.unwrap();
        assert_eq!(count().await, 1);
    }
    user.delete(&format!("/image/v2/images/{staged}")).await.expect(204);
    eager.sweep(&db).await.unwrap();
    assert_eq!(count().await, 0);
}

#[tokio::test]
async fn deactivated_images_are_kept_from_users() {
    let cloud = ImageCloud::start().await;
    let (user, admin) = (cloud.cloud.member("p").await, cloud.cloud.admin().await);
    let id = queued(&user, json!({})).await;
    let at = |what: &str| format!("/image/v2/images/{id}/{what}");
    user.post(&at("actions/deactivate"), Value::Null).await.expect(403);
    upload(&user, &id, b"data").await.expect(204);
    user.post(&at("actions/deactivate"), Value::Null).await.expect(204);
    user.get(&at("file")).await.expect(403);
    admin.get(&at("file")).await.expect(200);
    user.post(&at("actions/reactivate"), Value::Null).await.expect(204);
    user.get(&at("file")).await.expect(200);
}
