//! `POST /v3/ec2tokens`: a service that got a request signed with EC2 keys learns whose they are.
//!
//! Only services may ask: whoever could would guess signatures at leisure, or replay seen ones. A signature is good for a few
//! minutes around its time.
use super::{auth, credentials, login, need_text, object};
use crate::{
    Auth,
    resources::{CREDENTIAL, TRUST},
    rows::{flag, text},
};
use api::{Access, Call, Error, Map, Reply, Result, Route};
use auth::{Method, Methods, TokenScope};
use base::Timestamp;
use base64::Engine as _;
use hmac::{Hmac, Mac as _};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::{collections::BTreeMap, fmt::Write as _};
use store::Row;
use subtle::ConstantTimeEq as _;

/// How far the time of a signature may be from ours, in seconds.
const WINDOW: i64 = 15 * 60;

pub(super) fn routes() -> Vec<Route> {
    vec![Route::new("POST", "/v3/ec2tokens", Access::Rule("identity:ec2_validate", "rule:service"), validate)]
}

async fn validate(call: Call) -> Result<Reply> {
    let auth = auth(&call)?;
    let body = call.object()?;
    let asked = body.get("credentials").or_else(|| body.get("ec2Credentials")).and_then(Value::as_object);
    let asked = asked.ok_or_else(|| Error::bad_request("'credentials' is a required property"))?;
    let access = need_text(asked, "access")?;
    let refused = || login::refused("no such EC2 key, or a wrong or old signature");
    let row = call.reader().find(&CREDENTIAL.table, "access_hash", &credentials::access_hash(access)).into_iter().next();
    let secret = match &row {
        Some(row) => secret(&auth, object(row)?)?,
        None => String::new(),
    };
    let right = check(asked, &secret, auth.now())?;
    let row = row.filter(|_| right).ok_or_else(refused)?;

    answer(&call, &auth, &row)
}

/// A token for whose keys they are, no better than what the keys were made with.
pub(super) fn answer(call: &Call, auth: &Auth, row: &Row) -> Result<Reply> {
    let mut token = login::blank(auth, row.text("user_id"), Methods::default().with(Method::Password));
    token.scope = TokenScope::Project(row.text("project_id").into());
    token.app_credential_id = text(row, "app_credential_id").map(str::to_owned);
    token.trust_id = text(row, "trust_id").map(str::to_owned);
    if let Some(id) = &token.trust_id {
        let trust = call.reader().get(&TRUST.table, id).ok_or_else(|| login::refused("the trust of the EC2 key is gone"))?;
        let acts_as = if flag(&trust, "impersonation") { "trustor_user_id" } else { "trustee_user_id" };
        token.user_id = trust.text(acts_as).into();
        login::cap(&mut token, &trust);
    }
    let (text, known) = login::seal(auth, &token)?;
    Ok(Reply { status: 200, ..login::reply(call, auth, text, &known) })
}

pub(super) fn secret(auth: &Auth, row: &Map) -> Result<String> {
    let blob: Map = serde_json::from_str(&credentials::open(auth, row)?).unwrap_or_default();
    Ok(blob.get("secret").and_then(Value::as_str).unwrap_or_default().to_owned())
}

fn texts(map: Option<&Value>) -> BTreeMap<String, String> {
    let entries = map.and_then(Value::as_object).into_iter().flatten();
    entries.map(|(k, v)| (k.clone(), v.as_str().map_or_else(|| v.to_string(), str::to_owned))).collect()
}

pub(super) fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = <Hmac<Sha256> as hmac::Mac>::new_from_slice(key).expect("HMAC takes keys of every length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// RFC 3986, with nothing reserved left as it is: as AWS and OAuth sign it.
pub(super) fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, b| {
        if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) {
            out.push(char::from(b));
        } else {
            let _ = write!(out, "%{b:02X}");
        }
        out
    })
}

fn query(params: &BTreeMap<String, String>) -> String {
    // Sorted by what is signed: the encoded names.
    let mut pairs: Vec<(String, String)> = params.iter().map(|(k, v)| (encode(k), encode(v))).collect();
    pairs.sort();
    pairs.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join("&")
}

pub(super) fn is_recent(time: Option<Timestamp>, now: Timestamp) -> bool {
    time.is_some_and(|t| (t.unix() - now.unix()).abs() <= WINDOW)
}

/// Is the signature right and recent?
fn check(asked: &Map, secret: &str, now: Timestamp) -> Result<bool> {
    let params = texts(asked.get("params"));
    let headers: BTreeMap<String, String> =
        texts(asked.get("headers")).into_iter().map(|(k, v)| (k.to_ascii_lowercase(), v)).collect();
    let given = need_text(asked, "signature")?;
    let verb = need_text(asked, "verb")?.to_ascii_uppercase();
    let (host, path) = (need_text(asked, "host")?, need_text(asked, "path")?);
    let (expected, time) = match params.get("SignatureVersion").map(String::as_str) {
        Some("2") => {
            if params.get("SignatureMethod").map(String::as_str) != Some("HmacSHA256") {
                return Err(Error::bad_request("The signature method must be HmacSHA256."));
            }
            let mut signed = params.clone();
            signed.remove("Signature");
            let text = format!("{verb}\n{host}\n{path}\n{}", query(&signed));
            let signature = base64::engine::general_purpose::STANDARD.encode(hmac(secret.as_bytes(), &text));
            (signature, params.get("Timestamp").and_then(|t| Timestamp::parse(t)))
        }
        Some(_) => return Err(Error::bad_request("The signature version must be 2 or 4.")),
        None => version_4(asked, &headers, &params, &verb, path, secret)?,
    };
    let right: bool = expected.as_bytes().ct_eq(given.as_bytes()).into();
    Ok(right && is_recent(time, now))
}

