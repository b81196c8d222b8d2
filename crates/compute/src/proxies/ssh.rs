//! Keys of key pairs: new ones, and fingerprints of imported ones.
use crate::server::view::fingerprint;
use api::{Error, Result};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, OtherNameValue, SanType};
use sha1::{Digest as _, Sha1};
use ssh_key::{
    LineEnding, PrivateKey, PublicKey,
    private::{KeypairData, RsaKeypair},
    rand_core::OsRng,
};

/// Size of new RSA keys. The type and size are Nova's: old clients and images know nothing newer.
const RSA_BITS: usize = 2048;
const COMMENT: &str = "Generated-by-Nova";
/// Object id of the user principal name that Windows' remote management logs in by.
const UPN: [u64; 10] = [1, 3, 6, 1, 4, 1, 311, 20, 2, 3];

/// A new key; the private part is shown once and kept nowhere.
pub(super) struct NewKey {
    pub(super) private: String,
    pub(super) public: String,
    pub(super) fingerprint: String,
}

fn invalid(reason: impl std::fmt::Display) -> Error {
    Error::bad_request(format!("Keypair data is invalid: {reason}"))
}

/// The fingerprint of a public key, if it is one.
pub(super) fn fingerprint_of(kind: &str, public: &str) -> Result<String> {
    if kind == "x509" { x509_fingerprint(public) } else { ssh_fingerprint(public) }
}

fn ssh_fingerprint(public: &str) -> Result<String> {
    let key = PublicKey::from_openssh(public.trim()).and_then(|k| k.to_bytes());
    let key = key.map_err(|e| invalid("failed to generate fingerprint").context(e.to_string()))?;
    Ok(fingerprint(&key))
}

fn x509_fingerprint(pem: &str) -> Result<String> {
    let wrong = |why: &str| invalid(format!("failed to generate X509 fingerprint. Error message: {why}"));
    let inner =
        pem.trim().strip_prefix("-----BEGIN CERTIFICATE-----").and_then(|rest| rest.split_once("-----END CERTIFICATE-----"));
    let (inner, _) = inner.ok_or_else(|| wrong("it is not a certificate in PEM form"))?;
    let der = crate::shape::decode_base64(inner).ok_or_else(|| wrong("it is not base64"))?;
    if !is_sequence(&der) {
        return Err(wrong("it is not a DER sequence"));
    }
    Ok(Sha1::digest(&der).iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":"))
}

/// Is it one ASN.1 sequence with nothing behind it?
fn is_sequence(der: &[u8]) -> bool {
    match der {
        [0x30, short, rest @ ..] if *short < 0x80 => rest.len() == usize::from(*short),
        [0x30, 0x81, n, rest @ ..] => rest.len() == usize::from(*n),
        [0x30, 0x82, a, b, rest @ ..] => rest.len() == usize::from(u16::from_be_bytes([*a, *b])),
        _ => false,
    }
}

/// Makes a key. RSA takes a good part of a second: call it where that does no harm.
pub(super) fn generate(kind: &str, user_id: &str) -> Result<NewKey> {
    if kind == "x509" { generate_x509(user_id) } else { generate_ssh() }
}

fn generate_ssh() -> Result<NewKey> {
    let broken = |e: ssh_key::Error| Error::internal(format!("no RSA key could be made: {e}"));
    let pair = RsaKeypair::random(&mut OsRng, RSA_BITS).map_err(broken)?;
    let key = PrivateKey::new(KeypairData::Rsa(pair), COMMENT).map_err(broken)?;
    let public = key.public_key();
    Ok(NewKey {
        private: key.to_openssh(LineEnding::LF).map_err(broken)?.to_string(),
        public: public.to_openssh().map_err(broken)?,
        fingerprint: fingerprint(&public.to_bytes().map_err(broken)?),
    })
}

/// A certificate by which the user logs in to Windows' remote management, and its key in PEM form.
fn generate_x509(user_id: &str) -> Result<NewKey> {
    let broken = |e: rcgen::Error| Error::internal(format!("no certificate could be made: {e}"));
    let key = KeyPair::generate().map_err(broken)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, user_id);
    params.subject_alt_names =
        vec![SanType::OtherName((UPN.to_vec(), OtherNameValue::Utf8String(format!("{user_id}@localhost"))))];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let public = params.self_signed(&key).map_err(broken)?.pem();
    let fingerprint = x509_fingerprint(&public)?;
    Ok(NewKey { private: key.serialize_pem(), public, fingerprint })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imported_keys_must_be_keys() {
        let good = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti user@example.com";
        let f = fingerprint_of("ssh", good).expect("a key");
        assert_eq!((f.len(), f.matches(':').count()), (47, 15));
        let long = format!("ssh-rsa {} openstack@ubuntu", "A".repeat(2048));
        for bad in ["ssh-rsa JUNK nova@ubuntu", " ", "", &long] {
            let e = fingerprint_of("ssh", bad).expect_err("no key");
            assert_eq!(e.message, "Keypair data is invalid: failed to generate fingerprint");
        }
        assert!(fingerprint_of("x509", good).is_err());
    }

    #[test]
    fn new_keys_are_whole() {
        let ssh = generate("ssh", "u").expect("a key");
        assert!(ssh.public.starts_with("ssh-rsa ") && ssh.public.ends_with(" Generated-by-Nova"));
        assert_eq!(fingerprint_of("ssh", &ssh.public).expect("its own"), ssh.fingerprint);
        let again = PrivateKey::from_openssh(&ssh.private).expect("readable");
        assert_eq!(again.public_key().to_openssh().expect("text"), ssh.public);
        let x509 = generate("x509", "u").expect("a certificate");
        assert!(x509.public.starts_with("-----BEGIN CERTIFICATE-----") && x509.private.contains("PRIVATE KEY"));
        assert_eq!((x509.fingerprint.len(), fingerprint_of("x509", &x509.public).expect("its own")), (59, x509.fingerprint));
    }
}
