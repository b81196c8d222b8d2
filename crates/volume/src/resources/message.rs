//! User messages: why something that was accepted did not come to be.
use crate::common::{map, micros};
use resource::{Cx, Map, Object, Reader, Resource, Result, Rules, Tx};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;

/// Messages are kept this long (Cinder's `message_ttl`).
const KEPT: Duration = Duration::from_secs(30 * 86_400);

/// What became of a request, for its user.
#[derive(Resource, Serialize, Deserialize, Clone, Debug, Default)]
#[resource(service = "volume", path = "/v3/messages", owner = "project")]
#[policy(list = "reader", show = "reader", delete = "member")]
#[serde(default)]
pub(crate) struct Message {
    #[field(filter, sort)]
    pub event_id: String,
    #[field()]
    pub user_message: String,
    #[field(filter, sort)]
    pub message_level: String,
    #[field(filter, sort)]
    pub resource_type: String,
    #[field(filter, sort, index)]
    pub resource_uuid: String,
    /// When it may be removed, in microseconds since the epoch.
    #[field(hidden)]
    pub expires_at: i64,
}

/// Why: Cinder's numbers of actions and details, and its words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    action: &'static str,
    detail: &'static str,
    what: &'static str,
}

pub(crate) const NO_HOST: Event =
    Event { action: "001", detail: "001", what: "schedule allocate volume:Could not find any available weighted backend." };
pub(crate) const CREATE: Event = Event { action: "020", detail: "001", what: "create volume" };
pub(crate) const EXTEND: Event = Event { action: "007", detail: "001", what: "extend volume" };
pub(crate) const DELETE: Event = Event { action: "010", detail: "001", what: "delete volume" };
pub(crate) const REPLACE: Event = Event { action: "015", detail: "001", what: "replace the content of the volume" };
pub(crate) const UPLOAD: Event = Event { action: "003", detail: "001", what: "copy volume to image" };
pub(crate) const ATTACH: Event = Event { action: "002", detail: "001", what: "attach volume" };
pub(crate) const DETACH: Event = Event { action: "002", detail: "001", what: "detach volume" };
pub(crate) const SNAPSHOT_CREATE: Event = Event { action: "008", detail: "001", what: "create snapshot" };
pub(crate) const SNAPSHOT_DELETE: Event = Event { action: "009", detail: "001", what: "delete snapshot" };

/// Leaves a message for the users of the project.
pub(crate) fn leave(
    tx: &mut Tx<'_>,
    project: &str,
    request_id: &str,
    kind: &str,
    id: &str,
    event: Event,
    cause: &str,
) -> Result<()> {
    let words = if cause.is_empty() { event.what.to_owned() } else { format!("{}:{cause}", event.what) };
    let body = Message {
        event_id: format!("VOLUME_{kind}_{}_{}", event.action, event.detail),
        user_message: words,
        message_level: "ERROR".to_owned(),
        resource_type: kind.to_owned(),
        resource_uuid: id.to_owned(),
        expires_at: tx.now.plus(KEPT).0,
    };
    let message = Object::new(base::id::uuid(), Some(project), body, tx.now, request_id);
    let row = message.clone().into_map()?;
    tx.put(&Message::DEF.table, &message.id, row.into());
    Ok(())
}

impl Rules for Message {
    fn view(row: &Map, out: &mut Map, cx: &Cx, _reader: &Reader<'_>) {
        let id = crate::common::text(row, "id");
        out.extend(map(json!({
            "request_id": row.get("request_id"), "created_at": micros(row, "created_at"), "guaranteed_until": micros(row, "expires_at"),
            "links": [
                {"rel": "self", "href": format!("{}/v3/messages/{id}", cx.public)},
                {"rel": "bookmark", "href": format!("{}/messages/{id}", cx.public)},
            ],
        })));
    }
}
