//! How many writes per second are acknowledged, and how long each waits: through the engine, and through `Db::transact`.
//!
//! `cargo run --release -p store-sqlite --example writes [-- --at DIRECTORY --seconds N --concurrency N]`
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]
use base::SystemClock;
use serde_json::json;
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use store::{Compare, Db, Index, Memory, Store, Table, Txn, TxnId, Write};
use store_sqlite::Sqlite;

static ROWS: Table = Table { name: "bench/rows", indexes: &[Index { name: "project_id", path: "/project_id" }] };
static QUOTAS: Table = Table { name: "bench/quotas", indexes: &[] };

type Error = Box<dyn std::error::Error + Send + Sync>;

struct Options {
    at: PathBuf,
    seconds: u64,
    concurrency: usize,
}

impl Options {
    fn read() -> Result<Self, Error> {
        let mut o = Self { at: std::env::temp_dir(), seconds: 5, concurrency: 256 };
        let mut args = std::env::args().skip(1);
        while let (Some(name), Some(value)) = (args.next(), args.next()) {
            match name.as_str() {
                "--at" => o.at = value.into(),
                "--seconds" => o.seconds = value.parse()?,
                "--concurrency" => o.concurrency = value.parse()?,
                _ => return Err(format!("{name} is no option; use --at, --seconds, --concurrency").into()),
            }
        }
        Ok(o)
    }
}

/// Runs `write(worker, turn)` over and over in all workers, and prints a line of the table.
async fn measure<F, W>(name: &str, o: &Options, write: F) -> Result<(), Error>
where
    F: Fn(usize, u64) -> W + Clone + Send + 'static,
    W: Future<Output = Result<(), Error>> + Send,
{
    let begin = Instant::now();
    let end = begin + Duration::from_secs(o.seconds);
    let worker = |w: usize| {
        let write = write.clone();
        async move {
            let mut waits = Vec::new();
            for turn in 0.. {
                let start = Instant::now();
                if start >= end {
                    break;
                }
                write(w, turn).await?;
                waits.push(start.elapsed());
            }
            Ok::<_, Error>(waits)
        }
    };
    let workers: Vec<_> = (0..o.concurrency).map(|w| tokio::spawn(worker(w))).collect();
    let mut waits = Vec::new();
    for w in workers {
        waits.extend(w.await??);
    }
    let rate = waits.len() as f64 / begin.elapsed().as_secs_f64();
    waits.sort_unstable();
    let at = |share: f64| waits.get((waits.len() as f64 * share) as usize).copied().unwrap_or_default().as_secs_f64() * 1e3;
    println!("{name:<44} {rate:>9.0}/s   p50 {:>6.2} ms   p99 {:>6.2} ms   max {:>6.2} ms", at(0.5), at(0.99), at(1.0 - 1e-9));
    Ok(())
}

/// New rows, each compared to be absent.
async fn through_the_engine(name: &str, o: &Options, store: Arc<dyn Store>) -> Result<(), Error> {
    let value = bytes::Bytes::from(vec![b'v'; 1024]);
    measure(name, o, move |w, turn| {
        let (store, value) = (store.clone(), value.clone());
        async move {
            let key: Arc<str> = format!("bench/rows/{:016x}-{turn}", (w as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).into();
            let compares = vec![Compare::Absent(key.clone())];
            store.txn(Txn { id: TxnId::random(), compares, writes: vec![Write::Put { key, value, lease: None }] }).await?;
            Ok(())
        }
    })
    .await
}

/// Each worker reads and writes a row of its own, and a quota row that all share.
async fn through_transact(name: &str, o: &Options, store: Arc<dyn Store>) -> Result<(), Error> {
    let db = Db::open(store, Arc::new(SystemClock), &[&ROWS, &QUOTAS]).await?;
    let blob: Arc<str> = "v".repeat(1024).into();
    measure(name, o, move |w, turn| {
        let (db, blob) = (db.clone(), blob.clone());
        async move {
            let closure = move |tx: &mut store::Tx<'_>| {
                let id = format!("{w}");
                let seen = tx.get(&ROWS, &id).map_or(0, |r| r.field("turn").as_u64().unwrap_or(0));
                tx.put(&ROWS, &id, json!({ "project_id": "p", "turn": seen.max(turn), "blob": &*blob }));
                let used = tx.get(&QUOTAS, "p").map_or(0, |r| r.field("used").as_u64().unwrap_or(0));
                tx.put(&QUOTAS, "p", json!({ "used": used + 1 }));
                Ok::<_, std::convert::Infallible>(())
            };
            db.transact(closure).await?;
            Ok(())
        }
    })
    .await
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let o = Options::read()?;
    let dir = tempfile::tempdir_in(&o.at)?;
    println!("{} at once, 1 KiB rows, file in {}", o.concurrency, o.at.display());
    through_the_engine("Store::txn, memory, new rows", &o, Memory::new()).await?;
    through_transact("Db::transact, memory, own row + shared quota", &o, Memory::new()).await?;
    through_the_engine("Store::txn, SQLite, new rows", &o, Sqlite::open(dir.path().join("a.db"))?).await?;
    through_transact("Db::transact, SQLite, own row + shared quota", &o, Sqlite::open(dir.path().join("b.db"))?).await?;
    Ok(())
}
