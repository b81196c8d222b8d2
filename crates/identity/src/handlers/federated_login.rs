//! Logins of those for whom a provider vouches: with its access token, or by way of the browser.
//!
//! ```text
//! Authorization: Bearer TOKEN ----------------------------------------------------> claims -> mapping -> user -> unscoped token
//! browser -> websso?origin= -> provider -> websso?code=&state= (cookie) -> tokens ---^                        \-> page that posts it
//! ```
//! What a login in the browser must remember is sealed into its `state`, so that any process can end it; the cookie says that it is the
//! same browser, so that nobody can make another's browser end a login that they began.
use super::{auth, factors, login, object};
use crate::{
    Auth,
    authenticator::Known,
    bootstrap::context,
    federation::{
        mapping::evaluate,
        oidc::{self, Login},
        protocol_key, rules,
        shadow::{Arrived, Origin, arrive, check_enabled},
    },
    resources::{IDENTITY_PROVIDER, MAPPING, USER, find_identity_provider},
    rows::PROTOCOLS,
};
use api::{Access, Call, Error, Map, Reply, Result, Route};
use auth::{Method, Methods};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

pub(super) fn routes() -> Vec<Route> {
    let auth = "/v3/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}/auth";
    let one = "/v3/auth/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}/websso";
    let any = "/v3/auth/OS-FEDERATION/websso/{protocol_id}";
    ["GET", "POST"]
        .into_iter()
        .flat_map(|method| {
            [
                Route::new(method, auth, Access::Public, by_token).created(201),
                Route::new(method, one, Access::Public, |call: Call| async move {
                    let idp = call.param("idp_id").to_owned();
                    browser(call, idp).await
                }),
                Route::new(method, any, Access::Public, |call: Call| async move {
                    let idp = only_provider(&call)?;
                    browser(call, idp).await
                }),
            ]
        })
        .collect()
}

/// How long somebody may take to log in at the provider.
const PATIENCE: Duration = Duration::from_secs(600);
const COOKIE: &str = "drover_websso";

/// Fails with 404 for a provider that does not exist, 403 for one that is disabled.
fn provider(call: &Call, auth: &Auth, idp: &str) -> Result<Arc<oidc::Provider>> {
    check_enabled(find_identity_provider(&mut &call.reader(), idp)?.as_ref())?;
    auth.providers.of(auth, idp, call.param("protocol_id"))
}

async fn by_token(call: Call) -> Result<Reply> {
    let auth = auth(&call)?;
    let idp = call.param("idp_id").to_owned();
    let provider = provider(&call, &auth, &idp)?;
    let header = call.header("authorization").and_then(|h| h.split_once(' '));
    let token = header.filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
    let token = token.ok_or_else(|| login::refused("there is no bearer token"))?;
    let claims = provider.bearer(token, auth.now()).await.map_err(|f| oidc::failed(&idp, &f))?;
    let (text, known) = enter(&call, &auth, &idp, &claims).await?;
    Ok(login::reply(&call, &auth, text, &known))
}

/// From claims to a token.
async fn enter(call: &Call, auth: &Auth, idp: &str, claims: &Map) -> Result<(String, Arc<Known>)> {
    let protocol = call.param("protocol_id").to_owned();
    let mapped = {
        let reader = call.reader();
        let row = find_identity_provider(&mut &reader, idp)?;
        let names = row.field("remote_ids").as_array().map(Vec::as_slice).unwrap_or_default();
        let issuer = claims.get("iss");
        if !names.is_empty() && !names.iter().any(|n| Some(n) == issuer) {
            return Err(Error::forbidden("Incoming identity provider identifier not included among the accepted identifiers."));
        }
        let protocol =
            reader.get(&PROTOCOLS, &protocol_key(idp, &protocol)).ok_or_else(|| login::refused("the protocol is gone"))?;
        let id = protocol.text("mapping_id");
        let mapping = reader.get(&MAPPING.table, id).ok_or_else(|| resource::engine::not_found(MAPPING, id))?;
        let rules = rules::read(mapping.field("rules"), mapping.text("schema_version"))?;
        let honours_domain = mapping.text("schema_version") != "1.0";
        evaluate(&rules, honours_domain, &oidc::assertion(claims)).map_err(|e| login::refused(e.to_string()))?
    };
    let from = Origin { idp_id: idp.to_owned(), protocol_id: protocol.clone(), remote_user: oidc::remote_user(claims) };
    let cx = context(&call.cloud, &call.cx.request_id);
    let arrived = call.transact(move |_, tx| arrive(tx, &cx, &from, &mapped)).await?;
    let method = match Method::parse(&protocol) {
        Some(m @ (Method::OpenId | Method::Saml2 | Method::Kerberos | Method::X509)) => m,
        // A name does not make it another kind of proof.
        _ => Method::Mapped,
    };
    token_for(auth, arrived, Methods::default().with(method)).await
}

