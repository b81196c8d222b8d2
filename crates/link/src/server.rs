//! A controller's end of the line: who may call what, and the calls.
use crate::{
    Error, FROM_NODE, Refused,
    call::Credentials,
    session::{self, Sessions},
    tunnel,
    wire::{self, Asked, Chunk, Grant, JoinRequest, Json, Message, NoAnswer, Wire},
};
use assign::{Agent, Assignments, BlobInfo, Blobs, Pending, QueryError, Uplink};
use futures_util::{Stream, StreamExt, stream};
use pki::{Identity, Role};
use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{io::AsyncWriteExt, net::TcpListener};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::http,
    metadata::MetadataMap,
    server::{Grpc, StreamingService},
    transport::Server,
};

/// What stands behind a controller's end of the line.
pub trait Controller: Send + Sync + 'static {
    /// A machine with a join token asks to be let in. The same request again gets in again.
    fn join(&self, request: JoinRequest) -> Pending<'_, Result<Grant, Refused>>;
    /// A new certificate (PEM) for a machine that shows its old one.
    fn renew<'a>(&'a self, identity: &'a Identity, csr: &'a str) -> Pending<'a, Result<String, Refused>>;
    /// The line of a node with its assignments as they are in the store now; fails when the store cannot be asked.
    fn attach<'a>(&'a self, host: &'a str, agent: Arc<dyn Agent>) -> Pending<'a, Result<Arc<dyn Uplink>, Refused>>;
    /// The node's line is gone for good: it did not come back here.
    fn detach<'a>(&'a self, host: &'a str) -> Pending<'a, ()>;
    /// The agent of a node that is attached to this controller.
    fn agent(&self, host: &str) -> Option<Arc<dyn Agent>>;
    /// Lines of all controllers, `host:port`.
    fn controllers(&self) -> Vec<String>;
    /// An image blob that this controller has, or can bring from another when `bring` says so.
    fn open<'a>(&'a self, blob: &'a str, bring: bool) -> Pending<'a, io::Result<tokio::fs::File>>;
    /// Makes a copy of a blob that another controller has.
    fn keep<'a>(&'a self, blob: &'a str) -> Pending<'a, io::Result<()>>;
    /// Where blobs from nodes are stored.
    fn blobs(&self) -> &dyn Blobs;
    /// A directory for files on their way to [`Controller::blobs`].
    fn incoming(&self) -> &Path;
}

/// A controller's end with the nodes that are attached to it. Cheap to clone.
#[derive(Clone)]
pub struct Service(Arc<Shared>);

impl Service {
    pub fn new(controller: Arc<dyn Controller>) -> Self {
        Self(Arc::new(Shared { controller, sessions: Sessions::default() }))
    }
}

/// Takes connections until it is dropped; those that are there go on. Needs a certificate of the role controller.
pub async fn serve(listener: TcpListener, credentials: &Credentials, service: Service) -> Result<(), Error> {
    let unusable = |e: tonic::transport::Error| Error::Credentials(base::chain(&e));
    let connections = stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(connection, _)| {
            connection.set_nodelay(true).ok();
            connection
        });
        Some((accepted, listener))
    });
    let server = Server::builder()
        .tls_config(credentials.server())
        .map_err(unusable)?
        .http2_keepalive_interval(Some(crate::PROBE))
        .http2_keepalive_timeout(Some(crate::PROBE_ANSWER));
    server.serve_with_incoming(service, connections).await.map_err(unusable)
}

/// Binds the address of the line.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

pub(crate) struct Shared {
    pub(crate) controller: Arc<dyn Controller>,
    pub(crate) sessions: Sessions,
}

impl tower_service::Service<http::Request<Body>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move { Ok(dispatch(shared, request).await) })
    }
}

