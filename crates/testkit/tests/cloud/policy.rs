//! The operator's policy: above the defaults, in force everywhere at once, checked whole, and explained.
use crate::bed::Bed;
use serde_json::{Value, json};
use testkit::{Answer, Client};

const POLICY: &str = "/operator/v1/policy";

async fn load(client: &Client, file: &str) -> Answer {
    client.put(POLICY, json!({"policy": {"file": file}})).await
}

async fn decision(client: &Client, body: Value) -> Value {
    client.post(&format!("{POLICY}/decisions"), json!({ "decision": body })).await.expect(200).at("/decision").clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_counts_for_every_service_in_every_process() {
    let bed = Bed::start(0).await;
    let other = bed.another(bed.cloud.cloud.db.store.clone()).await;
    let there = Client::new(&other.cloud.url).token(bed.member.token.clone().unwrap());
    let lists = [
        ("get_networks", "/network/v2.0/networks"),
        ("get_images", "/image/v2/images"),
        ("os_compute_api:servers:index", "/compute/v2.1/servers"),
        ("volume:get_all", "/volume/v3/volumes"),
        ("identity:list_regions", "/identity/v3/regions"),
    ];
    for (_, path) in lists {
        there.get(path).await.expect(200);
    }
    let file: String = lists.iter().map(|(name, _)| format!("\"{name}\": \"role:nobody-has-it\"\n")).collect();
    let loaded = load(&bed.admin, &format!("# ours\n{file}\"helper\": \"role:x\"\n\"get_networsk\": \"@\"\n")).await.expect(200);
    assert_eq!(loaded.at("/policy/unused"), &json!(["get_networsk", "helper"]), "what nothing asks for is told");
    for (name, path) in lists {
        for client in [&bed.member, &there, &bed.admin] {
            assert_eq!(client.get(path).await.status, 403, "{name}");
        }
    }
    let shown = bed.admin.get(POLICY).await.expect(200);
    assert!(shown.text("/policy/file").starts_with("# ours\n"), "as it was given");
    let rules = shown.at("/policy/rules").as_array().unwrap().clone();
    let rule = |name: &str| rules.iter().find(|r| r["name"] == name).cloned().unwrap();
    assert_eq!(
        (rule("get_networks")["overridden"].clone(), rule("get_subnets")["overridden"].clone()),
        (json!(true), json!(false))
    );
    bed.admin.delete(POLICY).await.expect(204);
    for (_, path) in lists {
        there.get(path).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_taken_whole_or_not_at_all() {
    let bed = Bed::start(0).await;
    for (file, said) in [
        ("\"get_networks\": \"role:admin and\"", "character 15"),
        ("\"get_networks\": \"@\"\n\"get_subnets\" \"@\"", "line 2"),
        ("{\"get_networks\": 1}", "neither a string nor a list"),
        ("\"get_networks\": \"rule:not_there\"", "rule:not_there"),
        ("\"a\": \"rule:b\"\n\"b\": \"rule:a\"", "refers to itself"),
        ("\"get_networks\": \"http://example.org/\"", "remote server"),
    ] {
        let refused = load(&bed.admin, file).await.expect(400);
        assert!(refused.text("/error/message").contains(said), "{file}: {}", refused.body);
    }
    let locked_out = load(&bed.admin, "\"admin\": \"role:root\"").await.expect(409);
    assert!(locked_out.text("/error/message").contains("operator:policy"), "{}", locked_out.body);
    let dry = json!({"policy": {"file": "\"get_networks\": \"!\"", "dry_run": true}});
    bed.admin.put(POLICY, dry).await.expect(200);
    assert!(bed.admin.get(POLICY).await.at("/policy/file").is_null());
    bed.member.get("/network/v2.0/networks").await.expect(200);
    for client in [&bed.member, &bed.cloud.user("p", "manager").await] {
        client.get(POLICY).await.expect(403);
        load(client, "").await.expect(403);
        client.delete(POLICY).await.expect(403);
        client.post(&format!("{POLICY}/decisions"), json!({"decision": {"action": "a", "user": "admin"}})).await.expect(403);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_is_explained_and_true() {
    let bed = Bed::start(0).await;
    let about = |action: &str| json!({"action": action, "user": "p-member", "project": "p"});
    let d = decision(&bed.admin, about("create_network")).await;
    assert_eq!((&d["allowed"], &d["overridden"]), (&json!(true), &json!(false)));
    assert_eq!(d["caller"]["roles"], json!(["member", "reader"]));

    let d = decision(&bed.admin, about("os_compute_api:flavors:create")).await;
    assert_eq!(d["allowed"], false);
    let why = d["why"].to_string();
    assert!(why.contains("role:admin") && why.contains("the caller's roles are member, reader"), "{why}");
    bed.member.post("/compute/v2.1/flavors", json!({"flavor": {"name": "f", "ram": 1, "vcpus": 1, "disk": 1}})).await.expect(403);

    load(&bed.admin, "\"identity:get_user\": \"role:member and user_id:%(id)s\"").await.expect(200);
    let mut asked = about("identity:get_user");
    asked["target"] = json!({"id": "somebody"});
    let d = decision(&bed.admin, asked).await;
    assert_eq!((&d["allowed"], &d["overridden"]), (&json!(false), &json!(true)));
    assert_eq!(d["why"]["parts"][0]["holds"], true);
    assert!(
        d["why"]["parts"][1]["because"].as_str().unwrap().starts_with("the target's id is somebody; the caller's user_id is ")
    );

    let ask = async |body: Value| bed.admin.post(&format!("{POLICY}/decisions"), json!({ "decision": body })).await;
    ask(about("no_such_rule")).await.expect(404);
    ask(json!({"action": "create_network", "user": "nobody"})).await.expect(404);
    ask(json!({"action": "create_network", "user": "p-member", "project": "nowhere"})).await.expect(404);
    let none = ask(json!({"action": "create_network", "user": "p-member", "system": true})).await.expect(409);
    assert!(none.text("/error/message").contains("no role there"), "{}", none.body);
    ask(json!({"action": "create_network", "user": "p-member", "system": true, "project": "p"})).await.expect(400);
    ask(json!({"action": "create_network", "user": "admin", "system": true})).await.expect(200);
}
