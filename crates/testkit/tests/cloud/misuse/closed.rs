//! Every route asks the policy: with all rules closed, no route lets in even who was an administrator.
use super::{access::send, samples, world::World};
use api::Access;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use store::faulty::Way;

/// What needs a token and no rule: it is about the token itself, tells what everybody may know, or is not done for anybody.
const OPEN: &str = include_str!("closed.txt");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_closes_all_closes_every_route() {
    let world = World::start().await;
    let path = "/operator/v1/policy";
    let shown = world.bed.admin.get(path).await.expect(200);
    let rules = shown.at("/policy/rules").as_array().cloned().unwrap_or_default();
    assert!(rules.len() > 300, "{} rules", rules.len());
    let closed: Map<String, Value> = rules
        .iter()
        .filter_map(|r| r["name"].as_str())
        .map(|name| (name.to_owned(), if name == "operator:policy" { "role:admin" } else { "!" }.into()))
        .collect();
    let file = Value::Object(closed).to_string();
    world.bed.admin.put(path, json!({"policy": {"file": file}})).await.expect(200);
    world.store.set(Way::Full);

    let own = |k: &str| world.own.get(k);
    let mut open = BTreeSet::new();
    let routes = world.bed.cloud.routes.iter().filter(|r| r.access != Access::Public && !r.path.starts_with("/compute/v2/"));
    for sample in routes.flat_map(samples::of) {
        let path = sample.path(&own).expect("the world has one of each");
        let mut who = world.person("admin@p").clone();
        if let Some(subject) = sample.subject().and_then(own) {
            who = who.header("x-subject-token", &subject);
        }
        let answer = send(&who, &sample, &path, &sample.body(&own)).await;
        // Gone for everybody is as good as closed.
        if !matches!(answer.status, 401 | 403 | 404 | 410) {
            open.insert(format!("{} {}", sample.method, sample.path));
        }
    }
    let expected: BTreeSet<String> = OPEN.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned).collect();
    let more: Vec<_> = open.difference(&expected).collect();
    let fewer: Vec<_> = expected.difference(&open).collect();
    assert!(
        more.is_empty() && fewer.is_empty(),
        "open without a rule: {more:#?}\nclosed, though closed.txt says otherwise: {fewer:#?}"
    );
}
