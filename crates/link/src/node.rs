//! A node's end of the line: attached to one controller, any of them, and to another when that one is gone.
use crate::{
    Error,
    call::{Credentials, Way},
    tunnel,
    wire::{self, Chunk, Down, Json, NoAnswer, Up},
};
use assign::{Agent, Answer, Assignments, HostReport, Pending, Query, QueryError, Report, ReportError, Uplink};
use base::retry::Backoff;
use rand::seq::SliceRandom as _;
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};
use tonic::{Request, Streaming, metadata::AsciiMetadataValue};

/// From the call to the first set of assignments.
const FIRST: Duration = Duration::from_secs(10);
/// Reports that are not acknowledged by then are sent again.
const TAKEN: Duration = Duration::from_secs(30);
/// Between rounds over all controllers.
const ROUND: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(3));
/// A line that lasted so long was a good one.
const GOOD: Duration = Duration::from_secs(10);
const BEHIND: usize = 64;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What [`Upstream`] needs to know.
pub struct Settings {
    /// Of the node.
    pub name: String,
    pub credentials: Credentials,
    /// Lines of controllers to begin with, `host:port`.
    pub controllers: Vec<String>,
    /// Where the newest list of them is kept, as JSON.
    pub remembered: PathBuf,
    /// Of this program, for the controllers' logs.
    pub version: String,
}

/// The controllers, as a node has them. Ends with the last reference.
pub struct Upstream {
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    settings: Settings,
    /// Those of the settings, or newer ones.
    credentials: Mutex<Credentials>,
    assignments: watch::Sender<Arc<Assignments>>,
    /// A receiver that has seen nothing.
    unseen: watch::Receiver<Arc<Assignments>>,
    line: watch::Sender<Option<Arc<Line>>>,
    attached: watch::Sender<Option<String>>,
    host: Mutex<Option<HostReport>>,
    agent: OnceLock<Weak<dyn Agent>>,
    controllers: watch::Sender<Vec<String>>,
}

/// One attached line.
struct Line {
    way: Way,
    send: mpsc::Sender<Json<Up>>,
    next: AtomicU64,
    taken: Mutex<HashMap<u64, oneshot::Sender<Option<String>>>>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Upstream {
    /// Attaches to a controller, and keeps attached.
    pub fn start(settings: Settings) -> Arc<Self> {
        let (assignments, unseen) = watch::channel(Arc::default());
        let remembered = std::fs::read(&settings.remembered).ok().and_then(|b| serde_json::from_slice(&b).ok());
        let controllers = remembered.filter(|c: &Vec<String>| !c.is_empty()).unwrap_or_else(|| settings.controllers.clone());
        let shared = Arc::new(Shared {
            credentials: Mutex::new(settings.credentials.clone()),
            settings,
            assignments,
            unseen,
            line: watch::Sender::new(None),
            attached: watch::Sender::new(None),
            host: Mutex::default(),
            agent: OnceLock::new(),
            controllers: watch::Sender::new(controllers),
        });
        let task = tokio::spawn(shared.clone().keep_attached()).abort_handle();
        Arc::new(Self { shared, task })
    }

    /// Names who answers the controllers' questions. Until then they are told that the node does not answer.
    pub fn serve(&self, agent: &Arc<dyn Agent>) {
        self.shared.agent.set(Arc::downgrade(agent)).ok();
    }

    /// Has the key of this request (PKCS #10, PEM) certified anew; gives the certificate (PEM).
    pub async fn renew(&self, csr: &str) -> Result<String, Error> {
        let mut failed = Error::Refused("No controller is known.".into());
        for way in self.ways()? {
            match way.renew(csr).await {
                Ok(certificate) => return Ok(certificate),
                Err(e) => failed = e,
            }
        }
        Err(failed)
    }

    /// Shows another certificate from the next line on.
    pub fn renewed(&self, credentials: Credentials) {
        *lock(&self.shared.credentials) = credentials;
    }

    /// The line of the controller that we are attached to, as it changes.
    pub fn attached(&self) -> watch::Receiver<Option<String>> {
        self.shared.attached.subscribe()
    }

    /// Lines of the controllers as they are known, `host:port`.
    pub fn controllers(&self) -> watch::Receiver<Vec<String>> {
        self.shared.controllers.subscribe()
    }

    /// Ways to the controllers, the one that we are attached to first.
    pub(crate) fn ways(&self) -> Result<Vec<Way>, Error> {
        self.shared.ways()
    }
}

impl Shared {
    fn ways(&self) -> Result<Vec<Way>, Error> {
        let attached = self.line.borrow().as_ref().map(|l| l.way.clone());
        let known = self.controllers.borrow().clone();
        let others = known.iter().filter(|c| attached.as_ref().is_none_or(|a| a.address() != *c));
        let others: Result<Vec<Way>, Error> = others.map(|c| Way::to(c, &lock(&self.credentials))).collect();
        Ok(attached.into_iter().chain(others?).collect())
    }