/// An unscoped token of somebody for whom a provider vouches. A user of ours whose options ask for more must prove that another way.
async fn token_for(auth: &Auth, who: Arrived, methods: Methods) -> Result<(String, Arc<Known>)> {
    let user = auth.db.read().get(&USER.table, &who.user_id).ok_or_else(|| login::refused("there is no such user"))?;
    if auth.is_inactive(object(&user)?, &auth.db.read()) {
        return Err(login::refused("nobody has used the account for too long"));
    }
    if !factors::enough(methods, user.field("options")) {
        return Err(login::refused("the user must prove more than that"));
    }
    if !auth.note_login(&user, false).await? {
        return Err(login::refused("the account was locked meanwhile"));
    }
    let mut token = login::blank(auth, &who.user_id, methods);
    token.issued_at.0 = token.issued_at.0.max(who.since).max(user.field("tokens_after").as_i64().unwrap_or_default());
    token.federation = who.federation;
    login::seal(auth, &token)
}

/// The one provider that speaks the protocol, for logins that name none.
fn only_provider(call: &Call) -> Result<String> {
    let reader = call.reader();
    let speaks = |row: &&Arc<store::Row>| {
        let enabled = row.field("enabled") == true;
        let protocol = reader.get(&PROTOCOLS, &protocol_key(row.id(), call.param("protocol_id")));
        enabled && protocol.is_some_and(|p| p.field("oidc").is_object())
    };
    let mut found = reader.all(&IDENTITY_PROVIDER.table).filter(speaks);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one.id().to_owned()),
        (None, _) => Err(Error::not_found("No identity provider that is enabled has this protocol.")),
        (Some(_), Some(_)) => {
            Err(Error::bad_request("Several identity providers have this protocol; use the URL of one of them."))
        }
    }
}

/// What a login in the browser remembers.
#[derive(Serialize, Deserialize)]
struct State {
    idp: String,
    protocol: String,
    origin: String,
    nonce: String,
    verifier: String,
    /// Of the browser's cookie.
    cookie: String,
    until: i64,
}

const SEALED_FOR: &str = "federation/websso";

/// Where the provider sends the browser back to; it must know this URL.
fn redirect_uri(call: &Call, idp: &str) -> String {
    format!("{}/v3/auth/OS-FEDERATION/identity_providers/{idp}/protocols/{}/websso", call.cx.public, call.param("protocol_id"))
}

