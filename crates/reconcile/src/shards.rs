//! Which process works on which keys, and how one that has lost them is kept from writing.
//!
//! ```text
//!  control/members/ID   one row per process, under a lease of the store: it ends when the process does
//!  control/shards/NN    who holds the shard, and its epoch
//! ```
//! Every member looks at these rows and does its part ([`share`](crate::share)). A shard changes hands in one transaction that raises
//! its epoch: its holder gives it away when the work under way in it has ended, or another takes it when the holder's row is gone.
//!
//! Clocks: a member counts its lease from the moment when it asked for the renewal and stops a third early; the store ends it late.
//! Who was paused between the check and the act can do no harm either: each write of a reconciler compares the shard's row
//! ([`Fence::check`]), in the transaction that writes.
use crate::share::{COUNT, Owner, Step, shard_of, step, wanted};
use base::retry::Backoff;
use resource::{Error, Result};
use serde_json::json;
use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};
use store::{Compare, Db, LeaseId, Reader, Revision, StoreError, Table, Tx, Txn, TxnId, Write};
use tokio::{
    sync::{broadcast::error::RecvError, watch},
    task::JoinSet,
    time::{Instant, timeout},
};

pub static MEMBERS: Table = Table { name: "control/members", indexes: &[] };
pub static SHARDS: Table = Table { name: "control/shards", indexes: &[] };

/// The store ends the row of a process that was silent for so long.
const TTL: Duration = Duration::from_secs(3);
/// A process uses its lease no longer than this.
const USABLE: Duration = Duration::from_secs(2);
const RENEWAL: Duration = Duration::from_millis(500);
/// Work that is under way in a shard may hold up its hand-over for so long; after that the fence has to do.
const DRAIN: Duration = Duration::from_secs(5);
/// Attempts to join before the caller is told that the store does not take us.
const JOINS: u32 = 10;
const LOOK: Duration = Duration::from_millis(250);
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));

