//! What a handler answers, before it is HTTP.
use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use resource::{Error, Result};
use serde_json::Value;
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// A stream of parts of a body.
pub type ByteStream = Pin<Box<dyn futures_util::Stream<Item = std::io::Result<Bytes>> + Send>>;

pub enum ReplyBody {
    Empty,
    Json(Value),
    /// JSON that is already text; the bytes are shared with whoever cached them.
    JsonText(Bytes),
    Bytes(Bytes),
    Stream(ByteStream),
    /// Both sides go on by WebSocket; the future owns the connection.
    WebSocket(WebSocketTask),
}

/// Runs a WebSocket until it ends. Frames are binary.
pub type WebSocketTask = Box<dyn FnOnce(WebSocket) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: ReplyBody,
}

impl Reply {
    pub fn json(status: u16, body: Value) -> Self {
        Self { status, headers: Vec::new(), body: ReplyBody::Json(body) }
    }
    pub fn ok(body: Value) -> Self {
        Self::json(200, body)
    }
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: ReplyBody::Empty }
    }
    /// Text with a media type.
    pub fn text(status: u16, media: &str, body: impl Into<Bytes>) -> Self {
        Self { status, headers: vec![("content-type", media.to_owned())], body: ReplyBody::Bytes(body.into()) }
    }
    pub fn stream(status: u16, media: &str, body: ByteStream) -> Self {
        Self { status, headers: vec![("content-type", media.to_owned())], body: ReplyBody::Stream(body) }
    }
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
    /// Carries bytes between the client's WebSocket and a stream until one of them ends.
    pub fn web_socket(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let task: WebSocketTask = Box::new(move |socket| Box::pin(relay(socket, stream)));
        Self { status: 101, headers: Vec::new(), body: ReplyBody::WebSocket(task) }
    }
    /// The JSON body, for callers that pass a reply on.
    pub fn value(&self) -> Result<&Value> {
        match &self.body {
            ReplyBody::Json(v) => Ok(v),
            _ => Err(Error::internal("the reply has no JSON body")),
        }
    }
}

async fn relay(mut socket: WebSocket, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut buffer = vec![0u8; 32 * 1024];
    loop {
        tokio::select! {
            read = stream.read(&mut buffer) => match read {
                Ok(0) | Err(_) => break,
                Ok(n) => {
                    if socket.send(buffer[..n].to_vec().into()).await.is_err() {
                        return;
                    }
                }
            },
            message = socket.recv() => match message {
                Some(Ok(Message::Binary(bytes))) => {
                    if stream.write_all(&bytes).await.is_err() {
                        break;
                    }
                }
                // Answered below us, or not ours: what is no data must not get into the stream.
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Text(_) | Message::Close(_)) | Err(_)) | None => break,
            },
        }
    }
    // One that has left already needs no goodbye.
    socket.send(Message::Close(None)).await.ok();
}
