//! What is sent again with its key is done once, through any process, whatever befalls the store and the client.
use crate::{
    bed::{Bed, SERVERS},
    misuse::{World, samples},
};
use api::idempotency::KEYS;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use store::{
    Memory, Store,
    faulty::{Faulty, Way},
};
use testkit::{Answer, Client, Setup, TestCloud, holds};
use tokio::task::JoinSet;

const PROJECTS: &str = "/identity/v3/projects";
const PORTS: &str = "/network/v2.0/ports";
const PUBLIC: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE5Q8qA0iBc2Y0uYv4zJcQ9s0b4l5H3xk2h8o1m0dJ9K a@b";
const REPLAYED: &str = "idempotency-replayed";

fn keyed(client: &Client, key: &str) -> Client {
    client.clone().header("idempotency-key", &format!("\"{key}\""))
}

async fn twice(client: &Client, path: &str, body: Value) -> Answer {
    let client = keyed(client, &base::id::uuid());
    let first = client.post(path, body.clone()).await;
    assert!(first.status < 300 && first.header(REPLAYED).is_empty(), "{path}: {} {}", first.status, first.body);
    let again = client.post(path, body).await;
    assert_eq!((again.status, &again.bytes, again.header(REPLAYED)), (first.status, &first.bytes, "true"), "{path}");
    assert_eq!(again.header("location"), first.header("location"), "{path}");
    assert_ne!(again.header("x-openstack-request-id"), first.header("x-openstack-request-id"), "{path}");
    first
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_gets_the_first_answer() {
    let bed = Bed::start(1).await;
    let member = &bed.member;
    twice(member, PORTS, json!({"port": {"network_id": bed.network}})).await;
    let many = json!({"ports": [{"network_id": bed.network, "name": "a"}, {"network_id": bed.network, "name": "b"}]});
    twice(member, PORTS, many).await;
    let server = twice(member, SERVERS, bed.body(json!({"networks": [{"uuid": bed.network}]}))).await;
    assert!(!server.text("/server/adminPass").is_empty());
    // What was made may change, or be gone: the answer is the first one.
    bed.status(&server.text("/server/id"), "ACTIVE").await;
    let pair = twice(member, "/compute/v2.1/os-keypairs", json!({"keypair": {"name": "k"}})).await;
    assert!(pair.text("/keypair/private_key").contains("PRIVATE KEY"));
    twice(member, "/volume/v3/volumes", json!({"volume": {"size": 1}})).await;
    twice(member, "/image/v2/images", json!({"name": "i"})).await;
    let (_, allocations, used) = bed.held().await;
    assert_eq!((allocations, used[0]), (1, 1));
    let ports = member.get(PORTS).await.expect(200);
    assert_eq!(ports.at("/ports").as_array().unwrap().iter().filter(|p| p["device_owner"] == "").count(), 3);
}

#[tokio::test]
async fn a_key_is_of_one_request_of_one_user() {
    let cloud = TestCloud::start().await;
    let admin = keyed(&cloud.admin().await, "k");
    let body = |name: &str| json!({"project": {"name": name}});
    let first = admin.post(PROJECTS, body("a")).await.expect(201);
    let other = admin.post(PROJECTS, body("b")).await.expect(422);
    assert!(other.text("/error/message").contains("Idempotency-Key"), "{}", other.body);
    // Without quotes it is the same key; on another path it is another one.
    let bare = cloud.admin().await.header("idempotency-key", "k");
    assert_eq!(bare.post(PROJECTS, body("a")).await.expect(201).bytes, first.bytes);
    admin.post("/identity/v3/roles", json!({"role": {"name": "r"}})).await.expect(201);
    // Other methods repeat well without, and nobody else's answer is told.
    let path = format!("{PROJECTS}/{}", first.text("/project/id"));
    admin.patch(&path, json!({"project": {"description": "d"}})).await.expect(200);
    let manager = keyed(&cloud.user("m", "admin").await, "k");
    manager.post(PROJECTS, body("a")).await.expect(409);
    manager.post(PROJECTS, body("c")).await.expect(201);
    for wrong in ["", "\"", "\"a", &"k".repeat(256)] {
        cloud.admin().await.header("idempotency-key", wrong).post(PROJECTS, body("d")).await.expect(400);
    }
    let twice = cloud.admin().await.header("idempotency-key", "x").header("idempotency-key", "y");
    twice.post(PROJECTS, body("d")).await.expect(400);
}

#[tokio::test]
async fn a_refusal_is_not_kept() {
    let cloud = TestCloud::start().await;
    let admin = cloud.admin().await;
    let project = json!({"project": {"name": "taken"}});
    let first = admin.post(PROJECTS, project.clone()).await.expect(201).text("/project/id");
    let repeated = keyed(&admin, "k");
    repeated.post(PROJECTS, project.clone()).await.expect(409);
    admin.delete(&format!("{PROJECTS}/{first}")).await.expect(204);
    let made = repeated.post(PROJECTS, project.clone()).await.expect(201);
    assert!(made.header(REPLAYED).is_empty());
    // The answer stands when what was made is gone.
    admin.delete(&format!("{PROJECTS}/{}", made.text("/project/id"))).await.expect(204);
    assert_eq!(repeated.post(PROJECTS, project).await.expect(201).bytes, made.bytes);
}

#[tokio::test]
async fn answers_are_sealed_at_rest() {
    let bed = Bed::start(0).await;
    let pair = twice(&bed.member, "/compute/v2.1/os-keypairs", json!({"keypair": {"name": "k"}})).await;
    let secret = pair.text("/keypair/private_key");
    let line = secret.lines().nth(1).unwrap();
    let reader = bed.cloud.cloud.db.read();
    let rows: Vec<String> = reader.all(&KEYS).map(|row| row.value().to_string()).collect();
    assert!(rows.len() == 1 && rows[0].contains("answer") && !rows[0].contains(line), "{rows:?}");
}

/// As a process that died after its transaction leaves the rows.
async fn lose_answers(cloud: &TestCloud) {
    let lost = cloud.cloud.db.transact(|tx| {
        for row in tx.all(&KEYS) {
            let mut value = row.value().clone();
            value["answer"] = Value::Null;
            value["at"] = (value["at"].as_i64().unwrap() - 3_600_000_000).into();
            tx.put(&KEYS, row.id(), value);
        }
        Ok::<_, ()>(())
    });
    lost.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_lost_is_rendered_again() {
    let bed = Bed::start(1).await;
    let creates = [
        (PORTS, "/port/id", json!({"port": {"network_id": bed.network}})),
        (SERVERS, "/server/id", bed.body(json!({"networks": "none"}))),
        ("/volume/v3/volumes", "/volume/id", json!({"volume": {"size": 1}})),
        ("/image/v2/images", "/id", json!({"name": "i"})),
    ];
    for (path, id, body) in creates {
        let client = keyed(&bed.member, path).header("openstack-api-version", "compute 2.96");
        let first = client.post(path, body.clone()).await;
        assert!(first.status < 300, "{path}: {}", first.body);
        lose_answers(&bed.cloud).await;
        let again = client.post(path, body).await;
        assert_eq!(again.status, first.status, "{path}: {}", again.body);
        assert_eq!((again.text(id), again.header(REPLAYED)), (first.text(id), "true"), "{path}");
    }
}

/// Everything that can be made or done by POST, sent again at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_post_can_be_repeated() {
    let world = World::start().await;
    let routes = world.bed.cloud.routes.clone();
    let own = |k: &str| world.own.get(k);
    let (mut wrong, mut done) = (Vec::new(), 0);
    let posts = routes.iter().filter(|r| r.method == "POST" && r.access != api::Access::Public);
    for sample in posts.flat_map(samples::of) {
        let path = sample.path(&own).expect("the world has one of each");
        let body = sample.bytes(&sample.body(&own));
        let version = ["compute", "placement", "volume"].map(|s| format!("{s} {}", sample.version)).join(", ");
        for who in ["member@p", "admin@p"] {
            let key = base::id::uuid();
            let client = keyed(world.person(who), &key).header("openstack-api-version", &version);
            let send = || client.send_bytes("POST", &path, sample.media, body.clone());
            let first = send().await;
            if first.status >= 300 {
                continue;
            }
            done += 1;
            let rows = rows(&world);
            let again = send().await;
            if (again.status, &again.bytes) != (first.status, &first.bytes) || rows != self::rows(&world) {
                // What writes nothing is not kept, and is told anew.
                if again.header(REPLAYED).is_empty() && again.status == first.status && rows == self::rows(&world) {
                    continue;
                }
                wrong.push(format!(
                    "{} as {who}: {} {}, then {} {}",
                    sample.name, first.status, first.body, again.status, again.body
                ));
            }
            break;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(done > 80, "only {done} of the samples were carried out");
}

/// How many rows of each table there are.
fn rows(world: &World) -> BTreeMap<&'static str, usize> {
    let db = &world.bed.cloud.cloud.db;
    let reader = db.read();
    world.bed.cloud.cloud.registry.iter().map(|def| (def.table.name, reader.count(&def.table))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_on_a_faulty_store_do_it_once() {
    let store = Memory::new();
    let way = |seed: u64| -> Arc<dyn Store> { Arc::new(Faulty::new(store.clone(), seed, 0.2)) };
    let bed = Bed::on(way(11), 2).await;
    let other = bed.another(way(12)).await;
    let elsewhere = Client::new(&other.cloud.url).token(bed.member.token.clone().unwrap());
    let mut sent = JoinSet::new();
    for i in 0..60 {
        for client in [&bed.member, &elsewhere, &bed.member, &elsewhere] {
            let client = keyed(client, &format!("key {i}"));
            let (path, body) = match i % 3 {
                0 => (SERVERS, bed.body(json!({"name": format!("s{i}"), "networks": [{"uuid": bed.network}]}))),
                1 => (PORTS, json!({"port": {"network_id": bed.network, "name": format!("p{i}")}})),
                _ => ("/compute/v2.1/os-keypairs", json!({"keypair": {"name": format!("k{i}"), "public_key": PUBLIC}})),
            };
            sent.spawn(async move { (i, client.post(path, body).await) });
        }
    }
    let mut answers: BTreeMap<usize, Vec<Answer>> = BTreeMap::new();
    for (i, answer) in sent.join_all().await {
        answers.entry(i).or_default().push(answer);
    }
    for (i, all) in &answers {
        // Two hosts have room for no more than they have; the quota is ten servers.
        let fits = if i % 3 == 0 { all[0].status == 202 || all[0].status == 403 } else { all[0].status < 300 };
        assert!(fits, "{i}: {} {}", all[0].status, all[0].body);
        let different: BTreeSet<&[u8]> = all.iter().filter(|a| a.status < 300).map(|a| &a.bytes[..]).collect();
        assert!(different.len() <= 1, "{i} was answered in {} ways", different.len());
        if all[0].status < 300 {
            assert_eq!(all.iter().filter(|a| a.header(REPLAYED) == "true").count(), 3, "{i}");
        }
    }
    let names = |answer: Answer, list: &str| -> Vec<String> { answer.expect(200).all(list, "name") };
    let servers = names(bed.member.get(SERVERS).await, "/servers");
    assert_eq!(servers.iter().collect::<BTreeSet<_>>().len(), servers.len());
    assert_eq!(servers.len(), answers.values().filter(|a| a[0].status == 202).count());
    let mut ports = names(elsewhere.get(PORTS).await, "/ports");
    ports.retain(|n| n.starts_with('p'));
    assert_eq!((ports.len(), ports.iter().collect::<BTreeSet<_>>().len()), (20, 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_left_comes_back_for_the_answer() {
    let store = Arc::new(Faulty::new(Memory::new(), 1, 0.0));
    let cloud = TestCloud::with(Setup { store: store.clone(), ..Setup::default() }).await;
    let admin = keyed(&cloud.admin().await, "k");
    let body = json!({"project": {"name": "a"}});
    store.set(Way::Held);
    let sent = tokio::spawn({
        let (admin, body) = (admin.clone(), body.clone());
        async move { admin.post(PROJECTS, body).await }
    });
    holds("the commit is under way", || store.held() > 0).await;
    sent.abort();
    assert!(sent.await.is_err());
    store.set(Way::Open);
    let answer = tokio::time::timeout(Duration::from_secs(5), admin.post(PROJECTS, body)).await.unwrap().expect(201);
    assert_eq!(answer.header(REPLAYED), "true");
    let found = admin.get(&format!("{PROJECTS}?name=a")).await.expect(200);
    assert_eq!(found.all("/projects", "id"), [answer.text("/project/id")]);
}
