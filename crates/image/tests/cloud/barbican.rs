//! A key manager that speaks the two calls of Barbican's API v1 that are made of it, and what it was asked.
use crate::common::ImageCloud;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};
use testkit::Client;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

/// What it has under an id.
#[derive(Clone)]
pub(crate) struct Secret {
    /// Status and body of what it says of the secret.
    pub(crate) told: (u16, Vec<u8>),
    /// Status, media type and body of the payload.
    pub(crate) payload: (u16, String, Vec<u8>),
    /// It is told only when this is notified.
    pub(crate) held: Option<Arc<Notify>>,
}

impl Secret {
    pub(crate) fn certificate(media: &str, payload: &[u8]) -> Self {
        let told = json!({
            "name": "signer", "status": "ACTIVE", "secret_type": "certificate", "content_types": {"default": media},
            "secret_ref": "http://elsewhere.example.org/v1/secrets/x", "algorithm": null, "bit_length": null, "mode": null,
        });
        Self { told: (200, told.to_string().into_bytes()), payload: (200, media.into(), payload.to_vec()), held: None }
    }

    /// Its description with another value.
    pub(crate) fn saying(mut self, name: &str, value: Value) -> Self {
        let mut told: Value = serde_json::from_slice(&self.told.1).unwrap();
        told[name] = value;
        self.told.1 = told.to_string().into_bytes();
        self
    }
}

/// A question: path, token and `Accept`.
pub(crate) type Question = (String, String, String);

#[derive(Clone, Default)]
pub(crate) struct Barbican {
    pub(crate) url: String,
    secrets: Arc<Mutex<HashMap<String, Secret>>>,
    asked: Arc<Mutex<Vec<Question>>>,
}

impl Barbican {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Self { url, ..Self::default() };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = serving.clone();
                tokio::spawn(async move { server.answer(stream).await });
            }
        });
        server
    }

    /// Keeps a secret; its id.
    pub(crate) fn keep(&self, secret: Secret) -> String {
        let id = base::id::uuid();
        self.secrets.lock().unwrap().insert(id.clone(), secret);
        id
    }

    pub(crate) fn asked(&self) -> Vec<Question> {
        self.asked.lock().unwrap().clone()
    }

    /// Puts it into the cloud's catalog.
    pub(crate) async fn register(&self, cloud: &ImageCloud) {
        register(&cloud.cloud.admin().await, &self.url).await;
    }

    async fn answer(&self, mut stream: TcpStream) {
        let (mut head, mut buf) = (Vec::new(), [0; 1024]);
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut buf).await {
                Ok(count @ 1..) => head.extend_from_slice(&buf[..count]),
                _ => return,
            }
        }
        let head = String::from_utf8(head).unwrap();
        let header = |name: &str| {
            let found = head.lines().filter_map(|l| l.split_once(": ")).find(|(n, _)| n.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let (token, accept) = (header("x-auth-token"), header("accept"));
        self.asked.lock().unwrap().push((path.clone(), token.clone(), accept.clone()));
        let rest = path.strip_prefix("/v1/secrets/").unwrap_or_default();
        let (id, payload) = rest.split_once('/').map_or((rest, false), |(id, of)| (id, of == "payload"));
        let secret = self.secrets.lock().unwrap().get(id).cloned();
        let (status, media, body) = match secret {
            _ if token.is_empty() || !head.starts_with("GET ") => (401, "application/json".to_owned(), b"{}".to_vec()),
            None => (404, "application/json".to_owned(), b"{}".to_vec()),
            Some(secret) if !payload => {
                if let Some(held) = &secret.held {
                    held.notified().await;
                }
                (secret.told.0, "application/json".to_owned(), secret.told.1)
            }
            Some(secret) if secret.payload.1 != accept => (406, "application/json".to_owned(), b"{}".to_vec()),
            Some(secret) => secret.payload,
        };
        let length = body.len();
        let head = format!("HTTP/1.1 {status} X\r\ncontent-type: {media}\r\ncontent-length: {length}\r\nlocation: /\r\n\r\n");
        stream.write_all(&[head.as_bytes(), &body].concat()).await.ok();
    }
}

/// Puts an address of a key manager into the catalog.
pub(crate) async fn register(admin: &Client, url: &str) {
    let service = json!({"service": {"type": "key-manager", "name": "barbican"}});
    let id = admin.post("/identity/v3/services", service).await.expect(201).text("/service/id");
    for (interface, url) in [("admin", "http://127.0.0.1:9/"), ("internal", "http://127.0.0.1:9/"), ("public", url)] {
        let endpoint = json!({"endpoint": {"service_id": id, "interface": interface, "url": url, "region_id": "RegionOne"}});
        admin.post("/identity/v3/endpoints", endpoint).await.expect(201);
    }
}
