//! `POST /v3/s3tokens`: a service that got a request signed with EC2 keys as S3's clients do learns whose they are.
//!
//! The service sends the text that was signed, and not the request; so it alone knows that the one belongs to the other, and only services
//! may ask. A text of version 4 has its time in it and is good for some minutes; one of version 2 has none that could be relied on.
use super::{
    auth, credentials,
    ec2tokens::{self, compact_time, hex, hmac, is_recent},
    login, need_text, object,
};
use crate::resources::CREDENTIAL;
use api::{Access, Call, Error, Reply, Result, Route};
use base::Timestamp;
use base64::Engine as _;
use hmac::Mac as _;
use serde_json::Value;
use subtle::ConstantTimeEq as _;

pub(super) fn routes() -> Vec<Route> {
    vec![Route::new("POST", "/v3/s3tokens", Access::Rule("identity:s3_validate", "rule:service"), validate)]
}

async fn validate(call: Call) -> Result<Reply> {
    let auth = auth(&call)?;
    let asked = call.object()?.get("credentials").and_then(Value::as_object);
    let asked = asked.ok_or_else(|| Error::bad_request("'credentials' is a required property"))?;
    let (access, signed) = (need_text(asked, "access")?, need_text(asked, "token")?);
    let given = need_text(asked, "signature")?;
    let text = decoded(signed).ok_or_else(|| Error::bad_request("Invalid input for field 'token': it is not base64."))?;
    let row = call.reader().find(&CREDENTIAL.table, "access_hash", &credentials::access_hash(access)).into_iter().next();
    let secret = match &row {
        Some(row) => ec2tokens::secret(&auth, object(row)?)?,
        None => String::new(),
    };
    let expected = signature(&text, &secret, auth.now()).unwrap_or_default();
    let right: bool = expected.as_bytes().ct_eq(given.as_bytes()).into();
    let refused = || login::refused("no such EC2 key, or a wrong or old signature");
    let row = row.filter(|_| right && !expected.is_empty()).ok_or_else(refused)?;
    ec2tokens::answer(&call, &auth, &row)
}

/// In either alphabet, with or without padding.
fn decoded(text: &str) -> Option<String> {
    let plain: String = text.trim_end_matches('=').replace('+', "-").replace('/', "_");
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(plain).ok()?;
    String::from_utf8(bytes).ok()
}

/// The right signature of a text; none when it is too old or of no form that is known.
fn signature(text: &str, secret: &str, now: Timestamp) -> Option<String> {
    if !text.starts_with("AWS4") {
        let mut mac = <hmac::Hmac<sha1::Sha1> as hmac::Mac>::new_from_slice(secret.as_bytes()).ok()?;
        mac.update(text.as_bytes());
        return Some(base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes()));
    }
    let lines: Vec<&str> = text.split('\n').collect();
    let ["AWS4-HMAC-SHA256", date, scope, _] = lines[..] else { return None };
    let parts: Vec<&str> = scope.split('/').collect();
    let [day, region, service @ ("s3" | "iam"), "aws4_request"] = parts[..] else { return None };
    if !date.starts_with(day) || !is_recent(compact_time(date), now) {
        return None;
    }
    let key = hmac(format!("AWS4{secret}").as_bytes(), day);
    let key = hmac(&hmac(&hmac(&key, region), service), "aws4_request");
    Some(hex(&hmac(&key, text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_4_as_amazon_documents_it() {
        // "GET Object" of Amazon's documentation of Signature Version 4 for S3.
        let text = "AWS4-HMAC-SHA256\n20130524T000000Z\n20130524/us-east-1/s3/aws4_request\n\
            7344ae5b7ee6c3e7e6b0fe0640412a37625d1fbfff95c48bbb2dc43964946972";
        let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
        let at = Timestamp::parse("2013-05-24T00:00:00Z").unwrap();
        let expected = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        assert_eq!(signature(text, secret, at).as_deref(), Some(expected));
        assert_eq!(signature(text, secret, at.plus(std::time::Duration::from_secs(3600))), None, "it is old");
        assert_eq!(signature(&text.replace("/s3/", "/ec2/"), secret, at), None);
        assert_eq!(signature(&text.replace("20130524/", "20130523/"), secret, at), None);
    }

    #[test]
    fn version_2_as_amazon_documents_it() {
        // "Object GET" of Amazon's documentation of signing REST requests.
        let text = "GET\n\n\nTue, 27 Mar 2007 19:36:42 +0000\n/awsexamplebucket1/photos/puppy.jpg";
        let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
        assert_eq!(signature(text, secret, Timestamp(0)).as_deref(), Some("qgk2+6Sv9/oM7G3qLEjTH1a1l1g="));
    }

    #[test]
    fn a_text_comes_in_either_alphabet() {
        for text in ["Pz8_Pj4-", "Pz8/Pj4+", "Pz8_Pj4-=="] {
            assert_eq!(decoded(text).as_deref(), Some("???>>>"), "{text}");
        }
        assert_eq!(decoded("not base64!"), None);
    }
}
