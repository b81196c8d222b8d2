//! The members of an etcd cluster as a client knows them: which is in use, and when one comes back.
use crate::{
    pem::Pem,
    verdict::{Verdict, verdict},
    wire::{self, Wire},
};
use base::retry::Backoff;
use std::{
    sync::{Arc, PoisonError, RwLock, Weak},
    time::Duration,
};
use store::StoreError;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tonic::{
    Status,
    transport::{self, Channel, ClientTlsConfig},
};

const CONNECT: Duration = Duration::from_secs(1);
const PROBE: Duration = Duration::from_millis(500);
const BETWEEN_PROBES: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));

#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) url: String,
    connect: transport::Endpoint,
    channel: RwLock<Channel>,
    up: watch::Sender<bool>,
}

impl Endpoint {
    pub(crate) fn is_up(&self) -> bool {
        *self.up.borrow()
    }
    pub(crate) fn channel(&self) -> Channel {
        self.channel.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Returns when the endpoint goes down. One that was down when it was asked all the same has to come up before.
    pub(crate) async fn down(self: Arc<Self>) {
        let mut up = self.up.subscribe();
        // The sender lives as long as we do.
        up.wait_for(|up| *up).await.ok();
        up.wait_for(|up| !up).await.ok();
    }

    /// Takes it out of use until a probe is answered.
    pub(crate) fn suspect(self: &Arc<Self>, why: &str) {
        if self.up.send_if_modified(|up| std::mem::replace(up, false)) {
            tracing::warn!(endpoint = %self.url, "etcd's endpoint {} is taken out of use: {why}", self.url);
            tokio::spawn(probe(Arc::downgrade(self)));
        }
    }

    pub(crate) async fn attempt<Req: Wire, Res: Wire>(
        &self,
        path: &'static str,
        request: Req,
        within: Duration,
    ) -> Result<Res, Status> {
        self.attempt_over(self.channel(), path, request, within).await
    }

    async fn attempt_over<Req: Wire, Res: Wire>(
        &self,
        channel: Channel,
        path: &'static str,
        request: Req,
        within: Duration,
    ) -> Result<Res, Status> {
        match timeout(within, wire::unary(channel, path, request)).await {
            Ok(answer) => answer,
            Err(_) => Err(late(&self.url, within)),
        }
    }
}

pub(crate) fn late(url: &str, within: Duration) -> Status {
    Status::deadline_exceeded(format!("{url} did not answer within {within:?}"))
}

async fn probe(endpoint: Weak<Endpoint>) {
    for attempt in 0.. {
        sleep(BETWEEN_PROBES.jittered(attempt)).await;
        let Some(endpoint) = endpoint.upgrade() else { return };
        let channel = endpoint.connect.connect_lazy();
        // A linearizable read of nothing: a member that hears of its leader may still not reach it.
        let nothing = wire::RangeRequest { key: vec![0], count_only: true, ..Default::default() };
        let answer: Result<wire::RangeResponse, _> = endpoint.attempt_over(channel.clone(), wire::RANGE, nothing, PROBE).await;
        if answer.map_or_else(|status| verdict(&status) == Verdict::Refused, |_| true) {
            *endpoint.channel.write().unwrap_or_else(PoisonError::into_inner) = channel;
            endpoint.up.send_replace(true);
            tracing::info!(endpoint = %endpoint.url, "etcd's endpoint {} is in use again", endpoint.url);
            return;
        }
    }
}

/// The endpoints that one attempt chooses from.
#[derive(Clone, Debug)]
pub(crate) struct Endpoints(Arc<[Arc<Endpoint>]>);

impl std::ops::Deref for Endpoints {
    type Target = [Arc<Endpoint>];
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Endpoints {
    /// The first that is up and was not tried; if none is, the first that was not tried.
    pub(crate) fn pick(&self, tried: &[usize]) -> usize {
        let untried = || (0..self.len()).filter(|i| !tried.contains(i));
        untried().find(|i| self[*i].is_up()).or_else(|| untried().next()).unwrap_or(0)
    }

    /// Where a call goes that is made now.
    pub(crate) fn nearest(&self) -> &Arc<Endpoint> {
        &self[self.pick(&[])]
    }
}

/// An endpoint for each URL: one of those that are there, or a new one.
pub(crate) fn make(
    urls: &[String],
    kept: &[Arc<Endpoint>],
    pem: Option<&Pem>,
    keep_alive: Duration,
) -> Result<Endpoints, StoreError> {
    let tls = pem.map(Pem::config);
    let one = |url: &String| match kept.iter().find(|e| e.url == *url) {
        Some(kept) => Ok(kept.clone()),
        None => endpoint(url, tls.as_ref(), keep_alive),
    };
    let endpoints = urls.iter().map(one).collect::<Result<Arc<[_]>, _>>()?;
    if endpoints.is_empty() {
        return Err(StoreError::Unavailable("no endpoint of etcd is named; give at least one URL".into()));
    }
    Ok(Endpoints(endpoints))
}

fn endpoint(url: &str, tls: Option<&ClientTlsConfig>, keep_alive: Duration) -> Result<Arc<Endpoint>, StoreError> {
    let bad = |why: &dyn std::fmt::Display| StoreError::Unavailable(format!("{url:?} is no endpoint of etcd: {why}"));
    let built = Channel::from_shared(url.to_owned()).map_err(|e| bad(&e))?;
    let secure = match built.uri().scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(bad(&"write it as http://HOST:PORT or https://HOST:PORT")),
    };
    let mut built = built
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(keep_alive)
        .keep_alive_timeout(keep_alive / 2)
        // etcd cuts off clients that ping a connection on which nothing is open.
        .keep_alive_while_idle(false)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20);
    if secure {
        let tls = tls.cloned().ok_or_else(|| bad(&"https needs the certificate of the CA; name it"))?;
        built = built.tls_config(tls).map_err(|e| bad(&base::chain(&e)))?;
    }
    let channel = RwLock::new(built.connect_lazy());
    Ok(Arc::new(Endpoint { url: url.into(), connect: built, channel, up: watch::channel(true).0 }))
}
