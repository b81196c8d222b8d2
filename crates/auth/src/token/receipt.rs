//! Authentication receipts: what a user has proved so far, for the next request of the same login.
//!
//! They are sealed with the keys of tokens and have a version of their own, so that neither is ever taken for the other.
//!
//! ```text
//! version ‖ methods (2) ‖ issued (8, µs) ‖ expires - issued (varint, µs) ‖ user
//! ```
use super::{Methods, Reader, Writer};
use crate::{KeyRing, TokenError, scope::UserId};
use base::Timestamp;

const VERSION: u8 = 0x52;
const LONGEST_TEXT: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub user_id: UserId,
    pub methods: Methods,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
}

impl Receipt {
    /// The text that a client sends back in `Openstack-Auth-Receipt`.
    pub fn seal(&self, ring: &KeyRing) -> String {
        let mut w = Writer::with_capacity(48);
        w.bytes(&[VERSION]);
        w.bytes(&self.methods.0.to_be_bytes());
        w.bytes(&self.issued_at.0.to_be_bytes());
        w.varint(self.expires_at.0.wrapping_sub(self.issued_at.0).cast_unsigned());
        w.id(self.user_id.as_str());
        ring.encrypt(&w.into_bytes(), self.issued_at)
    }

    /// Reads a receipt. Whether it is over is for the caller to judge.
    pub fn open(ring: &KeyRing, text: &str) -> Result<Self, TokenError> {
        if text.len() > LONGEST_TEXT {
            return Err(TokenError::Malformed);
        }
        let message = ring.decrypt(text)?.message;
        match message.split_first() {
            Some((&VERSION, rest)) => Self::read(&mut Reader::new(rest)).ok_or(TokenError::Payload),
            Some((&other, _)) => Err(TokenError::Version(other)),
            None => Err(TokenError::Payload),
        }
    }

    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let methods = u16::from_be_bytes(r.array()?);
        if methods & !Methods::MASK != 0 {
            return None;
        }
        let issued = i64::from_be_bytes(r.array()?);
        let expires = issued.wrapping_add(r.varint()?.cast_signed());
        let user_id = UserId(r.id()?);
        r.is_empty().then_some(Self {
            user_id,
            methods: Methods(methods),
            issued_at: Timestamp(issued),
            expires_at: Timestamp(expires),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Key, Method, Token, token};
    use std::time::Duration;

    #[test]
    fn a_receipt_is_no_token_and_a_token_no_receipt() {
        let ring = KeyRing::new(vec![Key::generate()]).unwrap();
        let methods = Methods::default().with(Method::Password);
        let at = Timestamp(1_000_000);
        let receipt = Receipt { user_id: "u".into(), methods, issued_at: at, expires_at: at.plus(Duration::from_secs(300)) };
        let text = receipt.seal(&ring);
        assert_eq!(Receipt::open(&ring, &text).unwrap(), receipt);
        assert_eq!(token::open(&ring, &text), Err(TokenError::Version(VERSION)));
        let token = token::mint(&ring, &Token::new("u", methods, at, Duration::from_secs(1)));
        assert!(matches!(Receipt::open(&ring, &token), Err(TokenError::Version(_))));
        assert_eq!(Receipt::open(&KeyRing::new(vec![Key::generate()]).unwrap(), &text), Err(TokenError::UnknownKey));
    }
}
