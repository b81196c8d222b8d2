//! What consumers hold, what is used, and where more would fit.
use crate::cloud::{Cloud, allocations, uuid};
use serde_json::{Value, json};

#[tokio::test]
async fn allocations_have_a_form_for_each_version() {
    let cloud = Cloud::start().await;
    let host = cloud.provider(1, json!({"VCPU": {"total": 8, "max_unit": 4}})).await;
    let path = format!("/allocations/{}", uuid(10));
    let list = json!([{"resource_provider": {"uuid": host}, "resources": {"VCPU": 1}}]);
    cloud.at("1.7").put(&path, json!({"allocations": list})).await.expect(204);
    cloud.at("1.7").put(&path, json!({"allocations": list, "project_id": "p", "user_id": "u"})).await.expect(400);
    cloud.at("1.8").put(&path, json!({"allocations": list})).await.expect(400);
    cloud.at("1.11").put(&path, json!({"allocations": list, "project_id": "p", "user_id": "u"})).await.expect(204);
    cloud.at("1.12").put(&path, json!({"allocations": list, "project_id": "p", "user_id": "u"})).await.expect(400);
    let mut dict = json!({"allocations": {&host: {"resources": {"VCPU": 2}}}, "project_id": "p", "user_id": "u"});
    cloud.at("1.12").put(&path, dict.clone()).await.expect(204);
    cloud.at("1.12").put(&path, json!({"allocations": {}, "project_id": "p", "user_id": "u"})).await.expect(400);
    cloud.at("1.28").put(&path, dict.clone()).await.expect(400);
    dict["consumer_generation"] = Value::Null;
    assert_eq!(cloud.at("1.28").put(&path, dict.clone()).await.expect(409).at("/errors/0/code"), "placement.concurrent_update");
    dict["consumer_generation"] = 3.into();
    cloud.at("1.28").put(&path, dict.clone()).await.expect(204);
    dict["consumer_generation"] = 4.into();
    dict["mappings"] = json!({"a": [host]});
    cloud.at("1.33").put(&path, dict.clone()).await.expect(400);
    cloud.at("1.34").put(&path, dict.clone()).await.expect(204);
    cloud.at("1.38").put(&path, dict.clone()).await.expect(400);
    assert_eq!(cloud.at("1.38").get(&path).await.expect(200).at("/consumer_type"), "unknown");
    dict["consumer_generation"] = 5.into();
    dict["consumer_type"] = "instance".into();
    cloud.at("1.38").put(&path, dict.clone()).await.expect(400);
    dict["consumer_type"] = "INSTANCE".into();
    cloud.at("1.38").put(&path, dict).await.expect(204);
    assert_eq!(
        cloud.at("1.38").get(&path).await.expect(200).body,
        json!({
            "allocations": {&host: {"generation": 7, "resources": {"VCPU": 2}}},
            "project_id": "p", "user_id": "u", "consumer_generation": 6, "consumer_type": "INSTANCE",
        })
    );
    assert_eq!(
        cloud.at("1.11").get(&path).await.expect(200).body,
        json!({"allocations": {&host: {"generation": 7, "resources": {"VCPU": 2}}}})
    );
    let of_host = cloud.at("1.28").get(&format!("/resource_providers/{host}/allocations")).await.expect(200);
    assert_eq!(
        of_host.body,
        json!({"allocations": {uuid(10): {"resources": {"VCPU": 2}, "consumer_generation": 6}}, "resource_provider_generation": 7})
    );
    assert_eq!(cloud.at("1.39").get(&format!("/allocations/{}", uuid(11))).await.expect(200).body, json!({"allocations": {}}));
    let empty = json!({"allocations": {}, "project_id": "p", "user_id": "u", "consumer_generation": 6});
    cloud.at("1.28").put(&path, empty).await.expect(204);
    assert_eq!(cloud.held(10).await, json!({}));
    cloud.check_used();
}

