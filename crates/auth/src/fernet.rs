//! Fernet, version 0x80: AES-128-CBC and HMAC-SHA256 in URL-safe base64.
//!
//! A [`KeyRing`] signs with its first key and accepts every key it holds. Padding (`=`) is stripped on the way out, as
//! Keystone does, and accepted on the way in. Age is not judged here: the reader gets the time and decides.
//!
//! ```text
//! 0x80 ‖ seconds (8, big endian) ‖ IV (16) ‖ ciphertext (n × 16) ‖ HMAC-SHA256 over all before (32)
//! ```
use crate::{Error, TokenError};
use aes::Aes128;
use base::Timestamp;
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use cbc::cipher::{BlockDecryptMut as _, BlockEncryptMut as _, InnerIvInit as _, KeyInit as _, block_padding::Pkcs7};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use std::fmt;
use zeroize::{Zeroize as _, Zeroizing};

/// URL-safe base64 without padding on output, with or without it on input.
pub(crate) const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const VERSION: u8 = 0x80;
const BLOCK: usize = 16;
const MAC: usize = 32;
const HEAD: usize = 1 + 8 + BLOCK;

/// One Fernet key, with its schedules expanded once so that a token costs no set-up.
#[derive(Clone)]
pub struct Key {
    raw: Zeroizing<[u8; 32]>,
    mac: Hmac<Sha256>,
    aes: Aes128,
}

impl Key {
    /// The first half signs, the second encrypts.
    pub fn from_bytes(raw: [u8; 32]) -> Self {
        let (sign, encrypt) = raw.split_at(16);
        let mac = <Hmac<Sha256> as hmac::Mac>::new_from_slice(sign).expect("HMAC takes keys of every length");
        let aes = Aes128::new_from_slice(encrypt).expect("half of 32 bytes is an AES-128 key");
        Self { mac, aes, raw: Zeroizing::new(raw) }
    }
    /// A new key from the system's randomness.
    pub fn generate() -> Self {
        Self::from_bytes(rand::random())
    }
    /// Reads the base64 form that key files hold.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bytes = Zeroizing::new(BASE64URL.decode(text.trim()).map_err(|_| Error::KeyText)?);
        <[u8; 32]>::try_from(bytes.as_slice()).map(Self::from_bytes).map_err(|_| Error::KeyText)
    }
    /// The base64 form, padded as Keystone's key files are.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(base64::engine::general_purpose::URL_SAFE.encode(self.raw.as_slice()))
    }

    fn signature(&self, message: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(message);
        mac
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(hidden)")
    }
}

/// A message that verified, and when it was sealed.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened {
    pub message: Vec<u8>,
    /// Seconds since the epoch, as the maker wrote them.
    pub at: u64,
    /// Which key of the ring fits: 0 is the primary.
    pub key: usize,
}

/// Keys that verify, of which the first also signs.
#[derive(Clone, Debug)]
pub struct KeyRing(Vec<Key>);

