//! Nothing is ever stuck: tasks that pass their deadline end in error, deletions end anyway, and what is old is cleared away.
use super::{Nodes, effects};
use crate::{
    common::{ACTIONS, CONSOLES, DELETED, DELETED_KEPT, SNAPSHOTS, flag, int, object, text},
    resources::Server,
    server::{plan, records},
};
use api::Result;
use resource::Resource;
use std::{sync::Arc, time::Duration};
use store::{Reader, Row, Tx};

const EVERY: Duration = Duration::from_secs(2);
/// Rows cleared away in one transaction.
const CHUNK: usize = 100;

impl Nodes {
    pub(super) async fn keep_deadlines(&self) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(e) = self.scan().await {
                tracing::warn!(error = %e, "The scan for deadlines failed; trying again");
            }
        }
    }

    async fn scan(&self) -> Result<()> {
        let now = self.db.now();
        let (mut late, mut deleted) = (Vec::new(), Vec::new());
        for row in self.db.read().all(&Server::DEF.table) {
            let server = object(row);
            let Some(deadline) = server.get("deadline").and_then(serde_json::Value::as_i64) else { continue };
            if deadline >= now.0 {
                continue;
            }
            let (id, host) = (row.id().to_owned(), text(server, "host").to_owned());
            if flag(server, "deleting") { deleted.push((id, host)) } else { late.push(id) }
        }
        for (id, host) in deleted {
            // The node removes what it finds unassigned, whenever it is back.
            self.end(&id, &host, "Its node did not report its end in time").await?;
        }
        for id in late {
            self.give_up(id).await?;
        }
        let (tokens, servers, actions, orphans) = old_rows(&self.db.read(), now);
        if tokens.is_empty() && servers.is_empty() && orphans.is_empty() {
            return Ok(());
        }
        let clear = move |tx: &mut Tx<'_>| -> Result<()> {
            for (table, ids) in [(&CONSOLES, &tokens), (&DELETED, &servers), (&ACTIONS, &actions), (&SNAPSHOTS, &orphans)] {
                ids.iter().for_each(|id| tx.delete(table, id));
            }
            Ok(())
        };
        self.db.transact(clear).await?;
        Ok(())
    }

    /// Ends a task that has passed its deadline.
    async fn give_up(&self, id: String) -> Result<()> {
        let cx = self.cx()?;
        let end = move |tx: &mut Tx<'_>| -> Result<()> {
            let Some(mut server) = resource::load::<Server>(tx, &id)?.filter(|s| s.deadline.is_some_and(|d| d < tx.now.0)) else {
                return Ok(());
            };
            let before = server.clone().into_map()?;
            let snapshot = server.snapshot.clone();
            let done = plan::overdue(&mut server.body, tx.now);
            if let Some(image) = snapshot.filter(|_| server.snapshot.is_none()) {
                records::abandon_snapshot(tx, &cx, &image)?;
                server.shelved_image = server.shelved_image.take().filter(|i| *i != image);
            }
            tracing::warn!(server = id, task = text(&before, "task_state"), "A task passed its deadline");
            effects::carry_out(tx, &cx, server, &before, done, "Its task passed its deadline")
        };
        self.db.transact(end).await?;
        Ok(())
    }
}

/// Console tokens that are over, servers that were deleted long ago with their actions, images asked of servers that are gone.
fn old_rows(reader: &Reader<'_>, now: base::Timestamp) -> (Vec<String>, Vec<String>, Vec<String>, Vec<String>) {
    let oldest = now.0 - i64::try_from(DELETED_KEPT.as_micros()).unwrap_or(i64::MAX);
    let is_orphan = |r: &&Arc<Row>| reader.get(&Server::DEF.table, r.text("server_id")).is_none();
    let id = |r: &Arc<Row>| r.id().to_owned();
    let tokens = reader.all(&CONSOLES).filter(|r| int(object(r), "expires_at") < now.0).take(CHUNK).map(id).collect();
    let servers: Vec<String> =
        reader.all(&DELETED).filter(|r| int(object(r), "deleted_at") < oldest).take(CHUNK).map(id).collect();
    let actions = servers.iter().flat_map(|s| reader.find(&ACTIONS, "instance_uuid", s)).map(|r| id(&r)).collect();
    let orphans = reader.all(&SNAPSHOTS).filter(is_orphan).take(CHUNK).map(id).collect();
    (tokens, servers, actions, orphans)
}
