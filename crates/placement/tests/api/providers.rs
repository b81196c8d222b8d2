//! Discovery, who may call, providers and what they have.
use crate::cloud::{Cloud, agg, uuid};
use serde_json::{Value, json};

#[tokio::test]
async fn discovery_needs_no_token_and_versions_are_negotiated() {
    let cloud = Cloud::start().await;
    let root = cloud.test.anonymous().get("/placement/").await.expect(200);
    assert_eq!(
        root.at("/versions/0"),
        &json!({
            "id": "v1.0", "min_version": "1.0", "max_version": "1.39", "status": "CURRENT", "links": [{"rel": "self", "href": ""}],
        })
    );
    assert_eq!(root.header("openstack-api-version"), "placement 1.0");
    cloud.test.anonymous().get("/placement/resource_providers").await.expect(401);
    assert_eq!(cloud.at("latest").get("/resource_providers").await.expect(200).header("openstack-api-version"), "placement 1.39");
    cloud.at("1.40").get("/resource_providers").await.expect(406);
    let fresh = cloud.at("1.15").get("/resource_providers").await.expect(200);
    assert_eq!(fresh.header("cache-control"), "no-cache");
    assert!(fresh.header("last-modified").ends_with(" GMT"));
    assert_eq!(cloud.at("1.14").get("/resource_providers").await.expect(200).header("last-modified"), "");
    let refused = cloud.at("1.39").send("PATCH", "/resource_providers", json!({})).await.expect(405);
    assert_eq!(refused.header("allow"), "GET, POST");
    cloud.at("1.5").get("/traits").await.expect(404);
    cloud.at("1.4").delete("/resource_providers/x/inventories").await.expect(405);
}

#[tokio::test]
async fn every_route_is_guarded() {
    let cloud = Cloud::start().await;
    let people = [
        testkit::matrix::Somebody {
            name: "nobody",
            client: cloud.test.anonymous().header("openstack-api-version", "placement 1.39"),
        },
        testkit::matrix::Somebody {
            name: "member",
            client: cloud.test.member("p").await.header("openstack-api-version", "placement 1.39"),
        },
        testkit::matrix::Somebody { name: "admin", client: cloud.at("1.39").client },
    ];
    let routes: Vec<_> = cloud.test.routes.iter().filter(|r| r.path.starts_with("/placement")).cloned().collect();
    assert_eq!(routes.len(), 36);
    assert_eq!(testkit::matrix::violations(&routes, &people).await, Vec::<String>::new());
    let member = &people[1].client;
    for path in
        ["/resource_providers", "/traits", "/resource_classes", "/allocation_candidates?resources=VCPU:1", "/allocations/x"]
    {
        member.get(&format!("/placement{path}")).await.expect(403);
    }
}

#[tokio::test]
async fn providers_live_in_trees() {
    let cloud = Cloud::start().await;
    let api = cloud.at("1.39");
    let (top, low) = (uuid(1), uuid(2));
    let made = api.post("/resource_providers", json!({"name": "top", "uuid": top})).await.expect(200);
    assert_eq!(
        (made.at("/generation"), made.at("/root_provider_uuid"), made.at("/parent_provider_uuid")),
        (&json!(0), &json!(top), &Value::Null)
    );
    assert!(made.header("location").ends_with(&format!("/placement/resource_providers/{top}")));
    let old = cloud.at("1.13").post("/resource_providers", json!({"name": "old"})).await.expect(201);
    assert!(old.bytes.is_empty() && old.header("location").starts_with("http://"));
    for (since, rels) in [("1.0", 3), ("1.1", 4), ("1.6", 5), ("1.11", 6)] {
        let shown = cloud.at(since).get(&format!("/resource_providers/{top}")).await.expect(200);
        assert_eq!(shown.at("/links").as_array().unwrap().len(), rels, "{since}");
        assert_eq!(shown.at("/links/0/href"), &json!(format!("/placement/resource_providers/{top}")));
    }

    let taken = api.post("/resource_providers", json!({"name": "top"})).await.expect(409);
    assert_eq!(taken.at("/errors/0/code"), "placement.duplicate_name");
    api.post("/resource_providers", json!({"name": "x", "uuid": top})).await.expect(409);
    for bad in [
        json!({}),
        json!({"name": 1}),
        json!({"name": ""}),
        json!({"name": "a".repeat(201)}),
        json!({"name": "x", "uuid": "y"}),
        json!({"name": "x", "cow": 1}),
        json!({"name": "x", "parent_provider_uuid": uuid(99)}),
        json!([]),
        json!({"name": "x", "uuid": uuid(5), "parent_provider_uuid": uuid(5)}),
    ] {
        api.post("/resource_providers", bad).await.expect(400);
    }

    api.post("/resource_providers", json!({"name": "low", "uuid": low, "parent_provider_uuid": top})).await.expect(200);
    let tree = api.get(&format!("/resource_providers?in_tree={low}")).await.expect(200);
    assert_eq!(tree.all("/resource_providers", "name"), ["top", "low"]);
    assert_eq!(tree.at("/resource_providers/1/root_provider_uuid"), &json!(top));
    let path = format!("/resource_providers/{low}");
    let refused = api.delete(&format!("/resource_providers/{top}")).await.expect(409);
    assert_eq!(refused.at("/errors/0/code"), "placement.resource_provider.cannot_delete_parent");
    cloud.at("1.36").put(&path, json!({"name": "low", "parent_provider_uuid": null})).await.expect(400);
    api.put(&format!("/resource_providers/{top}"), json!({"name": "top", "parent_provider_uuid": low})).await.expect(400);
    let freed = api.put(&path, json!({"name": "low2", "parent_provider_uuid": null})).await.expect(200);
    assert_eq!((freed.at("/name"), freed.at("/root_provider_uuid")), (&json!("low2"), &json!(low)));
    api.put(&path, json!({"name": "top"})).await.expect(409);
    api.delete(&format!("/resource_providers/{top}")).await.expect(204);
    api.delete(&format!("/resource_providers/{top}")).await.expect(404);
    api.get("/resource_providers?cow=1").await.expect(400);
    api.get("/resource_providers?uuid=x").await.expect(400);
}

