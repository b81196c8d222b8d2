//! Roles that other roles bring with them.
use super::{get, object};
use crate::{
    resources::ROLE,
    rows::{IMPLIED, Rows as _, text},
};
use api::{Access, Call, Error, Reply, Result, Route};
use resource::{Reader, engine};
use serde_json::{Value, json};

pub(super) fn routes() -> Vec<Route> {
    let reads = |name| Access::Rule(name, "rule:identity:system_reader");
    let writes = |name| Access::Rule(name, "rule:identity:cloud_admin");
    vec![
        Route::new("GET", "/v3/roles/{prior}/implies", reads("identity:list_implied_roles"), of_role),
        Route::new("PUT", "/v3/roles/{prior}/implies/{implied}", writes("identity:create_implied_role"), create),
        Route::new("GET", "/v3/roles/{prior}/implies/{implied}", reads("identity:get_implied_role"), show),
        Route::new("HEAD", "/v3/roles/{prior}/implies/{implied}", reads("identity:check_implied_role"), check),
        Route::new("DELETE", "/v3/roles/{prior}/implies/{implied}", writes("identity:delete_implied_role"), delete),
        Route::new("GET", "/v3/role_inferences", reads("identity:list_role_inference_rules"), all),
    ]
}

fn key(call: &Call) -> String {
    format!("{}:{}", call.param("prior"), call.param("implied"))
}

/// A role in short.
fn brief(call: &Call, reader: &Reader<'_>, id: &str) -> Result<Value> {
    let row = get(reader, ROLE, id)?;
    let mut out = json!({"id": id, "name": row.get("name"), "links": {"self": format!("{}/v3/roles/{id}", call.cx.public)}});
    if let Some(domain) = row.get("domain_id").filter(|d| !d.is_null()) {
        out["domain_id"] = domain.clone();
    }
    Ok(out)
}

fn implies(call: &Call, reader: &Reader<'_>, prior: &str) -> Result<Value> {
    let rules = reader.find(&IMPLIED, "prior_role_id", prior);
    let implied = rules.iter().map(|r| brief(call, reader, r.text("implied_role_id"))).collect::<Result<Vec<Value>>>()?;
    Ok(json!({"prior_role": brief(call, reader, prior)?, "implies": implied}))
}

async fn of_role(call: Call) -> Result<Reply> {
    let body = implies(&call, &call.reader(), call.param("prior"))?;
    let here = call.here();
    Ok(Reply::ok(json!({"role_inference": body, "links": {"self": here}})))
}

fn one(call: &Call) -> Result<Value> {
    let reader = call.reader();
    if reader.get(&IMPLIED, &key(call)).is_none() {
        let (prior, implied) = (call.param("prior"), call.param("implied"));
        return Err(Error::not_found(format!("Could not find implied role: {prior} does not imply {implied}.")));
    }
    let rule = json!({"prior_role": brief(call, &reader, call.param("prior"))?, "implies": brief(call, &reader, call.param("implied"))?});
    Ok(json!({"role_inference": rule, "links": {"self": call.here()}}))
}

async fn show(call: Call) -> Result<Reply> {
    Ok(Reply::ok(one(&call)?))
}

async fn check(call: Call) -> Result<Reply> {
    one(&call).map(|_| Reply::empty(204))
}

async fn create(call: Call) -> Result<Reply> {
    let (prior, implied, key) = (call.param("prior").to_owned(), call.param("implied").to_owned(), key(&call));
    call.transact(move |_, tx| {
        let roles = [&prior, &implied].map(|id| tx.row(&ROLE.table, id).ok_or_else(|| engine::not_found(ROLE, id)));
        let [Ok(from), Ok(to)] = &roles else {
            return Err(roles.into_iter().find_map(Result::err).unwrap_or_else(|| Error::internal("a role is missing")));
        };
        if prior == implied || object(to)?.get("name").and_then(Value::as_str) == Some("admin") {
            return Err(Error::forbidden(format!("{implied} cannot be an implied role.")));
        }
        if text(from, "domain_id").is_none() && text(to, "domain_id").is_some() {
            return Err(Error::forbidden(format!("Role {prior} is global and cannot imply {implied}, which is of a domain.")));
        }
        tx.put(&IMPLIED, &key, json!({"prior_role_id": prior, "implied_role_id": implied, "v": 1}));
        Ok(())
    })
    .await?;
    Ok(Reply::json(201, one(&call)?))
}

async fn delete(call: Call) -> Result<Reply> {
    one(&call)?;
    let key = key(&call);
    call.transact(move |_, tx| {
        tx.delete(&IMPLIED, &key);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

async fn all(call: Call) -> Result<Reply> {
    let reader = call.reader();
    let mut priors: Vec<String> = reader.all(&IMPLIED).map(|r| r.text("prior_role_id").to_owned()).collect();
    priors.dedup();
    let rules = priors.iter().map(|prior| implies(&call, &reader, prior)).collect::<Result<Vec<Value>>>()?;
    Ok(Reply::ok(json!({"role_inferences": rules, "links": {"self": call.here()}})))
}
