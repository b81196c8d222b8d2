//! Calls of the line: who we are, whom we trust, and one way to make a call.
use crate::{
    CONNECT, Error, PROBE, PROBE_ANSWER,
    wire::{Json, Message, RENEW, Refused, Wire},
};
use futures_util::Stream;
use std::{path::Path, sync::Arc};
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig},
};

/// Certificate, key and the authority, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub certificate: String,
    pub key: String,
    pub ca: String,
}

impl Credentials {
    /// From `cert.pem`, `key.pem` and `ca.pem` in a directory.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read_to_string(&path).map_err(|e| Error::Credentials(format!("{}: {e}", path.display())))
        };
        Ok(Self { certificate: read("cert.pem")?, key: read("key.pem")?, ca: read("ca.pem")? })
    }
    fn authority(&self) -> Certificate {
        Certificate::from_pem(&self.ca)
    }
    /// Certificates are asked for and not demanded: who joins has none yet.
    pub(crate) fn server(&self) -> ServerTlsConfig {
        // The authority's comes along: a machine that joins knows it by its fingerprint.
        let chain = format!("{}{}", self.certificate, self.ca);
        let identity = Identity::from_pem(chain, &self.key);
        ServerTlsConfig::new().identity(identity).client_ca_root(self.authority()).client_auth_optional(true)
    }
    fn client(&self) -> ClientTlsConfig {
        anonymous(&self.ca).identity(Identity::from_pem(&self.certificate, &self.key))
    }
}

fn anonymous(ca: &str) -> ClientTlsConfig {
    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name(pki::Role::Controller.server_name())
}

/// A connection to a controller, made when it is needed and again when it broke. Cheap to clone.
#[derive(Clone)]
pub struct Way {
    channel: Channel,
    address: Arc<str>,
}

impl Way {
    /// To `host:port`, as ourselves.
    pub fn to(address: &str, us: &Credentials) -> Result<Self, Error> {
        Self::with(address, us.client())
    }
    /// Without a certificate of our own.
    pub(crate) fn anonymous(address: &str, ca: &str) -> Result<Self, Error> {
        Self::with(address, anonymous(ca))
    }

    fn with(address: &str, tls: ClientTlsConfig) -> Result<Self, Error> {
        let wrong = |e: tonic::transport::Error| Error::Credentials(base::chain(&e));
        let endpoint = Endpoint::from_shared(format!("https://{address}")).map_err(wrong)?.tls_config(tls).map_err(wrong)?;
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PROBE)
            .keep_alive_timeout(PROBE_ANSWER)
            .keep_alive_while_idle(true);
        Ok(Self { channel: endpoint.connect_lazy(), address: address.into() })
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// A new certificate (PEM) in place of ours, for the key of this request.
    pub(crate) async fn renew(&self, csr: &str) -> Result<String, Error> {
        let answer = self.ask::<_, Json<Result<String, Refused>>>(RENEW, Json(csr.to_owned())).await;
        let Json(answer) =
            answer.map_err(|e| Error::Unreachable { address: self.address().into(), cause: e.message().into() })?;
        answer.map_err(|Refused(why)| Error::Refused(why))
    }

    /// One call; every call is a stream in both directions, of which some carry one message.
    pub(crate) async fn call<E: Message, D: Message>(
        &self,
        path: &'static str,
        request: Request<impl Stream<Item = E> + Send + 'static>,
    ) -> Result<Streaming<D>, Status> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        grpc.ready().await.map_err(|e| Status::unavailable(base::chain(&e)))?;
        let answer = grpc.streaming(request, PathAndQuery::from_static(path), Wire::<E, D>::default()).await?;
        Ok(answer.into_inner())
    }

    /// One message there, one back, within `crate::ANSWER`.
    pub(crate) async fn ask<E: Message, D: Message>(&self, path: &'static str, message: E) -> Result<D, Status> {
        let one = async {
            let request = Request::new(futures_util::stream::iter([message]));
            let mut answer = self.call::<E, D>(path, request).await?;
            answer.message().await?.ok_or_else(|| Status::unavailable("the answer is empty"))
        };
        let late = |_| Status::deadline_exceeded(format!("no answer within {} s", crate::ANSWER.as_secs()));
        tokio::time::timeout(crate::ANSWER, one).await.map_err(late)?
    }
}
