//! Volumes made of images, and images made of volumes: two services that meet in rows.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
use image::blob::LocalStore;
use reconcile::{Runner, TaskList};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use store::Table;
use testkit::{Answer, Client, Setup, TestCloud};

const VOLUMES: &str = "/volume/v3/volumes";
const IMAGES: &str = "/image/v2/images";
static NODES: Table = Table { name: "compute/nodes", indexes: &[] };
static SEEN: Table = Table { name: "volume/seen", indexes: &[] };
static ROWS: Table = Table { name: "volume/volumes", indexes: &[] };

struct Bed {
    cloud: TestCloud,
    member: Client,
    _runner: Runner,
    _dir: tempfile::TempDir,
}

impl Bed {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Arc::new(LocalStore::open(dir.path().join("images")).unwrap());
        let services = vec![image::service(blobs), volume::service()];
        let cloud = TestCloud::with(Setup { services, ..Setup::default() }).await;
        volume::bootstrap(&cloud.cloud.db).await.unwrap();
        let mut runner = Runner::new(cloud.shards.clone(), Arc::new(TaskList::default()));
        volume::reconcilers(&cloud.cloud).into_iter().for_each(|r| runner.spawn(r));
        let member = cloud.member("p").await.header("OpenStack-API-Version", "volume 3.70");
        let bed = Self { cloud, member, _runner: runner, _dir: dir };
        bed.put(&NODES, "h", json!({"host": "h", "state": "up", "volume_gib": 100, "volume_free_gib": 100, "last_seen": 0}))
            .await;
        bed
    }

    async fn put(&self, table: &'static Table, id: &str, row: Value) {
        let id = id.to_owned();
        let done = self.cloud.cloud.db.transact(move |tx| {
            tx.put(table, &id, row.clone());
            Ok::<(), resource::Error>(())
        });
        done.await.unwrap();
    }

    fn row(&self, id: &str) -> Value {
        self.cloud.cloud.db.read().get(&ROWS, id).unwrap().value().clone()
    }

    async fn report(&self, id: &str, uploads: Value) {
        self.cloud.cloud.db.fresh().await.unwrap();
        let row = self.row(id);
        let seen = json!({
            "id": id, "revision": row["intent"], "state": "ready", "cause": null, "size_gib": row["size"], "generation": row["generation"],
            "snapshots": [], "exports": [], "uploads": uploads, "host": "h",
        });
        self.put(&SEEN, id, seen).await;
    }

    async fn image(&self, more: Value) -> String {
        let mut body = json!({"name": "i", "disk_format": "raw", "container_format": "bare", "min_disk": 2});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let id = self.member.post(IMAGES, body).await.expect(201).text("/id");
        let data = b"*".repeat(1024).into();
        self.member.send_bytes("PUT", &format!("{IMAGES}/{id}/file"), "application/octet-stream", data).await.expect(204);
        id
    }

    async fn volume_is(&self, id: &str, wanted: &str) {
        let path = format!("{VOLUMES}/{id}");
        until(|| self.member.get(&path), |a| a.at("/volume/status") == wanted).await;
    }
}

/// Waits for a level, with a deadline.
async fn until<F: Future<Output = Answer>>(mut ask: impl FnMut() -> F, is: impl Fn(&Answer) -> bool) {
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let mut last = Value::Null;
    let reached = async {
        loop {
            ticks.tick().await;
            let answer = ask().await;
            if is(&answer) {
                return;
            }
            last = answer.body;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), reached).await;
    assert!(in_time.is_ok(), "not in time; last: {last}");
}

