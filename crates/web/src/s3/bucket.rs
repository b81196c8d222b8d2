//! A bucket, and requests to it.
use super::{
    Credentials, Download, Multipart,
    sign::{Ask, EMPTY, encoded, headers},
    xml,
};
use crate::{
    Error, Trust,
    http::{Body, Server, length},
};
use base::{Clock as _, SystemClock, Timestamp, retry::Backoff};
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, Response, Uri, body::Incoming};
use std::{fmt, ops::Range, path::PathBuf, sync::Arc, time::Duration};

/// An answer that is a list or an error has fewer bytes.
const LONGEST: usize = 4 << 20;
const AGAIN: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
const ATTEMPTS: u32 = 4;

/// Where a bucket is.
#[derive(Clone, Debug)]
pub struct Place {
    /// `https://s3.example.org`, without the bucket.
    pub endpoint: String,
    pub bucket: String,
    pub region: String,
    /// Who vouches for the endpoint; the system's authorities if none is named.
    pub ca: Option<PathBuf>,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Bucket(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) server: Server,
    place: Place,
    credentials: Credentials,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bucket").field(&self.0.place).finish()
    }
}

/// An object in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub key: String,
    pub size: u64,
}

/// A multi-part upload that nobody has finished yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    pub key: String,
    pub upload: String,
}

/// A request of which only the body is missing.
#[derive(Clone)]
pub(super) struct Call<'a> {
    /// What it is for, in messages.
    pub(super) name: &'static str,
    pub(super) method: &'static str,
    pub(super) key: &'a str,
    /// Sorted by name.
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) headers: Vec<(&'static str, String)>,
}

impl<'a> Call<'a> {
    pub(super) fn new(name: &'static str, method: &'static str, key: &'a str) -> Self {
        Self { name, method, key, query: Vec::new(), headers: Vec::new() }
    }
    pub(super) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self.query.sort_unstable();
        self
    }
    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A body, its length and its SHA-256. It is made anew for each attempt.
pub(super) struct Payload {
    pub(super) body: Body,
    pub(super) length: u64,
    pub(super) sha256: String,
}

impl Payload {
    pub(super) fn none() -> Self {
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        Self { body, length: 0, sha256: EMPTY.into() }
    }
}

