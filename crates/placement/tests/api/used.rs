//! Whatever is done, in whatever order: a provider's `used` is the sum of the allocations on it, and within its capacity unless the
//! capacity itself was made less.
use crate::cloud::{Cloud, allocations, uuid};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Map, Value, json};
use std::cell::Cell;

const CLASSES: [&str; 2] = ["VCPU", "DISK_GB"];
const PROVIDERS: u32 = 3;
const CONSUMERS: u32 = 4;

/// A provider, a class, an amount.
type Take = (u32, usize, i64);
type Takes = Vec<Take>;

#[derive(Clone, Debug)]
enum Op {
    /// One consumer takes amounts of one or two providers.
    Put {
        consumer: u32,
        takes: Takes,
    },
    /// Several at once.
    Post {
        claims: Vec<(u32, Takes)>,
    },
    Delete {
        consumer: u32,
    },
    Inventory {
        provider: u32,
        totals: [Option<i64>; 2],
    },
    /// A class moves from a provider to another one, with or without what is taken of it.
    Reshape {
        from: u32,
        to: u32,
        class: usize,
        claims: bool,
    },
}

fn takes() -> impl Strategy<Value = Takes> {
    prop::collection::vec((0..PROVIDERS, 0..CLASSES.len(), 1..7_i64), 0..4)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (0..CONSUMERS, takes()).prop_map(|(consumer, takes)| Op::Put { consumer, takes }),
        3 => prop::collection::vec((0..CONSUMERS, takes()), 1..4).prop_map(|claims| Op::Post { claims }),
        2 => (0..CONSUMERS).prop_map(|consumer| Op::Delete { consumer }),
        2 => (0..PROVIDERS, prop::array::uniform2(prop::option::of(1..12_i64))).prop_map(|(provider, totals)| Op::Inventory { provider, totals }),
        2 => (0..PROVIDERS, 0..PROVIDERS, 0..CLASSES.len(), any::<bool>()).prop_map(|(from, to, class, claims)| Op::Reshape { from, to, class, claims }),
    ]
}

fn body(takes: &[Take], generation: Value) -> Value {
    let mut body = allocations(&uuid(0), json!({}), generation);
    let mut by_provider = Map::new();
    for (provider, class, amount) in takes {
        let resources = by_provider.entry(uuid(*provider)).or_insert_with(|| json!({"resources": {}}));
        resources["resources"][CLASSES[*class]] = (*amount).into();
    }
    body["allocations"] = by_provider.into();
    body
}

struct Run {
    cloud: Cloud,
    /// Requests that were carried out.
    done: usize,
}

impl Run {
    async fn generation_of(&self, consumer: u32) -> Value {
        let shown = self.cloud.at("1.39").get(&format!("/allocations/{}", uuid(1000 + consumer))).await.expect(200);
        shown.at("/consumer_generation").clone()
    }

    async fn apply(&mut self, op: &Op) {
        let api = self.cloud.at("1.39");
        let answer = match op {
            Op::Put { consumer, takes } => {
                let body = body(takes, self.generation_of(*consumer).await);
                api.put(&format!("/allocations/{}", uuid(1000 + consumer)), body).await
            }
            Op::Post { claims } => {
                let mut all = Map::new();
                for (consumer, takes) in claims {
                    all.insert(uuid(1000 + consumer), body(takes, self.generation_of(*consumer).await));
                }
                api.post("/allocations", all.into()).await
            }
            Op::Delete { consumer } => api.delete(&format!("/allocations/{}", uuid(1000 + consumer))).await,
            Op::Inventory { provider, totals } => {
                let given = CLASSES
                    .iter()
                    .zip(totals)
                    .filter_map(|(class, total)| Some(((*class).to_owned(), json!({"total": (*total)?}))));
                let body = json!({
                    "resource_provider_generation": self.cloud.generation(&uuid(*provider)).await, "inventories": given.collect::<Map<_, _>>(),
                });
                api.put(&format!("/resource_providers/{}/inventories", uuid(*provider)), body).await
            }
            Op::Reshape { from, to, class, claims } => {
                let body = self.reshape(&uuid(*from), &uuid(*to), CLASSES[*class], *claims).await;
                api.post("/reshaper", body).await
            }
        };
        assert!(matches!(answer.status, 200 | 204 | 404 | 409), "{op:?}: {} {}", answer.status, answer.body);
        self.done += usize::from(answer.status < 300);
        self.cloud.check_used();
    }

    async fn reshape(&self, from: &str, to: &str, class: &str, claims: bool) -> Value {
        let api = self.cloud.at("1.39");
        let mut inventories = Map::new();
        for provider in [from, to] {
            inventories.insert(
                provider.to_owned(),
                api.get(&format!("/resource_providers/{provider}/inventories")).await.expect(200).body,
            );
        }
        let moved =
            inventories[from]["inventories"].as_object_mut().unwrap().remove(class).unwrap_or_else(|| json!({"total": 5}));
        inventories[to]["inventories"][class] = moved;
        let mut consumers = Map::new();
        let held = api.get(&format!("/resource_providers/{from}/allocations")).await.expect(200);
        for consumer in held.at("/allocations").as_object().unwrap().keys().filter(|_| claims) {
            let mut claim = api.get(&format!("/allocations/{consumer}")).await.expect(200).body;
            let by_provider = claim["allocations"].as_object_mut().unwrap();
            if let Some(amount) = by_provider[from]["resources"].as_object_mut().unwrap().remove(class) {
                by_provider.entry(to.to_owned()).or_insert_with(|| json!({"resources": {}}))["resources"][class] = amount;
            }
            by_provider.retain(|_, v| !v["resources"].as_object().unwrap().is_empty());
            consumers.insert(consumer.clone(), claim);
        }
        json!({"inventories": inventories, "allocations": consumers})
    }
}

#[test]
fn used_is_the_sum_of_allocations() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let done = Cell::new(0);
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, max_shrink_iters: 200, ..Config::default() });
    let result = runner.run(&prop::collection::vec(op(), 1..40), |ops| {
        let carried_out = runtime.block_on(async {
            let mut run = Run { cloud: Cloud::start().await, done: 0 };
            for n in 0..PROVIDERS {
                run.cloud
                    .provider(n, json!({"VCPU": {"total": 8}, "DISK_GB": {"total": 10, "reserved": 2, "allocation_ratio": 1.5}}))
                    .await;
            }
            for op in &ops {
                run.apply(op).await;
            }
            run.done
        });
        done.set(done.get() + carried_out);
        Ok(())
    });
    result.unwrap();
    let done = done.get();
    assert!(done > 50, "only {done} requests were carried out: the operations do not exercise anything");
}
