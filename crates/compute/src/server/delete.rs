//! `DELETE /servers/{id}`. Delete always wins: whatever goes on with the server, its row is marked at once.
use super::{records, state};
use crate::{common::visible, resources::Server};
use api::{Call, Reply, Result};
use resource::{Object, Resource, engine};

pub(crate) async fn delete(call: Call) -> Result<Reply> {
    let server: Object<Server> = visible(&call, call.param("id"))?;
    call.require("os_compute_api:servers:delete", Some(&server.map))?;
    remove(&call, server.id).await?;
    Ok(Reply::empty(204))
}

/// Marks the server for deletion; one that is marked already stays so.
pub(crate) async fn remove(call: &Call, id: String) -> Result<()> {
    call.transact(move |cx, tx| {
        let server: Object<Server> = resource::load_any(tx, &id)?.ok_or_else(|| engine::not_found(Server::DEF, &id))?;
        if server.deleting() {
            return Ok(());
        }
        state::check_unlocked(&server, cx)?;
        records::begin_deletion(tx, cx, server)
    })
    .await
}
