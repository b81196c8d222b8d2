//! HTTP to servers that are not ours: the operator's object stores ([`s3`]), bytes from addresses that users give ([`fetch`]), and short
//! questions ([`call`]).
//!
//! All follow no redirect: an answer from elsewhere is not what was asked for, and the way around every check of an address. Every wait
//! has an end. What was sent to whom is never told with its secrets.
pub mod call;
pub mod fetch;
mod http;
pub mod s3;
mod trust;

use std::io;
pub use trust::Trust;

/// Why a server gave nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("`{url}` is no URL to be used here: {why}")]
    BadUrl { url: String, why: &'static str },
    #[error("the certificates in {path} cannot be used; give a PEM file of authorities")]
    BadTrust { path: std::path::PathBuf, source: io::Error },
    #[error("the credentials in {path} cannot be used: {why}")]
    BadCredentials { path: std::path::PathBuf, why: String },
    #[error("{server} may not be asked from here: {why}")]
    Forbidden { server: String, why: String },
    #[error("{server} could not be reached; see that it runs and that this host reaches it")]
    Unreachable { server: String, source: io::Error },
    #[error("{server} stopped to answer; try again")]
    Stalled { server: String },
    #[error("{server} answered {status} to {asked}: {message}")]
    Refused { server: String, asked: &'static str, status: u16, message: String },
    #[error("{server} sends the asker elsewhere, and redirects are not followed; give the address of the data itself")]
    Redirected { server: String },
    #[error("{server} answered {asked} with something that is not understood: {what}")]
    Malformed { server: String, asked: &'static str, what: String },
    #[error("the file to be sent could not be read")]
    File { source: io::Error },
}

impl Error {
    /// Is it worth to ask again?
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Stalled { .. } => true,
            Self::Refused { status, .. } => *status >= 500 || *status == 429,
            Self::BadUrl { .. }
            | Self::BadTrust { .. }
            | Self::BadCredentials { .. }
            | Self::Forbidden { .. }
            | Self::Redirected { .. }
            | Self::Malformed { .. }
            | Self::File { .. } => false,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Unreachable { source, .. } | Error::File { source } | Error::BadTrust { source, .. } => source.kind(),
            Error::Stalled { .. } => io::ErrorKind::TimedOut,
            Error::Refused { status: 404, .. } => io::ErrorKind::NotFound,
            Error::Forbidden { .. } => io::ErrorKind::PermissionDenied,
            Error::BadUrl { .. } | Error::BadCredentials { .. } => io::ErrorKind::InvalidInput,
            Error::Refused { .. } | Error::Redirected { .. } | Error::Malformed { .. } => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}
