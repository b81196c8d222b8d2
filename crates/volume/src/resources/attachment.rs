//! Attachments: who may use a volume. The compute service makes them for its servers, through this table.
//!
//! Of an attachment that names a server in `instance`, the server's node plugs the volume, and what it reports decides. One that names
//! a `consumer` was made through this service's own API: whoever asked for it plugs, and says so.
use resource::{Cx, Deletion, Kind, Map, Object, Reader, Resource, Result, Rules, Tx};
use serde::{Deserialize, Serialize};

/// The right of one consumer to a volume.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "volume", path = "/v3/attachments", owner = "project", story)]
#[policy(list = "reader", show = "reader", create = "member", update = "member", delete = "member")]
#[serde(default)]
pub(crate) struct Attachment {
    #[field(create, filter, sort, index)]
    pub volume_id: String,
    /// The server that its node plugs it into; empty when somebody else does.
    #[field(create, index)]
    pub instance: String,
    /// Who uses it, where this is no server's attachment.
    #[field(hidden)]
    pub consumer: Option<String>,
    /// `reserved`, `attaching`, `attached`, `detaching`, `error_attaching` or `error_detaching`.
    #[field(filter)]
    pub attach_status: String,
    #[field(create, kind = Kind::Choice(&["rw", "ro"]))]
    pub attach_mode: String,
    #[field(create, update, hidden)]
    pub mountpoint: Option<String>,
    #[field(hidden)]
    pub attached_host: Option<String>,
    #[field(hidden, kind = Kind::Any)]
    pub attached_at: Option<i64>,
    #[field(hidden, kind = Kind::Any)]
    pub detached_at: Option<i64>,
    /// Grows each time that it moves to another host.
    #[field(create, update, hidden)]
    pub epoch: u64,
    /// Shall it be plugged?
    #[field(create, update, hidden)]
    pub wanted: bool,
    /// Does the server boot from it?
    #[field(create, hidden)]
    pub boot: bool,
    #[field(create, update, hidden)]
    pub delete_on_termination: bool,
    #[field(create, hidden)]
    pub tag: Option<String>,
    /// What the consumer said of itself.
    #[field(hidden, kind = Kind::Any)]
    pub connector: Option<Map>,
    #[field(hidden, kind = Kind::Any)]
    pub deadline: Option<i64>,
}

impl Default for Attachment {
    fn default() -> Self {
        Self {
            volume_id: String::new(),
            instance: String::new(),
            consumer: None,
            attach_status: "reserved".to_owned(),
            attach_mode: "rw".to_owned(),
            mountpoint: None,
            attached_host: None,
            attached_at: None,
            detached_at: None,
            epoch: 1,
            wanted: false,
            boot: false,
            delete_on_termination: false,
            tag: None,
            connector: None,
            deadline: None,
        }
    }
}

impl Rules for Attachment {
    fn create(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        crate::attach::admit(row, cx, tx)
    }
    fn update(row: &mut Object<Self>, old: &Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
        crate::attach::change(row, old, cx, tx)
    }
    fn delete(row: &mut Object<Self>, cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        crate::attach::end(row, cx, tx)?;
        Ok(Deletion::Later)
    }
    fn view(row: &Map, out: &mut Map, cx: &Cx, reader: &Reader<'_>) {
        crate::view::attachment(row, out, cx, reader);
    }
    fn filter(row: &Map, key: &str, values: &[&str], _cx: &Cx) -> Option<bool> {
        crate::filters::attachment(row, key, values)
    }
}

impl Attachment {
    /// Who uses the volume, whoever plugs it.
    pub(crate) fn user(&self) -> &str {
        self.consumer.as_deref().unwrap_or(&self.instance)
    }
}
