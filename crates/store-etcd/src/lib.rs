//! The cluster's store engine: etcd, with any number of processes on it at once.
//!
//! ```text
//!  txn, resolve ──▶ slot of this process ──▶ one member ──▶ raft ──▶ answer, or doubt that resolve clears
//!  get, range, revision ──────────────────▶ one member, after a moment a second one; linearizable
//!  watch ─────────────────────────────────▶ a stream that moves to another member behind the last revision
//! ```
//!
//! - **Revisions** are etcd's. They have no gaps where the etcd is this cloud's alone; in one that clouds share, those of the others
//!   are left out, and what [`Store::revision`] tells is always reached by every watch.
//! - **Unknown commits** are resolved by a slot that each transaction writes; see `session`.
//! - **Nothing hangs.** Every call has a deadline, a member that is half dead is left after a quarter of a second of a read's time, and
//!   an answer to a write that does not come within two seconds makes it `Unknown`.
//! - **Compaction** ends a watch that is behind it, and [`Store::watch`] then says so; the view reads anew.
//! - **Limits.** etcd bounds operations and bytes of one request. [`Limits::SUPERVISED`] is what a [`member`] of ours is started with.
//!
//! The client is tonic with messages written by hand (`wire`), not the crate `etcd-client`: that one needs protoc wherever Drover is
//! built, and spreads calls over endpoints without telling which one hangs, so hedged reads and a choice of member are not possible.
mod client;
pub mod copy;
mod endpoint;
mod follow;
mod inner;
mod keys;
mod lease;
pub mod member;
mod pem;
mod read;
mod session;
mod txn;
mod verdict;
mod wire;

pub use pem::Tls;

use client::{Client, SHORT};
use inner::Inner;
use keys::Keys;
use std::{sync::Arc, time::Duration};
use store::{Entry, LeaseId, Outcome, Page, Pending, Range, Revision, Store, StoreError, Txn, TxnError, TxnId, Watch, WatchEnd};
use txn::{signed, unsigned};
use verdict::store_error;

/// The form of the keys. A new form comes with a migration from the one before.
const FORM: &str = "1";
/// Operations of a transaction that are ours: the slot, and the keys of its leases.
const OWN_OPS: usize = 8;

/// What etcd's members take, as they were started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `--max-txn-ops`
    pub txn_ops: usize,
    /// `--max-request-bytes`
    pub request_bytes: usize,
}
impl Limits {
    /// etcd's own defaults.
    pub const DEFAULT: Self = Self { txn_ops: 128, request_bytes: 1536 << 10 };
    /// Those of the members that [`member`] starts.
    pub const SUPERVISED: Self = Self { txn_ops: 8192, request_bytes: 10 << 20 };
}

/// Where etcd is and which part of it is ours.
#[derive(Clone, Debug)]
pub struct Config {
    /// URLs of members, the preferred one first. Calls go to the first that answers.
    pub endpoints: Vec<String>,
    /// For `https` endpoints.
    pub tls: Option<Tls>,
    /// Letters, digits, `-`, `_`, `.`: what all keys begin with, so that clouds can share an etcd.
    pub cloud: String,
    pub limits: Limits,
    /// How often a connection with open calls is probed. etcd cuts off clients that do it more often than its
    /// `--grpc-keepalive-min-time`, by default every 5 s.
    pub keep_alive: Duration,
}

