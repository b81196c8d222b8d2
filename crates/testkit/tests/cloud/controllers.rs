//! Three processes on one store that loses, refuses and delays commits: users see nothing of it.
use crate::bed::{Bed, Controller, SERVERS};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use store::{Memory, Store, faulty::Faulty};
use testkit::until;
use testkit::{Answer, Client};
use tokio::task::JoinSet;

const LIST: &str = "/compute/v2.1/servers/detail?limit=1000";
const HOSTS: usize = 18;

struct Cluster {
    bed: Bed,
    others: [Controller; 2],
    members: [Client; 3],
}

impl Cluster {
    /// `rate` of the commits of each process meet a fault.
    async fn start(rate: f64, hosts: usize) -> Self {
        let store = Memory::new();
        let way = |seed: u64| -> Arc<dyn Store> { Arc::new(Faulty::new(store.clone(), seed, rate)) };
        let mut bed = Bed::on(way(1), 0).await;
        let others = [bed.another(way(2)).await, bed.another(way(3)).await];
        for i in 0..hosts {
            let nodes = [&bed.nodes, &others[0].nodes, &others[1].nodes][i % 3].clone();
            bed.add_host_at(&format!("host-{i:02}"), &nodes).await;
        }
        // One token for all: each process knows it without having given it.
        let at = |c: &Controller| Client::new(&c.cloud.url).token(bed.member.token.clone().unwrap());
        let members = [bed.member.clone(), at(&others[0]), at(&others[1])];
        let unlimited = json!({"quota": {"port": 5000}});
        let project = members[0].get("/identity/v3/auth/projects").await.expect(200).text("/projects/0/id");
        bed.admin.put(&format!("/network/v2.0/quotas/{project}"), unlimited).await.expect(200);
        let quota = json!({"quota_set": {"instances": 150, "cores": 1000, "ram": 1_000_000}});
        bed.admin.put(&format!("/compute/v2.1/os-quota-sets/{project}"), quota).await.expect(200);
        Self { bed, others, members }
    }

    /// Sends so many requests through the three, some at once at each, and gives the answers.
    async fn storm(&self, count: usize, path: &str, body: impl Fn(usize) -> Value) -> Vec<Answer> {
        let queue: Vec<(usize, Value)> = (0..count).map(|i| (i, body(i))).collect();
        let mut lanes = JoinSet::new();
        for lane in 0..24 {
            let client = self.members[lane % 3].clone();
            let (path, mine) = (path.to_owned(), queue.iter().skip(lane).step_by(24).cloned().collect::<Vec<_>>());
            lanes.spawn(async move {
                let mut answers = Vec::new();
                for (_, body) in mine {
                    answers.push(client.post(&path, body).await);
                }
                answers
            });
        }
        lanes.join_all().await.into_iter().flatten().collect()
    }
}

fn count(answers: &[Answer]) -> BTreeMap<u16, usize> {
    let mut out = BTreeMap::new();
    answers.iter().for_each(|a| *out.entry(a.status).or_default() += 1);
    out
}

async fn ports_and_boots(rate: f64) {
    let cluster = Cluster::start(rate, HOSTS).await;
    let bed = &cluster.bed;
    let made = cluster
        .storm(1000, "/network/v2.0/ports", |i| json!({"port": {"network_id": bed.network, "name": format!("p{i}")}}))
        .await;
    assert_eq!(count(&made), BTreeMap::from([(201, 1000)]));
    // 50 more than the quota has room for.
    let booted =
        cluster.storm(200, SERVERS, |i| bed.body(json!({"name": format!("s{i}"), "networks": [{"uuid": bed.network}]}))).await;
    assert_eq!(count(&booted), BTreeMap::from([(202, 150), (403, 50)]));

    for (i, client) in cluster.members.iter().enumerate() {
        let all_active = |a: &Answer| {
            let states = a.all("/servers", "status");
            states.len() == 150 && states.iter().all(|s| s == "ACTIVE")
        };
        let what = format!("all servers are ACTIVE, as process {i} sees them");
        until(&what, || client.get(LIST), all_active).await;
    }
    let ports = cluster.members[2].get("/network/v2.0/ports").await.expect(200);
    let addresses: Vec<&str> = ports.body["ports"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|p| p["network_id"] == bed.network.as_str())
        .flat_map(|p| p["fixed_ips"].as_array().unwrap())
        .map(|ip| ip["ip_address"].as_str().unwrap())
        .collect();
    assert!(addresses.len() >= 1150, "{}", addresses.len());
    assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), addresses.len(), "an address is given once");
    let names: Vec<String> = ports.all("/ports", "name").into_iter().filter(|n| n.starts_with('p')).collect();
    assert_eq!(names.len(), 1000, "what was answered once was done once");
    let (plugged, allocations, used) = bed.held().await;
    assert_eq!((plugged, allocations, used), (150, 150, vec![150, 150, 150 * 256]));
    drop(cluster.others);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_with_two_faults_in_a_hundred_commits() {
    ports_and_boots(0.02).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_with_twenty_faults_in_a_hundred_commits() {
    ports_and_boots(0.2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_project_changed_through_all_at_once() {
    let cluster = Cluster::start(0.02, 0).await;
    let admin = cluster.bed.admin.token.clone().unwrap();
    let project = cluster.bed.member.get("/identity/v3/auth/projects").await.expect(200).text("/projects/0/id");
    let path = format!("/identity/v3/projects/{project}");
    let urls = [&cluster.bed.cloud.url, &cluster.others[0].cloud.url, &cluster.others[1].cloud.url];
    let mut clients = JoinSet::new();
    for i in 0..6 {
        let (client, path) = (Client::new(urls[i % 3]).token(&admin), path.clone());
        clients.spawn(async move {
            for n in 0..50 {
                let text = format!("{i} {n}");
                let answer = client.patch(&path, json!({"project": {"description": text}})).await.expect(200);
                assert_eq!(answer.text("/project/description"), text, "everybody is told what they wrote");
            }
        });
    }
    clients.join_all().await;
    // The last word is the same everywhere.
    let mut seen = BTreeSet::new();
    for url in urls {
        seen.insert(Client::new(url).token(&admin).get(&path).await.expect(200).text("/project/description"));
    }
    assert!(seen.len() == 1 && seen.iter().all(|d| d.ends_with(" 49")), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_process_revokes_no_other_takes() {
    let cluster = Cluster::start(0.0, 0).await;
    let admin = &cluster.bed.admin;
    let member = &cluster.members[1];
    member.get("/identity/v3/auth/projects").await.expect(200);
    let token = member.token.clone().unwrap();
    admin.clone().header("x-subject-token", &token).delete("/identity/v3/auth/tokens").await.expect(204);
    for client in &cluster.members {
        client.get("/identity/v3/auth/projects").await.expect(401);
    }
}
