//! Real etcds for tests: own directories, own loopback addresses, ended by pid.
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    net::{Ipv4Addr, TcpListener},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};
use store::{Compare, LeaseId, Outcome, Revision, Store, Txn, TxnError, TxnId, Write};
use store_etcd::{Config, Etcd, member};
use tempfile::TempDir;

pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A URL that nobody listens on, on a loopback address that hardly anybody else uses.
pub(crate) fn free_url(scheme: &str) -> String {
    let ip = Ipv4Addr::new(127, rand::random_range(1..255), rand::random_range(0..255), rand::random_range(1..255));
    let listener = TcpListener::bind((ip, 0)).unwrap();
    format!("{scheme}://{}", listener.local_addr().unwrap())
}

pub(crate) struct Node {
    pub(crate) client_url: String,
    argv: Vec<String>,
    log: std::path::PathBuf,
    child: Option<Child>,
}

impl Node {
    pub(crate) fn start(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let spawned = Command::new("etcd").args(&self.argv).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.child = Some(spawned.unwrap_or_else(|e| panic!("etcd cannot be started ({e}); run scripts/install-deps")));
    }
    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.as_ref().expect("it runs").id().cast_signed())
    }
    pub(crate) fn stop(&self) {
        kill(self.pid(), Signal::SIGSTOP).unwrap();
    }
    pub(crate) fn go_on(&self) {
        kill(self.pid(), Signal::SIGCONT).unwrap();
    }
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}
impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An etcd cluster. It ends with the value.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    /// Removed with the value.
    _dir: TempDir,
}

impl Cluster {
    pub(crate) async fn start(size: usize) -> Self {
        Self::with(size, &[]).await
    }

    pub(crate) async fn with(size: usize, flags: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let urls: Vec<_> = (0..size).map(|i| (format!("m{i}"), free_url("http"), free_url("http"))).collect();
        let list = urls.iter().map(|(n, p, _)| format!("{n}={p}")).collect::<Vec<_>>().join(",");
        let nodes = urls.into_iter().map(|(name, peer_url, client_url)| {
            let mut argv = vec![
                format!("--name={name}"),
                format!("--data-dir={}", dir.path().join(&name).display()),
                format!("--listen-peer-urls={peer_url}"),
                format!("--initial-advertise-peer-urls={peer_url}"),
                format!("--listen-client-urls={client_url}"),
                format!("--advertise-client-urls={client_url}"),
                format!("--initial-cluster={list}"),
                "--pre-vote=true".into(),
                "--logger=zap".into(),
                "--log-outputs=stderr".into(),
            ];
            argv.extend(flags.iter().map(|f| (*f).to_owned()));
            let log = dir.path().join(format!("{name}.log"));
            let mut node = Node { client_url, argv, log, child: None };
            node.start();
            node
        });
        let nodes = nodes.collect();
        let cluster = Self { nodes, _dir: dir };
        cluster.ready().await;
        cluster
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|n| n.client_url.clone()).collect()
    }

    pub(crate) fn admin(&self) -> member::Cluster {
        member::Cluster::new(&self.endpoints(), None).unwrap()
    }

    /// Waits until every member serves.
    pub(crate) async fn ready(&self) {
        let admin = self.admin();
        let all = async {
            while !admin.health().await.iter().all(Result::is_ok) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(SOON, all).await.is_err() {
            let logs = self.nodes.iter().map(|n| std::fs::read_to_string(&n.log).unwrap_or_default()).collect::<String>();
            panic!("etcd does not get ready: {logs}");
        }
    }

    /// The place of the leader in `nodes`.
    pub(crate) async fn leader(&self) -> usize {
        let admin = self.admin();
        let found = async {
            loop {
                let leads = |h: &Result<member::Health, _>| h.as_ref().is_ok_and(|h| h.leads);
                if let Some(i) = admin.health().await.iter().position(leads) {
                    return i;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(SOON, found).await.expect("a leader")
    }

    pub(crate) async fn store(&self, cloud: &str) -> Arc<Etcd> {
        connect(cloud, self.endpoints()).await
    }
}

pub(crate) async fn connect(cloud: &str, endpoints: Vec<String>) -> Arc<Etcd> {
    Etcd::connect(Config::new(cloud, endpoints)).await.unwrap()
}

pub(crate) fn put(key: &str, value: &str) -> Write {
    Write::Put { key: key.into(), value: value.to_owned().into(), lease: None }
}
pub(crate) fn put_leased(key: &str, lease: LeaseId) -> Write {
    Write::Put { key: key.into(), value: "1".into(), lease: Some(lease) }
}
pub(crate) fn delete(key: &str) -> Write {
    Write::Delete { key: key.into() }
}
pub(crate) fn txn(compares: Vec<Compare>, writes: Vec<Write>) -> Txn {
    Txn { id: TxnId::random(), compares, writes }
}

/// Waits for a level.
pub(crate) async fn wait_for<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let until = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(SOON, until).await.is_ok(), "{what} did not come");
}

/// Commits, and asks for the outcome until it is known.
pub(crate) async fn settle(s: &dyn Store, txn: Txn) -> Result<Option<Revision>, TxnError> {
    let id = txn.id;
    match s.txn(txn).await {
        Ok(revision) => Ok(Some(revision)),
        Err(TxnError::Unknown) => loop {
            match s.resolve(id).await {
                Ok(Outcome::Committed(revision)) => return Ok(Some(revision)),
                Ok(Outcome::Aborted) => return Ok(None),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        },
        Err(e) => Err(e),
    }
}

/// What stands between a client and a member, and can be told to misbehave.
pub(crate) struct Proxy {
    pub(crate) url: String,
    mode: tokio::sync::watch::Sender<Mode>,
    task: tokio::task::JoinHandle<()>,
}
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Pass,
    /// Connections break, and new ones are closed at once.
    Cut,
    /// Connections stay and carry nothing.
    Hang,
    /// Those that are there carry nothing for ever; new ones pass.
    Stale,
}

impl Proxy {
    pub(crate) async fn to(url: &str) -> Self {
        let target = url.strip_prefix("http://").unwrap().to_owned();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (mode, seen) = tokio::sync::watch::channel(Mode::Pass);
        let task = tokio::spawn(async move {
            let mut pairs = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                pairs.spawn(carry(client, target.clone(), seen.clone()));
            }
        });
        Self { url, mode, task }
    }
    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}
impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(mut client: tokio::net::TcpStream, target: String, mut mode: tokio::sync::watch::Receiver<Mode>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut server = tokio::net::TcpStream::connect(target).await.unwrap();
    let (mut a, mut b) = (vec![0; 65536], vec![0; 65536]);
    let is_new = *mode.borrow() == Mode::Stale;
    let mut is_stale = false;
    loop {
        let mut now = *mode.borrow_and_update();
        is_stale |= now == Mode::Stale && !is_new;
        if is_stale {
            now = Mode::Hang;
        } else if now == Mode::Stale {
            now = Mode::Pass;
        }
        let done = tokio::select! {
            _ = mode.changed() => false,
            n = client.read(&mut a), if now == Mode::Pass => match n {
                Ok(n) if n > 0 => server.write_all(&a[..n]).await.is_err(),
                _ => true,
            },
            n = server.read(&mut b), if now == Mode::Pass => match n {
                Ok(n) if n > 0 => client.write_all(&b[..n]).await.is_err(),
                _ => true,
            },
            () = std::future::ready(()), if now == Mode::Cut => true,
        };
        if done {
            return;
        }
    }
}
