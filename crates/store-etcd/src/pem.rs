//! Certificates as files: read whole, so that it shows when they have changed.
use std::path::PathBuf;
use store::StoreError;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// Certificates as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Who may vouch for etcd's members.
    pub ca: PathBuf,
    /// Our certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// What the files of a [`Tls`] hold.
#[derive(PartialEq, Eq)]
pub(crate) struct Pem {
    ca: Vec<u8>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// Without the key.
impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pem").field("identity", &self.identity.is_some()).finish_non_exhaustive()
    }
}

impl Pem {
    pub(crate) fn read(tls: &Tls) -> Result<Self, StoreError> {
        let read = |path: &PathBuf| {
            std::fs::read(path)
                .map_err(|e| StoreError::Unavailable(format!("the certificate file {} cannot be read: {e}", path.display())))
        };
        let identity = match &tls.identity {
            Some((certificate, key)) => Some((read(certificate)?, read(key)?)),
            None => None,
        };
        Ok(Self { ca: read(&tls.ca)?, identity })
    }
    pub(crate) fn config(&self) -> ClientTlsConfig {
        let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.ca));
        match &self.identity {
            Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key)),
            None => config,
        }
    }
}
