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

#[cfg(test)]
mod tests {
    use super::{
        super::{Credentials, Place},
        *,
    };
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        sync::mpsc,
    };

    /// A server that gives one answer after the other, each on a connection of its own; and what it was asked.
    async fn server(answers: &'static [&'static str]) -> (Bucket, mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (asked, questions) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = vec![0; 4096];
                let length = stream.read(&mut head).await.unwrap();
                asked.send(String::from_utf8_lossy(&head[..length]).into_owned()).unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let place = Place { endpoint, bucket: "b".into(), region: "r".into(), ca: None };
        (Bucket::open(place, Credentials::new("access", "secret")).unwrap(), questions)
    }

    #[tokio::test]
    async fn what_a_server_broke_off_is_asked_for_from_there() {
        let (bucket, mut asked) = server(&[
            "HTTP/1.1 206 Partial Content\r\netag: \"e\"\r\ncontent-length: 8\r\nconnection: close\r\n\r\n234",
            "HTTP/1.1 206 Partial Content\r\netag: \"e\"\r\ncontent-length: 5\r\nconnection: close\r\n\r\n56789",
        ])
        .await;
        let mut download = bucket.read("k", 2..10);
        let mut read = Vec::new();
        while let Some(bytes) = download.next().await.unwrap() {
            read.extend_from_slice(&bytes);
        }
        assert_eq!(read, b"23456789");
        let (first, second) = (asked.recv().await.unwrap(), asked.recv().await.unwrap());
        assert!(
            first.starts_with("GET /b/k HTTP/1.1") && first.contains("range: bytes=2-9") && !first.contains("if-match"),
            "{first}"
        );
        assert!(second.contains("range: bytes=5-9") && second.contains("if-match: \"e\""), "{second}");
        assert!(!first.contains("secret"), "{first}");
    }

    #[tokio::test]
    async fn another_range_and_a_redirect_are_errors() {
        let (bucket, _asked) = server(&[
            "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123456789",
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n",
        ])
        .await;
        assert!(matches!(bucket.read("k", 2..4).next().await, Err(Error::Malformed { .. })));
        assert!(matches!(bucket.read("k", 2..4).next().await, Err(Error::Redirected { .. })));
    }
}
