//! Calls to any member of an etcd cluster: each with a deadline, and none that waits for a member that is half dead.
//!
//! A call goes to the first endpoint in the list that is up; a controller names its own member first. An endpoint goes down for
//! new calls when one of them fails or is overtaken, and comes up again when a probe of it is answered. Watches leave it at once. A probe
//! goes over a connection of its own, which then takes the place of the old one: what broke may be the connection and not the member.
//! Where no member has a leader none is to blame: the one that lacks it goes down when another one has it.
//!
//! The list may change while calls are under way: each round of attempts takes it as it is then.
//!
//! - **Reads** that take long are sent to a second member as well, and watches that do not begin; the first answer counts.
//! - **Writes** go to one member. They are sent again only when they surely were not carried out. Who can learn what became of one may
//!   give it up early: what was on its way to a leader that died is answered by nobody.
use crate::{
    Tls,
    endpoint::{Endpoint, Endpoints, late, make},
    pem::Pem,
    verdict::{Leader, Verdict, leader, store_error, verdict},
    wire::{self, Wire},
};
use base::retry::Backoff;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use store::StoreError;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::{Code, Status, Streaming};

/// A write that has no answer by then is in doubt, and its member with it.
pub(crate) const WRITE: Duration = Duration::from_secs(2);
/// All attempts of one call together.
const DEADLINE: Duration = Duration::from_secs(5);
const AGAIN: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(100));

/// How long a read may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Then another member is asked too.
    hedge: Duration,
    /// Who has not answered by then, although another one has, is taken out of use.
    blame: Duration,
    /// Then this member is given up.
    attempt: Duration,
    deadline: Duration,
}
/// For answers of a few rows.
pub(crate) const SHORT: Patience = Patience {
    hedge: Duration::from_millis(100),
    blame: Duration::from_millis(250),
    attempt: Duration::from_secs(1),
    deadline: DEADLINE,
};
/// For answers of megabytes.
pub(crate) const LONG: Patience = Patience {
    hedge: Duration::from_secs(2),
    blame: Duration::from_secs(2),
    attempt: Duration::from_secs(10),
    deadline: Duration::from_secs(30),
};

#[derive(Debug)]
pub(crate) enum Failed {
    /// Surely not carried out.
    Not(Status),
    /// It may have been carried out.
    Doubt(Status),
}

impl Failed {
    pub(crate) fn status(&self) -> &Status {
        match self {
            Self::Not(s) | Self::Doubt(s) => s,
        }
    }
}

/// Clones share their endpoints.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    known: Arc<RwLock<Known>>,
    tls: Option<Tls>,
    keep_alive: Duration,
}

#[derive(Debug)]
struct Known {
    endpoints: Endpoints,
    /// What the certificates' files held when the endpoints were made.
    pem: Option<Pem>,
}

impl Client {
    /// Connects when it is first used.
    pub(crate) fn new(urls: &[String], tls: Option<&Tls>, keep_alive: Duration) -> Result<Self, StoreError> {
        let pem = tls.map(Pem::read).transpose()?;
        let endpoints = make(urls, &[], pem.as_ref(), keep_alive)?;
        Ok(Self { known: Arc::new(RwLock::new(Known { endpoints, pem })), tls: tls.cloned(), keep_alive })
    }

    pub(crate) fn endpoints(&self) -> Endpoints {
        self.known.read().unwrap_or_else(PoisonError::into_inner).endpoints.clone()
    }

    /// Uses these endpoints from now on, and the certificates that are in the files now. What is under way is not disturbed. True if
    /// anything is other than before.
    pub(crate) fn follow(&self, urls: &[String]) -> Result<bool, StoreError> {
        let pem = self.tls.as_ref().map(Pem::read).transpose()?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let same_pem = known.pem == pem;
        if same_pem && known.endpoints.iter().map(|e| &e.url).eq(urls) {
            return Ok(false);
        }
        let kept: &[Arc<Endpoint>] = if same_pem { &known.endpoints } else { &[] };
        let endpoints = make(urls, kept, pem.as_ref(), self.keep_alive)?;
        *known = Known { endpoints, pem };
        Ok(true)
    }

