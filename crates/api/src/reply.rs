//! What a handler answers, before it is HTTP.
use bytes::Bytes;
use resource::{Error, Result};
use serde_json::Value;
use std::pin::Pin;

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
pub type WebSocketTask = Box<dyn FnOnce(axum::extract::ws::WebSocket) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

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
    /// The JSON body, for callers that pass a reply on.
    pub fn value(&self) -> Result<&Value> {
        match &self.body {
            ReplyBody::Json(v) => Ok(v),
            _ => Err(Error::internal("the reply has no JSON body")),
        }
    }
}
