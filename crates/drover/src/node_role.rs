//! `drover node`: a host of a cluster. It joins with a token, then runs what its controllers assign and runs on without them.
use crate::{
    admission,
    config::{Config, Flags, State},
    figures,
    real_node::{self, Guests, Network, NetworkFlags},
    serve,
    server::Invitation,
    sim,
    up::{self, progress},
};
use base::metrics::Exporter;
use clap::Args;
use link::{Credentials, RemoteBlobs, Settings, Upstream};
use node::sim::Delays;
use pki::{Files, Identity, Issued, Role};
use serde::{Deserialize, Serialize};
use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

const ATTACHED_WITHIN: Duration = Duration::from_secs(90);
const RENEWAL: Duration = Duration::from_secs(3600);
const LOOK: Duration = Duration::from_millis(50);

/// Flags of `drover node`. What is given is kept.
#[derive(Args, Clone, Debug)]
pub(crate) struct NodeFlags {
    /// Name of this host in the cloud [default: its host name]. Since 0.1.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where this host is reached by the others [default: the address from which it reaches the controller]. Since 0.1.
    #[arg(long, value_name = "ADDR")]
    address: Option<IpAddr>,
    /// Join the cluster of a controller with a token of its `drover join-token node`. Since 0.1.
    #[arg(long, value_name = "TOKEN@HOST:PORT")]
    join: Option<Invitation>,
    /// Simulate the host's guests instead of running QEMU. Since 0.1.
    #[arg(long)]
    simulate: bool,
    /// Where this host tells its figures, at /metrics [default: 127.0.0.1:8778]. Since 0.1.
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,
    /// Join another cluster than before, or one that was restored from a backup, with the guests and volumes that are here: what that
    /// cluster does not know of them is destroyed. Since 0.1.
    #[arg(long, requires = "join")]
    take_over: bool,
    #[command(flatten)]
    network: NetworkFlags,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Host {
    pub(crate) address: IpAddr,
    /// Of a real host; the guests of one without are simulated.
    #[serde(default)]
    pub(crate) network: Option<Network>,
    /// Where its figures are told; `None`: at the usual place.
    #[serde(default)]
    pub(crate) metrics: Option<SocketAddr>,
    /// Lines of controllers, as they were when it joined.
    pub(crate) controllers: Vec<String>,
}

/// Says why the host cannot run guests, as long as it cannot.
fn problem(state: &State) -> PathBuf {
    state.run("problem")
}

/// Says to which controller the host is attached, as long as it is.
fn attached(state: &State) -> PathBuf {
    state.run("attached")
}

pub(crate) async fn node(state: &State, flags: &NodeFlags) -> Result<(), String> {
    state.create()?;
    let mut config = Config::load(state, &Flags::default())?;
    if state.config().exists() && config.node.is_none() {
        return Err(format!(
            "{} holds something else than a host; choose another directory with --state.",
            state.dir().display()
        ));
    }
    if let Some(invitation) = &flags.join {
        join(state, &mut config, flags, invitation).await?;
    } else if let Some(host) = &mut config.node {
        if let Some(network) = &host.network {
            host.network = Some(Network::configure(Some(network), &flags.network, host.address).await?);
        }
        config.save(state)?;
    } else {
        return Err("Say which cluster this host joins: --join TOKEN@HOST:PORT, as `drover join-token node` prints it.".into());
    }
    resume(state).await
}

async fn join(state: &State, config: &mut Config, flags: &NodeFlags, invitation: &Invitation) -> Result<(), String> {
    config.name = Some(admission::valid_name(&flags.name.clone().unwrap_or_else(|| config.name()))?);
    let address = match flags.address {
        Some(address) => address,
        None => towards(&invitation.line)
            .map_err(|e| format!("{} cannot be reached: {e}. Check the address, or give --address.", invitation.line))?,
    };
    let network = if flags.simulate {
        None
    } else {
        real_node::check_programs()?;
        let kept = config.node.as_ref().and_then(|host| host.network.as_ref());
        Some(Network::configure(kept, &flags.network, address).await?)
    };
    let files = Files::of(&state.pki());
    refuse_strangers(state, &files, flags, invitation)?;
    let request = files.request().map_err(|e| base::chain(&e))?;
    let identity = Identity { role: Role::Node, name: config.name() };
    progress(&format!("Asking {} to be let in …", invitation.line));
    let admitted = link::join(&invitation.line, &invitation.token, &identity, address, &request).await;
    let grant = admitted.map_err(|e| base::chain(&e))?.grant;
    files.keep(&Issued { certificate_pem: grant.certificate, ca_pem: grant.ca }).map_err(|e| base::chain(&e))?;
    let metrics = flags.metrics.or(config.node.as_ref().and_then(|n| n.metrics));
    config.node = Some(Host { metrics, address, network, controllers: grant.controllers });
    config.save(state)
}

/// A cluster destroys guests that it does not know; one that was not theirs, or is older than they are, must be allowed to.
fn refuse_strangers(state: &State, files: &Files, flags: &NodeFlags, invitation: &Invitation) -> Result<(), String> {
    let Ok(ca) = std::fs::read_to_string(&files.ca) else { return Ok(()) };
    if flags.take_over || invitation.token.check(&ca).is_ok() {
        return Ok(());
    }
    let here = |kind: &str| -> Vec<String> {
        let entries = std::fs::read_dir(state.node().join(kind)).into_iter().flatten().flatten();
        entries.map(|e| format!("{kind}/{}", e.file_name().to_string_lossy())).collect()
    };
    let all: Vec<String> = here("servers").into_iter().chain(here("volumes")).collect();
    if all.is_empty() {
        return Ok(());
    }
    Err(format!(
        "This host has guests or volumes of another cluster, or of this one before it was restored: {}. What the cluster does not know of them is destroyed when the host \
         joins. Save what you need of {}, compare with `openstack server list --all-projects --host NAME`, then repeat the command with --take-over.",
        all.join(" "),
        state.node().display()
    ))
}

/// Our address on the way to `host:port`; nothing is sent.
fn towards(line: &str) -> std::io::Result<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").or_else(|_| UdpSocket::bind("[::]:0"))?;
    socket.connect(line)?;
    Ok(socket.local_addr()?.ip())
}