    /// A question that may be asked twice.
    pub(crate) async fn read<Req: Wire, Res: Wire>(
        &self,
        path: &'static str,
        request: Req,
        patience: Patience,
    ) -> Result<Res, Status> {
        let mut last = None;
        let all = async {
            let mut round = 0;
            loop {
                let ask = |endpoint: Arc<Endpoint>| {
                    let request = request.clone();
                    async move { endpoint.attempt(path, request, patience.attempt).await }
                };
                match self.round(patience, ask).await {
                    Ok((_, answer)) => return Ok(answer),
                    Err(status) if verdict(&status) == Verdict::Refused => return Err(status),
                    Err(status) => last = Some(status),
                }
                sleep(AGAIN.jittered(round)).await;
                round += 1;
            }
        };
        match timeout(patience.deadline, all).await {
            Ok(answer) => answer,
            Err(_) => Err(last.unwrap_or_else(|| Status::deadline_exceeded(format!("no answer within {:?}", patience.deadline)))),
        }
    }

    /// Asks one endpoint, and another each time the one before fails or is slow, until one answers or all have failed. Who has answered
    /// comes with the answer.
    async fn round<T, F>(&self, patience: Patience, ask: impl Fn(Arc<Endpoint>) -> F) -> Result<(Arc<Endpoint>, T), Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Status>> + Send + 'static,
    {
        let endpoints = self.endpoints();
        let mut tried = Vec::new();
        let mut running = FuturesUnordered::new();
        let mut pending: Vec<(usize, Instant)> = Vec::new();
        let mut leaderless: Vec<usize> = Vec::new();
        loop {
            if tried.len() < endpoints.len() {
                let i = endpoints.pick(&tried);
                tried.push(i);
                pending.push((i, Instant::now()));
                let asked = ask(endpoints[i].clone());
                running.push(async move { (i, asked.await) });
            }
            let others = tried.len() < endpoints.len();
            let (i, answer) = tokio::select! {
                Some(done) = running.next() => done,
                () = sleep(patience.hedge), if others => continue,
            };
            pending.retain(|(p, _)| *p != i);
            match answer {
                Ok(answer) => {
                    if !pending.is_empty() {
                        tokio::spawn(overtaken(endpoints.clone(), running, pending, patience.blame));
                    }
                    for cut_off in leaderless {
                        endpoints[cut_off].suspect("it has no leader, and another one has");
                    }
                    return Ok((endpoints[i].clone(), answer));
                }
                Err(status) if verdict(&status) == Verdict::Refused => return Err(status),
                Err(status) => {
                    match leader(&status) {
                        Some(Leader::Missing) => leaderless.push(i),
                        None if verdict(&status) != Verdict::Later => endpoints[i].suspect(status.message()),
                        Some(Leader::Changed) | None => {}
                    }
                    if !others && running.is_empty() {
                        return Err(status);
                    }
                }
            }
        }
    }

