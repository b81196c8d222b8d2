//! Addresses: unique under whatever happens, and what subnets say of them.
mod common;
use common::*;
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};
use store::{Memory, faulty::Faulty};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_address_is_given_twice_though_commits_fail() {
    for seed in 0..3 {
        let cloud = cloud_on(Arc::new(Faulty::new(Memory::new(), seed, 0.2))).await;
        let admin = cloud.admin().await;
        // 254 hosts less the gateway and the metadata port.
        let (network, subnet) = net(&admin, "10.0.0.0/24").await;
        let all: Vec<_> = (0..260)
            .map(|_| {
                let (admin, network) = (admin.clone(), network.clone());
                tokio::spawn(async move { admin.post("/network/v2.0/ports", json!({"port": {"network_id": network}})).await })
            })
            .collect();
        let (mut addresses, mut macs, mut full) = (BTreeSet::new(), BTreeSet::new(), 0);
        for answer in all {
            let answer = answer.await.unwrap();
            if answer.status == 409 {
                assert_eq!(error(&answer), "IpAddressGenerationFailure");
                full += 1;
                continue;
            }
            let answer = answer.expect(201);
            assert!(addresses.insert(answer.text("/port/fixed_ips/0/ip_address")), "seed {seed}: an address was given twice");
            assert!(macs.insert(answer.text("/port/mac_address")), "seed {seed}: a MAC was given twice");
        }
        assert_eq!((addresses.len(), full), (252, 8), "seed {seed}: all that there are, and not one more");
        let shown = admin.get(&format!("/network/v2.0/network-ip-availabilities/{network}")).await.expect(200);
        assert_eq!(shown.at("/network_ip_availability/used_ips"), 253);
        let details = admin.get(&format!("/network/v2.0/quotas/{}/details", project(&admin).await)).await.expect(200);
        assert_eq!(details.at("/quota/port/used"), 252, "seed {seed}: the quota counts each port once");
        let used = admin.get(&format!("/network/v2.0/ports?fixed_ips=subnet_id={subnet}&fields=id")).await.expect(200);
        assert_eq!(used.all("/ports", "id").len(), 253);
    }
}

async fn project(client: &testkit::Client) -> String {
    client.get("/network/v2.0/quotas/project").await.expect(200).text("/project/project_id")
}

#[tokio::test]
async fn an_address_comes_back_when_its_port_goes() {
    let cloud = cloud().await;
    let member = cloud.member("one").await;
    let (network, _) = net(&member, "10.0.0.0/29").await;
    let mut ports = Vec::new();
    // Six hosts less the gateway and the metadata port.
    for _ in 0..4 {
        ports.push(id(&make(&member, "ports", json!({"network_id": network})).await));
    }
    let full = member.post("/network/v2.0/ports", json!({"port": {"network_id": network}})).await;
    assert_eq!((full.status, error(&full)), (409, "IpAddressGenerationFailure"));
    member.delete(&format!("/network/v2.0/ports/{}", ports[0])).await.expect(204);
    make(&member, "ports", json!({"network_id": network})).await;
}