/// Goes on with the host that is here; returns when it is attached to a controller.
pub(crate) async fn resume(state: &State) -> Result<(), String> {
    let ran = up::start_pair(state).await?;
    progress(if ran { "The host runs already; checking it …" } else { "Starting the host …" });
    let started = Instant::now();
    loop {
        if let Ok(line) = std::fs::read_to_string(attached(state)) {
            progress(&format!("Attached to {line} after {:.1} s.", started.elapsed().as_secs_f64()));
            return Ok(());
        }
        if started.elapsed() > ATTACHED_WITHIN {
            let log = state.run("drover").join("serve.log");
            let seconds = ATTACHED_WITHIN.as_secs();
            return Err(match std::fs::read_to_string(problem(state)) {
                Ok(cause) => format!(
                    "This host cannot run guests after {seconds} s; it goes on trying. {cause} The log is {}.",
                    log.display()
                ),
                Err(_) => {
                    format!("No controller took this host within {seconds} s; it goes on trying. The log is {}.", log.display())
                }
            });
        }
        sleep(LOOK).await;
    }
}

/// The host's process.
pub(crate) async fn serve(state: &State, config: &Config, host: &Host) -> Result<(), String> {
    let mark = attached(state);
    // From the process before.
    std::fs::remove_file(&mark).ok();
    let upstream = Upstream::start(Settings {
        name: config.name(),
        credentials: Credentials::read(&state.pki()).map_err(|e| base::chain(&e))?,
        controllers: host.controllers.clone(),
        remembered: state.dir().join("controllers.json"),
        version: env!("CARGO_PKG_VERSION").into(),
    });
    std::fs::create_dir_all(state.node()).map_err(|e| format!("Directory {} cannot be made: {e}.", state.node().display()))?;
    let (tell, mut running) = watch::channel(Guests::Wait);
    let guests = run_guests(state, config, host, upstream.clone(), tell);
    tokio::pin!(guests);
    let certified = keep_certified(state, &upstream);
    tokio::pin!(certified);
    let mut line = upstream.attached();
    let stop = serve::stop_on_signal()?;
    let exporter = Arc::new(Exporter::default());
    figures::register_node(&exporter, upstream.attached(), Files::of(&state.pki()).certificate);
    let figures = figures::serve(host.metrics.unwrap_or(figures::NODE), exporter, serve::stopped(stop.clone()));
    let _figures = JoinSet::from_iter([figures]);
    let stop = serve::stopped(stop);
    tokio::pin!(stop);
    loop {
        let (runs, why_not) = match &*running.borrow_and_update() {
            Guests::Wait => (false, None),
            Guests::Run => (true, None),
            Guests::Fail(cause) => (false, Some(cause.clone())),
        };
        note(state, &mark, line.borrow_and_update().clone().filter(|_| runs));
        note(state, &problem(state), why_not);
        tokio::select! {
            () = &mut stop => return Ok(()),
            () = &mut certified => {}
            () = &mut guests => {}
            changed = line.changed() => changed.map_err(|e| e.to_string())?,
            changed = running.changed() => changed.map_err(|e| e.to_string())?,
        }
    }
}

