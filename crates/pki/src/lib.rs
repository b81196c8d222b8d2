//! The cluster's own certificate authority: who may speak for a controller, and who for a node.
//!
//! Every process of a cluster shows a certificate of this authority, and takes only such ones. What a certificate is good for is in it:
//! its name is `controller NAME` or `node NAME`, and a node's is good for that node alone. Keys are made where they are used and never
//! travel: a joining process sends a request (PKCS #10, RFC 2986) with its join token and gets a certificate back.
mod ca;
mod files;
mod inspect;
mod token;

pub use ca::{Ca, Identity, Issued, Request, Role, key_of, pem};
pub use files::{Files, not_after};
pub use inspect::{Inspected, inspect};
pub use token::JoinToken;

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {act} {path}; check its owner and the free space", path = path.display())]
    File { act: &'static str, path: PathBuf, source: std::io::Error },
    #[error("the certificate, key or request is not valid: {0}; make it anew")]
    Invalid(String),
    #[error("{0} is no join token; ask a controller for one: drover join-token node")]
    Token(String),
    #[error("the cluster at that address is another one than the token's: its authority is {found}, not {wanted}")]
    OtherCluster { found: String, wanted: String },
}

impl From<rcgen::Error> for Error {
    fn from(e: rcgen::Error) -> Self {
        Self::Invalid(e.to_string())
    }
}