impl Bucket {
    pub fn open(place: Place, credentials: Credentials) -> Result<Self, Error> {
        let bad = |why| Error::BadUrl { url: place.endpoint.clone(), why };
        let uri: Uri = place.endpoint.parse().map_err(|_| bad("it is malformed"))?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(bad("it must end behind the server; the bucket is named apart"));
        }
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if place.bucket.is_empty() || !place.bucket.chars().all(known) {
            return Err(Error::BadUrl { url: place.bucket, why: "this is no name of a bucket" });
        }
        let server = Server::of(&uri, &Trust::new(place.ca.clone(), None))?;
        Ok(Self(Arc::new(Inner { server, place, credentials })))
    }

    pub fn name(&self) -> &str {
        &self.0.place.bucket
    }

    /// Is the bucket there, and may we use it?
    pub async fn check(&self) -> Result<(), Error> {
        self.ask(&Call::new("HeadBucket", "HEAD", "")).await.map(drop)
    }

    /// Bytes of the object, or none if it is not there.
    pub async fn size(&self, key: &str) -> Result<Option<u64>, Error> {
        let found = self.ask(&Call::new("HeadObject", "HEAD", key)).await;
        match found {
            Ok(answer) => Ok(Some(length(&answer).ok_or_else(|| self.malformed("HeadObject", "it has no length"))?)),
            Err(Error::Refused { status: 404, .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The bytes of a range, which must lie within the object.
    pub fn read(&self, key: &str, range: Range<u64>) -> Download {
        Download::new(self.clone(), key.to_owned(), range)
    }

    /// Begins an object whose parts come one by one.
    pub async fn begin(&self, key: &str) -> Result<Multipart, Error> {
        const NAME: &str = "CreateMultipartUpload";
        let call = Call::new(NAME, "POST", key).query("uploads", "").header("content-type", "application/octet-stream");
        let text = self.ask_text(&call).await?;
        let upload = xml::text(&text, "UploadId").ok_or_else(|| self.malformed(NAME, "it names no upload"))?;
        Ok(Multipart::new(self.clone(), key.to_owned(), upload))
    }

    /// A multi-part upload that somebody began.
    pub fn resume(&self, unfinished: &Unfinished) -> Multipart {
        Multipart::new(self.clone(), unfinished.key.clone(), unfinished.upload.clone())
    }

    /// Removes the object; one that is not there is removed already.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        match self.ask(&Call::new("DeleteObject", "DELETE", key)).await {
            Ok(_) | Err(Error::Refused { status: 404, .. }) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Every object whose key begins so.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Object>, Error> {
        const NAME: &str = "ListObjectsV2";
        let (mut found, mut after) = (Vec::new(), None::<String>);
        loop {
            let mut call = Call::new(NAME, "GET", "").query("list-type", "2").query("prefix", prefix);
            if let Some(token) = after.take() {
                call = call.query("continuation-token", token);
            }
            let text = self.ask_text(&call).await?;
            for each in xml::all(&text, "Contents") {
                let size = xml::text(each, "Size").and_then(|s| s.parse().ok());
                let (Some(key), Some(size)) = (xml::text(each, "Key"), size) else {
                    return Err(self.malformed(NAME, "an object has no key or no size"));
                };
                found.push(Object { key, size });
            }
            if xml::text(&text, "IsTruncated").as_deref() != Some("true") {
                return Ok(found);
            }
            after = xml::text(&text, "NextContinuationToken");
            if after.is_none() {
                return Err(self.malformed(NAME, "it does not say how to go on"));
            }
        }
    }

    /// Multi-part uploads that are not finished and whose key begins so.
    pub async fn unfinished(&self, prefix: &str) -> Result<Vec<Unfinished>, Error> {
        const NAME: &str = "ListMultipartUploads";
        let (mut found, mut after) = (Vec::new(), None::<(String, String)>);
        loop {
            let mut call = Call::new(NAME, "GET", "").query("uploads", "").query("prefix", prefix);
            if let Some((key, upload)) = after.take() {
                call = call.query("key-marker", key).query("upload-id-marker", upload);
            }
            let text = self.ask_text(&call).await?;
            for each in xml::all(&text, "Upload") {
                let (Some(key), Some(upload)) = (xml::text(each, "Key"), xml::text(each, "UploadId")) else {
                    return Err(self.malformed(NAME, "an upload has no key or no id"));
                };
                // Some servers take no prefix here.
                if key.starts_with(prefix) {
                    found.push(Unfinished { key, upload });
                }
            }
            let next = xml::text(&text, "NextKeyMarker").zip(xml::text(&text, "NextUploadIdMarker"));
            match (xml::text(&text, "IsTruncated").as_deref(), next) {
                (Some("true"), Some(next)) => after = Some(next),
                _ => return Ok(found),
            }
        }
    }

    /// One request without a body, again while that may help.
    pub(super) async fn ask(&self, call: &Call<'_>) -> Result<Response<Incoming>, Error> {
        for attempt in 1.. {
            match self.send(call, Payload::none()).await {
                Err(e) if e.is_transient() && attempt < ATTEMPTS => tokio::time::sleep(AGAIN.jittered(attempt)).await,
                done => return done,
            }
        }
        Err(self.0.server.stalled())
    }

    pub(super) async fn ask_text(&self, call: &Call<'_>) -> Result<String, Error> {
        let mut answer = self.ask(call).await?;
        self.0.server.text(answer.body_mut(), LONGEST).await
    }

    /// One request, once.
    pub(super) async fn send(&self, call: &Call<'_>, payload: Payload) -> Result<Response<Incoming>, Error> {
        let Inner { server, place, credentials } = &*self.0;
        let path = format!("/{}{}{}", place.bucket, if call.key.is_empty() { "" } else { "/" }, encoded(call.key, true));
        let query: Vec<String> = call.query.iter().map(|(name, value)| format!("{name}={}", encoded(value, false))).collect();
        let query = query.join("&");
        let host = server.name();
        let ask = Ask {
            method: call.method,
            host: &host,
            path: &path,
            query: &query,
            headers: &call.headers,
            payload: &payload.sha256,
        };
        let now: Timestamp = SystemClock.now();
        let target = if query.is_empty() { path.clone() } else { format!("{path}?{query}") };
        let mut request = Request::builder().method(call.method).uri(target).header("content-length", payload.length);
        for (name, value) in headers(&ask, &place.region, credentials, now) {
            request = request.header(name, value);
        }
        let request = request.body(payload.body).map_err(|e| self.malformed(call.name, &e.to_string()))?;
        let addresses = server.addresses().await?;
        let mut answer = server.send(&addresses, request, payload.length).await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        if status.is_redirection() {
            return Err(Error::Redirected { server: host });
        }
        let text = server.text(answer.body_mut(), 4096).await.unwrap_or_default();
        Err(Error::Refused { server: host, asked: call.name, status: status.as_u16(), message: message(&text) })
    }

    pub(super) fn malformed(&self, asked: &'static str, what: &str) -> Error {
        Error::Malformed { server: self.0.server.name(), asked, what: what.to_owned() }
    }
}

/// Code and message of an error; not the rest, which repeats what was signed.
fn message(text: &str) -> String {
    match (xml::text(text, "Code"), xml::text(text, "Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code,
        _ => "without a reason".into(),
    }
}
