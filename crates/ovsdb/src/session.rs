//! The task that owns the connection: connects, re-follows, passes messages, keeps alive.
use crate::{
    Leader, Target,
    endpoint::{Reader, Writer},
    frame::Framer,
    leader,
    replica::Shared,
};
use base::retry::Backoff;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

/// Silence after which we ask whether the peer is there, and after which it counts as gone.
const ASK_AFTER: Duration = Duration::from_secs(5);
const GONE_AFTER: Duration = Duration::from_secs(15);
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
const RETRY: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(2));

type Reply<T> = oneshot::Sender<Result<T, String>>;

pub(crate) enum Command {
    Call { method: &'static str, params: Value, reply: Reply<Value> },
    Monitor { shared: Arc<Shared>, reply: Reply<()> },
}

/// What to do with an answer.
enum Pending {
    Call(Reply<Value>),
    /// The first state of monitor `id`; someone waits for it only the first time.
    Snapshot(u64, Option<Reply<()>>),
    /// What the server says of itself.
    Look,
    Echo,
}

pub(crate) struct Link {
    pub(crate) target: Target,
    pub(crate) inbox: mpsc::Receiver<Command>,
    pub(crate) state: watch::Sender<bool>,
}

/// The replicas, which outlive connections, by the monitor id that the server echoes.
#[derive(Default)]
struct Followed {
    last: u64,
    replicas: HashMap<u64, Weak<Shared>>,
}

impl Link {
    /// Runs until all clients are gone.
    pub(crate) async fn run(mut self) {
        let (mut followed, mut attempt, mut round) = (Followed::default(), 0usize, 0u32);
        while !(self.inbox.is_closed() && self.inbox.is_empty()) {
            let endpoints = self.target.endpoints.borrow().clone();
            let next = endpoints.get(attempt % endpoints.len().max(1));
            attempt = attempt.wrapping_add(1);
            if let Some(endpoint) = next {
                let opened = tokio::time::timeout(CONNECT_WITHIN, self.open(endpoint)).await;
                match opened.unwrap_or_else(|_| Err("no answer".into())) {
                    Ok(session) => {
                        let begun = Instant::now();
                        self.state.send_replace(true);
                        let ended = session.run(&mut self.inbox, &mut followed).await;
                        self.state.send_replace(false);
                        let Err(cause) = ended else { return };
                        tracing::warn!(endpoint = %endpoint, "connection to the database at {endpoint} ended, trying again: {cause}");
                        round = if begun.elapsed() > GONE_AFTER { 0 } else { round };
                    }
                    Err(cause) => tracing::debug!(endpoint = %endpoint, cause, "{endpoint} is not used"),
                }
            }
            // The others are asked at once: one of them may lead.
            if attempt % endpoints.len().max(1) == 0 {
                tokio::time::sleep(RETRY.jittered(round)).await;
                round = round.saturating_add(1);
            }
        }
    }

    /// Connects, and sees whether this is the server to speak to.
    async fn open(&self, endpoint: &crate::Endpoint) -> Result<Session, String> {
        let (r, w) = endpoint.connect(self.target.tls.as_ref()).await.map_err(|e| e.to_string())?;
        let mut session = Session::new(r, w);
        if let Some(leader) = &self.target.leader {
            session.look(leader.clone()).await?;
        }
        Ok(session)
    }
}

struct Session {
    reader: Reader,
    framer: Framer,
    buffer: Vec<u8>,
    /// What the server must be, and what it says of itself.
    leader: Option<(Leader, Shared)>,
    outbox: mpsc::Sender<Vec<u8>>,
    pending: HashMap<u64, Pending>,
    last_id: u64,
    heard: Instant,
    asked: bool,
}

impl Session {
    fn new(reader: Reader, mut writer: Writer) -> Self {
        let (outbox, mut queue) = mpsc::channel::<Vec<u8>>(256);
        // Writing in its own task: while the server waits for us to read, we must not wait for it to read.
        tokio::spawn(async move {
            while let Some(bytes) = queue.recv().await {
                if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                    return;
                }
            }
        });
        Self {
            reader,
            framer: Framer::default(),
            buffer: vec![0; 64 << 10],
            leader: None,
            outbox,
            pending: HashMap::new(),
            last_id: 0,
            heard: Instant::now(),
            asked: false,
        }
    }

    /// Fails when this is not the server to speak to. If it is none later, [`Self::run`] ends.
    async fn look(&mut self, wanted: Leader) -> Result<(), String> {
        let look = Leader::look();
        // Without it the server hangs up on changes that we see ourselves.
        self.request("set_db_change_aware", json!([true]), Pending::Echo).await?;
        self.request("monitor", json!([leader::SERVER, leader::LOOK, look.wanted]), Pending::Look).await?;
        self.leader = Some((wanted, look));
        let mut nobody = Followed::default();
        while self.pending.values().any(|p| matches!(p, Pending::Look)) {
            self.read(&mut nobody).await?;
        }
        self.judge()
    }
    fn judge(&self) -> Result<(), String> {
        self.leader.as_ref().map_or(Ok(()), |(wanted, look)| wanted.judge(&look.read()))
    }
    /// Takes what the server says next.
    async fn read(&mut self, followed: &mut Followed) -> Result<(), String> {
        let n = self.reader.read(&mut self.buffer).await.map_err(|e| e.to_string())?;
        self.took(n, followed).await
    }
    async fn took(&mut self, n: usize, followed: &mut Followed) -> Result<(), String> {
        if n == 0 {
            return Err("closed by the server".into());
        }
        (self.heard, self.asked) = (Instant::now(), false);
        self.framer.push(&self.buffer[..n])?;
        while let Some(message) = self.framer.next()? {
            self.receive(message, followed).await?;
        }
        Ok(())
    }

