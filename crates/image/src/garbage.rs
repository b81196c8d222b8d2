//! Objects in buckets that no image names any more.
//!
//! The transaction that takes a key from an image's row writes it down here, so a key is removed only because this cloud said so: a bucket
//! may be shared with others, and a cloud that was restored from a backup removes nothing of the one that goes on. Keys are never used
//! twice. A process that was paused might still write to its key; so each is looked at twice, the second time when no upload can
//! live any more.
use crate::{image::Place, stores::Stores};
use base::Timestamp;
use reconcile::{Next, Pending, Reconciler, Work};
use resource::{Error, Result, Tx};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use store::Table;

pub(crate) static GARBAGE: Table = Table { name: "image/garbage", indexes: &[] };

/// When a key is looked at for the second time.
const TWICE: Duration = Duration::from_secs(900);

/// Nobody names this place any more. A directory is swept by what rows name, so there is nothing to be written down for it.
pub(crate) fn drop_place(tx: &mut Tx<'_>, place: &Place) {
    if let Some(key) = &place.key {
        let (id, until) = (base::id::uuid(), tx.now.plus(TWICE));
        tx.put(&GARBAGE, &id, json!({"v": 1, "store": place.store, "key": key, "until": until.0, "done": false}));
    }
}

/// Removes what was written down.
pub struct Garbage {
    stores: Arc<Stores>,
}

impl Garbage {
    pub fn new(stores: Arc<Stores>) -> Self {
        Self { stores }
    }

    async fn remove(&self, store: &str, key: &str) -> Result<()> {
        let Some((bucket, _)) = self.stores.bucket(store) else {
            let message =
                format!("image store `{store}` is not enabled here, so its object {key} stays; enable it, or remove it by hand");
            return Err(Error::internal(message));
        };
        let failed = |e: web::Error| Error::internal(base::chain(&e));
        for unfinished in bucket.unfinished(key).await.map_err(failed)? {
            bucket.resume(&unfinished).abort().await.map_err(failed)?;
        }
        bucket.delete(key).await.map_err(failed)
    }
}

impl Reconciler for Garbage {
    fn name(&self) -> &'static str {
        "image-garbage"
    }
    fn tables(&self) -> Vec<&'static Table> {
        vec![&GARBAGE]
    }
    fn concurrency(&self) -> usize {
        4
    }
    fn reconcile<'a>(&'a self, key: &'a str, work: &'a Work) -> Pending<'a, Result<Next>> {
        Box::pin(async move {
            let id = key.rsplit('/').next().unwrap_or_default().to_owned();
            let Some(row) = work.db.read().get(&GARBAGE, &id) else { return Ok(Next::Done) };
            let until = Timestamp(row.field("until").as_i64().unwrap_or_default());
            let last = work.db.now() >= until;
            if row.field("done") != true || last {
                self.remove(row.text("store"), row.text("key")).await?;
                work.transact(move |tx| {
                    match tx.get(&GARBAGE, &id) {
                        Some(_) if last => tx.delete(&GARBAGE, &id),
                        Some(row) => {
                            let mut row = row.value().clone();
                            row["done"] = true.into();
                            tx.put(&GARBAGE, &id, row);
                        }
                        None => {}
                    }
                    Ok(())
                })
                .await?;
            }
            Ok(if last { Next::Done } else { Next::After(until.since(work.db.now())) })
        })
    }
}