#[tokio::test]
async fn claims_must_fit_and_are_made_together() {
    let cloud = Cloud::start().await;
    let api = cloud.at("1.39");
    let host = cloud.provider(1, json!({"VCPU": {"total": 4, "allocation_ratio": 2.0, "max_unit": 6, "step_size": 2}})).await;
    for (amounts, status) in [
        (json!({"VCPU": 8}), 409),
        (json!({"VCPU": 3}), 409),
        (json!({"DISK_GB": 1}), 409),
        (json!({"CUSTOM_NONE": 1}), 400),
        (json!({"VCPU": 0}), 400),
        (json!({"VCPU": "2"}), 400),
        (json!({"vcpu": 2}), 400),
        (json!({}), 400),
        (json!({"VCPU": 9223372036854775807_i64}), 409),
    ] {
        cloud.allocate(10, &host, amounts.clone()).await.expect(status);
        assert_eq!(cloud.held(10).await, json!({}), "{amounts}");
    }
    cloud.allocate(10, &uuid(99), json!({"VCPU": 2})).await.expect(400);
    api.put("/allocations/x", json!({})).await.expect(400);
    cloud.allocate(10, &host, json!({"VCPU": 6})).await.expect(204);
    cloud.allocate(11, &host, json!({"VCPU": 4})).await.expect(409);

    let one = |amount: i64, generation: Value| allocations(&host, json!({"VCPU": amount}), generation);
    let too_much = json!({uuid(10): one(4, json!(1)), uuid(11): one(4, Value::Null), uuid(12): one(2, Value::Null)});
    api.post("/allocations", too_much).await.expect(409);
    assert_eq!(cloud.held(11).await, json!({}));
    api.post("/allocations", json!({uuid(10): one(4, json!(1)), uuid(11): one(4, Value::Null)})).await.expect(204);
    assert_eq!((cloud.held(10).await, cloud.held(11).await), (json!({&host: {"VCPU": 4}}), json!({&host: {"VCPU": 4}})));
    let mut gone = one(2, json!(2));
    gone["allocations"] = json!({});
    api.post("/allocations", json!({uuid(10): gone, uuid(12): one(4, Value::Null)})).await.expect(204);
    assert_eq!((cloud.held(10).await, cloud.held(12).await), (json!({}), json!({&host: {"VCPU": 4}})));
    api.post("/allocations", json!({})).await.expect(400);
    api.post("/allocations", json!({"x": {}})).await.expect(400);
    cloud.at("1.12").post("/allocations", json!({})).await.expect(404);
    api.get("/allocations").await.expect(405);
    cloud.check_used();
}

#[tokio::test]
async fn usages_are_summed_by_project_user_and_type() {
    let cloud = Cloud::start().await;
    let host = cloud.provider(1, json!({"VCPU": {"total": 99}, "DISK_GB": {"total": 99}})).await;
    let project = cloud.test.user("p", "reader").await;
    let admin = cloud.test.admin().await;
    let id = admin.get("/identity/v3/projects?name=p").await.expect(200).text("/projects/0/id");
    for (n, user, kind, vcpus) in [(10, "u", "INSTANCE", 1), (11, "u", "MIGRATION", 2), (12, "v", "INSTANCE", 4)] {
        let mut body = allocations(&host, json!({"VCPU": vcpus, "DISK_GB": 1}), Value::Null);
        body["project_id"] = json!(id);
        body["user_id"] = user.into();
        body["consumer_type"] = kind.into();
        cloud.at("1.39").put(&format!("/allocations/{}", uuid(n)), body).await.expect(204);
    }
    let usages = |version: &'static str, rest: &'static str| {
        let (api, path) = (cloud.at(version), format!("/usages?project_id={id}{rest}"));
        async move { api.get(&path).await.expect(200).at("/usages").clone() }
    };
    assert_eq!(usages("1.9", "").await, json!({"DISK_GB": 3, "VCPU": 7}));
    assert_eq!(usages("1.9", "&user_id=u").await, json!({"DISK_GB": 2, "VCPU": 3}));
    assert_eq!(
        usages("1.38", "").await,
        json!({
            "INSTANCE": {"DISK_GB": 2, "VCPU": 5, "consumer_count": 2}, "MIGRATION": {"DISK_GB": 1, "VCPU": 2, "consumer_count": 1},
        })
    );
    assert_eq!(usages("1.38", "&consumer_type=all").await, json!({"all": {"DISK_GB": 3, "VCPU": 7, "consumer_count": 3}}));
    assert_eq!(usages("1.38", "&consumer_type=MIGRATION&user_id=v").await, json!({}));
    let api = cloud.at("1.39");
    api.get("/usages").await.expect(400);
    api.get("/usages?project_id=").await.expect(400);
    api.get(&format!("/usages?project_id={id}&consumer_type=bad")).await.expect(400);
    cloud.at("1.37").get(&format!("/usages?project_id={id}&consumer_type=INSTANCE")).await.expect(400);
    cloud.at("1.8").get(&format!("/usages?project_id={id}")).await.expect(404);
    let reader = project.header("openstack-api-version", "placement 1.9");
    assert_eq!(reader.get(&format!("/placement/usages?project_id={id}")).await.expect(200).at("/usages/VCPU"), 7);
    reader.get("/placement/usages?project_id=another").await.expect(403);
}