#[tokio::test]
async fn inventories_are_guarded_by_generations() {
    let cloud = Cloud::start().await;
    let api = cloud.at("1.39");
    let host = cloud.provider(1, json!({})).await;
    let path = format!("/resource_providers/{host}/inventories");
    let made = api.post(&path, json!({"resource_class": "VCPU", "total": 8})).await.expect(201);
    assert_eq!(
        made.body,
        json!({
            "total": 8, "reserved": 0, "min_unit": 1, "max_unit": 2147483647, "step_size": 1, "allocation_ratio": 1.0,
            "resource_provider_generation": 2,
        })
    );
    assert_eq!(
        api.post(&path, json!({"resource_class": "VCPU", "total": 8})).await.expect(409).at("/errors/0/code"),
        "placement.concurrent_update"
    );
    let all = json!({"resource_provider_generation": 1, "inventories": {"VCPU": {"total": 8}}});
    assert_eq!(api.put(&path, all).await.expect(409).at("/errors/0/code"), "placement.concurrent_update");
    for bad in [
        json!({"total": 0}),
        json!({"total": 1, "max_unit": 0}),
        json!({"total": 2147483648_i64}),
        json!({"total": "8"}),
        json!({"total": 8, "reserved": -1}),
        json!({"total": 8, "cow": 1}),
        json!({"reserved": 1}),
        json!({"total": 1, "allocation_ratio": "x"}),
    ] {
        let mut bad = bad;
        bad["resource_provider_generation"] = 2.into();
        api.put(&format!("{path}/VCPU"), bad).await.expect(400);
    }
    let reserved = json!({"total": 8, "reserved": 8, "resource_provider_generation": 2});
    cloud.at("1.25").put(&format!("{path}/VCPU"), reserved.clone()).await.expect(400);
    assert_eq!(api.put(&format!("{path}/VCPU"), reserved).await.expect(200).at("/resource_provider_generation"), 3);
    let unknown = json!({"resource_provider_generation": 3, "inventories": {"CUSTOM_NONE": {"total": 1}}});
    api.put(&path, unknown).await.expect(400);
    api.put(&format!("{path}/DISK_GB"), json!({"total": 1, "resource_provider_generation": 3})).await.expect(400);
    api.get(&format!("{path}/DISK_GB")).await.expect(404);
    api.delete(&format!("{path}/DISK_GB")).await.expect(404);
    api.delete(&format!("{path}/VCPU")).await.expect(204);
    assert_eq!(api.get(&path).await.expect(200).body, json!({"resource_provider_generation": 4, "inventories": {}}));
    api.get(&format!("/resource_providers/{}/inventories", uuid(77))).await.expect(404);
}

