//! Creating and changing users, whose passwords must be hashed first, and changing one's own password.
use super::{allow, auth, created, get, login, need_text, password_error, view};
use crate::{
    Auth,
    compliance::{SetBy, option},
    directory::{READ_ONLY, Who},
    lockout,
    resources::{Expiry, USER, home_domain, merge_options},
    rows::from_directory,
};
use api::{Access, Call, Error, Map, Reply, Result, Route, dialect::IDENTITY};
use resource::engine;
use serde_json::{Value, json};
use store::Row;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new("GET", "/v3/users", Access::Authenticated, all),
        Route::new("POST", "/v3/users", Access::Authenticated, create),
        Route::new("PATCH", "/v3/users/{id}", Access::Authenticated, update),
        Route::new("POST", "/v3/users/{id}/password", Access::Public, change_password),
        Route::new("DELETE", "/v3/users/{id}/tokens", Access::Authenticated, revoke_tokens),
    ]
}

/// Takes the password out of a body, checks it, and hashes it. `Some(Null)` takes a password away.
async fn take_password(call: &Call, input: &mut Map) -> Result<Option<Value>> {
    match input.shift_remove("password") {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(Value::Null)),
        Some(Value::String(password)) => Ok(Some(hashed(&*auth(call)?, &password).await?.into())),
        Some(_) => Err(Error::bad_request("Invalid input for field 'password': it is not a string.")),
    }
}

/// The hash of a new password that is strong enough.
async fn hashed(auth: &Auth, password: &str) -> Result<String> {
    if let Some(why) = auth.compliance.weakness(password) {
        return Err(Error::bad_request(why));
    }
    auth.passwords.hash(password).await.map_err(|e| password_error(&e))
}

/// Filters that no kind of field checks.
pub(super) fn check_filters(call: &Call) -> Result<()> {
    match call.cx.query.all("password_expires_at").find(|v| Expiry::parse(v).is_none()) {
        None => Ok(()),
        Some(v) => Err(Error::bad_request(format!(
            "Invalid filter password_expires_at={v}; write an operator (lt, lte, gt, gte, eq, neq), a colon, and a time as 2026-11-22T00:00:00Z."
        ))),
    }
}

async fn all(call: Call) -> Result<Reply> {
    allow(&call, "list_users", None)?;
    check_filters(&call)?;
    super::directories::read_all(USER, &call).await?;
    api::listing_reply(USER, &IDENTITY, &call, false)
}

async fn create(call: Call) -> Result<Reply> {
    let mut input = api::body_of(USER, &IDENTITY, call.json())?.clone();
    if input.get("domain_id").is_none_or(Value::is_null) {
        input.insert("domain_id".into(), home_domain(&call.cx).into());
    }
    allow(&call, "create_user", Some(&input))?;
    let hash = take_password(&call, &mut input).await?.unwrap_or(Value::Null);
    let rules = auth(&call)?.compliance.clone();
    let row = call
        .transact(move |cx, tx| {
            let mut row = resource::create_row(USER, cx, &input, tx.now)?;
            if !hash.is_null() {
                rules.set_password(&mut row, hash.clone(), SetBy::Administrator, tx.now);
            }
            engine::insert(tx, USER, cx, row)
        })
        .await?;
    Ok(created(USER, &row, &call))
}

async fn update(call: Call) -> Result<Reply> {
    let id = call.param("id").to_owned();
    let row = get(&call.reader(), USER, &id);
    // 404 is for those who may know.
    allow(&call, "update_user", row.as_ref().ok())?;
    row?;
    let mut input = api::body_of(USER, &IDENTITY, call.json())?.clone();
    let hash = take_password(&call, &mut input).await?;
    let auth = auth(&call)?;
    let row = call
        .transact(move |cx, tx| {
            let old = engine::existing(tx, USER, &id)?;
            let mut row = resource::update_row(USER, cx, &old, &input, tx.now)?;
            if let Some(hash) = &hash {
                let given = row.get("options").and_then(Value::as_object).cloned().unwrap_or_default();
                let before = old.get("options").and_then(Value::as_object).cloned().unwrap_or_default();
                // The options that the password is set under are the new ones.
                let merged = merge_options(USER, &before, &given)?;
                let asked = row.insert("options".into(), merged.into());
                auth.compliance.set_password(&mut row, hash.clone(), SetBy::Administrator, tx.now);
                row.insert("options".into(), asked.unwrap_or_default());
            }
            let row = engine::replace(tx, USER, cx, &old, row)?;
            if row.get("enabled") == Some(&Value::Bool(true)) {
                lockout::reopen(tx, &auth, &id);
            }
            Ok(row)
        })
        .await?;
    Ok(Reply::ok(json!({"user": view(USER, &row, &call, &call.reader())})))
}

