//! Routers, floating IPs, security groups, quotas, sharing, tags: rules and the errors that clients branch on.
mod common;
use common::*;
use serde_json::{Value, json};

#[tokio::test]
async fn a_router_joins_networks_and_leads_out() {
    let cloud = cloud().await;
    let (admin, member) = (cloud.admin().await, cloud.member("one").await);
    let public = external(&admin, "192.0.2.0/24").await;
    let (network, subnet) = net(&member, "10.0.0.0/24").await;
    let (_, same) = net(&member, "10.0.0.128/25").await;
    let gateway = json!({"network_id": public});
    let router = make(&member, "routers", json!({"name": "r", "external_gateway_info": gateway})).await;
    assert_eq!(router["external_gateway_info"]["enable_snat"], true);
    assert_eq!(router.get("distributed"), None, "for administrators only");
    let path = format!("/network/v2.0/routers/{}", id(&router));
    let act = |action: &str, body: Value| {
        let (member, url) = (member.clone(), format!("{path}/{action}"));
        async move { member.put(&url, body).await }
    };
    for (body, status, code) in [
        (json!({}), 400, "BadRequest"),
        (json!({"subnet_id": subnet, "port_id": "p"}), 400, "BadRequest"),
        (json!({"subnet_id": "none"}), 404, "SubnetNotFound"),
        (json!({"port_id": "none"}), 404, "PortNotFound"),
        (json!({"subnet_id": 7}), 400, "HTTPBadRequest"),
    ] {
        let answer = act("add_router_interface", body.clone()).await;
        assert_eq!((answer.status, error(&answer)), (status, code), "{body}");
    }
    let joined = act("add_router_interface", json!({"subnet_id": subnet})).await.expect(200);
    let port = member.get(&format!("/network/v2.0/ports/{}", joined.text("/port_id"))).await.expect(200);
    assert_eq!(port.at("/port/fixed_ips/0/ip_address"), "10.0.0.1");
    assert_eq!(port.at("/port/device_owner"), "network:router_interface");
    for again in [&subnet, &same] {
        let answer = act("add_router_interface", json!({"subnet_id": again})).await;
        assert_eq!((answer.status, error(&answer)), (400, "BadRequest"), "twice, and an overlap");
    }
    let refused = member.delete(&format!("/network/v2.0/ports/{}", joined.text("/port_id"))).await;
    assert_eq!((refused.status, error(&refused)), (409, "ServicePortInUse"));
    let refused = member.delete(&path).await;
    assert_eq!((refused.status, error(&refused)), (409, "RouterInUse"));

    let guest = make(&member, "ports", json!({"network_id": network})).await;
    let floating = make(&member, "floatingips", json!({"floating_network_id": public, "port_id": guest["id"]})).await;
    assert_eq!(floating["router_id"], router["id"]);
    assert_eq!(floating["fixed_ip_address"], guest["fixed_ips"][0]["ip_address"]);
    let second = member
        .post("/network/v2.0/floatingips", json!({"floatingip": {"floating_network_id": public, "port_id": guest["id"]}}))
        .await;
    assert_eq!((second.status, error(&second)), (409, "FloatingIPPortAlreadyAssociated"));
    // An update is refused too, and leaves the first one's claim: a third try fares no better.
    let spare = make(&member, "floatingips", json!({"floating_network_id": public})).await;
    for _ in 0..2 {
        let taken = json!({"floatingip": {"port_id": guest["id"]}});
        let taken = member.put(&format!("/network/v2.0/floatingips/{}", id(&spare)), taken).await;
        assert_eq!((taken.status, error(&taken)), (409, "FloatingIPPortAlreadyAssociated"));
        let named = json!({"floatingip": {"port_id": guest["id"], "fixed_ip_address": floating["fixed_ip_address"]}});
        let named = member.put(&format!("/network/v2.0/floatingips/{}", id(&spare)), named).await;
        assert_eq!((named.status, error(&named)), (409, "FloatingIPPortAlreadyAssociated"));
    }
    member.delete(&format!("/network/v2.0/floatingips/{}", id(&spare))).await.expect(204);
    let refused = act("remove_router_interface", json!({"subnet_id": subnet})).await;
    assert_eq!((refused.status, error(&refused)), (409, "RouterInterfaceInUseByFloatingIP"));
    let refused = member.put(&path, json!({"router": {"external_gateway_info": null}})).await;
    assert_eq!((refused.status, error(&refused)), (409, "RouterExternalGatewayInUseByFloatingIp"));

    let route = |nexthop: &str| json!({"router": {"routes": [{"destination": "10.9.0.0/16", "nexthop": nexthop}]}});
    for bad in ["10.77.0.1", "10.0.0.1"] {
        let answer = member.put(&path, route(bad)).await;
        assert_eq!((answer.status, error(&answer)), (400, "InvalidRoutes"), "{bad}");
    }
    act("add_extraroutes", route("10.0.0.9")).await.expect(200);
    let both = act("add_extraroutes", route("10.0.0.10")).await.expect(200);
    assert_eq!(both.at("/router/routes").as_array().unwrap().len(), 2);
    member.delete(&format!("/network/v2.0/ports/{}", id(&guest))).await.expect(204);
    let floating = member.get(&format!("/network/v2.0/floatingips/{}", id(&floating))).await.expect(200);
    assert_eq!((floating.at("/floatingip/port_id"), floating.at("/floatingip/status")), (&Value::Null, &json!("DOWN")));
    let refused = act("remove_router_interface", json!({"subnet_id": subnet})).await;
    assert_eq!((refused.status, error(&refused)), (409, "RouterInterfaceInUseByRoute"));
    act("remove_extraroutes", json!({"router": {"routes": both.at("/router/routes")}})).await.expect(200);
    let left = act("remove_router_interface", json!({"subnet_id": subnet})).await.expect(200);
    assert_eq!(left.at("/port_id"), joined.at("/port_id"));
    member.delete(&path).await.expect(204);
    let rest = admin.get(&format!("/network/v2.0/ports?network_id={public}")).await.expect(200);
    assert_eq!(rest.all("/ports", "device_owner"), ["network:floatingip"], "the gateway's port is gone");
}

