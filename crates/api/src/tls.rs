//! Connections over TLS: a listener whose connections have shaken hands.
//!
//! - Whoever is slow to shake hands, or never does, holds up nobody: handshakes are tasks of their own, with a deadline.
//! - A certificate that was renewed in its file is shown to the next one who connects; one that cannot be read is not, and the last
//!   good one stays in use.
use axum::serve::Listener;
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
    server::TlsStream,
};

/// From the connection to the end of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes under way; further connections wait to be taken.
const UNDER_WAY: usize = 512;
/// The files are looked at when somebody connects, but not more often than this.
const LOOK: Duration = Duration::from_secs(1);
/// After a connection could not be taken: descriptors may be short.
const PAUSE: Duration = Duration::from_millis(100);

/// What clients are shown, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// The certificate, and those between it and the authority.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the certificate {} with the key {} cannot be used: {cause}; renew it", certificate.display(), key.display())]
    Certificate { certificate: PathBuf, key: PathBuf, cause: String },
    #[error("TLS cannot be used: {0}; check how this program was built")]
    Crypto(#[from] rustls::Error),
}

/// When each of the two files was written last.
type Stamp = (Option<SystemTime>, Option<SystemTime>);

struct Shown {
    key: Arc<CertifiedKey>,
    stamp: Stamp,
    looked: Instant,
}

/// The certificate as it is in its file.
struct Certificates {
    files: ServerTls,
    provider: Arc<CryptoProvider>,
    shown: Mutex<Shown>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Certificates {
    fn open(files: ServerTls, provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let stamp = stamp(&files);
        let key = read(&files, &provider)?;
        Ok(Self { files, provider, shown: Mutex::new(Shown { key, stamp, looked: Instant::now() }) })
    }

    fn current(&self, now: Instant) -> Arc<CertifiedKey> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(shown.looked) >= LOOK {
            shown.looked = now;
            let stamp = stamp(&self.files);
            if stamp != shown.stamp {
                match read(&self.files, &self.provider) {
                    Ok(key) => {
                        tracing::info!("The certificate of the APIs was renewed");
                        *shown = Shown { key, stamp, looked: now };
                    }
                    Err(e) => tracing::warn!(error = %e, "A new certificate is not used; the one before stays: {e}"),
                }
            }
        }
        shown.key.clone()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current(Instant::now()))
    }
}

fn stamp(files: &ServerTls) -> Stamp {
    let of = |path: &PathBuf| std::fs::metadata(path).and_then(|m| m.modified()).ok();
    (of(&files.certificate), of(&files.key))
}

fn read(files: &ServerTls, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TlsError> {
    let bad = |cause: String| TlsError::Certificate { certificate: files.certificate.clone(), key: files.key.clone(), cause };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect)
        .map_err(|e| bad(e.to_string()))?;
    if chain.is_empty() {
        return Err(bad("there is no certificate in it".into()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| bad(e.to_string()))?;
    // Fails for a key that is not the certificate's, such as between the writes of the two.
    CertifiedKey::from_der(chain, key, provider).map(Arc::new).map_err(|e| bad(e.to_string()))
}

/// See the module.
pub struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
    under_way: JoinSet<Option<(TlsStream<TcpStream>, SocketAddr)>>,
}

impl TlsListener {
    pub fn new(tcp: TcpListener, files: ServerTls) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let certificates = Arc::new(Certificates::open(files, provider.clone())?);
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(certificates);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tcp, acceptor: TlsAcceptor::from(Arc::new(config)), under_way: JoinSet::new() })
    }
}

async fn handshake(acceptor: TlsAcceptor, tcp: TcpStream, from: SocketAddr) -> Option<(TlsStream<TcpStream>, SocketAddr)> {
    // Answers are small: waiting to fill a packet would cost 40 ms each.
    tcp.set_nodelay(true).ok();
    match timeout(HANDSHAKE, acceptor.accept(tcp)).await {
        Ok(Ok(stream)) => Some((stream, from)),
        // Health checks that only connect, scanners, clients that do not trust us: their affair.
        Ok(Err(error)) => {
            tracing::debug!(%from, %error, "A client did not shake hands");
            None
        }
        Err(_) => {
            tracing::debug!(%from, "A client did not shake hands in time");
            None
        }
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                Some(done) = self.under_way.join_next() => {
                    if let Ok(Some(ready)) = done {
                        return ready;
                    }
                }
                taken = self.tcp.accept(), if self.under_way.len() < UNDER_WAY => match taken {
                    Ok((tcp, from)) => {
                        self.under_way.spawn(handshake(self.acceptor.clone(), tcp, from));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "A connection could not be taken: {error}");
                        sleep(PAUSE).await;
                    }
                },
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}
