//! A stream of bytes in both directions, out of a call.
use crate::wire::Chunk;
use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::mpsc,
};
use tonic::{Status, Streaming};

const CHUNK: usize = 32 << 10;
/// Chunks on their way.
const WINDOW: usize = 8;

/// Messages of a channel as a stream that ends with its senders.
pub(crate) fn receiver<T: Send + 'static>(mut from: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send + 'static {
    stream::poll_fn(move |cx| from.poll_recv(cx))
}

/// Our end of a tunnel, and what is to be sent to the other.
pub(crate) struct Tunnel {
    near: DuplexStream,
    far: DuplexStream,
    send: mpsc::Sender<Chunk>,
}

/// A tunnel whose other direction is not known yet.
pub(crate) fn open() -> (Tunnel, impl Stream<Item = Chunk> + Send + 'static) {
    let (send, outgoing) = mpsc::channel(WINDOW);
    let (near, far) = tokio::io::duplex(CHUNK * 2);
    (Tunnel { near, far, send }, receiver(outgoing))
}

impl Tunnel {
    /// Carries bytes until either end closes.
    pub(crate) fn join(self, incoming: Streaming<Chunk>) -> DuplexStream {
        let (read, write) = tokio::io::split(self.far);
        let there = tokio::spawn(send(read, self.send));
        tokio::spawn(async move {
            receive(incoming, write).await;
            there.abort();
        });
        self.near
    }
}

async fn send(mut from: impl AsyncReadExt + Unpin, to: mpsc::Sender<Chunk>) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if to.send(Chunk(Bytes::copy_from_slice(&buffer[..n]))).await.is_err() {
            return;
        }
    }
}

async fn receive(mut from: Streaming<Chunk>, mut to: impl AsyncWriteExt + Unpin) {
    while let Ok(Some(Chunk(bytes))) = from.message().await {
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
    to.shutdown().await.ok();
}

/// Chunks of a file.
pub(crate) fn chunks(file: tokio::fs::File) -> impl Stream<Item = Result<Chunk, Status>> + Send + 'static {
    const FILE_CHUNK: usize = 256 << 10;
    stream::try_unfold(file, |mut file| async move {
        let mut buffer = vec![0; FILE_CHUNK];
        let n = file.read(&mut buffer).await.map_err(|e| Status::internal(e.to_string()))?;
        buffer.truncate(n);
        Ok((n > 0).then(|| (Chunk(buffer.into()), file)))
    })
}
