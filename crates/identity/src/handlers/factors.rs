//! More than one factor: passcodes (TOTP), and receipts for logins that take several requests.
//!
//! ```text
//! password ──rules of the user want totp, too──▶ 401 with a receipt ──receipt and passcode──▶ token
//! ```
//! A passcode is good once: its period is written when it is used, and no process takes it or an older one again.
use super::{
    credentials,
    login::{self, Proof, refused},
    need_object, need_text, object,
};
use crate::{
    Auth,
    resources::CREDENTIAL,
    rows::{self, PASSCODES},
};
use api::{Call, Map, Reply, Result};
use auth::{Method, Methods, Receipt, totp};
use base::Timestamp;
use serde_json::{Value, json};
use store::Row;

const RECEIPT: &str = "openstack-auth-receipt";
/// Stands for the seed of a user that has none, so that it takes no less time.
const NO_SEED: &[u8] = b"a seed for nobody...";

/// A passcode that fits, not yet used up.
#[derive(Clone, Debug)]
pub(super) struct Passcode {
    credential: String,
    step: i64,
}

pub(super) async fn by_totp(auth: &Auth, body: &Map) -> Result<Proof> {
    let user = need_object(body, "user")?;
    let given = need_text(user, "passcode")?;
    let (account, row) = login::account(auth, user)?;
    let locked = auth.is_locked(&account);
    let found = fitting(auth, row.as_deref(), given)?;
    match (row, found) {
        (Some(row), Some(passcode)) if !locked => Ok(Proof {
            user_id: row.id().to_owned(),
            methods: Methods::default().with(Method::Totp),
            passcode: Some(passcode),
            ..Proof::default()
        }),
        _ => {
            auth.note_failure(&account).await?;
            Err(refused("the passcode is wrong, or there is no such user"))
        }
    }
}

fn fitting(auth: &Auth, user: Option<&Row>, given: &str) -> Result<Option<Passcode>> {
    let (now, windows) = (auth.now(), auth.config.passcode_windows);
    let rows = user.map(|u| auth.db.read().find(&CREDENTIAL.table, "user_id", u.id())).unwrap_or_default();
    let mut found = None;
    totp::find(NO_SEED, given, now, windows);
    for row in rows.iter().filter(|r| r.text("type") == "totp") {
        let Some(seed) = totp::seed(&credentials::open(auth, object(row)?)?) else { continue };
        if let Some(step) = totp::find(&seed, given, now, windows) {
            found = Some(Passcode { credential: row.id().to_owned(), step });
        }
    }
    Ok(found)
}

/// Uses a passcode up; false when it, or a newer one, was used before.
pub(super) async fn use_up(auth: &Auth, passcode: Passcode) -> Result<bool> {
    let take = move |tx: &mut store::Tx<'_>| -> Result<bool> {
        let last = tx.get(&PASSCODES, &passcode.credential).and_then(|r| r.field("step").as_i64());
        if last.is_some_and(|last| passcode.step <= last) {
            return Ok(false);
        }
        tx.put(&PASSCODES, &passcode.credential, json!({"step": passcode.step, "v": 1}));
        Ok(true)
    };
    Ok(auth.db.transact(take).await?.value)
}

/// The methods that the request's receipt proves for the user; none without one.
pub(super) fn proved_before(call: &Call, auth: &Auth, user: &Row) -> Result<Methods> {
    let Some(text) = call.header(RECEIPT).filter(|t| !t.is_empty()) else { return Ok(Methods::default()) };
    let receipt = auth.open_receipt(text).map_err(refused)?;
    let taken_back = user.field("tokens_after").as_i64().is_some_and(|after| receipt.issued_at < Timestamp(after));
    if receipt.user_id.as_str() != user.id() || taken_back {
        return Err(refused("the receipt is another user's, or was taken back"));
    }
    Ok(receipt.methods)
}

/// The rules that ask the user for more than one method, if there are any. They count unless they are turned off.
fn rules(options: &Value) -> Option<&Vec<Value>> {
    let off = options.get("multi_factor_auth_enabled") == Some(&Value::Bool(false));
    options.get("multi_factor_auth_rules").and_then(Value::as_array).filter(|rules| !off && !rules.is_empty())
}

/// Do the methods fulfil one of the rules that the user's options set?
pub(super) fn enough(methods: Methods, options: &Value) -> bool {
    let Some(rules) = rules(options) else { return true };
    let names = methods.names();
    let fulfilled = |rule: &Vec<Value>| rule.iter().all(|m| m.as_str().is_some_and(|m| names.contains(&m)));
    rules.iter().filter_map(Value::as_array).any(fulfilled)
}

/// 401 with what was proved so far and what would do.
pub(super) fn wants_more(auth: &Auth, user: &Row, methods: Methods) -> Result<Reply> {
    let known = rows::user(&mut &auth.db.read(), user.id());
    let (known, _) = known.ok_or_else(|| refused("the user or its domain is disabled"))?;
    let (text, Receipt { issued_at, expires_at, .. }) = auth.receipt(user.id(), methods);
    let body = json!({
        "receipt": {
            "methods": methods.names(),
            "user": {"id": user.id(), "name": known.name, "domain": {"id": known.domain.id.as_str(), "name": known.domain.name}},
            "issued_at": issued_at.micros_z(), "expires_at": expires_at.micros_z(),
        },
        "required_auth_methods": rules(user.field("options")),
    });
    Ok(Reply::json(401, body).header(RECEIPT, text).header("vary", "X-Auth-Token"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_one_factor_may_be_asked_for() {
        let password = Methods::default().with(Method::Password);
        let options = |on: bool, rules: Value| json!({"multi_factor_auth_enabled": on, "multi_factor_auth_rules": rules});
        assert!(enough(password, &json!({})) && enough(password, &json!({"multi_factor_auth_rules": []})));
        assert!(!enough(password, &json!({"multi_factor_auth_rules": [["totp"]]})), "they count unless they are off");
        assert!(enough(password, &options(false, json!([["password", "totp"]]))));
        assert!(!enough(password, &options(true, json!([["password", "totp"]]))));
        assert!(enough(password.with(Method::Totp), &options(true, json!([["password", "totp"]]))));
        assert!(enough(password, &options(true, json!([["totp"], ["password"]]))));
        assert!(!enough(password, &options(true, json!([["made-up"]]))));
    }
}
