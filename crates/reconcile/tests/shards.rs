//! Several processes on one store: each key belongs to one of them, whoever joins, leaves, dies or sleeps.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
use base::SystemClock;
use reconcile::{COUNT, Fence, Next, Pending, Reconciler, Runner, SHARDS, Shards, TABLES, TaskList, Work};
use resource::Result;
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use store::{
    Db, Memory, Table,
    faulty::{Faulty, Way},
};
use tokio::time::Instant;

static ROWS: Table = Table { name: "test/rows", indexes: &[] };
const PATIENCE: Duration = Duration::from_secs(30);

struct Process {
    db: Db,
    link: Arc<Faulty>,
    shards: Arc<Shards>,
}

async fn open(store: &Arc<Memory>) -> (Db, Arc<Faulty>) {
    let link = Arc::new(Faulty::new(store.clone(), 1, 0.0));
    let tables: Vec<_> = TABLES.into_iter().chain([&ROWS]).collect();
    (Db::open(link.clone(), Arc::new(SystemClock), &tables).await.unwrap(), link)
}

async fn process(store: &Arc<Memory>, name: &str) -> Process {
    let (db, link) = open(store).await;
    let shards = Shards::join(db.clone(), name, None).await.unwrap();
    Process { db, link, shards }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn mine(p: &Process) -> BTreeSet<u32> {
    p.shards.held().into_keys().collect()
}

/// All shards are held, each by one.
fn shared(all: &[&Process]) -> bool {
    let held: Vec<u32> = all.iter().flat_map(|p| mine(p)).collect();
    held.len() == COUNT as usize && held.iter().collect::<BTreeSet<_>>().len() == held.len()
}

async fn write(db: &Db, fence: &Fence) -> bool {
    let fence = fence.clone();
    let write = move |tx: &mut store::Tx<'_>| {
        fence.check(tx)?;
        tx.put(&ROWS, "written", json!({}));
        Ok::<_, resource::Error>(())
    };
    db.transact(write).await.is_ok()
}

#[tokio::test]
async fn one_holds_all_at_once_and_three_share() {
    let store = Memory::new();
    let a = process(&store, "a").await;
    assert_eq!(mine(&a).len(), COUNT as usize, "alone, everything is there when join returns");
    let (b, c) = (process(&store, "b").await, process(&store, "c").await);
    until("three share", || shared(&[&a, &b, &c]) && [&a, &b, &c].iter().all(|p| mine(p).len() > 8)).await;
}

#[tokio::test]
async fn who_leaves_hands_over_at_once_and_lets_work_end() {
    let store = Memory::new();
    let (a, b) = (process(&store, "a").await, process(&store, "b").await);
    until("two share", || shared(&[&a, &b])).await;
    let key = (0..).map(|i| format!("test/rows/{i}")).find(|k| a.shards.enter(k).is_some()).unwrap();
    let hold = a.shards.enter(&key).unwrap();
    let leaving = tokio::spawn({
        let shards = a.shards.clone();
        async move { shards.leave().await }
    });
    hold.lost().await;
    assert!(a.shards.enter(&key).is_none(), "nothing new is begun");
    assert!(write(&a.db, hold.fence()).await, "what was begun can be ended");
    assert!(b.shards.enter(&key).is_none());
    drop(hold);
    leaving.await.unwrap().unwrap();
    b.db.fresh().await.unwrap();
    let heir = b.shards.member().unwrap();
    assert!(b.db.read().all(&SHARDS).all(|r| r.text("holder") == &*heir), "nobody has to wait for the end of a lease");
    until("the other holds all", || mine(&b).len() == COUNT as usize).await;
}

#[tokio::test]
async fn the_shards_of_the_dead_are_taken() {
    let store = Memory::new();
    let (a, b) = (process(&store, "a").await, process(&store, "b").await);
    until("two share", || shared(&[&a, &b])).await;
    drop(a);
    until("the other holds all", || mine(&b).len() == COUNT as usize).await;
}