impl KeyRing {
    /// `keys` in order of preference: the primary first.
    pub fn new(keys: Vec<Key>) -> Result<Self, Error> {
        if keys.is_empty() { Err(Error::EmptyRing) } else { Ok(Self(keys)) }
    }
    pub fn keys(&self) -> &[Key] {
        &self.0
    }
    /// Seals with the primary key and a random IV.
    pub fn encrypt(&self, message: &[u8], at: Timestamp) -> String {
        self.encrypt_with(message, at, rand::random())
    }
    /// Seals with a given IV, which must never be used twice with one key.
    pub fn encrypt_with(&self, message: &[u8], at: Timestamp, iv: [u8; BLOCK]) -> String {
        let key = self.0.first().expect("a ring has a primary: `new` refuses an empty one");
        let padded = (message.len() / BLOCK + 1) * BLOCK;
        let mut out = Vec::with_capacity(HEAD + padded + MAC);
        out.push(VERSION);
        out.extend_from_slice(&u64::try_from(at.unix()).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(&iv);
        out.extend_from_slice(message);
        out.resize(HEAD + padded, 0);
        cbc::Encryptor::<&Aes128>::inner_iv_init(&key.aes, &iv.into())
            .encrypt_padded_mut::<Pkcs7>(&mut out[HEAD..], message.len())
            .expect("the buffer has room for a whole block of padding");
        let mac = key.signature(&out).finalize().into_bytes();
        out.extend_from_slice(&mac);
        BASE64URL.encode(out)
    }
    /// Opens a text that any key of the ring made. The signature is compared in constant time, before decryption.
    pub fn decrypt(&self, text: &str) -> Result<Opened, TokenError> {
        let mut bytes = BASE64URL.decode(text).map_err(|_| TokenError::Malformed)?;
        let sealed = bytes.len().checked_sub(MAC).ok_or(TokenError::Malformed)?;
        let cipher = sealed.checked_sub(HEAD).ok_or(TokenError::Malformed)?;
        if cipher == 0 || cipher % BLOCK != 0 || bytes.first() != Some(&VERSION) {
            return Err(TokenError::Malformed);
        }
        let (body, mac) = bytes.split_at_mut(sealed);
        let (index, key) = self
            .0
            .iter()
            .enumerate()
            .find(|(_, key)| key.signature(body).verify_slice(mac).is_ok())
            .ok_or(TokenError::UnknownKey)?;
        let (head, cipher) = body.split_at_mut(HEAD);
        let (stamp, iv) = (head[1..9].try_into().map(u64::from_be_bytes), <[u8; BLOCK]>::try_from(&head[9..]));
        let (Ok(at), Ok(iv)) = (stamp, iv) else { return Err(TokenError::Malformed) };
        let message = cbc::Decryptor::<&Aes128>::inner_iv_init(&key.aes, &iv.into())
            .decrypt_padded_mut::<Pkcs7>(cipher)
            .map_err(|_| TokenError::Malformed)?
            .to_vec();
        bytes.zeroize();
        Ok(Opened { message, at, key: index })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The key of the specification's vectors.
    const SECRET: &str = "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=";
    const HELLO: &str = "gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA==";

    fn spec_ring() -> KeyRing {
        KeyRing::new(vec![Key::parse(SECRET).unwrap()]).unwrap()
    }

    #[test]
    fn makes_the_token_of_the_specification() {
        let at = Timestamp::parse("1985-10-26T01:20:00-07:00").unwrap();
        let iv: [u8; 16] = std::array::from_fn(|i| i as u8);
        assert_eq!(spec_ring().encrypt_with(b"hello", at, iv), HELLO.trim_end_matches('='));
    }

    #[test]
    fn verifies_the_token_of_the_specification_with_and_without_padding() {
        for text in [HELLO, HELLO.trim_end_matches('=')] {
            let opened = spec_ring().decrypt(text).unwrap();
            assert_eq!(opened, Opened { message: b"hello".to_vec(), at: 499_162_800, key: 0 });
        }
    }

    #[test]
    fn refuses_the_invalid_tokens_of_the_specification() {
        use TokenError::{Malformed, UnknownKey};
        for (what, token, error) in [
            (
                "incorrect mac",
                "gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-fWPAl1-szkFVzXTuGb4hR8AKtwcaX1YdykQUFBQUFBQUFBQQ==",
                UnknownKey,
            ),
            ("too short", "gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-fWPA==", Malformed),
            (
                "invalid base64",
                "%%%%%%%%%%%%%AECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-fWPAl1-szkFVzXTuGb4hR8AKtwcaX1YdykRtfsH-p1YsUD2Q==",
                Malformed,
            ),
            (
                "not a multiple of the block size",
                "gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-fWPOm73QeoCk9uGib28Xe5vz6oxq5nmxbx_v7mrfyudzUm",
                Malformed,
            ),
            (
                "padding error",
                "gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0ODz4LEpdELGQAad7aNEHbf-JkLPIpuiYRLQ3RtXatOYREu2FWke6CnJNYIbkuKNqOhw==",
                Malformed,
            ),
            (
                "incorrect IV",
                "gAAAAAAdwJ6xBQECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-fWPAkLhFLHpGtDBRLRTZeUfWgHSv49TF2AUEZ1TIvcZjK1zQ==",
                Malformed,
            ),
            (
                "trailing characters",
                "gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA==trailingdata",
                Malformed,
            ),
            (
                "invalid characters",
                "*gAAAAAAdwJ6wAAECAwQFBgcI!CQoLDA0ODy021?cpGVWKZ_eEwC@GM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA==",
                Malformed,
            ),
            (
                "not URL-safe",
                "gAAAAAAdwJ6wAAEC/AwQFBgcICQoLDA0ODy+021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA==",
                Malformed,
            ),
            (
                "version 0x81",
                "gQAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLKY7covSkDHw9ma-418Z5yfJ0bAi-R_TUVpW6VSXlO8JA==",
                Malformed,
            ),
            ("empty", "", Malformed),
        ] {
            assert_eq!(spec_ring().decrypt(token), Err(error), "{what}");
        }
    }

    /// The vectors that only age can refuse open, and tell the time by which the reader refuses them.
    #[test]
    fn tells_the_time_by_which_age_is_judged() {
        for (token, at) in [
            ("gAAAAAAdwStRAAECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-fWPAnja1xKYyhd-Y6mSkTOyTGJmw2Xc2a6kBd-iX9b_qXQcw==", 499_198_801),
            ("gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-fWPAl1-szkFVzXTuGb4hR8AKtwcaX1YdykRtfsH-p1YsUD2Q==", 499_162_801),
        ] {
            assert_eq!(spec_ring().decrypt(token).unwrap().at, at);
        }
    }

    #[test]
    fn every_key_verifies_and_the_first_signs() {
        let (old, new) = (Key::generate(), Key::generate());
        let before = KeyRing::new(vec![old.clone()]).unwrap();
        let after = KeyRing::new(vec![new.clone(), old]).unwrap();
        let text = before.encrypt(b"m", Timestamp(0));
        assert_eq!(after.decrypt(&text).unwrap().key, 1);
        let text = after.encrypt(b"m", Timestamp(0));
        assert_eq!(KeyRing::new(vec![new]).unwrap().decrypt(&text).unwrap().key, 0);
        assert_eq!(before.decrypt(&text), Err(TokenError::UnknownKey));
    }

    #[test]
    fn keys_have_one_text_and_never_show_it() {
        assert_eq!(Key::parse(SECRET).unwrap().to_text().as_str(), SECRET);
        assert_eq!(format!("{:?}", spec_ring()), "KeyRing([Key(hidden)])");
        for bad in ["", "cw_0x689", "cw_0x689RpI+jtRR7oE8h/eQsKImvJapLeSbXpwF4e4=", &SECRET.repeat(2)] {
            assert!(matches!(Key::parse(bad), Err(Error::KeyText)), "{bad}");
        }
        assert!(matches!(KeyRing::new(Vec::new()), Err(Error::EmptyRing)));
    }

    proptest! {
        #[test]
        fn round_trips(message: Vec<u8>, seconds in 0i64..1 << 40) {
            let ring = spec_ring();
            let opened = ring.decrypt(&ring.encrypt(&message, Timestamp::from_unix(seconds))).unwrap();
            prop_assert_eq!(opened, Opened { message, at: seconds as u64, key: 0 });
        }

        #[test]
        fn one_flipped_bit_is_refused(message: Vec<u8>, at: prop::sample::Index, bit in 0u8..8) {
            let ring = spec_ring();
            let mut bytes = BASE64URL.decode(ring.encrypt(&message, Timestamp(0))).unwrap();
            let i = at.index(bytes.len());
            bytes[i] ^= 1 << bit;
            prop_assert!(ring.decrypt(&BASE64URL.encode(bytes)).is_err());
        }

        #[test]
        fn garbage_is_refused(text in "\\PC*", bytes: Vec<u8>) {
            prop_assert!(spec_ring().decrypt(&text).is_err());
            prop_assert!(spec_ring().decrypt(&BASE64URL.encode(bytes)).is_err());
        }
    }
}
