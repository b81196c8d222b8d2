//! OAuth 1.0 (Keystone api-ref, `OS-OAUTH1`): a user lets a third party act with some of its roles on one project.
//!
//! ```text
//! consumer ──POST request_token──▶ request token ──user: PUT authorize──▶ verifier ──POST access_token──▶ access token
//!    access token ──POST auth/tokens, method oauth1──▶ token, for as long as the user has the roles
//! ```
//! Consumers are made by administrators and known by their secrets. Whoever cannot sign is told nothing, not even what exists. A
//! signature is good for some minutes and once: its nonce is written in the transaction that it asks for.
use super::{allow, app_credentials, auth, ec2tokens::encode, forbidden, get, list, login, object, view};
use crate::{
    Auth,
    grants::{self, Target},
    resources::{CONSUMER, PROJECT, ROLE, USER},
    rows::{self, ACCESS_TOKENS, NONCES, REQUEST_TOKENS},
};
use api::{Access, Call, Error, Reply, Result, Route};
use auth::{Method, Methods};
use base::Timestamp;
use login::{Proof, refused};
use resource::engine;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::{sync::Arc, time::Duration};
use store::{Row, Tx};

mod signature;
use signature::{Signed, WINDOW};

/// From the request to the user's word.
const REQUEST_LIFETIME: Duration = Duration::from_secs(8 * 3600);
const ACCESS_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Old nonces that one request clears away.
const CLEARED: usize = 32;

pub(super) fn routes() -> Vec<Route> {
    let any = Access::Authenticated;
    let word = Access::Rule("identity:authorize_request_token", "any");
    let (tokens, token) =
        ("/v3/users/{user_id}/OS-OAUTH1/access_tokens", "/v3/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}");
    vec![
        Route::new("POST", "/v3/OS-OAUTH1/request_token", Access::Public, request_token),
        Route::new("PUT", "/v3/OS-OAUTH1/authorize/{request_token_id}", word, authorize),
        Route::new("POST", "/v3/OS-OAUTH1/access_token", Access::Public, access_token),
        Route::new("GET", tokens, any, all),
        Route::new("GET", token, any, show),
        Route::new("DELETE", token, any, delete),
        Route::new("GET", "/v3/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}/roles", any, roles),
        Route::new("GET", "/v3/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}/roles/{role_id}", any, role),
    ]
}

/// Rules of these handlers; their target is the user of the path.
pub(crate) const RULES: [(&str, &str); 5] = [
    ("identity:list_access_tokens", "rule:admin_or_self"),
    ("identity:get_access_token", "rule:admin_or_self"),
    ("identity:delete_access_token", "rule:admin_or_self"),
    ("identity:list_access_token_roles", "rule:admin_or_self"),
    ("identity:get_access_token_role", "rule:admin_or_self"),
];

fn no_signature(why: &str) -> Error {
    refused(format!("OAuth: {why}"))
}

/// A request that a consumer has signed.
struct Request {
    consumer: String,
    token: Option<String>,
    verifier: Option<String>,
    /// Of the nonce, under which it is remembered.
    nonce: String,
    at: Timestamp,
}

/// Where the client may have sent it: what it writes into the signature is what it was told.
fn urls(call: &Call) -> Vec<String> {
    let public = format!("{}{}", call.cx.public, call.path);
    let scheme = public.split("://").next().unwrap_or("http");
    let host = call.header("host").map(|host| format!("{scheme}://{host}/identity{}", call.path));
    let bare = |url: String| match url.split_once("://") {
        Some(("http", rest)) => format!("http://{}", rest.replacen(":80/", "/", 1)),
        Some(("https", rest)) => format!("https://{}", rest.replacen(":443/", "/", 1)),
        _ => url,
    };
    [Some(public), host].into_iter().flatten().map(bare).collect()
}

