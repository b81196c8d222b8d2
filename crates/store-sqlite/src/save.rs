//! A copy of a store that may be in use, by another process, too.
use crate::file::{connect, failed};
use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt as _, path::Path};
use store::StoreError;

/// Writes what the store at `from` holds now into the new file `to`, which only its owner can read. Writers are not held up, and what
/// they commit meanwhile is in it as a whole or not at all. Blocks until it is done.
pub fn save(from: &Path, to: &Path) -> Result<(), StoreError> {
    let at = |path: &Path, what: &str, e: &dyn std::fmt::Display| {
        StoreError::Unavailable(format!("{} {what}: {e}; check the directory and its owner", path.display()))
    };
    // SQLite would make an empty one.
    std::fs::metadata(from).map_err(|e| at(from, "cannot be read", &e))?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(|e| at(to, "cannot be made", &e))?;
    let conn = connect(from, "cell_size_check").map_err(|e| failed(from, "open", &e))?;
    conn.execute("VACUUM INTO ?1", [to.to_string_lossy()]).map_err(|e| failed(from, "be copied", &e))?;
    std::fs::File::open(to).and_then(|f| f.sync_all()).map_err(|e| at(to, "cannot be written", &e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sqlite;
    use std::{os::unix::fs::PermissionsExt as _, sync::Arc};
    use store::{Store as _, Txn, TxnId, Write};

    fn put(key: &str) -> Txn {
        let write = Write::Put { key: key.into(), value: "{}".into(), lease: None };
        Txn { id: TxnId::random(), compares: Vec::new(), writes: vec![write] }
    }

    #[tokio::test]
    async fn a_store_is_copied_while_it_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a.db"), dir.path().join("b.db"));
        let used: Arc<Sqlite> = Sqlite::open(&from).unwrap();
        used.txn(put("t/1")).await.unwrap();
        save(&from, &to).unwrap();
        used.txn(put("t/2")).await.unwrap();
        assert_eq!(std::fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
        let copy = Sqlite::open(&to).unwrap();
        assert!(copy.get("t/1").await.unwrap().is_some() && copy.get("t/2").await.unwrap().is_none());
        assert!(save(&from, &to).is_err(), "nothing is overwritten");
        assert!(save(&dir.path().join("none.db"), &dir.path().join("c.db")).is_err() && !dir.path().join("none.db").exists());
    }
}
