//! What a create makes, and what it refuses without a trace.
use crate::bed::{Bed, SERVERS};
use serde_json::{Value, json};
use testkit::until;

#[tokio::test]
async fn a_server_boots_and_is_shown() {
    let bed = Bed::start(1).await;
    let made = bed.create(json!({"metadata": {"a": "b"}, "OS-DCF:diskConfig": "AUTO"})).await.expect(202);
    let id = made.text("/server/id");
    assert_eq!(made.header("location"), format!("{}{SERVERS}/{id}", bed.cloud.url));
    assert_eq!(made.at("/server/security_groups"), &json!([{"name": "default"}]));
    assert_eq!((made.at("/server/OS-DCF:diskConfig"), made.text("/server/adminPass").len()), (&json!("AUTO"), 16));
    let server = bed.status(&id, "ACTIVE").await;
    assert_eq!(
        (&server["metadata"]["a"], &server["image"]["id"], &server["flavor"]["id"]),
        (&json!("b"), &json!(bed.image), &json!("tiny"))
    );
    assert_eq!((&server["OS-EXT-SRV-ATTR:host"], &server["OS-EXT-STS:power_state"]), (&json!("host-0"), &json!(1)));
    let address = &server["addresses"]["n"][0];
    assert!(address["addr"].as_str().unwrap().starts_with("10.1.") && address["OS-EXT-IPS:type"] == "fixed");
    assert_eq!(server["security_groups"], json!([{"name": "default"}]));
    let ports = bed.member.get(&format!("/network/v2.0/ports?device_id={id}")).await.expect(200);
    assert_eq!(ports.at("/ports/0/device_owner"), "compute:nova");
    assert_eq!(bed.held().await, (1, 1, vec![1, 1, 256]));
    let actions = bed.member.get(&format!("{SERVERS}/{id}/os-instance-actions")).await.expect(200);
    assert_eq!(actions.all("/instanceActions", "action"), ["create"]);
    assert_eq!(bed.hosts[0].1.guests().len(), 1);
}

#[tokio::test]
async fn bad_requests_are_refused_and_leave_nothing() {
    let bed = Bed::start(1).await;
    let other = bed.cloud.member("q").await;
    let foreign_network = bed.make_network(&other, "foreign", "10.2.0.0/24").await;
    let foreign_image = bed.make_image(&other, "private").await;
    let before = bed.held().await;
    let nowhere = "11111111-2222-4333-8444-555555555555";
    for (status, why, body) in [
        (400, "Invalid input for field/attribute name", json!({"name": ""})),
        (400, "is not of type 'string'", json!({"name": 12345})),
        (400, "is too long", json!({"name": "a".repeat(256)})),
        (400, "'bogus' was unexpected", json!({"bogus": 1})),
        (400, "Flavor -1 could not be found", json!({"flavorRef": -1})),
        (400, "Can not find requested image", json!({"imageRef": nowhere})),
        (400, "Can not find requested image", json!({"imageRef": foreign_image})),
        (400, "imageRef", json!({"imageRef": -1})),
        (400, "accessIPv4", json!({"accessIPv4": "1.1.1.1.1.1"})),
        (400, "Invalid key_name provided", json!({"key_name": "none"})),
        (400, "Security group none not found", json!({"security_groups": [{"name": "none"}]})),
        (400, "could not be found", json!({"networks": [{"uuid": nowhere}]})),
        (400, "could not be found", json!({"networks": [{"uuid": foreign_network}]})),
        (400, "uuid", json!({"networks": [{"uuid": "a-b-c"}]})),
        (400, "missing 'uuid'", json!({"networks": [{"fixed_ip": "10.1.0.9"}]})),
        (400, "metadata", json!({"metadata": {"": "x"}})),
        (400, "a", json!({"metadata": {"a": "b".repeat(260)}})),
        (400, "min_count must be <= max_count", json!({"min_count": 3, "max_count": 2})),
        (400, "less than the minimum", json!({"min_count": 0})),
        (400, "availability zone", json!({"availability_zone": "mars"})),
        (400, "base64", json!({"user_data": "%"})),
        (
            400,
            "fixed IP and multiple servers",
            json!({"min_count": 2, "networks": [{"uuid": bed.network, "fixed_ip": "10.1.0.9"}]}),
        ),
        (
            400,
            "Block Device Mapping is Invalid",
            json!({"block_device_mapping_v2": [{"source_type": "blank", "destination_type": "volume", "boot_index": 0, "volume_size": 1}]}),
        ),
        (403, "forced_host", json!({"availability_zone": "nova:host-0"})),
        (403, "Quota exceeded for instances", json!({"min_count": 11})),
    ] {
        let answer = bed.create(body.clone()).await;
        let message =
            answer.body.as_object().and_then(|o| o.values().next()).map(|v| v["message"].to_string()).unwrap_or_default();
        assert!(answer.status == status && message.contains(why), "{body}: {} {}", answer.status, answer.body);
    }
    assert_eq!(bed.held().await, before, "refused creates leave no port, allocation or quota");
    bed.member.get(&format!("{SERVERS}?name=s")).await.expect(200);
}

