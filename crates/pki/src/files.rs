//! A machine's certificate, its key and the authority as files, and when the certificate wants to be renewed.
use crate::{
    Error, Issued, Request,
    ca::{LIFETIME, file, is_named_as_now, write},
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};
use time::OffsetDateTime;
use x509_parser::pem::parse_x509_pem;

/// Where they are: `ca.pem`, `cert.pem` and `key.pem` of one directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Files {
    pub fn of(dir: &Path) -> Self {
        Self { ca: dir.join("ca.pem"), certificate: dir.join("cert.pem"), key: dir.join("key.pem") }
    }

    /// A request for this machine's key, which is made at the first use and stays: a certificate can be replaced without its key, and
    /// a join that is repeated is known to be the same machine's.
    pub fn request(&self) -> Result<Request, Error> {
        if self.key.exists() {
            return Request::of(&fs::read_to_string(&self.key).map_err(file("read", &self.key))?);
        }
        let made = Request::new()?;
        if let Some(dir) = self.key.parent() {
            fs::create_dir_all(dir).map_err(file("create", dir))?;
        }
        write(&self.key, &made.key_pem, 0o600)?;
        Ok(made)
    }

    /// Writes what the authority answered to [`Self::request`].
    pub fn keep(&self, issued: &Issued) -> Result<(), Error> {
        write(&self.ca, &issued.ca_pem, 0o644)?;
        write(&self.certificate, &issued.certificate_pem, 0o644)
    }

    /// Has the certificate less than a third of its time left, or names its holder as earlier versions did?
    pub fn wants_renewal(&self, now: SystemTime) -> Result<bool, Error> {
        let pem = fs::read_to_string(&self.certificate).map_err(file("read", &self.certificate))?;
        let (_, parsed) = parse_x509_pem(pem.as_bytes()).map_err(|e| Error::Invalid(e.to_string()))?;
        Ok(not_after(&pem)? - OffsetDateTime::from(now) < LIFETIME / 3 || !is_named_as_now(&parsed.contents))
    }
}

/// Until when a certificate (PEM) is good.
pub fn not_after(certificate_pem: &str) -> Result<OffsetDateTime, Error> {
    let invalid = |e: &dyn std::fmt::Display| Error::Invalid(e.to_string());
    let (_, pem) = parse_x509_pem(certificate_pem.as_bytes()).map_err(|e| invalid(&e))?;
    let certificate = pem.parse_x509().map_err(|e| invalid(&e))?;
    Ok(certificate.validity().not_after.to_datetime())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ca, Identity, Role, key_of};
    use std::time::Duration;

    #[test]
    fn a_certificate_is_replaced_without_its_key_before_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::of(&dir.path().join("pki"));
        let ca = Ca::create("c").unwrap();
        let identity = Identity { role: Role::Controller, name: "c1".into() };
        let first = files.request().unwrap();
        files.keep(&ca.sign(&first.csr_pem, &identity, &[]).unwrap()).unwrap();
        let now = SystemTime::now();
        let days = |n: u64| Duration::from_secs(n * 86400);
        assert!(!files.wants_renewal(now).unwrap());
        assert!(!files.wants_renewal(now + days(59)).unwrap());
        assert!(files.wants_renewal(now + days(61)).unwrap());
        assert!(files.wants_renewal(now + days(91)).unwrap());
        assert_eq!(key_of(&files.request().unwrap().csr_pem).unwrap(), key_of(&first.csr_pem).unwrap());
        assert!(matches!(not_after("nothing"), Err(Error::Invalid(_))));
    }
}
