//! Serves an [`Edge`](crate::Edge) on a listener.
use crate::TlsListener;
use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{Response, Uri, uri::PathAndQuery},
    serve::ListenerExt,
};
use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::net::TcpListener;

/// Serves until `stop` is ready, then lets running requests finish.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    // Answers are small: waiting to fill a packet would cost 40 ms each.
    let listener = listener.tap_io(|tcp| {
        tcp.set_nodelay(true).ok();
    });
    axum::serve(listener, app(router)).with_graceful_shutdown(stop).await
}

/// As [`serve`], over TLS.
pub async fn serve_tls(
    listener: TlsListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, app(router)).with_graceful_shutdown(stop).await
}

fn app(router: Router) -> Router {
    Router::new().fallback_service(Plain(router))
}

/// Clients write `/v3/` and `//v3` and mean `/v3`.
#[derive(Clone)]
struct Plain(Router);

/// Collections whose path with a slash is an item with an empty id, which is not found: clients tell it from the list.
const EMPTY_IDS: [&str; 3] = ["/image/v2/images/", "/compute/v2.1/os-simple-tenant-usage/", "/compute/v2.1/os-volumes/"];

/// As [`EMPTY_IDS`], also behind the project that Cinder's clients put into the path.
fn is_empty_volume_id(path: &str) -> bool {
    path.starts_with("/volume/v3/") && path.ends_with("/volumes/")
}

fn plain(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    if EMPTY_IDS.contains(&path)
        || is_empty_volume_id(path)
        || (!path.contains("//") && (path.len() == 1 || !path.ends_with('/')))
    {
        return None;
    }
    let joined: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    let query = uri.query().map_or_else(String::new, |q| format!("?{q}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(format!("/{}{query}", joined.join("/"))).ok();
    Uri::from_parts(parts).ok()
}

impl tower_service::Service<Request> for Plain {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, mut request: Request) -> Self::Future {
        if let Some(uri) = plain(request.uri()) {
            *request.uri_mut() = uri;
        }
        let mut router = self.0.clone();
        Box::pin(async move { tower_service::Service::call(&mut router, request).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_are_tidied() {
        let tidy = |s: &str| plain(&s.parse().expect("uri")).map(|u| u.to_string());
        assert_eq!(tidy("/identity/v3/").as_deref(), Some("/identity/v3"));
        assert_eq!(tidy("//identity//v3/users/?a=b/").as_deref(), Some("/identity/v3/users?a=b/"));
        assert_eq!(tidy("/identity/v3"), None);
        assert_eq!(tidy("/image/v2/images/"), None);
        assert_eq!(tidy("/"), None);
    }
}
