//! Whom we believe when we call others over TLS: the machine's authorities, or those that a configuration names instead.
//!
//! What was read is kept for a while in memory, since the machine has many authorities; changed files count after that. Whoever names a
//! file learns whether it holds certificates, and nothing else of what is in it.
use crate::Error;
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// How long what was read counts.
const FRESH: Duration = Duration::from_secs(600);
/// What messages call the machine's own authorities.
const MACHINE: &str = "/etc/ssl/certs";

/// What was read, and when.
type Read = (Instant, Arc<ClientConfig>);

/// Who vouches for a server's certificate. Clones share what was read.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    file: Option<PathBuf>,
    dir: Option<PathBuf>,
    read: Arc<Mutex<Option<Read>>>,
}

impl Trust {
    /// The authorities in a file and in the files of a directory, or those of the machine when neither is named.
    pub fn new(file: Option<PathBuf>, dir: Option<PathBuf>) -> Self {
        Self { file, dir, read: Arc::default() }
    }

    /// What TLS needs.
    pub fn client(&self) -> Result<Arc<ClientConfig>, Error> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = read.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(client.clone());
        }
        let path = self.file.as_deref().or(self.dir.as_deref()).unwrap_or(Path::new(MACHINE));
        let config =
            ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions();
        let config = config.map_err(|e| bad(path, io::Error::other(e)))?;
        let client = Arc::new(config.with_root_certificates(self.roots()?).with_no_client_auth());
        *read = Some((Instant::now(), client.clone()));
        Ok(client)
    }

    fn roots(&self) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        if let Some(file) = &self.file {
            add(&mut roots, file)?;
        }
        if let Some(dir) = &self.dir {
            let mut any = false;
            for entry in fs::read_dir(dir).map_err(|e| bad(dir, e))? {
                any |= add(&mut roots, &entry.map_err(|e| bad(dir, e))?.path()).is_ok();
            }
            if !any {
                return Err(bad(dir, io::ErrorKind::InvalidData.into()));
            }
        }
        if self.file.is_none() && self.dir.is_none() {
            // One authority of the machine's that is not understood is nobody's.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(bad(Path::new(MACHINE), io::ErrorKind::NotFound.into()));
            }
        }
        Ok(roots)
    }
}

fn bad(path: &Path, source: io::Error) -> Error {
    Error::BadTrust { path: path.to_owned(), source }
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), Error> {
    let text = fs::read(path).map_err(|e| bad(path, e))?;
    // What a parser says of a file may quote it.
    let (added, _) = roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&text).flatten());
    if added == 0 { Err(bad(path, io::ErrorKind::InvalidData.into())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        call::{Answer, Question, ask},
        fetch::Rules,
    };
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use std::{env, process};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };
    use tokio_rustls::{
        TlsAcceptor,
        rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer},
    };

    /// A server of https with a certificate for `name`, and the authority that vouches for it, in PEM.
    async fn server(name: &str) -> (String, String) {
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(DnType::CommonName, format!("Who vouches for {name}"));
        let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let authority = ca.self_signed(&ca_key).unwrap().pem();
        let signed = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![signed.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into());
        let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://127.0.0.1:{}/", listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let _ = stream.read(&mut [0; 1024]).await;
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await.ok();
            }
        });
        (url, authority)
    }

    #[tokio::test]
    async fn a_server_is_asked_when_somebody_vouches_for_it_and_otherwise_the_error_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let (url, authority) = server("127.0.0.1").await;
        let (other_url, other_authority) = server("elsewhere.example.org").await;
        let trust = |name: &str, text: &str| {
            let file = dir.path().join(name);
            fs::write(&file, text).unwrap();
            Trust::new(Some(file), None)
        };
        let (own, other) = (trust("own", &authority), trust("other", &other_authority));
        let ask = async |url: &str, trust: &Trust| {
            let rules = Rules::of_operator(url, trust.clone()).unwrap();
            ask(Question { method: "GET", url, headers: Vec::new(), body: String::new() }, &rules, 100).await
        };
        assert_eq!(ask(&url, &own).await.unwrap(), Answer { status: 200, body: b"hi".to_vec() });
        for (url, trust, why) in [
            (&url, &other, "UnknownIssuer"),
            (&url, &Trust::default(), "UnknownIssuer"),
            (&other_url, &other, "not valid for name"),
        ] {
            let refused = ask(url, trust).await.unwrap_err();
            let said = base::chain(&refused);
            assert!(said.contains("invalid peer certificate") && said.contains(why), "{said}");
        }
    }

    #[test]
    fn files_without_certificates_are_refused_and_not_quoted() {
        let dir = env::temp_dir().join(format!("drover-web-trust-{}", process::id()));
        fs::create_dir(&dir).unwrap();
        let file = dir.join("secret");
        fs::write(&file, "-----BEGIN of a secret\n-----BEGIN CERTIFICATE-----\nx\n").unwrap();
        for trust in [
            Trust::new(Some(file.clone()), None),
            Trust::new(None, Some(dir.clone())),
            Trust::new(Some(dir.join("none")), None),
            Trust::new(None, Some(dir.join("none"))),
        ] {
            let refused = trust.client().unwrap_err();
            assert!(matches!(refused, Error::BadTrust { .. }), "{refused:?}");
            assert!(!base::chain(&refused).contains("of a secret"), "{refused:?}");
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}