#[tokio::test]
async fn an_external_address_cannot_be_had_twice() {
    let cloud = cloud().await;
    let (admin, member) = (cloud.admin().await, cloud.member("one").await);
    let public = external(&admin, "192.0.2.0/29").await;
    for _ in 0..5 {
        make(&member, "floatingips", json!({"floating_network_id": public})).await;
    }
    let full = member.post("/network/v2.0/floatingips", json!({"floatingip": {"floating_network_id": public}})).await;
    assert_eq!((full.status, error(&full)), (409, "IpAddressGenerationFailure"));
    let (inside, _) = net(&member, "10.0.0.0/24").await;
    let wrong = member.post("/network/v2.0/floatingips", json!({"floatingip": {"floating_network_id": inside}})).await;
    assert_eq!((wrong.status, error(&wrong)), (400, "BadRequest"));
    let chosen = json!({"floatingip": {"floating_network_id": public, "floating_ip_address": "192.0.2.3"}});
    assert_eq!(member.post("/network/v2.0/floatingips", chosen).await.status, 403, "only administrators choose");
    admin.delete(&format!("/network/v2.0/networks/{public}")).await.expect(204);
    let left = member.get("/network/v2.0/floatingips").await.expect(200);
    assert_eq!(left.all("/floatingips", "id").len(), 0, "unused addresses go with their network");
    let quota = member.get(&format!("/network/v2.0/quotas/{}/details", project(&member).await)).await.expect(200);
    assert_eq!(quota.at("/quota/floatingip/used"), 0);
}

async fn project(client: &testkit::Client) -> String {
    client.get("/network/v2.0/quotas/project").await.expect(200).text("/project/project_id")
}

