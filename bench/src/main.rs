//! The figures of DESIGN section 13, on the simulated node: `bench DROVER [--quick]`.
//!
//! It starts a cloud of its own, loads it over HTTP and prints one table: figure, median or rate, target, ratio to upstream's
//! figure in `figures.json`. It asserts nothing: machines are shared and noisy.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a table is what it is for")]
mod cloud;
mod identity;
mod image;
mod load;
mod table;

use cloud::Cloud;
use load::{Request, Stats, rate, run};
use serde_json::{Value, json};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};
use table::Table;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let drover = PathBuf::from(args.next().ok_or("usage: bench DROVER [--quick]")?);
    let quick = args.next().as_deref() == Some("--quick");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(bench(drover, quick))
}

async fn bench(drover: PathBuf, quick: bool) -> Result<()> {
    let span = Duration::from_secs(if quick { 1 } else { 5 });
    let servers = if quick { 100 } else { 1000 };
    let mut table = Table::load()?;
    table.add("acknowledged SQLite writes, concurrency 256 (1/s)", sqlite(span).await?);

    let cloud = Cloud::start(drover, 10)?;
    table.add("start to ready (ms)", cloud.ready_ms);
    let mut outcome = measure(&cloud, span, servers, &mut table).await;
    if outcome.is_ok() {
        let token = cloud.token("demo").await?;
        outcome = image::measure(&cloud, &token, if quick { 256 } else { 4096 }, &mut table).await;
    }
    if outcome.is_ok() {
        // Last: so many rows are not part of the figures before.
        let admin = cloud.token("admin").await?;
        outcome = identity::lists(&cloud, &admin, if quick { 1000 } else { 10_000 }, span, &mut table).await;
    }
    drop(cloud);
    table.print();
    outcome
}

async fn measure(cloud: &Cloud, span: Duration, servers: usize, table: &mut Table) -> Result<()> {
    let admin = cloud.token("admin").await?;

    identity::logins(cloud, &admin, span, table).await?;

    let network = cloud.make_network(&admin).await?;
    // A fixed number, so that the memory below is that of a known cloud.
    let port = json!({"port": {"network_id": network}});
    let create = Request::post("/network/v2.0/ports", &port).header("x-auth-token", &admin);
    let s = run(&cloud.addr, 8, 1000, create).await?;
    table.add("port create, 8 clients (1/s)", s.per_second());
    let list = Request::get(&format!("/network/v2.0/ports?network_id={network}&limit=1000")).header("x-auth-token", &admin);
    let s = rate(&cloud.addr, 1, span, true, list).await?;
    table.add("port list, 1,000 ports (ms, median)", s.ms(0.5));

    let (create, boots) = boot(cloud, &admin, servers).await?;
    table.add("server create call (ms, p99)", create.ms(0.99));
    table.add("boots to ACTIVE, 10 hosts, 16 clients (1/s)", boots);

    let list = Request::get("/compute/v2.1/servers/detail").header("x-auth-token", &admin);
    let s = rate(&cloud.addr, 1, span, true, list).await?;
    table.add("server list with details, 1,000 servers (ms, median)", s.ms(0.5));
    let one =
        cloud.get(&admin, "/compute/v2.1/servers?limit=1").await?["servers"][0]["id"].as_str().unwrap_or_default().to_owned();
    let show = Request::get(&format!("/compute/v2.1/servers/{one}")).header("x-auth-token", &admin);
    let s = rate(&cloud.addr, 8, span, true, show).await?;
    table.add("server show, 8 clients (1/s)", s.per_second());
    table.add("memory with 1,000 servers (MiB, PSS)", cloud.memory_mib()?);
    Ok(())
}

/// Creates servers from 16 clients and waits until all are ACTIVE; gives the create calls and boots per second.
async fn boot(cloud: &Cloud, token: &str, servers: usize) -> Result<(Stats, f64)> {
    let (image, flavor) = cloud.image_and_flavor(token).await?;
    cloud.lift_quotas(token).await?;
    let network = cloud.make_network(token).await?;
    let body = json!({"server": {"name": "bench", "imageRef": image, "flavorRef": flavor, "networks": [{"uuid": network}]}});
    let request = Request::post("/compute/v2.1/servers", &body).header("x-auth-token", token);
    let started = Instant::now();
    let stats = run(&cloud.addr, 16, servers, request).await?;
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let active = cloud.get(token, "/compute/v2.1/servers?status=ACTIVE&limit=1000").await?;
        let n = active["servers"].as_array().map_or(0, Vec::len);
        if n >= servers {
            return Ok((stats, servers as f64 / started.elapsed().as_secs_f64()));
        }
        if Instant::now() > deadline {
            return Err(format!("only {n} of {servers} servers were ACTIVE after 120 s").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Acknowledged single-row transactions per second from 256 writers.
async fn sqlite(span: Duration) -> Result<f64> {
    use store::Store;
    let dir = tempfile::tempdir()?;
    let db = store_sqlite::Sqlite::open(dir.path().join("bench.db"))?;
    let until = Instant::now() + span;
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..256u32 {
        let db = db.clone();
        tasks.spawn(async move {
            let mut n = 0u64;
            while Instant::now() < until {
                let write = store::Write::Put {
                    key: format!("bench/rows/{writer}-{}", n % 1000).into(),
                    value: bytes::Bytes::from_static(&[b'x'; 512]),
                    lease: None,
                };
                let txn = store::Txn { id: store::TxnId::random(), compares: Vec::new(), writes: vec![write] };
                match db.txn(txn).await {
                    Ok(_) => n += 1,
                    Err(e) => return Err(e.to_string()),
                }
            }
            Ok(n)
        });
    }
    let mut all = 0;
    while let Some(done) = tasks.join_next().await {
        all += done??;
    }
    Ok(all as f64 / span.as_secs_f64())
}

/// Fields that the loads need from an answer.
fn text(v: &Value) -> Result<String> {
    v.as_str().map(str::to_owned).ok_or_else(|| format!("expected a text, not {v}").into())
}
