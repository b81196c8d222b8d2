//! What a cloud needs before anybody can log in: the default domain, roles, the administrator and the catalog. Safe to run twice.
use crate::{
    Auth,
    grants::{Actor, Grant, SYSTEM, Target},
    lockout,
    resources::{ENDPOINT, PROJECT, REGION, ROLE, SERVICE, USER},
    rows::{self, IMPLIED},
};
use api::{Cloud, Error, Result};
use auth::{Caller, Role};
use resource::{Cx, Map, ResourceDef, engine};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Tx;

const DEFAULT_DOMAIN: &str = "default";
/// Each implies the next; `service` stands apart.
const CHAIN: [&str; 4] = ["admin", "manager", "member", "reader"];

/// A service of the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatalogService {
    /// As clients look for it.
    pub kind: &'static str,
    pub name: &'static str,
    /// Below the public endpoint.
    pub path: &'static str,
    pub description: &'static str,
}

/// What Drover can serve.
pub const CATALOG: [CatalogService; 7] = [
    CatalogService { kind: "identity", name: "keystone", path: "/identity", description: "Drover identity" },
    CatalogService { kind: "compute", name: "nova", path: "/compute/v2.1", description: "Drover compute" },
    CatalogService { kind: "image", name: "glance", path: "/image", description: "Drover images" },
    CatalogService { kind: "network", name: "neutron", path: "/network", description: "Drover network" },
    CatalogService { kind: "placement", name: "placement", path: "/placement", description: "Drover placement" },
    CatalogService { kind: "block-storage", name: "cinder", path: "/volume/v3", description: "Drover block storage" },
    // What clients looked for before the service types were settled; the same service.
    CatalogService { kind: "volumev3", name: "cinderv3", path: "/volume/v3", description: "Drover block storage" },
];

/// What [`bootstrap`] makes that is not the same in every cloud. The region and the public endpoint come from the settings.
#[derive(Clone, Debug)]
pub struct BootstrapConfig {
    /// Of the user `admin`; one that exists keeps its own.
    pub admin_password: String,
    pub services: Vec<CatalogService>,
}

/// A user to be made with a project: see [`ensure_user`].
#[derive(Clone, Debug)]
pub struct NewUser {
    pub name: String,
    pub password: String,
    /// A project of the default domain; it is made when it does not exist.
    pub project: String,
    pub role: String,
}

/// A context of our own, not of who asks.
pub(crate) fn context(cloud: &Cloud, why: &str) -> Cx {
    let admin = Role { id: "admin".into(), name: "admin".into() };
    cloud.cx(Arc::new(Caller::internal(vec![admin], "bootstrap")), why)
}

