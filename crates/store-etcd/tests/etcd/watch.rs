//! Watches through breaks, compaction, slow watchers, and an etcd that clouds share.
use crate::common::{Cluster, Mode, Proxy, SOON, connect, delete, put, put_leased, txn, wait_for};
use base::SystemClock;
use serde_json::json;
use std::{sync::Arc, time::Duration};
use store::{Db, Event, Store, Table, Watch, WatchEnd};

static ROWS: Table = Table { name: "t/a", indexes: &[] };

async fn next(watch: &mut Watch) -> Result<store::Batch, WatchEnd> {
    tokio::time::timeout(SOON, watch.next()).await.expect("a batch or an end")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_where_it_was_after_every_break() {
    let cluster = Cluster::start(1).await;
    let proxy = Proxy::to(&cluster.nodes[0].client_url).await;
    let (writer, reader) = (cluster.store("cloud").await, connect("cloud", vec![proxy.url.clone()]).await);
    let start = reader.revision().await.unwrap();
    let mut watch = reader.watch("t/", start).await.unwrap();
    let mut at = start;
    for round in 0..5 {
        for i in 0..50 {
            if i % 10 == 5 {
                proxy.set(Mode::Cut);
                proxy.set(Mode::Pass);
            }
            writer.txn(txn(vec![], vec![put(&format!("t/a/{}", i % 7), &round.to_string())])).await.unwrap();
        }
        for _ in 0..50 {
            let batch = next(&mut watch).await.unwrap();
            at += 1;
            assert_eq!((batch.revision, batch.events.len()), (at, 1));
        }
    }
    assert_eq!(writer.revision().await.unwrap(), at);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_returns_to_the_first_endpoint_when_that_serves_again() {
    let cluster = Cluster::start(1).await;
    let url = &cluster.nodes[0].client_url;
    let (first, second) = (Proxy::to(url).await, Proxy::to(url).await);
    let writer = cluster.store("cloud").await;
    let reader = connect("cloud", vec![first.url.clone(), second.url.clone()]).await;
    let mut watch = reader.watch("t/", reader.revision().await.unwrap()).await.unwrap();
    let write = || writer.txn(txn(vec![], vec![put("t/a/x", "1")]));
    first.set(Mode::Cut);
    write().await.unwrap();
    next(&mut watch).await.unwrap();
    first.set(Mode::Pass);
    let returned = async {
        loop {
            // Nobody asks, so silence is not noticed: only over the first endpoint is anything heard.
            second.set(Mode::Hang);
            write().await.unwrap();
            let heard = tokio::time::timeout(Duration::from_millis(300), watch.next()).await.is_ok();
            second.set(Mode::Pass);
            if heard {
                return;
            }
            next(&mut watch).await.unwrap();
        }
    };
    tokio::time::timeout(SOON, returned).await.expect("a watch over the first endpoint");
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_ends_a_watch_that_is_behind_and_the_view_reads_anew() {
    let cluster = Cluster::start(1).await;
    let proxy = Proxy::to(&cluster.nodes[0].client_url).await;
    let (writer, reader) = (cluster.store("cloud").await, connect("cloud", vec![proxy.url.clone()]).await);
    for i in 0..20 {
        writer.txn(txn(vec![], vec![put(&format!("t/a/{i}"), "{}")])).await.unwrap();
    }
    let db = Db::open(reader.clone(), Arc::new(SystemClock), &[&ROWS]).await.unwrap();
    db.fresh().await.unwrap();
    assert_eq!(db.read().count(&ROWS), 20);
    let before = reader.revision().await.unwrap();
    let mut watch = reader.watch("", before).await.unwrap();

    proxy.set(Mode::Cut);
    for i in 0..15 {
        writer.txn(txn(vec![], vec![delete(&format!("t/a/{i}"))])).await.unwrap();
    }
    let compacted = writer.txn(txn(vec![], vec![put("t/a/new", "{}")])).await.unwrap();
    cluster.admin().ensure_compacted(compacted).await.unwrap();
    cluster.admin().ensure_compacted(compacted).await.unwrap();
    proxy.set(Mode::Pass);

    assert_eq!(next(&mut watch).await, Err(WatchEnd::Lagged));
    assert_eq!(reader.watch("", before).await.err(), Some(WatchEnd::Compacted));
    wait_for("the view", || async { db.fresh().await.is_ok() }).await;
    assert_eq!(db.read().count(&ROWS), 6);
    db.transact(|tx| {
        tx.put(&ROWS, "after", json!({}));
        Ok::<_, ()>(())
    })
    .await
    .unwrap();
    assert!(db.read().get(&ROWS, "after").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deletions_of_the_compacted_revision_are_not_missed() {
    let cluster = Cluster::start(1).await;
    let s = cluster.store("cloud").await;
    s.txn(txn(vec![], vec![put("t/a/x", "1")])).await.unwrap();
    let deleted = s.txn(txn(vec![], vec![delete("t/a/x")])).await.unwrap();
    let last = s.txn(txn(vec![], vec![put("t/a/y", "1")])).await.unwrap();
    cluster.admin().ensure_compacted(deleted).await.unwrap();
    assert_eq!(s.watch("", deleted - 1).await.err(), Some(WatchEnd::Compacted), "it could not be told of the deletion");
    assert_eq!(s.watch("", 0).await.err(), Some(WatchEnd::Compacted));
    let mut watch = s.watch("", deleted).await.unwrap();
    assert_eq!(next(&mut watch).await.unwrap().revision, last);
    assert_eq!(s.watch("", last + 1000).await.err(), Some(WatchEnd::Compacted), "a revision that etcd lost with a restore");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_does_not_read_is_cut_off() {
    let cluster = Cluster::start(1).await;
    let s = cluster.store("cloud").await;
    let start = s.revision().await.unwrap();
    let mut slow = s.watch("", start).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for w in 0..64 {
        let s = s.clone();
        tasks.spawn(async move {
            for _ in 0..70 {
                s.txn(txn(vec![], vec![put(&format!("t/a/{w}"), "1")])).await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let mut at = start;
    let end = loop {
        match next(&mut slow).await {
            Ok(batch) => {
                at += 1;
                assert_eq!(batch.revision, at);
            }
            Err(end) => break end,
        }
    };
    assert_eq!(end, WatchEnd::Lagged);
    let mut again = s.watch("", at).await.unwrap();
    assert_eq!(next(&mut again).await.unwrap().revision, at + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn clouds_that_share_an_etcd_do_not_see_nor_stall_each_other() {
    let cluster = Cluster::start(1).await;
    let (a, b) = (cluster.store("a").await, cluster.store("a-b").await);
    let db = Db::open(a.clone(), Arc::new(SystemClock), &[&ROWS]).await.unwrap();
    let noise = tokio::spawn({
        let b = b.clone();
        async move {
            for i in 0.. {
                b.txn(txn(vec![], vec![put(&format!("t/a/{i}"), "{}")])).await.unwrap();
            }
        }
    });
    let lease = a.lease_grant(Duration::from_secs(60)).await.unwrap();
    let began = std::time::Instant::now();
    for i in 0..50 {
        let id = i.to_string();
        db.transact(move |tx| {
            tx.put(&ROWS, &id, json!({}));
            Ok::<_, ()>(())
        })
        .await
        .unwrap();
        db.fresh().await.unwrap();
        assert_eq!(db.read().count(&ROWS), i + 1, "only our rows");
    }
    println!("a write and a fresh read among the writes of others: {:?}", began.elapsed() / 50);
    a.txn(txn(vec![], vec![put_leased("t/a/leased", lease)])).await.unwrap();
    db.fresh().await.unwrap();
    assert_eq!(db.read().count(&ROWS), 51);
    a.lease_revoke(lease).await.unwrap();
    db.fresh().await.unwrap();
    assert_eq!(db.read().count(&ROWS), 50, "the end of a lease is seen by the next fresh read");
    noise.abort();
    noise.await.unwrap_err();
    db.fresh().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_runs_out_is_seen_among_the_writes_of_others() {
    let cluster = Cluster::start(1).await;
    let (a, b) = (cluster.store("a").await, cluster.store("b").await);
    let lease = a.lease_grant(Duration::from_secs(1)).await.unwrap();
    let at = a.txn(txn(vec![], vec![put_leased("t/a/x", lease)])).await.unwrap();
    let mut watch = a.watch("", at).await.unwrap();
    let gone = async {
        loop {
            b.txn(txn(vec![], vec![put("t/a/x", "1")])).await.unwrap();
            // What a reader was told must be reached by the watch, and once it is, the row is gone for the watcher as well.
            let told = a.revision().await.unwrap();
            let there = a.get("t/a/x").await.unwrap().is_some();
            let mut deleted = false;
            loop {
                let batch = watch.next().await.unwrap();
                deleted |= batch.events.iter().any(|e| matches!(e, Event::Delete(k) if &**k == "t/a/x"));
                if batch.revision >= told {
                    break;
                }
            }
            if deleted || !there {
                return (deleted, there);
            }
        }
    };
    let (deleted, _) = tokio::time::timeout(SOON, gone).await.expect("the end of the lease");
    if !deleted {
        // It ended between the two questions.
        b.txn(txn(vec![], vec![put("t/a/x", "1")])).await.unwrap();
        a.revision().await.unwrap();
        assert!(next(&mut watch).await.unwrap().events.contains(&Event::Delete("t/a/x".into())));
    }
}
