//! Image blobs over the line. What comes is checked against its name.
use crate::{
    call::Way,
    node::Upstream,
    tunnel,
    wire::{self, Chunk, Json, Refused},
};
use assign::{BlobInfo, Blobs, Pending};
use bytes::Bytes;
use futures_util::{StreamExt, future};
use sha2::{Digest, Sha512};
use std::{io, path::Path, sync::Arc, time::Duration};
use tokio::{io::AsyncWriteExt, time::timeout};
use tonic::{Code, Request, Status};

/// Between two parts of a blob.
const SILENCE: Duration = Duration::from_secs(20);

/// The blobs of the controllers, for a node.
pub struct RemoteBlobs(pub Arc<Upstream>);

fn io_error(status: &Status) -> io::Error {
    let kind = if status.code() == Code::NotFound { io::ErrorKind::NotFound } else { io::ErrorKind::Other };
    io::Error::new(kind, status.message().to_owned())
}

impl Way {
    /// Brings a blob (SHA-512, hex) to `to`, which does not exist yet; whole and verified, or not at all.
    pub async fn fetch(&self, blob: &str, to: &Path) -> io::Result<()> {
        let name = Chunk(Bytes::copy_from_slice(blob.as_bytes()));
        let request = Request::new(futures_util::stream::iter([name]));
        let mut parts = self.call::<Chunk, Chunk>(wire::FETCH, request).await.map_err(|e| io_error(&e))?;
        let partial = to.with_extension("partial");
        let mut file = tokio::fs::File::create(&partial).await?;
        let (mut hash, late) = (Sha512::new(), |_| io::Error::from(io::ErrorKind::TimedOut));
        let received = async {
            while let Some(Chunk(bytes)) = timeout(SILENCE, parts.message()).await.map_err(late)?.map_err(|e| io_error(&e))? {
                hash.update(&bytes);
                file.write_all(&bytes).await?;
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
