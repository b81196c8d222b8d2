//! Key pairs (Nova api-ref, `os-keypairs`). They belong to users, not to projects; an administrator may act for others since 2.10.
use super::{check_query, page, ssh};
use crate::{
    common::{at, by_index, int, map, micros, next_number, object, text},
    quota,
    resources::{Keypair, keypair},
    shape::{self, Shape, opt, req},
};
use api::{Access, Call, Cx, Error, Map, Reply, Result, Route};
use resource::{Object, Resource, engine};
use serde_json::{Value, json};

const OLD_NAME: Shape = Shape::Checked { min: 1, max: 255, check: is_old_name, what: NAME_RULE };
const NAME: Shape = Shape::Checked { min: 1, max: 255, check: is_new_name, what: NAME_RULE };
const NAME_RULE: &str =
    "An invalid 'name' value was provided. The name must be: printable characters. Can not start or end with whitespace.";
const TEXT: Shape = Shape::Text { min: 0, max: 65_535 };
const CREATE: Shape = Shape::Object(&[req(
    "keypair",
    &Shape::Object(&[
        req("name", &OLD_NAME).until(91),
        req("name", &NAME).since(92),
        opt("public_key", &TEXT).until(91),
        req("public_key", &TEXT).since(92),
        opt("type", &Shape::Choice(&["ssh", "x509"])).since(2),
        opt("user_id", &TEXT).since(10),
    ]),
)]);

fn is_old_name(name: &str) -> bool {
    shape::is_name(name) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_- ".contains(&b))
}
fn is_new_name(name: &str) -> bool {
    shape::is_name(name) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-@. ".contains(&b))
}

fn missing(user: &str, name: &str) -> Error {
    Error::not_found(format!("Keypair {name} not found for user {user}"))
}

fn taken(name: &str) -> Error {
    Error::conflict(format!("Key pair '{name}' already exists."))
}

/// Whose key pairs are meant, if the caller may act for them.
fn user(call: &Call, asked: Option<&str>, rule: &str) -> Result<String> {
    let cx = &call.cx;
    let user = asked.filter(|_| at(cx, 10)).unwrap_or(cx.caller.user_id()).to_owned();
    call.require(rule, Some(&map(json!({ "user_id": user }))))?;
    Ok(user)
}

fn fields(row: &Map, names: &[&str]) -> Map {
    names.iter().map(|n| ((*n).to_owned(), row.get(*n).cloned().unwrap_or(Value::Null))).collect()
}

/// The attributes that every view has; the type came with 2.2.
fn view(cx: &Cx, row: &Map, more: &[&str]) -> Map {
    let mut out = fields(row, &["name", "public_key", "fingerprint"]);
    if at(cx, 2) {
        out.insert("type".into(), text(row, "type").into());
    }
    out.extend(fields(row, more));
    out
}

async fn list(call: Call) -> Result<Reply> {
    let cx = &call.cx;
    check_query(cx, 75, &["user_id", "limit", "marker"])?;
    let user = user(&call, cx.query.get("user_id"), "os_compute_api:os-keypairs:index")?;
    let reader = call.reader();
    let mut rows = by_index(&reader, &Keypair::DEF.table, "user_id", &user);
    rows.sort_by(|a, b| a.text("name").cmp(b.text("name")));
    let mut link = None;
    if at(cx, 35) {
        (rows, link) = page(cx, rows, "/v2.1/os-keypairs", |r| r.text("name"))?;
    }
    let list: Vec<Value> = rows.iter().map(|r| json!({ "keypair": view(cx, object(r), &[]) })).collect();
    let mut body = map(json!({ "keypairs": list }));
    if let Some(link) = link {
        body.insert("keypairs_links".into(), link);
    }
    Ok(Reply::ok(body.into()))
}

async fn show(call: Call) -> Result<Reply> {
    let cx = &call.cx;
    check_query(cx, 75, &["user_id"])?;
    let user = user(&call, cx.query.get("user_id"), "os_compute_api:os-keypairs:show")?;
    let name = call.param("id");
    let row = call.reader().get(&Keypair::DEF.table, &keypair::key(&user, name)).ok_or_else(|| missing(&user, name))?;
    let row = object(&row);
    let mut out = view(cx, row, &["user_id"]);
    out.extend(map(json!({
        "id": int(row, "number"), "created_at": micros(row, "created_at"), "updated_at": null, "deleted": false, "deleted_at": null,
    })));
    Ok(Reply::ok(json!({ "keypair": out })))
}

