//! Signatures of OAuth 1.0 (RFC 5849): what a consumer signs with its secret and the secret of a token.
//!
//! ```text
//! Authorization: OAuth oauth_consumer_key="…", oauth_nonce="…", oauth_signature="…", …
//! base = METHOD & encode(URL) & encode(sorted parameters of header and query, without the signature)
//! key  = encode(consumer's secret) & encode(token's secret)
//! ```
use super::super::ec2tokens::encode;
use base64::Engine as _;
use hmac::{Hmac, Mac as _};
use percent_encoding::percent_decode_str;
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// How far the time of a signature may be from ours, in seconds.
pub(super) const WINDOW: i64 = 600;

/// The parameters of an `Authorization` header.
#[derive(Debug, Default)]
pub(super) struct Signed(Vec<(String, String)>);

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

impl Signed {
    /// Reads the header; nothing when it is of another kind or says something twice.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (kind, rest) = header.split_once(' ')?;
        if !kind.eq_ignore_ascii_case("oauth") {
            return None;
        }
        let mut out: Vec<(String, String)> = Vec::new();
        for part in rest.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (name, value) = part.split_once('=')?;
            let name = decode(name.trim());
            if out.iter().any(|(n, _)| *n == name) {
                return None;
            }
            out.push((name, decode(value.trim().trim_matches('"'))));
        }
        Some(Self(out))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    fn base(&self, method: &str, url: &str, query: &[(String, String)]) -> String {
        let own = self.0.iter().filter(|(n, _)| n != "oauth_signature" && n != "realm");
        let mut all: Vec<(String, String)> = own.chain(query).map(|(n, v)| (encode(n), encode(v))).collect();
        all.sort();
        let parameters = all.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join("&");
        format!("{method}&{}&{}", encode(url), encode(&parameters))
    }

    /// Is it signed with these secrets, for one of the URLs that the client may know us by?
    pub(super) fn fits(&self, method: &str, urls: &[String], query: &[(String, String)], secrets: (&str, &str)) -> bool {
        let Some(given) = self.get("oauth_signature") else { return false };
        let key = format!("{}&{}", encode(secrets.0), encode(secrets.1));
        let sign: fn(&[u8], &str) -> Vec<u8> = match self.get("oauth_signature_method") {
            Some("HMAC-SHA1") => |key, text| {
                let mut mac = <Hmac<Sha1> as hmac::Mac>::new_from_slice(key).expect("HMAC takes keys of every length");
                mac.update(text.as_bytes());
                mac.finalize().into_bytes().to_vec()
            },
            Some("HMAC-SHA256") => |key, text| {
                let mut mac = <Hmac<Sha256> as hmac::Mac>::new_from_slice(key).expect("HMAC takes keys of every length");
                mac.update(text.as_bytes());
                mac.finalize().into_bytes().to_vec()
            },
            _ => return false,
        };
        let made = |url: &String| sign(key.as_bytes(), &self.base(method, url, query));
        let text = |bytes: Vec<u8>| base64::engine::general_purpose::STANDARD.encode(bytes);
        urls.iter().any(|url| text(made(url)).as_bytes().ct_eq(given.as_bytes()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_is_that_of_the_specification() {
        // RFC 5849, section 3.4.1.1, without the parameters of its body.
        let header = "OAuth realm=\"Example\", oauth_consumer_key=\"9djdj82h48djs9d2\", oauth_token=\"kkk9d7dh3k39sjv7\", \
            oauth_signature_method=\"HMAC-SHA1\", oauth_timestamp=\"137131201\", oauth_nonce=\"7d8f3e4a\", oauth_signature=\"x%3D\"";
        let signed = Signed::parse(header).unwrap();
        assert_eq!(signed.get("oauth_signature"), Some("x="));
        let query = [("b5", "=%3D"), ("a3", "a"), ("c@", ""), ("a2", "r b")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        let expected = "POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3Da%26b5%3D%253D%25253D%26c%2540%3D%26\
            oauth_consumer_key%3D9djdj82h48djs9d2%26oauth_nonce%3D7d8f3e4a%26oauth_signature_method%3DHMAC-SHA1%26\
            oauth_timestamp%3D137131201%26oauth_token%3Dkkk9d7dh3k39sjv7";
        assert_eq!(signed.base("POST", "http://example.com/request", &query), expected);
    }

    #[test]
    fn a_signature_fits_its_secrets_and_url_only() {
        // RFC 5849, section 1.2: the request for the photo.
        let header = "OAuth realm=\"Photos\", oauth_consumer_key=\"dpf43f3p2l4k3l03\", oauth_token=\"nnch734d00sl2jdk\", \
            oauth_signature_method=\"HMAC-SHA1\", oauth_timestamp=\"137131202\", oauth_nonce=\"chapoH\", \
            oauth_signature=\"MdpQcU8iPSUjWoN%2FUDMsK2sui9I%3D\"";
        let signed = Signed::parse(header).unwrap();
        let query = [("file".to_owned(), "vacation.jpg".to_owned()), ("size".to_owned(), "original".to_owned())];
        let url = || "http://photos.example.net/photos".to_owned();
        let secrets = ("kd94hf93k423kf44", "pfkkdhi9sl3r4s00");
        assert!(signed.fits("GET", &["http://elsewhere/".to_owned(), url()], &query, secrets));
        assert!(!signed.fits("POST", &[url()], &query, secrets) && !signed.fits("GET", &[url()], &[], secrets));
        assert!(!signed.fits("GET", &[url()], &query, ("kd94hf93k423kf44", "")) && !signed.fits("GET", &[], &query, secrets));
        for bad in ["Basic x", "OAuth a=\"1\", a=\"2\"", "OAuth", "OAuth x"] {
            assert!(Signed::parse(bad).is_none(), "{bad}");
        }
    }
}