async fn dispatch(shared: Arc<Shared>, request: http::Request<Body>) -> http::Response<Body> {
    match request.uri().path() {
        wire::JOIN => answer(shared, request, join).await,
        wire::RENEW => answer(shared, request, renew).await,
        wire::ATTACH => answer(shared, request, session::attach).await,
        wire::DISPLAY => answer(shared, request, session::display).await,
        wire::FETCH => answer(shared, request, fetch).await,
        wire::STORE => answer(shared, request, store).await,
        wire::KEEP => answer(shared, request, keep).await,
        wire::ASK => answer(shared, request, ask).await,
        wire::SHOW => answer(shared, request, show).await,
        _ => Status::unimplemented("no such call").into_http(),
    }
}

/// What comes back of a call.
pub(crate) type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What a call was made with.
pub(crate) struct Call<D> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) who: Option<Identity>,
    pub(crate) metadata: MetadataMap,
    pub(crate) messages: Streaming<D>,
}

impl<D> Call<D> {
    /// The caller, if it is one of these.
    fn require(&self, roles: &[Role]) -> Result<&Identity, Status> {
        let refused = || Status::permission_denied("this call is not for the holder of this certificate");
        self.who.as_ref().filter(|w| roles.contains(&w.role)).ok_or_else(refused)
    }
    /// The name of the node that calls.
    pub(crate) fn node(&self) -> Result<String, Status> {
        Ok(self.require(&[Role::Node])?.name.clone())
    }
    pub(crate) fn text(&self, key: &'static str) -> Result<&str, Status> {
        let value = self.metadata.get(key).and_then(|v| v.to_str().ok());
        value.ok_or_else(|| Status::invalid_argument(format!("{key} is missing")))
    }
    async fn one(&mut self) -> Result<D, Status> {
        let first = tokio::time::timeout(crate::ANSWER, self.messages.message()).await;
        first.map_err(|_| Status::deadline_exceeded("no message"))??.ok_or_else(|| Status::invalid_argument("no message"))
    }
}

struct Handler<F>(Arc<Shared>, F);

impl<D, E, F, R> StreamingService<D> for Handler<F>
where
    D: Message,
    E: Message,
    F: Fn(Call<D>) -> R,
    R: Future<Output = Result<Messages<E>, Status>> + Send + 'static,
{
    type Response = E;
    type ResponseStream = Messages<E>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Messages<E>>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<D>>) -> Self::Future {
        let certificates = request.peer_certs();
        let who = certificates.as_deref().and_then(|c| c.first()).and_then(|c| Identity::of_certificate(c));
        let (metadata, _, messages) = request.into_parts();
        let answer = (self.1)(Call { shared: self.0.clone(), who, metadata, messages });
        Box::pin(async move { answer.await.map(Response::new) })
    }
}

async fn answer<D, E, R>(shared: Arc<Shared>, request: http::Request<Body>, handler: fn(Call<D>) -> R) -> http::Response<Body>
where
    D: Message,
    E: Message,
    R: Future<Output = Result<Messages<E>, Status>> + Send + 'static,
{
    let mut grpc = Grpc::new(Wire::<E, D>::default()).max_decoding_message_size(FROM_NODE);
    grpc.streaming(Handler(shared, handler), request).await
}

pub(crate) fn one<T: Send + 'static>(message: T) -> Messages<T> {
    Box::pin(stream::iter([Ok(message)]))
}

async fn join(mut call: Call<Json<JoinRequest>>) -> Result<Messages<Json<Result<Grant, Refused>>>, Status> {
    let Json(request) = call.one().await?;
    Ok(one(Json(call.shared.controller.join(request).await)))
}

async fn renew(mut call: Call<Json<String>>) -> Result<Messages<Json<Result<String, Refused>>>, Status> {
    let who = call.require(&[Role::Node, Role::Controller])?.clone();
    let Json(csr) = call.one().await?;
    Ok(one(Json(call.shared.controller.renew(&who, &csr).await)))
}

async fn ask(mut call: Call<Json<Asked>>) -> Result<Messages<Json<Result<assign::Answer, NoAnswer>>>, Status> {
    call.require(&[Role::Controller])?;
    let Json(Asked { host, query }) = call.one().await?;
    let answer = match call.shared.controller.agent(&host) {
        Some(agent) => agent.query(query).await,
        None => Err(QueryError::Unreachable(host)),
    };
    Ok(one(Json(answer.map_err(NoAnswer::from))))
}