#[tokio::test]
async fn the_default_group_is_there_and_stays() {
    let cloud = cloud().await;
    let member = cloud.member("one").await;
    let groups = member.get("/network/v2.0/security-groups").await.expect(200);
    assert_eq!(groups.all("/security_groups", "name"), ["default"]);
    assert_eq!(groups.at("/security_groups/0/security_group_rules").as_array().unwrap().len(), 4);
    let default = groups.text("/security_groups/0/id");
    let (network, _) = net(&member, "10.0.0.0/24").await;
    let port = make(&member, "ports", json!({"network_id": network})).await;
    assert_eq!(port["security_groups"], json!([default]));
    let refused = member.delete(&format!("/network/v2.0/security-groups/{default}")).await;
    assert_eq!((refused.status, error(&refused)), (409, "SecurityGroupCannotRemoveDefault"));
    let second = member.post("/network/v2.0/security-groups", json!({"security_group": {"name": "default"}})).await;
    assert_eq!((second.status, error(&second)), (409, "SecurityGroupDefaultAlreadyExists"));

    let group = make(&member, "security-groups", json!({"name": "web"})).await;
    let rule = json!({"security_group_rule": {"security_group_id": group["id"], "direction": "ingress", "protocol": "tcp", "port_range_min": 80, "port_range_max": 80}});
    member.post("/network/v2.0/security-group-rules", rule.clone()).await.expect(201);
    let twice = member.post("/network/v2.0/security-group-rules", rule).await;
    assert_eq!((twice.status, error(&twice)), (409, "SecurityGroupRuleExists"));
    let set = json!({"port": {"security_groups": [group["id"]]}});
    member.put(&format!("/network/v2.0/ports/{}", id(&port)), set).await.expect(200);
    let path = format!("/network/v2.0/security-groups/{}", id(&group));
    let used = member.delete(&path).await;
    assert_eq!((used.status, error(&used)), (409, "SecurityGroupInUse"));
    member.delete(&format!("/network/v2.0/ports/{}", id(&port))).await.expect(204);
    member.delete(&path).await.expect(204);
    let quota = member.get(&format!("/network/v2.0/quotas/{}/details", project(&member).await)).await.expect(200);
    assert_eq!((quota.at("/quota/security_group/used"), quota.at("/quota/security_group_rule/used")), (&json!(1), &json!(4)));
}

