//! `kill -9` at any instant loses no acknowledged write, tears no transaction, and leaves no gap in the revisions.
//!
//! The test starts itself as a child that writes and tells what was acknowledged, kills it, and looks at the file.
//! `DROVER_KILL_ROUNDS` sets how often.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]
use rand::Rng;
use std::{
    collections::BTreeSet,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};
use store::{Compare, Entry, Range, Store, Txn, TxnId, Write};
use store_sqlite::Sqlite;
use tokio::io::{AsyncBufReadExt, BufReader};

const FILE: &str = "DROVER_KILL_FILE";
const PREFIX: &str = "DROVER_KILL_PREFIX";
const WRITERS: usize = 64;
/// Rounds on one file, so that later ones recover what earlier ones left.
const ROUNDS_PER_FILE: usize = 10;

/// Two rows that are only ever written together.
fn pair(id: &str) -> [Arc<str>; 2] {
    ["left", "right"].map(|side| format!("t/{side}/{id}").into())
}

/// Writes until it is killed; a line per acknowledged pair.
async fn child(file: &Path, prefix: &str) {
    let s = Sqlite::open(file).unwrap();
    let mut tasks = Vec::new();
    for w in 0..WRITERS {
        let (s, prefix) = (s.clone(), prefix.to_owned());
        tasks.push(tokio::spawn(async move {
            for i in 0.. {
                let id = format!("{prefix}-{w}-{i}");
                let keys = pair(&id);
                let compares = keys.clone().map(Compare::Absent).into();
                let value = id.repeat(1 + i % 200);
                let writes = keys.map(|key| Write::Put { key, value: value.clone().into(), lease: None }).into();
                let revision = s.txn(Txn { id: TxnId::random(), compares, writes }).await.unwrap();
                // One write call: a line is there as a whole or not at all.
                std::io::stdout().write_all(format!("\nack {id} {revision}\n").as_bytes()).unwrap();
            }
        }));
    }
    for t in tasks {
        t.await.unwrap();
    }
}

/// Runs a child for a while, kills it, and gives what it acknowledged.
async fn round(file: &Path, prefix: &str) -> Vec<(String, u64)> {
    let (by_count, many, wait) = {
        let mut dice = rand::rng();
        (dice.random_bool(0.5), dice.random_range(1..1500), Duration::from_micros(dice.random_range(0..80_000)))
    };
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "killed_at_any_instant", "--nocapture"]).env(FILE, file).env(PREFIX, prefix);
    let mut child =
        tokio::process::Command::from(child).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    let mut note = |line: String| {
        if let Some((id, revision)) = line.strip_prefix("ack ").and_then(|l| l.split_once(' ')) {
            acknowledged.push((id.to_owned(), revision.parse().unwrap()));
        }
        acknowledged.len()
    };
    if by_count {
        while let Ok(Some(line)) = lines.next_line().await
            && note(line) < many
        {}
    } else {
        // The instant itself is what is tested: it may well be before or amid the opening.
        tokio::time::sleep(wait).await;
    }
    child.start_kill().unwrap();
    while let Ok(Some(line)) = lines.next_line().await {
        note(line);
    }
    child.wait().await.unwrap();
    acknowledged
}

/// The file must hold all that was acknowledged, only whole transactions, and every revision once.
async fn check(file: &Path, acknowledged: &[(String, u64)], context: &str) {
    let s = Sqlite::open(file).unwrap_or_else(|e| panic!("{context}: {e}"));
    let all = s.range(Range { prefix: "", after: None, limit: usize::MAX }).await.unwrap().entries;
    let find = |key: &Arc<str>| -> Option<&Entry> { all.binary_search_by(|e| e.key.cmp(key)).ok().map(|i| &all[i]) };
    for (id, revision) in acknowledged {
        for key in pair(id) {
            let row = find(&key).unwrap_or_else(|| panic!("{context}: {key} was acknowledged at {revision} and is gone"));
            assert_eq!(row.modified, *revision, "{context}: {key}");
        }
    }
    for row in &all {
        let other =
            if row.key.contains("/left/") { row.key.replace("/left/", "/right/") } else { row.key.replace("/right/", "/left/") };
        let other = find(&other.into()).unwrap_or_else(|| panic!("{context}: {} is half a transaction", row.key));
        assert_eq!((row.modified, &row.value), (other.modified, &other.value), "{context}");
    }
    let revisions: BTreeSet<u64> = all.iter().map(|e| e.modified).collect();
    let revision = s.revision().await.unwrap();
    assert_eq!((revisions.len() as u64, revisions.last().copied().unwrap_or(0)), (revision, revision), "{context}: a gap");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_instant() {
    if let (Ok(file), Ok(prefix)) = (std::env::var(FILE), std::env::var(PREFIX)) {
        return child(Path::new(&file), &prefix).await;
    }
    let rounds = std::env::var("DROVER_KILL_ROUNDS").map_or(25, |n| n.parse().unwrap());
    let (mut done, mut total) = (0, 0);
    while done < rounds {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("store.db");
        let mut acknowledged = Vec::new();
        for _ in 0..ROUNDS_PER_FILE.min(rounds - done) {
            let new = round(&file, &format!("r{done}")).await;
            total += new.len();
            acknowledged.extend(new);
            check(&file, &acknowledged, &format!("round {done}")).await;
            done += 1;
        }
    }
    println!("{done} kills, {total} acknowledged transactions, none lost");
    assert!(total > rounds * 50, "the children wrote too little ({total}) for this to mean anything");
}
