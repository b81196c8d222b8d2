//! Credentials of users for other purposes: EC2 keys, TOTP seeds (Keystone api-ref, `v3/credentials`).
//!
//! Blobs are sealed at rest, so handlers of their own create, change and show them: [`crate::handlers::credentials`].
use crate::rows::PASSCODES;
use resource::{Cx, Deletion, Map, Object, Reader, Resource, Result, Rules, Tx};
use serde::{Deserialize, Serialize};

/// A secret of a user.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "identity", path = "/v3/credentials", id = "hex", extras)]
#[policy(
    list = "any",
    show = "rule:identity:credential_reader",
    create = "rule:admin_or_self",
    update = "rule:admin_or_self",
    delete = "rule:admin_or_self"
)]
pub(crate) struct Credential {
    /// Whose it is; this never changes.
    #[field(create, required, filter, index)]
    pub(crate) user_id: String,
    /// The project that it is for.
    #[field(create, filter)]
    pub(crate) project_id: Option<String>,
    /// `ec2`, `totp`, `cert`, …
    #[field(create, required, filter, max = 255)]
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Sealed with keys that are not in the store.
    #[field(hidden)]
    pub(crate) sealed: String,
    /// The access key of EC2 credentials, hashed.
    #[field(hidden, index)]
    pub(crate) access_hash: Option<String>,
    /// The application credential or trust that it was made by: it gives no more than they do.
    #[field(hidden)]
    pub(crate) app_credential_id: Option<String>,
    #[field(hidden)]
    pub(crate) trust_id: Option<String>,
}

impl Rules for Credential {
    fn delete(row: &mut Object<Self>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<Deletion> {
        tx.delete(&PASSCODES, &row.id);
        Ok(Deletion::Now)
    }

    fn visible(row: &Map, cx: &Cx, _reader: &Reader<'_>) -> bool {
        cx.may("identity:credential_reader", Some(row))
    }
}
