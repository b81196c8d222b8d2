//! Several stores over HTTP: a directory and a bucket beside `local`. The bucket is a real server's.

use crate::{
    common::{ImageCloud, OCTETS, queued, show, status, upload},
    moto::{ObjectStore, SECRET},
};
use assign::Blobs as _;
use image::{Backend, Definition, Image, Options, Sweeper, Uploads};
use reconcile::{Reconciler as _, Work};
use resource::Resource as _;
use serde_json::{Value, json};
use std::time::Duration;
use testkit::{Client, until};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

pub(crate) fn bucket(objects: &ObjectStore, id: &str, bucket: &str) -> Definition {
    let backend = Backend::S3 {
        endpoint: objects.endpoint.clone(),
        bucket: bucket.into(),
        region: "us-east-1".into(),
        prefix: "cloud/".into(),
        credentials: objects.credentials.clone(),
        ca: None,
    };
    Definition { id: id.into(), description: "Objects".into(), weight: 5, backend }
}

/// `local`, the directory `fast` and the bucket `objects`; what works in the background runs.
pub(crate) async fn three_stores() -> (ImageCloud, ObjectStore) {
    let dir = tempfile::tempdir().unwrap();
    let objects = ObjectStore::start(dir.path()).await;
    let fast = Backend::Local { path: dir.path().join("fast") };
    let fast = Definition { id: "fast".into(), description: String::new(), weight: 1, backend: fast };
    let configure = |_: &std::path::Path| vec![fast.clone(), bucket(&objects, "objects", "images")];
    let cloud = ImageCloud::configured(dir, Options::default(), &configure, "local").await;
    (cloud.working(Options::default()), objects)
}

async fn upload_to(client: &Client, id: &str, store: &str, data: &[u8]) -> testkit::Answer {
    let client = client.clone().header("x-image-meta-store", store);
    client.send_bytes("PUT", &format!("/image/v2/images/{id}/file"), OCTETS, data.to_vec().into()).await
}

/// Bytes that repeat nowhere near.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(length);
    out
}

#[tokio::test]
async fn stores_are_shown_without_their_secrets() {
    let (cloud, _objects) = three_stores().await;
    let (user, admin) = (cloud.cloud.member("p").await, cloud.cloud.admin().await);
    let shown = user.get("/image/v2/info/stores").await.expect(200);
    assert_eq!(shown.all("/stores", "id"), ["local", "fast", "objects"]);
    assert_eq!((shown.text("/stores/0/default"), shown.text("/stores/2/description")), ("true".into(), "Objects".into()));
    user.get("/image/v2/info/stores/detail").await.expect(403);
    let detail = admin.get("/image/v2/info/stores/detail").await.expect(200);
    assert_eq!(detail.all("/stores", "type"), ["file", "file", "s3"]);
    assert_eq!(detail.at("/stores/2/weight"), &json!(5));
    for answer in [shown, detail] {
        let text = String::from_utf8_lossy(&answer.bytes).into_owned();
        assert!(!text.contains(SECRET) && !text.contains("the-access-key"), "{text}");
    }
    let made = user.post("/image/v2/images", json!({"name": "i"})).await.expect(201);
    assert_eq!(made.header("openstack-image-store-ids"), "local,fast,objects");
    let methods = user.get("/image/v2/info/import").await.expect(200);
    assert_eq!(methods.at("/import-methods/value"), &json!(["glance-direct", "web-download", "copy-image"]));
}

#[tokio::test]
async fn bytes_go_to_the_store_that_is_named_and_come_back() {
    let (cloud, objects) = three_stores().await;
    let user = cloud.cloud.member("p").await;
    for store in ["local", "fast", "objects"] {
        let id = queued(&user, json!({})).await;
        upload_to(&user, &id, store, b"0123456789").await.expect(204);
        let shown = show(&user, &id).await;
        assert_eq!((shown.text("/stores"), shown.text("/checksum")), (store.into(), "781e5e245d69b566979b86e28d23f2c7".into()));
        let file = format!("/image/v2/images/{id}/file");
        let whole = user.get(&file).await.expect(200);
        assert_eq!((&whole.bytes[..], whole.header("content-length")), (&b"0123456789"[..], "10"));
        let part = user.clone().header("range", "bytes=2-4").get(&file).await.expect(206);
        assert_eq!((&part.bytes[..], part.header("content-range")), (&b"234"[..], "bytes 2-4/10"));
        user.clone().header("range", "bytes=10-").get(&file).await.expect(416);
        assert_eq!(objects.objects().await.len(), usize::from(store == "objects"));
        user.delete(&format!("/image/v2/images/{id}")).await.expect(204);
    }
    let id = queued(&user, json!({})).await;
    upload_to(&user, &id, "tape", b"x").await.expect(400);
    assert!(cloud.incoming().is_empty());
    emptied(&objects).await;
}

