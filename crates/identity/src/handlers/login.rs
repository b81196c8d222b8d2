//! `POST /v3/auth/tokens`: proves who somebody is and gives a token for a scope.
//!
//! ```text
//! methods (password, token, application credential, passcode) -> one user -> enough of them? -> scope asked or usual -> token
//!    -> does it stand? -> text
//! ```
//! Whatever is wrong with who or what is asked for is one 401, and a user that does not exist costs the time of a wrong password.
use super::{
    auth,
    factors::{self, Passcode},
    need_object, need_text, oauth1, password_error,
};
use crate::{
    Auth,
    authenticator::{Known, NOT_AUTHENTICATED},
    compliance::Compliance,
    directory::Who,
    lockout::Account,
    resources::{APP_CREDENTIAL, PROJECT, TRUST, USER},
    rows::{Rows as _, flag, text},
};
use api::{Access, Call, Error, Map, Reply, ReplyBody, Result, Route};
use auth::{Method, Methods, Token, TokenScope};
use base::Timestamp;
use serde_json::Value;
use std::sync::Arc;
use store::Row;

mod scope;
use scope::{Named, Wanted, wanted};

pub(super) fn routes() -> Vec<Route> {
    vec![Route::new("POST", "/v3/auth/tokens", Access::Public, issue)]
}

pub(super) fn refused(why: impl Into<String>) -> Error {
    Error::unauthorized(NOT_AUTHENTICATED).context(why)
}

/// Who it is, and what limits a token of theirs.
#[derive(Default)]
pub(super) struct Proof {
    pub(super) user_id: String,
    pub(super) methods: Methods,
    /// The hash that the password fits.
    pub(super) stored: Option<String>,
    /// The token that it was proved by.
    pub(super) parent: Option<Token>,
    pub(super) app_credential: Option<Arc<Row>>,
    pub(super) access_token: Option<Arc<Row>>,
    pub(super) passcode: Option<Passcode>,
}

async fn issue(call: Call) -> Result<Reply> {
    let auth = auth(&call)?;
    let body = need_object(call.object()?, "auth")?;
    let identity = need_object(body, "identity")?;
    let mut proof = prove(&call, &auth, identity).await?;
    let wanted = wanted(body.get("scope"))?;
    let guessable = proof.stored.is_some() || proof.passcode.is_some();
    let user = settle(&call, &auth, &mut proof).await?;
    if !factors::enough(proof.methods, user.field("options")) {
        return factors::wants_more(&auth, &user, proof.methods);
    }
    if proof.parent.is_none() && !auth.note_login(&user, guessable).await? {
        return Err(refused("the account was locked meanwhile"));
    }
    let (text, known) = token_for(&call, &auth, &user, proof, wanted).await?;
    Ok(reply(&call, &auth, text, &known))
}

/// The user as it is now, when all that was proved still holds: hashing took a while. Uses a passcode up.
async fn settle(call: &Call, auth: &Auth, proof: &mut Proof) -> Result<Arc<Row>> {
    let user = auth.db.read().get(&USER.table, &proof.user_id).ok_or_else(|| refused("there is no such user"))?;
    if proof.stored.is_some() && text(&user, "password_hash") != proof.stored.as_deref() {
        return Err(refused("the password was changed meanwhile"));
    }
    if proof.parent.is_none() && auth.is_inactive(super::object(&user)?, &auth.db.read()) {
        return Err(refused("nobody has used the account for too long"));
    }
    let before = factors::proved_before(call, auth, &user)?;
    proof.methods = proof.methods.iter().chain(before.iter()).collect();
    if let Some(passcode) = proof.passcode.take()
        && !factors::use_up(auth, passcode).await?
    {
        auth.note_failure(&auth.compliance.account(Some(&user), "")).await?;
        return Err(refused("the passcode was used before"));
    }
    Ok(user)
}

/// 201 with the token.
pub(super) fn reply(call: &Call, auth: &Auth, text: String, known: &Known) -> Reply {
    let catalog = call.cx.query.get("nocatalog").is_none();
    let body = ReplyBody::JsonText(auth.body(known, catalog));
    Reply { body, ..Reply::empty(201) }.header("x-subject-token", text).header("vary", "X-Auth-Token")
}

