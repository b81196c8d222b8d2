//! `drover serve`: every role of one machine in one process, wired together. Decisions are made elsewhere.
use crate::{
    config::{Config, Flags, State},
    engine, figures, host, sim, up,
};
use api::{Cloud, Edge, Service};
use base::{SystemClock, metrics::Exporter};
use compute::nodes::Nodes;
use image::blob::LocalStore;
use reconcile::{Runner, Shards, TaskList};
use resource::{Settings, StateMap};
use std::{sync::Arc, time::Duration};
use store::Db;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

/// Work that one process of the cloud does: making OVN as the rows say.
const OVN: &str = "network/ovn";
/// Another: forgetting old idempotency keys.
const KEYS: &str = "api/idempotency_keys";
const BACKOFF: base::retry::Backoff = base::retry::Backoff::new(Duration::from_millis(500), Duration::from_secs(30));

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
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|e| format!("Address {} cannot be used: {e}. Choose another with --listen.", config.listen))?;
    let (cloud, services) = assemble(state, &config).await?;
    let mut work = JoinSet::new();
    let shards: Arc<Shards> = cloud.state.get().ok_or("no shards")?;
    start_work(state, &config, &cloud, &shards, &mut work)?;
    let mut stop = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    let edge = Edge::new(cloud, services);
    tracing::info!(address = %config.listen, "The APIs are served");
    api::serve(listener, edge.router, async move {
        stop.recv().await;
    })
    .await
    .map_err(|e| format!("The APIs cannot be served: {e}."))?;
    shards.leave().await.map_err(|e| base::chain(&e))
}

async fn assemble(state: &State, config: &Config) -> Result<(Arc<Cloud>, Vec<Service>), String> {
    let blobs = Arc::new(LocalStore::open(state.images()).map_err(|e| base::chain(&e))?);
    let image = image::Options { require_format: config.require_image_format_match, ..image::Options::default() };
    let services = vec![
        operator::health(),
        operator::service_v1(),
        identity::service(),
        image::service_with(blobs.clone(), image),
        compute::service(),
        network::service(),
        placement::service(),
        volume::service(),
    ];
    let store = engine::open(state, config).await?;
    let tables: Vec<_> = api::tables(&services).into_iter().chain(reconcile::TABLES).collect();
    let db = Db::open(store, Arc::new(SystemClock), &tables).await.map_err(|e| base::chain(&e))?;
    let auth =
        identity::Auth::open(db.clone(), identity::AuthConfig::new(&state.keys("identity"))).map_err(|e| base::chain(&e))?;
    let mut shared = StateMap::default();
    shared.insert(auth.clone());
    shared.insert(blobs);
    shared.insert(Arc::new(TaskList::default()));
    let exporter = Arc::new(Exporter::default());
    shared.insert(exporter.clone());
    shared.insert(Arc::new(operator::Documents::of(&services, &config.endpoint())));
    let shards = Shards::join(db.clone(), &config.name(), None).await.map_err(|e| base::chain(&e))?;
    shared.insert(Nodes::new(shards.clone()));
    shared.insert(shards);
    shared.insert(Arc::new(compute::Config { build_timeout: Duration::from_secs(config.build_timeout_s) }));
    let settings = Settings { region: config.region.clone(), quotas: api::quotas(&services), public_endpoint: config.endpoint() };
    let policy = resource::policy_book(api::rules(&services), Vec::new()).map_err(|e| base::chain(&e))?;
    let cloud = Arc::new(Cloud {
        db,
        settings: Arc::new(settings),
        policy: Arc::new(policy),
        registry: Arc::new(api::registry(&services)),
        state: Arc::new(shared),
        authenticator: auth,
    });
    figures::register(&exporter, &cloud);
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
    Ok((cloud, services))
}

fn start_work(
    state: &State,
    config: &Config,
    cloud: &Arc<Cloud>,
    shards: &Arc<Shards>,
    work: &mut JoinSet<()>,
) -> Result<(), String> {
    let tasks: Arc<TaskList> = cloud.state.get().ok_or("no task list")?;
    let nodes: Arc<Nodes> = cloud.state.get().ok_or("no nodes")?;
    let blobs: Arc<LocalStore> = cloud.state.get().ok_or("no blobs")?;
    let mut runner = Runner::new(shards.clone(), tasks);
    runner.spawn(Arc::new(image::Sweeper::new(blobs.clone())));
    runner.spawn(Arc::new(image::Uploads));
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
    if config.simulate > 0 {
        let db = cloud.db.clone();
        work.spawn(shards.clone().lead(OVN, move |fence| network::reconcile::run_sim(db.clone(), fence)));
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