async fn browser(call: Call, idp: String) -> Result<Reply> {
    let auth = auth(&call)?;
    let query = &call.cx.query;
    if query.get("code").is_some() || query.get("error").is_some() {
        return come_back(&call, &auth, &idp).await;
    }
    let origin = query.get("origin").ok_or_else(|| Error::bad_request("Request must have an origin query parameter"))?;
    if !auth.config.federation.trusted_dashboards.iter().any(|t| t == origin) {
        return Err(Error::unauthorized(format!("{origin} is not a trusted dashboard host")));
    }
    let provider = provider(&call, &auth, &idp)?;
    let state = State {
        idp: idp.clone(),
        protocol: call.param("protocol_id").to_owned(),
        origin: origin.to_owned(),
        nonce: super::random_secret(),
        verifier: super::random_secret(),
        cookie: super::random_secret(),
        until: auth.now().plus(PATIENCE).0,
    };
    let text = serde_json::to_string(&state).map_err(|e| Error::internal(e.to_string()))?;
    let sealed = auth.secret_box().seal(SEALED_FOR, text.as_bytes());
    let uri = redirect_uri(&call, &idp);
    let login = Login { redirect_uri: &uri, nonce: &state.nonce, verifier: &state.verifier };
    let to = provider.authorize(&login, &sealed).await.map_err(|f| oidc::failed(&idp, &f))?;
    let secure = if call.cx.public.starts_with("https:") { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={}; Path=/; Max-Age={}; HttpOnly; SameSite=Lax{secure}", state.cookie, PATIENCE.as_secs());
    Ok(Reply::empty(302).header("location", to).header("set-cookie", cookie).header("cache-control", "no-store"))
}

fn open_state(call: &Call, auth: &Auth) -> Result<State> {
    let sealed = call.cx.query.get("state").unwrap_or_default();
    let opened = auth.secret_box().open(SEALED_FOR, sealed).map_err(|_| login::refused("the state is not ours"))?;
    let state: State = serde_json::from_slice(&opened).map_err(|_| login::refused("the state is not ours"))?;
    let cookies = call.header("cookie").unwrap_or_default().split(';');
    let own = cookies.filter_map(|c| c.trim().split_once('=')).find(|(name, _)| *name == COOKIE).map(|(_, value)| value);
    let same = own.is_some_and(|own| subtle::ConstantTimeEq::ct_eq(own.as_bytes(), state.cookie.as_bytes()).into());
    if !same {
        return Err(login::refused("it is not the browser that began the login"));
    }
    if auth.now().0 >= state.until {
        return Err(login::refused("the login took too long"));
    }
    Ok(state)
}

async fn come_back(call: &Call, auth: &Auth, idp: &str) -> Result<Reply> {
    let state = open_state(call, auth)?;
    if state.idp != idp || state.protocol != call.param("protocol_id") {
        return Err(login::refused("the login began at another provider"));
    }
    let Some(code) = call.cx.query.get("code") else {
        let error = call.cx.query.get("error").unwrap_or_default();
        return Err(login::refused(format!("the provider let nobody in: {error:.100}")));
    };
    let provider = provider(call, auth, idp)?;
    let uri = redirect_uri(call, idp);
    let login = Login { redirect_uri: &uri, nonce: &state.nonce, verifier: &state.verifier };
    let claims = provider.exchange(code, &login, auth.now()).await.map_err(|f| oidc::failed(idp, &f))?;
    let (text, _) = enter(call, auth, idp, &claims).await?;
    Ok(page(&state.origin, &text))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('\'', "&#39;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A page that posts the token to the dashboard, as Keystone's does.
fn page(origin: &str, token: &str) -> Reply {
    let nonce = super::random_secret();
    let body = format!(
        r#"<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Login</title></head>
<body>
<form id="sso" name="sso" action="{}" method="post">
Please wait...
<input type="hidden" name="token" id="token" value="{}">
<noscript><input type="submit" value="Continue"></noscript>
</form>
<script nonce="{nonce}">document.forms['sso'].submit();</script>
</body>
</html>
"#,
        escaped(origin),
        escaped(token)
    );
    Reply::text(200, "text/html; charset=utf-8", body)
        .header("cache-control", "no-store")
        .header("referrer-policy", "no-referrer")
        .header(
            "content-security-policy",
            format!("default-src 'none'; base-uri 'none'; frame-ancestors 'none'; script-src 'nonce-{nonce}'"),
        )
        .header("set-cookie", format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::ReplyBody;

    #[test]
    fn nothing_gets_out_of_its_place_in_the_page() {
        let reply = page("https://d/\"><script>alert(1)</script>", "a\"b'<c>&");
        let ReplyBody::Bytes(body) = reply.body else { panic!("a page") };
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(body.contains("action=\"https://d/&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;\""), "{body}");
        assert!(body.contains("value=\"a&quot;b&#39;&lt;c&gt;&amp;\""), "{body}");
        assert_eq!(body.matches("<script").count(), 1);
    }
}
