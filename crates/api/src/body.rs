//! A streamed body that a handler refused is read on for a while before the answer goes out.
//!
//! A client that is still sending when its connection is closed sees a reset instead of the answer, and never learns what was wrong.
use crate::reply::ByteStream;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::oneshot;

/// What is read on at most; a client that sends more has to live with the reset.
const MOST: usize = 1 << 30;
const WITHIN: Duration = Duration::from_secs(10);

/// Lends a body to a handler; the other half gets back what is left of it when the handler is done.
pub(crate) fn lend(body: ByteStream) -> (ByteStream, Lender) {
    let (back, returned) = oneshot::channel();
    (Box::pin(Lent { body: Some(body), back: Some(back) }), Lender(returned))
}

struct Lent {
    body: Option<ByteStream>,
    back: Option<oneshot::Sender<ByteStream>>,
}

impl Stream for Lent {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let next = body.poll_next_unpin(cx);
        if matches!(next, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        next
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take()) {
            // Nobody waits for it any more when the request itself was dropped.
            let _ = back.send(body);
        }
    }
}

/// See [`lend`].
pub(crate) struct Lender(oneshot::Receiver<ByteStream>);

impl Lender {
    /// Reads what the handler left, and forgets it.
    pub(crate) async fn drain(mut self) {
        let Ok(mut body) = self.0.try_recv() else { return };
        let read = async {
            let mut seen = 0;
            while let Some(Ok(part)) = body.next().await {
                seen += part.len();
                if seen > MOST {
                    break;
                }
            }
        };
        // Who sends so slowly is not worth the wait.
        tokio::time::timeout(WITHIN, read).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    fn counted(parts: usize) -> (ByteStream, Arc<AtomicUsize>) {
        let read = Arc::new(AtomicUsize::new(0));
        let count = read.clone();
        let parts = futures_util::stream::iter(0..parts).map(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(Bytes::from_static(b"part"))
        });
        (Box::pin(parts), read)
    }

    #[tokio::test]
    async fn what_a_handler_leaves_is_read() {
        let (body, read) = counted(5);
        let (mut lent, lender) = lend(body);
        assert!(lent.next().await.is_some());
        drop(lent);
        lender.drain().await;
        assert_eq!(read.load(Ordering::Relaxed), 5);
    }

    #[tokio::test]
    async fn a_body_that_was_read_or_broke_is_left_alone() {
        let (body, _) = counted(2);
        let (lent, lender) = lend(body);
        assert_eq!(lent.count().await, 2);
        lender.drain().await;
        let broken: ByteStream = Box::pin(futures_util::stream::once(async { Err(std::io::ErrorKind::BrokenPipe.into()) }));
        let (lent, lender) = lend(broken);
        assert_eq!(lent.count().await, 1);
        lender.drain().await;
    }
}
