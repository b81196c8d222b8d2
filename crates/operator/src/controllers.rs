//! The controllers of a cluster: who lives, and the seats in the store of those who do not come back.
use api::{Call, Error, Reply, Result};
use reconcile::{MEMBERS, SHARDS};
use serde_json::{Value, json};
use std::{future::Future, pin::Pin, sync::Arc};
use store::Row;

/// A member of the cluster's own store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreMember {
    pub name: String,
    /// `host:port`
    pub address: String,
    /// It takes part in votes.
    pub voter: bool,
}

pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The store's own members, where Drover runs them.
pub trait Members: Send + Sync {
    fn list(&self) -> Pending<'_, Result<Vec<StoreMember>>>;
    /// Takes one out for good; refused while it answers.
    fn remove<'a>(&'a self, name: &'a str) -> Pending<'a, Result<()>>;
}

/// [`Members`] in the state of a process that has them.
pub struct Seats(pub Arc<dyn Members>);

async fn seats(call: &Call) -> Result<Vec<StoreMember>> {
    match call.cx.state.get::<Seats>() {
        Some(seats) => seats.0.list().await,
        None => Ok(Vec::new()),
    }
}

pub(crate) async fn list(call: Call) -> Result<Reply> {
    let seats = seats(&call).await?;
    let reader = call.reader();
    let held: Vec<Arc<Row>> = reader.all(&SHARDS).cloned().collect();
    let living: Vec<Arc<Row>> = reader.all(&MEMBERS).cloned().collect();
    let mut all: Vec<Value> = living
        .iter()
        .map(|m| {
            let seat = seats.iter().find(|s| s.name == m.text("name"));
            json!({ "name": m.field("name"), "state": "up", "id": m.id(), "since": m.field("since"),
                "shards": held.iter().filter(|s| s.text("holder") == m.id()).count(),
                "line": m.field("line"), "store": seat.map(vote), "store_address": seat.map(|s| s.address.as_str()) })
        })
        .collect();
    let away = seats.iter().filter(|s| !living.iter().any(|m| m.text("name") == s.name));
    all.extend(away.map(|s| {
        json!({ "name": s.name, "state": "down", "id": null, "since": null, "shards": 0, "line": null, "store": vote(s), "store_address": s.address })
    }));
    all.sort_by_key(|c| c["name"].as_str().unwrap_or_default().to_owned());
    Ok(Reply::ok(json!({ "controllers": all })))
}

fn vote(seat: &StoreMember) -> &'static str {
    if seat.voter { "voter" } else { "learner" }
}

pub(crate) async fn remove(call: Call) -> Result<Reply> {
    let name = call.param("name").to_owned();
    if call.reader().all(&MEMBERS).any(|m| m.text("name") == name) {
        return Err(Error::conflict(format!("Controller {name} is up; stop it on its machine first with: drover down")));
    }
    let seats = call.cx.state.get::<Seats>();
    let Some(seats) = seats else {
        return Err(Error::conflict("Drover does not run this cloud's etcd; remove the member with etcd's own tools."));
    };
    if !seats.0.list().await?.iter().any(|s| s.name == name) {
        return Err(Error::not_found(format!("There is no controller {name}.")));
    }
    seats.0.remove(&name).await?;
    Ok(Reply::empty(204))
}
