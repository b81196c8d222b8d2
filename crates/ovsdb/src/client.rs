//! What callers hold: a cheap handle to the task that keeps the connection.
use crate::{
    Endpoint, Error, Leader, Replica, Tls,
    replica::Shared,
    session::{Command, Link},
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot, watch};

/// Where a database is, and which of its servers is spoken to.
#[derive(Clone, Debug)]
pub struct Target {
    /// Tried one after the other; what is told here counts from the next connection on.
    pub endpoints: watch::Receiver<Vec<Endpoint>>,
    /// For those by TLS.
    pub tls: Option<Tls>,
    pub leader: Option<Leader>,
}

impl Target {
    /// These endpoints for ever, any of them.
    pub fn fixed(endpoints: Vec<Endpoint>) -> Self {
        // What was told last stays when nobody can tell any more.
        Self { endpoints: watch::channel(endpoints).1, tls: None, leader: None }
    }
}

/// A database server, connected for as long as a handle lives.
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    connected: watch::Receiver<bool>,
    endpoints: Arc<str>,
    within: Duration,
}

impl Client {
    /// Starts connecting in the background; calls wait for the connection up to their deadline.
    pub fn new(endpoints: Vec<Endpoint>) -> Self {
        Self::to(Target::fixed(endpoints))
    }
    /// As [`Self::new`].
    pub fn to(target: Target) -> Self {
        let name = target.endpoints.borrow().iter().map(Endpoint::to_string).collect::<Vec<_>>().join(",");
        let (commands, inbox) = mpsc::channel(256);
        let (state, connected) = watch::channel(false);
        tokio::spawn(Link { target, inbox, state }.run());
        Self { commands, connected, endpoints: name.into(), within: Duration::from_secs(10) }
    }
    /// The deadline of each call made through this handle; 10 s unless changed.
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }
    /// True while there is a connection.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }

    /// Carries out `operations` as one transaction; the answer has one result for each.
    pub async fn transact(&self, database: &str, operations: Vec<Value>) -> Result<Vec<Value>, Error> {
        let names: Vec<_> = operations.iter().map(|o| (text(o, "op"), text(o, "table"))).collect();
        let params = std::iter::once(Value::from(database)).chain(operations).collect();
        let Value::Array(results) = self.call("transact", params).await? else {
            return Err(Error::Protocol("the answer to transact is not an array".into()));
        };
        for (index, result) in results.iter().enumerate() {
            let Some(error) = result.get("error").and_then(Value::as_str) else { continue };
            let details = result.get("details").and_then(Value::as_str).unwrap_or_default();
            let (op, table) = names.get(index).cloned().unwrap_or_else(|| ("commit".into(), database.into()));
            return Err(Error::Operation { index, op, table, text: format!("{error}: {details}") });
        }
        Ok(results)
    }

    /// Follows tables into memory; returns when their first state is there.
    pub async fn monitor(&self, database: &str, tables: &[(&str, &[&str])]) -> Result<Replica, Error> {
        let shared = Arc::new(Shared::new(database, tables));
        let (reply, answer) = oneshot::channel();
        self.ask("monitor", Command::Monitor { shared: shared.clone(), reply }, answer).await?;
        Ok(Replica { shared })
    }

    async fn call(&self, what: &'static str, params: Vec<Value>) -> Result<Value, Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(what, Command::Call { method: what, params: json!(params), reply }, answer).await
    }
    async fn ask<T>(
        &self,
        what: &'static str,
        command: Command,
        answer: oneshot::Receiver<Result<T, String>>,
    ) -> Result<T, Error> {
        let exchange = async {
            let lost = || Error::Unknown { what, endpoints: self.endpoints.to_string() };
            self.commands.send(command).await.map_err(|_| lost())?;
            answer.await.map_err(|_| lost())?.map_err(|text| Error::Refused { what, text })
        };
        let late = |_| Error::Deadline { what, endpoints: self.endpoints.to_string(), within: self.within };
        tokio::time::timeout(self.within, exchange).await.map_err(late)?
    }
}

fn text(operation: &Value, key: &str) -> String {
    operation.get(key).and_then(Value::as_str).unwrap_or("?").to_owned()
}
