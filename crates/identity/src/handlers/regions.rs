//! `PUT /v3/regions/{id}`: a region with an id that the caller chose.
use super::{allow, created};
use crate::resources::REGION;
use api::{Access, Call, Error, Reply, Result, Route, dialect::IDENTITY};
use resource::engine;

pub(super) fn routes() -> Vec<Route> {
    vec![Route::new("PUT", "/v3/regions/{id}", Access::Authenticated, put)]
}

async fn put(call: Call) -> Result<Reply> {
    let mut input = api::body_of(REGION, &IDENTITY, call.json())?.clone();
    let id = call.param("id").to_owned();
    allow(&call, "create_region", Some(&input))?;
    if input.get("id").is_some_and(|v| v.as_str() != Some(&id)) {
        return Err(Error::bad_request(format!("Conflicting region IDs specified: the body names another than {id}.")));
    }
    input.insert("id".into(), id.into());
    let row = call.transact(move |cx, tx| engine::create(tx, REGION, cx, &input)).await?;
    Ok(created(REGION, &row, &call))
}
