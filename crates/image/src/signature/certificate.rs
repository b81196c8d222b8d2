//! A certificate as a key manager has it: DER, or PEM with whatever is around it.
use super::Unverified;
use base::Timestamp;
use x509_parser::{certificate::X509Certificate, pem::Pem, prelude::FromDer as _};

/// Bytes of the longest key: one of RSA or DSA with the most bits that are verified has less than half of them.
const LONGEST_KEY: usize = 4096;
/// Blocks of a PEM text that are looked at.
const BLOCKS: usize = 8;

/// The key of the first certificate, as DER of its SubjectPublicKeyInfo. Fails outside of the certificate's dates.
pub(super) fn key(text: &[u8], now: Timestamp) -> Result<Vec<u8>, Unverified> {
    let bad = |what| Unverified::Format { what };
    let pem = Pem::iter_from_buffer(text).take(BLOCKS).flatten();
    let pem = pem.into_iter().find(|pem| matches!(pem.label.as_str(), "CERTIFICATE" | "X509 CERTIFICATE"));
    let der = pem.as_ref().map_or(text, |pem| &pem.contents);
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| bad("it is not an X.509 certificate in DER or PEM"))?;
    if !rest.is_empty() {
        return Err(bad("something follows the certificate"));
    }
    let dates = certificate.validity();
    let (from, until) = (dates.not_before.timestamp(), dates.not_after.timestamp());
    if !(from..=until).contains(&now.unix()) {
        return Err(Unverified::Dates { from: Timestamp::from_unix(from), until: Timestamp::from_unix(until) });
    }
    let key = certificate.public_key().raw;
    if key.len() > LONGEST_KEY {
        return Err(bad("its key is too long"));
    }
    Ok(key.to_vec())
}