/// Reads and checks the signature; `secret_of` finds the secret of the token that it names.
fn signed(call: &Call, auth: &Auth, secret_of: &dyn Fn(&str, &str) -> Option<String>) -> Result<Request> {
    let header = call.header("authorization").and_then(Signed::parse);
    let header = header.ok_or_else(|| Error::bad_request("The header Authorization must be one of OAuth 1.0."))?;
    let need = |name: &str| header.get(name).ok_or_else(|| Error::bad_request(format!("Expecting to find {name} in request.")));
    let (consumer, nonce) = (need("oauth_consumer_key")?, need("oauth_nonce")?);
    let seconds = need("oauth_timestamp")?.parse::<i64>().map_err(|_| Error::bad_request("oauth_timestamp is not a number."))?;
    let at = Timestamp::from_unix(seconds);
    let row = call.reader().get(&CONSUMER.table, consumer).ok_or_else(|| no_signature("there is no such consumer"))?;
    let secret = auth.secret_box().open(&format!("consumer/{consumer}/secret"), row.text("sealed"));
    let secret = secret.map_err(|e| Error::internal(base::chain(&e)))?;
    let secret = String::from_utf8_lossy(&secret).into_owned();
    let token = header.get("oauth_token").map(str::to_owned);
    let token_secret = match &token {
        Some(token) => secret_of(consumer, token).ok_or_else(|| no_signature("there is no such token of this consumer"))?,
        None => String::new(),
    };
    if !header.fits(call.method, &urls(call), &call.cx.query.0, (&secret, &token_secret)) {
        return Err(no_signature("the signature is wrong"));
    }
    if (auth.now().unix() - at.unix()).abs() > WINDOW {
        return Err(no_signature("the signature is too old, or of the future"));
    }
    let digest = Sha256::digest(format!("{consumer}\n{}\n{nonce}\n{seconds}", token.as_deref().unwrap_or_default()));
    let nonce = digest.iter().take(16).map(|b| format!("{b:02x}")).collect();
    Ok(Request { consumer: consumer.to_owned(), token, verifier: header.get("oauth_verifier").map(str::to_owned), nonce, at })
}

/// Notes the nonce; fails when it was used before. Old ones go meanwhile.
fn once(tx: &mut Tx<'_>, nonce: &str, at: Timestamp) -> Result<()> {
    let end = |at: Timestamp| at.unix() + 2 * WINDOW;
    let now = tx.now.unix();
    let over: Vec<_> =
        tx.all(&NONCES).into_iter().filter(|r| r.field("until").as_i64().is_some_and(|t| t < now)).take(CLEARED).collect();
    for row in over {
        tx.delete(&NONCES, row.id());
    }
    let used = |_| no_signature("the signature was used before");
    tx.claim(&NONCES, nonce, json!({"until": end(at), "v": 1})).map_err(used)
}

fn owner(kind: &str, id: &str) -> String {
    format!("oauth1/{kind}/{id}")
}

/// The secret of a token of the consumer that is not over.
fn secret_of(call: &Call, auth: &Auth, table: &store::Table, kind: &str, consumer: &str, id: &str) -> Option<String> {
    let row = call.reader().get(table, id).filter(|r| r.text("consumer_id") == consumer)?;
    if row.field("expires_at").as_i64().is_none_or(|at| auth.now().0 >= at) {
        return None;
    }
    let secret = auth.secret_box().open(&owner(kind, id), row.text("sealed")).ok()?;
    Some(String::from_utf8_lossy(&secret).into_owned())
}

/// A new token and its secret, as the wire wants them.
struct Made {
    id: String,
    secret: String,
    sealed: String,
    expires_at: Timestamp,
}

impl Made {
    fn new(auth: &Auth, kind: &str, lifetime: Duration) -> Self {
        let (id, secret) = (base::id::hex(), super::random_secret());
        let sealed = auth.secret_box().seal(&owner(kind, &id), secret.as_bytes());
        Self { id, secret, sealed, expires_at: auth.now().plus(lifetime) }
    }
    fn reply(&self) -> Reply {
        // Clients take the time as it is, colons and all.
        let (token, secret, end) = (encode(&self.id), encode(&self.secret), self.expires_at.micros_z());
        let body = format!("oauth_token={token}&oauth_token_secret={secret}&oauth_expires_at={end}");
        Reply::text(201, "application/x-www-form-urlencoded", body)
    }
}

