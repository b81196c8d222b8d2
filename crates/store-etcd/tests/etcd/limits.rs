//! What etcd does not take, and a database that is full.
use crate::common::{Cluster, delete, put, txn};
use store::{Store, StoreError, TxnError};
use store_etcd::{Config, Etcd, Limits};

fn full(result: Result<u64, TxnError>) -> String {
    match result {
        Err(TxnError::Store(StoreError::Full(text))) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_and_says_what_to_do() {
    let cluster = Cluster::start(1).await;
    let s = cluster.store("cloud").await;
    let many = |n: usize| txn(vec![], (0..n).map(|i| put(&format!("t/a/{i:04}"), "1")).collect());
    s.txn(many(s.max_ops())).await.unwrap();
    assert!(full(s.txn(many(127)).await).contains("etcd takes 128"));
    let large = |n: usize| txn(vec![], vec![put("t/a/large", &"x".repeat(n))]);
    s.txn(large(1_500_000)).await.unwrap();
    assert!(full(s.txn(large(1_600_000)).await).contains("--max-request-bytes"));

    // One who believes that etcd takes more is told by etcd.
    let config = Config { limits: Limits::SUPERVISED, ..Config::new("cloud", cluster.endpoints()) };
    let wrong = Etcd::connect(config).await.unwrap();
    assert!(full(wrong.txn(many(200)).await).contains("--max-txn-ops"));
    assert!(full(wrong.txn(large(1_600_000)).await).contains("--max-request-bytes"));
    assert!(full(wrong.txn(large(4_000_000)).await).contains("--max-request-bytes"));
    wrong.txn(many(2)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_database_refuses_writes_until_it_is_freed() {
    let cluster = Cluster::with(1, &["--quota-backend-bytes=4000000"]).await;
    let s = cluster.store("cloud").await;
    let value = "x".repeat(200_000);
    let mut error = None;
    for _ in 0..100 {
        if let Err(e) = s.txn(txn(vec![], vec![put("t/a/x", &value)])).await {
            error = Some(e);
            break;
        }
    }
    assert!(full(Err(error.expect("it gets full"))).contains("quota"));
    assert!(s.get("t/a/x").await.unwrap().is_some(), "reads go on");
    let again = cluster.store("cloud").await;
    assert!(again.get("t/a/x").await.unwrap().is_some(), "a process that starts now can read as well");
    let admin = cluster.admin();
    admin.ensure_compacted(s.revision().await.unwrap()).await.unwrap();
    assert_eq!(admin.ensure_defragmented(0.0, 1 << 20).await.unwrap(), cluster.endpoints());
    assert!(admin.ensure_defragmented(0.3, 1 << 20).await.unwrap().is_empty(), "there is nothing left to gain");
    s.txn(txn(vec![], vec![delete("t/a/x")])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_hold_something_else_are_found() {
    let cluster = Cluster::start(3).await;
    let s = cluster.store("cloud").await;
    for value in ["1", "2", "3"] {
        s.txn(txn(vec![], vec![put("t/a/x", value)])).await.unwrap();
    }
    assert!(cluster.admin().damaged().await.unwrap().is_empty());
    // A member of another cluster is as one whose file holds something else.
    let stranger = Cluster::start(1).await;
    let other = stranger.store("cloud").await;
    while other.revision().await.unwrap() < s.revision().await.unwrap() {
        other.txn(txn(vec![], vec![put("t/a/x", "9")])).await.unwrap();
    }
    let endpoints = [cluster.endpoints(), stranger.endpoints()].concat();
    let all = store_etcd::member::Cluster::new(&endpoints, None).unwrap();
    assert_eq!(all.damaged().await.unwrap(), stranger.endpoints());
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused() {
    let cluster = Cluster::start(1).await;
    let s = cluster.store("cloud").await;
    drop(s);
    let out = std::process::Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", &cluster.nodes[0].client_url, "put", "cloud/form", "9"])
        .output()
        .unwrap();
    assert!(out.status.success());
    let refused = Etcd::connect(Config::new("cloud", cluster.endpoints())).await;
    assert!(matches!(refused, Err(StoreError::Damaged(text)) if text.contains("form \"9\"")));
    assert!(Etcd::connect(Config::new("a/b", cluster.endpoints())).await.is_err());
    assert!(Etcd::connect(Config::new("cloud", Vec::<String>::new())).await.is_err());
    assert!(Etcd::connect(Config::new("cloud", ["10.0.0.1:2379"])).await.is_err(), "a URL needs its scheme");
    assert!(Etcd::connect(Config::new("cloud", ["https://127.0.0.1:1"])).await.is_err(), "https needs a CA");
}
