//! Keeps this controller's part of OVN as the rows say.
use super::{
    Controller, Database, Roster, endpoints,
    member::Member,
    needed,
    plan::{self, Ids, Step},
    relay::Relay,
    rows::{self, Cluster, Member as Row},
    status::Status,
};
use crate::ovn::{Error, central::GRACE, daemon::daemon};
use base::retry::Backoff;
use ovsdb::Endpoint;
use std::{collections::HashMap, path::Path, time::Duration};
use store::{Db, StoreError, TransactError, Tx};
use supervise::{Daemon, Ready, Watched};
use tokio::time::{Instant, sleep, timeout};

/// Between two looks, if no row changes.
const LOOK: Duration = Duration::from_secs(1);
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
/// Of so many looks, one is at who is a controller at all.
const ROSTER: u64 = 5;
/// A member that is not let in for so long asks anew, at whoever is a member then.
const REJOIN: Duration = Duration::from_secs(30);
/// A raft without a leader for so long may be lost; elections take a second or two.
const LOST: Duration = Duration::from_secs(10);
const NORTHD: &str = "northd";

/// Waits until a host needs OVN, then keeps this controller's members and northd running, for ever. What runs goes on without it.
pub async fn keep(db: Db, controller: Controller, roster: Roster) {
    needed(&db).await;
    let mut keeper =
        Keeper { db, controller, roster, looks: 0, watched: HashMap::new(), known: HashMap::new(), since: HashMap::new() };
    let mut changes = keeper.db.view.changes();
    let mut attempt = 0;
    loop {
        match keeper.look().await {
            Ok(()) => attempt = 0,
            Err(e) => {
                let wait = BACKOFF.jittered(attempt);
                tracing::error!(
                    cause = base::chain(&e),
                    again_in_ms = wait.as_millis() as u64,
                    "OVN on this controller is not as it should be; trying again"
                );
                attempt += 1;
                sleep(wait).await;
            }
        }
        let until = Instant::now() + LOOK;
        loop {
            match timeout(until.saturating_duration_since(Instant::now()), changes.recv()).await {
                Ok(Ok(change)) if !change.keys.iter().any(|k| k.starts_with(rows::PREFIX)) => {}
                Ok(Err(tokio::sync::broadcast::error::RecvError::Closed)) => return,
                _ => break,
            }
        }
    }
}

/// Ends what runs on this controller; the data stay.
pub async fn stop(controller: &Controller) -> Result<(), Error> {
    let databases = Database::ALL.map(|database| Member { at: controller, database }.daemon());
    for daemon in [Relay(controller).daemon(), northd(controller, &[], &[])].into_iter().chain(databases) {
        daemon.stop(GRACE).await?;
    }
    Ok(())
}

fn northd(at: &Controller, nb: &[Endpoint], sb: &[Endpoint]) -> Daemon {
    let list = |all: &[Endpoint]| all.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(",");
    let mut argv = vec!["ovn-northd".into(), format!("--ovnnb-db={}", list(nb)), format!("--ovnsb-db={}", list(sb))];
    argv.extend(at.certificates.controller.arguments());
    let ready = Ready::Socket(at.run_dir.join(format!("{NORTHD}.ctl")));
    daemon(&at.run_dir, at.netns.clone(), NORTHD, argv).ready(ready)
}

/// Since when a member is as it should not stay.
#[derive(Clone, Copy, Default)]
struct Since {
    joining: Option<Instant>,
    leaderless: Option<Instant>,
}

struct Keeper {
    db: Db,
    controller: Controller,
    roster: Roster,
    looks: u64,
    /// By name: how it was started, and its watch.
    watched: HashMap<String, (Vec<String>, Watched)>,
    /// What the files are, by their inode: reading them costs two processes.
    known: HashMap<Database, (u64, Ids)>,
    since: HashMap<Database, Since>,
}

/// Somebody else was quicker.
struct Moved;

impl Keeper {
    async fn look(&mut self) -> Result<(), Error> {
        self.looks += 1;
        if self.looks.is_multiple_of(ROSTER) {
            self.forget_who_left().await?;
        }
        // What ails one does not hold up the other.
        let mut failed = Ok(());
        for database in Database::ALL {
            failed = failed.and(self.tend(database).await);
        }
        failed.and(self.tend_relay().await).and(self.tend_northd().await)
    }

