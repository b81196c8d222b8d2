//! The operator's API: health for the front door, and what `drover status`, `why`, `task list` and `node list` show.
//!
//! | path | what |
//! |---|---|
//! | `GET /livez` | this process runs, with or without its store |
//! | `GET /readyz` | this process can serve right now: its view has reached the store; 404 while it finishes what it has and wants nothing new |
//! | `GET /operator/v1/status` | counts of what the cloud holds |
//! | `GET /operator/v1/tasks` | reconcilers, and keys in trouble with their last error and next run |
//! | `GET /operator/v1/shards` | the processes that live, and how much of the work is whose |
//! | `GET /operator/v1/controllers`, `DELETE …/{name}` | controllers, also those that are away; one that does not come back |
//! | `POST /operator/v1/join-tokens`, `GET`, `DELETE …/{id}` | what machines join the cluster with |
//! | `GET /operator/v1/nodes` | hosts as they last reported |
//! | `GET /operator/v1/openapi/{service}` | the OpenAPI document of a service, made from its tables |
//! | `GET /operator/v1/token-keys`, `POST` | the keys of tokens, counted; rotates them |
//! | `GET /operator/v1/policy`, `PUT`, `DELETE` | the rules in force; an own file above the defaults |
//! | `POST /operator/v1/policy/decisions` | why somebody may do something, or may not |
//! | `GET /operator/v1/why/{what}/{id}` | the story of one resource, by id or name |
mod controllers;
mod policy;
mod tokens;

pub use controllers::{Members, Pending, Seats, StoreMember};
pub use tokens::{Gate, JOIN_TOKENS, Newcomer, admit};

use api::{Access, Call, Dialect, Error, Map, Reply, Result, Route, Service, dialect};
use reconcile::TaskList;
use resource::{ResourceDef, engine};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use store::Row;

const RULE: Access = Access::Rule("operator:read", "admin");
/// Who may change which machines belong to the cluster.
const MACHINES: Access = Access::Rule("operator:machines", "admin");

/// Who may change the rules that all of this is allowed by.
const RULES: Access = Access::Rule(api::policy::MAY_CHANGE, "admin");

/// Health and index, at the root.
pub fn health() -> Service {
    service(
        "health",
        "",
        vec![
            Route::new("GET", "/livez", Access::Public, |_| async { Ok(Reply::text(200, "text/plain", "ok\n")) }).without_rows(),
            // The pipeline has already waited for a fresh view: an answer is the proof.
            Route::new("GET", "/readyz", Access::Public, ready),
            Route::new("GET", "/", Access::Public, index),
        ],
    )
}

/// The API under `/operator`.
pub fn service_v1() -> Service {
    let service = service(
        "operator",
        "/operator",
        vec![
            Route::new("GET", "/v1/status", RULE, status),
            Route::new("GET", "/v1/tasks", RULE, tasks),
            Route::new("GET", "/v1/nodes", RULE, nodes),
            Route::new("GET", "/v1/shards", RULE, shards),
            Route::new("GET", "/v1/openapi/{service}", Access::Authenticated, openapi),
            Route::new("GET", "/v1/why/{what}/{id}", RULE, why),
            Route::new("GET", "/v1/token-keys", RULE, |call: Call| async move { keys(call.cloud.authenticator.token_keys()?) }),
            Route::new("POST", "/v1/token-keys", MACHINES, |call: Call| async move {
                keys(call.cloud.authenticator.rotate_token_keys().await?)
            }),
            Route::new("GET", "/v1/policy", RULE, policy::show),
            Route::new("PUT", "/v1/policy", RULES, policy::put),
            Route::new("DELETE", "/v1/policy", RULES, policy::delete),
            Route::new("POST", "/v1/policy/decisions", RULE, policy::decide),
            Route::new("GET", "/v1/controllers", RULE, controllers::list),
            Route::new("DELETE", "/v1/controllers/{name}", MACHINES, controllers::remove),
            Route::new("POST", "/v1/join-tokens", MACHINES, tokens::create),
            Route::new("GET", "/v1/join-tokens", MACHINES, tokens::list),
            Route::new("DELETE", "/v1/join-tokens/{id}", MACHINES, tokens::delete),
        ],
    );
    Service { tables: vec![&JOIN_TOKENS], ..service }
}

