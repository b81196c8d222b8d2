//! Credentials and EC2 keys. Blobs are sealed before they are written and opened for those who may read them.
use super::{allow, auth, forbidden, get, list, need_text, object};
use crate::{
    Auth,
    grants::{self, Holder},
    resources::{CREDENTIAL, PROJECT, USER},
    rows::Rows as _,
};
use api::{Access, Call, Error, Map, Reply, Result, Route, dialect::IDENTITY};
use resource::{Reader, engine};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use store::Row;

pub(super) fn routes() -> Vec<Route> {
    let any = Access::Authenticated;
    let ec2 = "/v3/users/{user_id}/credentials/OS-EC2";
    let ec2_one = "/v3/users/{user_id}/credentials/OS-EC2/{access}";
    vec![
        Route::new("GET", "/v3/credentials", any, all),
        Route::new("POST", "/v3/credentials", any, create),
        Route::new("GET", "/v3/credentials/{id}", any, show),
        Route::new("PATCH", "/v3/credentials/{id}", any, update),
        Route::new("GET", ec2, any, ec2_list),
        Route::new("POST", ec2, any, ec2_create),
        Route::new("GET", ec2_one, any, ec2_show),
        Route::new("DELETE", ec2_one, any, ec2_delete),
    ]
}

/// Rules of the EC2 handlers; their target is the user of the path.
pub(crate) const RULES: [(&str, &str); 4] = [
    ("identity:ec2_list_credentials", "rule:identity:owner"),
    ("identity:ec2_get_credential", "rule:identity:owner"),
    ("identity:ec2_create_credential", "rule:identity:cloud_admin or (role:member and user_id:%(user_id)s)"),
    ("identity:ec2_delete_credential", "rule:identity:cloud_admin or (role:member and user_id:%(user_id)s)"),
];

/// SHA-256 in hex: the id of EC2 credentials from their access key.
pub(super) fn access_hash(access: &str) -> String {
    format!("{:x}", Sha256::digest(access))
}

fn owner(id: &str) -> String {
    format!("credential/{id}/blob")
}

/// The blob of a row.
pub(super) fn open(auth: &Auth, row: &Map) -> Result<String> {
    let text = |field: &str| row.get(field).and_then(Value::as_str).unwrap_or_default();
    let opened = auth.secret_box().open(&owner(text("id")), text("sealed")).map_err(|e| Error::internal(base::chain(&e)))?;
    String::from_utf8(opened.to_vec()).map_err(|_| Error::internal("a blob is not text"))
}

fn view(auth: &Auth, call: &Call, reader: &Reader<'_>, row: &Map) -> Result<Value> {
    let mut out = super::view(CREDENTIAL, row, call, reader);
    out["blob"] = open(auth, row)?.into();
    Ok(out)
}

fn visible(call: &Call, reader: &Reader<'_>, row: &Map) -> bool {
    (CREDENTIAL.hooks.visible)(row, &call.cx, reader)
}

async fn all(call: Call) -> Result<Reply> {
    allow(&call, "list_credentials", None)?;
    let (auth, reader) = (auth(&call)?, call.reader());
    let q = &call.cx.query;
    let fits = |r: &Row| ["user_id", "type"].iter().all(|f| q.get(f).is_none_or(|v| v == r.text(f)));
    let mut shown = Vec::new();
    for row in reader.all(&CREDENTIAL.table).filter(|r| fits(r)) {
        let row = object(row)?;
        if visible(&call, &reader, row) {
            shown.push(view(&auth, &call, &reader, row)?);
        }
    }
    Ok(list(&call, "credentials", shown))
}

/// Those of others and those that are not there are refused alike to whoever does not see all.
fn find(call: &Call, action: &str) -> Result<Map> {
    let reader = call.reader();
    match get(&reader, CREDENTIAL, call.param("id")) {
        Ok(row) if visible(call, &reader, &row) => Ok(row),
        _ => {
            allow(call, action, None)?;
            Err(engine::not_found(CREDENTIAL, call.param("id")))
        }
    }
}

async fn show(call: Call) -> Result<Reply> {
    let row = find(&call, "get_credential")?;
    Ok(Reply::ok(json!({"credential": view(auth(&call)?.as_ref(), &call, &call.reader(), &row)?})))
}

