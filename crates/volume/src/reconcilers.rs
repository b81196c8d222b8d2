//! What runs besides requests: volumes are settled when something of them changes or a deadline passes, and old messages go.
use crate::{
    common::{PLUGGED, SEEN, id_of, service_cx},
    resources::{Attachment, Message, Snapshot, Volume},
    settle,
};
use api::{Cloud, Error};
use base::Timestamp;
use reconcile::{Next, Pending, Reconciler, Work};
use resource::{Resource as _, Result};
use std::{
    sync::{Arc, Weak},
    time::Duration,
};
use store::Table;

/// All reconcilers of this service.
pub fn reconcilers(cloud: &Arc<Cloud>) -> Vec<Arc<dyn Reconciler>> {
    vec![Arc::new(Volumes { cloud: Arc::downgrade(cloud) }), Arc::new(OldMessages)]
}

struct Volumes {
    cloud: Weak<Cloud>,
}

impl Reconciler for Volumes {
    fn name(&self) -> &'static str {
        "volumes"
    }
    fn tables(&self) -> Vec<&'static Table> {
        vec![&Volume::DEF.table, &Snapshot::DEF.table, &Attachment::DEF.table, &SEEN, &PLUGGED]
    }
    fn reconcile<'a>(&'a self, key: &'a str, work: &'a Work) -> Pending<'a, Result<Next>> {
        Box::pin(async move {
            let id = id_of(key).to_owned();
            let table = key.strip_suffix(id.as_str()).unwrap_or_default().trim_end_matches('/').to_owned();
            let cloud = self.cloud.upgrade().ok_or_else(|| Error::unavailable("The controller ends."))?;
            let cx = service_cx(&cloud, "");
            let next = work
                .transact(move |tx| {
                    let Some(volume) = settle::volume_of(tx, &table, &id) else { return Ok(None) };
                    settle::settle(tx, &cx, &volume)
                })
                .await?;
            let now = work.db.now();
            Ok(next.map_or(Next::Done, |at| Next::After(at.since(now) + Duration::from_millis(1))))
        })
    }
}

/// Removes messages that nobody needs to keep.
struct OldMessages;

impl Reconciler for OldMessages {
    fn name(&self) -> &'static str {
        "volume-messages"
    }
    fn tables(&self) -> Vec<&'static Table> {
        vec![&Message::DEF.table]
    }
    fn reconcile<'a>(&'a self, key: &'a str, work: &'a Work) -> Pending<'a, Result<Next>> {
        Box::pin(async move {
            let id = id_of(key).to_owned();
            let row = work.db.read().get(&Message::DEF.table, &id);
            let Some(row) = row else { return Ok(Next::Done) };
            let (over, now) = (Timestamp(row.field("expires_at").as_i64().unwrap_or(0)), work.db.now());
            if now < over {
                return Ok(Next::After(over.since(now)));
            }
            work.transact(move |tx| {
                tx.delete(&Message::DEF.table, &id);
                Ok(())
            })
            .await?;
            Ok(Next::Done)
        })
    }
}