/// Waits until nothing is in the bucket, whole or half.
pub(crate) async fn emptied(objects: &ObjectStore) {
    let empty = async {
        while !objects.objects().await.is_empty() || objects.unfinished().await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), empty).await.expect("the bucket is empty");
}

#[tokio::test]
async fn large_images_go_in_parts_and_any_range_comes_back() {
    let (cloud, objects) = three_stores().await;
    let user = cloud.cloud.member("p").await;
    let data = noise((40 << 20) + 12_345);
    let id = queued(&user, json!({})).await;
    upload_to(&user, &id, "objects", &data).await.expect(204);
    let file = format!("/image/v2/images/{id}/file");
    assert!(user.get(&file).await.expect(200).bytes == data);
    let (first, last) = ((16 << 20) - 7, (33 << 20) + 1);
    let part = user.clone().header("range", &format!("bytes={first}-{last}")).get(&file).await.expect(206);
    assert!(part.bytes == data[first..=last]);
    assert!(cloud.blobs.list().await.unwrap().is_empty() && cloud.incoming().is_empty(), "nothing of it stays on the controller");
    assert_eq!((objects.objects().await.len(), objects.unfinished().await), (1, 0));
}

#[tokio::test]
async fn refused_and_cut_uploads_leave_nothing_in_the_bucket() {
    let (cloud, objects) = three_stores().await;
    let user = cloud.cloud.member("p").await;
    let id = queued(&user, json!({"disk_format": "qcow2"})).await;
    upload_to(&user, &id, "objects", b"no qcow2").await.expect(415);
    assert_eq!(show(&user, &id).await.text("/status"), "queued");
    emptied(&objects).await;

    let id = queued(&user, json!({})).await;
    let connection = half_an_upload(&cloud, &user, &id, &noise(20 << 20)).await;
    status(&user, &id, "saving").await;
    let begun = async {
        while objects.unfinished().await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), begun).await.expect("parts are sent before the last byte has come");
    drop(connection);
    status(&user, &id, "queued").await;
    emptied(&objects).await;
    upload_to(&user, &id, "objects", b"second try").await.expect(204);
    assert!(cloud.incoming().is_empty());
}

