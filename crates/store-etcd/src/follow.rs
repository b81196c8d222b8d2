//! Watches: every revision of the cloud exactly once and in order, whatever becomes of the connection.
//!
//! ```text
//!   watch ──▶ open ──▶ following ──────── connection lost, endpoint down, silent for long ───▶ open again behind the last revision
//!              │           │                                                                     │
//!              └───────────┴── history compacted, watcher too slow or gone, store closed ◀───────┘
//!                                             ends
//! ```
//!
//! It follows all keys of the cloud, also for a watcher of a few: each transaction writes a slot, so each revision is seen. Where
//! others write into the same etcd there are revisions that are not ours. A caller may be told such a one by [`Inner::revision`];
//! when it does not come, the watch asks for a proof that nothing of ours happened up to it, and then passes it on as empty.
use crate::{
    endpoint::Endpoint,
    inner::Inner,
    txn::{revision_of, signed, unsigned},
    wire,
};
use base::retry::Backoff;
use std::{sync::Arc, sync::atomic::Ordering, time::Duration};
use store::{Batch, Event, Revision, Watch, WatchEnd};
use tokio::{
    sync::mpsc,
    time::{Instant, interval_at, sleep},
};
use tonic::Streaming;

/// Batches that a watcher may lag behind before it is cut off.
const QUEUE: usize = 4096;
const REOPEN: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
/// When to look for a revision that a caller knows of and that has not come.
const OVERDUE: Duration = Duration::from_millis(20);
/// The same once it is known that others write here too.
const OVERDUE_SHARED: Duration = Duration::from_millis(1);
/// A connection that is silent for so long, while there is something to tell, is given up.
const SILENT: Duration = Duration::from_millis(250);
/// How often to look whether the member that is asked first, a controller's own, serves again: on another one a watch shares its faults.
const RETURN: Duration = Duration::from_secs(1);

struct Stream {
    endpoint: Arc<Endpoint>,
    answers: Streaming<wire::WatchResponse>,
}

/// Why a stream is left.
enum Left {
    /// To open another one.
    Broken(String),
    /// The watch is over.
    Over,
}

struct Follower {
    inner: Arc<Inner>,
    prefix: Box<str>,
    seen: Revision,
    out: mpsc::Sender<Batch>,
}

pub(crate) async fn watch(inner: Arc<Inner>, prefix: &str, after: Revision) -> Result<Watch, WatchEnd> {
    // etcd's first revision is 1 and changes nothing.
    let seen = after.max(1);
    let stream = open(&inner, seen).await?;
    let (out, batches) = mpsc::channel(QUEUE);
    tokio::spawn(Follower { inner, prefix: prefix.into(), seen, out }.run(stream));
    Ok(Watch::new(batches))
}

async fn open(inner: &Inner, seen: Revision) -> Result<Stream, WatchEnd> {
    inner.remembers(seen).await?;
    let (key, end) = inner.keys.all();
    // From the last one that was seen, and not behind it: should that be compacted in this moment, etcd ends the watch. It does
    // keep a revision that it compacts up to, but not the deletions in it.
    let create = wire::WatchCreate { key, end, start: signed(seen), progress_notify: true };
    match inner.client.open::<_, wire::WatchResponse>(wire::WATCH, wire::WatchRequest { create: Some(create) }).await {
        Ok((endpoint, _created, answers)) => Ok(Stream { endpoint, answers }),
        Err(status) => {
            tracing::warn!(error = %status, "A watch could not be opened on any endpoint of etcd: {}", status.message());
            Err(WatchEnd::Closed)
        }
    }
}

impl Follower {
    async fn run(mut self, mut stream: Stream) {
        loop {
            match self.drain(&mut stream).await {
                Left::Over => return,
                Left::Broken(why) => {
                    tracing::info!(endpoint = %stream.endpoint.url, "A watch moves on from {}: {why}", stream.endpoint.url);
                }
            }
            match self.reopen().await {
                Some(next) => stream = next,
                None => return,
            }
        }
    }

    async fn reopen(&self) -> Option<Stream> {
        for attempt in 0.. {
            tokio::select! {
                () = self.nobody() => return None,
                () = sleep(REOPEN.jittered(attempt)) => {}
            }
            match open(&self.inner, self.seen).await {
                Ok(stream) => return Some(stream),
                Err(WatchEnd::Compacted) => return None,
                Err(WatchEnd::Closed | WatchEnd::Lagged) => {}
            }
        }
        None
    }

    /// Returns when the watcher has left or the store is closed.
    async fn nobody(&self) {
        let mut closed = self.inner.closed.subscribe();
        tokio::select! {
            () = self.out.closed() => {}
            _ = closed.wait_for(|closed| *closed) => {}
        }
    }

