//! Public keys, and what they signed. Hashes come ready; schemes and parameters are those of cursive's verifiers.
use super::{HashMethod, KeyType, Unverified};
use dsa::signature::hazmat::PrehashVerifier as _;
use rsa::{
    BigUint, Pss, RsaPublicKey,
    pkcs1::{self, ObjectIdentifier},
    pkcs8::{DecodePublicKey as _, SubjectPublicKeyInfoRef, der::Decode as _},
    traits::{PublicKeyParts as _, SignatureScheme as _},
};
use sha2::{Sha224, Sha256, Sha384, Sha512};

/// An RSA key for this scheme only (RFC 4055). Others verify with it as with any RSA key, and so does this.
const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
/// Bits of RSA keys that are verified: Glance's guide has one of 1024.
const RSA_BITS: std::ops::RangeInclusive<usize> = 1024..=8192;
/// Bits of DSA's p and q, by FIPS 186-4.
const DSA_BITS: (std::ops::RangeInclusive<usize>, std::ops::RangeInclusive<usize>) = (1024..=3072, 160..=256);
/// Bytes of a number of P-521.
const P521_BYTES: usize = 66;

/// A key that may have signed.
pub(super) enum Key {
    Rsa(RsaPublicKey),
    Dsa(dsa::VerifyingKey),
    P384(p384::ecdsa::VerifyingKey),
    P521(p521::ecdsa::VerifyingKey),
}

impl Key {
    /// Of that type, from a SubjectPublicKeyInfo in DER.
    pub(super) fn read(kind: KeyType, der: &[u8]) -> Result<Self, Unverified> {
        let name = serde_json::to_value(kind).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default();
        let bad = |what| Unverified::Key { name, what };
        match kind {
            KeyType::RsaPss => rsa(der).map(Self::Rsa).map_err(bad),
            KeyType::Dsa => dsa(der).map(Self::Dsa).map_err(bad),
            KeyType::Secp384r1 => match p384::PublicKey::from_public_key_der(der) {
                Ok(key) => Ok(Self::P384(key.into())),
                Err(_) => Err(bad("the certificate's key is none on the curve P-384")),
            },
            KeyType::Secp521r1 => {
                let key = p521::PublicKey::from_public_key_der(der).ok();
                let key = key.and_then(|key| p521::ecdsa::VerifyingKey::from_affine(*key.as_affine()).ok());
                key.map(Self::P521).ok_or_else(|| bad("the certificate's key is none on the curve P-521"))
            }
        }
    }

    /// Is that its signature of data with that hash?
    pub(super) fn verify(&self, method: HashMethod, hash: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Rsa(key) => verify_pss(key, method, hash, signature),
            Self::Dsa(key) => {
                let signature = dsa::Signature::try_from(signature);
                signature.is_ok_and(|signature| key.verify_prehash(hash, &signature).is_ok())
            }
            Self::P384(key) => {
                let signature = p384::ecdsa::Signature::from_der(signature);
                signature.is_ok_and(|signature| key.verify_prehash(hash, &signature).is_ok())
            }
            Self::P521(key) => {
                let signature = p521::ecdsa::Signature::from_der(signature);
                // A hash is a number: in front of it are as many zeros as one likes. The crate wants half of the curve's bytes.
                let mut number = [0; P521_BYTES];
                let Some(start) = P521_BYTES.checked_sub(hash.len()) else { return false };
                number[start..].copy_from_slice(hash);
                signature.is_ok_and(|signature| key.verify_prehash(&number, &signature).is_ok())
            }
        }
    }
}

fn rsa(der: &[u8]) -> Result<RsaPublicKey, &'static str> {
    const OTHER: &str = "the certificate's key is none of RSA";
    let info = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| OTHER)?;
    if ![pkcs1::ALGORITHM_OID, RSASSA_PSS].contains(&info.algorithm.oid) {
        return Err(OTHER);
    }
    let bytes = info.subject_public_key.as_bytes().ok_or(OTHER)?;
    let key = pkcs1::RsaPublicKey::from_der(bytes).map_err(|_| OTHER)?;
    let number = |bytes: &[u8]| BigUint::from_bytes_be(bytes);
    let (n, e) = (number(key.modulus.as_bytes()), number(key.public_exponent.as_bytes()));
    if !RSA_BITS.contains(&n.bits()) {
        return Err("a key of RSA must have 1024 to 8192 bits");
    }
    RsaPublicKey::new_with_max_size(n, e, *RSA_BITS.end()).map_err(|_| "the certificate's key of RSA is not usable")
}

fn dsa(der: &[u8]) -> Result<dsa::VerifyingKey, &'static str> {
    const OTHER: &str = "the certificate's key is none of DSA";
    let info = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| OTHER)?;
    info.algorithm.assert_algorithm_oid(dsa::OID).map_err(|_| OTHER)?;
    // Before it is calculated with: that takes the longer, the larger the numbers are.
    let parts: dsa::Components = info.algorithm.parameters_any().and_then(|any| Ok(any.decode_as()?)).map_err(|_| OTHER)?;
    if !DSA_BITS.0.contains(&parts.p().bits()) || !DSA_BITS.1.contains(&parts.q().bits()) || parts.g() >= parts.p() {
        return Err("a key of DSA must have 1024 to 3072 bits, and a subgroup of 160 to 256");
    }
    dsa::VerifyingKey::try_from(info).map_err(|_| "the certificate's key of DSA is not usable")
}

/// RSASSA-PSS (RFC 8017) with MGF1 of the same hash, and the longest salt that fits.
fn verify_pss(key: &RsaPublicKey, method: HashMethod, hash: &[u8], signature: &[u8]) -> bool {
    let encoded = (key.n().bits() - 1).div_ceil(8);
    let Some(salt) = encoded.checked_sub(hash.len() + 2) else { return false };
    let scheme = match method {
        HashMethod::Sha224 => Pss::new_with_salt::<Sha224>(salt),
        HashMethod::Sha256 => Pss::new_with_salt::<Sha256>(salt),
        HashMethod::Sha384 => Pss::new_with_salt::<Sha384>(salt),
        HashMethod::Sha512 => Pss::new_with_salt::<Sha512>(salt),
    };
    scheme.verify(key, hash, signature).is_ok()
}
