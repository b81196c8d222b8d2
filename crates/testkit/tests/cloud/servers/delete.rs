//! Deletes win and finish, whatever else goes on.
use crate::bed::{Bed, SERVERS};
use serde_json::json;

#[tokio::test]
async fn a_deleted_server_leaves_nothing_but_its_memory() {
    let bed = Bed::start(1).await;
    let id = bed.server(json!({"user_data": "I2Nsb3VkLWNvbmZpZwo="})).await;
    bed.member.delete(&format!("{SERVERS}/{id}")).await.expect(204);
    bed.gone(&id).await;
    assert_eq!(bed.held().await, (0, 0, vec![0, 0, 0]));
    assert!(bed.hosts[0].1.guests().is_empty());
    bed.member.delete(&format!("{SERVERS}/{id}")).await.expect(404);
    assert!(bed.member.get(SERVERS).await.expect(200).all("/servers", "id").is_empty());
    let deleted = bed.admin.get(&format!("{SERVERS}/detail?deleted=True&all_tenants=1")).await.expect(200);
    assert_eq!((deleted.all("/servers", "id"), deleted.at("/servers/0/status")), (vec![id.clone()], &json!("DELETED")));
    let since = bed.member.get(&format!("{SERVERS}?changes-since=2020-01-01T00:00:00Z")).await.expect(200);
    assert_eq!(since.all("/servers", "id"), [id.as_str()]);
    let path = format!("{SERVERS}/{id}/os-instance-actions");
    bed.member.get(&path).await.expect(404);
    let later = bed.member.clone().header("openstack-api-version", "compute 2.21");
    assert_eq!(later.get(&path).await.expect(200).all("/instanceActions", "action"), ["delete", "create"]);
}

#[tokio::test]
async fn twenty_come_and_go_at_once_without_a_trace() {
    let bed = std::sync::Arc::new(Bed::start(2).await);
    for _ in 0..3 {
        let one = |i: usize| {
            let bed = bed.clone();
            async move {
                let id = bed.create(json!({})).await.expect(202).text("/server/id");
                // Some are deleted before anybody has seen them, some while they boot, some when they run.
                if i.is_multiple_of(3) {
                    bed.status(&id, "ACTIVE").await;
                }
                bed.member.delete(&format!("{SERVERS}/{id}")).await.expect(204);
                bed.gone(&id).await;
            }
        };
        let all: Vec<_> = (0..10).map(|i| tokio::spawn(one(i))).collect();
        for one in all {
            one.await.unwrap();
        }
        assert_eq!(bed.held().await, (0, 0, vec![0, 0, 0]));
    }
    assert!(bed.hosts.iter().all(|h| h.1.guests().is_empty()));
}
