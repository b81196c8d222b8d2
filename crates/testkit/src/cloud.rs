//! [`TestCloud`]: the API of a whole cloud in this process; [`Assembled`] is the same without a port.
use crate::Client;
use api::{Cloud, Edge, Service};
use auth::password::Cost;
use base::{Clock, SystemClock};
use reconcile::Shards;
use resource::{Settings, StateMap};
use serde_json::{Value, json};
use std::{net::SocketAddr, sync::Arc};
use store::{Db, Memory, Store, Table};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot};

/// Password of the user `admin`.
pub const ADMIN_PASSWORD: &str = "admin-of-the-test-cloud";

/// Gives the handlers of a service their state.
pub type Prepare = Box<dyn FnOnce(&Arc<Shards>, &mut StateMap) + Send>;

/// What a cloud is made of besides the identity service; the defaults are all that tests of identity need.
///
/// A test of another service names its service and, in `prepare`, the state that its handlers ask for.
pub struct Setup {
    /// Of the process, as other members see it.
    pub name: String,
    pub services: Vec<Service>,
    /// Runs when the store is open and before the first request.
    pub prepare: Prepare,
    /// Tables besides those of the services and of the engine.
    pub tables: Vec<&'static Table>,
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    /// Port 0 is any that is free.
    pub address: SocketAddr,
    pub admin_password: String,
    /// Policy overrides: name and rule.
    pub policy: Vec<(String, String)>,
    /// Rules for passwords and accounts.
    pub security_compliance: identity::SecurityCompliance,
    /// How unified limits must fit.
    pub limit_model: identity::LimitModel,
    /// Of another process of the same cloud; by default new ones.
    pub keys: Option<Arc<TempDir>>,
    /// Dashboards, and networks of identity providers.
    pub federation: identity::FederationConfig,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            name: "test".into(),
            services: Vec::new(),
            prepare: Box::new(|_, _| {}),
            tables: Vec::new(),
            store: Memory::new(),
            clock: Arc::new(SystemClock),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin_password: ADMIN_PASSWORD.into(),
            policy: Vec::new(),
            security_compliance: identity::SecurityCompliance::default(),
            limit_model: identity::LimitModel::default(),
            keys: None,
            federation: identity::FederationConfig::default(),
        }
    }
}

/// One process of a cloud, bootstrapped, without a port.
pub struct Assembled {
    pub cloud: Arc<Cloud>,
    /// For runners of reconcilers.
    pub shards: Arc<Shards>,
    pub edge: Edge,
    /// Every route, with its service's name and prefix.
    pub routes: Vec<crate::matrix::Known>,
    /// Tokens are made with these.
    pub keys: Arc<TempDir>,
}

impl Setup {
    /// Opens the store, joins the cloud and puts the services together. `url` is where clients reach it. Fails when the store does.
    pub async fn assemble(self, url: &str) -> Result<Assembled, String> {
        let keys = self.keys.unwrap_or_else(|| Arc::new(tempfile::tempdir().expect("a directory for keys")));
        let mut services = vec![identity::service()];
        services.extend(self.services);

        let mut tables = api::tables(&services);
        tables.extend(reconcile::TABLES);
        tables.extend(self.tables);
        let db = Db::open(self.store, self.clock, &tables).await.map_err(|e| base::chain(&e))?;

        let shards = Shards::join(db.clone(), &self.name, None).await.map_err(|e| base::chain(&e))?;
        let config = identity::AuthConfig {
            password_cost: Cost { memory_kib: 8, passes: 1, lanes: 1 },
            federation: self.federation,
            security_compliance: self.security_compliance,
            limit_model: self.limit_model,
            ..identity::AuthConfig::new(keys.path())
        };
        let auth = identity::Auth::open(db.clone(), config).map_err(|e| base::chain(&e))?;
        let mut state = StateMap::default();
        state.insert(auth.clone());
        state.insert(Arc::new(base::metrics::Exporter::default()));
        (self.prepare)(&shards, &mut state);
        let catalog = services.iter().filter_map(|s| catalog_entry(s.name)).collect();
        let policy = api::Policy::new(api::rules(&services), self.policy).map_err(|e| base::chain(&e))?;
        let cloud = Arc::new(Cloud {
            db,
            settings: Arc::new(Settings {
                region: "RegionOne".into(),
                quotas: api::quotas(&services),
                public_endpoint: url.to_owned(),
            }),
            policy: Arc::new(policy),
            registry: Arc::new(api::registry(&services)),
            state: Arc::new(state),
            authenticator: auth,
        });
        let config = identity::BootstrapConfig { admin_password: self.admin_password, services: catalog };
        identity::bootstrap(&cloud, &config).await.map_err(|e| base::chain(&e))?;

        let routes = crate::matrix::known(&services);
        let edge = Edge::new(cloud.clone(), services);
        Ok(Assembled { cloud, shards, edge, routes, keys })
    }
}

