//! Reports on their way up: only the newest of each thing, each told once, and again until it was taken.
use assign::{Report, Uplink};
use base::retry::Backoff;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

const BATCH: usize = 256;
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    Host,
    Server(String),
    Snapshot(String),
    Password(String),
    Volume(String),
}

fn key(report: &Report) -> Key {
    match report {
        Report::Host(_) => Key::Host,
        Report::Server(s) => Key::Server(s.id.clone()),
        Report::Snapshot(s) => Key::Snapshot(s.image_id.clone()),
        Report::Password(p) => Key::Password(p.server_id.clone()),
        Report::Volume(v) => Key::Volume(v.id.clone()),
    }
}

#[derive(Default)]
struct Board {
    pending: BTreeMap<Key, Report>,
    /// What controllers know already.
    told: HashMap<Key, Report>,
}

/// Where tasks leave their newest report.
#[derive(Default)]
pub(crate) struct Blackboard {
    board: Mutex<Board>,
    wake: Notify,
}

impl Blackboard {
    fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Leaves a report; an older one about the same thing that was not sent yet is dropped.
    pub(crate) fn put(&self, report: Report) {
        let key = key(&report);
        let mut board = self.lock();
        if !board.pending.contains_key(&key) && board.told.get(&key) == Some(&report) {
            return;
        }
        board.pending.insert(key, report);
        drop(board);
        self.wake.notify_one();
    }
    /// A snapshot that is not wanted any more may be asked for again.
    pub(crate) fn forget_snapshot(&self, image_id: &str) {
        self.lock().told.remove(&Key::Snapshot(image_id.to_owned()));
    }
    fn take(&self) -> Vec<Report> {
        let mut board = self.lock();
        let keys: Vec<Key> = board.pending.keys().take(BATCH).cloned().collect();
        keys.iter().filter_map(|k| board.pending.remove(k)).collect()
    }
    /// Newer ones that came meanwhile stay.
    fn put_back(&self, batch: Vec<Report>) {
        let mut board = self.lock();
        for report in batch {
            board.pending.entry(key(&report)).or_insert(report);
        }
    }
    fn note_told(&self, batch: Vec<Report>) {
        let mut board = self.lock();
        for report in batch {
            // A thing that is gone may come back and must then be told from the start; so must a password that was cleared.
            let is_over = match &report {
                Report::Server(s) => s.state == assign::GuestState::Gone,
                Report::Volume(v) => v.state == assign::VolumeState::Gone,
                Report::Password(_) => true,
                Report::Host(_) | Report::Snapshot(_) => false,
            };
            if is_over {
                board.told.remove(&key(&report));
            } else {
                board.told.insert(key(&report), report);
            }
        }
    }
    /// Sends for ever.
    pub(crate) async fn send(&self, uplink: &dyn Uplink) {
        let mut failures = 0;
        loop {
            let batch = self.take();
            if batch.is_empty() {
                self.wake.notified().await;
                continue;
            }
            match uplink.report(batch.clone()).await {
                Ok(()) => {
                    failures = 0;
                    self.note_told(batch);
                }
                Err(error) => {
                    tracing::warn!(%error, reports = batch.len(), "reports wait for the controllers");
                    self.put_back(batch);
                    tokio::time::sleep(BACKOFF.jittered(failures)).await;
                    failures = failures.saturating_add(1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use assign::{BlobInfo, Pending, ReportError, SnapshotReport};
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    /// Refuses the first call, keeps what came after.
    #[derive(Default)]
    struct Reluctant {
        calls: AtomicU32,
        taken: Mutex<Vec<Report>>,
        more: Notify,
    }
    impl Uplink for Reluctant {
        fn assignments(&self) -> tokio::sync::watch::Receiver<Arc<assign::Assignments>> {
            tokio::sync::watch::channel(Arc::default()).1
        }
        fn report(&self, reports: Vec<Report>) -> Pending<'_, Result<(), ReportError>> {
            Box::pin(async move {
                if self.calls.fetch_add(1, Ordering::SeqCst) == 0 {
                    return Err(ReportError("not now".into()));
                }
                self.taken.lock().unwrap().extend(reports);
                self.more.notify_one();
                Ok(())
            })
        }
    }
    fn snapshot(id: &str, result: Result<BlobInfo, String>) -> Report {
        Report::Snapshot(SnapshotReport { image_id: id.into(), result })
    }

    #[tokio::test]
    async fn the_newest_is_told_once_even_after_a_refusal() {
        let (board, uplink) = (Arc::new(Blackboard::default()), Arc::new(Reluctant::default()));
        board.put(snapshot("a", Err("old".into())));
        board.put(snapshot("a", Err("new".into())));
        let sender = tokio::spawn({
            let (board, uplink) = (board.clone(), uplink.clone());
            async move { board.send(&*uplink).await }
        });
        tokio::time::timeout(Duration::from_secs(5), uplink.more.notified()).await.unwrap();
        board.put(snapshot("a", Err("new".into())));
        board.put(snapshot("b", Err("b".into())));
        tokio::time::timeout(Duration::from_secs(5), uplink.more.notified()).await.unwrap();
        sender.abort();
        let taken = uplink.taken.lock().unwrap().clone();
        assert_eq!(taken, [snapshot("a", Err("new".into())), snapshot("b", Err("b".into()))]);
    }
}