fn map(value: Value) -> Map {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// The id of what has that name in the domain; it is made when there is none. `more` is what a new row has besides.
fn ensure(tx: &mut Tx<'_>, cx: &Cx, def: &'static ResourceDef, domain: Option<&str>, name: &str, more: Value) -> Result<String> {
    if let Some(id) = rows::by_name(tx, &def.table, domain, name) {
        return Ok(id);
    }
    let mut input = map(json!({ "name": name }));
    if let Some(domain) = domain {
        input.insert("domain_id".into(), domain.into());
    }
    let mut row = resource::create_row(def, cx, &input, tx.now)?;
    row.extend(map(more));
    let row = engine::insert(tx, def, cx, row)?;
    Ok(row.get("id").and_then(Value::as_str).unwrap_or_default().to_owned())
}

fn grant(tx: &mut Tx<'_>, user: &str, target: Target, target_id: &str, role: &str) {
    let (actor_id, target_id, role_id) = (user.to_owned(), target_id.to_owned(), role.to_owned());
    let grant = Grant { actor: Actor::User, actor_id, target, target_id, role_id, inherited: false };
    if tx.get(&rows::ASSIGNMENTS, &grant.key()).is_none() {
        grant.put(tx);
    }
}

fn roles(tx: &mut Tx<'_>, cx: &Cx) -> Result<String> {
    let fixed = json!({"options": {"immutable": true}});
    let ids = CHAIN.iter().map(|name| ensure(tx, cx, ROLE, None, name, fixed.clone())).collect::<Result<Vec<String>>>()?;
    ensure(tx, cx, ROLE, None, "service", fixed)?;
    for pair in ids.windows(2) {
        let key = format!("{}:{}", pair[0], pair[1]);
        if tx.get(&IMPLIED, &key).is_none() {
            tx.put(&IMPLIED, &key, json!({"prior_role_id": pair[0], "implied_role_id": pair[1], "v": 1}));
        }
    }
    ids.into_iter().next().ok_or_else(|| Error::internal("there is a first role"))
}

fn catalog(tx: &mut Tx<'_>, cx: &Cx, services: &[CatalogService]) -> Result<()> {
    let region = cx.settings.region.clone();
    if tx.get(&REGION.table, &region).is_none() {
        engine::create(tx, REGION, cx, &map(json!({"id": region, "description": ""})))?;
    }
    let base = cx.settings.public_endpoint.trim_end_matches('/').to_owned();
    for s in services {
        let known = tx.find(&SERVICE.table, "type", s.kind).into_iter().find(|r| r.text("name") == s.name);
        let id = match known {
            Some(row) => row.id().to_owned(),
            None => {
                let input = json!({"type": s.kind, "name": s.name, "description": s.description});
                let row = engine::create(tx, SERVICE, cx, &map(input))?;
                row.get("id").and_then(Value::as_str).unwrap_or_default().to_owned()
            }
        };
        let url = format!("{base}{}", s.path);
        for interface in ["public", "internal", "admin"] {
            let mine = |r: &store::Row| r.text("interface") == interface && r.text("region_id") == region;
            match tx.find(&ENDPOINT.table, "service_id", &id).into_iter().find(|r| mine(r)) {
                // The public endpoint may have moved since the last start.
                Some(row) if row.text("url") == url => {}
                Some(row) => {
                    engine::update(tx, ENDPOINT, cx, row.id(), &map(json!({ "url": url })))?;
                }
                None => {
                    let input = json!({"interface": interface, "service_id": id, "region_id": region, "url": url});
                    engine::create(tx, ENDPOINT, cx, &map(input))?;
                }
            }
        }
    }
    Ok(())
}

/// Makes what is missing: domain `default`, the usual roles, projects `admin` and `service`, user `admin`, region and catalog.
///
/// The cloud's state must hold the [`Auth`].
pub async fn bootstrap(cloud: &Cloud, config: &BootstrapConfig) -> Result<()> {
    cloud.db.fresh().await?;
    let cx = context(cloud, "bootstrap");
    let hash = hash(cloud, &config.admin_password, "admin").await?;
    let services = config.services.clone();
    let auth = auth(cloud)?;
    let work = move |tx: &mut Tx<'_>| {
        if tx.get(&PROJECT.table, DEFAULT_DOMAIN).is_none() {
            let input = json!({"name": "Default", "description": "The default domain", "is_domain": true});
            let mut row = resource::create_row(PROJECT, &cx, &map(input), tx.now)?;
            row.insert("id".into(), DEFAULT_DOMAIN.into());
            engine::insert(tx, PROJECT, &cx, row)?;
        }
        let admin_role = roles(tx, &cx)?;
        let domain = Some(DEFAULT_DOMAIN);
        let project =
            ensure(tx, &cx, PROJECT, domain, "admin", json!({"description": "Bootstrap project for initializing the cloud."}))?;
        ensure(tx, &cx, PROJECT, domain, "service", json!({"description": "Service users' project"}))?;
        let new = rows::by_name(tx, &USER.table, domain, "admin").is_none();
        // Whoever guesses at the administrator's password must not be able to keep the administrator out; nor must a long holiday.
        let options = json!({"ignore_lockout_failure_attempts": true, "ignore_user_inactivity": true});
        let admin = ensure(tx, &cx, USER, domain, "admin", json!({"password_hash": hash, "options": options}))?;
        if new {
            grant(tx, &admin, Target::Project, &project, &admin_role);
            grant(tx, &admin, Target::System, SYSTEM, &admin_role);
        }
        lockout::begin(tx, &auth);
        catalog(tx, &cx, &services)
    };
    run(cloud, work).await
}

/// Makes a user of the default domain with a role on a project, and the project, where they are missing. A user that exists keeps
/// its password. Gives the ids of the user and the project.
pub async fn ensure_user(cloud: &Cloud, user: &NewUser) -> Result<(String, String)> {
    cloud.db.fresh().await?;
    let cx = context(cloud, "bootstrap");
    let hash = hash(cloud, &user.password, &user.name).await?;
    let user = user.clone();
    run(cloud, move |tx| {
        let domain = Some(DEFAULT_DOMAIN);
        let project = ensure(tx, &cx, PROJECT, domain, &user.project, json!({}))?;
        let id = ensure(tx, &cx, USER, domain, &user.name, json!({"password_hash": hash, "default_project_id": project}))?;
        let role = rows::by_name(tx, &ROLE.table, None, &user.role);
        let role = role.ok_or_else(|| Error::not_found(format!("Could not find role: {}.", user.role)))?;
        grant(tx, &id, Target::Project, &project, &role);
        Ok((id, project))
    })
    .await
}

fn auth(cloud: &Cloud) -> Result<Arc<Auth>> {
    cloud.state.get::<Auth>().ok_or_else(|| Error::internal("the cloud's state has no identity::Auth"))
}

/// The hash for a user who does not exist yet; hashing is not for nothing.
async fn hash(cloud: &Cloud, password: &str, user: &str) -> Result<Value> {
    let known = rows::by_name(&mut &cloud.db.read(), &USER.table, Some(DEFAULT_DOMAIN), user).is_some();
    if known {
        return Ok(Value::Null);
    }
    auth(cloud)?.passwords.hash(password).await.map(Value::from).map_err(|e| Error::internal(base::chain(&e)))
}

async fn run<T: Send + 'static>(cloud: &Cloud, work: impl FnMut(&mut Tx<'_>) -> Result<T> + Send + 'static) -> Result<T> {
    Ok(cloud.db.transact(work).await?.value)
}