async fn request_token(call: Call) -> Result<Reply> {
    let auth = auth(&call)?;
    let project = call.header("requested-project-id").filter(|p| !p.is_empty());
    let project = project.ok_or_else(|| Error::bad_request("Expecting to find Requested-Project-Id in request."))?.to_owned();
    let request = signed(&call, &auth, &|_, _| None)?;
    let made = Made::new(&auth, "request", REQUEST_LIFETIME);
    let (id, row) = (
        made.id.clone(),
        json!({
            "consumer_id": request.consumer, "project_id": project, "sealed": made.sealed, "expires_at": made.expires_at.0, "v": 1,
        }),
    );
    call.transact(move |_, tx| {
        once(tx, &request.nonce, request.at)?;
        rows::project(tx, &project).ok_or_else(|| engine::not_found(PROJECT, &project))?;
        tx.put(&REQUEST_TOKENS, &id, row.clone());
        Ok(())
    })
    .await?;
    Ok(made.reply())
}

async fn authorize(call: Call) -> Result<Reply> {
    let caller = &call.cx.caller;
    if caller.is_delegated() {
        return Err(Error::forbidden("Cannot authorize a request token with a token issued via delegation."));
    }
    let list = call.object()?.get("roles").filter(|r| r.as_array().is_some_and(|l| !l.is_empty()));
    let list = list.ok_or_else(|| Error::bad_request("'roles' must be a list of roles, each with an id or a name."))?.clone();
    let (id, user) = (call.param("request_token_id").to_owned(), caller.user_id().to_owned());
    let verifier = super::random_secret();
    let shown = verifier.clone();
    call.transact(move |_, tx| {
        let lost = || Error::not_found(format!("Could not find request token: {id}."));
        let row = tx.get(&REQUEST_TOKENS, &id).ok_or_else(lost)?;
        if row.field("expires_at").as_i64().is_none_or(|at| tx.now.0 >= at) {
            return Err(lost());
        }
        let holder = grants::Holder::user(&user, tx.now);
        let given = grants::given(tx, holder, Target::Project, row.text("project_id"));
        let held = grants::expand(tx, given);
        // Whoever has nothing to do with the project learns nothing of what is asked for it.
        if held.is_empty() {
            return Err(lost());
        }
        let authorized = !row.text("user_id").is_empty();
        if authorized && row.text("user_id") != user {
            return Err(forbidden("authorize_request_token"));
        }
        let wanted = app_credentials::role_ids(tx, &list)?;
        if !wanted.iter().all(|id| held.contains(id)) {
            return Err(Error::unauthorized("authorizing user does not have role required"));
        }
        let mut row = object(&row)?.clone();
        let more = json!({"user_id": user, "role_ids": wanted, "verifier_hash": hash(&verifier)});
        row.extend(more.as_object().cloned().unwrap_or_default());
        tx.put(&REQUEST_TOKENS, &id, row.into());
        Ok(())
    })
    .await?;
    Ok(Reply::ok(json!({"token": {"oauth_verifier": shown}})))
}

/// What is not to be read in the store.
fn hash(text: &str) -> String {
    super::credentials::access_hash(text)
}

async fn access_token(call: Call) -> Result<Reply> {
    let auth = auth(&call)?;
    let find = |consumer: &str, id: &str| secret_of(&call, &auth, &REQUEST_TOKENS, "request", consumer, id);
    let request = signed(&call, &auth, &find)?;
    let need = |value: Option<String>, name: &str| {
        value.ok_or_else(|| Error::bad_request(format!("Expecting to find {name} in request.")))
    };
    let token = need(request.token, "oauth_token")?;
    let verifier = hash(&need(request.verifier, "oauth_verifier")?);
    let made = Made::new(&auth, "access", ACCESS_LIFETIME);
    let (id, sealed, end) = (made.id.clone(), made.sealed.clone(), made.expires_at.0);
    call.transact(move |_, tx| {
        once(tx, &request.nonce, request.at)?;
        let row = tx.get(&REQUEST_TOKENS, &token).ok_or_else(|| no_signature("the request token was used"))?;
        let right = !row.text("user_id").is_empty() && row.text("verifier_hash") == verifier;
        if !right {
            return Err(no_signature("the request token is not authorized, or the verifier is wrong"));
        }
        let access = json!({
            "consumer_id": row.text("consumer_id"), "project_id": row.text("project_id"), "user_id": row.text("user_id"),
            "role_ids": row.field("role_ids"), "sealed": sealed, "expires_at": end, "v": 1,
        });
        tx.put(&ACCESS_TOKENS, &id, access);
        tx.delete(&REQUEST_TOKENS, &token);
        Ok(())
    })
    .await?;
    Ok(made.reply())
}

