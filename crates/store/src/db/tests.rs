use super::*;
use crate::{
    Index, Memory,
    faulty::{Faulty, Way},
};
use base::SystemClock;
use serde_json::json;

static COUNTERS: Table = Table { name: "test/counters", indexes: &[] };
static NAMES: Table = Table { name: "test/names", indexes: &[Index { name: "owner", path: "/owner" }] };

async fn db(store: Arc<dyn Store>) -> Db {
    Db::open(store, Arc::new(SystemClock), &[&COUNTERS, &NAMES]).await.unwrap()
}

async fn add_one(db: &Db) -> u64 {
    db.transact(|tx| {
        let n = tx.get(&COUNTERS, "c").map_or(0, |r| r.field("n").as_u64().unwrap()) + 1;
        tx.put(&COUNTERS, "c", json!({ "n": n }));
        Ok::<_, ()>(n)
    })
    .await
    .unwrap()
    .value
}

#[tokio::test]
async fn concurrent_transactions_lose_nothing() {
    let db = db(Memory::new()).await;
    let all: Vec<_> = (0..500)
        .map(|_| {
            tokio::spawn({
                let db = db.clone();
                async move { add_one(&db).await }
            })
        })
        .collect();
    let mut seen = std::collections::BTreeSet::new();
    for t in all {
        assert!(seen.insert(t.await.unwrap()), "a number was given twice");
    }
    assert_eq!(seen.last(), Some(&500));
    assert!(db.read().revision() < 500, "transactions that wait together are committed together");
}

#[tokio::test]
async fn two_processes_and_a_faulty_store_lose_nothing() {
    for seed in 0..5 {
        let memory = Memory::new();
        let a = db(Arc::new(Faulty::new(memory.clone(), seed, 0.2))).await;
        let b = db(Arc::new(Faulty::new(memory.clone(), seed + 100, 0.2))).await;
        let run = |db: Db| async move {
            for _ in 0..50 {
                add_one(&db).await;
            }
        };
        tokio::join!(run(a.clone()), run(b), run(a.clone()));
        a.fresh().await.unwrap();
        assert_eq!(a.read().get(&COUNTERS, "c").unwrap().field("n"), 150, "seed {seed}");
    }
}

#[tokio::test]
async fn a_claim_is_won_once() {
    let memory = Memory::new();
    let (a, b) = (db(memory.clone()).await, db(memory).await);
    let claim = |db: Db, who: &'static str| async move {
        db.transact(move |tx| tx.claim(&NAMES, "x", json!({ "owner": who })).map_err(|r| r.text("owner").to_owned())).await
    };
    let (x, y) = tokio::join!(claim(a.clone(), "a"), claim(b, "b"));
    assert!(x.is_ok() != y.is_ok());
    a.fresh().await.unwrap();
    let winner = a.read().get(&NAMES, "x").unwrap().text("owner").to_owned();
    assert_eq!(a.read().find(&NAMES, "owner", &winner).len(), 1);
}

#[tokio::test]
async fn a_refusal_writes_nothing_and_sees_earlier_writes() {
    let db = db(Memory::new()).await;
    let r = db
        .transact(|tx| {
            tx.put(&NAMES, "y", json!({}));
            Err::<(), _>("no")
        })
        .await;
    assert!(matches!(r, Err(TransactError::Refused("no"))));
    assert!(db.read().get(&NAMES, "y").is_none());
}

#[tokio::test]
async fn children_that_appear_meanwhile_are_noticed() {
    let memory = Memory::new();
    let (a, b) = (db(memory.clone()).await, db(memory).await);
    let runs = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = runs.clone();
    // The other process's row is committed before this closure commits, whatever the view has seen.
    b.transact(|tx| {
        tx.put(&NAMES, "child", json!({"owner": "parent"}));
        Ok::<_, ()>(())
    })
    .await
    .unwrap();
    let found = a
        .transact(move |tx| {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let n = tx.children(&NAMES, "owner", "parent").len();
            tx.put(&COUNTERS, "parent-deleted", json!({ "children": n }));
            Ok::<_, ()>(n)
        })
        .await
        .unwrap();
    assert_eq!(found.value, 1);
    assert!(runs.load(std::sync::atomic::Ordering::SeqCst) >= 1);
}

