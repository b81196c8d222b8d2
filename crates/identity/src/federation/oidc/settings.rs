//! How a protocol speaks OpenID Connect: the object `oidc` of its row. What upstream puts into the configuration of Apache is here beside
//! what it is for.
use api::{Error, Map, Result};
use auth::SecretBox;
use serde_json::{Value, json};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// A provider, and what we are to it.
pub(crate) struct Settings {
    /// As tokens name it; its metadata are below.
    pub(crate) issuer: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: Option<Zeroizing<String>>,
    /// Who access tokens may be meant for.
    pub(crate) audiences: Vec<String>,
    /// Ask the provider about every access token (RFC 7662), also about those that could be judged by their signature.
    pub(crate) introspection: bool,
    /// What a login in the browser asks for.
    pub(crate) scopes: String,
    /// The authorities of its certificate, when they are not the machine's.
    pub(crate) ca_file: Option<PathBuf>,
}

fn wrong(name: &str, why: &str) -> Error {
    Error::bad_request(format!("Invalid input for field 'oidc.{name}': {why}."))
}

fn text<'a>(map: &'a Map, name: &str) -> Result<Option<&'a str>> {
    match map.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(s)) if !s.is_empty() && s.len() <= 1024 && !s.contains(char::is_control) => Ok(Some(s)),
        Some(_) => Err(wrong(name, "it is not a string of 1 to 1024 characters")),
    }
}

/// Fails with 400 unless it can be used.
pub(crate) fn check(oidc: &Value) -> Result<()> {
    let map = oidc.as_object().ok_or_else(|| Error::bad_request("Invalid input for field 'oidc': it is not an object."))?;
    let known = ["issuer", "client_id", "client_secret", "audiences", "introspection", "scopes", "tls_cacertfile"];
    if let Some(key) = map.keys().find(|k| !known.contains(&k.as_str())) {
        return Err(wrong(key, &format!("it is not one of {}", known.join(", "))));
    }
    let issuer = text(map, "issuer")?.ok_or_else(|| wrong("issuer", "it is required"))?;
    if super::address::of(issuer).is_none() || issuer.contains(['?', '#', ' ']) {
        return Err(wrong("issuer", "it is not a URL such as https://idp.example.org/realms/cloud"));
    }
    text(map, "client_id")?.ok_or_else(|| wrong("client_id", "it is required"))?;
    for name in ["client_secret", "scopes", "tls_cacertfile"] {
        text(map, name)?;
    }
    if map.get("introspection").is_some_and(|v| !v.is_boolean()) {
        return Err(wrong("introspection", "it is not a boolean"));
    }
    let audiences = map.get("audiences").filter(|v| !v.is_null());
    if audiences.is_some_and(|v| v.as_array().is_none_or(|l| l.is_empty() || l.iter().any(|a| !a.is_string()))) {
        return Err(wrong("audiences", "it is not a list of strings"));
    }
    Ok(())
}

fn owner(protocol: &str) -> String {
    format!("federation/{protocol}/client_secret")
}

/// Puts the secret out of sight. `protocol` is the key of the protocol's row.
pub(crate) fn seal(oidc: &mut Value, protocol: &str, secrets: &SecretBox) {
    if let Some(secret) = oidc.get_mut("client_secret")
        && let Some(text) = secret.as_str()
    {
        *secret = json!({"sealed": secrets.seal(&owner(protocol), text.as_bytes())});
    }
}

/// As the API shows it.
pub(crate) fn shown(oidc: &Value) -> Value {
    let mut out = oidc.clone();
    if let Some(map) = out.as_object_mut() {
        map.shift_remove("client_secret");
    }
    out
}

impl Settings {
    /// Of a row that was checked when it was written. `None`: its secret cannot be opened.
    pub(crate) fn read(oidc: &Value, protocol: &str, secrets: &SecretBox) -> Option<Self> {
        let text = |name: &str| oidc.get(name).and_then(Value::as_str).map(str::to_owned);
        let client_secret = match oidc.get("client_secret").and_then(|s| s.get("sealed")).and_then(Value::as_str) {
            Some(sealed) => {
                let opened = secrets.open(&owner(protocol), sealed).ok()?;
                Some(Zeroizing::new(String::from_utf8(opened.to_vec()).ok()?))
            }
            None => None,
        };
        let client_id = text("client_id")?;
        let audiences = oidc.get("audiences").and_then(Value::as_array);
        let audiences = audiences.map(|l| l.iter().filter_map(|a| a.as_str().map(str::to_owned)).collect());
        Some(Self {
            issuer: text("issuer")?,
            client_secret,
            audiences: audiences.unwrap_or_else(|| vec![client_id.clone()]),
            client_id,
            introspection: oidc.get("introspection") == Some(&Value::Bool(true)),
            scopes: text("scopes").unwrap_or_else(|| "openid email profile".to_owned()),
            ca_file: text("tls_cacertfile").map(PathBuf::from),
        })
    }
}
