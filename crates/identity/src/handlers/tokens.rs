//! `GET`, `HEAD` and `DELETE /v3/auth/tokens`, and what is known of revoked ones.
use super::auth;
use crate::{authenticator::Known, rows::REVOCATIONS};
use api::{Access, Call, Error, Reply, ReplyBody, Result, Route};
use serde_json::json;
use std::sync::Arc;

/// Expired revocations that one revocation clears away.
const CLEARED: usize = 32;

pub(super) fn routes() -> Vec<Route> {
    let admin = Access::Rule("identity:list_revoke_events", "rule:service");
    vec![
        Route::new("GET", "/v3/auth/tokens", Access::Authenticated, show),
        Route::new("DELETE", "/v3/auth/tokens", Access::Authenticated, revoke),
        Route::new("GET", "/v3/auth/tokens/OS-PKI/revoked", Access::Authenticated, revoked_list),
        Route::new("GET", "/v3/OS-REVOKE/events", admin, events),
    ]
}

/// Rules of these handlers.
pub(crate) const RULES: [(&str, &str); 3] = [
    ("identity:validate_token", "rule:service or rule:identity:any_reader or user_id:%(user_id)s"),
    ("identity:revoke_token", "rule:admin or user_id:%(user_id)s"),
    ("identity:revoke_user_tokens", "rule:admin or user_id:%(user_id)s"),
];

/// The token in `X-Subject-Token`, which the caller may know about.
fn subject(call: &Call, action: &str, late: bool) -> Result<(String, Arc<Known>)> {
    let text = call.header("x-subject-token").filter(|t| !t.is_empty());
    let text = text.ok_or_else(|| Error::not_found("No token in the request: the header X-Subject-Token is required."))?;
    let lost = |why: String| Error::not_found("Could not find token.").context(why);
    let known = auth(call)?.look(text, late).map_err(lost)?;
    let target = json!({"user_id": known.token.user_id.as_str()});
    match target.as_object() {
        Some(target) if call.cx.may(&format!("identity:{action}"), Some(target)) => Ok((text.to_owned(), known)),
        // Whoever may not ask learns nothing, not even whether it is a token.
        _ => Err(lost(format!("the caller may not {action}"))),
    }
}

async fn show(call: Call) -> Result<Reply> {
    let (text, known) = subject(&call, "validate_token", call.cx.query.flag("allow_expired"))?;
    let catalog = call.cx.query.get("nocatalog").is_none();
    let body = ReplyBody::JsonText(auth(&call)?.body(&known, catalog));
    Ok(Reply { body, ..Reply::empty(200) }.header("x-subject-token", text).header("vary", "X-Auth-Token"))
}

async fn revoke(call: Call) -> Result<Reply> {
    let (_, known) = subject(&call, "revoke_token", false)?;
    let (audit_id, expires_at) = (known.token.audit_id.to_string(), known.token.expires_at);
    call.transact(move |_, tx| {
        let over: Vec<_> = tx
            .all(&REVOCATIONS)
            .into_iter()
            .filter(|r| r.field("expires_at").as_i64().is_some_and(|at| at < tx.now.0))
            .take(CLEARED)
            .collect();
        for row in over {
            tx.delete(&REVOCATIONS, row.id());
        }
        let row = json!({"expires_at": expires_at.0 + WINDOW_MICROS, "revoked_at": tx.now.0, "v": 1});
        tx.put(&REVOCATIONS, &audit_id, row);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

/// A revocation outlives the longest time that an expired token may still be shown.
const WINDOW_MICROS: i64 = 7 * 24 * 3600 * 1_000_000;

async fn revoked_list(_call: Call) -> Result<Reply> {
    Err(Error::gone("Revocation lists of PKI tokens are no more; validate tokens instead."))
}

async fn events(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let since = match call.cx.query.get("since") {
        None => None,
        Some(text) => {
            let wrong = || Error::bad_request(format!("invalid date format {text}"));
            Some(base::Timestamp::parse(text).ok_or_else(wrong)?.0)
        }
    };
    let is_new = |r: &store::Row| since.is_none_or(|since| r.field("revoked_at").as_i64().is_some_and(|at| at >= since));
    let time = |v: &serde_json::Value| base::Timestamp(v.as_i64().unwrap_or_default()).micros_z();
    let event = |r: &Arc<store::Row>| {
        let at = time(r.field("revoked_at"));
        json!({"audit_id": r.id(), "issued_before": at, "revoked_at": at})
    };
    let events: Vec<_> = reader.all(&REVOCATIONS).filter(|r| is_new(r)).map(event).collect();
    let here = format!("{}/v3/OS-REVOKE/events", call.cx.public);
    Ok(Reply::ok(json!({"events": events, "links": {"next": null, "self": here, "previous": null}})))
}