/// The blob as text; clients send text, some an object.
fn blob(value: &Value) -> Result<String> {
    match value {
        Value::String(s) => Ok(s.clone()),
        Value::Object(_) => Ok(value.to_string()),
        _ => Err(Error::bad_request("Invalid input for field 'blob': it is not a string.")),
    }
}

fn ec2_blob(text: &str) -> Result<Map> {
    let wrong = || Error::bad_request("The blob of EC2 credentials must be JSON with 'access' and 'secret'.");
    let map: Map = serde_json::from_str(text).map_err(|_| wrong())?;
    if map.get("access").is_none_or(|a| !a.is_string()) || map.get("secret").is_none_or(|s| !s.is_string()) {
        return Err(wrong());
    }
    Ok(map)
}

/// A restricted application credential makes nothing that outlives it.
fn check_unrestricted(call: &Call, action: &str) -> Result<()> {
    if call.cx.caller.is_unrestricted() { Ok(()) } else { Err(forbidden(action)) }
}

async fn create(call: Call) -> Result<Reply> {
    let mut input = api::body_of(CREDENTIAL, &IDENTITY, call.json())?.clone();
    if input.get("user_id").is_none_or(Value::is_null) {
        input.insert("user_id".into(), call.cx.caller.user_id().into());
    }
    allow(&call, "create_credential", Some(&input))?;
    check_unrestricted(&call, "create_credential")?;
    let blob = blob(&input.shift_remove("blob").ok_or_else(|| Error::bad_request("'blob' is a required property"))?)?;
    let row = insert(&call, input, blob).await?;
    Ok(Reply::json(201, json!({"credential": view(auth(&call)?.as_ref(), &call, &call.reader(), &row)?})))
}

async fn insert(call: &Call, input: Map, blob: String) -> Result<Map> {
    let auth = auth(call)?;
    let ec2 = input.get("type").and_then(Value::as_str) == Some("ec2");
    let access = if ec2 { ec2_blob(&blob)?.get("access").and_then(Value::as_str).map(access_hash) } else { None };
    if ec2 && input.get("project_id").is_none_or(Value::is_null) {
        return Err(Error::bad_request("Invalid input for field 'project_id': EC2 credentials are for a project."));
    }
    let secrets = auth.secret_box();
    call.transact(move |cx, tx| {
        let mut row = resource::create_row(CREDENTIAL, cx, &input, tx.now)?;
        for (def, field) in [(USER, "user_id"), (PROJECT, "project_id")] {
            if let Some(id) = row.get(field).and_then(Value::as_str)
                && tx.row(&def.table, id).is_none()
            {
                return Err(Error::bad_request(format!("Could not find {}: {id}.", def.name)));
            }
        }
        if let Some(access) = &access {
            row.insert("id".into(), access.as_str().into());
        }
        let id = row.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        row.insert("sealed".into(), secrets.seal(&owner(&id), blob.as_bytes()).into());
        row.insert("access_hash".into(), json!(access));
        row.insert("app_credential_id".into(), json!(cx.caller.app_credential.as_ref().map(|a| a.id.as_str())));
        row.insert("trust_id".into(), json!(cx.caller.trust_id));
        engine::insert(tx, CREDENTIAL, cx, row)
    })
    .await
}

async fn update(call: Call) -> Result<Reply> {
    let old = find(&call, "update_credential")?;
    allow(&call, "update_credential", Some(&old))?;
    check_unrestricted(&call, "update_credential")?;
    let mut input = api::body_of(CREDENTIAL, &IDENTITY, call.json())?.clone();
    for field in ["user_id", "project_id", "type"] {
        if input.shift_remove(field).is_some_and(|v| old.get(field) != Some(&v)) {
            return Err(Error::forbidden(format!("{field} of a credential does not change; make a new credential.")));
        }
    }
    let auth = auth(&call)?;
    let new = input.shift_remove("blob").map(|v| blob(&v)).transpose()?;
    if let Some(new) = &new
        && old.get("type").and_then(Value::as_str) == Some("ec2")
    {
        let before = ec2_blob(&open(&auth, &old)?)?;
        let now = ec2_blob(new)?;
        if ["trust_id", "app_cred_id", "access_token_id"].iter().any(|k| before.get(*k) != now.get(*k)) {
            return Err(Error::forbidden("What EC2 credentials were delegated by does not change; make new ones."));
        }
    }
    let (id, secrets) = (call.param("id").to_owned(), auth.secret_box());
    let row = call
        .transact(move |cx, tx| {
            let old = engine::existing(tx, CREDENTIAL, &id)?;
            let mut row = resource::update_row(CREDENTIAL, cx, &old, &input, tx.now)?;
            if let Some(new) = &new {
                row.insert("sealed".into(), secrets.seal(&owner(&id), new.as_bytes()).into());
                if row.get("access_hash").is_some_and(Value::is_string) {
                    let access = ec2_blob(new)?.get("access").and_then(Value::as_str).map(access_hash);
                    row.insert("access_hash".into(), json!(access));
                }
            }
            engine::replace(tx, CREDENTIAL, cx, &old, row)
        })
        .await?;
    Ok(Reply::ok(json!({"credential": view(&auth, &call, &call.reader(), &row)?})))
}

