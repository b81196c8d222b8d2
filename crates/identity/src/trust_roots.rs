//! Whom we believe when we call others over TLS: the machine's authorities, or those that a configuration names instead.
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The text of the file stays out of it: whoever names a file must not read it by this.
    #[error("{path:?} holds no certificates in PEM form; name a file that does")]
    NoCertificates { path: PathBuf },
    #[error("{path:?} cannot be read")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), Error> {
    let none = || Error::NoCertificates { path: path.to_owned() };
    let found = CertificateDer::pem_file_iter(path).map_err(|_| none())?;
    let (added, _) = roots.add_parsable_certificates(found.flatten());
    if added == 0 { Err(none()) } else { Ok(()) }
}

/// The machine's authorities, without any that cannot be read.
fn of_the_machine() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// A client that believes the authorities in a file, or in the files of a directory, or those of the machine when neither is named.
pub(crate) fn client(file: Option<&Path>, dir: Option<&Path>) -> Result<Arc<ClientConfig>, Error> {
    let mut roots = if file.is_none() && dir.is_none() { of_the_machine() } else { RootCertStore::empty() };
    if let Some(file) = file {
        add(&mut roots, file)?;
    }
    if let Some(dir) = dir {
        let unreadable = |source| Error::Unreadable { path: dir.to_owned(), source };
        let mut any = false;
        for entry in fs::read_dir(dir).map_err(unreadable)? {
            any |= add(&mut roots, &entry.map_err(unreadable)?.path()).is_ok();
        }
        if !any {
            return Err(Error::NoCertificates { path: dir.to_owned() });
        }
    }
    let builder =
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}
