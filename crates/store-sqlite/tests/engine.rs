//! The promises of every engine, and those that only a file can break: restarts, other processes, strange files.
use rusqlite::Connection;
use std::{path::Path, sync::Arc, time::Duration};
use store::{Compare, LeaseId, Range, Store, StoreError, Txn, TxnError, TxnId, WatchEnd, Write};
use store_sqlite::Sqlite;
use tempfile::TempDir;

fn put(key: &str, value: &str, lease: Option<LeaseId>) -> Write {
    Write::Put { key: key.into(), value: value.to_owned().into(), lease }
}
fn txn(writes: Vec<Write>) -> Txn {
    Txn { id: TxnId::random(), compares: Vec::new(), writes }
}
fn refusal(path: &Path) -> String {
    Sqlite::open(path).map(|_| ()).expect_err("the file must be refused").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    let dir = Arc::new(TempDir::new().unwrap());
    let (inner, number) = (dir.clone(), std::sync::atomic::AtomicU32::new(0));
    let make = || {
        let n = number.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let path = inner.path().join(format!("{n}.db"));
        let made: store::Pending<'static, Arc<dyn Store>> =
            Box::pin(async move { Sqlite::open(path).unwrap() as Arc<dyn Store> });
        made
    };
    store::conformance::run(&make).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_where_it_ended() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("store.db");
    let s = Sqlite::open(&path).unwrap();
    for i in 0..100 {
        s.txn(txn(vec![put(&format!("t/a/{}", i % 30), &i.to_string(), None)])).await.unwrap();
    }
    let before = s.range(Range { prefix: "", after: None, limit: 1000 }).await.unwrap();
    drop(s);
    assert!(!dir.path().join("store.db-wal").exists(), "a closed store is one file");

    let s = Sqlite::open(&path).unwrap();
    assert_eq!(s.revision().await.unwrap(), 100, "nothing was leased, so opening is no revision");
    let after = s.range(Range { prefix: "", after: None, limit: 1000 }).await.unwrap();
    assert_eq!((before.entries, before.revision), (after.entries, after.revision));
    assert_eq!(s.watch("", 99).await.err(), Some(WatchEnd::Compacted), "history before the restart is gone, and says so");
    let mut watch = s.watch("", 100).await.unwrap();
    assert_eq!(s.txn(txn(vec![put("t/b/0", "", None)])).await.unwrap(), 101);
    assert_eq!(watch.next().await.unwrap().revision, 101);
    // The history of this boot does not reach back to 50: the rows themselves must tell.
    let quiet = |prefix: &str| Compare::Quiet { prefix: prefix.into(), since: 50 };
    let with = |c| Txn { compares: vec![c], ..txn(vec![]) };
    assert!(matches!(s.txn(with(quiet("t/a/"))).await, Err(TxnError::Conflict { at_least: 101 })));
    assert!(s.txn(with(quiet("t/c/"))).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_end_with_the_process() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("store.db");
    let s = Sqlite::open(&path).unwrap();
    let lease = s.lease_grant(Duration::from_secs(3600)).await.unwrap();
    s.txn(txn(vec![put("t/l/1", "", Some(lease)), put("t/l/2", "", None)])).await.unwrap();
    s.close();
    let s = Sqlite::open(&path).unwrap();
    assert_eq!(s.revision().await.unwrap(), 2, "the end of the leases is a revision");
    assert!(s.get("t/l/1").await.unwrap().is_none() && s.get("t/l/2").await.unwrap().is_some());
    assert!(s.lease_keep_alive(lease).await.is_err());
    assert_ne!(s.lease_grant(Duration::from_secs(1)).await.unwrap(), lease, "an id means one lease for ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_has_one_owner_until_it_is_closed() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("store.db");
    let first = Sqlite::open(&path).unwrap();
    let text = refusal(&path);
    assert!(text.contains(&format!("in use by process {}", std::process::id())) && text.contains("stop"), "{text}");
    let mut watch = first.watch("", 0).await.unwrap();
    first.close();
    assert!(watch.next().await.is_err(), "watches end with the store");
    let closed = |r: Result<(), StoreError>| assert!(matches!(r, Err(StoreError::Unavailable(_))), "{r:?}");
    closed(first.get("t/a/x").await.map(|_| ()));
    closed(first.revision().await.map(|_| ()));
    assert!(matches!(first.txn(txn(vec![put("t/a/x", "", None)])).await, Err(TxnError::Store(_))));
    assert_eq!(first.watch("", 0).await.err(), Some(WatchEnd::Closed));
    let second = Sqlite::open(&path).unwrap();
    second.txn(txn(vec![put("t/a/x", "", None)])).await.unwrap();
    first.close();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "only the owner may read the store");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_when_it_is_closed_is_done() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("store.db");
    let s = Sqlite::open(&path).unwrap();
    let tasks: Vec<_> = (0..200)
        .map(|i| {
            let s = s.clone();
            tokio::spawn(async move { s.txn(txn(vec![put(&format!("t/a/{i}"), "", None)])).await.is_ok().then_some(i) })
        })
        .collect();
    s.close();
    let mut done = Vec::new();
    for t in tasks {
        done.extend(t.await.unwrap());
    }
    drop(s);
    let s = Sqlite::open(&path).unwrap();
    for i in done {
        assert!(s.get(&format!("t/a/{i}")).await.unwrap().is_some(), "{i} was acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strange_files_are_refused() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("text.db"), "this is no database, however long one looks at it\n".repeat(500)).unwrap();
    assert!(refusal(&at("text.db")).contains("damaged"));

    Connection::open(at("other.db")).unwrap().execute_batch("CREATE TABLE songs (name TEXT)").unwrap();
    assert!(refusal(&at("other.db")).contains("another program"));

    drop(Sqlite::open(at("newer.db")).unwrap());
    Connection::open(at("newer.db")).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(refusal(&at("newer.db")).contains("form 99"));

    let ahead = Sqlite::open(at("ahead.db")).unwrap();
    ahead.txn(txn(vec![put("t/a/x", "", None)])).await.unwrap();
    drop(ahead);
    Connection::open(at("ahead.db")).unwrap().execute("UPDATE meta SET value = 0 WHERE name = 'revision'", []).unwrap();
    assert!(refusal(&at("ahead.db")).contains("a row of revision 1"));

    assert!(refusal(&at("no/such/directory.db")).contains("directory"));
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found_when_the_file_is_opened() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("store.db");
    let s = Sqlite::open(&path).unwrap();
    let writes = (0..500).map(|i| put(&format!("t/a/{i}"), &"v".repeat(500), None)).collect();
    s.txn(txn(writes)).await.unwrap();
    drop(s);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 64].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    assert!(refusal(&path).contains("damaged"));
}
