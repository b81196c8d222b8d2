//! The figures of this process, for `GET /metrics`: the store, the work, the hosts, and what the process itself takes.
use api::Cloud;
use axum::{Router, http::header::CONTENT_TYPE, routing::get};
use base::metrics::{Exporter, Exposition, Kind::Counter, Kind::Gauge, MEDIA_TYPE};
use compute::nodes::Nodes;
use reconcile::{Shards, TaskList, TaskState};
use std::{
    collections::BTreeMap,
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};
use store::Db;
use tokio::{net::TcpListener, sync::watch};

/// What Linux counts processor time in, for programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// Where a host tells its figures: to this machine alone, as they are nobody else's business.
pub(crate) const NODE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8778);

/// The figures of a process without APIs, at `http://ADDRESS/metrics`, until it stops. That nobody can read them stops no host.
pub(crate) async fn serve(address: SocketAddr, exporter: Arc<Exporter>, stop: impl Future<Output = ()> + Send + 'static) {
    let told = move || {
        let text = exporter.text();
        async move { ([(CONTENT_TYPE, MEDIA_TYPE)], text) }
    };
    let router = Router::new().route("/metrics", get(told)).route("/livez", get(|| async { "ok\n" }));
    let served = match TcpListener::bind(address).await {
        Ok(listener) => api::serve(listener, router, stop).await,
        Err(e) => Err(e),
    };
    if let Err(e) = served {
        tracing::warn!(%address, error = %e, "The figures of this host cannot be read; give another address with --metrics");
    }
}

/// Those of a host.
pub(crate) fn register_node(exporter: &Exporter, attached: watch::Receiver<Option<String>>, certificate: PathBuf) {
    exporter.add(process);
    exporter.add(move |out| {
        out.family("drover_node_attached", Gauge, "1 while a controller has this host.")
            .sample(&[], u8::from(attached.borrow().is_some()));
        certificate_ends(&certificate, out);
    });
}

/// Those of a machine of a cluster, where it has other figures, too.
pub(crate) fn register_certificate(exporter: &Exporter, certificate: PathBuf) {
    exporter.add(move |out| certificate_ends(&certificate, out));
}

/// Until when the machine's certificate is good.
fn certificate_ends(path: &Path, out: &mut Exposition) {
    let ends = std::fs::read_to_string(path).ok().and_then(|pem| pki::not_after(&pem).ok());
    if let Some(ends) = ends {
        out.family("drover_certificate_expires_seconds", Gauge, "When the machine's certificate expires, in seconds since 1970.")
            .sample(&[], ends.unix_timestamp());
    }
}

/// Adds all that this process has; the APIs add their own.
pub(crate) fn register(exporter: &Exporter, cloud: &Arc<Cloud>) {
    exporter.add(process);
    let db = cloud.db.clone();
    exporter.add(move |out| store(&db, out));
    if let Some(tasks) = cloud.state.get::<TaskList>() {
        exporter.add(move |out| work(&tasks, out));
    }
    if let Some(shards) = cloud.state.get::<Shards>() {
        exporter.add(move |out| {
            out.family("drover_shards_held", Gauge, "Shards whose keys this process works on.").sample(&[], shards.held().len());
        });
    }
    if let Some(nodes) = cloud.state.get::<Nodes>() {
        exporter.add(move |out| {
            out.family("drover_agents_connected", Gauge, "Hosts whose agents talk to this process.")
                .sample(&[], nodes.connected());
        });
    }
}

fn store(db: &Db, out: &mut Exposition) {
    let counts = db.counts();
    for (name, help, count) in [
        ("drover_store_commits_total", "Commits; each carries one transaction or more.", &counts.commits),
        ("drover_store_transactions_total", "Transactions that were committed.", &counts.transactions),
        ("drover_store_conflicts_total", "Commits that ran again, since another process was quicker.", &counts.conflicts),
        ("drover_store_unknown_commits_total", "Commits whose answer was lost and asked for.", &counts.unknown),
        ("drover_store_late_transactions_total", "Transactions that were given up at their deadline.", &counts.late),
    ] {
        out.family(name, Counter, help).sample(&[], count.get());
    }
    out.family("drover_store_transactions_waiting", Gauge, "Transactions that wait for their turn.").sample(&[], db.waiting());
    out.family("drover_view_revision", Gauge, "The revision that reads see.").sample(&[], db.read().revision());
    out.family("drover_view_lag_revisions", Gauge, "Revisions that the store has and reads do not see yet.")
        .sample(&[], db.view.lag());
}