impl Config {
    /// For members that somebody else started with etcd's defaults.
    pub fn new(cloud: impl Into<String>, endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            tls: None,
            cloud: cloud.into(),
            limits: Limits::DEFAULT,
            keep_alive: Duration::from_secs(6),
        }
    }
    /// For members that [`member`] started.
    pub fn supervised(self) -> Self {
        Self { limits: Limits::SUPERVISED, keep_alive: member::KEEP_ALIVE * 2, ..self }
    }
    pub fn tls(self, tls: Tls) -> Self {
        Self { tls: Some(tls), ..self }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Etcd {
    inner: Arc<Inner>,
}

impl Etcd {
    /// Connects, and claims the prefix for this form of the keys or finds that it has it.
    pub async fn connect(config: Config) -> Result<Arc<Self>, StoreError> {
        let keys = Keys::of(&config.cloud)?;
        let client = Client::new(&config.endpoints, config.tls.as_ref(), config.keep_alive)?;
        let form = keys.form();
        let absent = wire::Compare {
            result: wire::EQUAL,
            target: wire::CREATED,
            key: form.clone(),
            created: Some(0),
            ..Default::default()
        };
        let look = wire::RangeRequest { key: form.clone(), ..Default::default() };
        // Reading first: a cluster without space to write still serves readers.
        let found: wire::RangeResponse = client.read(wire::RANGE, look.clone(), SHORT).await.map_err(|s| store_error(&s))?;
        let mut found = found.kvs.into_iter().next();
        if found.is_none() {
            let make = wire::PutRequest { key: form, value: FORM.into(), lease: 0 };
            let request = wire::TxnRequest { compare: vec![absent], success: vec![make.into()], failure: vec![look.into()] };
            let answer: wire::TxnResponse = client.insist(wire::TXN, &request).await.map_err(|s| store_error(&s))?;
            found = answer.responses.into_iter().next().and_then(|r| r.range).and_then(|r| r.kvs.into_iter().next());
        }
        if let Some(kv) = found
            && kv.value != FORM.as_bytes()
        {
            let found = String::from_utf8_lossy(&kv.value).into_owned();
            return Err(StoreError::Damaged(format!(
                "the keys of {} in etcd are of form {found:?} and this Drover knows {FORM}; run the Drover that wrote them",
                config.cloud
            )));
        }
        Ok(Arc::new(Self { inner: Inner::new(client, keys, config.limits) }))
    }

    /// Uses these members' URLs from now on, the preferred one first, and the certificates that are in the files now. True if anything
    /// is other than before.
    pub fn follow(&self, endpoints: &[String]) -> Result<bool, StoreError> {
        self.inner.client.follow(endpoints)
    }

    /// The same members as their operator sees them; it follows what [`Self::follow`] is told.
    pub fn cluster(&self) -> member::Cluster {
        member::Cluster { client: self.inner.client.clone() }
    }

    /// Ends the watches and this process's session. Without it etcd ends the session some minutes after the process.
    pub async fn close(&self) {
        self.inner.close().await;
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // The watches hold the rest of us.
        self.inner.closed.send_replace(true);
    }
}

impl Store for Etcd {
    fn txn(&self, txn: Txn) -> Pending<'_, Result<Revision, TxnError>> {
        // As a task of its own: a caller that leaves must not leave the outcome open.
        let commit = self.inner.clone().commit(txn);
        Box::pin(async move { tokio::spawn(commit).await.unwrap_or(Err(TxnError::Unknown)) })
    }
    fn resolve(&self, id: TxnId) -> Pending<'_, Result<Outcome, StoreError>> {
        Box::pin(self.inner.resolve(id))
    }
    fn get<'a>(&'a self, key: &'a str) -> Pending<'a, Result<Option<Entry>, StoreError>> {
        Box::pin(self.inner.get(key))
    }
    fn range<'a>(&'a self, range: Range<'a>) -> Pending<'a, Result<Page, StoreError>> {
        Box::pin(self.inner.page(range))
    }
    fn revision(&self) -> Pending<'_, Result<Revision, StoreError>> {
        Box::pin(self.inner.revision())
    }
    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> Pending<'a, Result<Watch, WatchEnd>> {
        Box::pin(follow::watch(self.inner.clone(), prefix, after))
    }
    fn lease_grant(&self, ttl: Duration) -> Pending<'_, Result<LeaseId, StoreError>> {
        Box::pin(async move { self.inner.grant(ttl).await.map(|id| LeaseId(unsigned(id))) })
    }
    fn lease_keep_alive(&self, lease: LeaseId) -> Pending<'_, Result<(), StoreError>> {
        Box::pin(async move {
            match self.inner.renew(signed(lease.0)).await? {
                lease::Renewed::Lives => Ok(()),
                lease::Renewed::Over => Err(StoreError::LeaseOver(lease)),
            }
        })
    }
    fn lease_revoke(&self, lease: LeaseId) -> Pending<'_, Result<(), StoreError>> {
        Box::pin(self.inner.revoke(signed(lease.0)))
    }
    fn max_ops(&self) -> usize {
        self.inner.limits.txn_ops.saturating_sub(OWN_OPS).max(1)
    }
}
