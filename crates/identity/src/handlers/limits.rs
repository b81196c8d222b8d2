//! Limits are made many at once.
use super::{allow, auth, view};
use crate::resources::{LIMIT, REGISTERED_LIMIT};
use api::{Access, Call, Cx, Error, Map, Reply, Result, Route};
use resource::{ResourceDef, Tx, engine};
use serde_json::{Value, json};

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new("POST", "/v3/registered_limits", Access::Authenticated, |call| create(REGISTERED_LIMIT, call)),
        Route::new("POST", "/v3/limits", Access::Authenticated, |call| create(LIMIT, call)),
        Route::new("GET", "/v3/limits/model", Access::Rule("identity:get_limit_model", "any"), model),
    ]
}

async fn create(def: &'static ResourceDef, call: Call) -> Result<Reply> {
    allow(&call, &format!("create_{}", def.name), None)?;
    let wrong = || Error::bad_request(format!("The request body must be a JSON object with a list '{}'.", def.plural));
    let list = call.object()?.get(def.plural).and_then(Value::as_array).filter(|l| !l.is_empty()).ok_or_else(wrong)?;
    let inputs = list.iter().map(|v| v.as_object().cloned().ok_or_else(wrong)).collect::<Result<Vec<Map>>>()?;
    // Those of domains first: limits of projects must fit them, wherever they stand in the list.
    let mut order: Vec<usize> = (0..inputs.len()).collect();
    order.sort_by_key(|i| inputs[*i].contains_key("project_id"));
    let make = move |cx: &Cx, tx: &mut Tx<'_>| {
        let mut made: Vec<(usize, Map)> = Vec::new();
        for i in &order {
            made.push((*i, engine::create(tx, def, cx, &inputs[*i])?));
        }
        made.sort_by_key(|(i, _)| *i);
        Ok(made.into_iter().map(|(_, row)| row).collect::<Vec<Map>>())
    };
    let rows = call.transact(make).await?;
    let reader = call.reader();
    let shown: Vec<Value> = rows.iter().map(|r| view(def, r, &call, &reader)).collect();
    Ok(Reply::json(201, json!({def.plural: shown})))
}

async fn model(call: Call) -> Result<Reply> {
    let (name, description) = auth(&call)?.config.limit_model.told();
    Ok(Reply::ok(json!({"model": {"name": name, "description": description}})))
}
