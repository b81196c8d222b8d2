//! Volumes of servers: attached and detached, made with a server, booted from, and gone with it.
use crate::bed::{Bed, SERVERS};
use serde_json::{Value, json};
use testkit::Client;
use testkit::until;

const VOLUMES: &str = "/volume/v3/volumes";

impl Bed {
    async fn volume(&self, more: Value) -> String {
        let mut volume = json!({ "size": 1, "name": "v" });
        volume.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let id = self.member.post(VOLUMES, json!({ "volume": volume })).await.expect(202).text("/volume/id");
        self.volume_is(&id, "available").await;
        id
    }
    async fn volume_is(&self, id: &str, status: &str) -> Value {
        let path = format!("{VOLUMES}/{id}");
        let is = |a: &testkit::Answer| a.at("/volume/status") == status;
        until(&format!("volume is {status}"), || self.member.get(&path), is).await.body["volume"].clone()
    }
    async fn volume_gone(&self, id: &str) {
        let path = format!("{VOLUMES}/{id}");
        until("the volume is gone", || self.member.get(&path), |a| a.status == 404).await;
    }
    async fn attach(&self, server: &str, volume: &str) -> testkit::Answer {
        self.member.post(&attachments(server), json!({ "volumeAttachment": { "volumeId": volume } })).await
    }
    fn at(&self, minor: u32) -> Client {
        self.member.clone().header("OpenStack-API-Version", &format!("compute 2.{minor}"))
    }
    /// Volumes that simulated guests have open.
    fn plugged(&self) -> usize {
        self.hosts.iter().flat_map(|(_, sim)| sim.shelf().volumes()).map(|(_, v)| v.exports.len()).sum()
    }
}

