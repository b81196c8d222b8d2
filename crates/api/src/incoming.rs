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

/// So much is thrown away of a body that nobody wants; then the connection is closed.
const MOST: usize = 32 * 1024 * 1024;
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
