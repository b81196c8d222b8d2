//! Makes OVN match the rows, and rows show what OVN did.
//!
//! ```text
//!   rows ──topology──▶ Topology ──compile──▶ Desired ──apply──▶ NB          on any change of a row of this service
//!   rows ◀──status─── ports that are up ◀───────────────────── NB          on any change of NB
//! ```
//! Every pass looks at everything: NB can be lost at any time and comes back whole. What changes while a pass runs is taken by the
//! next one.
mod place;
mod status;
mod topology;

use crate::ovn::{self, Central, Nb, cluster};
use base::retry::Backoff;
use place::Place;
use reconcile::Fence;
use status::Change;
use std::{collections::HashSet, sync::Arc, time::Duration};
use store::{Changed, Db, Row};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::Instant,
};

const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
/// Changes that come together are taken together.
const GATHER: Duration = Duration::from_millis(5);
const RESYNC: Duration = Duration::from_secs(60);
/// Keys of rows that say what OVN shall be, and where it is.
const PREFIXES: [&str; 3] = ["network/", "compute/nodes/", cluster::PREFIX];

/// Runs OVN's central part on this machine and keeps it as the rows say. `gateways` are the chassis for router gateways.
pub async fn run(db: Db, fence: Fence, central: Central, gateways: Vec<String>) {
    keep(&db, &fence, &Place::Here { central, gateways }).await;
}

/// Keeps the OVN of a cluster's controllers as the rows say. Until a host needs it, all hosts are simulated, and so is OVN.
pub async fn run_cluster(db: Db, fence: Fence, tls: ovsdb::Tls) {
    tokio::select! {
        () = run_sim(db.clone(), fence.clone()) => {}
        () = cluster::needed(&db) => {}
    }
    keep(&db, &fence, &Place::Cluster { tls }).await;
}

