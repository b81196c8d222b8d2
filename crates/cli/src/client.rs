//! A small JSON-over-HTTP client with a Keystone login.
use base::retry::Backoff;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{Request, body::Frame};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as HyperClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::io::AsyncReadExt;
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{method} {url} failed: {cause}. Is the cloud running? Try `drover status`, or start it with `drover up`.")]
    Unreachable { method: &'static str, url: String, cause: String },
    #[error("{method} {url} was refused with status {status}: {message}")]
    Refused { method: &'static str, url: String, status: u16, message: String },
    #[error("{0}")]
    Local(String),
}

impl Error {
    /// Another controller may answer, or this one in a moment.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Refused { status: 502..=504, .. })
    }
}

/// Who to be. The password is read from a file, never from the command line.
#[derive(Clone, Debug)]
pub struct Login {
    pub endpoint: String,
    /// Who vouches for an `https` endpoint (PEM); the cluster's own authority.
    pub ca: Option<PathBuf>,
    pub user: String,
    pub password: String,
    pub project: String,
}

/// Trusts what the file names, or nobody.
fn trusting(ca: Option<&Path>) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca {
        let wrong = |cause: String| Error::Local(format!("The authority in {} cannot be used: {cause}.", path.display()));
        let certificates = CertificateDer::pem_file_iter(path).map_err(|e| wrong(e.to_string()))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|e| wrong(e.to_string()))?;
            roots.add(certificate).map_err(|e| wrong(e.to_string()))?;
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions();
    let config = config.map_err(|e| Error::Local(format!("TLS cannot be used: {e}.")))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

type Body = BoxBody<Bytes, std::io::Error>;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: HyperClient<HttpsConnector<HttpConnector>, Body>,
    endpoint: String,
    token: String,
}

const TIMEOUT: Duration = Duration::from_secs(60);
const JSON: &str = "application/json";
/// Until a controller that died is out of the way.
const AGAIN: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(4));
const MORE_ATTEMPTS: u32 = 2;

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

fn parsed(answer: &[u8]) -> Value {
    serde_json::from_slice(answer).unwrap_or(Value::Null)
}

/// The text that a person needs out of any service's error body.
fn message(text: &str) -> String {
    let Ok(v) = serde_json::from_str::<Value>(text) else {
        return text.trim().to_owned();
    };
    let inner = v.as_object().and_then(|o| o.values().next()).cloned().unwrap_or(Value::Null);
    let inner = if inner.is_array() { inner[0].clone() } else { inner };
    ["message", "detail"].iter().find_map(|k| inner[k].as_str().map(str::to_owned)).unwrap_or_else(|| text.to_owned())
}

impl Client {
    /// A client without a token, which trusts the authority in the file `ca` and no other.
    pub fn anonymous(endpoint: &str, ca: Option<&Path>) -> Result<Self, Error> {
        let connector = HttpsConnectorBuilder::new().with_tls_config(trusting(ca)?).https_or_http().enable_http1().build();
        let http = HyperClient::builder(TokioExecutor::new()).build(connector);
        Ok(Self { http, endpoint: endpoint.trim_end_matches('/').to_owned(), token: String::new() })
    }

