//! Quotas are exact, however many ask at once.
use crate::bed::{Bed, VOLUMES};
use serde_json::{Value, json};

async fn limit(bed: &Bed, limits: Value) {
    let project = bed.admin.get("/identity/v3/projects?name=p").await.expect(200).text("/projects/0/id");
    bed.admin.put(&format!("/volume/v3/os-quota-sets/{project}"), json!({ "quota_set": limits })).await.expect(200);
}

#[tokio::test]
async fn as_many_volumes_as_allowed_and_no_more() {
    let bed = Bed::start().await;
    limit(&bed, json!({"volumes": 5, "gigabytes": 100})).await;
    let asked = (0..16).map(|_| {
        let client = bed.member.clone();
        tokio::spawn(async move { client.post(VOLUMES, json!({"volume": {"size": 1}})).await.status })
    });
    let mut accepted = 0;
    for answer in asked.collect::<Vec<_>>() {
        match answer.await.unwrap() {
            202 => accepted += 1,
            status => assert_eq!(status, 413),
        }
    }
    assert_eq!(accepted, 5);
    assert_eq!(bed.used().await, (5, 5, 0));
}

#[tokio::test]
async fn room_is_counted_for_volumes_growth_and_snapshots() {
    let bed = Bed::start().await;
    limit(&bed, json!({"gigabytes": 4, "snapshots": 1, "per_volume_gigabytes": 3})).await;
    let refused = bed.create(json!({"size": 4})).await.expect(413);
    assert!(refused.text("/overLimit/message").contains("larger than maximum allowed"));
    let id = bed.volume(json!({"size": 2})).await;
    bed.act(&id, "os-extend", json!({"new_size": 4})).await.expect(413);
    let snapshot = json!({"snapshot": {"volume_id": id}});
    bed.member.post("/volume/v3/snapshots", snapshot.clone()).await.expect(202);
    bed.member.post("/volume/v3/snapshots", snapshot).await.expect(413);
    let refused = bed.create(json!({"size": 1})).await.expect(413);
    assert!(refused.text("/overLimit/message").contains("VolumeSizeExceedsAvailableQuota"), "{}", refused.body);
    assert_eq!(bed.used().await, (1, 4, 1));
}

#[tokio::test]
async fn a_type_may_have_limits_of_its_own() {
    let bed = Bed::start().await;
    let kind = bed.admin.post("/volume/v3/types", json!({"volume_type": {"name": "fast"}})).await.expect(200);
    limit(&bed, json!({"volumes_fast": 1})).await;
    bed.volume(json!({"size": 1, "volume_type": "fast"})).await;
    let refused = bed.create(json!({"size": 1, "volume_type": "fast"})).await.expect(413);
    assert!(refused.text("/overLimit/message").contains("volumes_fast"));
    // The limit is the type's, whatever it is called.
    let path = format!("/volume/v3/types/{}", kind.text("/volume_type/id"));
    bed.admin.put(&path, json!({"volume_type": {"name": "faster"}})).await.expect(200);
    bed.create(json!({"size": 1, "volume_type": "faster"})).await.expect(413);
    bed.create(json!({"size": 1})).await.expect(202);
}

#[tokio::test]
async fn the_default_class_is_for_all_who_have_no_limits() {
    let bed = Bed::start().await;
    let path = "/volume/v3/os-quota-class-sets/default";
    bed.admin.put(path, json!({"quota_class_set": {"volumes": 1}})).await.expect(200);
    assert_eq!(bed.admin.get(path).await.expect(200).at("/quota_class_set/volumes"), 1);
    bed.create(json!({"size": 1})).await.expect(202);
    bed.create(json!({"size": 1})).await.expect(413);
    limit(&bed, json!({"volumes": 2})).await;
    bed.create(json!({"size": 1})).await.expect(202);
    let project = bed.admin.get("/identity/v3/projects?name=p").await.expect(200).text("/projects/0/id");
    bed.admin.delete(&format!("/volume/v3/os-quota-sets/{project}")).await.expect(200);
    bed.create(json!({"size": 1})).await.expect(413);
    bed.member.put(path, json!({"quota_class_set": {"volumes": 9}})).await.expect(403);
    let own = bed.member.get(&format!("/volume/v3/os-quota-sets/{project}")).await.expect(200);
    assert_eq!(own.at("/quota_set/volumes"), 1);
    bed.admin.put(path, json!({"quota_class_set": {"nonsense": 9}})).await.expect(400);
}