    fn agent(&self) -> Result<Arc<dyn Agent>, QueryError> {
        let agent = self.agent.get().and_then(Weak::upgrade);
        agent.ok_or_else(|| QueryError::Unreachable(self.settings.name.clone()))
    }

    /// The controllers in the order to try, and those of the settings last: the remembered ones may all be gone.
    fn round(&self) -> Vec<String> {
        let mut known = self.controllers.borrow().clone();
        known.shuffle(&mut rand::rng());
        let others = self.settings.controllers.iter().filter(|c| !known.contains(c)).cloned().collect::<Vec<_>>();
        known.into_iter().chain(others).collect()
    }

    fn know(&self, controllers: Vec<String>) {
        if controllers.is_empty() || *self.controllers.borrow() == controllers {
            return;
        }
        let path = &self.settings.remembered;
        let next = path.with_extension("next");
        let text = serde_json::to_vec(&controllers).unwrap_or_default();
        if let Err(e) = std::fs::write(&next, text).and_then(|()| std::fs::rename(&next, path)) {
            tracing::warn!(path = %path.display(), error = %e, "The list of controllers cannot be kept");
        }
        self.controllers.send_replace(controllers);
    }
}

impl Shared {
    async fn keep_attached(self: Arc<Self>) {
        let mut attempt = 0;
        loop {
            for address in self.round() {
                let started = Instant::now();
                let why = self.attached(&address).await;
                self.line.send_replace(None);
                self.attached.send_replace(None);
                if started.elapsed() > GOOD {
                    attempt = 0;
                }
                tracing::info!(controller = address, why, "Not attached to {address}: {why}");
            }
            sleep(ROUND.jittered(attempt)).await;
            attempt += 1;
        }
    }

    /// Attaches and stays as long as it lasts; says why it ended.
    async fn attached(self: &Arc<Self>, address: &str) -> String {
        let way = match Way::to(address, &lock(&self.credentials)) {
            Ok(way) => way,
            Err(e) => return e.to_string(),
        };
        let (send, outgoing) = mpsc::channel(BEHIND);
        let line = Arc::new(Line { way, send, next: AtomicU64::new(1), taken: Mutex::default() });
        let hello = Up::Hello { version: self.settings.version.clone(), host: lock(&self.host).clone() };
        if line.send.try_send(Json(hello)).is_err() {
            return "the line is closed".into();
        }
        let opened = async {
            let mut messages =
                line.way.call::<Json<Up>, Json<Down>>(wire::ATTACH, Request::new(tunnel::receiver(outgoing))).await?;
            let first = messages.message().await?;
            Ok::<_, tonic::Status>((messages, first))
        };
        let (messages, first) = match timeout(FIRST, opened).await {
            Ok(Ok((messages, Some(Json(first))))) => (messages, first),
            Ok(Ok((_, None))) => return "it has closed the line".into(),
            Ok(Err(e)) => return e.message().to_owned(),
            Err(_) => return format!("no answer within {} s", FIRST.as_secs()),
        };
        tracing::info!(controller = address, "Attached to {address}");
        self.take(&line, first);
        self.line.send_replace(Some(line.clone()));
        self.attached.send_replace(Some(address.to_owned()));
        self.listen(&line, messages).await
    }