async fn half_an_upload(cloud: &ImageCloud, client: &Client, id: &str, data: &[u8]) -> TcpStream {
    let host = cloud.cloud.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let token = client.token.as_deref().unwrap();
    let head = format!(
        "PUT /image/v2/images/{id}/file HTTP/1.1\r\nhost: {host}\r\nx-auth-token: {token}\r\ncontent-type: {OCTETS}\r\n\
         x-image-meta-store: objects\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n",
        data.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(data).await.unwrap();
    stream.write_all(b"\r\n").await.unwrap();
    stream
}

#[tokio::test]
async fn parts_of_a_process_that_died_are_taken_back() {
    let (cloud, objects) = three_stores().await;
    let user = cloud.cloud.member("p").await;
    let id = queued(&user, json!({})).await;
    let key = format!("cloud/{id}/an-upload");
    objects.bucket().begin(&key).await.unwrap();
    let db = cloud.cloud.cloud.db.clone();
    let (image, until) = (id.clone(), db.now().0 - 1);
    db.transact(move |tx| {
        let mut row = tx.get(&Image::DEF.table, &image).unwrap().value().clone();
        row["status"] = "saving".into();
        row["upload"] = json!({"id": "an upload", "until": until, "place": {"store": "objects", "key": key}});
        tx.put(&Image::DEF.table, &image, row);
        Ok::<_, ()>(())
    })
    .await
    .unwrap();
    Uploads.reconcile(&format!("image/images/{id}"), &Work::everywhere(db)).await.unwrap();
    status(&user, &id, "queued").await;
    emptied(&objects).await;
    upload_to(&user, &id, "objects", b"again").await.expect(204);
}

#[tokio::test]
async fn a_store_that_is_away_is_an_error_and_the_image_can_be_uploaded_again() {
    let dir = tempfile::tempdir().unwrap();
    let objects = ObjectStore::start(dir.path()).await;
    let configure = |_: &std::path::Path| vec![bucket(&objects, "objects", "no-such-bucket")];
    let cloud = ImageCloud::configured(dir, Options::default(), &configure, "objects").await.working(Options::default());
    let user = cloud.cloud.member("p").await;
    let id = queued(&user, json!({})).await;
    let refused = upload(&user, &id, b"data").await.expect(503);
    assert!(!String::from_utf8_lossy(&refused.bytes).contains(SECRET));
    assert_eq!(show(&user, &id).await.text("/status"), "queued");
    upload_to(&user, &id, "local", b"data").await.expect(204);
    assert!(cloud.incoming().is_empty());
}

#[tokio::test]
async fn nodes_get_images_of_other_stores_through_a_cache_of_bounded_size() {
    let (cloud, _objects) = three_stores().await;
    let user = cloud.cloud.member("p").await;
    let mut blobs = Vec::new();
    for (store, data) in
        [("objects", &b"first of the bucket"[..]), ("objects", b"second of the bucket"), ("fast", b"of the directory")]
    {
        let id = queued(&user, json!({})).await;
        upload_to(&user, &id, store, data).await.expect(204);
        let blob = show(&user, &id).await.text("/os_hash_value");
        let to = cloud.dir.path().join(format!("node-{id}"));
        cloud.blobs.fetch(&blob, &to).await.unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), data);
        blobs.push(blob);
    }
    let here = || async { cloud.blobs.list().await.unwrap().into_iter().map(|s| s.blob).collect::<Vec<_>>() };
    assert_eq!(here().await.len(), 3);
    let db = cloud.cloud.cloud.db.clone();
    Sweeper::of(cloud.stores.clone(), 1 << 20, Duration::ZERO).sweep(&db).await.unwrap();
    let mut kept = here().await;
    let mut wanted = vec![blobs[0].clone(), blobs[1].clone()];
    kept.sort();
    wanted.sort();
    assert_eq!(kept, wanted, "a directory of this controller needs no cache");
    Sweeper::of(cloud.stores.clone(), 20, Duration::ZERO).sweep(&db).await.unwrap();
    assert_eq!(here().await, [blobs[1].as_str()], "the newest of those that fit");
    Sweeper::of(cloud.stores.clone(), 0, Duration::ZERO).sweep(&db).await.unwrap();
    assert!(here().await.is_empty());
}

#[tokio::test]
async fn data_is_taken_out_of_a_store_but_never_out_of_the_last() {
    let (cloud, objects) = three_stores().await;
    let (user, admin) = (cloud.cloud.member("p").await, cloud.cloud.admin().await);
    let id = queued(&user, json!({})).await;
    let from = |store: &str| format!("/image/v2/stores/{store}/{id}");
    admin.delete(&from("local")).await.expect(409);
    upload_to(&user, &id, "objects", b"data").await.expect(204);
    admin.delete(&from("objects")).await.expect(403);
    let copy = json!({"method": {"name": "copy-image"}, "stores": ["local"]});
    user.post(&format!("/image/v2/images/{id}/import"), copy.clone()).await.expect(403);
    admin.post(&format!("/image/v2/images/{id}/import"), copy).await.expect(202);
    let copied = until("copied", || show(&user, &id), |image| image.text("/stores") == "objects,local").await;
    assert_eq!((copied.text("/status"), copied.text("/os_glance_failed_import")), ("active".into(), String::new()));
    user.delete(&from("objects")).await.expect(403);
    admin.delete(&from("tape")).await.expect(409);
    admin.delete(&from("fast")).await.expect(404);
    admin.delete(&from("objects")).await.expect(204);
    assert_eq!(show(&user, &id).await.text("/stores"), "local");
    emptied(&objects).await;
    assert_eq!(&user.get(&format!("/image/v2/images/{id}/file")).await.expect(200).bytes[..], b"data");
    admin.delete(&from("local")).await.expect(403);
    user.post(&format!("/image/v2/images/{id}/actions/deactivate"), Value::Null).await.expect(204);
    admin.delete(&from("local")).await.expect(409);
}

