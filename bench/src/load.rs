//! A small load generator: closed loops over kept connections, or one connection per request.
use crate::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, task::JoinSet};

#[derive(Clone)]
pub(crate) struct Request {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl Request {
    pub(crate) fn get(path: &str) -> Self {
        Self { method: "GET", path: path.to_owned(), headers: Vec::new(), body: Bytes::new() }
    }
    pub(crate) fn post(path: &str, body: &Value) -> Self {
        Self { method: "POST", path: path.to_owned(), headers: Vec::new(), body: body.to_string().into() }
    }
    pub(crate) fn put(path: &str, body: &Value) -> Self {
        Self { method: "PUT", ..Self::post(path, body) }
    }
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
    pub(crate) fn bytes(mut self, body: Bytes) -> Self {
        self.body = body;
        self
    }
}

/// Latencies of successful requests.
pub(crate) struct Stats {
    micros: Vec<u32>,
    span: Duration,
}
impl Stats {
    pub(crate) fn per_second(&self) -> f64 {
        self.micros.len() as f64 / self.span.as_secs_f64()
    }
    /// The quantile in milliseconds.
    pub(crate) fn ms(&self, quantile: f64) -> f64 {
        let mut all = self.micros.clone();
        all.sort_unstable();
        let at = ((all.len().saturating_sub(1)) as f64 * quantile) as usize;
        all.get(at).map_or(f64::NAN, |m| f64::from(*m) / 1000.0)
    }
}

async fn connect(addr: &str) -> Result<SendRequest<Full<Bytes>>> {
    let tcp = TcpStream::connect(addr).await?;
    tcp.set_nodelay(true)?;
    let (send, connection) = handshake(TokioIo::new(tcp)).await?;
    // It ends with the connection.
    tokio::spawn(async move { connection.await.ok() });
    Ok(send)
}

pub(crate) async fn one(addr: &str, request: &Request) -> Result<(u16, hyper::HeaderMap, Bytes)> {
    send(&mut connect(addr).await?, addr, request).await
}

async fn send(
    connection: &mut SendRequest<Full<Bytes>>,
    addr: &str,
    request: &Request,
) -> Result<(u16, hyper::HeaderMap, Bytes)> {
    connection.ready().await?;
    let mut r = hyper::Request::builder().method(request.method).uri(&request.path).header("host", addr);
    if !request.headers.iter().any(|(k, _)| *k == "content-type") {
        r = r.header("content-type", "application/json");
    }
    for (k, v) in &request.headers {
        r = r.header(*k, v);
    }
    let answer = connection.send_request(r.body(Full::new(request.body.clone()))?).await?;
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let body = answer.into_body().collect().await?.to_bytes();
    if status >= 400 {
        return Err(format!("{} {} answered {status}: {}", request.method, request.path, String::from_utf8_lossy(&body)).into());
    }
    Ok((status, headers, body))
}

async fn collect(mut tasks: JoinSet<Result<Vec<u32>>>, started: Instant) -> Result<Stats> {
    let mut micros = Vec::new();
    while let Some(done) = tasks.join_next().await {
        micros.extend(done??);
    }
    Ok(Stats { micros, span: started.elapsed() })
}

fn micros(since: Instant) -> u32 {
    u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX)
}

/// `clients` closed loops for a time, on kept connections or a new one for each request.
pub(crate) async fn rate(addr: &str, clients: usize, span: Duration, keep: bool, request: Request) -> Result<Stats> {
    let started = Instant::now();
    let mut tasks: JoinSet<Result<Vec<u32>>> = JoinSet::new();
    for _ in 0..clients {
        let (addr, request) = (addr.to_owned(), request.clone());
        tasks.spawn(async move {
            let mut out = Vec::new();
            let mut connection = connect(&addr).await?;
            while started.elapsed() < span {
                let t = Instant::now();
                if !keep {
                    connection = connect(&addr).await?;
                }
                send(&mut connection, &addr, &request).await?;
                out.push(micros(t));
            }
            Ok(out)
        });
    }
    collect(tasks, started).await
}

/// `clients` closed loops until `count` requests are done.
pub(crate) async fn run(addr: &str, clients: usize, count: usize, request: Request) -> Result<Stats> {
    each(addr, clients, Arc::new(vec![request; count])).await
}

/// Every request once, by `clients` closed loops.
pub(crate) async fn each(addr: &str, clients: usize, requests: Arc<Vec<Request>>) -> Result<Stats> {
    let started = Instant::now();
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks: JoinSet<Result<Vec<u32>>> = JoinSet::new();
    for _ in 0..clients {
        let (addr, requests, next) = (addr.to_owned(), requests.clone(), next.clone());
        tasks.spawn(async move {
            let mut out = Vec::new();
            let mut connection = connect(&addr).await?;
            while let Some(request) = requests.get(next.fetch_add(1, Ordering::SeqCst)) {
                let t = Instant::now();
                send(&mut connection, &addr, request).await?;
                out.push(micros(t));
            }
            Ok(out)
        });
    }
    collect(tasks, started).await
}
