//! A commit that fails in the middle is `Unknown`, and is settled before anything else is written.
//!
//! The disk's error is a file size limit (EFBIG), set in a child that was started with SIGXFSZ ignored.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::{path::Path, process::Command};
use store::{Outcome, Store, StoreError, Txn, TxnError, TxnId, Write};
use store_sqlite::Sqlite;

const FILE: &str = "DROVER_IOERROR_FILE";

fn txn(key: &str) -> Txn {
    let write = Write::Put { key: key.into(), value: vec![b'v'; 3000].into(), lease: None };
    Txn { id: TxnId::random(), compares: Vec::new(), writes: vec![write] }
}

async fn child(path: &Path) {
    let s = Sqlite::open(path).unwrap();
    let mut revision = 0;
    for i in 0..20 {
        revision = s.txn(txn(&format!("t/a/{i}"))).await.unwrap();
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, 4096, hard).unwrap();
    let t = txn("t/b/0");
    let in_doubt = t.id;
    assert!(matches!(s.txn(t).await, Err(TxnError::Unknown)), "a commit that failed in the middle is unknown");
    assert!(matches!(s.resolve(in_doubt).await, Err(StoreError::Unavailable(_))), "it cannot be told yet");
    assert!(matches!(s.txn(txn("t/b/1")).await, Err(TxnError::Store(StoreError::Unavailable(_)))));
    assert!(s.get("t/a/0").await.unwrap().is_some(), "reads go on");
    assert_eq!(s.revision().await.unwrap(), revision);

    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
    assert_eq!(s.resolve(in_doubt).await.unwrap(), Outcome::Aborted);
    assert!(s.get("t/b/0").await.unwrap().is_none());
    assert_eq!(s.txn(txn("t/b/2")).await.unwrap(), revision + 1);
    drop(s);
    let s = Sqlite::open(path).unwrap();
    assert_eq!(s.revision().await.unwrap(), revision + 1);
    assert!(s.get("t/b/1").await.unwrap().is_none() && s.get("t/b/2").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_commit_is_settled_before_the_next() {
    if let Ok(path) = std::env::var(FILE) {
        return child(Path::new(&path)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = "trap '' XFSZ; exec \"$0\" --exact a_failed_commit_is_settled_before_the_next --nocapture";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(std::env::current_exe().unwrap()).env(FILE, dir.path().join("store.db"));
    let output = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