async fn keep(db: &Db, fence: &Fence, place: &Place) {
    let mut attempt = 0;
    loop {
        let Err(e) = follow(db, fence, place, &mut attempt).await;
        let wait = BACKOFF.jittered(attempt);
        tracing::error!(cause = %base::chain(&*e), again_in_ms = wait.as_millis() as u64, "OVN could not be brought up to date; trying again");
        attempt += 1;
        // What needs no OVN does not wait for it.
        if let Err(e) = show(db, fence, None).await {
            tracing::warn!(error = %base::chain(&*e), "Port statuses could not be written; trying again");
        }
        tokio::time::sleep(wait).await;
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn follow(db: &Db, fence: &Fence, place: &Place, attempt: &mut u32) -> Result<std::convert::Infallible, Failure> {
    let mut rows = db.view.changes();
    let mut open = place.open(db).await?;
    apply(db, fence, &open.nb, place, true).await?;
    // Only now: northd must not see a northbound database that was lost and is not yet filled.
    let _processes = place.filled(db, fence, &open).await?;
    let mut observed = open.nb.changes();
    let mut resync = tokio::time::interval_at(Instant::now() + RESYNC, RESYNC);
    show(db, fence, Some(&open.nb)).await?;
    loop {
        *attempt = 0;
        let mut compile = false;
        tokio::select! {
            change = rows.recv() => compile = concerns(&change)?,
            seen = observed.changed() => seen?,
            _ = resync.tick() => compile = true,
        }
        tokio::time::sleep(GATHER).await;
        while let Some(change) = waiting(&mut rows)? {
            compile |= concerns(&change)?;
        }
        observed.mark_unchanged();
        if compile {
            open.moved(db)?;
            apply(db, fence, &open.nb, place, false).await?;
        }
        show(db, fence, Some(&open.nb)).await?;
    }
}

/// A change that is there already.
fn waiting(rows: &mut Receiver<Changed>) -> Result<Option<Result<Changed, RecvError>>, Failure> {
    use tokio::sync::broadcast::error::TryRecvError;
    match rows.try_recv() {
        Ok(change) => Ok(Some(Ok(change))),
        Err(TryRecvError::Lagged(n)) => Ok(Some(Err(RecvError::Lagged(n)))),
        Err(TryRecvError::Empty) => Ok(None),
        Err(TryRecvError::Closed) => Err("the view is closed".into()),
    }
}

/// Does a change touch this service? One that was missed may have.
fn concerns(change: &Result<Changed, RecvError>) -> Result<bool, Failure> {
    match change {
        Ok(change) => Ok(change.keys.iter().any(|k| PREFIXES.iter().any(|p| k.starts_with(p)))),
        Err(RecvError::Lagged(_)) => Ok(true),
        Err(RecvError::Closed) => Err("the view is closed".into()),
    }
}

/// `claim`: whoever wrote before us can write no more, even if there is nothing to change. Who was paused between the check of its fence
/// and its write finds that the database has moved, checks again, and ends.
async fn apply(db: &Db, fence: &Fence, nb: &Nb, place: &Place, claim: bool) -> Result<(), Failure> {
    loop {
        let checked = fence.clone();
        db.transact(move |tx: &mut store::Tx<'_>| checked.check(tx)).await?;
        let topology = {
            let reader = db.read();
            topology::topology(&reader, &place.gateways(&reader))
        };
        let desired = ovn::compile(&topology);
        for problem in &desired.problems {
            tracing::warn!(problem, "A part of the network cannot be built");
        }
        let Some(applied) = nb.attempt(&desired, claim).await? else { continue };
        if applied.inserted + applied.updated + applied.deleted > 0 {
            tracing::debug!(?applied, "OVN was brought up to date");
        }
        return Ok(());
    }
}

/// Writes what was observed into the rows: ports that a chassis has, and those on simulated hosts, which nobody plugs. Without a database to
/// look at, what it showed last stays.
async fn show(db: &Db, fence: &Fence, nb: Option<&Nb>) -> Result<(), Failure> {
    let up: HashSet<String> = nb.map(Nb::ports_up).unwrap_or_default();
    let simulated = cluster::simulated(&db.read());
    let is_simulated = |row: &Row| simulated.contains(row.text("binding:host_id"));
    let is_up = |row: &Row| up.contains(row.id()) || is_simulated(row);
    let rows = all_rows(db);
    let changes = rows.iter().filter(|r| nb.is_some() || is_simulated(r)).filter_map(|r| Change::of(r, &is_up)).collect();
    status::write(db, fence, changes).await.map_err(Into::into)
}

fn all_rows(db: &Db) -> Vec<Arc<Row>> {
    use crate::resources::{FloatingIp, Port};
    use resource::Resource;
    let reader = db.read();
    reader.all(&Port::DEF.table).chain(reader.all(&FloatingIp::DEF.table)).cloned().collect()
}

/// Without OVN, for simulated hosts: a port is up as soon as it is bound to a host.
pub async fn run_sim(db: Db, fence: Fence) {
    let bound = |row: &Row| !row.text("binding:host_id").is_empty();
    let mut rows = db.view.changes();
    let mut look_at: Vec<Arc<Row>> = all_rows(&db);
    let mut attempt = 0;
    loop {
        let changes = look_at.iter().filter_map(|r| Change::of(r, &bound)).collect();
        if let Err(e) = status::write(&db, &fence, changes).await {
            tracing::warn!(error = %e, "Port statuses could not be written; trying again");
            tokio::time::sleep(BACKOFF.jittered(attempt)).await;
            attempt += 1;
            continue;
        }
        attempt = 0;
        look_at = match rows.recv().await {
            Ok(change) => changed_rows(&db, &change),
            Err(RecvError::Lagged(_)) => all_rows(&db),
            Err(RecvError::Closed) => return,
        };
    }
}

fn changed_rows(db: &Db, change: &Changed) -> Vec<Arc<Row>> {
    use crate::resources::{FloatingIp, Port};
    use resource::Resource;
    let reader = db.read();
    let row = |key: &Arc<str>| {
        [&Port::DEF.table, &FloatingIp::DEF.table].into_iter().find_map(|t| {
            let id = key.strip_prefix(t.name)?.strip_prefix('/')?;
            reader.get(t, id)
        })
    };
    change.keys.iter().filter_map(row).collect()
}