#[tokio::test]
async fn a_closure_that_panics_hurts_only_its_caller() {
    let db = db(Memory::new()).await;
    let bad = tokio::spawn({
        let db = db.clone();
        async move {
            db.transact(|tx| -> Result<(), ()> {
                tx.put(&NAMES, "z", json!({}));
                panic!("a bug in a closure")
            })
            .await
        }
    });
    let (bad, good) = tokio::join!(bad, add_one(&db));
    assert!(bad.unwrap_err().is_panic(), "the caller sees the panic");
    assert_eq!((good, add_one(&db).await), (1, 2));
    assert!(db.read().get(&NAMES, "z").is_none());
}

#[tokio::test]
async fn a_refusal_is_decided_on_rows_as_new_as_the_call() {
    let memory = Memory::new();
    let late = Faulty::new(memory.clone(), 1, 0.0).with_watch_delay(Duration::from_millis(50));
    let (slow, quick) = (db(Arc::new(late)).await, db(memory).await);
    quick
        .transact(|tx| {
            tx.put(&NAMES, "x", json!({}));
            Ok::<_, ()>(())
        })
        .await
        .unwrap();
    let found = slow.transact(|tx| tx.get(&NAMES, "x").map(|_| ()).ok_or("no such name")).await;
    assert!(found.is_ok(), "the row was committed before this call: {found:?}");
    quick
        .transact(|tx| {
            tx.delete(&NAMES, "x");
            Ok::<_, ()>(())
        })
        .await
        .unwrap();
    let count = slow.transact(|tx| Ok::<_, ()>(tx.all(&NAMES).len())).await.unwrap().value;
    assert_eq!(count, 0, "a look without writes is as new as the call, too");
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_the_view_has_not_seen_is_a_commit() {
    let memory = Memory::new();
    let late = Faulty::new(memory.clone(), 1, 0.0).with_watch_delay(Duration::from_secs(60));
    let db = db(Arc::new(late)).await;
    assert_eq!(add_one(&db).await, 1);
    assert!(memory.get("test/counters/c").await.unwrap().is_some());
}

#[tokio::test]
async fn finding_sees_earlier_writes_of_the_same_commit_in_key_order() {
    let db = db(Memory::new()).await;
    for (id, owner) in [("a", "p"), ("c", "p"), ("d", "q")] {
        db.transact(move |tx| {
            tx.put(&NAMES, id, json!({ "owner": owner }));
            Ok::<_, ()>(())
        })
        .await
        .unwrap();
    }
    let found = db
        .transact(|tx| {
            tx.put(&NAMES, "b", json!({"owner": "p"}));
            tx.put(&NAMES, "a", json!({"owner": "q"}));
            tx.delete(&NAMES, "c");
            tx.put(&NAMES, "d", json!({"owner": "p"}));
            Ok::<_, ()>(tx.find(&NAMES, "owner", "p").iter().map(|r| r.id().to_owned()).collect::<Vec<_>>())
        })
        .await;
    assert_eq!(found.unwrap().value, ["b", "d"]);
}

/// A store whose commits wait, and a transaction before them that is under way.
async fn stuck() -> (Arc<Faulty>, Db, tokio::task::JoinHandle<u64>) {
    let store = Arc::new(Faulty::new(Memory::new(), 1, 0.0));
    let db = db(store.clone()).await;
    store.set(Way::Held);
    let first = tokio::spawn({
        let db = db.clone();
        async move { add_one(&db).await }
    });
    while store.held() == 0 {
        tokio::task::yield_now().await;
    }
    (store, db, first)
}

#[tokio::test(start_paused = true)]
async fn what_has_not_begun_at_its_deadline_never_does() {
    let (store, db, first) = stuck().await;
    let late = Arc::new(Turn::by(Some(tokio::time::Instant::now() + Duration::from_secs(1))));
    let answer = db
        .transact_in(late, |tx| {
            tx.put(&NAMES, "late", json!({}));
            Ok::<_, ()>(())
        })
        .await;
    assert!(matches!(answer, Err(TransactError::Store(StoreError::Late))), "{answer:?}");
    store.set(Way::Open);
    assert_eq!(first.await.unwrap(), 1);
    assert_eq!(add_one(&db).await, 2);
    assert!(db.read().get(&NAMES, "late").is_none());
    assert_eq!(db.counts().late.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_at_its_deadline_is_waited_for() {
    let store = Arc::new(Faulty::new(Memory::new(), 1, 0.0));
    let db = db(store.clone()).await;
    store.set(Way::Held);
    let turn = Arc::new(Turn::by(Some(tokio::time::Instant::now() + Duration::from_secs(1))));
    let asked = tokio::spawn({
        let (db, turn) = (db.clone(), turn.clone());
        async move {
            db.transact_in(turn, |tx| {
                tx.put(&NAMES, "x", json!({}));
                Ok::<_, ()>(())
            })
            .await
        }
    });
    while store.held() == 0 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!asked.is_finished() && !turn.leave());
    store.set(Way::Open);
    assert!(asked.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn tries_end_at_the_deadline() {
    // Every commit is refused, or lost.
    let db = db(Arc::new(Faulty::new(Memory::new(), 7, 1.0))).await;
    let mut late = 0;
    for i in 0..20 {
        let turn = Arc::new(Turn::by(Some(tokio::time::Instant::now() + Duration::from_millis(2))));
        let id = format!("n{i}");
        let name = id.clone();
        let done = db
            .transact_in(turn, move |tx| {
                tx.put(&NAMES, &name, json!({}));
                Ok::<_, ()>(())
            })
            .await;
        db.fresh().await.unwrap();
        let there = db.read().get(&NAMES, &id).is_some();
        match done {
            Ok(_) => assert!(there),
            Err(TransactError::Store(StoreError::Late)) => {
                late += 1;
                assert!(!there, "what was late was not done");
            }
            Err(e) => panic!("{e:?}"),
        }
    }
    assert!(late > 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_before_it_begins_prevents_it() {
    let (store, db, first) = stuck().await;
    let second = tokio::spawn({
        let db = db.clone();
        async move {
            db.transact(|tx| {
                tx.put(&NAMES, "left", json!({}));
                Ok::<_, ()>(())
            })
            .await
        }
    });
    while db.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    second.abort();
    assert!(second.await.is_err());
    store.set(Way::Open);
    first.await.unwrap();
    assert_eq!(add_one(&db).await, 2);
    assert!(db.read().get(&NAMES, "left").is_none());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_to_a_store_that_may_have_no_majority() {
    let store = Arc::new(Faulty::new(Memory::new(), 1, 0.0));
    let db = db(store.clone()).await;
    assert_eq!(add_one(&db).await, 1);
    let begun = db.read().revision();
    store.set(Way::Cut);
    tokio::time::sleep(2 * ALIVE).await;
    let late: Vec<_> = (0..50)
        .map(|_| {
            let (db, turn) = (db.clone(), Arc::new(Turn::by(Some(tokio::time::Instant::now() + Duration::from_secs(1)))));
            tokio::spawn(async move {
                db.transact_in(turn, |tx| {
                    tx.put(&NAMES, "ghost", json!({}));
                    Ok::<_, ()>(())
                })
                .await
            })
        })
        .collect();
    for answer in late {
        let answer = answer.await.unwrap();
        assert!(matches!(answer, Err(TransactError::Store(StoreError::Late))), "{answer:?}");
    }
    store.set(Way::Open);
    assert_eq!(add_one(&db).await, 2);
    assert_eq!(db.read().revision(), begun + 1, "nothing else was carried out");
}

#[tokio::test(start_paused = true)]
async fn what_may_come_along_costs_no_commit_of_its_own() {
    let db = db(Memory::new()).await;
    let along = |id: &'static str| {
        let db = db.clone();
        tokio::spawn(async move {
            db.transact_along(move |tx| {
                tx.put(&NAMES, id, json!({}));
                Ok::<_, ()>(())
            })
            .await
        })
    };
    let (one, two) = (along("one"), along("two"));
    tokio::time::sleep(ALONE / 2).await;
    assert_eq!(db.counts().commits.get(), 0, "it waits for others");
    add_one(&db).await;
    let (one, two) = (one.await.unwrap().unwrap(), two.await.unwrap().unwrap());
    assert_eq!((one.revision, db.counts().commits.get()), (two.revision, 1), "all in one");

    let begun = tokio::time::Instant::now();
    along("three").await.unwrap().unwrap();
    assert!(begun.elapsed() >= ALONE, "nobody came");
    assert_eq!((db.read().count(&NAMES), db.counts().commits.get()), (3, 2));
}
