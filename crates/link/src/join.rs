//! A machine without a certificate asks to be let in.
use crate::{
    CONNECT, Error,
    call::Way,
    wire::{Grant, JOIN, JoinRequest, Json, Refused},
};
use pki::{Identity, JoinToken, Request};
use rustls::{
    DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

/// What a machine has when it was let in.
pub struct Admitted {
    /// PEM, for the certificate in `grant`.
    pub key: String,
    pub grant: Grant,
}

/// Joins the cluster of a controller's line (`host:port`). The secret is said only to a controller whose authority the token names. With the
/// same `request` it can be repeated.
pub async fn join(
    address: &str,
    token: &JoinToken,
    identity: &Identity,
    reached_at: IpAddr,
    request: &Request,
) -> Result<Admitted, Error> {
    let ca = authority(address, token).await?;
    let asked = JoinRequest {
        role: identity.role.to_string(),
        name: identity.name.clone(),
        address: reached_at,
        csr: request.csr_pem.clone(),
        secret: token.secret().to_owned(),
    };
    let way = Way::anonymous(address, &ca)?;
    let answer = way.ask::<_, Json<Result<Grant, Refused>>>(JOIN, Json(asked)).await;
    let Json(answer) = answer.map_err(|e| Error::Unreachable { address: address.into(), cause: e.message().into() })?;
    let grant = answer.map_err(|Refused(why)| Error::Refused(why))?;
    Ok(Admitted { key: request.key_pem.clone(), grant })
}

/// The authority (PEM) of the controller at that address, if it is the one that the token names.
async fn authority(address: &str, token: &JoinToken) -> Result<String, Error> {
    let unreachable = |cause: String| Error::Unreachable { address: address.into(), cause };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pin = Arc::new(Pin { token: token.clone(), provider: provider.clone(), seen: Mutex::default() });
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Credentials(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(pin.clone())
        .with_no_client_auth();
    let name = pki::Role::Controller.server_name();
    let name = ServerName::try_from(name).map_err(|e| Error::Credentials(e.to_string()))?;
    let shake = async {
        let connection = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::new(tls)).connect(name, connection).await
    };
    let shaken = timeout(CONNECT * 2, shake).await.map_err(|_| unreachable("no answer".into()))?;
    let seen = std::mem::take(&mut *pin.seen.lock().unwrap_or_else(PoisonError::into_inner));
    match (shaken, seen) {
        (Ok(_), Seen::Ours(ca)) => Ok(ca),
        (_, Seen::Other(e)) => Err(e.into()),
        (Err(e), _) => Err(unreachable(e.to_string())),
        (Ok(_), Seen::Nothing) => Err(unreachable("it showed no certificate".into())),
    }
}

#[derive(Default)]
enum Seen {
    #[default]
    Nothing,
    Ours(String),
    Other(pki::Error),
}

/// Trusts whom the authority in the token trusts.
#[derive(Debug)]
struct Pin {
    token: JoinToken,
    provider: Arc<CryptoProvider>,
    seen: Mutex<Seen>,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing",
            Self::Ours(_) => "ours",
            Self::Other(_) => "another",
        })
    }
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let refused = || rustls::Error::General("the controller's authority is not the token's".into());
        let see = |seen| *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        let ca = intermediates.last().ok_or_else(refused)?;
        let pem = pki::pem(ca);
        if let Err(e) = self.token.check(&pem) {
            see(Seen::Other(e));
            return Err(refused());
        }
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone());
        let verifier = verifier.build().map_err(|e| rustls::Error::General(e.to_string()))?;
        let verified = verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        see(Seen::Ours(pem));
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