async fn show(call: Call<Chunk>) -> Result<Messages<Chunk>, Status> {
    call.require(&[Role::Controller])?;
    let (host, server) = (call.text(wire::HOST)?, call.text(wire::SERVER)?);
    let agent =
        call.shared.controller.agent(host).ok_or_else(|| Status::not_found(format!("node {host} is not attached here")))?;
    let mut display = agent.vnc(server).await.map_err(|e| Status::unavailable(e.to_string()))?;
    let (tunnel, outgoing) = tunnel::open();
    let mut end = tunnel.join(call.messages);
    tokio::spawn(async move { tokio::io::copy_bidirectional(&mut display, &mut end).await.ok() });
    Ok(Box::pin(outgoing.map(Ok)))
}

/// Controllers get every blob, a node those that its assignments name.
async fn fetch(mut call: Call<Chunk>) -> Result<Messages<Chunk>, Status> {
    let who = call.require(&[Role::Node, Role::Controller])?.clone();
    let Chunk(blob) = call.one().await?;
    let blob = name_of(&blob)?;
    if who.role == Role::Node {
        let assigned = call.shared.sessions.assignments(&who.name);
        if !assigned.is_some_and(|a| names(&a, blob)) {
            return Err(Status::permission_denied("this blob is in no assignment of this node"));
        }
    }
    // A controller asks each of the others.
    let file = call.shared.controller.open(blob, who.role == Role::Node).await.map_err(of_file)?;
    Ok(Box::pin(tunnel::chunks(file)))
}

fn name_of(blob: &[u8]) -> Result<&str, Status> {
    std::str::from_utf8(blob).map_err(|_| Status::invalid_argument("a blob's name is hexadecimal"))
}

async fn keep(mut call: Call<Chunk>) -> Result<Messages<Json<()>>, Status> {
    call.require(&[Role::Controller])?;
    let Chunk(blob) = call.one().await?;
    call.shared.controller.keep(name_of(&blob)?).await.map_err(of_file)?;
    Ok(one(Json(())))
}

fn of_file(e: io::Error) -> Status {
    match e.kind() {
        io::ErrorKind::NotFound => Status::not_found("this controller does not have the blob"),
        _ => Status::unavailable(e.to_string()),
    }
}

fn names(assigned: &Assignments, blob: &str) -> bool {
    let of_servers = assigned.servers.values().flat_map(|s| s.root.iter().map(|r| &r.image).chain(&s.rescue));
    let of_volumes = assigned.volumes.values().filter_map(|v| match &v.source {
        assign::VolumeSource::Image(image) => Some(image),
        assign::VolumeSource::Blank | assign::VolumeSource::Snapshot { .. } | assign::VolumeSource::Volume { .. } => None,
    });
    of_servers.chain(of_volumes).any(|image| image.blob == blob)
}

/// From a node that was asked for an image.
async fn store(mut call: Call<Chunk>) -> Result<Messages<Json<Result<BlobInfo, Refused>>>, Status> {
    let host = call.node()?;
    let assigned = call.shared.sessions.assignments(&host);
    if !assigned.is_some_and(|a| !a.snapshots.is_empty() || a.volumes.values().any(|v| !v.uploads.is_empty())) {
        return Err(Status::permission_denied("no assignment of this node asks for an image"));
    }
    let controller = call.shared.controller.clone();
    let spool = tempfile::NamedTempFile::new_in(controller.incoming()).map_err(of_file)?;
    let mut file = tokio::fs::File::create(spool.path()).await.map_err(of_file)?;
    while let Some(Chunk(bytes)) = call.messages.message().await? {
        file.write_all(&bytes).await.map_err(of_file)?;
    }
    file.sync_all().await.map_err(of_file)?;
    drop(file);
    let stored = controller.blobs().store(spool.path()).await;
    Ok(one(Json(stored.map_err(|e| Refused(e.to_string())))))
}
