//! One provider as we ask it: metadata, keys, about tokens, and for those of a login. What it publishes is kept for a while; every
//! question has a deadline, few are under way at once, and one that failed is not repeated at once.
use super::{
    address,
    jws::{self, Keys, Refused, Wanted, texts},
    settings::Settings,
};
use api::Map;
use base::Timestamp;
use ipnet::IpNet;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Mutex as Turn, Semaphore},
    time::{Instant, timeout},
};
use web::{
    Trust,
    call::{Question, ask},
    fetch::Rules,
};

/// For one question.
const DEADLINE: Duration = Duration::from_secs(5);
/// Questions to one provider at once.
const AT_ONCE: usize = 8;
/// How long what is published is believed to be so.
const FRESH: Duration = Duration::from_secs(600);
/// Keys are fetched for a signature that is by none of those that are known, at most this often.
const KEYS_AGAIN: Duration = Duration::from_secs(10);
/// How long a provider that did not answer is left alone.
const PAUSE: Duration = Duration::from_secs(1);
const MOST: usize = 256 * 1024;

/// Why a provider's word could not be had, or does not count.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("the token does not count")]
    Refused(#[from] Refused),
    #[error("the provider says that the token is not active")]
    NotActive,
    #[error("the provider does not say that it is an access token that its bearer may use")]
    NotBearer,
    #[error("the provider refused the code: {0}")]
    Code(String),
    #[error("the provider could not be asked for {what}")]
    Web { what: &'static str, source: web::Error },
    #[error("{0} is not https; only networks that --federation-network names are asked without TLS")]
    Insecure(String),
    #[error("the provider answered {status} when it was asked for {what}")]
    Status { what: &'static str, status: u16 },
    #[error("the provider's {0} is not JSON as it should be")]
    Malformed(&'static str),
    #[error("the metadata are those of {0}")]
    OtherIssuer(String),
    #[error("the provider publishes no {0}")]
    Missing(&'static str),
    #[error("the provider did not answer in {0:?}")]
    Late(Duration),
    #[error("too many questions to the provider are under way")]
    Busy,
    #[error("the provider did not answer a moment ago")]
    Paused,
}

impl Fault {
    /// Is it about the token, and not about the provider?
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::NotActive | Self::NotBearer | Self::Code(_))
    }
}

/// A login in a browser that is under way.
pub(crate) struct Login<'a> {
    pub(crate) redirect_uri: &'a str,
    pub(crate) nonce: &'a str,
    pub(crate) verifier: &'a str,
}

type Kept<T> = Turn<Option<(Instant, Arc<T>)>>;

pub(crate) struct Provider {
    pub(crate) settings: Settings,
    networks: Vec<IpNet>,
    trust: Trust,
    slots: Semaphore,
    metadata: Kept<Map>,
    keys: Kept<Keys>,
    paused: Mutex<Option<Instant>>,
}

/// `application/x-www-form-urlencoded`
fn form(pairs: &[(&str, &str)]) -> String {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    pairs.iter().map(|(k, v)| format!("{k}={}", encode(v))).collect::<Vec<_>>().join("&")
}

/// Is it something else that the provider signs for its clients, or a token that only the holder of a key may use?
fn is_of_another_kind(claims: &Map) -> bool {
    let others = ["ID", "Refresh", "Offline", "Logout"];
    let of_others = claims.get("typ").and_then(Value::as_str).is_some_and(|t| others.contains(&t));
    of_others || ["at_hash", "c_hash", "events", "cnf"].iter().any(|name| claims.contains_key(*name))
}

impl Provider {
    pub(crate) fn new(settings: Settings, networks: Vec<IpNet>) -> Self {
        Self {
            trust: Trust::new(settings.ca_file.clone(), None),
            settings,
            networks,
            slots: Semaphore::new(AT_ONCE),
            metadata: Turn::default(),
            keys: Turn::default(),
            paused: Mutex::default(),
        }
    }

    fn pause(&self) {
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + PAUSE);
    }

    /// Asks; what comes back is JSON, with its status.
    async fn json(&self, what: &'static str, question: Question<'_>) -> Result<(u16, Map), Fault> {
        if !address::is_safe(question.url, &self.networks) {
            return Err(Fault::Insecure(question.url.to_owned()));
        }
        let paused = *self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        if paused.is_some_and(|until| Instant::now() < until) {
            return Err(Fault::Paused);
        }
        let ports = address::of(question.url).map(|a| a.port).into_iter().collect();
        let rules = Rules { allow: self.networks.clone(), ports, trust: self.trust.clone() };
        let slot = timeout(DEADLINE, self.slots.acquire()).await.map_err(|_| Fault::Busy)?;
        let _slot = slot.map_err(|_| Fault::Busy)?;
        let answer = match timeout(DEADLINE, ask(question, &rules, MOST)).await {
            Ok(Ok(answer)) => answer,
            failed => {
                self.pause();
                return Err(match failed {
                    Ok(Err(source)) => Fault::Web { what, source },
                    _ => Fault::Late(DEADLINE),
                });
            }
        };
        let map = serde_json::from_slice(&answer.body).map_err(|_| match answer.status {
            200 => Fault::Malformed(what),
            status => Fault::Status { what, status },
        })?;
        Ok((answer.status, map))
    }

    /// What the provider publishes; when that is nothing, it is not asked for again at once.
    async fn published(&self, what: &'static str, url: &str) -> Result<Map, Fault> {
        let got = self.good(what, Question { method: "GET", url, headers: Vec::new(), body: String::new() }).await;
        if matches!(got, Err(Fault::Status { .. } | Fault::Malformed(_))) {
            self.pause();
        }
        got
    }

    async fn good(&self, what: &'static str, question: Question<'_>) -> Result<Map, Fault> {
        match self.json(what, question).await? {
            (200, map) => Ok(map),
            (status, _) => Err(Fault::Status { what, status }),
        }
    }

    async fn metadata(&self) -> Result<Arc<Map>, Fault> {
        let mut kept = self.metadata.lock().await;
        if let Some((_, metadata)) = kept.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(metadata.clone());
        }
        let url = format!("{}/.well-known/openid-configuration", self.settings.issuer.trim_end_matches('/'));
        let map = self.published("metadata", &url).await?;
        let issuer = map.get("issuer").and_then(Value::as_str).unwrap_or_default();
        if issuer != self.settings.issuer {
            self.pause();
            return Err(Fault::OtherIssuer(issuer.chars().take(200).collect()));
        }
        let map = Arc::new(map);
        *kept = Some((Instant::now(), map.clone()));
        Ok(map)
    }

    async fn endpoint(&self, name: &'static str) -> Result<String, Fault> {
        let metadata = self.metadata().await?;
        metadata.get(name).and_then(Value::as_str).map(str::to_owned).ok_or(Fault::Missing(name))
    }

    /// The provider's keys, no older than `within`.
    async fn keys(&self, within: Duration) -> Result<Arc<Keys>, Fault> {
        let url = self.endpoint("jwks_uri").await?;
        let mut kept = self.keys.lock().await;
        if let Some((_, keys)) = kept.as_ref().filter(|(at, _)| at.elapsed() < within) {
            return Ok(keys.clone());
        }
        let set = self.published("keys", &url).await?;
        let keys = Arc::new(Keys::read(&set.into()));
        *kept = Some((Instant::now(), keys.clone()));
        Ok(keys)
    }

    async fn signed(&self, token: &str) -> Result<Map, Fault> {
        let opened = jws::open(token, self.keys(FRESH).await?.as_ref());
        match opened {
            // The provider may have a new key, even one that is called as an old one or not at all.
            Err(Refused::UnknownKey | Refused::Signature) => Ok(jws::open(token, self.keys(KEYS_AGAIN).await?.as_ref())?),
            opened => Ok(opened?),
        }
    }

    /// Who we are, to the provider.
    fn credentials(&self) -> Vec<(&'static str, String)> {
        use base64::Engine as _;
        let mut out = vec![("content-type", "application/x-www-form-urlencoded".to_owned())];
        if let Some(secret) = &self.settings.client_secret {
            let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            let pair = format!("{}:{}", encode(&self.settings.client_id), encode(secret));
            out.push(("authorization", format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))));
        }
        out
    }

    /// The claims of an access token that a client shows us.
    pub(crate) async fn bearer(&self, token: &str, now: Timestamp) -> Result<Map, Fault> {
        if token.len() > jws::LONGEST || token.contains(|c: char| !c.is_ascii_graphic()) {
            return Err(Refused::Malformed.into());
        }
        let ask_about = self.settings.introspection || !jws::is_signed(token);
        if ask_about && self.settings.client_secret.is_none() {
            return Err(Refused::Malformed.into());
        }
        if ask_about {
            return self.introspect(token, now).await;
        }
        let claims = self.signed(token).await?;
        jws::check(&claims, &Wanted { issuer: &self.settings.issuer, audiences: &self.settings.audiences, nonce: None, now })?;
        if is_of_another_kind(&claims) {
            return Err(Fault::NotBearer);
        }
        Ok(claims)
    }

    async fn introspect(&self, token: &str, now: Timestamp) -> Result<Map, Fault> {
        let url = self.endpoint("introspection_endpoint").await?;
        let body = form(&[("token", token), ("token_type_hint", "access_token")]);
        let mut claims = self.good("a token", Question { method: "POST", url: &url, headers: self.credentials(), body }).await?;
        if claims.get("active") != Some(&Value::Bool(true)) {
            return Err(Fault::NotActive);
        }
        let says =
            |name: &str, wanted: &str| claims.get(name).and_then(Value::as_str).is_some_and(|t| t.eq_ignore_ascii_case(wanted));
        let named = says("token_type", "Bearer") || says("token_use", "access_token") || says("typ", "Bearer");
        if !named || is_of_another_kind(&claims) {
            return Err(Fault::NotBearer);
        }
        // It comes from the provider itself; what it says must still be about us.
        let issuer = claims.entry("iss").or_insert_with(|| self.settings.issuer.as_str().into());
        if issuer != self.settings.issuer.as_str() {
            return Err(Refused::Issuer(issuer.to_string()).into());
        }
        let mut meant = texts(&claims, "aud");
        if meant.is_empty() {
            meant = texts(&claims, "client_id");
        }
        if !meant.iter().any(|m| self.settings.audiences.iter().any(|a| a == m)) {
            return Err(Refused::Audience.into());
        }
        if claims.contains_key("exp") {
            jws::check_times(&claims, now)?;
        }
        Ok(claims)
    }

    /// Where a browser goes to log in.
    pub(crate) async fn authorize(&self, login: &Login<'_>, state: &str) -> Result<String, Fault> {
        use base64::Engine as _;
        use sha2::{Digest as _, Sha256};
        let endpoint = self.endpoint("authorization_endpoint").await?;
        if address::of(&endpoint).is_none() || endpoint.contains(|c: char| !c.is_ascii_graphic()) {
            return Err(Fault::Malformed("authorization_endpoint"));
        }
        let challenge = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(Sha256::digest(login.verifier));
        let query = form(&[
            ("response_type", "code"),
            ("client_id", &self.settings.client_id),
            ("redirect_uri", login.redirect_uri),
            ("scope", &self.settings.scopes),
            ("state", state),
            ("nonce", login.nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ]);
        let with = if endpoint.contains('?') { '&' } else { '?' };
        Ok(format!("{endpoint}{with}{query}"))
    }

    /// The claims of a login that ended with a code.
    pub(crate) async fn exchange(&self, code: &str, login: &Login<'_>, now: Timestamp) -> Result<Map, Fault> {
        let url = self.endpoint("token_endpoint").await?;
        let mut pairs = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", login.redirect_uri),
            ("code_verifier", login.verifier),
        ];
        if self.settings.client_secret.is_none() {
            pairs.push(("client_id", &self.settings.client_id));
        }
        let question = Question { method: "POST", url: &url, headers: self.credentials(), body: form(&pairs) };
        let (status, tokens) = self.json("tokens", question).await?;
        let text = |name: &str| tokens.get(name).and_then(Value::as_str);
        if status == 400 {
            return Err(Fault::Code(text("error").unwrap_or("no reason").chars().take(100).collect()));
        }
        let id_token = text("id_token").filter(|_| status == 200).ok_or(Fault::Status { what: "tokens", status })?;
        let mut claims = self.signed(id_token).await?;
        let audiences = [self.settings.client_id.clone()];
        jws::check(&claims, &Wanted { issuer: &self.settings.issuer, audiences: &audiences, nonce: Some(login.nonce), now })?;
        // Whom it was given to, where that is not clear or is said.
        let by = claims.get("azp");
        if (by.is_some() || texts(&claims, "aud").len() > 1) && by.and_then(Value::as_str) != Some(&self.settings.client_id) {
            return Err(Refused::Audience.into());
        }
        if let (Some(access), Ok(url)) = (text("access_token"), self.endpoint("userinfo_endpoint").await) {
            let headers = vec![("authorization", format!("Bearer {access}"))];
            let more = self.good("user information", Question { method: "GET", url: &url, headers, body: String::new() }).await?;
            // It is about another, or about nobody: then it counts for nothing.
            if more.get("sub") != claims.get("sub") {
                return Err(Refused::Subject.into());
            }
            for (name, value) in more {
                claims.entry(name).or_insert(value);
            }
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests;
