//! `drover serve`: every role of one machine in one process, wired together. Decisions are made elsewhere.
use crate::{
    admission::Admission,
    central,
    config::{Config, Flags, State},
    door, engine, figures, host, images, line, node_role, schema, sim, up, upkeep,
};
use api::{Cloud, Edge, ServerTls, Service, TlsListener};
use base::{Clock, SteadyClock, SystemClock, metrics::Exporter};
use compute::nodes::Nodes;
use frontdoor::Voice;
use image::{Stores, blob::LocalStore};
use link::Peers;
use pki::{Ca, Files};
use reconcile::{Runner, Shards, TaskList};
use resource::{Settings, StateMap};
use std::{sync::Arc, time::Duration};
use store::Db;
use store_etcd::Etcd;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

/// Work that one process of the cloud does: making OVN as the rows say.
const OVN: &str = "network/ovn";
/// Another: forgetting old idempotency keys.
const KEYS: &str = "api/idempotency_keys";
const BACKOFF: base::retry::Backoff = base::retry::Backoff::new(Duration::from_millis(500), Duration::from_secs(30));

/// Every door knows within this time that nothing new is wanted here: it is said five times a second, asked ten times, and told ten times.
const DOORS_KNOW: Duration = Duration::from_millis(800);

/// Events go to stderr, which is the log file of the role: as text, or as JSON by `DROVER_LOG_FORMAT=json`.
pub(crate) fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("DROVER_LOG").unwrap_or_else(|_| "info".into());
    // A full disk must not turn an event into a panic.
    let quiet = tracing_subscriber::fmt().log_internal_errors(false);
    let quiet = quiet.with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    match std::env::var("DROVER_LOG_FORMAT").as_deref() {
        // One object a line, its fields beside the message: `request_id` is one of them.
        Ok("json") => quiet.json().flatten_event(true).init(),
        _ => quiet.init(),
    }
}

pub(crate) async fn serve(state: &State) -> Result<(), String> {
    log();
    let config = Config::load(state, &Flags::default())?;
    let _partner = if up::is_going_down(state) { None } else { Some(up::watch_partner(state, "supervise")?) };
    if let Some(host) = &config.node {
        return node_role::serve(state, &config, host).await;
    }
    let _etcd = watch_etcd(state, &config)?;
    let mut listeners = Vec::new();
    for address in config.listens() {
        let bound = TcpListener::bind(address).await;
        listeners.push(bound.map_err(|e| format!("Address {address} cannot be used: {e}. Choose another with --listen."))?);
    }
    let (cloud, services, etcd) = assemble(state, &config).await?;
    let mut work = JoinSet::new();
    let shards: Arc<Shards> = cloud.state.get().ok_or("no shards")?;
    start_work(state, &config, &cloud, etcd.clone(), &shards, &mut work)?;
    upkeep::start(state, &config, etcd.clone(), &shards, &mut work);
    start_line(state, &config, &cloud, etcd, &mut work).await?;
    let stop = drained(stop_on_signal()?, &cloud, &config);
    let edge = Edge::new(cloud, services);
    let mut serving = JoinSet::new();
    for listener in listeners {
        let (router, stop) = (edge.router.clone(), stopped(stop.clone()));
        match &config.controller {
            Some(_) => {
                let Files { certificate, key, .. } = Files::of(&state.pki());
                let listener = TlsListener::new(listener, ServerTls { certificate, key }).map_err(|e| base::chain(&e))?;
                serving.spawn(api::serve_tls(listener, router, stop));
            }
            None => {
                serving.spawn(api::serve(listener, router, stop));
            }
        }
    }
    tracing::info!(endpoint = config.local_endpoint(), "The APIs are served");
    while let Some(ended) = serving.join_next().await {
        ended.map_err(|e| e.to_string())?.map_err(|e| format!("The APIs cannot be served: {e}."))?;
    }
    shards.leave().await.map_err(|e| base::chain(&e))
}