fn ec2_allow(call: &Call, action: &str) -> Result<()> {
    let asked = json!({"user_id": call.param("user_id")});
    allow(call, action, asked.as_object())
}

fn ec2_view(auth: &Auth, call: &Call, row: &Map) -> Result<Value> {
    let blob = ec2_blob(&open(auth, row)?)?;
    let access = blob.get("access").and_then(Value::as_str).unwrap_or_default();
    let here = format!("{}/v3/users/{}/credentials/OS-EC2/{access}", call.cx.public, call.param("user_id"));
    Ok(json!({
        "user_id": row.get("user_id"), "tenant_id": row.get("project_id"), "access": access, "secret": blob.get("secret"),
        "trust_id": row.get("trust_id"), "links": {"self": here},
    }))
}

async fn ec2_list(call: Call) -> Result<Reply> {
    ec2_allow(&call, "ec2_list_credentials")?;
    let (auth, reader) = (auth(&call)?, call.reader());
    let rows = reader.find(&CREDENTIAL.table, "user_id", call.param("user_id"));
    let ec2 = rows.iter().filter(|r| r.text("type") == "ec2");
    let shown = ec2.map(|r| ec2_view(&auth, &call, object(r)?)).collect::<Result<Vec<Value>>>()?;
    Ok(list(&call, "credentials", shown))
}

async fn ec2_create(call: Call) -> Result<Reply> {
    ec2_allow(&call, "ec2_create_credential")?;
    check_unrestricted(&call, "ec2_create_credential")?;
    let project = need_text(call.object()?, "tenant_id")?.to_owned();
    let user = call.param("user_id").to_owned();
    get(&call.reader(), USER, &user)?;
    // A user makes keys for where it is; an administrator for anywhere, also before the user has a role there: a key gives none.
    let there = grants::projects_of(&mut &call.reader(), Holder::user(&user, call.cloud.db.now())).contains(&project);
    if !there && !call.cx.is_admin() {
        return Err(forbidden("ec2_create_credential"));
    }
    get(&call.reader(), PROJECT, &project)?;
    let blob = json!({"access": base::id::hex(), "secret": super::random_secret(), "trust_id": call.cx.caller.trust_id});
    let input = json!({"user_id": user, "project_id": project, "type": "ec2"});
    let row = insert(&call, input.as_object().cloned().unwrap_or_default(), blob.to_string()).await?;
    Ok(Reply::json(201, json!({"credential": ec2_view(auth(&call)?.as_ref(), &call, &row)?})))
}

fn ec2_find(call: &Call, action: &str) -> Result<Map> {
    ec2_allow(call, action)?;
    let lost = || Error::not_found(format!("Could not find credential: {}.", call.param("access")));
    let found = call.reader().find(&CREDENTIAL.table, "access_hash", &access_hash(call.param("access")));
    let row = found.into_iter().find(|r| r.text("user_id") == call.param("user_id")).ok_or_else(lost)?;
    object(&row).cloned()
}

async fn ec2_show(call: Call) -> Result<Reply> {
    let row = ec2_find(&call, "ec2_get_credential")?;
    Ok(Reply::ok(json!({"credential": ec2_view(auth(&call)?.as_ref(), &call, &row)?})))
}

async fn ec2_delete(call: Call) -> Result<Reply> {
    let row = ec2_find(&call, "ec2_delete_credential")?;
    check_unrestricted(&call, "ec2_delete_credential")?;
    let id = row.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
    call.transact(move |cx, tx| engine::delete(tx, CREDENTIAL, cx, &id)).await?;
    Ok(Reply::empty(204))
}
