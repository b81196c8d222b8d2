//! Random transactions, many at once, must do in SQLite what the memory engine does one after another.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]
use futures_util::future::join_all;
use proptest::prelude::*;
use std::{sync::Arc, time::Duration};
use store::{Compare, Entry, LeaseId, Memory, Range, Store, StoreError, Txn, TxnError, TxnId, Write};
use store_sqlite::Sqlite;

const LEASES: usize = 3;

#[derive(Clone, Debug)]
enum Check {
    Absent(u8),
    /// The row's real revision, off by this much.
    Modified(u8, i8),
    /// A prefix, and how many revisions ago.
    Quiet(u8, u8),
}
#[derive(Clone, Debug)]
enum Step {
    Txn {
        checks: Vec<Check>,
        puts: Vec<(u8, u8, Option<usize>)>,
        deletes: Vec<u8>,
    },
    Revoke(usize),
    /// Of a transaction that was never sent.
    Resolve,
}

fn key(n: u8) -> Arc<str> {
    format!("t/{}/{}", n % 3, n / 3).into()
}
fn prefix(n: u8) -> Arc<str> {
    if n == 3 { "".into() } else { format!("t/{n}/").into() }
}

fn step() -> impl Strategy<Value = Step> {
    let check = prop_oneof![
        (0..12u8).prop_map(Check::Absent),
        (0..12u8, prop_oneof![4 => Just(0i8), 1 => -1..2i8]).prop_map(|(k, off)| Check::Modified(k, off)),
        (0..4u8, 0..6u8).prop_map(|(p, ago)| Check::Quiet(p, ago)),
    ];
    let lease = prop_oneof![3 => Just(None), 1 => (0..LEASES).prop_map(Some)];
    let puts = proptest::collection::vec((0..12u8, any::<u8>(), lease), 0..4);
    let txn = (proptest::collection::vec(check, 0..3), puts, proptest::collection::vec(0..12u8, 0..3));
    prop_oneof![
        20 => txn.prop_map(|(checks, puts, deletes)| Step::Txn { checks, puts, deletes }),
        1 => (0..LEASES).prop_map(Step::Revoke),
        1 => Just(Step::Resolve),
    ]
}

/// The transaction that a step means, given the rows when its group begins.
fn txn(step: &Step, rows: &[Entry], now: u64, leases: &[LeaseId]) -> Option<Txn> {
    let Step::Txn { checks, puts, deletes } = step else { return None };
    let modified = |k: &Arc<str>| rows.iter().find(|e| e.key == *k).map_or(0, |e| e.modified);
    let compare = |c: &Check| match c {
        Check::Absent(k) => Compare::Absent(key(*k)),
        Check::Modified(k, off) => Compare::Modified(key(*k), modified(&key(*k)).saturating_add_signed((*off).into())),
        Check::Quiet(p, ago) => Compare::Quiet { prefix: prefix(*p), since: now.saturating_sub((*ago).into()) },
    };
    let mut writes: Vec<Write> = Vec::new();
    let put =
        |(k, v, l): &(u8, u8, Option<usize>)| Write::Put { key: key(*k), value: vec![*v].into(), lease: l.map(|l| leases[l]) };
    for w in puts.iter().map(put).chain(deletes.iter().map(|k| Write::Delete { key: key(*k) })) {
        // A key is written at most once.
        if writes.iter().all(|o| o.key() != w.key()) {
            writes.push(w);
        }
    }
    Some(Txn { id: TxnId::random(), compares: checks.iter().map(compare).collect(), writes })
}

async fn rows(s: &dyn Store, leases: &[LeaseId]) -> (Vec<Entry>, u64) {
    let page = s.range(Range { prefix: "", after: None, limit: 1000 }).await.unwrap();
    // Leases are compared by their place: their ids differ between engines.
    let place = |l: LeaseId| LeaseId(leases.iter().position(|x| *x == l).unwrap() as u64);
    (page.entries.into_iter().map(|e| Entry { lease: e.lease.map(place), ..e }).collect(), page.revision)
}

async fn carry_out(s: &dyn Store, step: Step, txn: Option<Txn>, leases: &[LeaseId]) -> String {
    match (step, txn) {
        (_, Some(txn)) => {
            let id = txn.id;
            let answer = match s.txn(txn).await {
                Err(TxnError::Store(StoreError::LeaseOver(l))) => {
                    format!("lease {:?} is over", leases.iter().position(|x| *x == l))
                }
                other => format!("{other:?}"),
            };
            let outcome = s.resolve(id).await.unwrap();
            format!("{answer}, {outcome:?}")
        }
        (Step::Revoke(l), _) => format!("{:?}", s.lease_revoke(leases[l]).await.is_ok()),
        _ => format!("{:?}", s.resolve(TxnId::random()).await.unwrap()),
    }
}

async fn grant(s: &dyn Store) -> Vec<LeaseId> {
    let mut all = Vec::new();
    for _ in 0..LEASES {
        all.push(s.lease_grant(Duration::from_secs(3600)).await.unwrap());
    }
    all
}

async fn compare(groups: Vec<Vec<Step>>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let (memory, sqlite) = (Memory::new(), Sqlite::open(&path).unwrap());
    let (a, b) = (grant(&*memory).await, grant(&*sqlite).await);
    let mut watch = sqlite.watch("", 0).await.unwrap();
    let mut model_watch = memory.watch("", 0).await.unwrap();
    for group in groups {
        let (before, now) = rows(&*memory, &a).await;
        // Leases end before the group, as their place among transactions under way is open.
        let (revokes, others): (Vec<Step>, Vec<Step>) = group.iter().cloned().partition(|s| matches!(s, Step::Revoke(_)));
        for s in revokes {
            carry_out(&*memory, s.clone(), None, &a).await;
            carry_out(&*sqlite, s, None, &b).await;
        }
        // All others are under way at once and are queued in their order, so those that wait share a commit.
        let ours: Vec<_> = others.iter().map(|s| (s.clone(), txn(s, &before, now, &b))).collect();
        let answers = join_all(ours.into_iter().map(|(s, t)| carry_out(&*sqlite, s, t, &b))).await;
        let mut expected = Vec::new();
        for s in others {
            let t = txn(&s, &before, now, &a);
            expected.push(carry_out(&*memory, s, t, &a).await);
        }
        assert_eq!(answers, expected, "{group:?}");
        let (model, real) = (rows(&*memory, &a).await, rows(&*sqlite, &b).await);
        assert_eq!(model, real, "{group:?}");
    }
    for _ in 0..memory.revision().await.unwrap() {
        let (x, y) = (model_watch.next().await.unwrap(), watch.next().await.unwrap());
        assert_eq!((x.revision, x.events.len()), (y.revision, y.events.len()));
    }
    let before = rows(&*sqlite, &b).await;
    let leased = before.0.iter().any(|e| e.lease.is_some());
    drop(sqlite);
    let after = rows(&*Sqlite::open(&path).unwrap(), &b).await;
    let kept: Vec<Entry> = before.0.into_iter().filter(|e| e.lease.is_none()).collect();
    assert_eq!(after, (kept, before.1 + u64::from(leased)), "a restart keeps all but what was leased");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_same_as_in_memory(groups in proptest::collection::vec(proptest::collection::vec(step(), 1..12), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(compare(groups));
    }
}
