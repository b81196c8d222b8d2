//! One node's line on its controller.
use crate::{
    level::Change,
    server::{Call, Messages, Shared},
    tunnel,
    wire::{self, Chunk, Down, Json, NoAnswer, Up},
};
use assign::{Agent, Answer, Assignments, Duplex, Pending, Query, QueryError, Report, Uplink};
use futures_util::StreamExt;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{Instant, interval, sleep, timeout},
};
use tonic::{Status, Streaming};

/// A node says who it is at once.
const HELLO: Duration = Duration::from_secs(5);
/// A node whose line broke is not down yet: it comes back, here or elsewhere.
const RETURN: Duration = Duration::from_secs(3);
/// Messages to a node that it has not taken; one that is so far behind is given up.
const BEHIND: usize = 64;
const STUCK: Duration = Duration::from_secs(20);
/// Batches of reports of one node that are being written.
const AT_ONCE: usize = 2;
const LOOK: Duration = Duration::from_secs(5);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The nodes that are attached, each by its newest line.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<HashMap<String, Arc<Remote>>>);

impl Sessions {
    /// What the node was told.
    pub(crate) fn assignments(&self, host: &str) -> Option<Arc<Assignments>> {
        lock(&self.0).get(host).and_then(|r| lock(&r.told).clone())
    }
    fn get(&self, host: &str) -> Option<Arc<Remote>> {
        lock(&self.0).get(host).cloned()
    }
    /// The line before it ends.
    fn enter(&self, remote: &Arc<Remote>) {
        if let Some(old) = lock(&self.0).insert(remote.host.clone(), remote.clone()) {
            old.replaced.send_replace(true);
        }
    }
    /// True when no newer line came.
    fn leave(&self, remote: &Arc<Remote>) -> bool {
        let mut all = lock(&self.0);
        let is_newest = all.get(&remote.host).is_some_and(|r| Arc::ptr_eq(r, remote));
        if is_newest {
            all.remove(&remote.host);
        }
        is_newest
    }
    fn has(&self, host: &str) -> bool {
        lock(&self.0).contains_key(host)
    }
}

type Tunnels = HashMap<u64, oneshot::Sender<Box<dyn Duplex>>>;

/// The agent at the other end.
struct Remote {
    host: String,
    send: mpsc::Sender<Down>,
    next: AtomicU64,
    answers: Mutex<HashMap<u64, oneshot::Sender<Result<Answer, NoAnswer>>>>,
    displays: Mutex<Tunnels>,
    told: Mutex<Option<Arc<Assignments>>>,
    replaced: watch::Sender<bool>,
}

impl Remote {
    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
    fn unreachable(&self) -> QueryError {
        QueryError::Unreachable(self.host.clone())
    }
    async fn say(&self, message: Down) -> Result<(), ()> {
        timeout(STUCK, self.send.send(message)).await.map_err(drop)?.map_err(drop)
    }
}

/// Forgets a question when nobody waits for its answer any more.
struct Waiting<'a, T>(&'a Mutex<HashMap<u64, T>>, u64);
impl<T> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        lock(self.0).remove(&self.1);
    }
}

impl Agent for Remote {
    fn query(&self, query: Query) -> Pending<'_, Result<Answer, QueryError>> {
        Box::pin(async move {
            let (number, (send, receive)) = (self.number(), oneshot::channel());
            lock(&self.answers).insert(number, send);
            let _waiting = Waiting(&self.answers, number);
            self.say(Down::Question { number, query }).await.map_err(|()| self.unreachable())?;
            receive.await.map_err(|_| self.unreachable())?.map_err(QueryError::from)
        })
    }
    fn vnc(&self, server_id: &str) -> Pending<'_, Result<Box<dyn Duplex>, QueryError>> {
        let server_id = server_id.to_owned();
        Box::pin(async move {
            let (number, (send, receive)) = (self.number(), oneshot::channel());
            lock(&self.displays).insert(number, send);
            let _waiting = Waiting(&self.displays, number);
            // The answer to the question says why no display comes.
            let (refused, answer) = oneshot::channel();
            lock(&self.answers).insert(number, refused);
            let _answer = Waiting(&self.answers, number);
            self.say(Down::Display { number, server_id }).await.map_err(|()| self.unreachable())?;
            tokio::select! {
                opened = receive => opened.map_err(|_| self.unreachable()),
                Ok(Err(e)) = answer => Err(e.into()),
            }
        })
    }
}

