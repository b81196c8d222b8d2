//! What no report brings to an end: servers that leave a node which says nothing of them, nodes that nobody joined, and slow steps.
use super::{Nodes, effects, host, levels::Leaving, lock, sink::Work};
use crate::{
    resources::{Node, Server},
    server::{plan, state::task},
};
use api::Result;
use assign::{GuestState, Query, QueryError, ServerReport};
use resource::Resource;
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

const PERIOD: Duration = Duration::from_millis(250);
/// An agent has looked at newer assignments long before this.
const SETTLED: Duration = Duration::from_millis(250);
/// Between two questions about one server, at most.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(2);
/// A node that is down for so long keeps no server from being deleted.
const DOWN: Duration = Duration::from_secs(60);
/// An agent whose controller has ended has so long to come back, or to find another.
const RETURN: Duration = Duration::from_secs(30);

/// When each leaving server is asked about next, and how often it was.
type Asked = HashMap<String, (Instant, u32)>;

impl Nodes {
    pub(super) async fn keep_house(&self) {
        self.ready.subscribe().wait_for(|ready| *ready).await.ok();
        let mut asked = Asked::new();
        let mut unseated = HashMap::new();
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.tell_slow_steps().await;
            self.let_go(&mut asked).await;
            self.mark_unseated(&mut unseated).await;
        }
    }

    async fn tell_slow_steps(&self) {
        let mut by_host: BTreeMap<String, Vec<Work>> = BTreeMap::new();
        {
            let slow = lock(&self.steps).slow(Instant::now());
            for told in slow {
                by_host.entry(told.host.clone()).or_default().push(Work::Tell(told));
            }
        }
        for (host, work) in by_host {
            if let Err(e) = self.carry_out(&host, work).await {
                tracing::debug!(node = host, error = %e, "Steps of servers were not written to their stories");
            }
        }
    }

    /// Ends servers that are to leave a node which does not have them, or which is down.
    async fn let_go(&self, asked: &mut Asked) {
        let leaving = self.levels().leaving();
        asked.retain(|id, _| leaving.contains_key(id));
        let now = Instant::now();
        let mut checks = JoinSet::new();
        for (id, Leaving { host, since }) in leaving {
            let (next, times) = asked.entry(id.clone()).or_insert((since + SETTLED, 0));
            if *next > now {
                continue;
            }
            *next = now + (PERIOD * 2u32.saturating_pow((*times).min(8))).min(LONGEST_WAIT);
            *times += 1;
            if host::is_down_for(&self.db.read(), &host, DOWN, self.db.now()) {
                checks.spawn(async move { Some((id, host, "Its node is down")) });
            } else if let Some(agent) = self.attached(&host) {
                checks.spawn(async move {
                    let question = agent.query(Query::ConsoleLog { server_id: id.clone(), lines: Some(1) });
                    let answer = timeout(ANSWER, question).await;
                    matches!(answer, Ok(Err(QueryError::NotHere(_)))).then_some((id, host, "Its node does not have it"))
                });
            }
        }
        while let Some(found) = checks.join_next().await {
            let Ok(Some((id, host, why))) = found else { continue };
            if let Err(e) = self.end(&id, &host, why).await {
                tracing::warn!(server = id, node = host, error = %e, "A server could not be taken away; it is tried again");
            }
        }
    }

    /// As if the node had reported that the server is gone.
    pub(super) async fn end(&self, id: &str, host: &str, why: &'static str) -> Result<()> {
        let (cx, id, host) = (self.cx()?, id.to_owned(), host.to_owned());
        let ended = move |tx: &mut store::Tx<'_>| {
            let Some(mut server) = resource::load_any::<Server>(tx, &id)?.filter(|s| s.host.as_deref() == Some(host.as_str()))
            else {
                return Ok(());
            };
            let deleting = server.deleting();
            if !deleting && server.task_state.as_deref() != Some(task::OFFLOADING) {
                return Ok(());
            }
            let before = server.clone().into_map()?;
            let gone = gone(&id, &server);
            let done = plan::on_report(&mut server.body, deleting, &gone, tx.now);
            effects::carry_out(tx, &cx, server, &before, done, &format!("{why}: {host}"))
        };
        self.db.transact(ended).await?;
        Ok(())
    }

    /// Nodes whose seat is gone, and that took no other in time, are down. So are those that say to sit here and do not.
    async fn mark_unseated(&self, unseated: &mut HashMap<String, Instant>) {
        let (now, me) = (Instant::now(), self.seat());
        let found: Vec<(String, String)> = {
            let reader = self.db.read();
            let living = reconcile::members(&reader);
            let up = reader.all(&Node::DEF.table).filter(|r| r.text("state") == "up");
            let names = up.map(|r| (r.text("host").to_owned(), r.text("seat").to_owned()));
            let is_empty = |seat: &str| !living.iter().any(|m| **m == *seat);
            names.filter(|(host, seat)| is_empty(seat) || (*seat == me && !self.levels().has_joined(host))).collect()
        };
        unseated.retain(|host, _| found.iter().any(|(h, _)| h == host));
        for (host, seat) in found {
            let since = *unseated.entry(host.clone()).or_insert(now);
            if self.levels().has_joined(&host) {
                let me = me.clone();
                if let Err(e) = self.db.transact(move |tx| host::take_seat(tx, &host, &seat, &me)).await {
                    tracing::warn!(error = %e, "A node's seat could not be written; it is tried again");
                }
                continue;
            }
            let key = Node::DEF.table.key(&host::node_id(&host));
            if now.duration_since(since) < RETURN {
                continue;
            }
            // One process says so, and only while it may.
            let Some(hold) = self.shards.enter(&key) else { continue };
            let fence = hold.fence().clone();
            let down = move |tx: &mut store::Tx<'_>| {
                fence.check(tx)?;
                host::mark_down(tx, &host, &seat)
            };
            if let Err(e) = self.db.transact(down).await {
                tracing::warn!(error = %e, "A node without an agent could not be marked as down; it is tried again");
            }
        }
    }
}

fn gone(id: &str, server: &Server) -> ServerReport {
    ServerReport {
        id: id.to_owned(),
        epoch: server.epoch,
        revision: server.intent,
        state: GuestState::Gone,
        cause: None,
        step: None,
        reboot_count: 0,
        disk_generation: 0,
        rescued: false,
        plugged: Vec::new(),
        volumes: Vec::new(),
        launched_at: None,
    }
}