    async fn drain(&mut self, stream: &mut Stream) -> Left {
        let mut told = self.inner.told.subscribe();
        let mut heard = Instant::now();
        let mut overdue = 0;
        // Not at once: who has no leader now refuses a watch and is in use all the same.
        let mut looks = interval_at(heard + RETURN, RETURN);
        let down = stream.endpoint.clone().down();
        tokio::pin!(down);
        loop {
            let behind = *told.borrow_and_update() > self.seen;
            if !behind {
                heard = Instant::now();
                overdue = 0;
            }
            let patience = if self.inner.shared.load(Ordering::Relaxed) { OVERDUE_SHARED } else { OVERDUE };
            tokio::select! {
                biased;
                () = self.nobody() => return Left::Over,
                answer = stream.answers.message() => {
                    match answer {
                        Ok(Some(answer)) => {
                            if let Err(left) = self.take(answer) {
                                return left;
                            }
                        }
                        Ok(None) => return Left::Broken("the stream ended".into()),
                        Err(status) => return Left::Broken(status.message().into()),
                    }
                    heard = Instant::now();
                    overdue = 0;
                }
                () = &mut down => return Left::Broken("the endpoint is out of use".into()),
                _ = looks.tick() => {
                    let endpoints = self.inner.client.endpoints();
                    let nearest = endpoints.nearest();
                    if nearest.is_up() && !Arc::ptr_eq(nearest, &stream.endpoint) {
                        return Left::Broken(format!("{} serves again", nearest.url));
                    }
                }
                _ = told.changed(), if !behind => {}
                () = sleep(patience * (1 << overdue)), if behind => {
                    overdue = (overdue + 1).min(3);
                    if let Err(left) = self.prove().await {
                        return left;
                    }
                    if *told.borrow() > self.seen && heard.elapsed() > SILENT {
                        stream.endpoint.suspect("it is silent about changes that others tell");
                        return Left::Broken("it was silent about changes".into());
                    }
                }
            }
        }
    }

    /// Passes on that nothing happened, if that can be proved.
    async fn prove(&mut self) -> Result<(), Left> {
        match self.inner.quiet_since(self.seen).await {
            Ok(Some(revision)) if revision > self.seen => {
                self.inner.shared.store(true, Ordering::Relaxed);
                self.pass(revision, Vec::new())
            }
            // Something did happen, and is on its way.
            Ok(_) => Ok(()),
            Err(e) => {
                tracing::debug!(error = %e, "A watch could not learn whether it is complete");
                Ok(())
            }
        }
    }

    fn take(&mut self, answer: wire::WatchResponse) -> Result<(), Left> {
        if answer.canceled {
            let gone = answer.compacted > 0;
            return Err(if gone { Left::Over } else { Left::Broken(answer.reason) });
        }
        if answer.events.is_empty() && !answer.created {
            // A progress report: all before it was told.
            let revision = revision_of(answer.header.as_ref());
            return if revision > self.seen { self.pass(revision, Vec::new()) } else { Ok(()) };
        }
        let mut events = answer.events.into_iter().filter_map(|e| e.kv.map(|kv| (e.kind, kv))).peekable();
        while let Some((_, first)) = events.peek() {
            let modified = first.modified;
            let mut group = Vec::new();
            while let Some((kind, kv)) = events.next_if(|(_, kv)| kv.modified == modified) {
                group.extend(self.event(kind, kv)?);
            }
            let revision = unsigned(modified);
            if revision > self.seen {
                self.pass(revision, group)?;
            }
        }
        Ok(())
    }

    /// What the watcher learns of one change; nothing if it is outside of what it watches.
    fn event(&self, kind: i32, kv: wire::KeyValue) -> Result<Option<Event>, Left> {
        let damaged = |e| {
            tracing::error!(error = %e, "A watch ends at a key that is no text");
            Left::Over
        };
        let Some(entry) = self.inner.entry(kv).transpose().map_err(damaged)? else { return Ok(None) };
        if !entry.key.starts_with(&*self.prefix) {
            return Ok(None);
        }
        Ok(Some(if kind == wire::DELETE { Event::Delete(entry.key) } else { Event::Put(entry) }))
    }

    fn pass(&mut self, revision: Revision, events: Vec<Event>) -> Result<(), Left> {
        // A watcher that is too slow is cut off: it must not hold up etcd, nor grow without bound.
        self.out.try_send(Batch { revision, events: events.into() }).map_err(|_| Left::Over)?;
        self.seen = revision;
        Ok(())
    }
}