#[tokio::test]
async fn who_was_away_can_write_nothing_that_was_taken() {
    let store = Memory::new();
    let (a, b) = (process(&store, "a").await, process(&store, "b").await);
    until("two share", || shared(&[&a, &b])).await;
    let key = (0..).map(|i| format!("test/rows/{i}")).find(|k| a.shards.enter(k).is_some()).unwrap();
    let hold = a.shards.enter(&key).unwrap();
    a.link.set(Way::Cut);
    // Sent while it was cut off: it arrives after the other has taken over.
    let late = tokio::spawn({
        let (db, fence) = (a.db.clone(), hold.fence().clone());
        async move { write(&db, &fence).await }
    });
    until("it stops by itself", || mine(&a).is_empty()).await;
    assert!(b.shards.enter(&key).is_none(), "who was cut off stops before another starts");
    until("the other holds all", || mine(&b).len() == COUNT as usize).await;
    a.link.set(Way::Open);
    assert!(!late.await.unwrap(), "a late write is refused");
    assert!(!write(&a.db, hold.fence()).await, "and so is one with an old fence");
    assert!(a.db.read().get(&ROWS, "written").is_none());
    until("it is a member again and they share", || shared(&[&a, &b]) && !mine(&a).is_empty()).await;
    let epochs = a.db.read().all(&SHARDS).map(|r| r.field("epoch").as_u64().unwrap()).collect::<Vec<_>>();
    assert!(epochs.iter().any(|e| *e > 1));
}

/// Counts up rows to a goal, step by step, and notes when two are at one row at once.
struct Counter {
    /// Of the process.
    name: &'static str,
}

const GOAL: u64 = 40;

impl Reconciler for Counter {
    fn name(&self) -> &'static str {
        "counter"
    }
    fn tables(&self) -> Vec<&'static Table> {
        vec![&ROWS]
    }
    fn reconcile<'a>(&'a self, key: &'a str, work: &'a Work) -> Pending<'a, Result<Next>> {
        Box::pin(async move {
            let id = key.rsplit('/').next().unwrap_or_default().to_owned();
            let name = self.name;
            let step = |enters: bool| {
                let id = id.clone();
                move |tx: &mut store::Tx<'_>| {
                    let Some(row) = tx.get(&ROWS, &id) else { return Ok(true) };
                    let n = row.field("n").as_u64().unwrap();
                    if enters {
                        return Ok(n >= GOAL);
                    }
                    let mut by = row.field("by").as_array().unwrap().clone();
                    by.push(json!(name));
                    tx.put(&ROWS, &id, json!({ "n": n + 1, "by": by }));
                    Ok(n + 1 >= GOAL)
                }
            };
            if work.transact(step(true)).await? {
                return Ok(Next::Done);
            }
            // The world takes its time.
            tokio::time::sleep(Duration::from_millis(10)).await;
            work.transact(step(false)).await?;
            Ok(Next::After(Duration::from_millis(1)))
        })
    }
}

#[tokio::test]
async fn keys_get_done_while_processes_come_and_go() {
    let store = Memory::new();
    let (db, _link) = open(&store).await;
    let rows = |tx: &mut store::Tx<'_>| {
        (0..50).for_each(|i| tx.put(&ROWS, &format!("{i}"), json!({ "n": 0, "by": [] })));
        Ok::<_, ()>(())
    };
    db.transact(rows).await.unwrap();
    let start = |name: &'static str| {
        let store = store.clone();
        async move {
            let p = process(&store, name).await;
            let mut runner = Runner::new(p.shards.clone(), Arc::new(TaskList::default()));
            runner.spawn(Arc::new(Counter { name }));
            (p, runner)
        }
    };
    let worked = |name: &str| db.read().all(&ROWS).any(|r| r.field("by").as_array().unwrap().iter().any(|by| by == name));
    let (a, a_runs) = start("a").await;
    let _b = start("b").await;
    until("the second works", || worked("b")).await;
    let _c = start("c").await;
    until("the third works", || worked("c")).await;
    a.shards.leave().await.unwrap();
    drop((a, a_runs));
    let sum = || db.read().all(&ROWS).map(|r| r.field("n").as_u64().unwrap()).sum::<u64>();
    until("all rows are done", || sum() == 50 * GOAL).await;
    let by: BTreeSet<String> = db
        .read()
        .all(&ROWS)
        .flat_map(|r| r.field("by").as_array().unwrap().iter().map(|n| n.as_str().unwrap().to_owned()).collect::<Vec<_>>())
        .collect();
    assert_eq!(by, BTreeSet::from(["a".into(), "b".into(), "c".into()]), "all of them worked");
}