    async fn tend(&mut self, database: Database) -> Result<(), Error> {
        let at = self.controller.clone();
        let member = Member { at: &at, database };
        // Before the rows: whoever it lists has written its row by then.
        let status = if member.daemon().running().is_some() { member.status().await.ok() } else { None };
        self.db.fresh().await?;
        let (cluster, members) = rows::read(&self.db.read(), database);
        let here = self.ids(&member).await;
        match plan::step(&at.name, cluster.as_ref(), &members, here.as_ref()) {
            Step::Found => self.found(&member, cluster).await,
            Step::Join { cid, others } => {
                tracing::info!("This controller joins the raft of {}", database.name());
                self.end(&member).await?;
                let ids = member.join(&cid, &others).await?;
                self.declare(&member, &ids, cluster, false).await
            }
            Step::Run => {
                self.run(member.daemon()).await?;
                match (status, cluster) {
                    (Some(status), Some(cluster)) => self.look_after(&member, &status, cluster, &members).await,
                    _ => Ok(()),
                }
            }
        }
    }

    /// Begins a raft anew in place of that one.
    async fn found(&mut self, member: &Member<'_>, instead: Option<Cluster>) -> Result<(), Error> {
        match instead {
            None => tracing::info!("This controller begins {}", member.database.name()),
            Some(_) => {
                tracing::warn!("The raft of {} is lost; this controller begins another, and rows fill it", member.database.name())
            }
        }
        self.end(member).await?;
        let ids = member.found().await?;
        self.declare(member, &ids, instead, true).await
    }

