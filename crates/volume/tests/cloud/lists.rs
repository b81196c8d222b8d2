//! Lists, pages, metadata, and the facts that clients ask for.
use crate::bed::{Bed, VOLUMES};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn lists_are_filtered_sorted_and_paged() {
    let bed = Bed::start().await;
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        ids.push(bed.volume(json!({"size": 1, "name": name, "metadata": {"Type": name}})).await);
        bed.clock_on(Duration::from_secs(1));
    }
    let names =
        async |query: &str| bed.member.get(&format!("{VOLUMES}/detail?{query}")).await.expect(200).all("/volumes", "name");
    assert_eq!(names("").await, ["c", "b", "a"], "the newest first");
    assert_eq!(names("sort=name:asc").await, ["a", "b", "c"]);
    assert_eq!(names("sort_key=name&sort_dir=asc&limit=2").await, ["a", "b"]);
    assert_eq!(names("sort=name:asc&offset=1").await, ["b", "c"]);
    assert_eq!(names("metadata=%7B%27Type%27%3A+%27b%27%7D").await, ["b"]);
    assert_eq!(names("name=c&status=available").await, ["c"]);
    assert_eq!(names("name~=a").await, ["a"]);
    assert_eq!(names("status=nothing").await, [""; 0]);
    assert_eq!(names("bootable=false").await.len(), 3);
    assert_eq!(names(&format!("sort=name:asc&marker={}", ids[0])).await, ["b", "c"]);
    assert_eq!(names("limit=0").await, [""; 0]);
    let page = bed.member.get(&format!("{VOLUMES}?limit=1&sort=name:asc&with_count=True")).await.expect(200);
    assert_eq!(page.at("/count"), 3);
    let next = page.text("/volumes_links/0/href");
    let path = next.split_once("/volume/v3").unwrap().1;
    assert_eq!(bed.member.get(&format!("/volume/v3{path}")).await.expect(200).all("/volumes", "name"), ["b"]);
    for (query, status) in
        [("limit=-1", 400), ("limit=x", 400), ("sort=size:up", 400), ("sort=nonsense", 400), ("marker=gone", 404)]
    {
        bed.member.get(&format!("{VOLUMES}?{query}")).await.expect(status);
    }
    let summary = bed.member.get(&format!("{VOLUMES}/summary")).await.expect(200);
    assert_eq!(summary.at("/volume-summary/total_size"), 3);
    assert_eq!(summary.at("/volume-summary/metadata/Type").as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn metadata_is_changed_whole_and_in_parts() {
    let bed = Bed::start().await;
    let id = bed.volume(json!({"size": 1})).await;
    let path = format!("{VOLUMES}/{id}/metadata");
    bed.member.post(&path, json!({"metadata": {"a": "1", "b": "2"}})).await.expect(200);
    bed.member.put(&format!("{path}/b"), json!({"meta": {"b": "3"}})).await.expect(200);
    bed.member.put(&format!("{path}/b"), json!({"meta": {"c": "3"}})).await.expect(400);
    assert_eq!(bed.member.get(&path).await.expect(200).at("/metadata"), &json!({"a": "1", "b": "3"}));
    bed.member.delete(&format!("{path}/a")).await.expect(200);
    bed.member.delete(&format!("{path}/a")).await.expect(404);
    bed.act(&id, "os-update_readonly_flag", json!({"readonly": true})).await.expect(202);
    assert_eq!(bed.show(&id).await["metadata"], json!({"b": "3", "readonly": "True"}));
    assert_eq!(bed.member.put(&path, json!({"metadata": {}})).await.expect(200).at("/metadata"), &json!({}));
    bed.act(&id, "os-set_bootable", json!({"bootable": true})).await.expect(200);
    assert_eq!(bed.show(&id).await["bootable"], "true");
    bed.act(&id, "os-set_image_metadata", json!({"metadata": {"image_id": "x"}})).await.expect(200);
    assert_eq!(bed.show(&id).await["volume_image_metadata"], json!({"image_id": "x"}));
    bed.act(&id, "os-unset_image_metadata", json!({"key": "image_id"})).await.expect(200);
    bed.act(&id, "os-unset_image_metadata", json!({"key": "image_id"})).await.expect(404);
    bed.act(&id, "os-dance", json!({})).await.expect(400);
}

#[tokio::test]
async fn each_version_shows_its_own() {
    let bed = Bed::start().await;
    let id = bed.volume(json!({"size": 1})).await;
    let at = async |version: &str| {
        let client = bed.cloud.member("p").await.header("OpenStack-API-Version", &format!("volume {version}"));
        let shown = client.get(&format!("{VOLUMES}/{id}")).await.expect(200);
        assert_eq!(shown.header("openstack-api-version"), format!("volume {version}"));
        shown.body["volume"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    let (oldest, newest) = (at("3.0").await, at("3.70").await);
    let added: Vec<&String> = newest.iter().filter(|k| !oldest.contains(k)).collect();
    assert_eq!(added, ["group_id", "shared_targets", "service_uuid", "volume_type_id", "consumes_quota"]);
    let oldest: Vec<&str> = oldest.iter().map(String::as_str).collect();
    let mut expected = [
        "id",
        "name",
        "description",
        "size",
        "status",
        "availability_zone",
        "bootable",
        "multiattach",
        "encrypted",
        "snapshot_id",
        "source_volid",
        "metadata",
        "user_id",
        "consistencygroup_id",
        "replication_status",
        "links",
        "created_at",
        "updated_at",
        "attachments",
        "volume_type",
        "os-vol-tenant-attr:tenant_id",
    ];
    let mut shown = oldest.clone();
    shown.sort_unstable();
    expected.sort_unstable();
    assert_eq!(shown, expected);
    bed.cloud.member("p").await.header("OpenStack-API-Version", "volume 3.71").get(VOLUMES).await.expect(406);
}

#[tokio::test]
async fn operators_see_hosts_pools_and_services() {
    let bed = Bed::start().await;
    bed.volume(json!({"size": 7})).await;
    let pools = bed.admin.get("/volume/v3/scheduler-stats/get_pools?detail=True").await.expect(200);
    assert_eq!(pools.at("/pools/0/name"), "host-0@nbd#nbd");
    assert_eq!(pools.at("/pools/0/capabilities/provisioned_capacity_gb"), 7);
    let shown = bed.admin.get("/volume/v3/capabilities/host-0@nbd").await.expect(200);
    assert_eq!(shown.at("/storage_protocol"), "nbd");
    assert_eq!(bed.admin.get("/volume/v3/os-hosts").await.expect(200).all("/hosts", "service").len(), 2);
    let host = bed.admin.get("/volume/v3/os-hosts/host-0@nbd").await.expect(200);
    assert_eq!(host.at("/host/0/resource/total_volume_gb"), "7");
    bed.admin.put("/volume/v3/os-services/enable", json!({"host": "nowhere", "binary": "cinder-volume"})).await.expect(404);
    bed.admin.put("/volume/v3/os-services/freeze", json!({"host": "nowhere"})).await.expect(400);
    let reason = json!({"host": "host-0@nbd", "binary": "cinder-volume", "disabled_reason": "repair"});
    bed.admin.put("/volume/v3/os-services/disable-log-reason", reason).await.expect(200);
    let services = bed.admin.get("/volume/v3/os-services?host=host-0").await.expect(200);
    assert_eq!(
        (services.at("/services/0/status"), services.at("/services/0/disabled_reason")),
        (&json!("disabled"), &json!("repair"))
    );
    assert_eq!(bed.create(json!({"size": 1})).await.expect(202).at("/volume/status"), "error");
    for path in ["os-availability-zone", "extensions", "resource_filters", "limits", "messages", "types", "group_types"] {
        bed.member.get(&format!("/volume/v3/{path}")).await.expect(200);
    }
}

#[tokio::test]
async fn limits_on_performance_belong_to_types() {
    let bed = Bed::start().await;
    let kind =
        bed.admin.post("/volume/v3/types", json!({"volume_type": {"name": "t"}})).await.expect(200).text("/volume_type/id");
    let made = json!({"qos_specs": {"name": "slow", "consumer": "front-end", "read_iops_sec": "20"}});
    let id = bed.admin.post("/volume/v3/qos-specs", made).await.expect(200).text("/qos_specs/id");
    let path = format!("/volume/v3/qos-specs/{id}");
    assert_eq!(bed.admin.get(&path).await.expect(200).at("/qos_specs/specs"), &json!({"read_iops_sec": "20"}));
    bed.admin.get(&format!("{path}/associate?vol_type_id={kind}")).await.expect(202);
    assert_eq!(
        bed.admin.get(&format!("{path}/associations")).await.expect(200).all("/qos_associations", "id"),
        std::slice::from_ref(&kind)
    );
    bed.admin.delete(&path).await.expect(400);
    bed.admin.put(&path, json!({"qos_specs": {"write_iops_sec": "5"}})).await.expect(200);
    bed.admin.put(&format!("{path}/delete_keys"), json!({"keys": ["write_iops_sec"]})).await.expect(202);
    bed.admin.get(&format!("{path}/disassociate_all")).await.expect(202);
    bed.admin.delete(&path).await.expect(202);
    bed.admin.get(&path).await.expect(404);
    let default = json!({"default_type": {"volume_type": "t"}});
    let project = bed.admin.get("/identity/v3/projects?name=p").await.expect(200).text("/projects/0/id");
    bed.admin.put(&format!("/volume/v3/default-types/{project}"), default).await.expect(200);
    let id = bed.volume(json!({"size": 1})).await;
    assert_eq!(bed.show(&id).await["volume_type"], "t");
}