/// Keeps the own member of etcd running, where there is one.
fn watch_etcd(state: &State, config: &Config) -> Result<Option<supervise::Watched>, String> {
    let member = config.controller.as_ref().and_then(|c| c.member(state, &config.name()));
    if up::is_going_down(state) {
        return Ok(None);
    }
    member.map(|m| m.watch()).transpose().map_err(|e| base::chain(&e))
}

/// True when this process was told to stop.
pub(crate) fn stop_on_signal() -> Result<watch::Receiver<bool>, String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    let (tell, stop) = watch::channel(false);
    tokio::spawn(async move {
        terminate.recv().await;
        tell.send_replace(true);
    });
    Ok(stop)
}

/// True a little later, when every door knows that nothing new is wanted here.
fn drained(stop: watch::Receiver<bool>, cloud: &Arc<Cloud>, config: &Config) -> watch::Receiver<bool> {
    let Some(drain) = cloud.state.get::<operator::Drain>().filter(|_| config.controller.is_some()) else { return stop };
    let (tell, drained) = watch::channel(false);
    tokio::spawn(async move {
        stopped(stop).await;
        drain.begin();
        tokio::time::sleep(DOORS_KNOW).await;
        tell.send_replace(true);
    });
    drained
}

pub(crate) async fn stopped(mut stop: watch::Receiver<bool>) {
    // Without a sender nobody can tell any more, which is as good as a word.
    stop.wait_for(|stop| *stop).await.ok();
}

/// Takes machines that join, and nodes, where this is a controller.
async fn start_line(
    state: &State,
    config: &Config,
    cloud: &Arc<Cloud>,
    etcd: Option<Arc<Etcd>>,
    work: &mut JoinSet<()>,
) -> Result<(), String> {
    let Some(controller) = &config.controller else { return Ok(()) };
    let listener = link::listen(controller.link()).await.map_err(|e| base::chain(&e))?;
    let credentials = link::Credentials::read(&state.pki()).map_err(|e| base::chain(&e))?;
    // On the file system of the images, so that what came need not be copied.
    let incoming = state.images().join("from-nodes");
    std::fs::create_dir_all(&incoming).map_err(|e| format!("Directory {} cannot be made: {e}.", incoming.display()))?;
    let peers = Peers::new(credentials.clone());
    let nodes: Arc<Nodes> = cloud.state.get().ok_or("no nodes")?;
    let blobs: Arc<LocalStore> = cloud.state.get().ok_or("no blobs")?;
    let shards = cloud.state.get().ok_or("no shards")?;
    let stores: Arc<Stores> = cloud.state.get().ok_or("no stores")?;
    let others = Arc::new(line::OtherStores { shards, peers: peers.clone(), own: controller.link().to_string() });
    stores.directories().for_each(|directory| directory.join(others.clone()));
    let elsewhere = peers.clone();
    nodes.reach(Box::new(move |line, host| elsewhere.agent(line, host).ok()));
    if !controller.has_front_door() {
        tracing::warn!("haproxy is not installed: this controller has no front door, and no VIP; install haproxy and keepalived");
    } else if !up::is_going_down(state) {
        let db = cloud.db.clone();
        let voice = Voice::new(&state.run("door"), cloud.state.get().ok_or("no clock")?, move || db.silence());
        work.spawn(door::speak(cloud.clone(), voice.clone()));
        work.spawn(door::keep(state.clone(), config.clone(), etcd.clone(), voice));
    }
    let line = Arc::new(line::Line {
        admission: Admission { state: state.clone(), cloud: cloud.clone(), etcd },
        nodes,
        blobs,
        stores,
        incoming,
    });
    let service = link::Service::new(line);
    work.spawn(line::keep(listener, controller.link(), state.pki(), credentials, service, peers));
    Ok(())
}

type Assembled = (Arc<Cloud>, Vec<Service>, Option<Arc<Etcd>>);

