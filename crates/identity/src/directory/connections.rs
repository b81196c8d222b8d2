//! Connections to one directory: few, kept for a while, and never waited for longer than seconds.
//!
//! A directory that cannot be reached is left alone for a moment: who asks meanwhile is told so at once, and waits for nothing.
use super::{
    entry::Entry,
    options::{Options, Wrong},
};
use ldap3::{
    Ldap, LdapConnAsync, LdapConnSettings, LdapError, ResultEntry, Scope, SearchEntry, SearchOptions,
    adapters::{Adapter, EntriesOnly, PagedResults},
};
use std::{
    panic,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{sync::Semaphore, time::timeout};
use web::Trust;

/// For one question and its answer, with the wait for a connection.
const OPERATION: Duration = Duration::from_secs(5);
/// For all pages of a list.
const LIST: Duration = Duration::from_secs(20);
/// An idle connection is not used again after this.
const LIFETIME: Duration = Duration::from_secs(60);
/// How long a directory that could not be reached is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// Result codes of RFC 4511.
mod code {
    pub(super) const SUCCESS: u32 = 0;
    pub(super) const TIME_LIMIT: u32 = 3;
    pub(super) const SIZE_LIMIT: u32 = 4;
    pub(super) const NO_SUCH_OBJECT: u32 = 32;
    /// What a directory says of a name and password that do not fit, or of one who may not log in.
    pub(super) const REFUSALS: [u32; 7] = [19, 32, 34, 48, 49, 50, 53];
}

/// Why a directory gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{0}; correct the domain's configuration")]
    Configuration(#[from] Wrong),
    #[error("its authorities cannot be used")]
    Roots(#[from] web::Error),
    #[error("{url} cannot be reached")]
    Unreachable { url: String, source: Box<LdapError> },
    #[error("it could not be reached a moment ago")]
    Paused,
    #[error("it did not answer in {0:?}")]
    Late(Duration),
    #[error("all its connections are busy")]
    Busy,
    #[error("it broke off")]
    Broken(#[source] Box<LdapError>),
    #[error("it refused to {what}: code {code} {text}")]
    Refused { what: &'static str, code: u32, text: String },
    #[error("its answer is not LDAP")]
    Garbled,
    #[error("the password of its account cannot be opened; set it again")]
    Sealed,
}

impl From<LdapError> for Fault {
    fn from(e: LdapError) -> Self {
        Self::Broken(Box::new(e))
    }
}

/// What a search found; not all when the directory or we had a limit.
#[derive(Debug, Default)]
pub(crate) struct Found<T> {
    pub(crate) all: Vec<T>,
    pub(crate) complete: bool,
}

/// A question.
pub(crate) struct Search<'a> {
    pub(crate) base: &'a str,
    pub(crate) scope: Scope,
    pub(crate) filter: &'a str,
    pub(crate) attributes: Vec<String>,
    pub(crate) most: usize,
}

pub(crate) struct Connections {
    options: Arc<Options>,
    trust: Trust,
    slots: Semaphore,
    idle: Mutex<Vec<(Ldap, Instant)>>,
    paused: Mutex<Option<Instant>>,
}

impl Connections {
    pub(crate) fn new(options: Arc<Options>) -> Self {
        Self {
            slots: Semaphore::new(options.pool_size),
            trust: Trust::new(options.ca_file.clone(), options.ca_dir.clone()),
            options,
            idle: Mutex::default(),
            paused: Mutex::default(),
        }
    }

    /// A connection on which nobody has logged in.
    async fn connect(&self) -> Result<Ldap, Fault> {
        let paused = *self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        if paused.is_some_and(|until| Instant::now() < until) {
            return Err(Fault::Paused);
        }
        let mut last = None;
        for url in &self.options.urls {
            match self.connect_to(url).await {
                Ok(ldap) => return Ok(ldap),
                Err(fault) => last = Some(fault),
            }
        }
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + PAUSE);
        Err(last.unwrap_or(Fault::Paused))
    }

    async fn connect_to(&self, url: &str) -> Result<Ldap, Fault> {
        let o = &self.options;
        let mut settings = LdapConnSettings::new().set_conn_timeout(o.connect_timeout);
        if url.starts_with("ldaps:") || o.start_tls {
            settings = settings.set_starttls(o.start_tls).set_no_tls_verify(!o.verify);
            if o.verify {
                settings = settings.set_config(self.trust.client()?);
            }
        }
        let unreachable = |e| Fault::Unreachable { url: url.to_owned(), source: Box::new(e) };
        let (connection, ldap) = LdapConnAsync::with_settings(settings, url).await.map_err(unreachable)?;
        // It ends when the last handle is dropped.
        tokio::spawn(async move {
            if let Err(e) = connection.drive().await {
                tracing::debug!(error = %e, "A connection to a directory ended");
            }
        });
        Ok(ldap)
    }

    /// A connection on which our account has logged in.
    async fn ready(&self) -> Result<Ldap, Fault> {
        while let Some((mut ldap, since)) = self.take() {
            if since.elapsed() < LIFETIME && !ldap.is_closed() {
                return Ok(ldap);
            }
        }
        let mut ldap = self.connect().await?;
        if let Some(user) = &self.options.user {
            let answer = ldap.simple_bind(user, &self.options.password).await?;
            if answer.rc != code::SUCCESS {
                return Err(Fault::Refused { what: "let our account in", code: answer.rc, text: answer.text });
            }
        }
        Ok(ldap)
    }
    fn take(&self) -> Option<(Ldap, Instant)> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
    fn give_back(&self, ldap: Ldap) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.options.pool_size {
            idle.push((ldap, Instant::now()));
        }
    }

    async fn within<T>(&self, limit: Duration, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let slot = timeout(OPERATION, self.slots.acquire()).await.map_err(|_| Fault::Busy)?;
        let _slot = slot.map_err(|_| Fault::Busy)?;
        timeout(limit, work).await.map_err(|_| Fault::Late(limit))?
    }

    pub(crate) async fn search(&self, search: &Search<'_>) -> Result<Found<Entry>, Fault> {
        let limit = if search.most > 1 { LIST } else { OPERATION };
        self.within(limit, async {
            let mut ldap = self.ready().await?;
            // One whose search failed is not used again.
            let found = self.ask(&mut ldap, search).await?;
            self.give_back(ldap);
            Ok(found)
        })
        .await
    }

    async fn ask(&self, ldap: &mut Ldap, search: &Search<'_>) -> Result<Found<Entry>, Fault> {
        let mut chain: Vec<Box<dyn Adapter<'_, String, Vec<String>>>> = vec![Box::new(EntriesOnly::new())];
        if self.options.page_size > 0 && search.most > 1 {
            chain.push(Box::new(PagedResults::new(self.options.page_size)));
        }
        ldap.with_search_options(SearchOptions::new().deref(self.options.deref)).with_timeout(OPERATION);
        let mut stream =
            ldap.streaming_search_with(chain, search.base, search.scope, search.filter, search.attributes.clone()).await?;
        let mut found = Found { all: Vec::new(), complete: true };
        while let Some(entry) = stream.next().await? {
            if found.all.len() == search.most {
                // The rest is not read: the connection is of no more use, so the search ends with it.
                found.complete = false;
                let id = stream.ldap_handle().last_id();
                ldap.abandon(id).await?;
                return Ok(found);
            }
            found.all.push(read(entry)?);
        }
        let end = stream.finish().await;
        match end.rc {
            code::SUCCESS => {}
            code::SIZE_LIMIT | code::TIME_LIMIT => found.complete = false,
            // Nothing is there, which is an answer.
            code::NO_SUCH_OBJECT => found.complete = found.all.is_empty(),
            rc => return Err(Fault::Refused { what: "search", code: rc, text: end.text }),
        }
        Ok(found)
    }

    /// Does the password open the entry? A connection of its own, which is not used again: it is the user's.
    pub(crate) async fn admits(&self, dn: &str, password: &str) -> Result<bool, Fault> {
        // Without a password LDAP lets everybody in, as nobody (RFC 4513, 5.1.2).
        if dn.is_empty() || password.is_empty() {
            return Ok(false);
        }
        self.within(OPERATION, async {
            let mut ldap = self.connect().await?;
            let answer = ldap.simple_bind(dn, password).await?;
            ldap.unbind().await.ok();
            match answer.rc {
                code::SUCCESS => Ok(true),
                rc if code::REFUSALS.contains(&rc) => Ok(false),
                rc => Err(Fault::Refused { what: "check a password", code: rc, text: answer.text }),
            }
        })
        .await
    }
}

/// The library panics on an entry that is none.
fn read(entry: ResultEntry) -> Result<Entry, Fault> {
    let read = panic::catch_unwind(panic::AssertUnwindSafe(|| SearchEntry::construct(entry)));
    read.map(|e| Entry::new(e.dn, e.attrs)).map_err(|_| Fault::Garbled)
}