/// Keeps a text for those who look, or takes it away.
fn note(state: &State, path: &Path, text: Option<String>) {
    let noted = match text {
        Some(text) => state.write(path, text.as_bytes()),
        None => std::fs::remove_file(path)
            .or_else(|e| if e.kind() == ErrorKind::NotFound { Ok(()) } else { Err(e) })
            .map_err(|e| e.to_string()),
    };
    if let Err(e) = noted {
        tracing::debug!(error = e, "How the host is could not be noted");
    }
}

/// Runs the guests, real or simulated, for ever.
async fn run_guests(state: &State, config: &Config, host: &Host, upstream: Arc<Upstream>, tell: watch::Sender<Guests>) {
    if host.network.is_some() {
        return real_node::run(state, config, host, upstream, tell).await;
    }
    let mut settings = node::Config::new(state.node(), config.name());
    settings.host_ip = host.address.to_string();
    let blobs = Arc::new(RemoteBlobs(upstream.clone()));
    let (agent, _simulated) = node::sim::start(settings, sim::SIZE, Delays::default(), upstream.clone(), blobs);
    let agent: Arc<dyn assign::Agent> = agent;
    upstream.serve(&agent);
    tell.send_replace(Guests::Run);
    std::future::pending::<()>().await;
}

/// Asks for a new certificate when a third of the old one's time is left.
async fn keep_certified(state: &State, upstream: &Upstream) {
    let files = Files::of(&state.pki());
    loop {
        match renew(state, &files, upstream).await {
            Ok(false) => {}
            Ok(true) => tracing::info!("The certificate of this host was renewed"),
            Err(cause) => tracing::error!(cause, "The certificate of this host cannot be renewed; trying again"),
        }
        sleep(RENEWAL).await;
    }
}

async fn renew(state: &State, files: &Files, upstream: &Upstream) -> Result<bool, String> {
    let now = std::time::SystemTime::now();
    if !files.wants_renewal(now).map_err(|e| base::chain(&e))? {
        return Ok(false);
    }
    let request = files.request().map_err(|e| base::chain(&e))?;
    let certificate_pem = upstream.renew(&request.csr_pem).await.map_err(|e| base::chain(&e))?;
    let ca_pem = Credentials::read(&state.pki()).map_err(|e| base::chain(&e))?.ca;
    files.keep(&Issued { certificate_pem, ca_pem }).map_err(|e| base::chain(&e))?;
    upstream.renewed(Credentials::read(&state.pki()).map_err(|e| base::chain(&e))?);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use pki::{Ca, JoinToken};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: NodeFlags,
    }

    #[test]
    fn guests_are_not_given_to_another_cluster_without_a_word() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::new(dir.path().into());
        let files = Files::of(&state.pki());
        let (old, new) = (Ca::create("c").unwrap(), Ca::create("c").unwrap());
        let to = |ca: &Ca| Invitation { token: JoinToken::new(&ca.fingerprint()), line: "10.0.0.1:8775".into() };
        let flags = |args: &[&str]| Line::parse_from(["node"].iter().chain(args)).flags;
        refuse_strangers(&state, &files, &flags(&[]), &to(&new)).unwrap();
        std::fs::create_dir_all(state.pki()).unwrap();
        std::fs::write(&files.ca, old.certificate()).unwrap();
        refuse_strangers(&state, &files, &flags(&[]), &to(&new)).unwrap();
        std::fs::create_dir_all(state.node().join("servers/7f")).unwrap();
        let refused = refuse_strangers(&state, &files, &flags(&[]), &to(&new)).unwrap_err();
        assert!(refused.contains("servers/7f") && refused.contains("--take-over"), "{refused}");
        refuse_strangers(&state, &files, &flags(&[]), &to(&old)).unwrap();
        let word = format!("{}@10.0.0.1:8775", to(&new).token);
        refuse_strangers(&state, &files, &flags(&["--take-over", "--join", &word]), &to(&new)).unwrap();
    }
}
