//! HTTP of the metadata service: small, bounded, and deaf to everything but method, path and peer address.
use super::{Directory, tree};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};

/// Connections of one network at once.
const CONNECTIONS: usize = 128;
const LONGEST: Duration = Duration::from_secs(60);

/// Answers for ever; dropping this ends all connections.
pub(super) async fn serve(listener: TcpListener, network_id: String, directory: Arc<Directory>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    let network_id: Arc<str> = network_id.into();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(network = &*network_id, %error, "a metadata connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (network_id, directory) = (network_id.clone(), directory.clone());
        connections.spawn(async move {
            let service = hyper::service::service_fn(|request| {
                let response = answer(&directory, &network_id, peer.ip(), &request);
                async { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service);
            // A guest that hangs up, or takes too long, is its own affair.
            let _ = tokio::time::timeout(LONGEST, connection).await;
            drop(permit);
        });
    }
}

/// One question. The body is never read.
fn answer<B>(directory: &Directory, network_id: &str, peer: IpAddr, request: &Request<B>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are answered here.\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let Some(server) = directory.find(network_id, peer) else {
        tracing::debug!(network = network_id, %peer, "an unknown address asked for metadata");
        return text(StatusCode::NOT_FOUND, "No server of this node has the address that asked.\n");
    };
    match tree::answer(&server.guest, request.uri().path()) {
        Some(reply) => {
            let mut response = Response::new(Full::new(reply.body.into()));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(reply.media_type));
            response
        }
        None => text(StatusCode::NOT_FOUND, "There is nothing at this path.\n"),
    }
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(tree::TEXT));
    response
}