    /// Ok when no client is left, Err with the cause when the connection is.
    async fn run(mut self, inbox: &mut mpsc::Receiver<Command>, followed: &mut Followed) -> Result<(), String> {
        followed.replicas.retain(|_, replica| replica.strong_count() > 0);
        let again: Vec<_> = followed.replicas.iter().filter_map(|(id, r)| Some((*id, r.upgrade()?))).collect();
        for (id, shared) in again {
            self.follow(id, &shared, None).await?;
        }
        loop {
            let quiet = if self.asked { GONE_AFTER } else { ASK_AFTER };
            tokio::select! {
                read = self.reader.read(&mut self.buffer) => {
                    self.took(read.map_err(|e| e.to_string())?, followed).await?;
                }
                command = inbox.recv() => match command {
                    Some(command) => self.obey(command, followed).await?,
                    None => return Ok(()),
                },
                () = tokio::time::sleep_until(self.heard + quiet) => {
                    if self.asked {
                        return Err(format!("silent for {GONE_AFTER:?}"));
                    }
                    self.asked = true;
                    self.request("echo", json!([]), Pending::Echo).await?;
                }
            }
        }
    }

    async fn obey(&mut self, command: Command, followed: &mut Followed) -> Result<(), String> {
        match command {
            // The caller gave up while we were not connected: doing it now would be a surprise.
            Command::Call { reply, .. } if reply.is_closed() => Ok(()),
            Command::Call { method, params, reply } => self.request(method, params, Pending::Call(reply)).await,
            Command::Monitor { shared, reply } => {
                followed.last += 1;
                followed.replicas.insert(followed.last, Arc::downgrade(&shared));
                self.follow(followed.last, &shared, Some(reply)).await
            }
        }
    }

    async fn follow(&mut self, id: u64, shared: &Shared, reply: Option<Reply<()>>) -> Result<(), String> {
        self.request("monitor", json!([shared.database, id, shared.wanted]), Pending::Snapshot(id, reply)).await
    }

    async fn request(&mut self, method: &str, params: Value, pending: Pending) -> Result<(), String> {
        self.last_id += 1;
        self.pending.insert(self.last_id, pending);
        self.send(&json!({ "method": method, "params": params, "id": self.last_id })).await
    }
    async fn send(&mut self, message: &Value) -> Result<(), String> {
        let sent = self.outbox.send_timeout(message.to_string().into_bytes(), GONE_AFTER).await;
        sent.map_err(|_| "the server takes no more messages".into())
    }

    async fn receive(&mut self, mut message: Value, followed: &mut Followed) -> Result<(), String> {
        match message.get("method").and_then(Value::as_str) {
            Some("echo") => {
                let reply = json!({ "result": message["params"], "error": null, "id": message["id"] });
                return self.send(&reply).await;
            }
            Some("update") if message["params"][0] == leader::LOOK => {
                if let Some((_, look)) = &self.leader {
                    look.update(message["params"][1].take());
                }
                return self.judge();
            }
            Some("monitor_canceled") => return Err("the server has the database no more".into()),
            Some("update") => {
                let id = message["params"][0].as_u64().unwrap_or_default();
                let updates = message["params"][1].take();
                match followed.replicas.get(&id).map(Weak::upgrade) {
                    Some(Some(shared)) => shared.update(updates),
                    _ => self.forget(id, followed).await?,
                }
                return Ok(());
            }
            // "locked" and "stolen": we take no locks.
            Some(_) => return Ok(()),
            None => {}
        }
        let pending = message["id"].as_u64().and_then(|id| self.pending.remove(&id));
        let outcome = match message["error"].take() {
            Value::Null => Ok(message["result"].take()),
            error => Err(error.to_string()),
        };
        match pending {
            Some(Pending::Call(reply)) => drop(reply.send(outcome)),
            Some(Pending::Snapshot(id, reply)) => {
                let shared = followed.replicas.get(&id).and_then(Weak::upgrade);
                if let (Some(shared), Ok(_)) = (&shared, &outcome) {
                    shared.replace(outcome.as_ref().cloned().unwrap_or_default());
                }
                let told = outcome.map(|_| ());
                match reply {
                    Some(reply) => drop(reply.send(told)),
                    // A table that could be followed before cannot be now: take another server.
                    None => told?,
                }
            }
            Some(Pending::Look) => {
                if let Some((_, look)) = &self.leader {
                    look.replace(outcome?);
                }
            }
            Some(Pending::Echo) | None => {}
        }
        Ok(())
    }

    /// Nobody looks at this monitor any more.
    async fn forget(&mut self, id: u64, followed: &mut Followed) -> Result<(), String> {
        match followed.replicas.remove(&id) {
            Some(_) => self.request("monitor_cancel", json!([id]), Pending::Echo).await,
            None => Ok(()),
        }
    }
}
