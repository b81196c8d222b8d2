//! An object in parts: each is sent from a file and may be sent again; it is there whole when it is completed, or not at all.
use super::{
    bucket::{Bucket, Call, Payload},
    sign::hex,
    xml,
};
use crate::Error;
use base::retry::Backoff;
use bytes::Bytes;
use futures_util::stream::unfold;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use sha2::{Digest as _, Sha256};
use std::{fs::File, io, ops::Range, os::unix::fs::FileExt as _, sync::Arc, time::Duration};
use tokio::task::spawn_blocking;

const AGAIN: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
const ATTEMPTS: u32 = 5;
/// Bytes of a file that are in memory at once.
const PIECE: usize = 256 << 10;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Multipart {
    bucket: Bucket,
    key: Arc<str>,
    upload: Arc<str>,
}

/// A part that the store has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    pub number: u32,
    etag: String,
}

impl Multipart {
    pub(super) fn new(bucket: Bucket, key: String, upload: String) -> Self {
        Self { bucket, key: key.into(), upload: upload.into() }
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    /// Sends one part, counted from 1: bytes of a file. All parts but the last have at least 5 MiB.
    pub async fn part(&self, number: u32, file: Arc<File>, range: Range<u64>) -> Result<Part, Error> {
        const NAME: &str = "UploadPart";
        let sha256 = digest(file.clone(), range.clone()).await?;
        let call = Call::new(NAME, "PUT", &self.key).query("partNumber", number.to_string()).query("uploadId", &*self.upload);
        for attempt in 1.. {
            let payload =
                Payload { body: body(file.clone(), range.clone()), length: range.end - range.start, sha256: sha256.clone() };
            match self.bucket.send(&call, payload).await {
                Ok(answer) => {
                    let etag = answer.headers().get("etag").and_then(|v| v.to_str().ok());
                    let etag = etag.ok_or_else(|| self.bucket.malformed(NAME, "the part has no etag"))?.to_owned();
                    return Ok(Part { number, etag });
                }
                Err(e) if e.is_transient() && attempt < ATTEMPTS => tokio::time::sleep(AGAIN.jittered(attempt)).await,
                Err(e) => return Err(e),
            }
        }
        Err(self.bucket.0.server.stalled())
    }

    /// Makes the object of its parts, `size` bytes in all.
    pub async fn complete(&self, mut parts: Vec<Part>, size: u64) -> Result<(), Error> {
        const NAME: &str = "CompleteMultipartUpload";
        parts.sort_unstable();
        let listed: String = parts
            .iter()
            .map(|p| format!("<Part><PartNumber>{}</PartNumber><ETag>{}</ETag></Part>", p.number, escaped(&p.etag)))
            .collect();
        let text = Bytes::from(format!("<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>"));
        let call = Call::new(NAME, "POST", &self.key).query("uploadId", &*self.upload);
        for attempt in 1.. {
            let payload = Payload {
                body: Full::new(text.clone()).map_err(|never| match never {}).boxed_unsync(),
                length: text.len() as u64,
                sha256: hex(&Sha256::digest(&text)),
            };
            let done = self.finish(&call, payload).await;
            match done {
                Ok(()) => break,
                // It was completed by an attempt whose answer was lost, perhaps.
                Err(Error::Refused { status: 404, .. }) if attempt > 1 => break,
                Err(e) if e.is_transient() && attempt < ATTEMPTS => tokio::time::sleep(AGAIN.jittered(attempt)).await,
                Err(e) => return Err(e),
            }
        }
        match self.bucket.size(&self.key).await? {
            Some(found) if found == size => Ok(()),
            Some(found) => Err(self.bucket.malformed(NAME, &format!("the object has {found} bytes of {size}"))),
            None => Err(self.bucket.malformed(NAME, "the object is not there")),
        }
    }

    async fn finish(&self, call: &Call<'_>, payload: Payload) -> Result<(), Error> {
        let mut answer = self.bucket.send(call, payload).await?;
        let server = &self.bucket.0.server;
        let text = server.text(answer.body_mut(), 64 << 10).await?;
        // An error may come after the head of a success was sent, and is then in the body.
        match xml::all(&text, "Error").first() {
            None => Ok(()),
            Some(error) => {
                let message = xml::text(error, "Code").unwrap_or_else(|| "without a reason".into());
                Err(Error::Refused { server: server.name(), asked: call.name, status: 500, message })
            }
        }
    }

    /// Forgets the parts; an upload that is not there is forgotten already.
    pub async fn abort(&self) -> Result<(), Error> {
        let call = Call::new("AbortMultipartUpload", "DELETE", &self.key).query("uploadId", &*self.upload);
        match self.bucket.ask(&call).await {
            Ok(_) | Err(Error::Refused { status: 404, .. }) => Ok(()),
            Err(e) => Err(e),
        }
    }
}

fn escaped(etag: &str) -> String {
    etag.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

/// SHA-256 of a range of a file, in hex.
async fn digest(file: Arc<File>, range: Range<u64>) -> Result<String, Error> {
    let work = move || {
        let mut hash = Sha256::new();
        let mut at = range.start;
        while let Some(piece) = piece(&file, at, range.end)? {
            at += piece.len() as u64;
            hash.update(&piece);
        }
        Ok(hex(&hash.finalize()))
    };
    spawn_blocking(work).await.map_err(io::Error::other).flatten().map_err(|source| Error::File { source })
}

/// The next bytes of a range; none at its end. The file has them all.
fn piece(file: &File, at: u64, end: u64) -> io::Result<Option<Bytes>> {
    if at >= end {
        return Ok(None);
    }
    let mut buf = vec![0; usize::try_from(end - at).unwrap_or(PIECE).min(PIECE)];
    file.read_exact_at(&mut buf, at)?;
    Ok(Some(buf.into()))
}

fn body(file: Arc<File>, range: Range<u64>) -> crate::http::Body {
    let stream = unfold((file, range.start), move |(file, at)| async move {
        let reader = file.clone();
        let read = spawn_blocking(move || piece(&reader, at, range.end)).await.map_err(io::Error::other).flatten();
        let length = match &read {
            Ok(None) => return None,
            Ok(Some(bytes)) => bytes.len() as u64,
            Err(_) => 0,
        };
        Some((read.map(|bytes| Frame::data(bytes.unwrap_or_default())), (file, at + length)))
    });
    StreamBody::new(stream).boxed_unsync()
}
