//! A whole store moves from SQLite to etcd and back.
use crate::common::{Cluster, delete, put, put_leased, txn};
use std::time::Duration;
use store::{Memory, Range, Store, faulty::Faulty};
use store_etcd::copy::{CopyError, copy, summarize, summarize_at};
use store_sqlite::Sqlite;

fn row(i: usize) -> String {
    format!("{{\"n\": {i}, \"filling\": \"{}\"}}", "é".repeat(i % 300))
}

async fn fill(s: &dyn Store, rows: usize) {
    for part in (0..rows).collect::<Vec<_>>().chunks(100) {
        let writes = part.iter().map(|i| put(&format!("t/{}/{i}", i % 7), &row(*i))).collect();
        s.txn(txn(vec![], writes)).await.unwrap();
    }
}

async fn content(s: &dyn Store) -> Vec<(String, Vec<u8>)> {
    let page = s.range(Range { prefix: "", after: None, limit: usize::MAX }).await.unwrap();
    page.entries.into_iter().map(|e| (e.key.to_string(), e.value.to_vec())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn to_etcd_and_back() {
    let cluster = Cluster::start(1).await;
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (Sqlite::open(dir.path().join("a.db")).unwrap(), Sqlite::open(dir.path().join("b.db")).unwrap());
    let etcd = cluster.store("cloud").await;
    fill(&*first, 3000).await;
    let lease = first.lease_grant(Duration::from_secs(60)).await.unwrap();
    first.txn(txn(vec![], vec![put_leased("t/l/x", lease), put("t/0/empty", "")])).await.unwrap();

    let there = copy(&*first, &*etcd).await.unwrap();
    assert_eq!((there.content.rows, there.written, there.left), (3001, 3001, 1));
    let again = copy(&*first, &*etcd).await.unwrap();
    assert_eq!((again.content, again.written), (there.content.clone(), 0), "to copy again does no harm");
    let back = copy(&*etcd, &*second).await.unwrap();
    assert_eq!((&back.content, back.left), (&there.content, 0));
    let revision = etcd.revision().await.unwrap();
    etcd.txn(txn(vec![], vec![put("t/0/later", ""), delete("t/0/0")])).await.unwrap();
    assert_eq!(summarize_at(&etcd, revision).await.unwrap(), there.content, "as it was then");
    assert_ne!(summarize(&*etcd).await.unwrap(), there.content);
    etcd.txn(txn(vec![], vec![delete("t/0/later"), put("t/0/0", &row(0))])).await.unwrap();
    first.lease_revoke(lease).await.unwrap();
    assert_eq!(content(&*first).await, content(&*second).await);
    assert_eq!(summarize(&*etcd).await.unwrap(), there.content);
    println!("{}", there.content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_with_other_rows_is_refused() {
    let (from, to) = (Memory::new(), Memory::new());
    fill(&*from, 10).await;
    to.txn(txn(vec![], vec![put("t/0/0", "other")])).await.unwrap();
    let refused = copy(&*from, &*to).await;
    assert!(matches!(refused, Err(CopyError::Occupied { key }) if &*key == "t/0/0"));
    assert_eq!(content(&*to).await.len(), 1, "nothing was written");
    to.txn(txn(vec![], vec![delete("t/0/0")])).await.unwrap();
    copy(&*from, &*to).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_do_not_spoil_a_copy() {
    let cluster = Cluster::start(1).await;
    let from = Memory::new();
    fill(&*from, 5000).await;
    let to = Faulty::new(cluster.store("cloud").await, 3, 0.3);
    // A conflict counts as another writer; then it is repeated, as the operator would.
    let mut tries = 0;
    let copied = loop {
        tries += 1;
        match copy(&*from, &to).await {
            Ok(copied) => break copied,
            Err(CopyError::Moved { .. }) if tries < 100 => {}
            Err(e) => panic!("{e}"),
        }
    };
    assert_eq!(copied.content.rows, 5000);
    assert_eq!(content(&*from).await, content(&to).await);
}