#[tokio::test]
async fn a_create_that_fails_at_its_last_port_gives_the_first_ones_back() {
    let bed = Bed::start(1).await;
    let taken = json!({"port": {"network_id": bed.network, "fixed_ips": [{"ip_address": "10.1.0.77"}]}});
    bed.member.post("/network/v2.0/ports", taken).await.expect(201);
    let before = bed.held().await;
    let networks = json!([{"uuid": bed.network}, {"uuid": bed.network, "fixed_ip": "10.1.0.77"}]);
    let answer = bed.create(json!({ "networks": networks })).await;
    assert!(matches!(answer.status, 400 | 409), "{}", answer.body);
    assert_eq!(bed.held().await, before);
    let given = json!({"port": {"network_id": bed.network, "name": "mine"}});
    let port = bed.member.post("/network/v2.0/ports", given).await.expect(201).text("/port/id");
    let id = bed.server(json!({"networks": [{"port": port}]})).await;
    bed.create(json!({"networks": [{"port": port}]})).await.expect(409);
    bed.member.delete(&format!("{SERVERS}/{id}")).await.expect(204);
    bed.gone(&id).await;
    let port = bed.member.get(&format!("/network/v2.0/ports/{port}")).await.expect(200);
    assert_eq!(
        (port.at("/port/device_id"), port.at("/port/device_owner")),
        (&json!(""), &json!("")),
        "a given port is free again"
    );
}

#[tokio::test]
async fn many_servers_at_once_share_one_request() {
    let bed = Bed::start(2).await;
    let made = bed.create(json!({"name": "m", "min_count": 2, "max_count": 4, "return_reservation_id": true})).await.expect(202);
    let reservation = made.text("/reservation_id");
    let list =
        bed.member.get(&format!("{SERVERS}?reservation_id={reservation}&sort_key=display_name&sort_dir=asc")).await.expect(200);
    assert_eq!(list.all("/servers", "name"), ["m-1", "m-2", "m-3", "m-4"]);
    for id in list.all("/servers", "id") {
        bed.status(&id, "ACTIVE").await;
    }
    let spread = bed.hosts.iter().map(|h| h.1.guests().len()).collect::<Vec<_>>();
    assert_eq!(spread, [2, 2], "the emptier host is taken");
}

#[tokio::test]
async fn quotas_are_exact_under_concurrency() {
    let bed = Bed::start(2).await;
    let project = bed.member.get(&format!("{SERVERS}/detail")).await;
    assert_eq!(project.status, 200);
    let bed = std::sync::Arc::new(bed);
    let all: Vec<_> = (0..30)
        .map(|_| {
            tokio::spawn({
                let bed = bed.clone();
                async move { bed.create(json!({})).await.status }
            })
        })
        .collect();
    let mut statuses = Vec::new();
    for one in all {
        statuses.push(one.await.unwrap());
    }
    assert_eq!(statuses.iter().filter(|s| **s == 202).count(), 10, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|s| **s == 403).count(), 20, "{statuses:?}");
    assert_eq!(bed.held().await, (10, 10, vec![10, 10, 2560]));
    let limited = bed.create(json!({"max_count": 3})).await.expect(403);
    assert!(
        limited.text("/forbidden/message").starts_with("Quota exceeded for instances: Requested 1, but already used 10 of 10")
    );
}

