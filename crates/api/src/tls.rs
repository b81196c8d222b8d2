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
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(&files.certificate).and_then(Iterator::collect).map_err(|e| bad(e.to_string()))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, routing::get};
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::{
        TlsConnector, client,
        rustls::{ClientConfig, RootCertStore, pki_types::ServerName},
    };

    struct Bed {
        dir: tempfile::TempDir,
        issuer: Issuer<'static, KeyPair>,
        ca: CertificateDer<'static>,
    }

    impl Bed {
        fn new() -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let ca = params.self_signed(&key).unwrap().der().clone();
            let bed = Self { dir: tempfile::tempdir().unwrap(), issuer: Issuer::new(params, key), ca };
            bed.issue("localhost");
            bed
        }
        fn files(&self) -> ServerTls {
            ServerTls { certificate: self.dir.path().join("cert.pem"), key: self.dir.path().join("key.pem") }
        }
        fn issue(&self, name: &str) {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
            std::fs::write(self.files().key, key.serialize_pem()).unwrap();
            std::fs::write(self.files().certificate, certificate).unwrap();
        }
        async fn serve(&self) -> SocketAddr {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let listener = TlsListener::new(tcp, self.files()).unwrap();
            let address = listener.local_addr().unwrap();
            let router = Router::new().route("/", get(|| async { "here" }));
            tokio::spawn(crate::serve_tls(listener, router, std::future::pending()));
            address
        }
        async fn connect(&self, to: SocketAddr, name: &'static str) -> std::io::Result<client::TlsStream<TcpStream>> {
            let mut roots = RootCertStore::empty();
            roots.add(self.ca.clone()).unwrap();
            let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let tcp = TcpStream::connect(to).await?;
            TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name).unwrap(), tcp).await
        }
    }

    #[tokio::test]
    async fn one_who_never_shakes_hands_holds_up_nobody() {
        let bed = Bed::new();
        let address = bed.serve().await;
        let mut silent = Vec::new();
        for _ in 0..8 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut stream = timeout(HANDSHAKE / 2, bed.connect(address, "localhost")).await.unwrap().unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        // A peer that closes without a word of TLS is an error for the reader; what was read counts.
        stream.read_to_string(&mut answer).await.ok();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("here"), "{answer}");
        assert!(bed.connect(address, "elsewhere").await.is_err(), "the certificate is for localhost");
    }

    #[tokio::test]
    async fn a_connection_without_tls_gets_no_answer() {
        let bed = Bed::new();
        let mut plain = TcpStream::connect(bed.serve().await).await.unwrap();
        plain.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        plain.read_to_end(&mut answer).await.ok();
        assert!(!String::from_utf8_lossy(&answer).contains("HTTP"), "only an alert of TLS");
    }

    #[test]
    fn a_renewed_certificate_is_shown_and_a_broken_one_is_not() {
        let bed = Bed::new();
        let certificates = Certificates::open(bed.files(), Arc::new(ring::default_provider())).unwrap();
        let first = certificates.current(Instant::now());
        let later = |n: u32| Instant::now() + LOOK * n;
        assert_eq!(certificates.current(later(1)).cert, first.cert, "nothing changed");
        std::fs::write(bed.files().certificate, "no certificate").unwrap();
        assert_eq!(certificates.current(later(2)).cert, first.cert, "the last good one stays");
        bed.issue("localhost");
        assert_eq!(certificates.current(later(2)).cert, first.cert, "not looked at again so soon");
        assert_ne!(certificates.current(later(4)).cert, first.cert);
        std::fs::remove_file(bed.files().key).unwrap();
        let none = Certificates::open(bed.files(), Arc::new(ring::default_provider()));
        assert!(matches!(none, Err(TlsError::Certificate { .. })));
    }
}
