//! Nothing is ever stuck: a task that passes its deadline ends in error, a deletion ends anyway, and what is old is cleared away.
use super::{plan, records};
use crate::{
    common::{ACTIONS, CONSOLES, DELETED, DELETED_KEPT, SNAPSHOTS, int, object, text},
    nodes::effects,
    proxies::MIGRATIONS,
    resources::Server,
};
use api::{Cloud, Cx, Error};
use base::Timestamp;
use reconcile::{Next, Pending, Reconciler, Work};
use resource::{Object, Resource as _, Result};
use std::{sync::Weak, time::Duration};
use store::{Table, Tx};

/// Ends tasks and deletions of servers that have passed their deadline.
pub(crate) struct Deadlines {
    pub(crate) cloud: Weak<Cloud>,
}

impl Deadlines {
    fn cx(&self, request_id: &str) -> Result<Cx> {
        let cloud = self.cloud.upgrade().ok_or_else(|| Error::unavailable("The controller ends."))?;
        Ok(crate::nodes::service_cx(&cloud, request_id))
    }
}

impl Reconciler for Deadlines {
    fn name(&self) -> &'static str {
        "server-deadlines"
    }
    fn tables(&self) -> Vec<&'static Table> {
        vec![&Server::DEF.table]
    }
    fn reconcile<'a>(&'a self, key: &'a str, work: &'a Work) -> Pending<'a, Result<Next>> {
        Box::pin(async move {
            let id = key.rsplit('/').next().unwrap_or_default().to_owned();
            let row = work.db.read().get(&Server::DEF.table, &id);
            let Some(row) = row else { return Ok(Next::Done) };
            let Some(deadline) = row.field("deadline").as_i64().map(Timestamp) else { return Ok(Next::Done) };
            let now = work.db.now();
            if now <= deadline {
                return Ok(Next::After(deadline.since(now) + Duration::from_millis(1)));
            }
            let cx = self.cx(row.text("request_id"))?;
            work.transact(move |tx| give_up(tx, &cx, &id)).await?;
            Ok(Next::Done)
        })
    }
}

/// Ends what is late. A row that was changed meanwhile has another deadline.
fn give_up(tx: &mut Tx<'_>, cx: &Cx, id: &str) -> Result<()> {
    let server: Option<Object<Server>> = resource::load_any(tx, id)?;
    let Some(mut server) = server.filter(|s| s.deadline.is_some_and(|d| d < tx.now.0)) else { return Ok(()) };
    tracing::warn!(server = id, task = server.task_state, "A task passed its deadline");
    if server.deleting() {
        // Its node removes what it finds unassigned, whenever it is back.
        resource::engine::tell(tx, id, &cx.request_id, "Its node did not report its end in time");
        return records::remove(tx, cx, server);
    }
    let before = server.clone().into_map()?;
    let snapshot = server.snapshot.clone();
    let done = plan::overdue(&mut server.body, tx.now);
    if let Some(image) = snapshot.filter(|_| server.snapshot.is_none()) {
        records::abandon_snapshot(tx, cx, &image)?;
        server.shelved_image = server.shelved_image.take().filter(|i| *i != image);
    }
    effects::carry_out(tx, cx, server, &before, done, "Its task passed its deadline")
}

/// Clears away console tokens that are over, servers that were deleted long ago with their actions, and images asked of servers that
/// are gone.
pub(crate) struct OldRows;

impl Reconciler for OldRows {
    fn name(&self) -> &'static str {
        "compute-old-rows"
    }
    fn tables(&self) -> Vec<&'static Table> {
        vec![&CONSOLES, &DELETED, &SNAPSHOTS]
    }
    fn reconcile<'a>(&'a self, key: &'a str, work: &'a Work) -> Pending<'a, Result<Next>> {
        Box::pin(async move {
            let id = key.rsplit('/').next().unwrap_or_default().to_owned();
            let tables = [&CONSOLES, &DELETED, &SNAPSHOTS];
            let Some(table) = tables.into_iter().find(|t| *t.key(&id) == *key) else { return Ok(Next::Done) };
            let now = work.db.now();
            let over = {
                let reader = work.db.read();
                let Some(row) = reader.get(table, &id) else { return Ok(Next::Done) };
                match table.name {
                    name if name == CONSOLES.name => Timestamp(int(object(&row), "expires_at")),
                    name if name == DELETED.name => Timestamp(int(object(&row), "deleted_at")).plus(DELETED_KEPT),
                    // A server that is gone by now will not come back.
                    _ if reader.get(&Server::DEF.table, text(object(&row), "server_id")).is_some() => return Ok(Next::Done),
                    _ => now,
                }
            };
            if now < over {
                return Ok(Next::After(over.since(now)));
            }
            work.transact(move |tx| {
                if table.name == DELETED.name {
                    for table in [&ACTIONS, &MIGRATIONS] {
                        tx.find(table, "instance_uuid", &id).iter().for_each(|row| tx.delete(table, row.id()));
                    }
                }
                tx.delete(table, &id);
                Ok(())
            })
            .await?;
            Ok(Next::Done)
        })
    }
}
