//! A small HTTP client: JSON in, JSON out, a token on every request.
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request};
use hyper_util::{
    client::legacy::{Client as Http, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// The JSON body; `Null` when it is none.
    pub body: Value,
    pub bytes: Bytes,
}

impl Answer {
    /// The answer if it has this status; otherwise the test fails with what it said.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.bytes));
        self
    }
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
    /// A value inside the body by JSON pointer; `Null` when there is none.
    pub fn at(&self, pointer: &str) -> &Value {
        self.body.pointer(pointer).unwrap_or(&Value::Null)
    }
    /// A text inside the body by JSON pointer.
    #[track_caller]
    pub fn text(&self, pointer: &str) -> String {
        let found = self.at(pointer).as_str();
        assert!(found.is_some(), "no text at {pointer} of {}", self.body);
        found.unwrap_or_default().to_owned()
    }
    /// Values of one field of a list: `ids("/users", "id")`.
    pub fn all(&self, pointer: &str, field: &str) -> Vec<String> {
        let list = self.at(pointer).as_array().into_iter().flatten();
        list.filter_map(|v| v.get(field).and_then(Value::as_str).map(str::to_owned)).collect()
    }
}

/// A client of a cloud. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: Http<HttpConnector, Full<Bytes>>,
    base: String,
    pub token: Option<String>,
    headers: Vec<(String, String)>,
}

impl Client {
    /// `base` is the URL of the cloud without a slash at its end.
    pub fn new(base: &str) -> Self {
        let http = Http::builder(TokioExecutor::new()).build_http();
        Self { http, base: base.to_owned(), token: None, headers: Vec::new() }
    }
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }
    /// A header on every request (`OpenStack-API-Version`).
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, Value::Null).await
    }
    pub async fn head(&self, path: &str) -> Answer {
        self.send("HEAD", path, Value::Null).await
    }
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, body).await
    }
    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.send("PUT", path, body).await
    }
    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send("PATCH", path, body).await
    }
    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, Value::Null).await
    }
    /// `Null` sends no body.
    pub async fn send(&self, method: &str, path: &str, body: Value) -> Answer {
        let bytes = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        self.send_bytes(method, path, "application/json", bytes).await
    }
    pub async fn send_bytes(&self, method: &str, path: &str, media: &str, body: Bytes) -> Answer {
        self.try_send(method, path, media, body).await.expect("the cloud answers")
    }
    /// As [`Self::send_bytes`]; fails when there is no whole answer.
    pub async fn try_send(
        &self,
        method: &str,
        path: &str,
        media: &str,
        body: Bytes,
    ) -> Result<Answer, Box<dyn std::error::Error>> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if !body.is_empty() {
            request = request.header("content-type", media);
        }
        if let Some(token) = &self.token {
            request = request.header("x-auth-token", token);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body)).expect("a request of plain parts");
        let (parts, body) = self.http.request(request).await?.into_parts();
        let bytes = body.collect().await?.to_bytes();
        let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body: json, bytes })
    }

    /// A token by password; `scope` as the Identity API writes it, `Null` for none.
    pub async fn login(&self, user: &str, password: &str, scope: Value) -> Answer {
        let user = json!({"name": user, "domain": {"id": "default"}, "password": password});
        let mut auth = json!({"identity": {"methods": ["password"], "password": {"user": user}}});
        if !scope.is_null() {
            auth["scope"] = scope;
        }
        self.post("/identity/v3/auth/tokens", json!({ "auth": auth })).await
    }
    /// As [`Self::login`] in a project of the default domain, as a client with the token.
    pub async fn login_to(&self, user: &str, password: &str, project: &str) -> Self {
        let scope = json!({"project": {"name": project, "domain": {"id": "default"}}});
        let answer = self.login(user, password, scope).await.expect(201);
        Self { token: Some(answer.header("x-subject-token").to_owned()), ..self.clone() }
    }
}
