//! A machine's certificate as an operator wants it judged: whose, until when, and whether the files fit together.
use crate::{Error, Files, Identity, Request, ca::file, key_of};
use sha2::{Digest, Sha256};
use std::{fs, path::Path, time::SystemTime};
use x509_parser::pem::{Pem, parse_x509_pem};

/// What the files of a machine say; nothing is judged here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    pub identity: Option<Identity>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    /// Signed by the authority that lies beside it.
    pub by_authority: bool,
    /// The key that lies beside it is its own.
    pub for_key: bool,
    pub authority_not_after: SystemTime,
}

fn read(path: &Path) -> Result<Pem, Error> {
    let text = fs::read_to_string(path).map_err(file("read", path))?;
    let parsed = parse_x509_pem(text.as_bytes());
    parsed.map(|(_, pem)| pem).map_err(|e| Error::Invalid(format!("{}: {e}", path.display())))
}

/// Reads what a machine has.
pub fn inspect(files: &Files) -> Result<Inspected, Error> {
    let invalid = |path: &Path| {
        let path = path.display().to_string();
        move |e: x509_parser::nom::Err<x509_parser::error::X509Error>| Error::Invalid(format!("{path}: {e}"))
    };
    let (own, ca) = (read(&files.certificate)?, read(&files.ca)?);
    let certificate = own.parse_x509().map_err(invalid(&files.certificate))?;
    let authority = ca.parse_x509().map_err(invalid(&files.ca))?;
    let key = fs::read_to_string(&files.key).map_err(file("read", &files.key))?;
    let key = key_of(&Request::of(&key)?.csr_pem)?;
    let certified = Sha256::digest(&certificate.public_key().subject_public_key.data);
    let certified: String = certified.iter().map(|b| format!("{b:02x}")).collect();
    let time = |t: x509_parser::time::ASN1Time| SystemTime::from(t.to_datetime());
    Ok(Inspected {
        identity: Identity::of_certificate(&own.contents),
        not_before: time(certificate.validity().not_before),
        not_after: time(certificate.validity().not_after),
        by_authority: certificate.verify_signature(Some(authority.public_key())).is_ok(),
        for_key: key == certified,
        authority_not_after: time(authority.validity().not_after),
    })
}