#[tokio::test]
async fn port_security_and_pairs() {
    let cloud = cloud().await;
    let member = cloud.member("one").await;
    let (network, _) = net(&member, "10.0.0.0/24").await;
    let group = make(&member, "security-groups", json!({"name": "g"})).await;
    let cases = [
        (
            json!({"port_security_enabled": false, "security_groups": [group["id"]]}),
            400,
            "PortSecurityAndIPRequiredForSecurityGroups",
        ),
        (
            json!({"port_security_enabled": false, "allowed_address_pairs": [{"ip_address": "10.0.0.9"}]}),
            409,
            "AddressPairAndPortSecurityRequired",
        ),
        (json!({"allowed_address_pairs": vec![json!({"ip_address": "10.0.0.9"}); 11]}), 400, "AllowedAddressPairExhausted"),
        (json!({"allowed_address_pairs": vec![json!({"ip_address": "10.0.0.9"}); 2]}), 400, "DuplicateAddressPairInRequest"),
        (json!({"allowed_address_pairs": [{"ip_address": "nonsense"}]}), 400, "HTTPBadRequest"),
        (
            json!({"fixed_ips": [{"ip_address": "10.0.0.9"}], "allowed_address_pairs": [{"ip_address": "10.0.0.9"}]}),
            400,
            "AddressPairMatchesPortFixedIPAndMac",
        ),
        (json!({"security_groups": ["none"]}), 404, "SecurityGroupNotFound"),
        (json!({"extra_dhcp_opts": [{"opt_name": "tftp-server", "opt_value": "a\nb"}]}), 400, "ExtraDhcpOptBadData"),
        (json!({"device_owner": "network:router_interface"}), 403, "PolicyNotAuthorized"),
        (json!({"binding:host_id": "h"}), 403, "PolicyNotAuthorized"),
        (json!({"nonsense": 1}), 400, "HTTPBadRequest"),
    ];
    for (mut body, status, code) in cases {
        body["network_id"] = network.as_str().into();
        let answer = member.post("/network/v2.0/ports", json!({"port": body})).await;
        assert_eq!((answer.status, error(&answer)), (status, code), "{body}");
    }
    let port = make(&member, "ports", json!({"network_id": network})).await;
    let path = format!("/network/v2.0/ports/{}", id(&port));
    let off = member.put(&path, json!({"port": {"port_security_enabled": false}})).await;
    assert_eq!((off.status, error(&off)), (409, "PortSecurityPortHasSecurityGroup"));
    member.put(&path, json!({"port": {"port_security_enabled": false, "security_groups": []}})).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quotas_are_exact_under_concurrency() {
    let cloud = cloud().await;
    let (admin, member) = (cloud.admin().await, cloud.member("one").await);
    let project = project(&member).await;
    let path = format!("/network/v2.0/quotas/{project}");
    assert_eq!(member.put(&path, json!({"quota": {"port": 7}})).await.status, 403);
    admin.put(&path, json!({"quota": {"port": 7}})).await.expect(200);
    for bad in [json!({"port": -2}), json!({"port": "x"}), json!({"cheese": 1})] {
        admin.put(&path, json!({"quota": bad})).await.expect(400);
    }
    let (network, _) = net(&member, "10.0.0.0/24").await;
    let make = |_| {
        let (member, network) = (member.clone(), network.clone());
        tokio::spawn(async move { member.post("/network/v2.0/ports", json!({"port": {"network_id": network}})).await })
    };
    let (mut made, mut refused) = (0, 0);
    for answer in (0..30).map(make).collect::<Vec<_>>() {
        let answer = answer.await.unwrap();
        match answer.status {
            201 => made += 1,
            _ => {
                assert_eq!((answer.status, error(&answer)), (409, "OverQuota"));
                refused += 1;
            }
        }
    }
    assert_eq!((made, refused), (7, 23));
    let details = member.get(&format!("{path}/details")).await.expect(200);
    assert_eq!(details.at("/quota/port"), &json!({"limit": 7, "used": 7, "reserved": 0}));
    let bulk = json!({"networks": vec![json!({"name": "n"}); 100]});
    let over = member.post("/network/v2.0/networks", bulk).await;
    assert_eq!((over.status, error(&over)), (409, "OverQuota"));
    let networks = member.get("/network/v2.0/networks").await.expect(200);
    assert_eq!(networks.all("/networks", "id").len(), 1, "a bulk that is refused makes nothing");
    admin.delete(&path).await.expect(204);
    let gone = admin.delete(&path).await;
    assert_eq!((gone.status, error(&gone)), (404, "TenantQuotaNotFound"));
}

#[tokio::test]
async fn what_is_not_shared_does_not_exist_for_others() {
    let cloud = cloud().await;
    let (admin, one, two) = (cloud.admin().await, cloud.member("one").await, cloud.member("two").await);
    let (network, subnet) = net(&one, "10.0.0.0/24").await;
    let group = id(&make(&one, "security-groups", json!({"name": "g"})).await);
    for path in [format!("networks/{network}"), format!("subnets/{subnet}"), format!("security-groups/{group}")] {
        let path = format!("/network/v2.0/{path}");
        two.get(&path).await.expect(404);
        two.delete(&path).await.expect(404);
        two.put(&format!("{path}/tags/x"), Value::Null).await.expect(404);
    }
    let port = json!({"port": {"network_id": network}});
    two.post("/network/v2.0/ports", port.clone()).await.expect(404);
    let project_two = project(&two).await;
    let policy =
        json!({"object_type": "network", "object_id": network, "action": "access_as_shared", "target_tenant": project_two});
    let foreign = two.post("/network/v2.0/rbac-policies", json!({"rbac_policy": policy})).await;
    assert_eq!(foreign.status, 404);
    let policy = make(&one, "rbac-policies", policy).await;
    assert_eq!(two.get(&format!("/network/v2.0/networks/{network}")).await.expect(200).at("/network/shared"), true);
    assert_eq!(one.get(&format!("/network/v2.0/networks/{network}")).await.expect(200).at("/network/shared"), false);
    two.delete(&format!("/network/v2.0/networks/{network}")).await.expect(403);
    let guest = two.post("/network/v2.0/ports", port).await.expect(201).text("/port/id");
    let named = json!({"port": {"network_id": network, "fixed_ips": [{"ip_address": "10.0.0.77"}]}});
    two.post("/network/v2.0/ports", named).await.expect(403);
    one.get(&format!("/network/v2.0/ports/{guest}")).await.expect(200);
    one.put(&format!("/network/v2.0/ports/{guest}"), json!({"port": {"name": "x"}})).await.expect(403);
    let path = format!("/network/v2.0/rbac-policies/{}", id(&policy));
    let used = one.delete(&path).await;
    assert_eq!((used.status, error(&used)), (409, "RbacPolicyInUse"));
    two.delete(&format!("/network/v2.0/ports/{guest}")).await.expect(204);
    one.delete(&path).await.expect(204);
    two.get(&format!("/network/v2.0/networks/{network}")).await.expect(404);

    assert_eq!(one.put(&format!("/network/v2.0/networks/{network}"), json!({"network": {"shared": true}})).await.status, 403);
    admin.put(&format!("/network/v2.0/networks/{network}"), json!({"network": {"shared": true}})).await.expect(200);
    two.get(&format!("/network/v2.0/subnets/{subnet}")).await.expect(200);
    let policies = admin.get(&format!("/network/v2.0/rbac-policies?object_id={network}")).await.expect(200);
    assert_eq!(policies.all("/rbac_policies", "target_tenant"), ["*"]);
    admin.delete(&format!("/network/v2.0/rbac-policies/{}", policies.text("/rbac_policies/0/id"))).await.expect(204);
    two.get(&format!("/network/v2.0/networks/{network}")).await.expect(404);
}

#[tokio::test]
async fn tags_and_filters() {
    let cloud = cloud().await;
    let member = cloud.member("one").await;
    let mut ids = Vec::new();
    for (name, tags) in [("a", json!(["red", "blue"])), ("b", json!(["red"])), ("c", json!([]))] {
        let network = id(&make(&member, "networks", json!({"name": name})).await);
        member.put(&format!("/network/v2.0/networks/{network}/tags"), json!({"tags": tags})).await.expect(200);
        ids.push(network);
    }
    let names = async |query: &str| {
        let found = member.get(&format!("/network/v2.0/networks?sort_key=name&{query}")).await.expect(200);
        found.all("/networks", "name").join("")
    };
    assert_eq!(names("tags=red").await, "ab");
    assert_eq!(names("tags=red,blue").await, "a");
    assert_eq!(names("tags-any=blue,green").await, "a");
    assert_eq!(names("not-tags=red").await, "c");
    assert_eq!(names("not-tags-any=blue").await, "bc");
    assert_eq!(names("name=a&name=c").await, "ac");
    assert_eq!(names("admin_state_up=True&router%3Aexternal=False").await, "abc");
    let path = format!("/network/v2.0/networks/{}/tags", ids[2]);
    member.put(&format!("{path}/green"), Value::Null).await.expect(201);
    member.get(&format!("{path}/green")).await.expect(204);
    member.delete(&format!("{path}/green")).await.expect(204);
    assert_eq!(error(&member.get(&format!("{path}/green")).await), "TagNotFound");
    let fields = member.get("/network/v2.0/networks?fields=id&fields=name").await.expect(200);
    assert_eq!(fields.at("/networks/0").as_object().unwrap().len(), 2);
    let page = member.get("/network/v2.0/networks?limit=2&sort_key=name").await.expect(200);
    assert_eq!((page.all("/networks", "name").join(""), page.text("/networks_links/0/rel")), ("ab".into(), "next".into()));
}

#[tokio::test]
async fn the_providers_part_is_an_administrators() {
    let cloud = cloud().await;
    let (admin, member) = (cloud.admin().await, cloud.member("one").await);
    let flat = json!({"network": {"provider:network_type": "flat", "provider:physical_network": "physnet1"}});
    member.post("/network/v2.0/networks", flat.clone()).await.expect(403);
    admin.post("/network/v2.0/networks", flat.clone()).await.expect(201);
    let twice = admin.post("/network/v2.0/networks", flat).await;
    assert_eq!((twice.status, error(&twice)), (409, "FlatNetworkInUse"));
    let vlan = |n: u32| json!({"network": {"provider:network_type": "vlan", "provider:physical_network": "physnet1", "provider:segmentation_id": n}});
    let made = admin.post("/network/v2.0/networks", vlan(7)).await.expect(201);
    assert_eq!(made.at("/network/mtu"), 1500);
    assert_eq!(error(&admin.post("/network/v2.0/networks", vlan(7)).await), "VlanIdInUse");
    assert_eq!(admin.post("/network/v2.0/networks", vlan(4095)).await.status, 400);
    admin.delete(&format!("/network/v2.0/networks/{}", made.text("/network/id"))).await.expect(204);
    admin.post("/network/v2.0/networks", vlan(7)).await.expect(201);
    let own = make(&member, "networks", json!({})).await;
    assert_eq!((own.get("provider:network_type"), &own["mtu"]), (None, &json!(1442)));
    let big = member.put(&format!("/network/v2.0/networks/{}", id(&own)), json!({"network": {"mtu": 9000}})).await;
    assert_eq!((big.status, error(&big)), (400, "InvalidInput"));
}

#[tokio::test]
async fn every_route_asks_who_calls_and_none_breaks() {
    let cloud = cloud().await;
    let people = [
        testkit::matrix::Somebody { name: "nobody", client: cloud.anonymous() },
        testkit::matrix::Somebody { name: "a reader", client: cloud.user("one", "reader").await },
        testkit::matrix::Somebody { name: "a member", client: cloud.member("one").await },
        testkit::matrix::Somebody { name: "an administrator", client: cloud.admin().await },
    ];
    let routes: Vec<_> = cloud.routes.iter().filter(|r| r.path.starts_with("/network")).cloned().collect();
    assert!(routes.len() > 100, "{} routes", routes.len());
    let wrong = testkit::matrix::violations(&routes, &people).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_network_of_ones_own_by_one_call() {
    let cloud = cloud().await;
    let (admin, member) = (cloud.admin().await, cloud.member("one").await);
    let path = format!("/network/v2.0/auto-allocated-topology/{}", project(&member).await);
    let none = member.get(&path).await;
    assert_eq!((none.status, error(&none)), (409, "AutoAllocationFailure"));
    let public = external(&admin, "192.0.2.0/24").await;
    member.get(&format!("{path}?fields=dry-run")).await.expect(200);
    let network = member.get(&path).await.expect(200).text("/auto_allocated_topology/id");
    assert_eq!(member.get(&path).await.expect(200).text("/auto_allocated_topology/id"), network, "twice is once");
    let guest = make(&member, "ports", json!({"network_id": network})).await;
    let floating = make(&member, "floatingips", json!({"floating_network_id": public, "port_id": guest["id"]})).await;
    member.delete(&path).await.expect(409);
    member.delete(&format!("/network/v2.0/floatingips/{}", id(&floating))).await.expect(204);
    member.delete(&format!("/network/v2.0/ports/{}", id(&guest))).await.expect(204);
    member.delete(&path).await.expect(204);
    assert_eq!(member.get("/network/v2.0/routers").await.expect(200).all("/routers", "id").len(), 0);
}

#[tokio::test]
async fn what_is_missing_has_its_name() {
    let cloud = cloud().await;
    let member = cloud.member("one").await;
    let cases = [
        ("networks", "NetworkNotFound"),
        ("subnets", "SubnetNotFound"),
        ("ports", "PortNotFound"),
        ("routers", "RouterNotFound"),
        ("floatingips", "FloatingIPNotFound"),
        ("security-groups", "SecurityGroupNotFound"),
        ("security-group-rules", "SecurityGroupRuleNotFound"),
        ("subnetpools", "SubnetPoolNotFound"),
        ("address-scopes", "AddressScopeNotFound"),
        ("address-groups", "AddressGroupNotFound"),
        ("rbac-policies", "RbacPolicyNotFound"),
    ];
    for (plural, code) in cases {
        let answer = member.get(&format!("/network/v2.0/{plural}/nothing")).await;
        assert_eq!((answer.status, error(&answer)), (404, code), "{plural}");
    }
}

#[tokio::test]
async fn nodes_are_shown_as_agents_to_administrators() {
    static NODES: store::Table = store::Table { name: "compute/nodes", indexes: &[] };
    let setup = testkit::Setup { services: vec![network::service()], tables: vec![&NODES], ..Default::default() };
    let cloud = testkit::TestCloud::with(setup).await;
    let rows = [("a", "up", false), ("b", "down", false), ("c", "up", true)];
    let write = move |tx: &mut store::Tx<'_>| {
        for (host, state, forced) in rows {
            tx.put(&NODES, host, json!({"host": host, "state": state, "forced_down": forced, "last_seen": 1_000_000}));
        }
        Ok::<_, resource::Error>(())
    };
    cloud.cloud.db.transact(write).await.unwrap();
    let (admin, member) = (cloud.admin().await, cloud.member("one").await);
    let agents = admin.get("/network/v2.0/agents").await.expect(200);
    assert_eq!(agents.all("/agents", "host"), ["a", "b", "c"]);
    let alive = admin.get("/network/v2.0/agents?alive=True").await.expect(200);
    assert_eq!(alive.all("/agents", "host"), ["a"]);
    let shown = admin.get(&format!("/network/v2.0/agents/{}", agents.text("/agents/0/id"))).await.expect(200);
    assert_eq!(shown.at("/agent/heartbeat_timestamp"), "1970-01-01 00:00:01");
    assert_eq!(member.get("/network/v2.0/agents").await.expect(200).all("/agents", "id").len(), 0);
}
