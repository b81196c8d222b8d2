//! What the tests of this API share.
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use store::{Reader, Table};
use testkit::{Answer, Client, Setup, TestCloud};

static PROVIDERS: Table = Table { name: "placement/resource_providers", indexes: &[] };
static ALLOCATIONS: Table = Table { name: "placement/allocations", indexes: &[] };

pub(crate) fn uuid(n: u32) -> String {
    format!("00000000-0000-4000-8000-{n:012}")
}

pub(crate) fn agg(n: u32) -> String {
    format!("00000000-0000-4000-9000-{n:012}")
}

/// A body for `PUT /allocations/{consumer}` at the newest version.
pub(crate) fn allocations(provider: &str, amounts: Value, generation: Value) -> Value {
    json!({
        "allocations": {provider: {"resources": amounts}}, "project_id": "p", "user_id": "u", "consumer_generation": generation,
        "consumer_type": "INSTANCE",
    })
}

/// The administrator at one version; paths are below the service's prefix.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) client: Client,
}

impl Api {
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, Value::Null).await
    }
    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, body).await
    }
    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.send("PUT", path, body).await
    }
    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, Value::Null).await
    }
    pub(crate) async fn send(&self, method: &str, path: &str, body: Value) -> Answer {
        self.client.send(method, &format!("/placement{path}"), body).await
    }
}

pub(crate) struct Cloud {
    pub(crate) test: TestCloud,
    admin: Client,
}

impl Cloud {
    pub(crate) async fn start() -> Self {
        let test = TestCloud::with(Setup { services: vec![placement::service()], ..Setup::default() }).await;
        let admin = test.admin().await;
        Self { test, admin }
    }

    pub(crate) fn at(&self, version: &str) -> Api {
        Api { client: self.admin.clone().header("openstack-api-version", &format!("placement {version}")) }
    }

    /// A provider with these inventories, at generation 1.
    pub(crate) async fn provider(&self, n: u32, inventories: Value) -> String {
        let (api, uuid) = (self.at("1.39"), uuid(n));
        api.post("/resource_providers", json!({"name": format!("host-{n}"), "uuid": uuid})).await.expect(200);
        let body = json!({"resource_provider_generation": 0, "inventories": inventories});
        api.put(&format!("/resource_providers/{uuid}/inventories"), body).await.expect(200);
        uuid
    }

    pub(crate) async fn generation(&self, provider: &str) -> i64 {
        self.at("1.39").get(&format!("/resource_providers/{provider}")).await.expect(200).at("/generation").as_i64().unwrap()
    }

    /// A new consumer takes from a provider.
    pub(crate) async fn allocate(&self, consumer: u32, provider: &str, amounts: Value) -> Answer {
        self.at("1.39").put(&format!("/allocations/{}", uuid(consumer)), allocations(provider, amounts, Value::Null)).await
    }

    /// What a consumer holds: amounts by provider.
    pub(crate) async fn held(&self, consumer: u32) -> Value {
        let shown = self.at("1.39").get(&format!("/allocations/{}", uuid(consumer))).await.expect(200);
        let by_provider = shown.at("/allocations").as_object().unwrap();
        by_provider.iter().map(|(uuid, v)| (uuid.clone(), v["resources"].clone())).collect::<Map<_, _>>().into()
    }

    /// The invariant: what is used of a provider is the sum of what consumers hold of it.
    #[track_caller]
    pub(crate) fn check_used(&self) {
        let reader = self.test.cloud.db.read();
        assert_eq!(used(&reader), held(&reader));
    }
}

type Sums = BTreeMap<(String, String), i64>;

fn used(reader: &Reader<'_>) -> Sums {
    let mut out = Sums::new();
    for row in reader.all(&PROVIDERS) {
        for (class, n) in row.field("used").as_object().unwrap() {
            out.insert((row.id().to_owned(), class.clone()), n.as_i64().unwrap());
        }
    }
    out
}

fn held(reader: &Reader<'_>) -> Sums {
    let mut out = Sums::new();
    for row in reader.all(&ALLOCATIONS) {
        for (provider, amounts) in row.field("allocations").as_object().unwrap() {
            for (class, n) in amounts.as_object().unwrap() {
                *out.entry((provider.clone(), class.clone())).or_default() += n.as_i64().unwrap();
            }
        }
    }
    out
}