/// See the module. Ends with the last reference; [`Shards::leave`] ends it without a gap.
pub struct Shards {
    db: Db,
    name: String,
    line: Option<String>,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    work: Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct State {
    member: Option<Member>,
    held: HashMap<u32, Held>,
    stamp: u64,
}

#[derive(Clone)]
struct Member {
    id: Arc<str>,
    lease: LeaseId,
    until: Instant,
}

struct Held {
    epoch: u64,
    /// Different whenever we get it anew, or could not use it for a while.
    stamp: u64,
    running: usize,
    leaving: Option<Instant>,
}

/// The right to write for the keys of one shard, as long as nobody else took it over.
#[derive(Clone, Debug)]
pub struct Fence {
    member: Arc<str>,
    shard: u32,
    epoch: u64,
}

impl Fence {
    /// Fails when the shard has changed hands; otherwise the transaction commits only if it has not until then.
    pub fn check(&self, tx: &mut Tx<'_>) -> Result<()> {
        let owner = tx.get(&SHARDS, &row_id(self.shard)).map(|r| owner(&r));
        match owner {
            Some(o) if o.holder == self.member && o.epoch == self.epoch => Ok(()),
            _ => Err(Error::unavailable("Another process has taken this work over.")),
        }
    }
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

/// Work under way in a shard: it is not handed over meanwhile.
pub struct Hold {
    shards: Arc<Shards>,
    fence: Fence,
}

impl Hold {
    pub fn fence(&self) -> &Fence {
        &self.fence
    }
    /// Returns when the shard is to be let go of.
    pub async fn lost(&self) {
        let mut changed = self.shards.changed();
        loop {
            let Some(until) = self.shards.lock().usable(&self.fence) else { return };
            tokio::select! {
                _ = changed.changed() => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.shards.lock();
        if let Some(held) = state.held.get_mut(&self.fence.shard).filter(|h| h.epoch == self.fence.epoch) {
            held.running = held.running.saturating_sub(1);
            if held.running == 0 && held.leaving.is_some() {
                drop(state);
                self.shards.tell();
            }
        }
    }
}

impl State {
    fn usable(&self, fence: &Fence) -> Option<Instant> {
        let member = self.member.as_ref().filter(|m| m.id == fence.member && Instant::now() < m.until)?;
        let held = self.held.get(&fence.shard)?;
        (held.epoch == fence.epoch && held.leaving.is_none()).then_some(member.until)
    }
    fn hold(&mut self, shard: u32, epoch: u64) -> bool {
        if self.held.get(&shard).is_some_and(|h| h.epoch == epoch) {
            return false;
        }
        self.stamp += 1;
        self.held.insert(shard, Held { epoch, stamp: self.stamp, running: 0, leaving: None });
        true
    }
}

fn row_id(shard: u32) -> String {
    format!("{shard:02}")
}

fn owner(row: &store::Row) -> Owner {
    Owner { holder: row.text("holder").into(), epoch: row.field("epoch").as_u64().unwrap_or(0) }
}

fn put(tx: &mut Tx<'_>, shard: u32, to: &str, epoch: u64) {
    let id = row_id(shard);
    tx.put(&SHARDS, &id, json!({ "v": 1, "id": id, "holder": to, "epoch": epoch }));
}

/// Where other controllers reach the process of that member, if it lives and is reached at all.
pub fn line_of(reader: &Reader<'_>, member: &str) -> Option<String> {
    reader.get(&MEMBERS, member).and_then(|r| r.field("line").as_str().map(str::to_owned))
}

/// Where all processes that live are reached.
pub fn lines(reader: &Reader<'_>) -> Vec<String> {
    let mut lines: Vec<_> = reader.all(&MEMBERS).filter_map(|r| r.field("line").as_str().map(str::to_owned)).collect();
    lines.sort_unstable();
    lines.dedup();
    lines
}

/// Members that live, in order.
pub fn members(reader: &Reader<'_>) -> Vec<Arc<str>> {
    reader.all(&MEMBERS).map(|r| Arc::from(r.id())).collect()
}

impl Shards {
    /// Becomes a member called `name`, reached by others at `line` (`host:port`), and holds its share before this returns if nobody else
    /// held it.
    pub async fn join(db: Db, name: &str, line: Option<String>) -> Result<Arc<Self>, StoreError> {
        let shards = Arc::new(Self {
            db,
            name: name.to_owned(),
            line,
            state: Mutex::default(),
            changed: watch::Sender::new(0),
            work: Mutex::default(),
        });
        for attempt in 0.. {
            match shards.register().await {
                Ok(_) => break,
                Err(e) if attempt == JOINS => return Err(e),
                Err(_) => tokio::time::sleep(BACKOFF.jittered(attempt)).await,
            }
        }
        if let Err(e) = shards.balance().await {
            tracing::warn!(error = %e, "Shards could not be taken yet; trying again");
        }
        {
            let mut work = shards.work.lock().unwrap_or_else(PoisonError::into_inner);
            work.spawn(keep(Arc::downgrade(&shards)));
            work.spawn(follow(Arc::downgrade(&shards)));
        }
        Ok(shards)
    }

    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Our id, as long as we are a member.
    pub fn member(&self) -> Option<Arc<str>> {
        self.lock().member.as_ref().map(|m| m.id.clone())
    }

    /// Changes whenever what we hold may have.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// What we may work on: shards, and marks that are new whenever their keys want to be looked at.
    pub fn held(&self) -> BTreeMap<u32, u64> {
        let state = self.lock();
        if state.member.as_ref().is_none_or(|m| Instant::now() >= m.until) {
            return BTreeMap::new();
        }
        state.held.iter().filter(|(_, h)| h.leaving.is_none()).map(|(shard, h)| (*shard, h.stamp)).collect()
    }

    /// Starts work on a key (or on anything with that name); `None` when that is somebody else's.
    pub fn enter(self: &Arc<Self>, key: &str) -> Option<Hold> {
        let shard = shard_of(key);
        let mut state = self.lock();
        let member = state.member.as_ref().filter(|m| Instant::now() < m.until)?.id.clone();
        let held = state.held.get_mut(&shard).filter(|h| h.leaving.is_none())?;
        held.running += 1;
        let fence = Fence { member, shard, epoch: held.epoch };
        drop(state);
        Some(Hold { shards: self.clone(), fence })
    }

    /// Runs `work` in one process of the cloud, for ever: here while we hold the shard of `name`. It is dropped when we do not.
    pub async fn lead<W, F>(self: Arc<Self>, name: &'static str, work: W)
    where
        W: Fn(Fence) -> F,
        F: Future<Output = ()>,
    {
        let mut changed = self.changed();
        loop {
            if let Some(hold) = self.enter(name) {
                tracing::info!(work = name, epoch = hold.fence.epoch, "This process does it now");
                tokio::select! {
                    () = work(hold.fence.clone()) => hold.lost().await,
                    () = hold.lost() => {}
                }
                tracing::info!(work = name, "This process does it no more");
            }
            timeout(LOOK, changed.changed()).await.ok();
        }
    }

    /// Hands everything over and is no member any more. Returns when others can work.
    pub async fn leave(&self) -> Result<(), StoreError> {
        let Some(member) = self.lock().member.clone() else { return Ok(()) };
        self.work.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        let start = Instant::now();
        self.lock().held.values_mut().for_each(|h| h.leaving = Some(start));
        self.tell();
        let mut changed = self.changed();
        while self.lock().held.values().any(|h| h.running > 0) && start.elapsed() < DRAIN {
            timeout(LOOK, changed.changed()).await.ok();
        }
        let held: Vec<(u32, u64)> = self.lock().held.drain().map(|(shard, h)| (shard, h.epoch)).collect();
        let me = member.id.clone();
        let given = move |tx: &mut Tx<'_>| {
            let others: Vec<Arc<str>> = tx.all(&MEMBERS).iter().map(|r| Arc::from(r.id())).filter(|id| *id != me).collect();
            for (shard, epoch) in &held {
                let fence = Fence { member: me.clone(), shard: *shard, epoch: *epoch };
                if let Some(to) = wanted(&others, *shard)
                    && fence.check(tx).is_ok()
                {
                    put(tx, *shard, to, epoch + 1);
                }
            }
            tx.delete(&MEMBERS, &me);
            Ok::<_, ()>(())
        };
        let done = self.db.transact(given).await;
        self.lock().member = None;
        self.tell();
        self.db.store.lease_revoke(member.lease).await?;
        done.map(|_| ()).map_err(store_error)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// Becomes a member under a new id.
    async fn register(&self) -> Result<Revision, StoreError> {
        let asked = Instant::now();
        let lease = self.db.store.lease_grant(TTL).await?;
        let id: Arc<str> = base::id::hex().into();
        let key: Arc<str> = format!("{}/{id}", MEMBERS.name).into();
        let row = json!({ "v": 1, "id": &*id, "name": self.name, "line": self.line, "since": self.db.now().0 });
        let write = Write::Put { key: key.clone(), value: row.to_string().into(), lease: Some(lease) };
        let txn = Txn { id: TxnId::random(), compares: vec![Compare::Absent(key)], writes: vec![write] };
        // The id is new: if the answer is lost we take another one, and this one ends with its lease.
        let revision = self.db.store.txn(txn).await.map_err(|e| StoreError::Unavailable(e.to_string()))?;
        self.db.view.reach(revision).await?;
        let mut state = self.lock();
        state.held.clear();
        state.member = Some(Member { id, lease, until: asked + USABLE });
        Ok(revision)
    }

    /// Renews the lease, or becomes another member when it is over.
    async fn renew(&self) -> Result<(), StoreError> {
        let asked = Instant::now();
        let lease = self.lock().member.as_ref().map(|m| m.lease);
        let Some(lease) = lease else { return self.register().await.map(|_| self.tell()) };
        match self.db.store.lease_keep_alive(lease).await {
            Ok(()) => {
                let mut state = self.lock();
                let State { member: Some(member), held, stamp } = &mut *state else { return Ok(()) };
                let was_late = member.until <= Instant::now();
                member.until = member.until.max(asked + USABLE);
                if was_late {
                    // What was not worked on meanwhile wants to be looked at.
                    *stamp += 1;
                    held.values_mut().for_each(|h| h.stamp = *stamp);
                    drop(state);
                    self.tell();
                }
                Ok(())
            }
            Err(StoreError::LeaseOver(_)) => {
                tracing::warn!(member = self.name, "This process was not heard of for too long and starts anew");
                {
                    let mut state = self.lock();
                    state.member = None;
                    state.held.clear();
                }
                self.tell();
                self.register().await.map(|_| self.tell())
            }
            Err(e) => Err(e),
        }
    }

    /// Does our part for every shard.
    async fn balance(&self) -> Result<(), StoreError> {
        let Some(me) = self.member() else { return Ok(()) };
        let (mut take, mut give) = (Vec::new(), Vec::new());
        let mut news = false;
        {
            let reader = self.db.read();
            let living = members(&reader);
            let mut state = self.lock();
            if state.member.as_ref().is_none_or(|m| m.id != me) {
                return Ok(());
            }
            for shard in 0..COUNT {
                let now = reader.get(&SHARDS, &row_id(shard)).map(|r| owner(&r));
                match step(&me, &living, shard, now.as_ref()) {
                    Step::Keep(epoch) => {
                        news |= state.hold(shard, epoch);
                        if let Some(held) = state.held.get_mut(&shard) {
                            news |= held.leaving.take().is_some();
                        }
                    }
                    Step::Give(to) => {
                        // One that we were given and never used is in the rows only.
                        let epoch = now.map_or(0, |o| o.epoch);
                        state.hold(shard, epoch);
                        let Some(held) = state.held.get_mut(&shard) else { continue };
                        news |= held.leaving.is_none();
                        let since = *held.leaving.get_or_insert_with(Instant::now);
                        if held.running == 0 || since.elapsed() > DRAIN {
                            give.push((shard, epoch, to));
                        }
                    }
                    Step::Take => take.push(shard),
                    Step::None => news |= state.held.remove(&shard).is_some(),
                }
            }
        }
        if news {
            self.tell();
        }
        if take.is_empty() && give.is_empty() {
            return Ok(());
        }
        self.hand(me, take, give).await
    }

    /// Takes shards of the dead and gives those that are others' now.
    async fn hand(&self, me: Arc<str>, take: Vec<u32>, give: Vec<(u32, u64, Arc<str>)>) -> Result<(), StoreError> {
        let given: Vec<u32> = give.iter().map(|(shard, ..)| *shard).collect();
        let change = {
            let me = me.clone();
            move |tx: &mut Tx<'_>| {
                let mut taken = Vec::new();
                // Without our row nobody knows that we live.
                if tx.get(&MEMBERS, &me).is_none() {
                    return Err(());
                }
                for shard in &take {
                    let now = tx.get(&SHARDS, &row_id(*shard)).map(|r| owner(&r));
                    let is_free = now.as_ref().is_none_or(|o| tx.get(&MEMBERS, &o.holder).is_none());
                    if is_free {
                        let epoch = now.map_or(0, |o| o.epoch) + 1;
                        put(tx, *shard, &me, epoch);
                        taken.push((*shard, epoch));
                    }
                }
                for (shard, epoch, to) in &give {
                    let fence = Fence { member: me.clone(), shard: *shard, epoch: *epoch };
                    if fence.check(tx).is_ok() {
                        put(tx, *shard, to, epoch + 1);
                    }
                }
                Ok(taken)
            }
        };
        match self.db.transact(change).await {
            Ok(done) => {
                let mut state = self.lock();
                if state.member.as_ref().is_some_and(|m| m.id == me) {
                    given.iter().for_each(|shard| {
                        state.held.remove(shard);
                    });
                    done.value.iter().for_each(|(shard, epoch)| {
                        state.hold(*shard, *epoch);
                    });
                }
                drop(state);
                self.tell();
                Ok(())
            }
            // Our row is gone: the renewal will find out.
            Err(store::TransactError::Refused(())) => Ok(()),
            Err(e) => Err(store_error(e)),
        }
    }
}

fn store_error(e: store::TransactError<()>) -> StoreError {
    match e {
        store::TransactError::Store(e) => e,
        store::TransactError::Refused(()) => StoreError::Unavailable("this process is no member any more".into()),
    }
}

/// Keeps us a member.
async fn keep(shards: Weak<Shards>) {
    let mut attempt = 0;
    loop {
        tokio::time::sleep(if attempt == 0 { RENEWAL } else { BACKOFF.jittered(attempt) }).await;
        let Some(shards) = shards.upgrade() else { return };
        match timeout(USABLE, shards.renew()).await {
            Ok(Ok(())) => attempt = 0,
            Ok(Err(e)) => {
                attempt += 1;
                tracing::warn!(error = %e, "The membership could not be renewed; trying again");
            }
            Err(_) => {
                attempt += 1;
                tracing::warn!("The store did not answer in time to renew the membership; trying again");
            }
        }
    }
}

/// Does our part whenever members or shards change, and when work that held up a hand-over has ended.
async fn follow(shards: Weak<Shards>) {
    let Some((mut rows, mut told)) = shards.upgrade().map(|s| (s.db.view.changes(), s.changed())) else { return };
    let concerns = |keys: &[Arc<str>]| keys.iter().any(|k| k.starts_with("control/"));
    loop {
        {
            let Some(shards) = shards.upgrade() else { return };
            if let Err(e) = shards.balance().await {
                tracing::warn!(error = %e, "Shards could not be taken or given; trying again");
            }
        }
        let look = tokio::time::sleep(LOOK);
        tokio::pin!(look);
        loop {
            tokio::select! {
                change = rows.recv() => match change {
                    Ok(change) if concerns(&change.keys) => break,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return,
                },
                told = told.changed() => if told.is_err() { return } else { break },
                () = &mut look => break,
            }
        }
    }
}
