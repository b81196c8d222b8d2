//! Image blobs over the line. What comes is checked against its name.
use crate::{
    call::Way,
    node::Upstream,
    tunnel,
    wire::{self, Chunk, Json, Refused},
};
use assign::{BlobInfo, Blobs, Pending};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, future, stream};
use sha2::{Digest, Sha512};
use std::{io, path::Path, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tokio_util::io::StreamReader;
use tonic::{Code, Request, Status};

/// Between two parts of a blob.
const SILENCE: Duration = Duration::from_secs(20);
const BUFFER: usize = 256 << 10;

/// The blobs of the controllers, for a node.
pub struct RemoteBlobs(pub Arc<Upstream>);

fn io_error(status: &Status) -> io::Error {
    let kind = if status.code() == Code::NotFound { io::ErrorKind::NotFound } else { io::ErrorKind::Other };
    io::Error::new(kind, status.message().to_owned())
}

impl Way {
    /// The bytes of a blob (SHA-512, hex); whether they are the right ones is for the reader to see.
    pub async fn open(&self, blob: &str) -> io::Result<impl AsyncRead + Send + Unpin + use<>> {
        let name = Chunk(Bytes::copy_from_slice(blob.as_bytes()));
        let request = Request::new(futures_util::stream::iter([name]));
        let parts = self.call::<Chunk, Chunk>(wire::FETCH, request).await.map_err(|e| io_error(&e))?;
        let parts = stream::try_unfold(parts, |mut parts| async move {
            let late = |_| io::Error::from(io::ErrorKind::TimedOut);
            let part = timeout(SILENCE, parts.message()).await.map_err(late)?.map_err(|e| io_error(&e))?;
            Ok::<_, io::Error>(part.map(|Chunk(bytes)| (bytes, parts)))
        });
        Ok(StreamReader::new(Box::pin(parts)))
    }

    /// Has the controller make a copy of a blob; returns when it has one.
    pub async fn keep(&self, blob: &str) -> io::Result<()> {
        let name = Chunk(Bytes::copy_from_slice(blob.as_bytes()));
        let request = Request::new(futures_util::stream::iter([name]));
        let mut answer = self.call::<Chunk, Json<()>>(wire::KEEP, request).await.map_err(|e| io_error(&e))?;
        answer.message().await.map_err(|e| io_error(&e))?.map(drop).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Brings a blob to `to`, which does not exist yet; whole and verified, or not at all.
    async fn fetch(&self, blob: &str, to: &Path) -> io::Result<()> {
        let mut parts = self.open(blob).await?;
        let partial = to.with_extension("partial");
        let mut file = tokio::fs::File::create(&partial).await?;
        let received = async {
            let (mut hash, mut buffer) = (Sha512::new(), BytesMut::with_capacity(BUFFER));
            while parts.read_buf(&mut buffer).await? > 0 {
                hash.update(&buffer);
                file.write_all(&buffer).await?;
                buffer.clear();
            }
            file.sync_all().await?;
            let found: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
            if found != blob {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "what came is not the blob: its hash differs"));
            }
            tokio::fs::hard_link(&partial, to).await
        };
        let received = received.await;
        tokio::fs::remove_file(&partial).await.ok();
        received
    }
}

impl Blobs for RemoteBlobs {
    fn fetch<'a>(&'a self, blob: &'a str, to: &'a Path) -> Pending<'a, io::Result<()>> {
        Box::pin(async move {
            let mut last = io::Error::new(io::ErrorKind::NotConnected, "no controller is known");
            for way in self.0.ways().map_err(io::Error::other)? {
                match way.fetch(blob, to).await {
                    Ok(()) => return Ok(()),
                    Err(e) => last = e,
                }
            }
            Err(last)
        })
    }

    fn store<'a>(&'a self, from: &'a Path) -> Pending<'a, io::Result<BlobInfo>> {
        Box::pin(async move {
            let ways = self.0.ways().map_err(io::Error::other)?;
            let way = ways.first().ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "no controller is known"))?;
            let file = tokio::fs::File::open(from).await?;
            // An error while reading ends the stream early; the blob that came is then a shorter one, and the length tells.
            let length = file.metadata().await?.len();
            let parts = tunnel::chunks(file).take_while(|c| future::ready(c.is_ok())).filter_map(|c| future::ready(c.ok()));
            let mut answer = way
                .call::<Chunk, Json<Result<BlobInfo, Refused>>>(wire::STORE, Request::new(parts))
                .await
                .map_err(|e| io_error(&e))?;
            let Json(stored) = answer.message().await.map_err(|e| io_error(&e))?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let info = stored.map_err(|Refused(why)| io::Error::other(why))?;
            if info.size != length {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the image was cut on its way"));
            }
            tokio::fs::remove_file(from).await.ok();
            Ok(info)
        })
    }
}
