//! Key pairs (Nova api-ref, `os-keypairs`): they belong to users, and are found by name.
use resource::{Resource, Rules};
use serde::{Deserialize, Serialize};

/// A public key of a user. The row's id is `<user id>:<name>`.
#[derive(Resource, Serialize, Deserialize, Clone, Debug)]
#[resource(service = "compute", path = "/v2.1/os-keypairs", name = "keypair", plural = "keypairs", owner = "user", id = "given")]
#[policy(list = "reader", show = "reader", create = "member", delete = "member")]
pub(crate) struct Keypair {
    #[field(create, required)]
    pub name: String,
    #[field(index)]
    pub user_id: String,
    /// `ssh` or `x509`.
    #[serde(rename = "type")]
    #[field(create, since = "2.2")]
    pub kind: String,
    #[field(create, kind = resource::Kind::Text { min: 0, max: 65_535 })]
    pub public_key: String,
    #[field()]
    pub fingerprint: String,
    /// The number that `id` shows.
    #[field(hidden)]
    pub number: i64,
}

impl Rules for Keypair {}

/// The row's id.
pub(crate) fn key(user: &str, name: &str) -> String {
    format!("{user}:{name}")
}
