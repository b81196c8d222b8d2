//! Work whose time is over, or whose client has left, is not done; and the figures say so.
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use store::{
    Memory,
    faulty::{Faulty, Way},
};
use testkit::{Client, Setup, TestCloud, holds};
use tokio::{task::JoinHandle, time::Instant};

const PROJECTS: &str = "/identity/v3/projects";

/// A cloud whose store holds a commit, so that every other transaction waits.
struct Stuck {
    store: Arc<Faulty>,
    cloud: TestCloud,
    admin: Client,
    first: JoinHandle<()>,
}

fn post(client: &Client, name: &str) -> JoinHandle<testkit::Answer> {
    let (client, body) = (client.clone(), json!({"project": {"name": name}}));
    tokio::spawn(async move { client.post(PROJECTS, body).await })
}

impl Stuck {
    async fn start() -> Self {
        let store = Arc::new(Faulty::new(Memory::new(), 1, 0.0));
        let cloud = TestCloud::with(Setup { store: store.clone(), ..Setup::default() }).await;
        let admin = cloud.admin().await;
        store.set(Way::Held);
        let answer = post(&admin, "first");
        let first = tokio::spawn(async move { drop(answer.await.unwrap().expect(201)) });
        holds("the first commit is under way", || store.held() > 0).await;
        Self { store, cloud, admin, first }
    }

    /// Lets the commit go, and gives the names of the projects that there are when all is done.
    async fn end(self) -> Vec<String> {
        self.store.set(Way::Open);
        self.first.await.unwrap();
        // Transactions are carried out in their order: behind this one is nothing left.
        post(&self.admin, "last").await.unwrap().expect(201);
        let mut names = self.admin.get(PROJECTS).await.expect(200).all("/projects", "name");
        names.retain(|n| ["first", "second", "last"].contains(&n.as_str()));
        names.sort();
        names
    }
}

async fn figure(client: &Client, name: &str) -> f64 {
    let text = String::from_utf8(client.get("/metrics").await.expect(200).bytes.to_vec()).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned);
    line.and_then(|v| v.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_past_its_deadline_is_dropped() {
    let stuck = Stuck::start().await;
    let hasty = stuck.admin.clone().header("prefer", "respond-async, wait=1");
    let start = Instant::now();
    let answer = post(&hasty, "second").await.unwrap().expect(503);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert!(answer.text("/error/message").contains("before"), "{}", answer.body);
    assert_eq!(answer.at("/error/code"), 503);
    assert_eq!(stuck.end().await, ["first", "last"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_began_in_time_is_waited_for() {
    let store = Arc::new(Faulty::new(Memory::new(), 1, 0.0));
    let cloud = TestCloud::with(Setup { store: store.clone(), ..Setup::default() }).await;
    let admin = cloud.admin().await.header("prefer", "wait=1");
    store.set(Way::Held);
    let start = Instant::now();
    let answer = post(&admin, "first");
    holds("the deadline has passed", || store.held() > 0 && start.elapsed() > Duration::from_millis(1300)).await;
    assert!(!answer.is_finished());
    store.set(Way::Open);
    answer.await.unwrap().expect(201);
}

async fn who_leaves_changes_nothing(header: Option<&str>) {
    let stuck = Stuck::start().await;
    let client = match header {
        Some(key) => stuck.admin.clone().header("idempotency-key", key),
        None => stuck.admin.clone(),
    };
    let second = post(&client, "second");
    let db = stuck.cloud.cloud.db.clone();
    holds("it waits for its turn", || db.waiting() > 0).await;
    second.abort();
    assert!(second.await.is_err());
    let anonymous = stuck.cloud.anonymous();
    let seen = async {
        while figure(&anonymous, "drover_http_requests_left_total").await < 1.0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), seen).await.expect("the pipeline learns that the client has left");
    assert_eq!(stuck.end().await, ["first", "last"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_left_before_its_turn_changes_nothing() {
    who_leaves_changes_nothing(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_does_one_that_left_its_key() {
    who_leaves_changes_nothing(Some("\"k\"")).await;
}

#[tokio::test]
async fn figures_tell_what_was_asked_and_nothing_of_whom() {
    let cloud = TestCloud::start().await;
    let admin = cloud.admin().await;
    let id = admin.post(PROJECTS, json!({"project": {"name": "secret-name"}})).await.expect(201).text("/project/id");
    admin.get(&format!("{PROJECTS}/{id}")).await.expect(200);
    admin.get(&format!("{PROJECTS}/absent")).await.expect(404);
    cloud.anonymous().get("/identity/v3/users").await.expect(401);
    let answer = cloud.anonymous().get("/metrics").await.expect(200);
    assert_eq!(answer.header("content-type"), base::metrics::MEDIA_TYPE);
    let text = String::from_utf8(answer.bytes.to_vec()).unwrap();
    for line in [
        "# TYPE drover_http_requests_total counter",
        "drover_http_requests_total{service=\"identity\",method=\"POST\",route=\"/identity/v3/projects\",status=\"2xx\"} 1",
        "drover_http_requests_total{service=\"identity\",method=\"GET\",route=\"/identity/v3/projects/{id}\",status=\"2xx\"} 1",
        "drover_http_requests_total{service=\"identity\",method=\"GET\",route=\"/identity/v3/projects/{id}\",status=\"4xx\"} 1",
        "drover_http_requests_total{service=\"identity\",method=\"GET\",route=\"/identity/v3/users\",status=\"4xx\"} 1",
        "drover_http_request_duration_seconds_count{service=\"identity\",method=\"GET\",route=\"/identity/v3/projects/{id}\"} 2",
        "drover_http_requests_in_flight 0",
    ] {
        assert!(text.lines().any(|l| l == line), "no {line} in {text}");
    }
    for private in [&id, "secret-name", "absent", admin.token.as_deref().unwrap()] {
        assert!(!text.contains(private), "{private}");
    }
    cloud.anonymous().header("x-forwarded-for", "192.0.2.1").get("/metrics").await.expect(404);
    cloud.anonymous().send("POST", "/metrics", Value::Null).await.expect(405);
}