#[tokio::test]
async fn an_administrator_sees_and_steers_the_cache() {
    let (cloud, _objects) = three_stores().await;
    let (user, admin) = (cloud.cloud.member("p").await, cloud.cloud.admin().await);
    let (one, two) = (queued(&user, json!({})).await, queued(&user, json!({})).await);
    let entry = |id: &str| format!("/image/v2/cache/{id}");
    admin.put(&entry(&one), Value::Null).await.expect(400);
    upload_to(&user, &one, "objects", b"in the bucket").await.expect(204);
    upload_to(&user, &two, "local", b"here anyway").await.expect(204);
    user.get("/image/v2/cache").await.expect(403);
    user.put(&entry(&one), Value::Null).await.expect(403);
    admin.put(&entry("none"), Value::Null).await.expect(404);
    let state = || async { admin.get("/image/v2/cache").await.expect(200) };
    assert_eq!(state().await.at("/cached_images"), &json!([]));
    for id in [&one, &two] {
        admin.put(&entry(id), Value::Null).await.expect(202);
    }
    let cached = until("an empty queue", state, |s| s.at("/queued_images") == &json!([])).await;
    assert_eq!(cached.all("/cached_images", "image_id"), [one.as_str()]);
    assert_eq!((cached.at("/cached_images/0/size"), cached.at("/cached_images/0/hits")), (&json!(13), &json!(0)));
    assert_eq!(&user.get(&format!("/image/v2/images/{one}/file")).await.expect(200).bytes[..], b"in the bucket");
    assert_eq!(state().await.at("/cached_images/0/hits"), &json!(1));
    let pruned = admin.post("/image/v2/cache/prune", Value::Null).await.expect(200);
    assert_eq!(pruned.at("/total_files_pruned"), &json!(0));
    admin.post("/image/v2/cache/clean", Value::Null).await.expect(200);
    admin.clone().header("x-image-cache-clear-target", "moon").delete("/image/v2/cache").await.expect(400);
    admin.clone().header("x-image-cache-clear-target", "queue").delete("/image/v2/cache").await.expect(204);
    assert_eq!(state().await.all("/cached_images", "image_id").len(), 1);
    admin.delete(&entry(&one)).await.expect(204);
    assert_eq!(state().await.at("/cached_images"), &json!([]));
    admin.put(&entry(&one), Value::Null).await.expect(202);
    until("it is back", state, |s| s.all("/cached_images", "image_id").len() == 1).await;
    admin.delete("/image/v2/cache").await.expect(204);
    assert_eq!(state().await.at("/cached_images"), &json!([]));
    // What is stored here is no cache.
    admin.delete(&entry(&two)).await.expect(204);
    user.get(&format!("/image/v2/images/{two}/file")).await.expect(200);
    assert_eq!(admin.get("/image").await.expect(300).text("/versions/0/id"), "v2.18");
}

#[tokio::test]
async fn a_server_that_checks_signatures_takes_ours_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let objects = ObjectStore::strict(dir.path()).await;
    let data = noise((17 << 20) + 1);
    let path = dir.path().join("data");
    std::fs::write(&path, &data).unwrap();
    let (file, size) = (std::sync::Arc::new(std::fs::File::open(&path).unwrap()), data.len() as u64);
    let (bucket, key) = (objects.bucket(), "a prefix/with ü+=&/key");
    bucket.check().await.unwrap();
    let upload = bucket.begin(key).await.unwrap();
    assert_eq!(bucket.unfinished("a prefix/").await.unwrap().len(), 1);
    let parts = vec![
        upload.part(2, file.clone(), 16 << 20..size).await.unwrap(),
        upload.part(1, file.clone(), 0..16 << 20).await.unwrap(),
    ];
    upload.complete(parts, size).await.unwrap();
    assert_eq!((bucket.size(key).await.unwrap(), bucket.size("none").await.unwrap()), (Some(size), None));
    let mut download = bucket.read(key, 5..size);
    let mut read = Vec::new();
    while let Some(bytes) = download.next().await.unwrap() {
        read.extend_from_slice(&bytes);
    }
    assert!(read == data[5..]);
    assert_eq!(bucket.list("a prefix/").await.unwrap().len(), 1);
    bucket.delete(key).await.unwrap();
    bucket.delete(key).await.unwrap();
    assert_eq!(bucket.list("").await.unwrap(), []);
    let right = std::fs::read_to_string(&objects.credentials).unwrap();
    std::fs::write(&objects.credentials, right.replace('\n', "x\n")).unwrap();
    let refused = objects.bucket().check().await.unwrap_err().to_string();
    assert!(!refused.contains(right.lines().last().unwrap()), "{refused}");
}