    /// Logs in with a password, scoped to a project of the default domain.
    pub async fn login(login: &Login) -> Result<Self, Error> {
        let mut client = Self::anonymous(&login.endpoint, login.ca.as_deref())?;
        let domain = json!({"id": "default"});
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": {"name": login.user, "password": login.password, "domain": domain}}},
            "scope": {"project": {"name": login.project, "domain": domain}},
        }});
        let (_, headers, _) = client.send("POST", "/identity/v3/auth/tokens", full(body.to_string()), JSON, None).await?;
        client.token = headers
            .iter()
            .find(|(k, _)| k == "x-subject-token")
            .map(|(_, v)| v.clone())
            .ok_or_else(|| Error::Local("The login answered without a token.".into()))?;
        Ok(client)
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    async fn send(
        &self,
        method: &'static str,
        path: &str,
        body: Body,
        media: &str,
        key: Option<&str>,
    ) -> Result<(u16, Vec<(String, String)>, Bytes), Error> {
        let url = format!("{}{path}", self.endpoint);
        let broken = |cause: String| Error::Unreachable { method, url: url.clone(), cause };
        let mut request = Request::builder()
            .method(method)
            .uri(&url)
            .header("x-auth-token", &self.token)
            .header("content-type", media)
            .header("openstack-api-version", "compute 2.90");
        if let Some(key) = key {
            request = request.header("idempotency-key", format!("\"{key}\""));
        }
        let request = request.body(body).map_err(|e| broken(e.to_string()))?;
        let answer = tokio::time::timeout(TIMEOUT, self.http.request(request))
            .await
            .map_err(|_| broken(format!("no answer in {} s", TIMEOUT.as_secs())))?
            .map_err(|e| broken(base::chain(&e)))?;
        let status = answer.status().as_u16();
        let headers =
            answer.headers().iter().filter_map(|(k, v)| Some((k.as_str().to_owned(), v.to_str().ok()?.to_owned()))).collect();
        let bytes = answer.into_body().collect().await.map_err(|e| broken(e.to_string()))?.to_bytes();
        if status >= 400 {
            return Err(Error::Refused { method, url, status, message: message(&String::from_utf8_lossy(&bytes)) });
        }
        Ok((status, headers, bytes))
    }

    /// What the server's clock says, to the second.
    pub async fn clock(&self) -> Result<std::time::SystemTime, Error> {
        let (_, headers, _) = self.send("GET", "/livez", full(""), JSON, None).await?;
        let date = headers.iter().find(|(k, _)| k == "date").and_then(|(_, v)| httpdate::parse_http_date(v).ok());
        date.ok_or_else(|| Error::Local(format!("{} does not tell its time.", self.endpoint)))
    }

    async fn json(&self, method: &'static str, path: &str, body: Body) -> Result<Value, Error> {
        let (_, _, bytes) = self.send(method, path, body, JSON, None).await?;
        Ok(parsed(&bytes))
    }
    pub async fn get(&self, path: &str) -> Result<Value, Error> {
        self.json("GET", path, full("")).await
    }
    /// Sent again when nobody answers, or nobody who can serve, for some seconds; all under one key, so that it is done once.
    pub async fn post(&self, path: &str, body: Value) -> Result<Value, Error> {
        let (key, body) = (base::id::uuid(), Bytes::from(body.to_string()));
        let mut attempt = 0;
        loop {
            match self.send("POST", path, full(body.clone()), JSON, Some(&key)).await {
                Err(e) if e.may_pass() && attempt < MORE_ATTEMPTS => tokio::time::sleep(AGAIN.jittered(attempt)).await,
                sent => return sent.map(|(_, _, answer)| parsed(&answer)),
            }
            attempt += 1;
        }
    }
    pub async fn put(&self, path: &str, body: Value) -> Result<Value, Error> {
        self.json("PUT", path, full(body.to_string())).await
    }
    pub async fn delete(&self, path: &str) -> Result<Value, Error> {
        self.json("DELETE", path, full("")).await
    }

    /// Uploads a file as a stream.
    pub async fn upload(&self, path: &str, file: &Path) -> Result<(), Error> {
        let local = |e: std::io::Error| Error::Local(format!("{} cannot be read: {e}", file.display()));
        let mut source = tokio::fs::File::open(file).await.map_err(local)?;
        let (tx, mut rx) = tokio::sync::mpsc::channel::<std::io::Result<Frame<Bytes>>>(4);
        tokio::spawn(async move {
            let mut buffer = vec![0; 256 * 1024];
            loop {
                let part = match source.read(&mut buffer).await {
                    Ok(0) => return,
                    Ok(n) => Ok(Frame::data(Bytes::copy_from_slice(&buffer[..n]))),
                    Err(e) => Err(e),
                };
                if tx.send(part).await.is_err() {
                    return;
                }
            }
        });
        let stream = futures_util::stream::poll_fn(move |cx| rx.poll_recv(cx));
        self.send("PUT", path, StreamBody::new(stream).boxed(), "application/octet-stream", None).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::AsyncWriteExt as _,
        net::{TcpListener, TcpStream},
    };

    /// The head and the body of a small request.
    async fn request(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        while !text.ends_with(b"}") {
            assert!(stream.read_buf(&mut text).await.unwrap() > 0);
        }
        String::from_utf8(text).unwrap()
    }

    fn key(request: &str) -> Option<&str> {
        request.lines().find_map(|line| line.strip_prefix("idempotency-key: "))
    }

    #[tokio::test]
    async fn what_nobody_answers_is_sent_again_under_its_key() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = tokio::spawn(async move { Client::anonymous(&endpoint, None).unwrap().post("/x", json!({"a": 1})).await });
        // One dies in the middle, one cannot serve, one does.
        let mut requests = Vec::new();
        for answer in
            ["", "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 201 Yes\r\ncontent-length: 7\r\n\r\n{\"b\":2}"]
        {
            let (mut stream, _) = listener.accept().await.unwrap();
            requests.push(request(&mut stream).await);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        assert_eq!(asked.await.unwrap().unwrap(), json!({"b": 2}));
        let keys: Vec<_> = requests.iter().map(|r| key(r)).collect();
        assert!(keys[0].is_some_and(|key| key.len() == 38) && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    }
}
