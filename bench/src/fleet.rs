//! Many simulated hosts of a cluster in one process: `fleet DIRECTORY < INVITATIONS`, one `TOKEN@HOST:PORT` a line.
//!
//! Each joins with its own token and has its own certificate and line, as `drover node --simulate` does. It says `attached N` when all are,
//! and goes on until its stdin ends.
#![expect(clippy::print_stdout, reason = "it tells how far it is to whoever started it")]
use assign::Agent;
use link::{Credentials, RemoteBlobs, Settings, Upstream};
use node::sim::{Delays, Sim, Size};
use pki::{Files, Identity, Issued, JoinToken, Role};
use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::Arc,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    task::JoinSet,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const SIZE: Size = Size { vcpus: 64, memory_mib: 512 * 1024, disk_gib: 8 * 1024 };
/// More at once only wait for each other.
const AT_ONCE: usize = 16;

struct Host {
    upstream: Arc<Upstream>,
    _agent: Arc<node::Agent>,
    _sim: Arc<Sim>,
}

fn main() -> Result<()> {
    let dir = std::env::args().nth(1).ok_or("usage: fleet DIRECTORY < INVITATIONS")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(fleet(Path::new(&dir)))
}

async fn fleet(dir: &Path) -> Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let (mut hosts, mut joining) = (Vec::new(), JoinSet::new());
    // An empty line says that these are all; the end of stdin, later, that it is over.
    while let Some(line) = lines.next_line().await?.filter(|l| !l.is_empty()) {
        if joining.len() == AT_ONCE
            && let Some(done) = joining.join_next().await
        {
            hosts.push(done??);
        }
        let name = format!("f{:04}", hosts.len() + joining.len() + 1);
        joining.spawn(join(dir.join(&name), name, line));
    }
    while let Some(done) = joining.join_next().await {
        hosts.push(done??);
    }
    for host in &hosts {
        host.upstream.attached().wait_for(Option::is_some).await?;
    }
    println!("attached {}", hosts.len());
    lines.next_line().await?;
    Ok(())
}

async fn join(dir: std::path::PathBuf, name: String, invitation: String) -> Result<Host> {
    let (token, line) = invitation.split_once('@').ok_or("an invitation is TOKEN@HOST:PORT")?;
    let token: JoinToken = token.parse()?;
    std::fs::create_dir_all(&dir)?;
    let files = Files::of(&dir);
    let request = files.request()?;
    let identity = Identity { role: Role::Node, name: name.clone() };
    let grant = link::join(line, &token, &identity, IpAddr::from(Ipv4Addr::LOCALHOST), &request).await?.grant;
    files.keep(&Issued { certificate_pem: grant.certificate, ca_pem: grant.ca })?;
    let upstream = Upstream::start(Settings {
        name: name.clone(),
        credentials: Credentials::read(&dir)?,
        controllers: grant.controllers,
        remembered: dir.join("controllers.json"),
        version: env!("CARGO_PKG_VERSION").into(),
    });
    let blobs = Arc::new(RemoteBlobs(upstream.clone()));
    let (agent, sim) = node::sim::start(node::Config::new(dir, &name), SIZE, Delays::default(), upstream.clone(), blobs);
    let answers: Arc<dyn Agent> = agent.clone();
    upstream.serve(&answers);
    Ok(Host { upstream, _agent: agent, _sim: sim })
}