async fn prove(call: &Call, auth: &Auth, identity: &Map) -> Result<Proof> {
    let methods = identity
        .get("methods")
        .and_then(Value::as_array)
        .ok_or_else(|| Error::bad_request("'methods' is a required property"))?;
    let mut all: Option<Proof> = None;
    for method in methods {
        let name =
            method.as_str().ok_or_else(|| Error::bad_request("Invalid input for field 'methods': it holds no strings."))?;
        let proof = match Method::parse(name) {
            Some(Method::Password) => by_password(auth, need_object(identity, "password")?).await?,
            Some(Method::Totp) => factors::by_totp(auth, need_object(identity, "totp")?).await?,
            Some(Method::OAuth1) => oauth1::by_oauth1(call, auth).await?,
            Some(Method::Token) => by_token(auth, need_text(need_object(identity, "token")?, "id")?)?,
            // A token of one who came by a provider, as older clients show it to have a scope.
            Some(m @ (Method::Mapped | Method::OpenId | Method::Saml2)) => {
                let proof = by_token(auth, need_text(need_object(identity, m.name())?, "id")?)?;
                let came = proof.parent.as_ref().is_some_and(|t| t.federation.is_some());
                came.then_some(proof).ok_or_else(|| refused("the token is of nobody for whom a provider vouches"))?
            }
            Some(Method::ApplicationCredential) => {
                by_app_credential(auth, need_object(identity, "application_credential")?).await?
            }
            _ => return Err(Error::unauthorized("Attempted to authenticate with an unsupported method.")),
        };
        all = Some(match all {
            None => proof,
            Some(before) if before.user_id == proof.user_id => Proof {
                methods: before.methods.iter().chain(proof.methods.iter()).collect(),
                stored: before.stored.or(proof.stored),
                parent: before.parent.or(proof.parent),
                app_credential: before.app_credential.or(proof.app_credential),
                access_token: before.access_token.or(proof.access_token),
                passcode: before.passcode.or(proof.passcode),
                ..proof
            },
            Some(_) => return Err(refused("the methods prove different users")),
        });
    }
    all.ok_or_else(|| Error::bad_request("Invalid input for field 'methods': [] is too short"))
}

fn find_user(auth: &Auth, user: &Map) -> Result<Option<Arc<Row>>> {
    let named = Named::inside(user)?;
    let reader = auth.db.read();
    Ok(named.id(&reader, &USER.table).and_then(|id| reader.get(&USER.table, &id)))
}

/// Whose login it is, and the row if there is one.
pub(super) fn account(auth: &Auth, user: &Map) -> Result<(Account, Option<Arc<Row>>)> {
    let row = find_user(auth, user)?;
    // As it was named: what is asked for beside it must not make another account of it.
    let named = ["id", "name", "domain"].map(|k| user.get(k).map(Value::to_string).unwrap_or_default());
    Ok((auth.compliance.account(row.as_deref(), &named.concat()), row))
}

/// Fails alike, and as late, for a wrong password, a locked account and a user that does not exist.
pub(super) async fn check_password(auth: &Auth, account: &Account, user: Option<&Row>, password: &str) -> Result<()> {
    let locked = auth.is_locked(account);
    let (id, stored) = (user.map_or("", Row::id), user.and_then(|u| text(u, "password_hash")));
    let right = auth.passwords.verify(id, password, stored).await.map_err(|e| password_error(&e))?;
    // Of many guesses at once, one that is right must not be told after the others have locked the account.
    let locked = locked || auth.is_locked(account);
    if right && !locked {
        return Ok(());
    }
    auth.note_failure(account).await?;
    Err(refused(if locked { "the account is locked" } else { "the password is wrong, or there is no such user" }))
}

async fn by_password(auth: &Auth, password: &Map) -> Result<Proof> {
    let user = need_object(password, "user")?;
    let secret = need_text(user, "password")?;
    if let Some(id) = in_directory(auth, &Named::inside(user)?, secret).await? {
        let user_id = id.ok_or_else(|| refused("the directory does not know the user, or not with that password"))?;
        return Ok(Proof { user_id, methods: Methods::default().with(Method::Password), ..Proof::default() });
    }
    let (account, row) = account(auth, user)?;
    check_password(auth, &account, row.as_deref(), secret).await?;
    let row = row.ok_or_else(|| refused("there is no such user"))?;
    if Compliance::is_expired(row.value(), auth.now()) {
        let what = format!("The password is expired and needs to be changed for user: {}.", row.id());
        return Err(Error::unauthorized(what));
    }
    let stored = text(&row, "password_hash").map(str::to_owned);
    Ok(Proof { user_id: row.id().to_owned(), methods: Methods::default().with(Method::Password), stored, ..Proof::default() })
}