#[tokio::test]
async fn candidates_are_ready_to_be_allocated() {
    let cloud = Cloud::start().await;
    let api = cloud.at("1.39");
    let big = cloud.provider(1, json!({"VCPU": {"total": 8}, "MEMORY_MB": {"total": 1024, "reserved": 24}})).await;
    let small = cloud.provider(2, json!({"VCPU": {"total": 1}, "MEMORY_MB": {"total": 1024}})).await;
    cloud.allocate(10, &big, json!({"VCPU": 2})).await.expect(204);
    let found = api.get("/allocation_candidates?resources=VCPU:2,MEMORY_MB:512").await.expect(200);
    assert_eq!(
        found.body,
        json!({
            "allocation_requests": [{"allocations": {&big: {"resources": {"MEMORY_MB": 512, "VCPU": 2}}}, "mappings": {"": [big]}}],
            "provider_summaries": {&big: {
                "resources": {"MEMORY_MB": {"capacity": 1000, "used": 0}, "VCPU": {"capacity": 8, "used": 2}},
                "traits": [], "parent_provider_uuid": null, "root_provider_uuid": big,
            }},
        })
    );
    let mut body = found.at("/allocation_requests/0").clone();
    body["project_id"] = "p".into();
    body["user_id"] = "u".into();
    body["consumer_generation"] = Value::Null;
    body["consumer_type"] = "INSTANCE".into();
    body["mappings"] = json!({"_": [big]});
    api.put(&format!("/allocations/{}", uuid(11)), body).await.expect(204);
    let old = cloud.at("1.10").get("/allocation_candidates?resources=VCPU:1").await.expect(200);
    assert_eq!(old.at("/allocation_requests").as_array().unwrap().len(), 2);
    assert_eq!(
        old.at("/allocation_requests/1"),
        &json!({"allocations": [{"resource_provider": {"uuid": small}, "resources": {"VCPU": 1}}]})
    );
    assert_eq!(old.at(&format!("/provider_summaries/{small}")), &json!({"resources": {"VCPU": {"capacity": 1, "used": 0}}}));
    assert_eq!(
        api.get("/allocation_candidates?resources=VCPU:1&limit=1")
            .await
            .expect(200)
            .at("/allocation_requests")
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        api.get("/allocation_candidates?resources=VCPU:100").await.expect(200).body,
        json!({"allocation_requests": [], "provider_summaries": {}})
    );

    for bad in [
        "",
        "?resources=CUSTOM_NONE:1",
        "?resources=VCPU",
        "?resources=VCPU:0",
        "?resources=VCPU:1&cow=1",
        "?required=HW_CPU_X86_VMX",
        "?resources=VCPU:1&required=CUSTOM_NONE",
        "?resources=VCPU:1&limit=0",
        "?resources=VCPU:1&in_tree=x",
        "?resources=VCPU:1&member_of=x",
        "?resources1=VCPU:1&resources2=VCPU:1",
        "?resources=VCPU:1&group_policy=x",
        "?resources=VCPU:1&required=HW_CPU_X86_VMX,!HW_CPU_X86_VMX",
        "?resources=VCPU:1&root_required=HW_CPU_X86_VMX&root_required=HW_CPU_X86_AVX",
        "?resources1=VCPU:1&same_subtree=2",
        "?resources1=VCPU:1&required2=HW_CPU_X86_VMX",
    ] {
        api.get(&format!("/allocation_candidates{bad}")).await.expect(400);
    }
    for (version, newer) in [
        ("1.15", "limit=1"),
        ("1.16", "required=HW_CPU_X86_VMX"),
        ("1.24", "group_policy=none"),
        ("1.24", "resources1=VCPU:1"),
        ("1.30", "in_tree=00000000-0000-0000-0000-000000000001"),
        ("1.32", "resources_A=VCPU:1"),
        ("1.34", "root_required=HW_CPU_X86_VMX"),
        ("1.35", "same_subtree=1"),
    ] {
        cloud.at(version).get(&format!("/allocation_candidates?resources=VCPU:1&{newer}")).await.expect(400);
    }
    cloud.at("1.9").get("/allocation_candidates?resources=VCPU:1").await.expect(404);
}