#[tokio::test]
async fn no_room_is_an_error_that_says_so() {
    let bed = Bed::start(1).await;
    let big = json!({"id": "big", "name": "big", "ram": 8192, "vcpus": 1, "disk": 1});
    bed.admin.post("/compute/v2.1/flavors", json!({ "flavor": big })).await.expect(200);
    let id = bed.create(json!({"flavorRef": "big"})).await.expect(202).text("/server/id");
    let server = bed.status(&id, "ERROR").await;
    assert!(server["fault"]["message"].as_str().unwrap().starts_with("No valid host was found."), "{server}");
    assert_eq!(server["fault"]["code"], 500);
    assert_eq!(bed.held().await, (0, 0, vec![1, 1, 8192]));
    bed.member.delete(&format!("{SERVERS}/{id}")).await.expect(204);
    bed.gone(&id).await;
    assert_eq!(bed.held().await, (0, 0, vec![0, 0, 0]));
}

#[tokio::test]
async fn groups_and_hints_place_servers() {
    let bed = Bed::start(2).await;
    let group = json!({"server_group": {"name": "g", "policies": ["anti-affinity"]}});
    let group = bed.member.post("/compute/v2.1/os-server-groups", group).await.expect(200).text("/server_group/id");
    let mut hosts: Vec<Value> = Vec::new();
    for _ in 0..2 {
        let mut body = bed.body(json!({}));
        body["os:scheduler_hints"] = json!({ "group": group });
        let id = bed.member.post(SERVERS, body).await.expect(202).text("/server/id");
        hosts.push(bed.status(&id, "ACTIVE").await["OS-EXT-SRV-ATTR:host"].clone());
    }
    assert_ne!(hosts[0], hosts[1]);
    let mut third = bed.body(json!({}));
    third["os:scheduler_hints"] = json!({ "group": group });
    let third = bed.member.post(SERVERS, third).await.expect(202).text("/server/id");
    bed.status(&third, "ERROR").await;
    let first = bed.member.get(&format!("/compute/v2.1/os-server-groups/{group}")).await.expect(200);
    assert_eq!(first.body["server_group"]["members"].as_array().unwrap().len(), 3);
    let anchor = first.body["server_group"]["members"][0].as_str().unwrap().to_owned();
    let host = bed.admin.get(&format!("{SERVERS}/{anchor}")).await.body["server"]["OS-EXT-SRV-ATTR:host"].clone();
    if !host.is_null() {
        let mut same = bed.body(json!({}));
        same["os:scheduler_hints"] = json!({ "same_host": anchor });
        let id = bed.member.post(SERVERS, same).await.expect(202).text("/server/id");
        assert_eq!(bed.status(&id, "ACTIVE").await["OS-EXT-SRV-ATTR:host"], host);
    }
}

#[tokio::test]
async fn networks_follow_the_version() {
    let bed = Bed::start(1).await;
    let new = bed.member.clone().header("openstack-api-version", "compute 2.37");
    new.post(SERVERS, bed.body(json!({}))).await.expect(400);
    let id = new.post(SERVERS, bed.body(json!({"networks": "none"}))).await.expect(202).text("/server/id");
    assert_eq!(bed.status(&id, "ACTIVE").await["addresses"], json!({}));
    let id = new.post(SERVERS, bed.body(json!({"networks": "auto"}))).await.expect(202).text("/server/id");
    assert_eq!(bed.status(&id, "ACTIVE").await["addresses"]["n"].as_array().unwrap().len(), 1);
    bed.make_network(&bed.member, "second", "10.3.0.0/24").await;
    bed.create(json!({})).await.expect(409);
    let both = bed.server(json!({"networks": [{"uuid": bed.network}, {"uuid": bed.network}]})).await;
    let list = bed.member.get(&format!("{SERVERS}/{both}/os-interface")).await.expect(200);
    assert_eq!(list.body["interfaceAttachments"].as_array().unwrap().len(), 2);
    let path = format!("{SERVERS}/{both}/ips/n");
    until("both addresses are shown", || bed.member.get(&path), |a| a.body["n"].as_array().is_some_and(|l| l.len() == 2)).await;
}
