//! Nothing is ever stuck: tasks that pass their deadline end in error, deletions end anyway, and what is old is cleared away.
use super::{Nodes, finish_deletion, mark_down, reports, service_cx};
use crate::{
    common::{ACTIONS, CONSOLES, DELETED, DELETED_KEPT, SNAPSHOTS, flag, int, object, text},
    resources::{Node, Server},
    server::{plan, records},
};
use api::{Cloud, Result};
use resource::{Object, Resource};
use std::{
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::time::Instant;

const EVERY: Duration = Duration::from_secs(2);
/// After a start, nodes get this long to connect before they count as down.
const CONNECT: Duration = Duration::from_secs(20);
/// Rows cleared away in one transaction.
const CHUNK: usize = 100;

pub(super) async fn run(nodes: Weak<Nodes>, cloud: Arc<Cloud>) {
    let begun = Instant::now();
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(nodes) = nodes.upgrade() else { return };
        if let Err(e) = scan(&nodes, &cloud, begun).await {
            tracing::warn!(error = %e, "The scan for deadlines failed; trying again");
        }
    }
}

async fn scan(nodes: &Nodes, cloud: &Arc<Cloud>, begun: Instant) -> Result<()> {
    let now = cloud.db.now();
    let (mut late, mut deleted, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    {
        let reader = cloud.db.read();
        for row in reader.all(&Server::DEF.table) {
            let server = object(row);
            let deadline = server.get("deadline").and_then(serde_json::Value::as_i64);
            if deadline.is_some_and(|d| d < now.0) {
                let id = row.id().to_owned();
                if flag(server, "deleting") { deleted.push(id) } else { late.push(id) }
            }
        }
        if begun.elapsed() > CONNECT {
            let is_lost = |n: &&Arc<store::Row>| n.text("state") == "up" && nodes.link(n.id()).is_none();
            lost.extend(reader.all(&Node::DEF.table).filter(is_lost).map(|n| n.id().to_owned()));
        }
    }
    for id in lost {
        mark_down(cloud, id).await?;
    }
    for id in deleted {
        // Its node did not report its end. The node removes what it finds unassigned, whenever it is back.
        finish_deletion(cloud, &id, "Its node did not report its end in time; the node clears up when it can").await?;
    }
    for id in late {
        overdue(cloud, id).await?;
    }
    sweep(cloud, now).await
}

async fn overdue(cloud: &Cloud, id: String) -> Result<()> {
    let cx = service_cx(cloud, "deadline");
    cloud
        .db
        .transact(move |tx| -> Result<()> {
            let server: Option<Object<Server>> = resource::load_any(tx, &id)?;
            let is_late = |s: &Object<Server>| !s.deleting() && s.deadline.is_some_and(|d| d < tx.now.0);
            let Some(mut server) = server.filter(is_late) else { return Ok(()) };
            let before = server.map.clone();
            let snapshot = server.snapshot.clone();
            let effects = plan::overdue(&mut server.body, tx.now);
            if let Some(image) = snapshot.filter(|_| server.snapshot.is_none()) {
                records::abandon_snapshot(tx, &cx, &image)?;
                server.shelved_image = server.shelved_image.take().filter(|i| *i != image);
            }
            tracing::warn!(server = id, task = text(&before, "task_state"), "A task passed its deadline");
            reports::carry_out(tx, &cx, server, &before, effects)
        })
        .await?;
    Ok(())
}

/// Clears away console tokens that are over, and servers that were deleted long ago with their actions.
async fn sweep(cloud: &Cloud, now: base::Timestamp) -> Result<()> {
    let oldest = now.0 - i64::try_from(DELETED_KEPT.as_micros()).unwrap_or(i64::MAX);
    let (tokens, servers, actions, orphans) = {
        let reader = cloud.db.read();
        let ids = |rows: Vec<&Arc<store::Row>>| rows.into_iter().take(CHUNK).map(|r| r.id().to_owned()).collect::<Vec<String>>();
        let tokens = ids(reader.all(&CONSOLES).filter(|r| int(object(r), "expires_at") < now.0).collect());
        let servers = ids(reader.all(&DELETED).filter(|r| int(object(r), "deleted_at") < oldest).collect());
        let actions: Vec<String> = servers
            .iter()
            .flat_map(|id| reader.find(&ACTIONS, "instance_uuid", id))
            .map(|r| r.id().to_owned())
            .collect();
        let is_orphan = |r: &&Arc<store::Row>| reader.get(&Server::DEF.table, r.text("server_id")).is_none();
        let orphans = ids(reader.all(&SNAPSHOTS).filter(is_orphan).collect());
        (tokens, servers, actions, orphans)
    };
    if tokens.is_empty() && servers.is_empty() && orphans.is_empty() {
        return Ok(());
    }
    cloud
        .db
        .transact(move |tx| -> Result<()> {
            tokens.iter().for_each(|id| tx.delete(&CONSOLES, id));
            servers.iter().for_each(|id| tx.delete(&DELETED, id));
            actions.iter().for_each(|id| tx.delete(&ACTIONS, id));
            orphans.iter().for_each(|id| tx.delete(&SNAPSHOTS, id));
            Ok(())
        })
        .await?;
    Ok(())
}
