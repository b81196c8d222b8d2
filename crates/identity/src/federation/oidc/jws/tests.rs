use super::*;
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use serde_json::json;

pub(in super::super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key, and what is published of it.
pub(in super::super) struct Signer {
    pair: EcdsaKeyPair,
    pub(in super::super) public: Value,
}

impl Signer {
    pub(in super::super) fn new(id: &str) -> Self {
        let rng = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &rng).unwrap();
        let point = pair.public_key().as_ref().to_vec();
        let public = json!({"kty": "EC", "crv": "P-256", "kid": id, "alg": "ES256", "use": "sig", "x": encode(&point[1..33]), "y": encode(&point[33..])});
        Self { pair, public }
    }
    fn keys(&self) -> Keys {
        Keys::read(&json!({"keys": [self.public]}))
    }
    pub(in super::super) fn sign(&self, header: Value, claims: &Value) -> String {
        let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", encode(signature))
    }
}

fn claims() -> Value {
    json!({"iss": "https://idp", "aud": ["other", "cloud"], "sub": "ada", "exp": 1000, "iat": 900, "nonce": "n"})
}

fn wanted(audiences: &[String]) -> Wanted<'_> {
    Wanted { issuer: "https://idp", audiences, nonce: None, now: Timestamp(950 * 1_000_000) }
}

#[test]
fn only_the_providers_own_signature_counts() {
    let (own, other) = (Signer::new("a"), Signer::new("a"));
    let header = json!({"alg": "ES256", "kid": "a", "typ": "at+jwt"});
    let good = own.sign(header.clone(), &claims());
    assert_eq!(Value::from(open(&good, &own.keys()).unwrap()), claims());
    assert_eq!(open(&other.sign(header.clone(), &claims()), &own.keys()), Err(Refused::Signature));
    assert_eq!(open(&own.sign(json!({"alg": "ES256", "kid": "b"}), &claims()), &own.keys()), Err(Refused::UnknownKey));
    assert!(open(&own.sign(json!({"alg": "ES256"}), &claims()), &own.keys()).is_ok(), "the only key needs no name");

    // Another's claims under our signature.
    let parts: Vec<&str> = good.split('.').collect();
    let forged = format!("{}.{}.{}", parts[0], encode(json!({"sub": "root"}).to_string()), parts[2]);
    assert_eq!(open(&forged, &own.keys()), Err(Refused::Signature));
    for broken in
        ["", "a", "a.b", "..", &format!("{good}.x"), &good[..good.len() - 4], &format!("{good}="), &"x".repeat(LONGEST + 1)]
    {
        assert!(open(broken, &own.keys()).is_err(), "{broken:.40}");
    }
    for header in [
        json!({"alg": "ES256", "crit": ["b64"], "b64": false}),
        json!({"alg": "ES256", "typ": "logout+jwt"}),
        json!({"alg": 7}),
        json!({}),
        json!([]),
    ] {
        assert!(open(&own.sign(header.clone(), &claims()), &own.keys()).is_err(), "{header}");
    }
}

#[test]
fn nobody_signs_without_a_private_key() {
    let own = Signer::new("a");
    for alg in ["none", "None", "NONE", "", "HS256", "HS512", "RS1", "ES256K"] {
        let message = format!("{}.{}", encode(json!({"alg": alg, "kid": "a"}).to_string()), encode(claims().to_string()));
        // With what everybody knows of the provider: nothing, its key's point, or its whole key set.
        let secrets =
            [Vec::new(), URL_SAFE_NO_PAD.decode(own.public["x"].as_str().unwrap()).unwrap(), own.public.to_string().into_bytes()];
        for secret in secrets {
            let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), message.as_bytes());
            for signature in [String::new(), encode(mac)] {
                let token = format!("{message}.{signature}");
                assert_eq!(open(&token, &own.keys()), Err(Refused::Algorithm(alg.into())), "{alg}");
            }
        }
    }
    // A secret in the provider's set is not made a key, and a key of one kind is not used as another.
    let secret = json!({"kty": "oct", "k": encode("secret"), "kid": "a"});
    assert!(Keys::read(&json!({"keys": [secret, {"kty": "RSA"}, 7]})).0.is_empty());
    let message = own.sign(json!({"alg": "RS256", "kid": "a"}), &claims());
    assert_eq!(open(&message, &own.keys()), Err(Refused::UnknownKey));
    let encryption = json!({"keys": [{"kty": "EC", "crv": "P-256", "use": "enc", "x": own.public["x"], "y": own.public["y"]}]});
    assert!(Keys::read(&encryption).0.is_empty());
}

#[test]
fn other_kinds_of_keys_count_too() {
    let rng = SystemRandom::new();
    let pair = Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&rng).unwrap().as_ref()).unwrap();
    let keys = Keys::read(&json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key())}]}));
    let message = format!("{}.{}", encode(json!({"alg": "EdDSA"}).to_string()), encode(claims().to_string()));
    let token = format!("{message}.{}", encode(pair.sign(message.as_bytes())));
    assert!(open(&token, &keys).is_ok());
    // RFC 7515, A.2: RS256 by the key of the example.
    let keys = Keys::read(&json!({"keys": [{"kty": "RSA", "e": "AQAB", "n":
        "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}]}));
    let token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    assert_eq!(open(token, &keys).unwrap()["iss"], "joe");
    assert_eq!(open(&token.replace("cC4", "cC5"), &keys), Err(Refused::Signature));
}

#[test]
fn claims_are_by_for_and_of_when_they_must_be() {
    let cloud = ["cloud".to_owned()];
    let verdict = |change: Value, wanted: &Wanted<'_>| {
        let mut claims = claims();
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        check(claims.as_object().unwrap(), wanted)
    };
    let plain = wanted(&cloud);
    assert_eq!(verdict(json!({}), &plain), Ok(()));
    assert_eq!(verdict(json!({"aud": "cloud"}), &plain), Ok(()));
    for (change, refused) in [
        (json!({"iss": "https://idp/"}), Refused::Issuer("https://idp/".into())),
        (json!({"iss": null}), Refused::Issuer(String::new())),
        (json!({"aud": ["other"]}), Refused::Audience),
        (json!({"aud": null}), Refused::Audience),
        (json!({"exp": 889}), Refused::Expired),
        (json!({"exp": null}), Refused::Expired),
        (json!({"exp": "2000"}), Refused::Expired),
        (json!({"nbf": 1011}), Refused::TooEarly),
        (json!({"iat": 1011}), Refused::TooEarly),
        (json!({"sub": ""}), Refused::Subject),
        (json!({"sub": 7}), Refused::Subject),
    ] {
        assert_eq!(verdict(change.clone(), &plain), Err(refused), "{change}");
    }
    assert_eq!(verdict(json!({"exp": 891}), &plain), Ok(()), "clocks differ");
    let nonce = |nonce| Wanted { nonce: Some(nonce), ..wanted(&cloud) };
    assert_eq!(verdict(json!({}), &nonce("n")), Ok(()));
    assert_eq!(verdict(json!({}), &nonce("m")), Err(Refused::Nonce));
    assert_eq!(verdict(json!({"nonce": null}), &nonce("n")), Err(Refused::Nonce));
}