#[tokio::test]
async fn addresses_that_are_named() {
    let cloud = cloud().await;
    let member = cloud.member("one").await;
    let (network, subnet) = net(&member, "10.0.0.0/24").await;
    let port = |fixed: Value| json!({"port": {"network_id": network, "fixed_ips": fixed}});
    let ok = member.post("/network/v2.0/ports", port(json!([{"ip_address": "10.0.0.77"}]))).await.expect(201);
    assert_eq!(ok.at("/port/fixed_ips"), &json!([{"subnet_id": subnet, "ip_address": "10.0.0.77"}]));
    let cases = [
        (json!([{"ip_address": "10.0.0.77"}]), 409, "IpAddressAlreadyAllocated"),
        (json!([{"ip_address": "10.9.0.1"}]), 400, "InvalidIpForNetwork"),
        (json!([{"ip_address": "10.9.0.1", "subnet_id": subnet}]), 400, "InvalidIpForSubnet"),
        (json!([{"ip_address": "10.0.0.255"}]), 400, "InvalidIpForSubnet"),
        (json!([{"subnet_id": "none"}]), 404, "SubnetNotFound"),
        (json!([{}]), 400, "HTTPBadRequest"),
        (json!([{"ip_address": "x"}]), 400, "HTTPBadRequest"),
        (json!([{"ip_address": "10.0.0.8"}, {"ip_address": "10.0.0.8"}]), 400, "HTTPBadRequest"),
        (json!([{"nonsense": 1}]), 400, "HTTPBadRequest"),
        (json!(vec![json!({"subnet_id": subnet}); 6]), 400, "InvalidInput"),
    ];
    for (fixed, status, code) in cases {
        let answer = member.post("/network/v2.0/ports", port(fixed.clone())).await;
        assert_eq!((answer.status, error(&answer)), (status, code), "{fixed}");
    }
    // What a refused request had claimed is free.
    member.post("/network/v2.0/ports", port(json!([{"ip_address": "10.0.0.8"}]))).await.expect(201);
    let path = format!("/network/v2.0/ports/{}", ok.text("/port/id"));
    let moved = json!({"port": {"fixed_ips": [{"ip_address": "10.0.0.78"}, {"subnet_id": subnet}]}});
    let moved = member.put(&path, moved).await.expect(200);
    assert_eq!(moved.at("/port/fixed_ips/0/ip_address"), "10.0.0.78");
    assert_eq!(moved.at("/port/fixed_ips/1/ip_address"), "10.0.0.77", "one that names only the subnet keeps what it had");
    let fewer = member.put(&path, json!({"port": {"fixed_ips": [{"subnet_id": subnet}]}})).await.expect(200);
    let kept = fewer.text("/port/fixed_ips/0/ip_address");
    let free = if kept == "10.0.0.77" { "10.0.0.78" } else { "10.0.0.77" };
    member.post("/network/v2.0/ports", port(json!([{"ip_address": free}]))).await.expect(201);
}

#[tokio::test]
async fn macs_are_unique_in_a_network_only() {
    let cloud = cloud().await;
    let member = cloud.member("one").await;
    let ((a, _), (b, _)) = (net(&member, "10.0.0.0/24").await, net(&member, "10.0.1.0/24").await);
    let port = |network: &str, mac: &str| json!({"port": {"network_id": network, "mac_address": mac}});
    let first = member.post("/network/v2.0/ports", port(&a, "FA:16:3E:00:00:01")).await.expect(201);
    assert_eq!(first.at("/port/mac_address"), "fa:16:3e:00:00:01");
    let twice = member.post("/network/v2.0/ports", port(&a, "fa:16:3e:00:00:01")).await;
    assert_eq!((twice.status, error(&twice)), (409, "MacAddressInUse"));
    member.post("/network/v2.0/ports", port(&b, "fa:16:3e:00:00:01")).await.expect(201);
    assert_eq!(member.post("/network/v2.0/ports", port(&a, "01:00:5e:00:00:01")).await.status, 400, "a multicast MAC");
}

