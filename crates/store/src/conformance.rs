//! The one suite that every engine passes. Each check gets a fresh, empty store.
use crate::{Compare, Event, LeaseId, Outcome, Pending, Range, Store, StoreError, Txn, TxnError, TxnId, WatchEnd, Write};
use std::{sync::Arc, time::Duration};

/// Makes an empty store.
pub type Make<'a> = &'a (dyn Fn() -> Pending<'static, Arc<dyn Store>> + Sync);

fn put(key: &str, value: &str) -> Write {
    Write::Put { key: key.into(), value: value.to_owned().into(), lease: None }
}
fn delete(key: &str) -> Write {
    Write::Delete { key: key.into() }
}
fn txn(compares: Vec<Compare>, writes: Vec<Write>) -> Txn {
    Txn { id: TxnId::random(), compares, writes }
}

/// Runs every check; panics with the promise that was broken.
pub async fn run(make: Make<'_>) {
    revisions_have_no_gaps(&*make().await).await;
    compares_are_atomic(&*make().await).await;
    quiet_prefixes(&*make().await).await;
    ranges_page_in_key_order(&*make().await).await;
    watches_see_each_transaction_once(&*make().await).await;
    a_lost_commit_is_resolved_for_good(&*make().await).await;
    leases_end(&*make().await).await;
    one_of_many_writers_wins(make().await).await;
}

async fn revisions_have_no_gaps(s: &dyn Store) {
    let first = s.revision().await.expect("revision");
    for i in 1..=10 {
        let r = s.txn(txn(vec![], vec![put("t/a/x", &i.to_string()), put("t/a/y", "1")])).await.expect("txn");
        assert_eq!(r, first + i, "each transaction that writes takes the next revision");
    }
    let e = s.get("t/a/x").await.expect("get").expect("row");
    assert_eq!((&*e.value, e.created, e.modified), (&b"10"[..], first + 1, first + 10));
    let r = s.txn(txn(vec![Compare::Modified("t/a/x".into(), e.modified)], vec![])).await.expect("txn");
    assert_eq!(r, first + 10, "a transaction without writes takes no revision");
    assert!(s.get("t/a/none").await.expect("get").is_none());
}

async fn compares_are_atomic(s: &dyn Store) {
    let r = s.txn(txn(vec![Compare::Absent("t/a/x".into())], vec![put("t/a/x", "1")])).await.expect("first");
    for bad in [Compare::Absent("t/a/x".into()), Compare::Modified("t/a/x".into(), r + 7), Compare::Modified("t/a/none".into(), r)] {
        let e = s.txn(txn(vec![bad.clone()], vec![put("t/a/y", "1"), delete("t/a/x")])).await;
        assert!(matches!(e, Err(TxnError::Conflict { at_least }) if at_least >= r), "{bad:?} must conflict");
    }
    assert!(s.get("t/a/y").await.expect("get").is_none(), "a conflict writes nothing");
    s.txn(txn(vec![Compare::Modified("t/a/x".into(), r)], vec![delete("t/a/x")])).await.expect("delete");
    assert!(s.get("t/a/x").await.expect("get").is_none());
    let again = s.txn(txn(vec![Compare::Absent("t/a/x".into())], vec![put("t/a/x", "2")])).await.expect("again");
    assert_eq!(s.get("t/a/x").await.expect("get").expect("row").created, again, "a row made anew is a new row");
}

async fn quiet_prefixes(s: &dyn Store) {
    let r = s.txn(txn(vec![], vec![put("t/a/x", "1")])).await.expect("txn");
    let quiet = |since| Compare::Quiet { prefix: "t/a/".into(), since };
    s.txn(txn(vec![quiet(r)], vec![put("t/b/z", "1")])).await.expect("nothing below the prefix changed");
    s.txn(txn(vec![], vec![put("t/a/y", "1")])).await.expect("txn");
    let e = s.txn(txn(vec![quiet(r)], vec![put("t/b/z", "2")])).await;
    assert!(matches!(e, Err(TxnError::Conflict { .. })), "a row appeared below the prefix");
}

async fn ranges_page_in_key_order(s: &dyn Store) {
    let writes = (0..25).map(|i| put(&format!("t/a/{i:02}"), "v")).chain([put("t/b/0", "v"), put("t/a", "v")]).collect();
    s.txn(txn(vec![], writes)).await.expect("txn");
    let mut seen = Vec::new();
    let mut after: Option<Arc<str>> = None;
    loop {
        let page = s.range(Range { prefix: "t/a/", after: after.as_deref(), limit: 10 }).await.expect("range");
        seen.extend(page.entries.iter().map(|e| e.key.to_string()));
        after = page.entries.last().map(|e| e.key.clone());
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, (0..25).map(|i| format!("t/a/{i:02}")).collect::<Vec<_>>());
}

async fn watches_see_each_transaction_once(s: &dyn Store) {
    let r0 = s.txn(txn(vec![], vec![put("t/a/0", "0")])).await.expect("txn");
    let r1 = s.txn(txn(vec![], vec![put("t/a/1", "1"), put("t/b/1", "1")])).await.expect("txn");
    let mut w = s.watch("t/a/", r0).await.expect("watch");
    let r2 = s.txn(txn(vec![], vec![delete("t/a/0"), delete("t/a/none")])).await.expect("txn");
    let r3 = s.txn(txn(vec![], vec![put("t/b/2", "2")])).await.expect("txn");
    let b1 = w.next().await.expect("history");
    assert_eq!(b1.revision, r1);
    assert!(matches!(&*b1.events, [Event::Put(e)] if &*e.key == "t/a/1" && e.modified == r1), "only what is below the prefix");
    let b2 = w.next().await.expect("live");
    assert_eq!((b2.revision, &*b2.events), (r2, &[Event::Delete("t/a/0".into())][..]), "only what was there is deleted");
    let b3 = w.next().await.expect("progress");
    assert_eq!((b3.revision, b3.events.len()), (r3, 0), "a watcher learns of revisions that do not touch it");
    let now = s.revision().await.expect("revision");
    assert!(s.watch("t/", now).await.is_ok());
    assert!(matches!(s.watch("t/", r3 - 1).await.map(|_| ()), Ok(()) | Err(WatchEnd::Compacted)));
}

async fn a_lost_commit_is_resolved_for_good(s: &dyn Store) {
    let done = txn(vec![], vec![put("t/a/x", "1")]);
    let id = done.id;
    let r = s.txn(done).await.expect("txn");
    assert_eq!(s.resolve(id).await.expect("resolve"), Outcome::Committed(r));
    let late = txn(vec![], vec![put("t/a/y", "1")]);
    assert_eq!(s.resolve(late.id).await.expect("resolve"), Outcome::Aborted);
    assert!(s.txn(late).await.is_err(), "a transaction that was resolved as aborted can never commit");
    assert!(s.get("t/a/y").await.expect("get").is_none());
}

async fn leases_end(s: &dyn Store) {
    let with = |lease: LeaseId| Write::Put { key: "t/l/x".into(), value: "1".into(), lease: Some(lease) };
    let lease = s.lease_grant(Duration::from_secs(60)).await.expect("grant");
    s.lease_keep_alive(lease).await.expect("keep alive");
    s.txn(txn(vec![], vec![with(lease)])).await.expect("txn");
    let before = s.revision().await.expect("revision");
    s.lease_keep_alive(lease).await.expect("keep alive");
    assert_eq!(s.revision().await.expect("revision"), before, "a renewal is no revision");
    s.lease_revoke(lease).await.expect("revoke");
    assert!(s.get("t/l/x").await.expect("get").is_none(), "the end of a lease deletes its rows");
    let e = s.txn(txn(vec![], vec![with(lease)])).await;
    assert!(matches!(e, Err(TxnError::Store(StoreError::LeaseOver(_)))), "nothing is written under a lease that is over");
    assert!(s.lease_keep_alive(lease).await.is_err());

    let short = s.lease_grant(Duration::from_millis(50)).await.expect("grant");
    s.txn(txn(vec![], vec![with(short)])).await.expect("txn");
    let gone = async {
        while s.get("t/l/x").await.expect("get").is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("a lease that is not kept alive ends");
}

async fn one_of_many_writers_wins(s: Arc<dyn Store>) {
    let tasks: Vec<_> = (0..64)
        .map(|i| {
            let s = s.clone();
            tokio::spawn(async move {
                s.txn(txn(vec![Compare::Absent("t/a/one".into())], vec![put("t/a/one", &i.to_string())])).await.is_ok()
            })
        })
        .collect();
    let mut won = 0;
    for t in tasks {
        won += u32::from(t.await.expect("task"));
    }
    assert_eq!(won, 1, "exactly one writer finds the key absent");
}
