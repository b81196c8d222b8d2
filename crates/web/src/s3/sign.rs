//! AWS signature version 4: who asks for what, provable without sending the secret. Pure.
use crate::Error;
use base::Timestamp;
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use std::{fmt, path::Path};
use zeroize::Zeroizing;

/// An access key and its secret.
#[derive(Clone)]
pub struct Credentials {
    access_key: String,
    secret_key: Zeroizing<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    pub fn new(access_key: impl Into<String>, secret_key: impl Into<String>) -> Self {
        Self { access_key: access_key.into(), secret_key: Zeroizing::new(secret_key.into()) }
    }

    /// From a file that has the access key in its first line and the secret key in its second.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bad = |why: String| Error::BadCredentials { path: path.to_owned(), why };
        let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?);
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        match (lines.next(), lines.next(), lines.next()) {
            (Some(access), Some(secret), None) => Ok(Self::new(access, secret)),
            _ => Err(bad("it must have two lines, the access key and the secret key".into())),
        }
    }
}

/// What is signed.
pub(super) struct Ask<'a> {
    pub(super) method: &'a str,
    pub(super) host: &'a str,
    /// Encoded, as it is sent.
    pub(super) path: &'a str,
    /// Encoded and sorted, as it is sent.
    pub(super) query: &'a str,
    /// Further headers by lower-case name, sorted; `host` and those of the signature are added.
    pub(super) headers: &'a [(&'static str, String)],
    /// SHA-256 of the body, in hex.
    pub(super) payload: &'a str,
}

/// SHA-256 of nothing, in hex.
pub(super) const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

pub(super) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn keyed(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// `20130524T000000Z`
fn stamp(now: Timestamp) -> String {
    now.seconds_z().chars().filter(|c| !matches!(c, '-' | ':')).collect()
}

/// The headers that make a request ours: all of `ask.headers`, the time, the payload's hash, and the signature over them.
pub(super) fn headers(ask: &Ask<'_>, region: &str, credentials: &Credentials, now: Timestamp) -> Vec<(&'static str, String)> {
    let time = stamp(now);
    let day = time.get(..8).unwrap_or_default();
    let mut headers = ask.headers.to_vec();
    headers.push(("host", ask.host.to_owned()));
    headers.push(("x-amz-content-sha256", ask.payload.to_owned()));
    headers.push(("x-amz-date", time.clone()));
    headers.sort_unstable();
    let listed: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let canonical = format!("{}\n{}\n{}\n{listed}\n{names}\n{}", ask.method, ask.path, ask.query, ask.payload);
    let scope = format!("{day}/{region}/s3/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
    let mut key = keyed(format!("AWS4{}", &*credentials.secret_key).as_bytes(), day);
    for part in [region, "s3", "aws4_request"] {
        key = keyed(&key, part);
    }
    let signature = hex(&keyed(&key, &text));
    let who = &credentials.access_key;
    headers.push((
        "authorization",
        format!("AWS4-HMAC-SHA256 Credential={who}/{scope},SignedHeaders={names},Signature={signature}"),
    ));
    headers
}

/// Percent-encodes what is not unreserved; slashes stay when `path` says so.
pub(super) fn encoded(text: &str, path: bool) -> String {
    use fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            b'/' if path => out.push('/'),
            other => {
                let _ = write!(out, "%{other:02X}");
            }
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the S3 reference, "GET Object".
    #[test]
    fn signs_as_the_reference_does() {
        let credentials = Credentials::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
        let ask = Ask {
            method: "GET",
            host: "examplebucket.s3.amazonaws.com",
            path: "/test.txt",
            query: "",
            headers: &[("range", "bytes=0-9".into())],
            payload: EMPTY,
        };
        let now = Timestamp::parse("2013-05-24T00:00:00Z").unwrap();
        let signed = headers(&ask, "us-east-1", &credentials, now);
        let (_, authorization) = signed.last().unwrap();
        assert_eq!(
            authorization,
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
             SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,\
             Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        assert_eq!(format!("{credentials:?}"), "Credentials", "nothing of them is told");
    }

    #[test]
    fn encodes() {
        assert_eq!(encoded("a b/ü~", true), "a%20b/%C3%BC~");
        assert_eq!(encoded("a/b+c=", false), "a%2Fb%2Bc%3D");
    }

    #[test]
    fn credentials_are_two_lines() {
        let dir = std::env::temp_dir().join(base::id::hex());
        std::fs::write(&dir, "one\n").unwrap();
        assert!(matches!(Credentials::read(&dir), Err(Error::BadCredentials { .. })));
        std::fs::write(&dir, "one\ntwo\n").unwrap();
        assert_eq!(Credentials::read(&dir).unwrap().access_key, "one");
        std::fs::remove_file(&dir).unwrap();
    }
}