    /// Tells the others of new data, and puts them in place if nobody was quicker.
    async fn declare(&mut self, member: &Member<'_>, ids: &Ids, seen: Option<Cluster>, founder: bool) -> Result<(), Error> {
        let Controller { name: controller, address, .. } = self.controller.clone();
        let Ids { cid, sid } = ids.clone();
        let (database, row) = (member.database, Row { controller, address, cid, sid, joined: founder });
        let written = self.db.transact(move |tx: &mut Tx<'_>| {
            let now = Cluster::in_tx(tx, database);
            if now.as_ref().map(|c| &c.cid) != seen.as_ref().map(|c| &c.cid) {
                return Err(Moved);
            }
            if founder {
                Cluster { cid: row.cid.clone(), filled: false }.put(tx, database);
            }
            row.put(tx, database);
            Ok(())
        });
        if !done(written.await)? {
            return Ok(());
        }
        member.settle()?;
        self.since.remove(&database);
        self.run(member.daemon()).await
    }

    /// Ends the member's process, and northd with the northbound one: it must never see a database that is not filled.
    async fn end(&mut self, member: &Member<'_>) -> Result<(), Error> {
        if member.database == Database::Northbound {
            self.stop(northd(&self.controller, &[], &[])).await?;
        }
        self.known.remove(&member.database);
        self.stop(member.daemon()).await
    }

    async fn look_after(&mut self, member: &Member<'_>, status: &Status, cluster: Cluster, members: &[Row]) -> Result<(), Error> {
        let database = member.database;
        let now = Instant::now();
        let since = self.since.entry(database).or_default();
        since.joining = if status.joined { None } else { since.joining.or(Some(now)) };
        since.leaderless = if status.has_leader { None } else { since.leaderless.or(Some(now)) };
        let longer = |since: Option<Instant>, than: Duration| since.is_some_and(|since| now - since > than);
        let (stuck, leaderless) = (longer(since.joining, REJOIN), longer(since.leaderless, LOST));
        if status.joined && members.iter().any(|m| m.controller == self.controller.name && !m.joined) {
            tracing::info!("This controller is a member of the raft of {}", database.name());
            let (name, cid) = (self.controller.name.clone(), cluster.cid.clone());
            let written = self.db.transact(move |tx: &mut Tx<'_>| {
                let row = Row::in_tx(tx, database, &name).filter(|row| row.cid == cid).ok_or(Moved)?;
                Row { joined: true, ..row }.put(tx, database);
                Ok(())
            });
            done(written.await)?;
        }
        if stuck {
            tracing::warn!("The raft of {} does not let this controller in; asking again", database.name());
            self.end(member).await?;
            std::fs::remove_file(member.file()).map_err(|source| Error::File { path: member.file(), source })?;
            self.since.remove(&database);
            return Ok(());
        }
        if leaderless && status.joined && plan::is_lost(status, database, &cluster.cid, members) {
            return self.found(member, Some(cluster)).await;
        }
        if status.leads
            && let Some(server) = plan::stranger(status, database, &cluster.cid, members)
        {
            tracing::warn!(
                server = server.id,
                address = server.address,
                "A server of {} is nobody any more; it is taken out",
                database.name()
            );
            member.kick(&server.id).await?;
        }
        Ok(())
    }

    /// Runs it when there is something to relay; what it cannot reach it waits for.
    async fn tend_relay(&mut self) -> Result<(), Error> {
        let at = self.controller.clone();
        if !(Member { at: &at, database: Database::Southbound }).file().exists() {
            return Ok(());
        }
        let relay = Relay(&at);
        relay.ensure_file().await?;
        self.run(relay.daemon()).await
    }

    /// Runs it when both databases are there and hold what they shall.
    async fn tend_northd(&mut self) -> Result<(), Error> {
        let (daemon, is_ready) = {
            let reader = self.db.read();
            let filled = rows::read(&reader, Database::Northbound).0.is_some_and(|c| c.filled);
            let [nb, sb] = Database::ALL.map(|database| endpoints(&reader, database));
            (northd(&self.controller, &nb, &sb), filled && !nb.is_empty() && !sb.is_empty())
        };
        if is_ready { self.run(daemon).await } else { self.stop(daemon).await }
    }

    /// Removes the rows of those who are no controllers any more. Rows first: who has one now was a controller before we ask.
    async fn forget_who_left(&mut self) -> Result<(), Error> {
        let rows: Vec<_> = self.db.read().all(&rows::MEMBERS).cloned().collect();
        let Some(all) = (self.roster)().await.filter(|all| all.contains(&self.controller.address)) else { return Ok(()) };
        let address = |row: &store::Row| row.text("address").parse().ok();
        for row in rows.into_iter().filter(|row| address(row).is_none_or(|a| !all.contains(&a))) {
            tracing::info!(controller = row.text("controller"), "This controller was taken out; OVN forgets it");
            let written = self.db.transact(move |tx: &mut Tx<'_>| {
                tx.get(&rows::MEMBERS, row.id()).filter(|now| now.modified == row.modified).ok_or(Moved)?;
                tx.delete(&rows::MEMBERS, row.id());
                Ok(())
            });
            done(written.await)?;
        }
        Ok(())
    }

    async fn ids(&mut self, member: &Member<'_>) -> Option<Ids> {
        let inode = inode(&member.file())?;
        if let Some((_, ids)) = self.known.get(&member.database).filter(|(known, _)| *known == inode) {
            return Some(ids.clone());
        }
        let ids = member.ids().await?;
        self.known.insert(member.database, (inode, ids.clone()));
        Some(ids)
    }

    /// Runs it with this command line.
    async fn run(&mut self, daemon: Daemon) -> Result<(), Error> {
        if self.watched.get(&daemon.name).is_some_and(|(argv, _)| *argv == daemon.argv) {
            return Ok(());
        }
        self.watched.remove(&daemon.name);
        if daemon.ensure().await?.stale {
            daemon.stop(GRACE).await?;
            daemon.ensure().await?;
        }
        self.watched.insert(daemon.name.clone(), (daemon.argv.clone(), daemon.watch()));
        Ok(())
    }

    async fn stop(&mut self, daemon: Daemon) -> Result<(), Error> {
        self.watched.remove(&daemon.name);
        if daemon.running().is_some() {
            daemon.stop(GRACE).await?;
        }
        Ok(())
    }
}

/// False when somebody else was quicker; the next look takes what is there then.
fn done<T>(written: Result<T, TransactError<Moved>>) -> Result<bool, StoreError> {
    match written {
        Ok(_) => Ok(true),
        Err(TransactError::Refused(Moved)) => Ok(false),
        Err(TransactError::Store(e)) => Err(e),
    }
}

fn inode(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).ok().map(|m| m.ino())
}