fn attachments(server: &str) -> String {
    format!("{SERVERS}/{server}/os-volume_attachments")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_come_and_go() {
    let bed = Bed::start(1).await;
    let (s, v) = (bed.server(json!({})).await, bed.volume(json!({})).await);
    let told = bed.attach(&s, &v).await.expect(200);
    assert_eq!(told.body["volumeAttachment"], json!({ "id": v, "volumeId": v, "serverId": s, "device": "/dev/vdb" }));
    let row = bed.volume_is(&v, "in-use").await;
    assert_eq!((&row["attachments"][0]["server_id"], &row["attachments"][0]["device"]), (&json!(s), &json!("/dev/vdb")));
    let listed = bed.member.get(&attachments(&s)).await.expect(200);
    assert_eq!(listed.body["volumeAttachments"], json!([told.body["volumeAttachment"]]));
    let shown = bed.at(89).get(&format!("{}/{v}", attachments(&s))).await.expect(200).body["volumeAttachment"].clone();
    assert_eq!((shown.get("id"), &shown["delete_on_termination"], &shown["tag"]), (None, &json!(false), &Value::Null));
    assert!(shown["attachment_id"].is_string() && shown["bdm_uuid"].is_string());
    let server = bed.at(3).get(&format!("{SERVERS}/{s}")).await.expect(200);
    assert_eq!(server.at("/server/os-extended-volumes:volumes_attached"), &json!([{ "id": v, "delete_on_termination": false }]));

    bed.attach(&s, &v).await.expect(400);
    bed.attach(&s, &base::id::uuid()).await.expect(404);
    bed.member.delete(&format!("{VOLUMES}/{v}")).await.expect(400);
    bed.member.delete(&format!("{}/{}", attachments(&s), base::id::uuid())).await.expect(404);
    let other = bed.volume(json!({})).await;
    let swap = json!({ "volumeAttachment": { "volumeId": other } });
    bed.member.put(&format!("{}/{v}", attachments(&s)), swap.clone()).await.expect(403);
    bed.admin.put(&format!("{}/{v}", attachments(&s)), swap.clone()).await.expect(409);
    bed.admin.put(&format!("{}/{}", attachments(&s), base::id::uuid()), swap).await.expect(404);
    let keep = json!({ "volumeAttachment": { "volumeId": v, "delete_on_termination": true } });
    bed.at(85).put(&format!("{}/{v}", attachments(&s)), keep).await.expect(202);

    // Off, it keeps the volume; on a host or not, it can be detached.
    bed.act(&s, "os-stop", Value::Null).await.expect(202);
    bed.status(&s, "SHUTOFF").await;
    bed.volume_is(&v, "in-use").await;
    bed.member.delete(&format!("{}/{v}", attachments(&s))).await.expect(202);
    bed.volume_is(&v, "available").await;
    assert_eq!(bed.plugged(), 0);
    let second = bed.attach(&s, &v).await.expect(200);
    assert_eq!(second.at("/volumeAttachment/device"), "/dev/vdb");
    bed.volume_is(&v, "in-use").await;
    bed.member.delete(&format!("{SERVERS}/{s}")).await.expect(204);
    bed.gone(&s).await;
    bed.volume_is(&v, "available").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_are_made_with_volumes() {
    let bed = Bed::start(1).await;
    let root = json!({ "source_type": "image", "destination_type": "volume", "uuid": bed.image, "boot_index": 0, "volume_size": 2,
        "delete_on_termination": true });
    let data = json!({ "source_type": "blank", "destination_type": "volume", "volume_size": 1 });
    let s = bed.server(json!({ "imageRef": "", "block_device_mapping_v2": [root, data] })).await;
    let server = bed.member.get(&format!("{SERVERS}/{s}")).await.expect(200);
    assert_eq!(server.at("/server/image"), "");
    let listed = bed.member.get(&attachments(&s)).await.expect(200).body["volumeAttachments"].as_array().unwrap().clone();
    let devices: Vec<_> = listed.iter().map(|a| a["device"].as_str().unwrap()).collect();
    assert_eq!(devices, ["/dev/vda", "/dev/vdb"]);
    let (root, data) = (listed[0]["volumeId"].as_str().unwrap(), listed[1]["volumeId"].as_str().unwrap());
    assert_eq!(bed.volume_is(root, "in-use").await["bootable"], "true");
    bed.volume_is(data, "in-use").await;
    bed.member.delete(&format!("{}/{root}", attachments(&s))).await.expect(403);
    let rebuild = bed.act(&s, "rebuild", json!({ "imageRef": bed.image })).await;
    assert_eq!(rebuild.status, 400);
    bed.act(&s, "rescue", Value::Null).await.expect(400);
    bed.act(&s, "createImage", json!({ "name": "x" })).await.expect(400);

    // Off its host and back: the volumes stay its own.
    bed.act(&s, "shelve", Value::Null).await.expect(202);
    bed.status(&s, "SHELVED_OFFLOADED").await;
    bed.volume_is(data, "in-use").await;
    let more = bed.volume(json!({})).await;
    bed.attach(&s, &more).await.expect(200);
    bed.volume_is(&more, "in-use").await;
    bed.act(&s, "unshelve", Value::Null).await.expect(202);
    bed.status(&s, "ACTIVE").await;

    bed.member.delete(&format!("{SERVERS}/{s}")).await.expect(204);
    bed.gone(&s).await;
    bed.volume_gone(root).await;
    for left in [data, &more] {
        bed.volume_is(left, "available").await;
        bed.member.delete(&format!("{VOLUMES}/{left}")).await.expect(202);
        bed.volume_gone(left).await;
    }
    assert!(bed.hosts[0].1.shelf().volumes().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mappings_that_nova_refuses() {
    let bed = Bed::start(1).await;
    let v = bed.volume(json!({})).await;
    let from = |uuid: &str| {
        json!({ "imageRef": "", "block_device_mapping_v2": [
            { "source_type": "volume", "destination_type": "volume", "uuid": uuid, "boot_index": 0 }] })
    };
    let no = async |body: Value, why: &str| {
        let e = bed.create(body).await.expect(400);
        assert!(e.body.to_string().contains(why), "{}", e.body);
    };
    no(from(&v), "is not bootable").await;
    no(from(&base::id::uuid()), "failed to get volume").await;
    no(json!({ "imageRef": "" }), "imageRef").await;
    let mut many = from(&v);
    many["max_count"] = json!(2);
    no(many, "multiple instances").await;
    bed.volume_is(&v, "available").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_road_to_volumes() {
    let bed = Bed::start(1).await;
    let old = "/compute/v2.1/os-volumes";
    let made =
        bed.member.post(old, json!({ "volume": { "size": 1, "display_name": "d", "metadata": { "a": "b" } } })).await.expect(200);
    let id = made.text("/volume/id");
    bed.volume_is(&id, "available").await;
    let shown = bed.member.get(&format!("{old}/{id}")).await.expect(200).body["volume"].clone();
    assert_eq!(
        (&shown["displayName"], &shown["attachments"], &shown["metadata"]),
        (&json!("d"), &json!([{}]), &json!({ "a": "b" }))
    );
    let snapshot = json!({ "snapshot": { "volume_id": id, "display_name": "s" } });
    let snapshot = bed.member.post("/compute/v2.1/os-snapshots", snapshot).await.expect(200).text("/snapshot/id");
    let path = format!("/compute/v2.1/os-snapshots/{snapshot}");
    until("the snapshot is there", || bed.member.get(&path), |a| a.at("/snapshot/status") == "available").await;
    bed.member.delete(&path).await.expect(202);
    until("the snapshot is gone", || bed.member.get(&path), |a| a.status == 404).await;
    assert_eq!(bed.member.get(&format!("{old}/detail")).await.expect(200).body["volumes"].as_array().map(Vec::len), Some(1));
    bed.member.delete(&format!("{old}/{id}")).await.expect(202);
    bed.volume_gone(&id).await;
    bed.member.post(old, json!({ "volume": { "size": 0 } })).await.expect(400);
    bed.member.get(&format!("{old}/x")).await.expect(404);
    bed.at(36).get(old).await.expect(404);
}
