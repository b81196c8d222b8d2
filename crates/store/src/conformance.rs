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
    odd_keys_and_values(&*make().await).await;
    the_end_of_a_lease_is_a_transaction(&*make().await).await;
    a_late_resolve_and_its_transaction_agree(make().await).await;
    reads_are_linearizable_and_watches_complete(make().await).await;
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
    for bad in
        [Compare::Absent("t/a/x".into()), Compare::Modified("t/a/x".into(), r + 7), Compare::Modified("t/a/none".into(), r)]
    {
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

async fn odd_keys_and_values(s: &dyn Store) {
    let big = "x".repeat(300_000);
    let keys = ["t/%/_", "t/%/a", "t/A/x", "t/a'b/\"", "t/a\u{10ffff}/x", "t/é/x", "t/日/x"];
    let writes = keys.iter().map(|k| put(k, "")).chain([put("t/a/big", &big), put("u", "")]).collect();
    let r = s.txn(txn(vec![], writes)).await.expect("txn");
    for k in keys {
        let e = s.get(k).await.expect("get").expect("row");
        assert_eq!((&*e.key, e.value.len(), e.modified), (k, 0, r));
        let page = s.range(Range { prefix: k, after: None, limit: 10 }).await.expect("range");
        assert_eq!(page.entries, [e], "a prefix is taken to the letter: {k}");
    }
    assert_eq!(s.get("t/a/big").await.expect("get").expect("row").value, big.as_bytes());
    assert!(s.get("t/a/BIG").await.expect("get").is_none());
    let page = |prefix, after, limit| s.range(Range { prefix, after, limit });
    let all = page("", None, usize::MAX).await.expect("range");
    assert!((all.entries.len(), all.more) == (9, false) && all.revision >= r);
    assert!(all.entries.is_sorted_by(|a, b| a.key < b.key), "in the order of bytes");
    let exact = page("t/", None, 8).await.expect("range");
    assert_eq!((exact.entries.len(), exact.more), (8, false), "a page that holds all has no more");
    let before = page("t/", Some("a"), 3).await.expect("range");
    assert_eq!((&*before.entries[0].key, before.more), ("t/%/_", true), "a start before the prefix is its beginning");
    assert!(page("t/", Some("u"), 3).await.expect("range").entries.is_empty());
    let none = page("t/", None, 0).await.expect("range");
    assert!(none.entries.is_empty() && none.more);
}

async fn the_end_of_a_lease_is_a_transaction(s: &dyn Store) {
    let minute = Duration::from_secs(60);
    let (a, b) = (s.lease_grant(minute).await.expect("grant"), s.lease_grant(minute).await.expect("grant"));
    assert_ne!(a, b);
    let with = |key: &str, lease| Write::Put { key: key.into(), value: "1".into(), lease: Some(lease) };
    let names = ["t/l/1", "t/l/2", "t/l/moved", "t/l/freed"];
    s.txn(txn(vec![], names.map(|k| with(k, a)).into())).await.expect("txn");
    let r = s.txn(txn(vec![], vec![with("t/l/moved", b), put("t/l/freed", "2")])).await.expect("txn");
    let mut w = s.watch("t/", r).await.expect("watch");
    s.lease_revoke(a).await.expect("revoke");
    let batch = w.next().await.expect("batch");
    assert_eq!(batch.revision, r + 1, "all rows of a lease end in one revision");
    assert_eq!(*batch.events, [Event::Delete("t/l/1".into()), Event::Delete("t/l/2".into())]);
    assert_eq!(s.revision().await.expect("revision"), r + 1);
    assert_eq!(
        s.get("t/l/moved").await.expect("get").expect("row").lease,
        Some(b),
        "a row belongs to the lease that wrote it last"
    );
    assert_eq!(s.get("t/l/freed").await.expect("get").expect("row").lease, None);
    s.lease_revoke(a).await.expect("to revoke again does no harm");
    s.lease_keep_alive(b).await.expect("another lease lives on");
    assert_eq!(s.revision().await.expect("revision"), r + 1, "the end of a lease without rows is no revision");
}

async fn a_late_resolve_and_its_transaction_agree(s: Arc<dyn Store>) {
    for i in 0..50 {
        let t = txn(vec![], vec![put(&format!("t/a/{i}"), "1")]);
        let id = t.id;
        let commit = tokio::spawn({
            let s = s.clone();
            async move { s.txn(t).await }
        });
        let outcome = s.resolve(id).await.expect("resolve");
        let committed = commit.await.expect("task");
        let row = s.get(&format!("t/a/{i}")).await.expect("get");
        match outcome {
            Outcome::Committed(r) => {
                assert_eq!(committed.expect("it was told to be committed"), r);
                assert_eq!(row.expect("row").modified, r);
            }
            Outcome::Aborted => assert!(committed.is_err() && row.is_none(), "an aborted transaction never commits"),
        }
    }
}

async fn reads_are_linearizable_and_watches_complete(s: Arc<dyn Store>) {
    const WRITERS: u64 = 16;
    const EACH: u64 = 40;
    let start = s.revision().await.expect("revision");
    let mut watch = s.watch("", start).await.expect("watch");
    let writer = |w: u64| {
        let s = s.clone();
        async move {
            for i in 0..EACH {
                let key = format!("t/{}/x", (w + i) % 5);
                let writes = if i % 3 == 2 { vec![delete(&key)] } else { vec![put(&key, &i.to_string()), put("t/last", "")] };
                let r = s.txn(txn(vec![], writes)).await.expect("txn");
                assert!(s.revision().await.expect("revision") >= r, "a commit is known to those who ask later");
                let last = s.get("t/last").await.expect("get").map_or(0, |e| e.modified);
                let page = s.range(Range { prefix: "t/", after: None, limit: 100 }).await.expect("range");
                let newest = page.entries.iter().map(|e| e.modified).max().unwrap_or(0);
                assert!(newest >= last, "a later read sees what an earlier one saw");
                assert!(newest <= page.revision && page.revision >= r, "a page tells how new it is");
                assert!(s.revision().await.expect("revision") >= newest, "what was read is known to be committed");
            }
        }
    };
    let tasks: Vec<_> = (0..WRITERS).map(|w| tokio::spawn(writer(w))).collect();
    for t in tasks {
        t.await.expect("writer");
    }
    let end = s.revision().await.expect("revision");
    assert_eq!(end, start + WRITERS * EACH, "every transaction took one revision");
    let mut rows = std::collections::BTreeMap::new();
    for revision in start + 1..=end {
        let batch = watch.next().await.expect("batch");
        assert_eq!(batch.revision, revision, "no revision is left out or told twice");
        for event in batch.events.iter() {
            match event {
                Event::Put(e) => {
                    assert_eq!(e.modified, revision);
                    rows.insert(e.key.clone(), e.clone());
                }
                Event::Delete(key) => assert!(rows.remove(key).is_some(), "only what was there is deleted"),
            }
        }
    }
    let page = s.range(Range { prefix: "", after: None, limit: 100 }).await.expect("range");
    assert_eq!(page.entries, rows.into_values().collect::<Vec<_>>(), "the events replayed are the rows");
}
