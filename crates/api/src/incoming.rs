//! The body of a request on its way in.
//!
//! Whoever is refused before its body was read must still get to read why: a client that sends 10 MB does not look at the answer
//! before it has sent them, and a connection that is closed meanwhile takes the answer with it. So what is left of a body is read
//! and thrown away, up to a limit.
use axum::body::{Body, BodyDataStream, HttpBody as _};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

/// So many bytes are thrown away of a body that nobody wants; then the connection is closed.
const MOST: usize = 1 << 30;
/// For so long; who sends more slowly is not worth the wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module.
pub(crate) struct Incoming {
    /// `None` when it was read to its end.
    rest: Option<BodyDataStream>,
    seen: usize,
}

impl Incoming {
    pub(crate) fn new(body: Body) -> Self {
        Self { rest: (!body.is_end_stream()).then(|| body.into_data_stream()), seen: 0 }
    }
}

impl Stream for Incoming {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        let polled = std::task::ready!(rest.poll_next_unpin(cx));
        match &polled {
            Some(Ok(part)) => self.seen += part.len(),
            Some(Err(_)) | None => self.rest = None,
        }
        Poll::Ready(polled.map(|part| part.map_err(std::io::Error::other)))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let (Some(mut rest), mut seen) = (self.rest.take(), self.seen) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(tokio::time::timeout(PATIENCE, async move {
            while seen < MOST
                && let Some(Ok(part)) = rest.next().await
            {
                seen += part.len();
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    /// A body of so many parts, and a count of those that were read.
    fn counted(parts: usize) -> (Body, Arc<Semaphore>) {
        let read = Arc::new(Semaphore::new(0));
        let count = read.clone();
        let parts = futures_util::stream::iter(0..parts).map(move |_| {
            count.add_permits(1);
            Ok::<_, std::io::Error>(Bytes::from_static(b"part"))
        });
        (Body::from_stream(parts), read)
    }

    #[tokio::test]
    async fn what_a_handler_leaves_is_read() {
        let (body, read) = counted(5);
        let mut incoming = Incoming::new(body);
        assert!(incoming.next().await.is_some());
        drop(incoming);
        let all = tokio::time::timeout(PATIENCE, read.acquire_many(5)).await;
        assert!(all.is_ok_and(|all| all.is_ok()), "the other parts were read too");
    }

    #[tokio::test]
    async fn a_body_that_was_read_or_broke_is_left_alone() {
        let (body, read) = counted(2);
        let mut whole = Incoming::new(body);
        while whole.next().await.is_some() {}
        assert!(whole.rest.is_none());
        assert_eq!(read.available_permits(), 2);
        let broken = futures_util::stream::once(async { Err::<Bytes, _>(std::io::Error::from(std::io::ErrorKind::BrokenPipe)) });
        let mut broken = Incoming::new(Body::from_stream(broken));
        assert!(broken.next().await.is_some_and(|part| part.is_err()));
        assert!(broken.rest.is_none());
    }
}
