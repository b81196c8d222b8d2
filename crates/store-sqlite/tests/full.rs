//! A full disk refuses writes, loses nothing, and is over when there is space again. Needs root, for a small file system of its own.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use store::{Outcome, Range, Store, StoreError, Txn, TxnError, TxnId, Write};
use store_sqlite::Sqlite;

/// A small file system, unmounted when the test ends, however it ends.
struct Disk(tempfile::TempDir);
impl Disk {
    fn new(megabytes: u32) -> Self {
        let dir = tempfile::Builder::new().prefix("store-full-").tempdir().unwrap();
        let size = format!("size={megabytes}m,mode=700");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).status().unwrap();
        assert!(done.success(), "the small file system cannot be mounted; run this test as root");
        Self(dir)
    }
    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}
impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount").arg(self.0.path()).status().ok();
    }
}

/// Takes all the space that is left.
fn fill(path: &Path) {
    let mut f = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    for size in [65_536, 4096, 512, 1] {
        while f.write_all(&vec![0; size]).is_ok() {}
    }
}

fn txn(key: &str, bytes: usize) -> Txn {
    let write = Write::Put { key: key.into(), value: vec![b'v'; bytes].into(), lease: None };
    Txn { id: TxnId::random(), compares: Vec::new(), writes: vec![write] }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_writes_until_there_is_space() {
    let disk = Disk::new(16);
    let path = disk.at("store.db");
    let s = Sqlite::open(&path).unwrap();
    let mut acknowledged = Vec::new();
    for i in 0..20 {
        let key = format!("t/a/{i}");
        acknowledged.push((s.txn(txn(&key, 1000)).await.unwrap(), key));
    }
    let lease = s.lease_grant(Duration::from_millis(200)).await.unwrap();
    let leased = Write::Put { key: "t/l/x".into(), value: vec![b'v'; 4000].into(), lease: Some(lease) };
    s.txn(Txn { writes: vec![leased], ..txn("", 0) }).await.unwrap();
    let mut watch = s.watch("", s.revision().await.unwrap()).await.unwrap();

    for round in 0..3 {
        fill(&disk.at("ballast"));
        // The log may have space left in it; the disk is full for the store when it has not.
        let mut refused = 0;
        for i in 0..2000 {
            let key = format!("t/b/{round}-{i}");
            let t = txn(&key, 20_000);
            let id = t.id;
            match s.txn(t).await {
                Ok(revision) => acknowledged.push((revision, key)),
                Err(TxnError::Store(StoreError::Full(text))) => {
                    assert!(text.contains("make space"), "{text}");
                    assert_eq!(s.resolve(id).await.unwrap(), Outcome::Aborted);
                    assert!(s.get(&key).await.unwrap().is_none(), "what was refused is not there");
                    refused += 1;
                }
                Err(e) => panic!("a full disk is told as one: {e}"),
            }
            if refused == 20 {
                break;
            }
        }
        assert_eq!(refused, 20, "the disk never filled up");
        let newest = acknowledged.last().unwrap().0;
        assert_eq!(s.get(&acknowledged[0].1).await.unwrap().unwrap().modified, acknowledged[0].0, "reads go on");
        // Many at once: all or none, and the same answer to each.
        let many: Vec<_> = (0..50).map(|i| txn(&format!("t/c/{round}-{i}"), 20_000)).collect();
        for answer in futures_util::future::join_all(many.into_iter().map(|t| s.txn(t))).await {
            assert!(matches!(answer, Err(TxnError::Store(StoreError::Full(_)))), "{answer:?}");
        }
        std::fs::remove_file(disk.at("ballast")).unwrap();
        let key = format!("t/d/{round}");
        let revision = s.txn(txn(&key, 20_000)).await.expect("there is space again");
        assert!(revision > newest);
        acknowledged.push((revision, key));
    }
    // The lease was over while nothing could be written: its row goes as soon as it can.
    let gone = async {
        while s.get("t/l/x").await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the leased row is deleted");
    let end = s.revision().await.unwrap();
    for expected in 22..=end {
        assert_eq!(watch.next().await.unwrap().revision, expected, "a refused write is no revision, nor told to anyone");
    }
    drop(s);
    let s = Sqlite::open(&path).unwrap();
    assert_eq!(s.revision().await.unwrap(), end);
    for (revision, key) in &acknowledged {
        assert_eq!(s.get(key).await.unwrap().expect("acknowledged").modified, *revision);
    }
    let rows = s.range(Range { prefix: "", after: None, limit: usize::MAX }).await.unwrap().entries;
    assert_eq!(rows.len(), acknowledged.len(), "and nothing that was refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_when_the_file_is_made() {
    let disk = Disk::new(1);
    fill(&disk.at("ballast"));
    let e = Sqlite::open(disk.at("store.db")).map(|_| ()).unwrap_err();
    assert!(e.to_string().contains("store.db"), "{e}");
    std::fs::remove_file(disk.at("ballast")).unwrap();
    Sqlite::open(disk.at("store.db")).expect("there is space again");
}