#[tokio::test]
async fn what_is_in_use_stays() {
    let cloud = Cloud::start().await;
    let api = cloud.at("1.39");
    let host = cloud.provider(1, json!({"VCPU": {"total": 8}, "DISK_GB": {"total": 10}})).await;
    cloud.allocate(10, &host, json!({"VCPU": 2})).await.expect(204);
    let path = format!("/resource_providers/{host}");
    let generation = cloud.generation(&host).await;
    let without = json!({"resource_provider_generation": generation, "inventories": {"DISK_GB": {"total": 10}}});
    assert_eq!(
        api.put(&format!("{path}/inventories"), without).await.expect(409).at("/errors/0/code"),
        "placement.inventory.inuse"
    );
    assert_eq!(api.delete(&format!("{path}/inventories")).await.expect(409).at("/errors/0/code"), "placement.inventory.inuse");
    api.delete(&format!("{path}/inventories/VCPU")).await.expect(409);
    assert_eq!(api.delete(&path).await.expect(409).at("/errors/0/code"), "placement.resource_provider.inuse");
    let less = json!({"resource_provider_generation": generation, "inventories": {"VCPU": {"total": 1}}});
    api.put(&format!("{path}/inventories"), less).await.expect(200);
    let used = api.get(&format!("{path}/usages")).await.expect(200);
    assert_eq!(used.at("/usages"), &json!({"VCPU": 2}));
    api.delete(&format!("/allocations/{}", uuid(10))).await.expect(204);
    api.delete(&format!("/allocations/{}", uuid(10))).await.expect(404);
    api.delete(&path).await.expect(204);
}

#[tokio::test]
async fn traits_are_made_listed_and_given() {
    let cloud = Cloud::start().await;
    let api = cloud.at("1.39");
    let host = cloud.provider(1, json!({})).await;
    assert!(
        api.put("/traits/CUSTOM_GOLD", Value::Null)
            .await
            .expect(201)
            .header("location")
            .ends_with("/placement/traits/CUSTOM_GOLD")
    );
    api.put("/traits/CUSTOM_GOLD", Value::Null).await.expect(204);
    api.put("/traits/GOLD", Value::Null).await.expect(400);
    api.get("/traits/CUSTOM_GOLD").await.expect(204);
    api.get("/traits/HW_CPU_X86_VMX").await.expect(204);
    api.get("/traits/CUSTOM_NONE").await.expect(404);
    assert!(api.get("/traits").await.expect(200).at("/traits").as_array().unwrap().len() > 300);
    assert_eq!(api.get("/traits?name=startswith:CUSTOM").await.expect(200).body, json!({"traits": ["CUSTOM_GOLD"]}));
    assert_eq!(api.get("/traits?name=in:HW_CPU_X86_VMX,NONE").await.expect(200).body, json!({"traits": ["HW_CPU_X86_VMX"]}));
    api.get("/traits?name=HW").await.expect(400);
    api.get("/traits?associated=maybe").await.expect(400);

    let path = format!("/resource_providers/{host}/traits");
    let wanted = json!({"traits": ["CUSTOM_GOLD"], "resource_provider_generation": 1});
    assert_eq!(
        api.put(&path, wanted.clone()).await.expect(200).body,
        json!({"traits": ["CUSTOM_GOLD"], "resource_provider_generation": 2})
    );
    assert_eq!(api.put(&path, wanted).await.expect(409).at("/errors/0/code"), "placement.concurrent_update");
    api.put(&path, json!({"traits": ["CUSTOM_NONE"], "resource_provider_generation": 2})).await.expect(400);
    assert_eq!(api.get("/traits?associated=true").await.expect(200).body, json!({"traits": ["CUSTOM_GOLD"]}));
    assert_eq!(
        api.get("/resource_providers?required=CUSTOM_GOLD").await.expect(200).all("/resource_providers", "uuid"),
        [host.as_str()]
    );
    assert!(api.get("/resource_providers?required=!CUSTOM_GOLD").await.expect(200).all("/resource_providers", "uuid").is_empty());
    cloud.at("1.21").get("/resource_providers?required=!CUSTOM_GOLD").await.expect(400);
    cloud.at("1.38").get("/resource_providers?required=in:CUSTOM_GOLD,HW_CPU_X86_VMX").await.expect(400);
    assert_eq!(
        api.get("/resource_providers?required=in:CUSTOM_GOLD,HW_CPU_X86_VMX")
            .await
            .expect(200)
            .all("/resource_providers", "uuid")
            .len(),
        1
    );
    api.get("/resource_providers?required=CUSTOM_NONE").await.expect(400);
    api.delete("/traits/CUSTOM_GOLD").await.expect(409);
    api.delete(&path).await.expect(204);
    api.delete("/traits/CUSTOM_GOLD").await.expect(204);
    api.delete("/traits/HW_CPU_X86_VMX").await.expect(400);
}

