//! What the calls of one store share: the client, the session, what is known of transactions, and how new the answers were.
use crate::{
    Limits,
    client::Client,
    keys::Keys,
    lease,
    session::{Ledger, Session, lock},
};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, Weak, atomic::AtomicBool},
    time::Duration,
};
use store::{Revision, StoreError};
use tokio::sync::{Semaphore, watch};

/// Transactions of one process that are under way; the others wait.
const UNDER_WAY: usize = 512;
/// How long a process may be cut off from etcd and still learn what became of its transactions.
const SESSION: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) client: Client,
    pub(crate) keys: Keys,
    pub(crate) limits: Limits,
    pub(crate) ledger: Mutex<Ledger>,
    pub(crate) room: Semaphore,
    /// Leases that are known to have their key below `l/`.
    pub(crate) announced: Mutex<HashSet<i64>>,
    /// The newest revision that a caller was told; watchers see to it that they reach it.
    pub(crate) told: watch::Sender<Revision>,
    /// Others write into the same etcd, so revisions that are not ours are to be expected.
    pub(crate) shared: AtomicBool,
    pub(crate) closed: watch::Sender<bool>,
    session: Mutex<Option<Arc<Session>>>,
    renewing: Semaphore,
}

impl Inner {
    pub(crate) fn new(client: Client, keys: Keys, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            client,
            keys,
            limits,
            ledger: Mutex::default(),
            room: Semaphore::new(UNDER_WAY),
            announced: Mutex::default(),
            told: watch::channel(0).0,
            shared: AtomicBool::new(false),
            closed: watch::channel(false).0,
            session: Mutex::default(),
            renewing: Semaphore::new(1),
        })
    }

    /// A caller knows of this revision.
    pub(crate) fn asked(&self, revision: Revision) {
        self.told.send_if_modified(|r| {
            let newer = revision > *r;
            *r = revision.max(*r);
            newer
        });
    }

    fn live_session(&self) -> Option<Arc<Session>> {
        lock(&self.session).clone().filter(|s| !s.is_over())
    }

    /// The session; a new one if there is none or it is over.
    pub(crate) async fn session(self: &Arc<Self>) -> Result<Arc<Session>, StoreError> {
        if let Some(session) = self.live_session() {
            return Ok(session);
        }
        let closed = |_| StoreError::Unavailable("the store is closed; this process is shutting down".into());
        let _turn = self.renewing.acquire().await.map_err(closed)?;
        if let Some(session) = self.live_session() {
            return Ok(session);
        }
        let session = Session::new(self.grant(SESSION).await?);
        *lock(&self.session) = Some(session.clone());
        tokio::spawn(keep_alive(Arc::downgrade(self), session.clone()));
        Ok(session)
    }

    /// Ends the session; no transaction begins after it.
    pub(crate) async fn close(&self) {
        self.room.close();
        self.renewing.close();
        self.closed.send_replace(true);
        let session = lock(&self.session).take();
        if let Some(session) = session {
            session.end();
            if let Err(e) = self.revoke(session.lease).await {
                tracing::debug!(error = %e, "The session could not be ended; etcd will do it in time");
            }
        }
    }
}

async fn keep_alive(inner: Weak<Inner>, session: Arc<Session>) {
    let mut wait = SESSION / 4;
    loop {
        tokio::time::sleep(wait).await;
        let Some(inner) = inner.upgrade() else { return };
        match inner.renew(session.lease).await {
            _ if session.is_over() => return,
            Ok(lease::Renewed::Lives) => wait = SESSION / 4,
            Ok(lease::Renewed::Over) => return session.end(),
            Err(e) => {
                tracing::warn!(error = %e, "The session of this process could not be renewed; trying again");
                wait = SESSION / 40;
            }
        }
    }
}
