//! Which form the rows have, so that versions of Drover that are too far apart do not work on one store.
//!
//! Versions N and N+1 run side by side, and a roll-back from N+1 to N works: rows that N+1 writes can be read by N. What is farther apart is refused
//! at start. The row is written once by the first process of a new form; one that knows only the form before goes on beside it.
use store::{Db, Row, Store, StoreError, Table};

/// The form that this version writes. One more than the release before if that could not read all of it; never two more.
pub(crate) const KNOWN: u32 = 1;

pub(crate) static TABLE: Table = Table { name: "control/schema", indexes: &[] };
const ID: &str = "rows";

fn form(row: &Row) -> u32 {
    row.field("form").as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
}

/// May this version work on rows of that form?
pub(crate) fn check(found: u32) -> Result<(), String> {
    if found > KNOWN + 1 {
        return Err(format!(
            "The store has rows of form {found}, and this Drover ({}) knows form {KNOWN}: it must not write there. Start the version that wrote them, or the one before \
             that one.",
            env!("CARGO_PKG_VERSION")
        ));
    }
    Ok(())
}

/// The form of a store that is not served here; 0 where it was not written down yet.
pub(crate) async fn of(store: &dyn Store) -> Result<u32, StoreError> {
    let found = store.get(&TABLE.key(ID)).await?;
    let form = |value: &[u8]| serde_json::from_slice::<serde_json::Value>(value).ok()?["form"].as_u64();
    Ok(found.and_then(|e| form(&e.value)).and_then(|n| u32::try_from(n).ok()).unwrap_or(0))
}

/// Refuses a store that is too new, and says in one that is older that rows of this form come now.
pub(crate) async fn ensure(db: &Db) -> Result<(), String> {
    db.fresh().await.map_err(|e| base::chain(&e))?;
    let found = db.read().get(&TABLE, ID).map_or(0, |row| form(&row));
    check(found)?;
    if found >= KNOWN {
        return Ok(());
    }
    let version = env!("CARGO_PKG_VERSION");
    let raised = db.transact(move |tx| {
        let now = tx.get(&TABLE, ID).map_or(0, |row| form(&row));
        if now < KNOWN {
            tx.put(&TABLE, ID, serde_json::json!({ "form": KNOWN, "by": version }));
        }
        Ok::<_, StoreError>(())
    });
    raised.await.map_err(|e| base::chain(&e))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use store::Memory;

    async fn db(store: Arc<Memory>) -> Db {
        Db::open(store, Arc::new(base::SystemClock), &[&TABLE]).await.unwrap()
    }

    async fn set(db: &Db, form: u32) {
        let put = db.transact(move |tx| {
            tx.put(&TABLE, ID, serde_json::json!({ "form": form }));
            Ok::<_, StoreError>(())
        });
        put.await.unwrap();
    }

    #[tokio::test]
    async fn one_form_ahead_is_borne_and_two_are_refused() {
        let store = Memory::new();
        let db = db(store.clone()).await;
        assert_eq!(of(&*store).await.unwrap(), 0);
        ensure(&db).await.unwrap();
        assert_eq!(of(&*store).await.unwrap(), KNOWN);
        set(&db, KNOWN + 1).await;
        ensure(&db).await.unwrap();
        assert_eq!(of(&*store).await.unwrap(), KNOWN + 1, "it stays the newer one's");
        set(&db, KNOWN + 2).await;
        let refused = ensure(&db).await.unwrap_err();
        assert!(refused.contains(&format!("form {}", KNOWN + 2)) && refused.contains("Start the version"), "{refused}");
    }
}