#[tokio::test]
async fn resource_classes_are_made_renamed_and_used() {
    let cloud = Cloud::start().await;
    let api = cloud.at("1.39");
    assert_eq!(
        api.get("/resource_classes").await.expect(200).at("/resource_classes/0"),
        &json!({"name": "VCPU", "links": [{"rel": "self", "href": "/placement/resource_classes/VCPU"}]})
    );
    api.post("/resource_classes", json!({"name": "CUSTOM_A"})).await.expect(201);
    api.post("/resource_classes", json!({"name": "CUSTOM_A"})).await.expect(409);
    for bad in ["A", "CUSTOM_a", "CUSTOM_"] {
        api.post("/resource_classes", json!({"name": bad})).await.expect(400);
    }
    api.put("/resource_classes/CUSTOM_B", Value::Null).await.expect(201);
    api.put("/resource_classes/CUSTOM_B", Value::Null).await.expect(204);
    api.put("/resource_classes/VCPU", Value::Null).await.expect(400);
    let host = cloud.provider(1, json!({"CUSTOM_A": {"total": 4}})).await;
    cloud.allocate(10, &host, json!({"CUSTOM_A": 3})).await.expect(204);
    api.delete("/resource_classes/CUSTOM_A").await.expect(409);
    cloud.at("1.6").put("/resource_classes/CUSTOM_A", json!({"name": "CUSTOM_B"})).await.expect(409);
    cloud.at("1.6").put("/resource_classes/CUSTOM_A", json!({"name": "CUSTOM_C"})).await.expect(200);
    assert_eq!(api.get(&format!("/resource_providers/{host}/usages")).await.expect(200).at("/usages"), &json!({"CUSTOM_C": 3}));
    assert_eq!(cloud.held(10).await, json!({(host): {"CUSTOM_C": 3}}));
    cloud.check_used();
    api.delete("/resource_classes/CUSTOM_B").await.expect(204);
    api.get("/resource_classes/CUSTOM_B").await.expect(404);
    api.delete("/resource_classes/VCPU").await.expect(400);
}

#[tokio::test]
async fn aggregates_group_providers() {
    let cloud = Cloud::start().await;
    let api = cloud.at("1.39");
    let (a, b) = (cloud.provider(1, json!({})).await, cloud.provider(2, json!({})).await);
    let set = |host: &str, list: Value, generation: i64| {
        let body = json!({"aggregates": list, "resource_provider_generation": generation});
        let (api, path) = (cloud.at("1.39"), format!("/resource_providers/{host}/aggregates"));
        async move { api.put(&path, body).await }
    };
    assert_eq!(set(&a, json!([agg(1), agg(2)]), 1).await.expect(200).at("/resource_provider_generation"), 2);
    assert_eq!(set(&a, json!([agg(1)]), 1).await.expect(409).at("/errors/0/code"), "placement.concurrent_update");
    set(&a, json!([agg(1), agg(1)]), 2).await.expect(400);
    set(&a, json!(["x"]), 2).await.expect(400);
    let old = cloud.at("1.18").put(&format!("/resource_providers/{b}/aggregates"), json!([agg(2)])).await.expect(200);
    assert_eq!(old.body, json!({"aggregates": [agg(2)]}));
    assert_eq!(cloud.generation(&b).await, 1, "before 1.19 aggregates do not count");
    let members = |version: &'static str, query: String| {
        let api = cloud.at(version);
        async move { api.get(&format!("/resource_providers?{query}")).await }
    };
    assert_eq!(
        members("1.3", format!("member_of={}", agg(1))).await.expect(200).all("/resource_providers", "uuid"),
        [a.as_str()]
    );
    assert_eq!(
        members("1.24", format!("member_of=in:{},{}", agg(1), agg(2))).await.expect(200).all("/resource_providers", "uuid").len(),
        2
    );
    let both = format!("member_of={}&member_of={}", agg(1), agg(2));
    assert_eq!(members("1.24", both.clone()).await.expect(200).all("/resource_providers", "uuid"), [a.as_str()]);
    members("1.23", both).await.expect(400);
    assert_eq!(members("1.32", format!("member_of=!{}", agg(1))).await.expect(200).all("/resource_providers", "uuid"), [b]);
    members("1.31", format!("member_of=!{}", agg(1))).await.expect(400);
    members("1.39", format!("member_of={},{}", agg(1), agg(2))).await.expect(400);
    api.get(&format!("/resource_providers/{}/aggregates", uuid(9))).await.expect(404);
}
