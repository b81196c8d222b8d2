//! Creating and changing users, whose passwords must be hashed first, and changing one's own password.
use super::{allow, auth, created, get, need_text, password_error, view};
use crate::{
    directory::{READ_ONLY, Who},
    resources::{USER, home_domain},
    rows::from_directory,
};
use api::{Access, Call, Error, Map, Reply, Result, Route, dialect::IDENTITY};
use resource::engine;
use serde_json::{Value, json};

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new("POST", "/v3/users", Access::Authenticated, create),
        Route::new("PATCH", "/v3/users/{id}", Access::Authenticated, update),
        Route::new("POST", "/v3/users/{id}/password", Access::Public, change_password),
    ]
}

/// Takes the password out of a body and hashes it. `Some(Null)` takes a password away.
async fn take_password(call: &Call, input: &mut Map) -> Result<Option<Value>> {
    match input.shift_remove("password") {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(Value::Null)),
        Some(Value::String(password)) => {
            let hash = auth(call)?.passwords.hash(&password).await.map_err(|e| password_error(&e))?;
            Ok(Some(hash.into()))
        }
        Some(_) => Err(Error::bad_request("Invalid input for field 'password': it is not a string.")),
    }
}

async fn create(call: Call) -> Result<Reply> {
    let mut input = api::body_of(USER, &IDENTITY, call.json())?.clone();
    if input.get("domain_id").is_none_or(Value::is_null) {
        input.insert("domain_id".into(), home_domain(&call.cx).into());
    }
    allow(&call, "create_user", Some(&input))?;
    let hash = take_password(&call, &mut input).await?.unwrap_or(Value::Null);
    let row = call
        .transact(move |cx, tx| {
            let mut row = resource::create_row(USER, cx, &input, tx.now)?;
            row.insert("password_hash".into(), hash.clone());
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
    let row = call
        .transact(move |cx, tx| {
            let old = engine::existing(tx, USER, &id)?;
            let mut row = resource::update_row(USER, cx, &old, &input, tx.now)?;
            if let Some(hash) = &hash {
                row.insert("password_hash".into(), hash.clone());
            }
            engine::replace(tx, USER, cx, &old, row)
        })
        .await?;
    Ok(Reply::ok(json!({"user": view(USER, &row, &call, &call.reader())})))
}

/// Whoever knows the old password may set a new one; no token is needed, since an expired password gets none.
async fn change_password(call: Call) -> Result<Reply> {
    let id = call.param("id").to_owned();
    let input = call.inner("user")?;
    let (old, new) = (need_text(input, "original_password")?.to_owned(), need_text(input, "password")?.to_owned());
    let auth = auth(&call)?;
    let row = call.reader().get(&USER.table, &id);
    let stored =
        row.as_ref().filter(|r| r.field("enabled") == &Value::Bool(true)).and_then(|r| r.field("password_hash").as_str());
    let stored = stored.map(str::to_owned);
    if let Some(row) = row.as_ref().filter(|r| from_directory(r)) {
        // Only whoever knows the password learns where it is.
        return match auth.directories.login(row.text("domain_id"), Who::Id(&id), &old).await? {
            Some(Some(_)) => Err(Error::forbidden(READ_ONLY)),
            _ => Err(super::login::refused("the old password is wrong, or there is no such user")),
        };
    }
    if !auth.passwords.verify(&id, &old, stored.as_deref()).await.map_err(|e| password_error(&e))? {
        return Err(super::login::refused("the old password is wrong, or there is no such user"));
    }
    if old == new {
        return Err(Error::bad_request("The new password must not be the same as the old one."));
    }
    if row.is_some_and(|r| r.field("options").get("lock_password") == Some(&Value::Bool(true))) {
        return Err(Error::bad_request("The password of this user is locked; ask an administrator to change it."));
    }
    let hash = auth.passwords.hash(&new).await.map_err(|e| password_error(&e))?;
    call.transact(move |cx, tx| {
        let old = engine::existing(tx, USER, &id)?;
        if old.get("password_hash").and_then(Value::as_str) != stored.as_deref() {
            return Err(super::login::refused("the password was changed meanwhile"));
        }
        let mut row = resource::update_row(USER, cx, &old, &Map::new(), tx.now)?;
        row.insert("password_hash".into(), hash.as_str().into());
        engine::replace(tx, USER, cx, &old, row)
    })
    .await?;
    Ok(Reply::empty(204))
}
