//! Forgets keys: those that are over, and the oldest of owners who have too many.
use super::{KEYS, MOST, is_over};
use base::Timestamp;
use resource::{Result, Tx};
use std::{collections::HashMap, sync::Arc, time::Duration};
use store::{Db, Row};

const PAUSE: Duration = Duration::from_secs(60);
/// Keys that one transaction forgets.
const BATCH: usize = 50;

/// Sweeps now and then, for ever. One process does it for all; `still` fails in the transactions of one that does not any more.
pub async fn sweep(db: Db, still: impl Fn(&mut Tx<'_>) -> Result<()> + Clone + Send + 'static) {
    let mut pause = tokio::time::interval(PAUSE);
    loop {
        pause.tick().await;
        if let Err(e) = once(&db, MOST, &still).await {
            tracing::warn!(error = %e, "Old idempotency keys could not be removed; trying again in a minute");
        }
    }
}

async fn once(db: &Db, most: usize, still: &(impl Fn(&mut Tx<'_>) -> Result<()> + Clone + Send + 'static)) -> Result<()> {
    let over: Vec<Arc<Row>> = {
        let now = db.now();
        let reader = db.read();
        forgotten(reader.all(&KEYS).cloned().collect(), now, most)
    };
    for batch in over.chunks(BATCH) {
        let (batch, still) = (batch.to_vec(), still.clone());
        let forget = move |tx: &mut Tx<'_>| {
            still(tx)?;
            for row in &batch {
                // A key that was used again since is a new one.
                if tx.get(&KEYS, row.id()).is_some_and(|now| now.field("at") == row.field("at")) {
                    tx.delete(&KEYS, row.id());
                }
            }
            Ok(())
        };
        db.transact(forget).await?;
    }
    Ok(())
}

fn forgotten(mut rows: Vec<Arc<Row>>, now: Timestamp, most: usize) -> Vec<Arc<Row>> {
    rows.sort_by_key(|row| std::cmp::Reverse(row.field("at").as_i64()));
    let mut kept: HashMap<String, usize> = HashMap::new();
    rows.retain(|row| {
        let count = kept.entry(row.text("owner").to_owned()).or_default();
        *count += 1;
        is_over(row, now) || *count > most
    });
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::SystemClock;
    use serde_json::json;
    use std::collections::BTreeSet;
    use store::Memory;

    #[tokio::test]
    async fn old_keys_and_those_beyond_the_limit_go() {
        let db = Db::open(Memory::new(), Arc::new(SystemClock), &[&KEYS]).await.expect("it opens");
        let ago = |seconds: u64| db.now().0 - i64::try_from(Duration::from_secs(seconds).as_micros()).expect("small");
        let rows = [("a1", "a", 10), ("a2", "a", 20), ("a3", "a", 30), ("b1", "b", 100), ("b2", "b", 25 * 3600)];
        let rows: Vec<(&str, serde_json::Value)> =
            rows.into_iter().map(|(id, owner, age)| (id, json!({"owner": owner, "at": ago(age)}))).collect();
        db.transact(move |tx| {
            rows.iter().for_each(|(id, row)| tx.put(&KEYS, id, row.clone()));
            Ok::<_, ()>(())
        })
        .await
        .expect("it commits");
        let left = || db.read().all(&KEYS).map(|r| r.id().to_owned()).collect::<BTreeSet<_>>();
        let refused = once(&db, 2, &|_| Err(resource::Error::unavailable("Not any more."))).await;
        assert!(refused.is_err() && left().len() == 5, "whoever lost the work removes nothing");
        once(&db, 2, &|_| Ok(())).await.expect("it sweeps");
        assert_eq!(left(), BTreeSet::from(["a1", "a2", "b1"].map(str::to_owned)));
    }
}
