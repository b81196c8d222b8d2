//! The suite of all engines against a real etcd, and what the layer above does with a store that loses answers.
use crate::common::{Cluster, connect};
use base::SystemClock;
use serde_json::json;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use store::{Db, Pending, Store, Table, conformance, faulty::Faulty};

/// Runs the suite, each check with an etcd of its own: revisions are exact only there.
async fn conform(members: usize, wrap: fn(Arc<dyn Store>) -> Arc<dyn Store>) {
    let running: Arc<Mutex<Vec<Cluster>>> = Arc::default();
    let make = || -> Pending<'static, Arc<dyn Store>> {
        let running = running.clone();
        Box::pin(async move {
            let cluster = Cluster::start(members).await;
            let store = cluster.store("cloud").await;
            running.lock().unwrap().push(cluster);
            wrap(store)
        })
    };
    conformance::run(&make).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    conform(1, |s| s).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_inside_the_faulty_store() {
    conform(1, |s| Arc::new(Faulty::new(s, 1, 0.0).with_watch_delay(Duration::from_micros(100)))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_on_three_members() {
    conform(3, |s| s).await;
}

static COUNTERS: Table = Table { name: "test/counters", indexes: &[] };

async fn add_one(db: &Db) {
    db.transact(|tx| {
        let n = tx.get(&COUNTERS, "c").map_or(0, |r| r.field("n").as_u64().unwrap()) + 1;
        tx.put(&COUNTERS, "c", json!({ "n": n }));
        Ok::<_, ()>(n)
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_that_lose_answers_lose_no_write() {
    let cluster = Cluster::start(1).await;
    let open = |seed| {
        let endpoints = cluster.endpoints();
        async move {
            let store = Arc::new(Faulty::new(connect("cloud", endpoints).await, seed, 0.2));
            Db::open(store, Arc::new(SystemClock), &[&COUNTERS]).await.unwrap()
        }
    };
    let (a, b) = (open(1).await, open(2).await);
    let run = |db: Db| async move {
        for _ in 0..50 {
            add_one(&db).await;
        }
    };
    tokio::join!(run(a.clone()), run(b.clone()), run(a.clone()), run(b));
    a.fresh().await.unwrap();
    assert_eq!(a.read().get(&COUNTERS, "c").unwrap().field("n"), 200);
}
