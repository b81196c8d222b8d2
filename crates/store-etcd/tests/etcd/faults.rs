//! Members die, freeze and hang under load: nothing acknowledged is lost, every doubt is cleared rightly, every call ends in time.
use crate::common::{Cluster, Mode, Proxy, SOON, connect, put, settle, txn, wait_for};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use store::{Compare, Event, Outcome, Range, Revision, Store, StoreError, Txn, TxnError, TxnId};
use store_etcd::{Config, Etcd};

const WRITERS: usize = 24;

/// What the writers were told.
#[derive(Default)]
struct Told {
    committed: Mutex<BTreeMap<String, Revision>>,
    aborted: Mutex<Vec<String>>,
    doubts: AtomicU64,
    slowest: Mutex<Duration>,
    stop: AtomicBool,
}

/// Pairs of rows that are only ever written together.
async fn write(s: Arc<Etcd>, writer: usize, told: Arc<Told>) {
    let mut i = 0;
    while !told.stop.load(Ordering::SeqCst) {
        i += 1;
        let id = format!("{writer}-{i}");
        let keys = [format!("t/left/{id}"), format!("t/right/{id}")];
        let compares = keys.iter().map(|k| Compare::Absent(k.as_str().into())).collect();
        let attempt = txn(compares, keys.iter().map(|k| put(k, &id)).collect());
        let (began, name) = (Instant::now(), attempt.id);
        match s.txn(attempt).await {
            Ok(revision) => drop(told.committed.lock().unwrap().insert(id, revision)),
            Err(TxnError::Unknown) => {
                told.doubts.fetch_add(1, Ordering::SeqCst);
                let outcome = loop {
                    match s.resolve(name).await {
                        Ok(outcome) => break outcome,
                        Err(e) => assert!(matches!(e, StoreError::Unavailable(_)), "{e}"),
                    }
                };
                match outcome {
                    Outcome::Committed(revision) => drop(told.committed.lock().unwrap().insert(id, revision)),
                    Outcome::Aborted => told.aborted.lock().unwrap().push(id),
                }
            }
            Err(TxnError::Store(StoreError::Unavailable(_))) => told.aborted.lock().unwrap().push(id),
            Err(e) => panic!("{e}"),
        }
        let mut slowest = told.slowest.lock().unwrap();
        *slowest = began.elapsed().max(*slowest);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_of_the_leader_under_load_loses_nothing() {
    let mut cluster = Cluster::start(3).await;
    let told = Arc::new(Told::default());
    let mut endpoints = cluster.endpoints();
    let watcher = cluster.store("cloud").await;
    let start = watcher.revision().await.unwrap();
    let mut watch = watcher.watch("t/", start).await.unwrap();
    let mut writers = Vec::new();
    let mut stores = Vec::new();
    for w in 0..WRITERS {
        if w % 8 == 0 {
            endpoints.rotate_left(1);
            stores.push(connect("cloud", endpoints.clone()).await);
        }
        writers.push(tokio::spawn(write(stores[stores.len() - 1].clone(), w, told.clone())));
    }
    let count = || told.committed.lock().unwrap().len();
    for round in 1..=3 {
        let before = count();
        wait_for("load", || async { count() > before + 200 }).await;
        let leader = cluster.leader().await;
        cluster.nodes[leader].kill();
        let after = count();
        wait_for("load without the leader", || async { count() > after + 200 }).await;
        cluster.nodes[leader].start();
        cluster.ready().await;
        println!("round {round}: {} committed, {} in doubt", count(), told.doubts.load(Ordering::SeqCst));
    }
    told.stop.store(true, Ordering::SeqCst);
    for w in writers {
        w.await.unwrap();
    }
    println!("longest wait of a writer: {:?}", told.slowest.lock().unwrap());
    assert!(*told.slowest.lock().unwrap() < Duration::from_secs(15));

    let end = watcher.revision().await.unwrap();
    let (mut seen, mut at) = (BTreeMap::new(), start);
    while at < end {
        let batch = tokio::time::timeout(SOON, watch.next()).await.expect("a batch").expect("the watch goes on");
        at += 1;
        assert_eq!(batch.revision, at, "each revision once and in order");
        for event in batch.events.iter() {
            let Event::Put(e) = event else { panic!("nothing was deleted: {event:?}") };
            assert!(seen.insert(e.key.to_string(), e.clone()).is_none(), "{} was told twice", e.key);
        }
    }
    let rows = watcher.range(Range { prefix: "t/", after: None, limit: usize::MAX }).await.unwrap().entries;
    assert_eq!(rows, seen.into_values().collect::<Vec<_>>(), "the watch told all rows and nothing else");
    let find = |key: String| rows.binary_search_by(|e| (*e.key).cmp(&*key)).ok().map(|i| &rows[i]);
    let (committed, aborted) = (told.committed.lock().unwrap(), told.aborted.lock().unwrap());
    for (id, revision) in committed.iter() {
        for side in ["left", "right"] {
            let row = find(format!("t/{side}/{id}")).unwrap_or_else(|| panic!("{id} was told to be committed and is gone"));
            assert_eq!(row.modified, *revision, "{id}");
        }
    }
    for id in aborted.iter() {
        assert!(find(format!("t/left/{id}")).is_none() && find(format!("t/right/{id}")).is_none(), "{id} was told to be aborted");
    }
    assert_eq!(rows.len(), 2 * committed.len(), "nothing else was written");
    assert!(told.doubts.load(Ordering::SeqCst) > 0, "no answer was lost, so this has shown nothing about doubts");
}

/// Every kind of call, with the longest that one took.
async fn all_calls(s: &dyn Store, round: usize) -> Duration {
    let mut slowest = Duration::ZERO;
    let mut mark = Instant::now();
    let mut lap = || {
        slowest = slowest.max(mark.elapsed());
        mark = Instant::now();
        slowest
    };
    s.revision().await.unwrap();
    lap();
    s.get("t/a/x").await.unwrap();
    lap();
    s.range(Range { prefix: "t/", after: None, limit: 10 }).await.unwrap();
    lap();
    settle(s, txn(vec![], vec![put(&format!("t/a/{round}"), "1")])).await.unwrap();
    lap();
    let lease = s.lease_grant(Duration::from_secs(60)).await.unwrap();
    lap();
    s.lease_keep_alive(lease).await.unwrap();
    lap();
    s.lease_revoke(lease).await.unwrap();
    lap();
    let at = s.revision().await.unwrap();
    s.watch("", at).await.unwrap();
    lap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_member_is_left_in_time() {
    let cluster = Cluster::start(3).await;
    for (round, leading) in [false, true].into_iter().enumerate() {
        let leader = cluster.leader().await;
        let frozen = if leading { leader } else { (leader + 1) % 3 };
        let mut endpoints = cluster.endpoints();
        endpoints.rotate_left(frozen);
        let s = connect(&format!("cloud{round}"), endpoints).await;
        all_calls(&*s, 0).await;
        let start = s.revision().await.unwrap();
        let mut watch = s.watch("", start).await.unwrap();

        cluster.nodes[frozen].stop();
        let slowest = all_calls(&*s, 1).await;
        cluster.nodes[frozen].go_on();
        println!("frozen {}: slowest call {slowest:?}", if leading { "leader" } else { "follower" });
        assert!(slowest < Duration::from_secs(5), "{slowest:?}");
        let end = s.revision().await.unwrap();
        for revision in start + 1..=end {
            let batch = tokio::time::timeout(Duration::from_secs(5), watch.next()).await.expect("the watch moves on").unwrap();
            assert_eq!(batch.revision, revision);
        }
        // It is in use again some time after it is back.
        cluster.ready().await;
        all_calls(&*s, 2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_hangs_is_barred_before_it_arrives() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let frozen = (leader + 1) % 3;
    // The other way is closed until the write has gone the first one.
    let proxy = Proxy::to(&cluster.nodes[leader].client_url).await;
    proxy.set(Mode::Cut);
    let s = connect("cloud", vec![cluster.nodes[frozen].client_url.clone(), proxy.url.clone()]).await;
    s.txn(txn(vec![], vec![put("t/a/warm", "1")])).await.unwrap();
    cluster.nodes[frozen].stop();
    let late = txn(vec![], vec![put("t/a/late", "1")]);
    let id = late.id;
    assert!(matches!(s.txn(late).await, Err(TxnError::Unknown)), "it was sent to a member that does not answer");
    proxy.set(Mode::Pass);
    let known = async {
        loop {
            if let Ok(outcome) = s.resolve(id).await {
                return outcome;
            }
        }
    };
    assert_eq!(tokio::time::timeout(SOON, known).await.expect("the outcome"), Outcome::Aborted);
    cluster.nodes[frozen].go_on();
    cluster.ready().await;
    // The member now carries out what it had been sent. Wait until it has caught up.
    let own = connect("cloud", vec![cluster.nodes[frozen].client_url.clone()]).await;
    for i in 0..20 {
        settle(&*own, txn(vec![], vec![put(&format!("t/a/{i}"), "1")])).await.unwrap();
    }
    assert!(own.get("t/a/late").await.unwrap().is_none(), "what was aborted never commits");
    assert_eq!(s.resolve(id).await.unwrap(), Outcome::Aborted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_learnt() {
    let cluster = Cluster::start(1).await;
    let proxy = Proxy::to(&cluster.nodes[0].client_url).await;
    let direct = cluster.store("cloud").await;
    let s = connect("cloud", vec![proxy.url.clone()]).await;
    s.txn(txn(vec![], vec![put("t/a/warm", "1")])).await.unwrap();
    let (mut committed, mut aborted) = (0, 0);
    for i in 0..30 {
        let key = format!("t/a/{i}");
        let attempt: Txn = txn(vec![], vec![put(&key, &"x".repeat(100_000))]);
        let id: TxnId = attempt.id;
        let pending = tokio::spawn({
            let s = s.clone();
            async move { s.txn(attempt).await }
        });
        // Anywhere between before it is sent and after it is answered.
        tokio::time::sleep(Duration::from_micros(rand::random_range(0..6000))).await;
        proxy.set(Mode::Cut);
        let answer = pending.await.unwrap();
        proxy.set(Mode::Pass);
        let outcome = match answer {
            Ok(revision) => Outcome::Committed(revision),
            Err(TxnError::Unknown) => {
                let known = async {
                    loop {
                        if let Ok(outcome) = s.resolve(id).await {
                            return outcome;
                        }
                    }
                };
                tokio::time::timeout(SOON, known).await.expect("the outcome")
            }
            Err(_) => Outcome::Aborted,
        };
        match outcome {
            Outcome::Committed(revision) => {
                committed += 1;
                assert_eq!(direct.get(&key).await.unwrap().unwrap().modified, revision);
            }
            Outcome::Aborted => {
                aborted += 1;
                assert!(direct.get(&key).await.unwrap().is_none());
            }
        }
    }
    println!("{committed} committed, {aborted} aborted");
}

/// Ends every lease of the cluster, as time would.
fn end_all_leases(cluster: &Cluster) {
    let etcdctl = |args: &[&str]| {
        let mut command = std::process::Command::new("etcdctl");
        let out =
            command.env("ETCDCTL_API", "3").args(["--endpoints", &cluster.nodes[0].client_url]).args(args).output().unwrap();
        assert!(out.status.success());
        String::from_utf8(out.stdout).unwrap()
    };
    let list = etcdctl(&["lease", "list"]);
    for lease in list.lines().skip(1) {
        etcdctl(&["lease", "revoke", lease]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_away_for_too_long_goes_on_with_a_new_session() {
    let cluster = Cluster::start(1).await;
    let proxy = Proxy::to(&cluster.nodes[0].client_url).await;
    let s = connect("cloud", vec![proxy.url.clone()]).await;
    for i in 0..3 {
        s.txn(txn(vec![], vec![put(&format!("t/a/{i}"), "1")])).await.unwrap();
        end_all_leases(&cluster);
    }
    let known = s.txn(txn(vec![], vec![put("t/a/known", "1")])).await.unwrap();
    proxy.set(Mode::Hang);
    let attempt = txn(vec![], vec![put("t/a/doubt", "1")]);
    let id = attempt.id;
    assert!(matches!(s.txn(attempt).await, Err(TxnError::Unknown)));
    end_all_leases(&cluster);
    proxy.set(Mode::Pass);
    wait_for("the endpoint", || async { s.get("t/a/known").await.is_ok() }).await;
    // Nobody can say any more, and nobody guesses.
    assert!(matches!(s.resolve(id).await, Err(StoreError::Unavailable(text)) if text.contains("cannot be learnt")));
    let next = s.txn(txn(vec![Compare::Modified("t/a/known".into(), known)], vec![put("t/a/known", "2")])).await;
    assert!(next.unwrap() > known);
    s.close().await;
    assert!(s.txn(txn(vec![], vec![put("t/a/closed", "1")])).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_died_in_silence_is_replaced() {
    let cluster = Cluster::start(1).await;
    let proxy = Proxy::to(&cluster.nodes[0].client_url).await;
    let s = connect("cloud", vec![proxy.url.clone()]).await;
    all_calls(&*s, 0).await;
    proxy.set(Mode::Stale);
    let began = Instant::now();
    let attempt = txn(vec![], vec![put("t/a/y", "1")]);
    let id = attempt.id;
    // The first one learns it the hard way, and loses nothing.
    let outcome = match s.txn(attempt).await {
        Err(TxnError::Unknown) => loop {
            if let Ok(outcome) = s.resolve(id).await {
                break outcome;
            }
        },
        other => panic!("it went over a connection that carries nothing: {other:?}"),
    };
    let took = began.elapsed();
    println!("known after {took:?}");
    assert!(took < Duration::from_secs(8), "{took:?}: sooner than the connection's own probes notice");
    assert_eq!(s.get("t/a/y").await.unwrap().is_some(), outcome != Outcome::Aborted);
    let slowest = all_calls(&*s, 1).await;
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_hangs_when_nobody_answers() {
    let cluster = Cluster::start(1).await;
    let proxy = Proxy::to(&cluster.nodes[0].client_url).await;
    let s = connect("cloud", vec![proxy.url.clone()]).await;
    s.txn(txn(vec![], vec![put("t/a/x", "1")])).await.unwrap();
    proxy.set(Mode::Hang);
    let began = Instant::now();
    let attempt = txn(vec![], vec![put("t/a/y", "1")]);
    let id = attempt.id;
    let (get, commit, watch, grant) =
        tokio::join!(s.get("t/a/x"), s.txn(attempt), s.watch("", 1), s.lease_grant(Duration::from_secs(5)));
    println!("all calls gave up after {:?}", began.elapsed());
    assert!(matches!(get, Err(StoreError::Unavailable(_))), "{get:?}");
    assert!(matches!(commit, Err(TxnError::Unknown)), "{commit:?}");
    assert!(watch.is_err() && grant.is_err());
    assert!(began.elapsed() < Duration::from_secs(9));
    assert!(s.resolve(id).await.is_err(), "it cannot be known now");
    proxy.set(Mode::Pass);
    wait_for("the endpoint", || async { s.get("t/a/x").await.is_ok() }).await;
    let outcome = s.resolve(id).await.unwrap();
    assert_eq!(s.get("t/a/y").await.unwrap().is_some(), outcome != Outcome::Aborted);

    let nobody = Etcd::connect(Config::new("cloud", [crate::common::free_url("http")])).await;
    assert!(matches!(nobody, Err(StoreError::Unavailable(text)) if text.contains("majority")));
}
