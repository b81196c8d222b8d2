//! Queues: keys are run until they are well, whatever a run does.
use base::SystemClock;
use reconcile::{Next, Pending, Reconciler, Runner, Shards, TABLES, TaskList, TaskState, Work};
use resource::{Error, Result};
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use store::{Db, Memory, Table};

static ROWS: Table = Table { name: "test/rows", indexes: &[] };

/// Sets `done`; fails at first, then panics, then does it.
struct Doer {
    runs: AtomicU32,
}
impl Reconciler for Doer {
    fn name(&self) -> &'static str {
        "doer"
    }
    fn tables(&self) -> Vec<&'static Table> {
        vec![&ROWS]
    }
    fn reconcile<'a>(&'a self, key: &'a str, work: &'a Work) -> Pending<'a, Result<Next>> {
        Box::pin(async move {
            match self.runs.fetch_add(1, Ordering::SeqCst) {
                0 | 1 => return Err(Error::unavailable("The world is not there yet.")),
                2 => panic!("a test of a panic"),
                _ => {}
            }
            let id = key.rsplit('/').next().unwrap_or_default().to_owned();
            work.transact(move |tx| {
                if let Some(row) = tx.get(&ROWS, &id)
                    && row.field("done") != true
                {
                    tx.put(&ROWS, &id, json!({"done": true}));
                }
                Ok(())
            })
            .await?;
            Ok(Next::Done)
        })
    }
}

#[tokio::test]
async fn keys_converge_after_failures_and_panics_and_rest() {
    let tables: Vec<_> = TABLES.into_iter().chain([&ROWS]).collect();
    let db = Db::open(Memory::new(), Arc::new(SystemClock), &tables).await.unwrap();
    let put = |id: &'static str| {
        let db = db.clone();
        async move {
            db.transact(move |tx| {
                tx.put(&ROWS, id, json!({"done": false}));
                Ok::<_, ()>(())
            })
            .await
            .unwrap()
        }
    };
    put("before").await;
    let tasks = Arc::new(TaskList::default());
    let doer = Arc::new(Doer { runs: AtomicU32::new(0) });
    let shards = Shards::join(db.clone(), "one", None).await.unwrap();
    let mut runner = Runner::new(shards, tasks.clone());
    runner.spawn(doer.clone());
    put("after").await;
    let done = async {
        loop {
            let all = {
                let reader = db.read();
                reader.all(&ROWS).filter(|r| r.field("done") == true).count()
            };
            let well = tasks.list().iter().all(|t| t.state == TaskState::Idle);
            if all == 2 && well {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), done).await.expect("both rows are done and no task is in trouble");
    let task = &tasks.list()[0];
    assert_eq!((task.name.as_str(), task.failures), ("doer", 3));
    assert!(task.last_error.is_some());
}
