//! Carries out what [`plan`](crate::server::plan) decided about a server, in the caller's transaction.
use super::snapshot;
use crate::{
    resources::Server,
    server::{networks, plan::Effect, records},
};
use api::{Cx, Map, Result};
use resource::{Object, engine};
use store::Tx;

/// Writes the changed row, if it changed, and does what its change brings with it. `before` is the row as it was; `told` is what
/// the server's story says when its task is done.
pub(crate) fn carry_out(
    tx: &mut Tx<'_>,
    cx: &Cx,
    mut server: Object<Server>,
    before: &Map,
    effects: Vec<Effect>,
    told: &str,
) -> Result<()> {
    let request = server.request_id().to_owned();
    // What follows is caused by the request that asked for the task.
    let cx = &Cx { request_id: request.as_str().into(), ..cx.clone() };
    let id = server.id.clone();
    for effect in effects {
        match effect {
            Effect::Remove => return records::remove(tx, cx, server),
            Effect::Done => {
                records::finish_action(tx, &mut server.body, None);
                engine::tell(tx, &id, &request, told);
            }
            Effect::Failed(cause) => {
                records::finish_action(tx, &mut server.body, Some(&cause));
                engine::tell(tx, &id, &request, &format!("Failed: {cause}"));
            }
            Effect::Offloaded => {
                records::deallocate(tx, &id);
                networks::rebind(tx, cx, &server)?;
            }
            Effect::Snapshot => {
                if let Some(image) = server.snapshot.clone() {
                    snapshot::request(tx, &server, &image);
                }
            }
            Effect::DropShelvedImage => {
                if let Some(image) = server.shelved_image.take() {
                    records::drop_image(tx, cx, &image)?;
                }
            }
            Effect::Tell(text) => engine::tell(tx, &id, &request, &text),
        }
    }
    if server.clone().into_map()? != *before {
        records::save(tx, server, &request)?;
    }
    Ok(())
}