#[tokio::test]
async fn the_reshaper_moves_inventory_with_its_allocations() {
    let cloud = Cloud::start().await;
    let api = cloud.at("1.39");
    let host = cloud.provider(1, json!({"VCPU": {"total": 8}, "VGPU": {"total": 4}})).await;
    let card = cloud.provider(2, json!({})).await;
    cloud.allocate(10, &host, json!({"VCPU": 1, "VGPU": 2})).await.expect(204);
    let mut claim = allocations(&host, json!({"VCPU": 1}), json!(1));
    claim["allocations"][&card] = json!({"resources": {"VGPU": 2}});
    let wanted = |host_generation: i64, claims: Value| {
        json!({
            "inventories": {
                &host: {"resource_provider_generation": host_generation, "inventories": {"VCPU": {"total": 8}}},
                &card: {"resource_provider_generation": 1, "inventories": {"VGPU": {"total": 4}}},
            },
            "allocations": claims,
        })
    };
    let claims = json!({uuid(10): claim});
    assert_eq!(
        api.post("/reshaper", wanted(7, claims.clone())).await.expect(409).at("/errors/0/code"),
        "placement.concurrent_update"
    );
    assert_eq!(api.post("/reshaper", wanted(2, json!({}))).await.expect(409).at("/errors/0/code"), "placement.inventory.inuse");
    api.post("/reshaper", wanted(2, claims)).await.expect(204);
    assert_eq!(cloud.held(10).await, json!({&host: {"VCPU": 1}, &card: {"VGPU": 2}}));
    assert_eq!(api.get(&format!("/resource_providers/{host}/usages")).await.expect(200).at("/usages"), &json!({"VCPU": 1}));
    assert_eq!(api.get(&format!("/resource_providers/{card}/usages")).await.expect(200).at("/usages"), &json!({"VGPU": 2}));
    cloud.check_used();
    api.post("/reshaper", json!({"inventories": {}, "allocations": {}})).await.expect(400);
    let unknown = json!({"inventories": {uuid(99): {"resource_provider_generation": 0, "inventories": {}}}, "allocations": {}});
    assert_eq!(api.post("/reshaper", unknown).await.expect(400).at("/errors/0/code"), "placement.resource_provider.not_found");
    cloud.at("1.29").post("/reshaper", json!({})).await.expect(404);
}

#[tokio::test]
async fn many_claims_at_once_never_take_too_much() {
    let cloud = Cloud::start().await;
    let host = cloud.provider(1, json!({"VCPU": {"total": 10}})).await;
    let claim = |n: u32| {
        let (api, body) = (cloud.at("1.39"), allocations(&host, json!({"VCPU": 1}), Value::Null));
        tokio::spawn(async move { api.put(&format!("/allocations/{}", uuid(n)), body).await.status })
    };
    let mut statuses = Vec::new();
    for task in (100..140).map(claim).collect::<Vec<_>>() {
        statuses.push(task.await.unwrap());
    }
    assert_eq!(statuses.iter().filter(|s| **s == 204).count(), 10);
    assert_eq!(statuses.iter().filter(|s| **s == 409).count(), 30);
    cloud.check_used();
}