/// `20260102T030405Z`
pub(super) fn compact_time(text: &str) -> Option<Timestamp> {
    if text.len() != 16 || !text.is_ascii() {
        return None;
    }
    let part = |from: usize, to: usize| &text[from..to];
    Timestamp::parse(&format!("{}-{}-{}T{}:{}:{}Z", part(0, 4), part(4, 6), part(6, 8), part(9, 11), part(11, 13), part(13, 15)))
}

fn version_4(
    asked: &Map,
    headers: &BTreeMap<String, String>,
    params: &BTreeMap<String, String>,
    verb: &str,
    path: &str,
    secret: &str,
) -> Result<(String, Option<Timestamp>)> {
    let missing = |what: &str| Error::bad_request(format!("A signature of version 4 needs {what}."));
    let authorization = headers.get("authorization");
    let from_header = |name: &str| {
        let all = authorization?.split_once(' ')?.1;
        all.split(',').find_map(|p| p.trim().strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
    };
    let credential =
        params.get("X-Amz-Credential").cloned().or_else(|| from_header("Credential")).ok_or_else(|| missing("a credential"))?;
    let signed = params
        .get("X-Amz-SignedHeaders")
        .cloned()
        .or_else(|| from_header("SignedHeaders"))
        .ok_or_else(|| missing("signed headers"))?;
    let date = params.get("X-Amz-Date").or_else(|| headers.get("x-amz-date")).ok_or_else(|| missing("a date"))?;
    let scope = credential.split_once('/').map(|(_, scope)| scope).ok_or_else(|| missing("a scope"))?;
    let parts: Vec<&str> = scope.split('/').collect();
    let [day, region, service, "aws4_request"] = parts[..] else { return Err(missing("a scope of four parts")) };

    let canonical_headers: String =
        signed.split(';').map(|name| format!("{name}:{}\n", headers.get(name).map_or("", |v| v.trim()))).collect();
    let mut in_query = params.clone();
    if authorization.is_some() && verb == "POST" {
        // The parameters of a POST are in its body, which has its own hash.
        in_query.clear();
    }
    in_query.remove("X-Amz-Signature");
    let body_hash = asked.get("body_hash").and_then(Value::as_str).unwrap_or_default();
    let canonical = format!("{verb}\n{path}\n{}\n{canonical_headers}\n{signed}\n{body_hash}", query(&in_query));
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
    let key = hmac(format!("AWS4{secret}").as_bytes(), day);
    let key = hmac(&hmac(&hmac(&key, region), service), "aws4_request");
    Ok((hex(&hmac(&key, &text)), compact_time(date)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked(v: Value) -> Map {
        v.as_object().cloned().unwrap()
    }

    /// The worked example of Amazon's documentation of signature version 4 (IAM, ListUsers).
    #[test]
    fn version_4_as_amazon_documents_it() {
        let request = asked(json!({
            "access": "AKIDEXAMPLE", "verb": "GET", "host": "iam.amazonaws.com", "path": "/",
            "signature": "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
            "params": {"Action": "ListUsers", "Version": "2010-05-08"},
            "headers": {
                "Host": "iam.amazonaws.com", "X-Amz-Date": "20150830T123600Z",
                "Content-Type": "application/x-www-form-urlencoded; charset=utf-8",
                "Authorization": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
                    SignedHeaders=content-type;host;x-amz-date, Signature=5d67",
            },
            "body_hash": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        }));
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let then = Timestamp::parse("2015-08-30T12:36:00Z").unwrap();
        assert!(check(&request, secret, then).unwrap());
        assert!(!check(&request, "another", then).unwrap());
        let later = then.plus(std::time::Duration::from_secs(16 * 60));
        assert!(!check(&request, secret, later).unwrap(), "an old signature");
    }

    #[test]
    fn version_2_signs_everything_but_the_signature() {
        let mut request = asked(json!({
            "access": "a", "verb": "get", "host": "h", "path": "/", "signature": "",
            "params": {"SignatureVersion": "2", "SignatureMethod": "HmacSHA256", "Timestamp": "2026-01-01T00:00:00Z", "b": "x y"},
        }));
        let text = "GET\nh\n/\nSignatureMethod=HmacSHA256&SignatureVersion=2&Timestamp=2026-01-01T00%3A00%3A00Z&b=x%20y";
        let right = base64::engine::general_purpose::STANDARD.encode(hmac(b"s", text));
        request.insert("signature".into(), right.into());
        let then = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
        assert!(check(&request, "s", then).unwrap());
        request["params"]["b"] = "other".into();
        assert!(!check(&request, "s", then).unwrap());
    }
}