fn work(tasks: &TaskList, out: &mut Exposition) {
    let list = tasks.list();
    // Keys in trouble are named by what they are about: that is nobody's business here.
    let is_key = |name: &str| name.contains(' ');
    let named = || list.iter().filter(|t| !is_key(&t.name));
    out.family("drover_task_runs_total", Counter, "Looks of a task at one of its keys.");
    named().for_each(|t| _ = out.sample(&[("task", &t.name)], t.runs));
    out.family("drover_task_failures_total", Counter, "Looks that failed and are taken again.");
    named().for_each(|t| _ = out.sample(&[("task", &t.name)], t.failures));
    let mut trouble: BTreeMap<&str, usize> = named().map(|t| (t.name.as_str(), 0)).collect();
    for task in list.iter().filter(|t| t.state == TaskState::Waiting && is_key(&t.name)) {
        *trouble.entry(task.name.split(' ').next().unwrap_or_default()).or_default() += 1;
    }
    out.family("drover_task_keys_in_trouble", Gauge, "Keys whose last look failed.");
    trouble.iter().for_each(|(task, keys)| _ = out.sample(&[("task", task)], keys));
    out.family("drover_task_queue_length", Gauge, "Keys that a task will look at, now or later.");
    tasks.queues().iter().for_each(|(task, keys)| _ = out.sample(&[("task", task)], keys));
}

/// As Prometheus' own clients name them. What `/proc` does not tell is left out.
fn process(out: &mut Exposition) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    if let Some(kib) = resident {
        out.family("process_resident_memory_bytes", Gauge, "Resident memory.").sample(&[], kib * 1024);
    }
    if let Some(ticks) = std::fs::read_to_string("/proc/self/stat").ok().and_then(|s| cpu_ticks(&s)) {
        out.family("process_cpu_seconds_total", Counter, "Processor time, user and system.");
        out.sample(&[], ticks as f64 / TICKS_PER_SECOND);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        out.family("process_open_fds", Gauge, "Open file descriptors.").sample(&[], open.count());
    }
}

/// User and system time from `/proc/PID/stat`; the name in it may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_host_tells_its_figures() {
        let dir = tempfile::tempdir().unwrap();
        let files = pki::Files::of(dir.path());
        let request = files.request().unwrap();
        let identity = pki::Identity { role: pki::Role::Node, name: "n1".into() };
        files.keep(&pki::Ca::create("c").unwrap().sign(&request.csr_pem, &identity, &[]).unwrap()).unwrap();
        let (attach, attached) = watch::channel(None);
        let exporter = Arc::new(Exporter::default());
        register_node(&exporter, attached, files.certificate);
        let has = |line: &str| exporter.text().lines().any(|l| l.starts_with(line));
        assert!(has("drover_node_attached 0") && has("drover_certificate_expires_seconds 1") && has("process_open_fds "));
        attach.send_replace(Some("10.0.0.1:8775".into()));
        assert!(has("drover_node_attached 1"));

        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(serve(free, exporter.clone(), async { drop(stopped.await) }));
        let client = cli::Client::anonymous(&format!("http://{free}"), None).unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while client.get("/metrics").await.is_err() {
            assert!(std::time::Instant::now() < until, "nobody answers");
            tokio::task::yield_now().await;
        }
        stop.send(()).unwrap();
        serving.await.unwrap();
    }

    #[test]
    fn a_process_knows_what_it_takes() {
        assert_eq!(cpu_ticks("1 (a b) c) S 1 1 1 0 -1 4194560 9 0 0 0 70 5 0 0 20 0 1"), Some(75));
        assert_eq!(cpu_ticks("1 (x"), None);
        let exporter = Exporter::default();
        exporter.add(process);
        let text = exporter.text();
        let value = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<f64>().ok());
        assert!(value("process_resident_memory_bytes ").is_some_and(|v| v > 1e6), "{text}");
        assert!(value("process_open_fds ").is_some_and(|v| v > 2.0), "{text}");
    }
}