async fn assemble(state: &State, config: &Config) -> Result<Assembled, String> {
    let stores = images::open(state, config)?;
    let services = vec![
        operator::health(),
        operator::service_v1(),
        identity::service(),
        image::service_with(stores.clone(), images::options(config)),
        compute::service(),
        network::service(),
        placement::service(),
        volume::service(),
    ];
    let engine::Opened { store, etcd } = engine::open(state, config).await?;
    let tables: Vec<_> = api::tables(&services).into_iter().chain(reconcile::TABLES).chain([&schema::TABLE]).collect();
    // Set by what the pulse tells, which goes with the door.
    let steady = Arc::new(SteadyClock::default());
    let has_pulse = config.controller.as_ref().is_some_and(|c| c.has_front_door());
    let clock: Arc<dyn Clock> = if has_pulse { steady.clone() } else { Arc::new(SystemClock) };
    let db = Db::open(store, clock, &tables).await.map_err(|e| base::chain(&e))?;
    schema::ensure(&db).await?;
    stores.attach(db.clone());
    let federation = identity::FederationConfig {
        trusted_dashboards: config.trusted_dashboards.clone(),
        networks: config.federation_networks.clone(),
    };
    let options = identity::AuthConfig {
        security_compliance: config.security_compliance.clone(),
        limit_model: config.limit_model,
        federation,
        ..identity::AuthConfig::new(&state.keys("identity"))
    };
    let auth = identity::Auth::open(db.clone(), options).map_err(|e| base::chain(&e))?;
    let mut shared = StateMap::default();
    shared.insert(auth.clone());
    shared.insert(steady);
    shared.insert(stores.base().clone());
    shared.insert(stores);
    if let Some(protections) = images::protections(config)? {
        shared.insert(Arc::new(protections));
    }
    shared.insert(Arc::new(TaskList::default()));
    shared.insert(Arc::new(operator::Drain::default()));
    let exporter = Arc::new(Exporter::default());
    shared.insert(exporter.clone());
    shared.insert(Arc::new(operator::Documents::of(&services, &config.endpoint())));
    let line = config.controller.as_ref().map(|c| c.link().to_string());
    let shards = Shards::join(db.clone(), &config.name(), line.clone()).await.map_err(|e| base::chain(&e))?;
    if let Some(address) = line {
        let ca = Ca::load(&state.pki()).map_err(|e| base::chain(&e))?;
        shared.insert(Arc::new(operator::Gate { fingerprint: ca.fingerprint(), address }));
    }
    if let Some(seats) = upkeep::seats(state, config, etcd.as_ref()) {
        shared.insert(Arc::new(seats));
    }
    shared.insert(Nodes::new(shards.clone()));
    shared.insert(shards);
    shared.insert(Arc::new(compute::Config { build_timeout: Duration::from_secs(config.build_timeout_s) }));
    let settings = Settings { region: config.region.clone(), quotas: api::quotas(&services), public_endpoint: config.endpoint() };
    let policy = api::Policy::new(api::rules(&services), Vec::new()).map_err(|e| base::chain(&e))?;
    let cloud = Arc::new(Cloud {
        db,
        settings: Arc::new(settings),
        policy: Arc::new(policy),
        registry: Arc::new(api::registry(&services)),
        state: Arc::new(shared),
        authenticator: auth,
    });
    figures::register(&exporter, &cloud);
    if config.controller.is_some() {
        figures::register_certificate(&exporter, Files::of(&state.pki()).certificate);
    }
    let catalog = identity::CATALOG.to_vec();
    let bootstrap = identity::BootstrapConfig { admin_password: state.password("admin")?, services: catalog };
    identity::bootstrap(&cloud, &bootstrap).await.map_err(|e| e.to_string())?;
    volume::bootstrap(&cloud.db).await.map_err(|e| e.to_string())?;
    let demo = identity::NewUser {
        name: "demo".into(),
        password: state.password("demo")?,
        project: "demo".into(),
        role: "member".into(),
    };
    identity::ensure_user(&cloud, &demo).await.map_err(|e| e.to_string())?;
    Ok((cloud, services, etcd))
}