#[tokio::test]
async fn hosts_make_their_own_addresses_where_the_subnet_says_so() {
    let cloud = cloud().await;
    let member = cloud.member("one").await;
    let (network, _) = net(&member, "10.0.0.0/24").await;
    let mac = "fa:16:3e:01:02:03";
    let early = make(&member, "ports", json!({"network_id": network, "mac_address": mac})).await;
    let body = json!({"network_id": network, "ip_version": 6, "cidr": "2001:db8::/64", "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"});
    let six = id(&make(&member, "subnets", body).await);
    let early = member.get(&format!("/network/v2.0/ports/{}", id(&early))).await.expect(200);
    assert_eq!(early.at("/port/fixed_ips/1/ip_address"), "2001:db8::f816:3eff:fe01:203", "a port that was there gets one");
    let late = make(&member, "ports", json!({"network_id": network})).await;
    assert_eq!(late["fixed_ips"].as_array().unwrap().len(), 2);
    member.delete(&format!("/network/v2.0/subnets/{six}")).await.expect(204);
    let left = member.get(&format!("/network/v2.0/ports/{}", id(&late))).await.expect(200);
    assert_eq!(left.at("/port/fixed_ips").as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn subnets_say_what_is_wrong_with_them() {
    let cloud = cloud().await;
    let member = cloud.member("one").await;
    let (network, subnet) = net(&member, "10.0.0.0/24").await;
    let cases = [
        (json!({"cidr": "10.0.0.128/25"}), 400, "InvalidInput"),
        (json!({"cidr": "2001:db8::/64"}), 400, "InvalidInput"),
        (json!({"cidr": "10.1.0.0/24", "gateway_ip": "10.1.0.255"}), 400, "InvalidInput"),
        (
            json!({"cidr": "10.1.0.0/24", "gateway_ip": "10.1.0.9", "allocation_pools": [{"start": "10.1.0.2", "end": "10.1.0.20"}]}),
            409,
            "GatewayConflictWithAllocationPools",
        ),
        (
            json!({"cidr": "10.1.0.0/24", "allocation_pools": [{"start": "10.1.0.20", "end": "10.1.0.2"}]}),
            400,
            "InvalidAllocationPool",
        ),
        (
            json!({"cidr": "10.1.0.0/24", "allocation_pools": [{"start": "10.1.0.20", "end": "10.1.1.2"}]}),
            400,
            "OutOfBoundsAllocationPool",
        ),
        (
            json!({"cidr": "10.1.0.0/24", "allocation_pools": [{"start": "10.1.0.2", "end": "10.1.0.9"}, {"start": "10.1.0.9", "end": "10.1.0.20"}]}),
            409,
            "OverlappingAllocationPools",
        ),
        (json!({"cidr": "10.1.0.0/24", "ipv6_ra_mode": "slaac"}), 400, "InvalidInput"),
        (json!({"cidr": "10.1.0.0/32"}), 400, "InvalidInput"),
        (json!({"cidr": "224.0.0.0/24"}), 400, "InvalidInput"),
        (json!({}), 400, "BadRequest"),
    ];
    for (mut body, status, code) in cases {
        body["network_id"] = network.as_str().into();
        body["ip_version"] = 4.into();
        let answer = member.post("/network/v2.0/subnets", json!({"subnet": body})).await;
        assert_eq!((answer.status, error(&answer)), (status, code), "{body}");
    }
    let ports = member.get(&format!("/network/v2.0/ports?network_id={network}")).await.expect(200);
    assert_eq!(ports.all("/ports", "device_owner"), ["network:distributed"], "the port for DHCP and metadata");
    assert_eq!(ports.at("/ports/0/device_id"), &json!(format!("ovnmeta-{network}")));
    let off = member.put(&format!("/network/v2.0/subnets/{subnet}"), json!({"subnet": {"enable_dhcp": false}})).await;
    off.expect(200);
    let ports = member.get(&format!("/network/v2.0/ports?network_id={network}")).await.expect(200);
    assert_eq!(ports.all("/ports", "id").len(), 0);
    make(&member, "ports", json!({"network_id": network})).await;
    let used = member.delete(&format!("/network/v2.0/subnets/{subnet}")).await;
    assert_eq!((used.status, error(&used)), (409, "SubnetInUse"));
    let used = member.delete(&format!("/network/v2.0/networks/{network}")).await;
    assert_eq!((used.status, error(&used)), (409, "NetworkInUse"));
}

#[tokio::test]
async fn subnets_are_cut_from_a_pool() {
    let cloud = cloud().await;
    let member = cloud.member("one").await;
    let pool =
        id(&make(&member, "subnetpools", json!({"name": "p", "prefixes": ["10.8.0.0/16"], "default_prefixlen": 24})).await);
    let network = id(&make(&member, "networks", json!({})).await);
    let mut seen = BTreeSet::new();
    for _ in 0..4 {
        let body = json!({"network_id": network, "ip_version": 4, "subnetpool_id": pool});
        let subnet = make(&member, "subnets", body).await;
        assert!(seen.insert(subnet["cidr"].as_str().unwrap().to_owned()));
    }
    assert_eq!(seen.first().map(String::as_str), Some("10.8.0.0/24"));
    let taken = json!({"subnet": {"network_id": network, "ip_version": 4, "subnetpool_id": pool, "cidr": "10.8.0.0/25"}});
    let taken = member.post("/network/v2.0/subnets", taken).await;
    assert_eq!((taken.status, error(&taken)), (409, "SubnetAllocationError"));
    let used = member.delete(&format!("/network/v2.0/subnetpools/{pool}")).await;
    assert_eq!((used.status, error(&used)), (409, "SubnetPoolDeleteError"));
    member.delete(&format!("/network/v2.0/networks/{network}")).await.expect(204);
    member.delete(&format!("/network/v2.0/subnetpools/{pool}")).await.expect(204);
}
