//! What is said on the line, and how it is written.
use crate::level::Change;
use assign::{Answer, HostReport, Query, QueryError, Report};
use bytes::{Buf, BufMut, Bytes};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::marker::PhantomData;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

pub(crate) const JOIN: &str = "/drover.Link/Join";
pub(crate) const RENEW: &str = "/drover.Link/Renew";
pub(crate) const ATTACH: &str = "/drover.Link/Attach";
pub(crate) const FETCH: &str = "/drover.Link/Fetch";
pub(crate) const STORE: &str = "/drover.Link/Store";
/// A node's answer to [`Down::Display`].
pub(crate) const DISPLAY: &str = "/drover.Link/Display";
/// Another controller is asked to make a copy of a blob.
pub(crate) const KEEP: &str = "/drover.Link/Keep";
/// Another controller asks a node that is attached here.
pub(crate) const ASK: &str = "/drover.Link/Ask";
/// Another controller wants the display of a server on a node that is attached here.
pub(crate) const SHOW: &str = "/drover.Link/Show";

/// Metadata of [`DISPLAY`]: the number of the question that it answers.
pub(crate) const NUMBER: &str = "drover-number";
/// Metadata of [`SHOW`].
pub(crate) const HOST: &str = "drover-host";
pub(crate) const SERVER: &str = "drover-server";

/// A machine that has a join token asks to be let in.
#[derive(Clone, Serialize, Deserialize)]
pub struct JoinRequest {
    /// `node` or `controller`.
    pub role: String,
    pub name: String,
    /// Where the machine is reached by the cluster, without port.
    pub address: std::net::IpAddr,
    /// PKCS #10 request (PEM) for the key that was made there.
    pub csr: String,
    /// Of the join token.
    pub secret: String,
}

/// What a machine gets when it is let in.
#[derive(Clone, Serialize, Deserialize)]
pub struct Grant {
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub ca: String,
    /// Lines of all controllers, `host:port`.
    pub controllers: Vec<String>,
    /// What else the role needs; `null` for nodes.
    pub more: serde_json::Value,
}

/// Why something was refused, for the person who asked.
#[derive(Clone, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// From a node.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Up {
    /// First, once. `host` is what the node last said of itself, if it did.
    Hello {
        version: String,
        host: Option<HostReport>,
    },
    Reports {
        number: u64,
        reports: Vec<Report>,
    },
    Answer {
        number: u64,
        answer: Result<Answer, NoAnswer>,
    },
}

/// To a node.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Down {
    /// The first one on a line is whole.
    Level(Change),
    /// The reports of that number are durable, or why not.
    Taken {
        number: u64,
        refused: Option<String>,
    },
    Question {
        number: u64,
        query: Query,
    },
    /// Open a [`DISPLAY`] call for the server's VNC display.
    Display {
        number: u64,
        server_id: String,
    },
    /// Lines of all controllers, `host:port`.
    Controllers(Vec<String>),
}

/// [`QueryError`] on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NoAnswer {
    NotHere(String),
    Unreachable(String),
    Failed { node: String, cause: String },
}

impl From<QueryError> for NoAnswer {
    fn from(e: QueryError) -> Self {
        match e {
            QueryError::NotHere(id) => Self::NotHere(id),
            QueryError::Unreachable(node) => Self::Unreachable(node),
            QueryError::Failed { node, cause } => Self::Failed { node, cause },
        }
    }
}
impl From<NoAnswer> for QueryError {
    fn from(e: NoAnswer) -> Self {
        match e {
            NoAnswer::NotHere(id) => Self::NotHere(id),
            NoAnswer::Unreachable(node) => Self::Unreachable(node),
            NoAnswer::Failed { node, cause } => Self::Failed { node, cause },
        }
    }
}

/// Message of [`ASK`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) host: String,
    pub(crate) query: Query,
}

/// Something that fits into a gRPC message.
pub(crate) trait Message: Sized + Send + Sync + 'static {
    fn write(self, to: &mut EncodeBuf<'_>) -> Result<(), Status>;
    fn read(from: &mut DecodeBuf<'_>) -> Result<Self, Status>;
}

/// A value as JSON.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Message for Json<T> {
    fn write(self, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        serde_json::to_writer(to.writer(), &self.0).map_err(|e| Status::internal(e.to_string()))
    }
    fn read(from: &mut DecodeBuf<'_>) -> Result<Self, Status> {
        let value = serde_json::from_reader(from.reader());
        value.map(Self).map_err(|e| Status::invalid_argument(format!("a message is not what this side expects: {e}")))
    }
}

/// Part of a stream of bytes.
pub(crate) struct Chunk(pub(crate) Bytes);

impl Message for Chunk {
    fn write(self, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(self.0);
        Ok(())
    }
    fn read(from: &mut DecodeBuf<'_>) -> Result<Self, Status> {
        let length = from.remaining();
        Ok(Self(from.copy_to_bytes(length)))
    }
}

/// Writes `E` and reads `D`.
pub(crate) struct Wire<E, D>(PhantomData<fn(E, D)>);

impl<E, D> Default for Wire<E, D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}
impl<E: Message, D: Message> Codec for Wire<E, D> {
    type Encode = E;
    type Decode = D;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self::default()
    }
    fn decoder(&mut self) -> Self {
        Self::default()
    }
}
impl<E: Message, D> Encoder for Wire<E, D> {
    type Item = E;
    type Error = Status;
    fn encode(&mut self, item: E, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.write(to)
    }
}
impl<E, D: Message> Decoder for Wire<E, D> {
    type Item = D;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        D::read(from).map(Some)
    }
}
