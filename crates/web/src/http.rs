//! One request on one connection. Nothing is kept, followed or repeated here.
use crate::{Error, Trust};
use bytes::Bytes;
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use hyper::{Request, Response, Uri, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

const CONNECT: Duration = Duration::from_secs(10);
/// A server that sends nothing for so long has stopped.
const SILENCE: Duration = Duration::from_secs(60);
/// The slowest rate, in bytes a second, at which a server may take what it is sent.
const SLOWEST: u64 = 256 << 10;

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The server of a URL.
#[derive(Clone)]
pub(crate) struct Server {
    /// By TLS, if it is spoken to so.
    tls: Option<TlsConnector>,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Server {
    /// Of an `http` or `https` URL that names no user.
    pub(crate) fn of(uri: &Uri, trust: &Trust) -> Result<Self, Error> {
        let bad = |why| Error::BadUrl { url: uri.to_string(), why };
        let tls = match uri.scheme_str() {
            Some("http") => None,
            Some("https") => Some(TlsConnector::from(trust.client()?)),
            _ => return Err(bad("it must begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| bad("it names no server"))?;
        if authority.as_str().contains('@') {
            return Err(bad("it must not hold a user or a password"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(bad("it names no server"));
        }
        let port = authority.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
        Ok(Self { tls, host, port })
    }

    /// What the header `Host` says, and what messages name.
    pub(crate) fn name(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.tls.is_some(), self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }

    pub(crate) fn unreachable(&self, source: io::Error) -> Error {
        Error::Unreachable { server: self.name(), source }
    }

    pub(crate) fn stalled(&self) -> Error {
        Error::Stalled { server: self.name() }
    }

    /// Every address of the server.
    pub(crate) async fn addresses(&self) -> Result<Vec<SocketAddr>, Error> {
        let found = timeout(CONNECT, lookup_host((self.host.as_str(), self.port))).await.map_err(|_| self.stalled())?;
        Ok(found.map_err(|e| self.unreachable(e))?.collect())
    }

    /// Sends the request, whose body has `length` bytes, to the first of these addresses that takes a connection.
    pub(crate) async fn send(
        &self,
        addresses: &[SocketAddr],
        request: Request<Body>,
        length: u64,
    ) -> Result<Response<Incoming>, Error> {
        let stream = self.connect(addresses).await?;
        let within = SILENCE + Duration::from_secs(length / SLOWEST);
        let answer = async {
            match &self.tls {
                None => self.exchange(stream, request).await,
                Some(tls) => {
                    let name = ServerName::try_from(self.host.clone()).map_err(|e| self.unreachable(io::Error::other(e)))?;
                    let stream = tls.connect(name, stream).await.map_err(|e| self.unreachable(e))?;
                    self.exchange(stream, request).await
                }
            }
        };
        timeout(within, answer).await.map_err(|_| self.stalled())?
    }

    async fn connect(&self, addresses: &[SocketAddr]) -> Result<TcpStream, Error> {
        let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            match timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true).ok();
                    return Ok(stream);
                }
                Ok(Err(e)) => failed = e,
                Err(_) => failed = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(self.unreachable(failed))
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, Error> {
        let broken = |e: hyper::Error| self.unreachable(io::Error::other(e));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends with the answer's body, or when the answer is dropped.
        tokio::spawn(async move { connection.await.ok() });
        sender.send_request(request).await.map_err(broken)
    }

    /// The next bytes of an answer; none at its end.
    pub(crate) async fn next(&self, body: &mut Incoming) -> Result<Option<Bytes>, Error> {
        loop {
            match timeout(SILENCE, body.frame()).await.map_err(|_| self.stalled())? {
                None => return Ok(None),
                Some(Err(e)) => return Err(self.unreachable(io::Error::other(e))),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// A short answer as text; what is behind `limit` bytes is not read.
    pub(crate) async fn text(&self, body: &mut Incoming, limit: usize) -> Result<String, Error> {
        self.bytes(body, limit).await.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A short answer; what is behind `limit` bytes is not read.
    pub(crate) async fn bytes(&self, body: &mut Incoming, limit: usize) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        while out.len() < limit
            && let Some(bytes) = self.next(body).await?
        {
            out.extend_from_slice(&bytes);
        }
        out.truncate(limit);
        Ok(out)
    }
}

/// What an answer says of its length.
pub(crate) fn length(answer: &Response<Incoming>) -> Option<u64> {
    answer.headers().get("content-length")?.to_str().ok()?.parse().ok()
}
