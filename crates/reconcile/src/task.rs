//! What runs, what failed last, and what comes next: for `drover task list`.
use base::Timestamp;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    Idle,
    Running,
    /// Failed; runs again at `next_run`.
    Waiting,
}

/// One reconciler, or one key of it that is in trouble.
#[derive(Clone, Debug, Serialize)]
pub struct Task {
    /// `server-deadlines`, or `server-deadlines compute/servers/7f…` for a key.
    pub name: String,
    pub state: TaskState,
    pub runs: u64,
    pub failures: u64,
    pub last_run: Option<Timestamp>,
    pub next_run: Option<Timestamp>,
    pub last_error: Option<String>,
}

/// See the module. A cache: it starts empty with each process.
#[derive(Default)]
pub struct TaskList {
    tasks: Mutex<BTreeMap<String, Task>>,
    queues: Mutex<BTreeMap<&'static str, Arc<AtomicUsize>>>,
}

impl TaskList {
    /// Changes the entry of a task, making it when it is new.
    pub fn note(&self, name: &str, change: impl FnOnce(&mut Task)) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let task = tasks.entry(name.to_owned()).or_insert_with(|| Task {
            name: name.to_owned(),
            state: TaskState::Idle,
            runs: 0,
            failures: 0,
            last_run: None,
            next_run: None,
            last_error: None,
        });
        change(task);
    }
    /// Forgets a key that is well again, or gone.
    pub fn forget(&self, name: &str) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
    /// Where a reconciler says how many keys it has before it.
    pub(crate) fn queue(&self, name: &'static str) -> Arc<AtomicUsize> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default().clone()
    }
    /// Keys that each reconciler will look at, now or later.
    pub fn queues(&self) -> Vec<(&'static str, usize)> {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.iter().map(|(name, length)| (*name, length.load(Ordering::Relaxed))).collect()
    }
    /// All tasks by name.
    pub fn list(&self) -> Vec<Task> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