fn start_work(
    state: &State,
    config: &Config,
    cloud: &Arc<Cloud>,
    etcd: Option<Arc<Etcd>>,
    shards: &Arc<Shards>,
    work: &mut JoinSet<()>,
) -> Result<(), String> {
    let tasks: Arc<TaskList> = cloud.state.get().ok_or("no task list")?;
    let nodes: Arc<Nodes> = cloud.state.get().ok_or("no nodes")?;
    let blobs: Arc<LocalStore> = cloud.state.get().ok_or("no blobs")?;
    let mut runner = Runner::new(shards.clone(), tasks);
    let stores: Arc<Stores> = cloud.state.get().ok_or("no stores")?;
    let options = images::options(config);
    runner.spawn(Arc::new(image::Sweeper::of_stores(stores.clone(), options.cache)));
    runner.spawn(Arc::new(image::Uploads));
    runner.spawn(Arc::new(image::Imports::new(stores.clone(), options)));
    runner.spawn(Arc::new(image::Garbage::new(stores.clone())));
    work.spawn(async move { stores.check().await });
    for reconciler in compute::reconcilers(cloud).into_iter().chain(volume::reconcilers(cloud)) {
        runner.spawn(reconciler);
    }
    work.spawn(async move {
        let _runner = runner;
        std::future::pending::<()>().await;
    });
    work.spawn(nodes.clone().run(cloud.clone()));
    let db = cloud.db.clone();
    let forget = move |fence: reconcile::Fence| api::idempotency::sweep(db.clone(), move |tx| fence.check(tx));
    work.spawn(shards.clone().lead(KEYS, forget));
    if !config.has_host() {
        let db = cloud.db.clone();
        match central::of(state, config) {
            Some(central) => {
                let (rows, tls) = (db.clone(), central.certificates.databases());
                let compile = move |fence| network::reconcile::run_cluster(rows.clone(), fence, tls.clone());
                work.spawn(shards.clone().lead(OVN, compile));
                if !up::is_going_down(state) {
                    work.spawn(network::ovn::cluster::keep(db, central, central::roster(config, etcd)));
                }
            }
            // Hosts are simulated in this process: there is no OVN to be kept.
            None => {
                work.spawn(shards.clone().lead(OVN, move |fence| network::reconcile::run_sim(db.clone(), fence)));
            }
        }
        work.spawn(sim::run(state.clone(), config.clone(), nodes, blobs));
        return Ok(());
    }
    let central = host::central(state);
    let (db, name) = (cloud.db.clone(), config.name());
    let compile = move |fence| network::reconcile::run(db.clone(), fence, central.clone(), vec![name.clone()]);
    work.spawn(shards.clone().lead(OVN, compile));
    let (state, config) = (state.clone(), config.clone());
    work.spawn(async move {
        let mut attempt = 0;
        let name = config.name();
        let host = loop {
            match start_host(&state, &config, &nodes, &name, &blobs).await {
                Ok(host) => break host,
                Err(cause) => {
                    tracing::error!(cause, "The host cannot run guests yet; trying again");
                    tokio::time::sleep(BACKOFF.jittered(attempt)).await;
                    attempt += 1;
                }
            }
        };
        nodes.attach(&name, host.agent.clone());
        std::future::pending::<()>().await;
        drop(host);
    });
    Ok(())
}

async fn start_host(
    state: &State,
    config: &Config,
    nodes: &Arc<Nodes>,
    name: &str,
    blobs: &Arc<LocalStore>,
) -> Result<host::Host, String> {
    host::start(state, config, nodes.join(name).await, blobs.clone()).await
}

/// Ends what outlives this process, for `down`.
pub(crate) async fn stop_host(state: &State, config: &Config) -> Result<(), String> {
    host::stop(state, config).await
}