/// The id of a user of a directory whose password it is; nothing when the user's domain has none.
async fn in_directory(auth: &Auth, user: &Named, secret: &str) -> Result<Option<Option<String>>> {
    let (domain, who) = {
        let reader = auth.db.read();
        match user {
            Named::Id(id) => (reader.get(&USER.table, id).map(|r| r.text("domain_id").to_owned()), Who::Id(id)),
            Named::Name(name, domain) => (domain.as_ref().and_then(|d| d.id(&reader, &PROJECT.table)), Who::Name(name)),
        }
    };
    match domain {
        Some(domain) => auth.directories.login(&domain, who, secret).await,
        None => Ok(None),
    }
}

fn by_token(auth: &Auth, text: &str) -> Result<Proof> {
    let known = auth.look(text, false).map_err(|why| Error::not_found("Could not find token.").context(why))?;
    let token = known.token.clone();
    if token.trust_id.is_some() || token.app_credential_id.is_some() || token.access_token_id.is_some() {
        return Err(Error::forbidden(
            "You are not authorized to perform the requested action: rescope a token of a trust or an application credential.",
        ));
    }
    let methods = token.methods.with(Method::Token);
    Ok(Proof { user_id: token.user_id.0.clone(), methods, parent: Some(token), ..Proof::default() })
}

async fn by_app_credential(auth: &Auth, body: &Map) -> Result<Proof> {
    let secret = need_text(body, "secret")?;
    let row = if body.contains_key("id") {
        auth.db.read().get(&APP_CREDENTIAL.table, need_text(body, "id")?)
    } else {
        let name = need_text(body, "name")?;
        let user = find_user(auth, need_object(body, "user")?)?.map(|r| r.id().to_owned());
        let found = auth.db.read().find(&APP_CREDENTIAL.table, "name", name);
        found.into_iter().find(|r| user.as_deref() == Some(r.text("user_id")))
    };
    let (id, hash) = (row.as_ref().map_or("", |r| r.id()), row.as_ref().and_then(|r| text(r, "secret_hash")));
    let right = auth.passwords.verify(id, secret, hash).await.map_err(|e| password_error(&e))?;
    let Some(row) = row.filter(|_| right) else {
        return Err(refused("the secret is wrong, or there is no such application credential"));
    };
    let methods = Methods::default().with(Method::ApplicationCredential);
    Ok(Proof { user_id: row.text("user_id").to_owned(), methods, app_credential: Some(row), ..Proof::default() })
}

/// The first token of a row's life: no later than the row's own end.
pub(super) fn cap(token: &mut Token, row: &Row) {
    if let Some(end) = row.field("expires_at").as_i64() {
        token.expires_at = token.expires_at.min(Timestamp(end));
    }
}

/// A new token of a user that ends in an hour, or as the configuration says.
pub(super) fn blank(auth: &Auth, user_id: &str, methods: Methods) -> Token {
    Token::new(user_id, methods, auth.now(), auth.config.token_lifetime)
}

/// The text of a token, if the token stands.
pub(super) fn seal(auth: &Auth, token: &Token) -> Result<(String, Arc<Known>)> {
    let text = auth.mint(token);
    let known = auth.first_look(&text).map_err(refused)?;
    Ok((text, known))
}

