//! Join tokens: which cluster, and a secret that is good once.
use crate::{
    Error,
    ca::{fingerprint, hex},
};
use rand::RngCore as _;
use std::{fmt, str::FromStr};

const PREFIX: &str = "drover1";

/// `drover1.FINGERPRINT.SECRET`: the authority's fingerprint tells a joining machine that it speaks with the right cluster before it
/// says its secret; the secret tells the cluster that the machine was asked in. Only the secret's hash is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    fingerprint: String,
    secret: String,
}

impl JoinToken {
    /// A new one for the cluster of this authority.
    pub fn new(ca_fingerprint: &str) -> Self {
        let mut bytes = [0; 24];
        rand::rng().fill_bytes(&mut bytes);
        Self { fingerprint: ca_fingerprint.to_owned(), secret: bytes.iter().map(|b| format!("{b:02x}")).collect() }
    }
    /// Is this authority (PEM) the one that the token was made for?
    pub fn check(&self, ca_pem: &str) -> Result<(), Error> {
        let found = fingerprint(ca_pem);
        if found == self.fingerprint { Ok(()) } else { Err(Error::OtherCluster { found, wanted: self.fingerprint.clone() }) }
    }
    /// What the cluster keeps of the secret: SHA-256, hex. The secret has 192 random bits, so it needs no slow hash.
    pub fn stored(&self) -> String {
        Self::stored_of(&self.secret)
    }
    pub fn stored_of(secret: &str) -> String {
        hex(secret.as_bytes())
    }
    pub fn secret(&self) -> &str {
        &self.secret
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}.{}.{}", self.fingerprint, self.secret)
    }
}

/// Without the secret: tokens get into logs.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        // What was typed may hold most of a secret: it is not said again.
        let wrong = || Error::Token("What was given".into());
        let parts: Vec<&str> = text.trim().split('.').collect();
        let [PREFIX, fingerprint, secret] = parts.as_slice() else { return Err(wrong()) };
        let is_hex = |s: &str, length: usize| s.len() == length && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !is_hex(fingerprint, 64) || !is_hex(secret, 48) {
            return Err(wrong());
        }
        Ok(Self { fingerprint: (*fingerprint).to_owned(), secret: (*secret).to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ca;

    #[test]
    fn a_token_names_its_cluster_and_hides_its_secret() {
        let (ca, other) = (Ca::create("a").unwrap(), Ca::create("a").unwrap());
        let token = JoinToken::new(&ca.fingerprint());
        assert_eq!(token.to_string().parse::<JoinToken>().unwrap(), token);
        token.check(ca.certificate()).unwrap();
        assert!(matches!(token.check(other.certificate()), Err(Error::OtherCluster { .. })));
        assert!(!format!("{token:?}").contains(token.secret()) && token.stored() != token.secret());
        assert_ne!(token, JoinToken::new(&ca.fingerprint()));
    }

    #[test]
    fn what_is_no_token_is_refused_without_repeating_it() {
        let good = JoinToken::new(&Ca::create("a").unwrap().fingerprint()).to_string();
        for wrong in [
            "",
            "drover1",
            &good[..good.len() - 1],
            &good.replace("drover1", "drover2"),
            &format!("{good}.x"),
            &good.to_uppercase(),
        ] {
            let refused = wrong.parse::<JoinToken>().unwrap_err().to_string();
            assert!(refused.contains("drover join-token") && (wrong.is_empty() || !refused.contains(wrong)), "{refused}");
        }
    }
}
