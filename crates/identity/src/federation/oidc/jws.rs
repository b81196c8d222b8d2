//! Signed tokens of providers (RFC 7515, 7517, 7519): whose signature it is, and for whom and until when it is meant.
//!
//! Only signatures by a private key count: `none` and the MACs are not known here, so that nobody signs with a key that is public.
use base::Timestamp;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use resource::Map;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
    RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use serde_json::Value;

/// Longer tokens are refused before they are read.
pub(crate) const LONGEST: usize = 32 * 1024;
/// What two clocks may differ by.
const SKEW_S: i64 = 60;
/// Signatures by a private key.
const ALGORITHMS: [&str; 9] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

/// Why a token does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("it is no signed token")]
    Malformed,
    #[error("it is signed by '{0}', which does not count")]
    Algorithm(String),
    #[error("it is signed with a key that the provider does not have")]
    UnknownKey,
    #[error("its signature is wrong")]
    Signature,
    #[error("it is by '{0}', which is not the provider")]
    Issuer(String),
    #[error("it is for others")]
    Audience,
    #[error("it is over, or has no end")]
    Expired,
    #[error("it does not count yet")]
    TooEarly,
    #[error("it is not the answer to this login")]
    Nonce,
    #[error("it names nobody")]
    Subject,
}

enum Public {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

struct Key {
    id: Option<String>,
    algorithm: Option<String>,
    public: Public,
}

/// The keys of a provider that signatures may be by.
#[derive(Default)]
pub(crate) struct Keys(Vec<Key>);

/// Is it among the keys' algorithms of that kind?
fn fits(public: &Public, algorithm: &str) -> bool {
    match public {
        Public::Rsa { .. } => algorithm.starts_with("RS") || algorithm.starts_with("PS"),
        Public::P256(_) => algorithm == "ES256",
        Public::P384(_) => algorithm == "ES384",
        Public::Ed25519(_) => algorithm == "EdDSA",
    }
}

fn key(value: &Value) -> Option<Key> {
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?.trim_end_matches('=')).ok();
    if text("use").is_some_and(|u| u != "sig") {
        return None;
    }
    let point = |length: usize| {
        let (x, y) = (bytes("x")?, bytes("y")?);
        (x.len() == length && y.len() == length).then(|| [&[4], &x[..], &y[..]].concat())
    };
    let public = match (text("kty")?, text("crv")) {
        ("RSA", _) => Public::Rsa { n: bytes("n")?, e: bytes("e")? },
        ("EC", Some("P-256")) => Public::P256(point(32)?),
        ("EC", Some("P-384")) => Public::P384(point(48)?),
        ("OKP", Some("Ed25519")) => Public::Ed25519(bytes("x")?),
        _ => return None,
    };
    Some(Key { id: text("kid").map(str::to_owned), algorithm: text("alg").map(str::to_owned), public })
}

impl Keys {
    /// Of a JSON Web Key Set; keys that are not understood are left out.
    pub(crate) fn read(set: &Value) -> Self {
        Self(set.get("keys").and_then(Value::as_array).into_iter().flatten().filter_map(key).collect())
    }
}

fn verify(public: &Public, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
    let rsa = |parameters: &'static RsaParameters, n: &[u8], e: &[u8]| {
        // A sign byte in front is no part of the number.
        let n = n.iter().position(|b| *b != 0).map_or(n, |at| &n[at..]);
        RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
    };
    let plain = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8]| {
        UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
    };
    match (public, algorithm) {
        (Public::Rsa { n, e }, "RS256") => rsa(&RSA_PKCS1_2048_8192_SHA256, n, e),
        (Public::Rsa { n, e }, "RS384") => rsa(&RSA_PKCS1_2048_8192_SHA384, n, e),
        (Public::Rsa { n, e }, "RS512") => rsa(&RSA_PKCS1_2048_8192_SHA512, n, e),
        (Public::Rsa { n, e }, "PS256") => rsa(&RSA_PSS_2048_8192_SHA256, n, e),
        (Public::Rsa { n, e }, "PS384") => rsa(&RSA_PSS_2048_8192_SHA384, n, e),
        (Public::Rsa { n, e }, "PS512") => rsa(&RSA_PSS_2048_8192_SHA512, n, e),
        (Public::P256(key), "ES256") => plain(&ECDSA_P256_SHA256_FIXED, key),
        (Public::P384(key), "ES384") => plain(&ECDSA_P384_SHA384_FIXED, key),
        (Public::Ed25519(key), "EdDSA") => plain(&ED25519, key),
        _ => false,
    }
}

