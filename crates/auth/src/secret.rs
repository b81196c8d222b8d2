//! Secrets at rest (user data keys, application credentials, TOTP seeds): sealed with keys that are not in the store.
//!
//! A sealed text is bound to its owner, the row and field it belongs to, so that whoever can write rows cannot move one
//! user's secret into another's row and have it opened there. Its keys are a [`KeyRepository`](crate::KeyRepository)
//! of their own, made by `for_secrets`.
use crate::{Error, KeyRing};
use base::Timestamp;
use zeroize::Zeroizing;

const VERSION: u8 = 1;

/// Seals and opens secrets with a ring of keys.
#[derive(Clone, Debug)]
pub struct SecretBox(KeyRing);

impl SecretBox {
    pub fn new(ring: KeyRing) -> Self {
        Self(ring)
    }
    /// Seals `secret` for `owner`, for example `credential/<id>/blob`.
    ///
    /// The time inside is zero: the row has times of its own.
    pub fn seal(&self, owner: &str, secret: &[u8]) -> String {
        let mut plain = Zeroizing::new(Vec::with_capacity(9 + owner.len() + secret.len()));
        plain.push(VERSION);
        plain.extend_from_slice(&(owner.len() as u64).to_be_bytes());
        plain.extend_from_slice(owner.as_bytes());
        plain.extend_from_slice(secret);
        self.0.encrypt(&plain, Timestamp(0))
    }
    /// Opens what [`Self::seal`] made for the same owner.
    pub fn open(&self, owner: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
        let plain = Zeroizing::new(self.0.decrypt(sealed).map_err(|_| Error::Secret)?.message);
        let rest = plain.strip_prefix(&[VERSION]).and_then(|r| r.strip_prefix(&(owner.len() as u64).to_be_bytes()));
        let secret = rest.and_then(|r| r.strip_prefix(owner.as_bytes())).ok_or(Error::Secret)?;
        Ok(Zeroizing::new(secret.to_vec()))
    }
    /// Was it sealed with the primary key? If not, seal it again after a rotation.
    pub fn is_current(&self, sealed: &str) -> bool {
        self.0.decrypt(sealed).is_ok_and(|opened| {
            drop(Zeroizing::new(opened.message));
            opened.key == 0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;
    use proptest::prelude::*;

    fn sealer(keys: &[u8]) -> SecretBox {
        SecretBox::new(KeyRing::new(keys.iter().map(|b| Key::from_bytes([*b; 32])).collect()).unwrap())
    }

    #[test]
    fn opens_for_its_owner_only() {
        let b = sealer(&[1]);
        let sealed = b.seal("credential/1/blob", b"seed");
        assert_eq!(b.open("credential/1/blob", &sealed).unwrap().as_slice(), b"seed");
        for other in ["credential/2/blob", "credential/1/blobseed", "credential/1/blo", ""] {
            assert!(matches!(b.open(other, &sealed), Err(Error::Secret)), "{other}");
        }
        assert!(sealer(&[2]).open("credential/1/blob", &sealed).is_err());
        assert!(!sealed.contains("seed") && sealed != b.seal("credential/1/blob", b"seed"));
    }

    #[test]
    fn a_token_is_not_a_secret_even_with_the_same_keys() {
        let ring = KeyRing::new(vec![Key::from_bytes([1; 32])]).unwrap();
        assert!(sealer(&[1]).open("", &ring.encrypt(b"hello", Timestamp(0))).is_err());
    }

    #[test]
    fn rotation_tells_what_to_seal_again() {
        let sealed = sealer(&[1]).seal("o", b"s");
        let rotated = sealer(&[2, 1]);
        assert!(sealer(&[1]).is_current(&sealed) && !rotated.is_current(&sealed));
        let again = rotated.seal("o", &rotated.open("o", &sealed).unwrap());
        assert!(rotated.is_current(&again) && !rotated.is_current("garbage"));
    }

    proptest! {
        #[test]
        fn round_trips(owner in "\\PC*", secret: Vec<u8>) {
            let b = sealer(&[1]);
            let opened = b.open(&owner, &b.seal(&owner, &secret)).unwrap();
            prop_assert_eq!(opened.as_slice(), &secret[..]);
        }
    }
}