/// The documents of all services by name, made at start.
pub struct Documents(BTreeMap<&'static str, Value>);
impl Documents {
    pub fn of(services: &[Service], endpoint: &str) -> Self {
        Self(services.iter().map(|s| (s.name, api::openapi(s, endpoint))).collect())
    }
}

async fn openapi(call: Call) -> Result<Reply> {
    let documents: Arc<Documents> = call.cx.state()?;
    let name = call.param("service");
    documents.0.get(name).map(|d| Reply::ok(d.clone())).ok_or_else(|| Error::not_found(format!("There is no service {name}.")))
}

fn service(name: &'static str, prefix: &'static str, routes: Vec<Route>) -> Service {
    static DIALECT: &Dialect = &dialect::IDENTITY;
    Service {
        name,
        prefix,
        dialect: DIALECT,
        microversions: None,
        resources: Vec::new(),
        routes,
        tables: Vec::new(),
        rules: Vec::new(),
        quotas: Vec::new(),
    }
}

/// Set when this process is about to stop: load balancers send it nothing new, and leave it what it has.
#[derive(Debug, Default)]
pub struct Drain(AtomicBool);

impl Drain {
    pub fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
    pub fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

async fn ready(call: Call) -> Result<Reply> {
    let drains = call.cx.state.get::<Drain>().is_some_and(|d| d.has_begun());
    Ok(if drains { Reply::text(404, "text/plain", "stopping\n") } else { Reply::text(200, "text/plain", "ok\n") })
}

async fn index(call: Call) -> Result<Reply> {
    let names = ["identity", "image", "compute", "network", "placement", "volume", "operator"];
    let links: Map =
        names.iter().map(|n| ((*n).to_owned(), json!(format!("{}/{n}", call.cx.settings.public_endpoint)))).collect();
    Ok(Reply::ok(json!({ "services": links })))
}

async fn status(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let counts: Map = call
        .cloud
        .registry
        .iter()
        .map(|d| (d.table.name.to_owned(), json!(reader.count(&d.table))))
        .filter(|(_, n)| *n != 0)
        .collect();
    let trouble = match call.cx.state.get::<TaskList>() {
        Some(tasks) => tasks.list().into_iter().filter(|t| t.state == reconcile::TaskState::Waiting).count(),
        None => 0,
    };
    Ok(Reply::ok(json!({ "revision": reader.revision(), "resources": counts, "keys_in_trouble": trouble })))
}

async fn tasks(call: Call) -> Result<Reply> {
    let tasks: Arc<TaskList> = call.cx.state()?;
    Ok(Reply::ok(json!({ "tasks": tasks.list() })))
}

async fn shards(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let held: Vec<Arc<Row>> = reader.all(&reconcile::SHARDS).cloned().collect();
    let members: Vec<Value> = reader
        .all(&reconcile::MEMBERS)
        .map(|m| {
            let own = held.iter().filter(|s| s.text("holder") == m.id());
            json!({ "id": m.id(), "name": m.field("name"), "since": m.field("since"), "shards": own.count() })
        })
        .collect();
    let shards: Vec<Value> =
        held.iter().map(|s| json!({ "id": s.id(), "holder": s.field("holder"), "epoch": s.field("epoch") })).collect();
    Ok(Reply::ok(json!({ "members": members, "shards": shards })))
}

async fn nodes(call: Call) -> Result<Reply> {
    let def = call.cloud.registry.get("compute/nodes")?;
    let reader = call.reader();
    let nodes: Vec<Value> = reader.all(&def.table).map(|r| r.value().clone()).collect();
    Ok(Reply::ok(json!({ "nodes": nodes })))
}

fn keys(keys: api::TokenKeys) -> Result<Reply> {
    Ok(Reply::ok(json!({ "token_keys": { "count": keys.count, "rotated_at": keys.rotated_at } })))
}

fn named(call: &Call, def: &ResourceDef, id: &str) -> Result<Arc<Row>> {
    let reader = call.reader();
    if let Some(row) = reader.get(&def.table, id) {
        return Ok(row);
    }
    let mut same: Vec<Arc<Row>> = reader.all(&def.table).filter(|r| r.text("name") == id).cloned().collect();
    match (same.pop(), same.is_empty()) {
        (Some(row), true) => Ok(row),
        (Some(_), false) => Err(Error::conflict(format!("More than one {} is called {id}; use an id.", def.name))),
        (None, _) => Err(Error::not_found(format!("There is no {} {id}.", def.name))),
    }
}

async fn why(call: Call) -> Result<Reply> {
    let what = call.param("what");
    let def = call
        .cloud
        .registry
        .iter()
        .find(|d| d.name == what || d.plural == what)
        .ok_or_else(|| Error::not_found(format!("There is no kind of resource called {what}.")))?;
    let row = named(&call, def, call.param("id"))?;
    let reader = call.reader();
    let entries = reader.get(&engine::STORIES, row.id()).map_or(Value::Array(Vec::new()), |s| s.field("entries").clone());
    let tasks = call.cx.state.get::<TaskList>();
    let next: Vec<Value> = tasks
        .iter()
        .flat_map(|t| t.list())
        .filter(|t| t.name.ends_with(&*row.key))
        .map(|t| json!({ "task": t.name, "last_error": t.last_error, "next_run": t.next_run }))
        .collect();
    Ok(Reply::ok(json!({ "kind": def.name, "id": row.id(), "row": row.value(), "entries": entries, "next": next })))
}
