//! Servers: their states, what is shown of them, and how they come and go.
pub(crate) mod attachments;
pub(crate) mod create;
pub(crate) mod deadlines;
pub(crate) mod delete;
pub(crate) mod devices;
pub(crate) mod images;
pub(crate) mod list;
pub(crate) mod networks;
pub(crate) mod parts;
pub(crate) mod plan;
pub(crate) mod records;
pub(crate) mod request;
pub(crate) mod state;
pub(crate) mod update;
pub(crate) mod view;

use crate::{common::visible, resources::Server};
use api::{Call, Cx, Map, Result};
use resource::{Object, Resource, engine};
use store::Tx;

/// Changes a server that the caller may see, in one transaction; gives the row as it then is.
pub(crate) async fn change<T, F>(call: &Call, id: &str, mut how: F) -> Result<(Map, T)>
where
    T: Send + 'static,
    F: FnMut(&Cx, &mut Tx<'_>, &mut Object<Server>) -> Result<T> + Send + 'static,
{
    let server: Object<Server> = visible(call, id)?;
    let id = server.id;
    call.transact(move |cx, tx| {
        let mut server: Object<Server> = resource::load_any(tx, &id)?.ok_or_else(|| engine::not_found(Server::DEF, &id))?;
        let value = how(cx, tx, &mut server)?;
        Ok((records::save(tx, server, &cx.request_id)?, value))
    })
    .await
}
