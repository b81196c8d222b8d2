//! HTTP of the metadata service: small, bounded, and deaf to everything but method, path and peer address, and one short body.
use super::{
    password::{Desk, LONGEST_PASSWORD, Outcome},
    tree,
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Body,
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};

/// Connections of one network at once.
const CONNECTIONS: usize = 128;
const LONGEST: Duration = Duration::from_secs(60);

/// Answers for ever; dropping this ends all connections.
pub(super) async fn serve(listener: TcpListener, network_id: String, desk: Arc<Desk>) {
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
        let (network_id, desk) = (network_id.clone(), desk.clone());
        connections.spawn(async move {
            let service = hyper::service::service_fn(|request| {
                let (network_id, desk) = (network_id.clone(), desk.clone());
                async move { Ok::<_, Infallible>(answer(&desk, &network_id, peer.ip(), request).await) }
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

/// One question. A body is read only where a password may be left.
async fn answer<B>(desk: &Desk, network_id: &str, peer: IpAddr, request: Request<B>) -> Response<Full<Bytes>>
where
    B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let is_read = request.method() == Method::GET || request.method() == Method::HEAD;
    if !is_read && request.method() != Method::POST {
        return not_allowed("Only GET and HEAD are answered here, and a POST of a password.\n", "GET, HEAD");
    }
    let Some(server) = desk.directory.find(network_id, peer) else {
        tracing::debug!(network = network_id, %peer, "an unknown address asked for metadata");
        return text(StatusCode::NOT_FOUND, "No server of this node has the address that asked.\n");
    };
    if !is_read {
        if !tree::is_password(&server.guest, request.uri().path()) {
            return not_allowed("Only a password can be posted, to /openstack/latest/password.\n", "GET, HEAD");
        }
        // Nova's order: what is refused anyway is not read.
        if server.guest.password.is_some() {
            return respond(Outcome::Taken);
        }
        let Ok(body) = Limited::new(request.into_body(), LONGEST_PASSWORD).collect().await else {
            return text(StatusCode::BAD_REQUEST, "The password is too long; post at most 1020 bytes.\n");
        };
        let Ok(password) = String::from_utf8(body.to_bytes().into()) else {
            return text(StatusCode::BAD_REQUEST, "The password is no text; encode it with base64.\n");
        };
        return respond(desk.leave(network_id, peer, &server.id, password).await);
    }
    match tree::answer(&server.guest, request.uri().path()) {
        Some(reply) => {
            let mut response = Response::new(Full::new(reply.body.into()));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(reply.media_type));
            response
        }
        None => text(StatusCode::NOT_FOUND, "There is nothing at this path.\n"),
    }
}

fn respond(outcome: Outcome) -> Response<Full<Bytes>> {
    match outcome {
        Outcome::Kept => text(StatusCode::OK, ""),
        Outcome::Taken => text(StatusCode::CONFLICT, "A password is kept already; delete it in the cloud's API first.\n"),
        Outcome::Gone => text(StatusCode::NOT_FOUND, "No server of this node has the address that asked.\n"),
        Outcome::Unreachable => {
            text(StatusCode::SERVICE_UNAVAILABLE, "The password could not be handed on in time; post it again.\n")
        }
    }
}

fn not_allowed(message: &'static str, allowed: &'static str) -> Response<Full<Bytes>> {
    let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, message);
    refused.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    refused
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(tree::TEXT));
    response
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