/// The API of a cloud on a port of its own. It stops when it is dropped.
pub struct TestCloud {
    /// `http://127.0.0.1:port`
    pub url: String,
    pub cloud: Arc<Cloud>,
    /// For runners of reconcilers.
    pub shards: Arc<Shards>,
    /// Every route, with its service's name and prefix: what the access matrix walks.
    pub routes: Vec<crate::matrix::Known>,
    admin_password: String,
    _stop: oneshot::Sender<()>,
    /// Tokens are made with these; for a second process of this cloud.
    pub keys: Arc<TempDir>,
}

impl TestCloud {
    /// A cloud with the services that need nothing besides the store.
    pub async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    /// A cloud with these services and the identity service, bootstrapped.
    pub async fn with(setup: Setup) -> Self {
        let listener = TcpListener::bind(setup.address).await.expect("a port on the loopback");
        let url = format!("http://{}", listener.local_addr().expect("a bound port"));
        let admin_password = setup.admin_password.clone();
        let Assembled { cloud, shards, edge, routes, keys } = setup.assemble(&url).await.expect("the cloud starts");
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(api::serve(listener, edge.router, async move {
            stopped.await.ok();
        }));
        Self { url, cloud, shards, routes, admin_password, _stop: stop, keys }
    }

    /// A client without a token.
    pub fn anonymous(&self) -> Client {
        Client::new(&self.url)
    }
    /// The administrator, scoped to the project `admin`.
    pub async fn admin(&self) -> Client {
        self.anonymous().login_to("admin", &self.admin_password, "admin").await
    }
    /// A user with the role `member` in a project of that name; both are made when they do not exist.
    pub async fn member(&self, project: &str) -> Client {
        self.user(project, "member").await
    }
    /// A user `<project>-<role>` with that role in a project of that name; both are made when they do not exist.
    pub async fn user(&self, project: &str, role: &str) -> Client {
        let admin = self.admin().await;
        let (name, password) = (format!("{project}-{role}"), format!("password of {project}-{role}"));
        let project_id = ensure(&admin, "project", json!({ "name": project })).await;
        let user_id = ensure(&admin, "user", json!({"name": name, "password": password})).await;
        let role_id = ensure(&admin, "role", json!({ "name": role })).await;
        admin.put(&format!("/identity/v3/projects/{project_id}/users/{user_id}/roles/{role_id}"), Value::Null).await.expect(204);
        self.anonymous().login_to(&name, &password, project).await
    }
}

async fn ensure(admin: &Client, kind: &str, body: Value) -> String {
    let name = body["name"].as_str().unwrap_or_default();
    let found = admin.get(&format!("/identity/v3/{kind}s?name={name}")).await.expect(200);
    if let Some(id) = found.at(&format!("/{kind}s/0/id")).as_str() {
        return id.to_owned();
    }
    admin.post(&format!("/identity/v3/{kind}s"), json!({ kind: body })).await.expect(201).text(&format!("/{kind}/id"))
}

fn catalog_entry(service: &str) -> Option<identity::CatalogService> {
    identity::CATALOG.iter().find(|c| c.path.split('/').nth(1) == Some(service)).cloned()
}