/// The method `oauth1`: a request for a token that a consumer has signed with an access token.
pub(super) async fn by_oauth1(call: &Call, auth: &Auth) -> Result<Proof> {
    let find = |consumer: &str, id: &str| secret_of(call, auth, &ACCESS_TOKENS, "access", consumer, id);
    let request = signed(call, auth, &find)?;
    let token = request.token.ok_or_else(|| Error::bad_request("Expecting to find oauth_token in request."))?;
    let row = call.reader().get(&ACCESS_TOKENS, &token).ok_or_else(|| no_signature("the access token is gone"))?;
    call.transact(move |_, tx| once(tx, &request.nonce, request.at)).await?;
    let methods = Methods::default().with(Method::OAuth1);
    Ok(Proof { user_id: row.text("user_id").to_owned(), methods, access_token: Some(row), ..Proof::default() })
}

fn shown(call: &Call, row: &Row) -> Value {
    let here = format!("{}/v3/users/{}/OS-OAUTH1/access_tokens/{}", call.cx.public, row.text("user_id"), row.id());
    let end = row.field("expires_at").as_i64().map(|at| Timestamp(at).micros_z());
    json!({
        "id": row.id(), "consumer_id": row.text("consumer_id"), "project_id": row.text("project_id"),
        "authorizing_user_id": row.text("user_id"), "expires_at": end, "links": {"self": here, "roles": format!("{here}/roles")},
    })
}

fn admitted(call: &Call, action: &str) -> Result<()> {
    let asked = json!({"user_id": call.param("user_id")});
    allow(call, action, asked.as_object())?;
    if call.cx.caller.is_delegated() {
        return Err(Error::forbidden("Cannot list request tokens with a token issued via delegation."));
    }
    Ok(())
}

async fn all(call: Call) -> Result<Reply> {
    admitted(&call, "list_access_tokens")?;
    get(&call.reader(), USER, call.param("user_id"))?;
    let found = call.reader().find(&ACCESS_TOKENS, "user_id", call.param("user_id"));
    Ok(list(&call, "access_tokens", found.iter().map(|r| shown(&call, r)).collect()))
}

fn find(call: &Call, action: &str) -> Result<Arc<Row>> {
    admitted(call, action)?;
    let id = call.param("access_token_id");
    let row = call.reader().get(&ACCESS_TOKENS, id).filter(|r| r.text("user_id") == call.param("user_id"));
    row.ok_or_else(|| Error::not_found(format!("Could not find access token: {id}.")))
}

async fn show(call: Call) -> Result<Reply> {
    let row = find(&call, "get_access_token")?;
    Ok(Reply::ok(json!({"access_token": shown(&call, &row)})))
}

async fn delete(call: Call) -> Result<Reply> {
    let id = find(&call, "delete_access_token")?.id().to_owned();
    call.transact(move |_, tx| {
        tx.delete(&ACCESS_TOKENS, &id);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

fn role_ids(row: &Row) -> impl Iterator<Item = &str> {
    row.field("role_ids").as_array().into_iter().flatten().filter_map(Value::as_str)
}

async fn roles(call: Call) -> Result<Reply> {
    let row = find(&call, "list_access_token_roles")?;
    let reader = call.reader();
    let shown = role_ids(&row).filter_map(|id| get(&reader, ROLE, id).ok()).map(|r| view(ROLE, &r, &call, &reader)).collect();
    Ok(list(&call, "roles", shown))
}

async fn role(call: Call) -> Result<Reply> {
    let row = find(&call, "get_access_token_role")?;
    let wanted = call.param("role_id");
    if !role_ids(&row).any(|id| id == wanted) {
        return Err(engine::not_found(ROLE, wanted));
    }
    let reader = call.reader();
    Ok(Reply::ok(json!({"role": view(ROLE, &get(&reader, ROLE, wanted)?, &call, &reader)})))
}
