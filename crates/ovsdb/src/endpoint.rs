//! Where a database server listens.
use crate::{Error, Tls};
use std::{fmt, io, net::SocketAddr, path::PathBuf, str::FromStr};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Unix(PathBuf),
    /// `host:port`
    Tcp(String),
    /// `host:port`, by TLS
    Ssl(String),
}

impl Endpoint {
    /// Reads a list as OVN writes it: `tcp:a:6641,tcp:b:6641`.
    pub fn list(text: &str) -> Result<Vec<Self>, Error> {
        text.split(',').map(str::parse).collect()
    }
    /// By TLS at an address.
    pub fn ssl(at: SocketAddr) -> Self {
        Self::Ssl(at.to_string())
    }
    pub(crate) async fn connect(&self, tls: Option<&Tls>) -> io::Result<(Reader, Writer)> {
        match self {
            Self::Unix(path) => {
                let (r, w) = UnixStream::connect(path).await?.into_split();
                Ok((Box::new(r), Box::new(w)))
            }
            Self::Tcp(address) => {
                let (r, w) = tcp(address).await?.into_split();
                Ok((Box::new(r), Box::new(w)))
            }
            Self::Ssl(address) => {
                let tls = tls.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no certificate for TLS"))?;
                let (r, w) = tokio::io::split(tls.shake(tcp(address).await?).await?);
                Ok((Box::new(r), Box::new(w)))
            }
        }
    }
}

pub(crate) type Reader = Box<dyn AsyncRead + Send + Unpin>;
pub(crate) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

async fn tcp(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Ssl(address) => write!(f, "ssl:{address}"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once(':') {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(("tcp", address)) if address.contains(':') => Ok(Self::Tcp(address.to_owned())),
            Some(("ssl", address)) if address.contains(':') => Ok(Self::Ssl(address.to_owned())),
            _ => Err(Error::Endpoint(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_prints() {
        let text = "unix:/run/nb.sock,tcp:10.0.0.1:6641,ssl:[fd00::1]:6641";
        let list = Endpoint::list(text).unwrap();
        assert_eq!(list.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(","), text);
        assert!(Endpoint::list("ssl:nobody").is_err() && Endpoint::list("unix:relative").is_err());
    }
}