#[tokio::test]
async fn a_volume_is_made_of_an_image_that_fits() {
    let bed = Bed::start().await;
    let image = bed.image(json!({"hw_rng_model": "virtio"})).await;
    let create = |body: Value| bed.member.post(VOLUMES, json!({ "volume": body }));
    create(json!({"size": 1, "imageRef": image})).await.expect(400);
    create(json!({"imageRef": image})).await.expect(400);
    let nobody = "99999999-2222-4333-8444-555555555555";
    create(json!({"size": 2, "imageRef": nobody})).await.expect(400);
    let other = bed.cloud.member("q").await;
    other.post(VOLUMES, json!({"volume": {"size": 2, "imageRef": image}})).await.expect(400);

    let id = create(json!({"size": 2, "imageRef": image})).await.expect(202).text("/volume/id");
    let row = bed.row(&id);
    assert_eq!((&row["source"]["image"]["image_id"], &row["source"]["image"]["format"]), (&json!(image), &json!("raw")));
    assert_eq!(row["source"]["image"]["blob"].as_str().unwrap().len(), 128);
    bed.report(&id, json!({})).await;
    bed.volume_is(&id, "available").await;
    let shown = bed.member.get(&format!("{VOLUMES}/{id}")).await.expect(200);
    assert_eq!(shown.at("/volume/bootable"), "true");
    assert_eq!(shown.at("/volume/volume_image_metadata/hw_rng_model"), "virtio");

    bed.member.post(&format!("{VOLUMES}/{id}/action"), json!({"os-reimage": {"image_id": image}})).await.expect(202);
    bed.volume_is(&id, "downloading").await;
    bed.report(&id, json!({})).await;
    bed.volume_is(&id, "available").await;

    let path = format!("{IMAGES}/{image}/actions/deactivate");
    bed.cloud.admin().await.post(&path, Value::Null).await.expect(204);
    create(json!({"size": 2, "imageRef": image})).await.expect(400);
}

#[tokio::test]
async fn an_image_is_made_of_a_volume() {
    let bed = Bed::start().await;
    let id = bed.member.post(VOLUMES, json!({"volume": {"size": 1}})).await.expect(202).text("/volume/id");
    bed.report(&id, json!({})).await;
    bed.volume_is(&id, "available").await;
    let action = format!("{VOLUMES}/{id}/action");
    let upload = |format: &str| json!({"os-volume_upload_image": {"image_name": "copy", "disk_format": format}});
    bed.member.post(&action, upload("vmdk")).await.expect(400);
    let asked = bed.member.post(&action, upload("qcow2")).await.expect(202);
    assert_eq!(asked.at("/os-volume_upload_image/status"), "uploading");
    let image = asked.text("/os-volume_upload_image/image_id");
    bed.member.post(&action, upload("raw")).await.expect(400);
    assert_eq!(bed.member.get(&format!("{IMAGES}/{image}")).await.expect(200).at("/status"), "saving");
    let blob = json!({"blob": "b".repeat(128), "checksum": "c", "size": 7, "virtual_size": 1 << 30, "format": "qcow2"});
    bed.report(&id, json!({ &image: { "Ok": blob } })).await;
    bed.volume_is(&id, "available").await;
    let made = bed.member.get(&format!("{IMAGES}/{image}")).await.expect(200);
    assert_eq!(
        (made.at("/status"), made.at("/name"), made.at("/disk_format")),
        (&json!("active"), &json!("copy"), &json!("qcow2"))
    );

    let image = bed.member.post(&action, upload("raw")).await.expect(202).text("/os-volume_upload_image/image_id");
    bed.report(&id, json!({ &image: { "Err": "The store is full." } })).await;
    bed.volume_is(&id, "available").await;
    assert_eq!(bed.member.get(&format!("{IMAGES}/{image}")).await.expect(200).at("/status"), "killed");
    // One that is detached while its image is made is free when the image is there.
    bed.member.post(&action, json!({"os-attach": {"host_name": "h", "mountpoint": "/dev/vdb"}})).await.expect(202);
    let forced = json!({"os-volume_upload_image": {"image_name": "copy", "force": true}});
    let image = bed.member.post(&action, forced).await.expect(202).text("/os-volume_upload_image/image_id");
    let attachment =
        bed.member.get(&format!("/volume/v3/attachments?volume_id={id}")).await.expect(200).text("/attachments/0/id");
    bed.member.delete(&format!("/volume/v3/attachments/{attachment}")).await.expect(200);
    bed.volume_is(&id, "uploading").await;
    let blob = json!({"blob": "c".repeat(128), "checksum": "c", "size": 7, "virtual_size": 7, "format": "raw"});
    bed.report(&id, json!({ &image: { "Ok": blob } })).await;
    bed.volume_is(&id, "available").await;

    let messages = bed.member.get("/volume/v3/messages").await.expect(200);
    assert_eq!(messages.all("/messages", "user_message"), ["copy volume to image:The store is full."]);
}