    /// A change, in doubt when it has no answer `within` this. Sent again only when it surely was not carried out.
    pub(crate) async fn write<Req: Wire, Res: Wire>(
        &self,
        path: &'static str,
        request: &Req,
        within: Duration,
    ) -> Result<Res, Failed> {
        let until = Instant::now() + DEADLINE;
        let mut endpoints = self.endpoints();
        let mut tried = Vec::new();
        let mut round = 0;
        loop {
            let i = endpoints.pick(&tried);
            tried.push(i);
            let status = match endpoints[i].attempt(path, request.clone(), within).await {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            match verdict(&status) {
                Verdict::Refused => return Err(Failed::Not(status)),
                Verdict::Doubt => {
                    let hasty = within < WRITE && status.code() == Code::DeadlineExceeded;
                    if !hasty && leader(&status).is_none() {
                        endpoints[i].suspect(status.message());
                    }
                    return Err(Failed::Doubt(status));
                }
                Verdict::Elsewhere if leader(&status).is_none() => endpoints[i].suspect(status.message()),
                Verdict::Elsewhere | Verdict::Later => {}
            }
            if tried.len() >= endpoints.len() {
                tried.clear();
                endpoints = self.endpoints();
                sleep(AGAIN.jittered(round)).await;
                round += 1;
            }
            if Instant::now() >= until {
                return Err(Failed::Not(status));
            }
        }
    }

    /// A change that does no harm when it is carried out twice.
    pub(crate) async fn insist<Req: Wire, Res: Wire>(&self, path: &'static str, request: &Req) -> Result<Res, Status> {
        let until = Instant::now() + DEADLINE;
        let mut round = 0;
        loop {
            match self.write(path, request, WRITE).await {
                Ok(answer) => return Ok(answer),
                Err(Failed::Doubt(_)) if Instant::now() < until => sleep(AGAIN.jittered(round)).await,
                Err(failed) => return Err(failed.status().clone()),
            }
            round += 1;
        }
    }

    /// Opens a stream on some endpoint and gives its first answer and what follows.
    pub(crate) async fn open<Req: Wire + Sync, Res: Wire>(
        &self,
        path: &'static str,
        request: Req,
    ) -> Result<(Arc<Endpoint>, Res, Streaming<Res>), Status> {
        let ask = |endpoint: Arc<Endpoint>| {
            let request = request.clone();
            async move {
                let begin = async {
                    let mut answers = wire::duplex::<Req, Res>(endpoint.channel(), path, request).await?;
                    let first = answers.message().await?.ok_or_else(|| Status::unavailable("the stream ended at once"))?;
                    Ok((first, answers))
                };
                timeout(SHORT.attempt, begin).await.unwrap_or_else(|_| Err(late(&endpoint.url, SHORT.attempt)))
            }
        };
        let (endpoint, (first, answers)) = self.round(SHORT, ask).await?;
        Ok((endpoint, first, answers))
    }
}

/// Goes on to listen to those that another one has overtaken, and takes who has no answer within `blame` out of use.
async fn overtaken<T>(
    endpoints: Endpoints,
    mut running: FuturesUnordered<impl Future<Output = (usize, Result<T, Status>)>>,
    mut pending: Vec<(usize, Instant)>,
    blame: Duration,
) {
    while let Some(&(slowest, since)) = pending.first() {
        match timeout_at(since + blame, running.next()).await {
            Ok(Some((answered, _))) => pending.retain(|(i, _)| *i != answered),
            Ok(None) => return,
            Err(_) => {
                endpoints[slowest].suspect("it was slower than another one");
                pending.remove(0);
            }
        }
    }
}

/// Of a call that was not carried out, or that only read.
impl From<Failed> for StoreError {
    fn from(failed: Failed) -> Self {
        store_error(failed.status())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_silent_is_not_waited_for() {
        let urls = ["http://127.0.0.1:1", "http://127.0.0.1:2"].map(str::to_owned);
        let client = Client::new(&urls, None, WRITE).unwrap();
        let ask = |endpoint: Arc<Endpoint>| async move {
            if endpoint.url.ends_with('1') {
                std::future::pending::<()>().await;
            }
            Ok(endpoint.url.clone())
        };
        let silent = tokio::spawn(client.endpoints()[0].clone().down());
        let (answered, url) = client.round(SHORT, ask).await.unwrap();
        assert_eq!((&answered.url, &url), (&urls[1], &urls[1]));
        silent.await.unwrap();
        assert!(answered.is_up() && client.endpoints().nearest().url == urls[1], "it is taken out of use");
    }
}
