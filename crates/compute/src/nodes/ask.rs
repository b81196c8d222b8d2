//! Questions to the node of a server, for handlers.
use super::Nodes;
use crate::resources::Server;
use api::{Call, Error, Result};
use assign::{Agent, Answer, Duplex, Query, QueryError};
use resource::Object;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// A user waits for the answer.
const PATIENCE: Duration = Duration::from_secs(10);

fn agent(call: &Call, server: &Object<Server>) -> Result<Arc<dyn Agent>> {
    let host = server.host.as_deref().ok_or_else(|| not_ready(&server.id))?;
    let nodes: Arc<Nodes> = call.cx.state()?;
    nodes.agent(host).ok_or_else(|| unreachable(&server.id, QueryError::Unreachable(host.to_owned())))
}

fn not_ready(id: &str) -> Error {
    Error::conflict(format!("Instance {id} is not ready"))
}

fn unreachable(id: &str, e: impl ToString) -> Error {
    Error::unavailable(format!("The node of server {id} does not answer; try again.")).context(e.to_string())
}

fn explain(id: &str, e: QueryError) -> Error {
    match e {
        QueryError::NotHere(_) => not_ready(id),
        e @ (QueryError::Unreachable(_) | QueryError::Failed { .. }) => unreachable(id, e),
    }
}

/// Asks the server's node.
pub(crate) async fn ask(call: &Call, server: &Object<Server>, query: Query) -> Result<Answer> {
    let agent = agent(call, server)?;
    let answer = timeout(PATIENCE, agent.query(query)).await;
    answer.map_err(|_| unreachable(&server.id, "no answer in time"))?.map_err(|e| explain(&server.id, e))
}

/// Opens the server's display.
pub(crate) async fn display(call: &Call, server: &Object<Server>) -> Result<Box<dyn Duplex>> {
    let agent = agent(call, server)?;
    let opened = timeout(PATIENCE, agent.vnc(&server.id)).await;
    opened.map_err(|_| unreachable(&server.id, "no answer in time"))?.map_err(|e| explain(&server.id, e))
}
