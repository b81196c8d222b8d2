//! Limits are made many at once.
use super::{allow, view};
use crate::resources::{LIMIT, REGISTERED_LIMIT};
use api::{Access, Call, Error, Map, Reply, Result, Route};
use resource::{ResourceDef, engine};
use serde_json::{Value, json};

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new("POST", "/v3/registered_limits", Access::Authenticated, |call| create(REGISTERED_LIMIT, call)),
        Route::new("POST", "/v3/limits", Access::Authenticated, |call| create(LIMIT, call)),
        Route::new("GET", "/v3/limits/model", Access::Authenticated, model),
    ]
}

async fn create(def: &'static ResourceDef, call: Call) -> Result<Reply> {
    allow(&call, &format!("create_{}", def.name), None)?;
    let wrong = || Error::bad_request(format!("The request body must be a JSON object with a list '{}'.", def.plural));
    let list = call.object()?.get(def.plural).and_then(Value::as_array).filter(|l| !l.is_empty()).ok_or_else(wrong)?;
    let inputs = list.iter().map(|v| v.as_object().cloned().ok_or_else(wrong)).collect::<Result<Vec<Map>>>()?;
    let rows =
        call.transact(move |cx, tx| inputs.iter().map(|i| engine::create(tx, def, cx, i)).collect::<Result<Vec<Map>>>()).await?;
    let reader = call.reader();
    let shown: Vec<Value> = rows.iter().map(|r| view(def, r, &call, &reader)).collect();
    Ok(Reply::json(201, json!({def.plural: shown})))
}

async fn model(_call: Call) -> Result<Reply> {
    let description = "Limit enforcement and validation does not take project hierarchy into consideration.";
    Ok(Reply::ok(json!({"model": {"name": "flat", "description": description}})))
}