async fn create(call: Call) -> Result<Reply> {
    CREATE.check(call.json(), &call.cx)?;
    let input = call.inner("keypair")?.clone();
    let user = user(&call, input.get("user_id").and_then(Value::as_str), "os_compute_api:os-keypairs:create")?;
    let name = text(&input, "name").to_owned();
    let kind = input.get("type").and_then(Value::as_str).unwrap_or("ssh").to_owned();
    if call.reader().get(&Keypair::DEF.table, &keypair::key(&user, &name)).is_some() {
        // Known before the work of making a key is done.
        return Err(taken(&name));
    }
    let (public_key, fingerprint, private) = match input.get("public_key").and_then(Value::as_str) {
        Some(public) => (public.to_owned(), ssh::fingerprint_of(&kind, public)?, None),
        None => {
            let (kind, owner) = (kind.clone(), user.clone());
            let made = tokio::task::spawn_blocking(move || ssh::generate(&kind, &owner)).await;
            let new = made.map_err(|e| Error::internal(format!("making a key pair: {e}")))??;
            (new.public, new.fingerprint, Some(new.private))
        }
    };
    let body = Keypair { name: name.clone(), user_id: user.clone(), kind, public_key, fingerprint, number: 0 };
    let row = call
        .transact(move |cx, tx| {
            let id = keypair::key(&user, &body.name);
            let project = cx.caller.project_id().unwrap_or_default();
            let limit = quota::limit(tx, cx, project, "key_pairs");
            if limit >= 0 && engine::usage(tx, &user, "compute", "key_pairs") >= limit {
                return Err(Error::over_quota("Quota exceeded, too many key pairs."));
            }
            engine::release(tx, &user, "compute", &[("key_pairs", -1)]);
            let number = next_number(tx, "keypairs");
            let row = Object::new(id.as_str(), None, Keypair { number, ..body.clone() }, tx.now, &cx.request_id).into_map()?;
            tx.claim(&Keypair::DEF.table, &id, Value::Object(row.clone())).map_err(|_| taken(&body.name))?;
            Ok(row)
        })
        .await?;
    let mut out = view(&call.cx, &row, &["user_id"]);
    if let Some(private) = private {
        out.insert("private_key".into(), private.into());
    }
    Ok(Reply::json(if at(&call.cx, 2) { 201 } else { 200 }, json!({ "keypair": out })))
}

async fn delete(call: Call) -> Result<Reply> {
    let cx = &call.cx;
    check_query(cx, 75, &["user_id"])?;
    let user = user(&call, cx.query.get("user_id"), "os_compute_api:os-keypairs:delete")?;
    let name = call.param("id").to_owned();
    call.transact(move |_, tx| {
        let id = keypair::key(&user, &name);
        tx.get(&Keypair::DEF.table, &id).ok_or_else(|| missing(&user, &name))?;
        engine::release(tx, &user, "compute", &[("key_pairs", 1)]);
        tx.delete(&Keypair::DEF.table, &id);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(if at(&call.cx, 2) { 204 } else { 202 }))
}

pub(super) fn routes() -> Vec<Route> {
    let (all, one) = ("/v2.1/os-keypairs", "/v2.1/os-keypairs/{id}");
    // Whose they are is in the query or in the body: the handlers ask the rules.
    let any = Access::Authenticated;
    vec![
        Route::new("GET", all, any, list),
        Route::new("POST", all, any, create),
        Route::new("GET", one, any, show),
        Route::new("DELETE", one, any, delete),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_two_alphabets() {
        assert!(is_old_name("my key-1_x") && !is_old_name("a@b.c") && !is_old_name(r"key_/.\@:") && !is_old_name(" a"));
        assert!(is_new_name("a@b.c") && !is_new_name("a/b") && !is_new_name(""));
    }
}
