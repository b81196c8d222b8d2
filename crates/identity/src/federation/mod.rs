//! Users whom others vouch for (OS-FEDERATION): providers, what their word means here, and who comes of it.
//!
//! ```text
//! provider's word --checked: oidc--> assertion --mapping's rules--> user, groups, projects --one transaction--> rows, unscoped token
//! ```
//! What nobody of ours has said is never believed: a word counts only of a provider that is enabled, by a protocol that it has, as far
//! as the mapping of that protocol goes. A user of one provider is never a user of another one, whatever the two call them.
pub(crate) mod mapping;
pub(crate) mod oidc;
pub(crate) mod rules;
pub(crate) mod shadow;

use sha2::{Digest as _, Sha256};

/// A hash in hex, for keys of rows that are made of what others call things.
pub(crate) fn hex_hash<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    format!("{:x}", hash.finalize())
}

/// The row that says whose a remote id is.
pub(crate) fn remote_id_key(remote_id: &str) -> String {
    hex_hash([remote_id])
}

/// The row of a provider's protocol. Neither has a slash.
pub(crate) fn protocol_key(idp_id: &str, protocol_id: &str) -> String {
    format!("{idp_id}/{protocol_id}")
}

/// The row that says who a user of a provider is here.
pub(crate) fn user_key(idp_id: &str, protocol_id: &str, unique_id: &str) -> String {
    hex_hash([idp_id, protocol_id, unique_id])
}
