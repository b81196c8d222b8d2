//! The key manager of the catalog (Barbican's API v1), asked with the caller's token, as castellan asks it.
//!
//! Its address is the operator's word, never the user's, who gives a UUID alone.
use super::Unverified;
use crate::Options;
use api::Call;
use serde::Deserialize;
use std::collections::HashMap;
use store::Row;
use tokio::time::timeout;
use web::{
    call::{Question, ask},
    fetch::Rules,
};

const TYPE: &str = "key-manager";
/// Interfaces of an endpoint that is used, castellan's default first.
const INTERFACES: [&str; 2] = ["public", "internal"];
/// Bytes of the longest answer.
const MOST: usize = 64 << 10;

/// Where it is, if the operator registered one for this region or for all.
pub(super) fn address(call: &Call) -> Option<String> {
    let table = |name: &str| call.cx.registry.get(name).ok().map(|def| &def.table);
    let (services, endpoints) = (table("identity/services")?, table("identity/endpoints")?);
    let on = |row: &Row| row.field("enabled").as_bool().unwrap_or(true);
    let reader = call.reader();
    let of_service = reader.find(services, "type", TYPE).into_iter().filter(|service| on(service));
    let all: Vec<_> = of_service.flat_map(|service| reader.find(endpoints, "service_id", service.id())).collect();
    let rank = |row: &Row| {
        let interface = INTERFACES.iter().position(|name| row.text("interface") == *name)?;
        match row.field("region_id").as_str() {
            Some(region) => (region == call.cx.settings.region).then_some((0, interface)),
            None => Some((1, interface)),
        }
    };
    let known = all.iter().filter(|row| on(row)).filter_map(|row| Some((rank(row)?, row.text("url"))));
    let (_, url) = known.min()?;
    let url = url.trim_end_matches('/');
    Some(url.strip_suffix("/v1").unwrap_or(url).to_owned())
}

/// What it says of a secret.
#[derive(Deserialize)]
struct Secret {
    #[serde(default)]
    secret_type: String,
    #[serde(default)]
    content_types: Option<HashMap<String, String>>,
}

/// The payload of a secret of type `certificate`.
pub(super) async fn certificate(options: &Options, call: &Call, id: &str) -> Result<Vec<u8>, Unverified> {
    let secret = format!("{}/v1/secrets/{id}", address(call).ok_or(Unverified::NoKeyManager)?);
    let within = options.certificate_within;
    let work = async {
        let told = get(options, call, id, &secret, "application/json").await?;
        let unclear = |what| Unverified::NotUnderstood { id: id.to_owned(), what };
        let told: Secret = serde_json::from_slice(&told).map_err(|_| unclear("it is not the JSON of a secret"))?;
        if told.secret_type != "certificate" {
            return Err(Unverified::Format { what: "the secret's type in the key manager is not certificate" });
        }
        let media = told.content_types.as_ref().and_then(|types| types.get("default"));
        let media = media.ok_or_else(|| unclear("the secret has no payload"))?;
        if media.len() > 100 || media.contains(|c: char| c.is_control() || !c.is_ascii()) {
            return Err(unclear("the media type of its payload is none"));
        }
        get(options, call, id, &format!("{secret}/payload"), media).await
    };
    timeout(within, work).await.map_err(|_| Unverified::Late { id: id.to_owned(), within })?
}

async fn get(options: &Options, call: &Call, id: &str, url: &str, accept: &str) -> Result<Vec<u8>, Unverified> {
    let unasked = |source| Unverified::Unasked { id: id.to_owned(), source };
    let token = call.header("x-auth-token").unwrap_or_default();
    let headers = vec![("accept", accept.to_owned()), ("x-auth-token", token.to_owned())];
    let rules = Rules::of_operator(url, options.trust.clone()).map_err(unasked)?;
    let question = Question { method: "GET", url, headers, body: String::new() };
    let answer = ask(question, &rules, MOST).await.map_err(unasked)?;
    match answer.status {
        200 => Ok(answer.body),
        404 => Err(Unverified::NoCertificate { id: id.to_owned() }),
        status => Err(Unverified::Answered { id: id.to_owned(), status }),
    }
}