    async fn listen(self: &Arc<Self>, line: &Arc<Line>, mut messages: Streaming<Json<Down>>) -> String {
        loop {
            match messages.message().await {
                Ok(Some(Json(message))) => self.take(line, message),
                Ok(None) => return "it has closed the line".into(),
                Err(e) => return e.message().to_owned(),
            }
        }
    }

    fn take(self: &Arc<Self>, line: &Arc<Line>, message: Down) {
        match message {
            Down::Level(change) => {
                let now = change.apply(&self.assignments.borrow().clone());
                self.assignments.send_replace(Arc::new(now));
            }
            Down::Taken { number, refused } => {
                if let Some(waiting) = lock(&line.taken).remove(&number) {
                    waiting.send(refused).ok();
                }
            }
            Down::Controllers(controllers) => self.know(controllers),
            Down::Question { number, query } => {
                let (this, line) = (self.clone(), line.clone());
                tokio::spawn(async move { line.answer(number, this.asked(query).await).await });
            }
            Down::Display { number, server_id } => {
                let (this, line) = (self.clone(), line.clone());
                tokio::spawn(async move {
                    if let Err(e) = this.display(&line.way, number, &server_id).await {
                        line.answer(number, Err(e)).await;
                    }
                });
            }
        }
    }

    async fn asked(&self, query: Query) -> Result<Answer, QueryError> {
        self.agent()?.query(query).await
    }

    async fn display(&self, way: &Way, number: u64, server_id: &str) -> Result<(), QueryError> {
        let mut display = self.agent()?.vnc(server_id).await?;
        let failed = |cause: String| QueryError::Failed { node: self.settings.name.clone(), cause };
        let (tunnel, outgoing) = tunnel::open();
        let mut request = Request::new(outgoing);
        request.metadata_mut().insert(wire::NUMBER, AsciiMetadataValue::from(number));
        let incoming = way.call::<Chunk, Chunk>(wire::DISPLAY, request).await.map_err(|e| failed(e.message().to_owned()))?;
        let mut end = tunnel.join(incoming);
        tokio::io::copy_bidirectional(&mut display, &mut end).await.ok();
        Ok(())
    }
}

impl Line {
    async fn answer(&self, number: u64, answer: Result<Answer, QueryError>) {
        // A line that is gone has nobody who waits.
        self.send.send(Json(Up::Answer { number, answer: answer.map_err(NoAnswer::from) })).await.ok();
    }

    async fn report(&self, reports: Vec<Report>) -> Result<(), ReportError> {
        let gone = || ReportError("the line to the controller broke".into());
        let (number, (send, taken)) = (self.next.fetch_add(1, Ordering::Relaxed), oneshot::channel());
        lock(&self.taken).insert(number, send);
        let answered = async {
            self.send.send(Json(Up::Reports { number, reports })).await.map_err(|_| gone())?;
            taken.await.map_err(|_| gone())
        };
        let answered = timeout(TAKEN, answered).await;
        lock(&self.taken).remove(&number);
        match answered.map_err(|_| ReportError(format!("no answer within {} s", TAKEN.as_secs())))?? {
            None => Ok(()),
            Some(cause) => Err(ReportError(cause)),
        }
    }
}

impl Uplink for Upstream {
    fn assignments(&self) -> watch::Receiver<Arc<Assignments>> {
        self.shared.unseen.clone()
    }

    fn report(&self, reports: Vec<Report>) -> Pending<'_, Result<(), ReportError>> {
        Box::pin(async move {
            let host = reports.iter().rev().find_map(|r| match r {
                Report::Host(host) => Some(host.clone()),
                Report::Server(_) | Report::Snapshot(_) | Report::Password(_) | Report::Volume(_) => None,
            });
            if host.is_some() {
                *lock(&self.shared.host) = host;
            }
            let mut lines = self.shared.line.subscribe();
            // The sender is in `shared`: it cannot be closed.
            let line = lines.wait_for(Option::is_some).await.ok().and_then(|l| l.clone());
            let line = line.ok_or_else(|| ReportError("the node ends".into()))?;
            tokio::select! {
                taken = line.report(reports) => taken,
                _ = lines.wait_for(|now| now.as_ref().is_none_or(|now| !Arc::ptr_eq(now, &line))) => {
                    Err(ReportError("the line to the controller broke".into()))
                }
            }
        })
    }
}