/// Fails when the rules do not let the user choose this password now.
async fn check_change(auth: &Auth, row: &Row, new: &str) -> Result<()> {
    if option(row.field("options"), "lock_password") {
        return Err(Error::bad_request(
            "You cannot change your password at this time due to password policy disallowing password changes. Please contact your administrator to reset your password.",
        ));
    }
    if let Some(days) = auth.compliance.days_to_keep(row.value(), auth.now()) {
        let least = auth.compliance.set.minimum_password_age;
        return Err(Error::bad_request(format!(
            "You cannot change your password at this time due to the minimum password age. Once you change your password, it must be used for {least} day(s) before it can be changed. Please try again in {days} day(s) or contact your administrator to reset your password."
        )));
    }
    if let Some(why) = auth.compliance.weakness(new) {
        return Err(Error::bad_request(why));
    }
    for stored in auth.compliance.used(row.value()) {
        if auth.passwords.verify(row.id(), new, Some(&stored)).await.map_err(|e| password_error(&e))? {
            let count = auth.compliance.set.unique_last_password_count;
            return Err(Error::bad_request(format!(
                "The new password cannot be identical to a previous password. The total number which includes the new password must be unique is {count}."
            )));
        }
    }
    Ok(())
}

/// Whoever knows the old password may set a new one; no token is needed, since an expired password gets none.
async fn change_password(call: Call) -> Result<Reply> {
    let id = call.param("id").to_owned();
    let input = call.inner("user")?;
    let (old, new) = (need_text(input, "original_password")?.to_owned(), need_text(input, "password")?.to_owned());
    let auth = auth(&call)?;
    let row = call.reader().get(&USER.table, &id);
    if let Some(row) = row.as_ref().filter(|r| from_directory(r)) {
        // Only whoever knows the password learns where it is.
        return match auth.directories.login(row.text("domain_id"), Who::Id(&id), &old).await? {
            Some(Some(_)) => Err(Error::forbidden(READ_ONLY)),
            _ => Err(login::refused("the old password is wrong, or there is no such user")),
        };
    }
    let named = json!({ "id": id });
    let account = auth.compliance.account(row.as_deref(), &named.to_string());
    // Who may not log in may not change anything either.
    let usable = row.filter(|r| r.field("enabled") == &Value::Bool(true));
    login::check_password(&auth, &account, usable.as_deref(), &old).await?;
    let row = usable.ok_or_else(|| login::refused("there is no such user"))?;
    if auth.is_inactive(super::object(&row)?, &call.reader()) {
        return Err(login::refused("nobody has used the account for too long"));
    }
    if old == new {
        return Err(Error::bad_request("The new password must not be the same as the old one."));
    }
    check_change(&auth, &row, &new).await?;
    let hash = hashed(&auth, &new).await?;
    if !auth.note_login(&row, true).await? {
        return Err(login::refused("the account was locked meanwhile"));
    }
    let stored = row.field("password_hash").clone();
    let rules = auth.compliance.clone();
    call.transact(move |cx, tx| {
        let old = engine::existing(tx, USER, &id)?;
        if old.get("password_hash") != Some(&stored) {
            return Err(login::refused("the password was changed meanwhile"));
        }
        let mut row = resource::update_row(USER, cx, &old, &Map::new(), tx.now)?;
        rules.set_password(&mut row, hash.as_str().into(), SetBy::User, tx.now);
        engine::replace(tx, USER, cx, &old, row)
    })
    .await?;
    Ok(Reply::empty(204))
}

/// Ends every token of a user: the way out for those whose password is kept elsewhere.
async fn revoke_tokens(call: Call) -> Result<Reply> {
    let id = call.param("id").to_owned();
    allow(&call, "revoke_user_tokens", json!({ "user_id": id }).as_object())?;
    call.transact(move |_, tx| {
        let mut row = engine::existing(tx, USER, &id)?;
        row.insert("tokens_after".into(), tx.now.0.into());
        tx.put(&USER.table, &id, row.into());
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}