/// A node attaches.
pub(crate) async fn attach(mut call: Call<Json<Up>>) -> Result<Messages<Json<Down>>, Status> {
    let host = call.node()?;
    let hello = timeout(HELLO, call.messages.message()).await.map_err(|_| Status::deadline_exceeded("no hello"))??;
    let Some(Json(Up::Hello { version, host: report })) = hello else {
        return Err(Status::invalid_argument("the first message is a hello"));
    };
    let (send, outgoing) = mpsc::channel(BEHIND);
    let remote = Arc::new(Remote {
        host: host.clone(),
        send,
        next: AtomicU64::new(1),
        answers: Mutex::default(),
        displays: Mutex::default(),
        told: Mutex::default(),
        replaced: watch::Sender::new(false),
    });
    let shared = call.shared;
    let refused = |e: &dyn std::fmt::Display| Status::unavailable(e.to_string());
    shared.sessions.enter(&remote);
    let line = match shared.controller.attach(&host, remote.clone()).await {
        Ok(line) => line,
        Err(e) => {
            shared.sessions.leave(&remote);
            return Err(refused(&e));
        }
    };
    tracing::info!(node = host, version, "Node {host} is attached");
    tokio::spawn(async move {
        if let Some(report) = report
            && let Err(e) = line.report(vec![Report::Host(report)]).await
        {
            tracing::debug!(node = remote.host, error = %e, "The node's last word of itself was not taken; it will repeat it");
        }
        let mut replaced = remote.replaced.subscribe();
        let why = tokio::select! {
            why = down(&shared, &remote, &*line) => why,
            why = up(&remote, line.clone(), call.messages) => why,
            _ = replaced.wait_for(|r| *r) => "it has a newer line".into(),
        };
        drop(line);
        end(&shared, &remote, &why).await;
    });
    Ok(Box::pin(tunnel::receiver(outgoing).map(|d| Ok(Json(d)))))
}

async fn end(shared: &Shared, remote: &Arc<Remote>, why: &str) {
    let host = &remote.host;
    if !shared.sessions.leave(remote) {
        return;
    }
    tracing::info!(node = host, why, "Node {host} is detached: {why}");
    lock(&remote.answers).clear();
    lock(&remote.displays).clear();
    sleep(RETURN).await;
    if !shared.sessions.has(host) {
        shared.controller.detach(host).await;
    }
}

/// Tells the node what is assigned, and where else it can go.
async fn down(shared: &Shared, remote: &Remote, line: &dyn Uplink) -> String {
    let mut assignments = line.assignments();
    let mut now = assignments.borrow_and_update().clone();
    let mut controllers = Vec::new();
    let mut look = interval(LOOK);
    let mut change = Change::all(&now);
    loop {
        *lock(&remote.told) = Some(now.clone());
        if !change.is_empty() && remote.say(Down::Level(change)).await.is_err() {
            return "it takes no messages".into();
        }
        change = loop {
            tokio::select! {
                changed = assignments.changed() => {
                    if changed.is_err() {
                        return "the controller ends".into();
                    }
                    let new = assignments.borrow_and_update().clone();
                    let change = Change::between(&now, &new);
                    now = new;
                    break change;
                }
                _ = look.tick() => {
                    let known = shared.controller.controllers();
                    if known != controllers && remote.say(Down::Controllers(known.clone())).await.is_err() {
                        return "it takes no messages".into();
                    }
                    controllers = known;
                }
            }
        };
    }
}

/// Takes what the node says.
async fn up(remote: &Arc<Remote>, line: Arc<dyn Uplink>, mut messages: Streaming<Json<Up>>) -> String {
    let batches = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let message = match messages.message().await {
            Ok(Some(Json(message))) => message,
            Ok(None) => return "it has closed the line".into(),
            Err(e) => return e.message().to_owned(),
        };
        match message {
            Up::Hello { .. } => return "it says hello twice".into(),
            Up::Answer { number, answer } => {
                if let Some(waiting) = lock(&remote.answers).remove(&number) {
                    waiting.send(answer).ok();
                }
            }
            Up::Reports { number, reports } => {
                let Ok(permit) = batches.clone().acquire_owned().await else { return "the controller ends".into() };
                let (line, remote) = (line.clone(), remote.clone());
                tokio::spawn(async move {
                    let started = Instant::now();
                    let refused = line.report(reports).await.err().map(|e| e.0);
                    tracing::debug!(node = remote.host, took = ?started.elapsed(), refused, "Reports");
                    remote.say(Down::Taken { number, refused }).await.ok();
                    drop(permit);
                });
            }
        }
    }
}

/// A node opens the display that it was asked for.
pub(crate) async fn display(call: Call<Chunk>) -> Result<Messages<Chunk>, Status> {
    let host = call.node()?;
    let number: u64 = call.text(wire::NUMBER)?.parse().map_err(|_| Status::invalid_argument("no number"))?;
    let waiting = call.shared.sessions.get(&host).and_then(|r| lock(&r.displays).remove(&number));
    let waiting = waiting.ok_or_else(|| Status::not_found("nobody waits for this display"))?;
    let (tunnel, outgoing) = tunnel::open();
    waiting.send(Box::new(tunnel.join(call.messages))).map_err(|_| Status::not_found("nobody waits for this display"))?;
    Ok(Box::pin(outgoing.map(Ok)))
}