async fn token_for(call: &Call, auth: &Auth, user: &Row, proof: Proof, wanted: Wanted) -> Result<(String, Arc<Known>)> {
    let mut token = blank(auth, &proof.user_id, proof.methods);
    // The clock of the process that changed the user may be ahead of ours.
    token.issued_at.0 = user.field("tokens_after").as_i64().map_or(token.issued_at.0, |after| after.max(token.issued_at.0));
    if let Some(parent) = &proof.parent {
        // What is got by a token lives no longer than it.
        token.expires_at = parent.expires_at;
        token.issued_at = token.issued_at.max(parent.issued_at);
        token.parent_audit_id = Some(parent.chain_audit_id());
        token.federation = parent.federation.clone();
    }
    if let Some(app) = &proof.app_credential {
        let project = app.text("project_id");
        let same = matches!(&wanted, Wanted::Project(Named::Id(id)) if id == project);
        if wanted != Wanted::Usual && !same {
            return Err(Error::unauthorized("Application credentials cannot request a scope."));
        }
        token.app_credential_id = Some(app.id().to_owned());
        token.scope = TokenScope::Project(project.into());
        cap(&mut token, app);
        return seal(auth, &token);
    }
    if let Some(access) = &proof.access_token {
        let project = access.text("project_id");
        let same = matches!(&wanted, Wanted::Project(Named::Id(id)) if id == project);
        if wanted != Wanted::Usual && !same {
            return Err(Error::unauthorized("OAuth access tokens cannot request a scope."));
        }
        token.access_token_id = Some(access.id().to_owned());
        token.scope = TokenScope::Project(project.into());
        cap(&mut token, access);
        return seal(auth, &token);
    }
    token.scope = match wanted {
        Wanted::Unscoped => TokenScope::Unscoped,
        Wanted::System => TokenScope::System,
        Wanted::Project(named) => TokenScope::Project(look_up(auth, &named)?.into()),
        Wanted::Domain(named) => TokenScope::Domain(look_up(auth, &named)?.into()),
        Wanted::Trust(id) => return by_trust(call, auth, token, &id).await,
        Wanted::Usual => {
            if let Some(project) = text(user, "default_project_id") {
                token.scope = TokenScope::Project(project.into());
                if let Ok(done) = seal(auth, &token) {
                    return Ok(done);
                }
            }
            TokenScope::Unscoped
        }
    };
    seal(auth, &token)
}

fn look_up(auth: &Auth, named: &Named) -> Result<String> {
    named.id(&auth.db.read(), &PROJECT.table).ok_or_else(|| refused("there is no such project or domain"))
}

async fn by_trust(call: &Call, auth: &Auth, mut token: Token, id: &str) -> Result<(String, Arc<Known>)> {
    // One that does not exist is answered like another's.
    let stranger = |why: &str| Error::forbidden("User is not a trustee.").context(why);
    let row = auth.db.read().get(&TRUST.table, id).ok_or_else(|| stranger("there is no such trust"))?;
    if row.text("trustee_user_id") != token.user_id.as_str() {
        return Err(stranger("it is another's trust"));
    }
    if flag(&row, "impersonation") {
        token.user_id = row.text("trustor_user_id").into();
    }
    token.trust_id = Some(id.to_owned());
    token.scope = TokenScope::Project(row.text("project_id").into());
    cap(&mut token, &row);
    if row.field("remaining_uses").is_null() {
        return seal(auth, &token);
    }
    let text = auth.mint(&token);
    auth.first_look(&text).map_err(refused)?;
    let id = id.to_owned();
    call.transact(move |_, tx| {
        let row = tx.row(&TRUST.table, &id).ok_or_else(|| refused("there is no such trust"))?;
        let left = row.field("remaining_uses").as_i64().unwrap_or_default();
        if left <= 0 {
            return Err(refused("the trust is used up"));
        }
        let mut map = super::object(&row)?.clone();
        map.insert("remaining_uses".into(), (left - 1).into());
        tx.put(&TRUST.table, &id, map.into());
        Ok(())
    })
    .await?;
    seal(auth, &token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scopes_are_read() {
        let read = |v: Value| wanted(Some(&v));
        assert_eq!(wanted(None).unwrap(), Wanted::Usual);
        assert_eq!(read(json!("unscoped")).unwrap(), Wanted::Unscoped);
        assert_eq!(read(json!({"unscoped": {}})).unwrap(), Wanted::Unscoped);
        assert_eq!(read(json!({"system": {"all": true}})).unwrap(), Wanted::System);
        assert_eq!(read(json!({"project": {"id": "p"}})).unwrap(), Wanted::Project(Named::Id("p".into())));
        let domain = Some(Box::new(Named::Name("D".into(), None)));
        let by_name = read(json!({"project": {"name": "p", "domain": {"name": "D"}}})).unwrap();
        assert_eq!(by_name, Wanted::Project(Named::Name("p".into(), domain)));
        for bad in [
            json!(1),
            json!({"project": {"name": "p"}}),
            json!({"project": {"id": 1}}),
            json!({"project": {"id": "p"}, "domain": {"id": "d"}}),
            json!({"system": {"all": false}}),
            json!({"OS-TRUST:trust": {}}),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }
}