fn part(text: &str) -> Result<Vec<u8>, Refused> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Refused::Malformed)
}

fn object(text: &str) -> Result<Map, Refused> {
    serde_json::from_slice(&part(text)?).map_err(|_| Refused::Malformed)
}

/// Does it look like a signed token, and not like one that only its provider can read?
pub(crate) fn is_signed(token: &str) -> bool {
    token.split('.').count() == 3 && token.split('.').next().is_some_and(|head| object(head).is_ok_and(|h| h.contains_key("alg")))
}

/// The claims of a token that one of the keys has signed. What they say is not judged.
pub(crate) fn open(token: &str, keys: &Keys) -> Result<Map, Refused> {
    if token.len() > LONGEST {
        return Err(Refused::Malformed);
    }
    let mut parts = token.split('.');
    let (Some(head), Some(body), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(Refused::Malformed);
    };
    let header = object(head)?;
    let text = |name: &str| header.get(name).and_then(Value::as_str);
    let algorithm = text("alg").ok_or(Refused::Malformed)?;
    if !ALGORITHMS.contains(&algorithm) {
        return Err(Refused::Algorithm(algorithm.chars().take(32).collect()));
    }
    // What must be understood is not; and other things than these are signed with the same keys.
    let kind = text("typ").unwrap_or("JWT").to_ascii_lowercase();
    if header.contains_key("crit") || !["jwt", "at+jwt", "application/at+jwt"].contains(&kind.as_str()) {
        return Err(Refused::Malformed);
    }
    let signature = part(signature)?;
    let id = text("kid");
    let usable = |k: &&Key| {
        fits(&k.public, algorithm)
            && k.algorithm.as_deref().is_none_or(|a| a == algorithm)
            && (id.is_none() || k.id.as_deref() == id)
    };
    let candidates: Vec<&Key> = keys.0.iter().filter(usable).collect();
    if candidates.is_empty() {
        return Err(Refused::UnknownKey);
    }
    let message = &token.as_bytes()[..head.len() + 1 + body.len()];
    if !candidates.iter().any(|k| verify(&k.public, algorithm, message, &signature)) {
        return Err(Refused::Signature);
    }
    object(body)
}

/// What claims must say.
pub(crate) struct Wanted<'a> {
    pub(crate) issuer: &'a str,
    pub(crate) audiences: &'a [String],
    /// Of an ID token: that of our own request.
    pub(crate) nonce: Option<&'a str>,
    pub(crate) now: Timestamp,
}

/// Texts of a claim that is one or a list.
pub(crate) fn texts<'a>(claims: &'a Map, name: &str) -> Vec<&'a str> {
    match claims.get(name) {
        Some(Value::String(s)) => vec![s],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Fails unless the claims are by whom, for whom and of when they must be.
pub(crate) fn check(claims: &Map, wanted: &Wanted<'_>) -> Result<(), Refused> {
    let issuer = claims.get("iss").and_then(Value::as_str).unwrap_or_default();
    if issuer != wanted.issuer {
        return Err(Refused::Issuer(issuer.chars().take(200).collect()));
    }
    let audience = texts(claims, "aud");
    if !audience.iter().any(|a| wanted.audiences.iter().any(|w| w == a)) {
        return Err(Refused::Audience);
    }
    check_times(claims, wanted.now)?;
    if let Some(nonce) = wanted.nonce
        && claims.get("nonce").and_then(Value::as_str) != Some(nonce)
    {
        return Err(Refused::Nonce);
    }
    match claims.get("sub").and_then(Value::as_str) {
        Some(sub) if !sub.is_empty() => Ok(()),
        _ => Err(Refused::Subject),
    }
}

/// Fails unless it is the time of the claims.
pub(crate) fn check_times(claims: &Map, now: Timestamp) -> Result<(), Refused> {
    let now = now.0.div_euclid(1_000_000);
    let time = |name: &str| claims.get(name).and_then(Value::as_f64);
    if time("exp").is_none_or(|exp| now as f64 >= exp + SKEW_S as f64) {
        return Err(Refused::Expired);
    }
    let early = |name: &str| time(name).is_some_and(|at| at > (now + SKEW_S) as f64);
    if early("nbf") || early("iat") { Err(Refused::TooEarly) } else { Ok(()) }
}

#[cfg(test)]
pub(super) mod tests;
