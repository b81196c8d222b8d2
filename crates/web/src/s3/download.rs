//! A range of an object, in pieces. When the server ends in the middle, the rest is asked for from where it ended.
use super::bucket::{Bucket, Call, Payload};
use crate::{Error, http::length};
use base::retry::Backoff;
use bytes::Bytes;
use hyper::{Response, body::Incoming};
use std::{ops::Range, time::Duration};

const AGAIN: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
/// So often without a byte of progress.
const ATTEMPTS: u32 = 4;

/// See the module.
pub struct Download {
    bucket: Bucket,
    key: String,
    at: u64,
    end: u64,
    /// Of the object that was begun: another one under its key is none.
    etag: Option<String>,
    answer: Option<Response<Incoming>>,
    failures: u32,
}

const NAME: &str = "GetObject";

impl Download {
    pub(super) fn new(bucket: Bucket, key: String, range: Range<u64>) -> Self {
        Self { bucket, key, at: range.start, end: range.end, etag: None, answer: None, failures: 0 }
    }

    /// The next bytes; none after the last.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while self.at < self.end {
            match self.piece().await {
                Ok(Some(bytes)) => {
                    self.failures = 0;
                    let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
                    let bytes = bytes.slice(..bytes.len().min(left));
                    self.at += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                // It ended early.
                Ok(None) => self.again(self.bucket.0.server.stalled()).await?,
                Err(e) => self.again(e).await?,
            }
        }
        Ok(None)
    }

    async fn again(&mut self, error: Error) -> Result<(), Error> {
        self.answer = None;
        self.failures += 1;
        if !error.is_transient() || self.failures >= ATTEMPTS {
            return Err(error);
        }
        tokio::time::sleep(AGAIN.jittered(self.failures)).await;
        Ok(())
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        let answer = match &mut self.answer {
            Some(answer) => answer,
            none => none.insert(self.bucket.send_get(&self.key, self.at..self.end, self.etag.as_deref()).await?),
        };
        if self.etag.is_none() {
            self.etag = answer.headers().get("etag").and_then(|v| v.to_str().ok()).map(str::to_owned);
        }
        self.bucket.0.server.next(answer.body_mut()).await
    }
}

impl Bucket {
    async fn send_get(&self, key: &str, range: Range<u64>, etag: Option<&str>) -> Result<Response<Incoming>, Error> {
        let wanted = range.end - range.start;
        let mut call = Call::new(NAME, "GET", key).header("range", format!("bytes={}-{}", range.start, range.end - 1));
        if let Some(etag) = etag {
            call = call.header("if-match", etag);
        }
        let answer = self.send(&call, Payload::none()).await?;
        // A server that knows no ranges sends the whole object, which is not what was asked for.
        let right = answer.status() == 206 || range.start == 0;
        if right && length(&answer) == Some(wanted) {
            return Ok(answer);
        }
        Err(self.malformed(NAME, "it is another range than the one asked for"))
    }
}
