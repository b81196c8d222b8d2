//! Making OAuth1 consumers: the secret is shown once.
use super::{allow, auth, created};
use crate::resources::CONSUMER;
use api::{Access, Call, Reply, ReplyBody, Result, Route, dialect::IDENTITY};
use resource::engine;
use serde_json::Value;

pub(super) fn routes() -> Vec<Route> {
    vec![Route::new("POST", "/v3/OS-OAUTH1/consumers", Access::Authenticated, create)]
}

async fn create(call: Call) -> Result<Reply> {
    let input = api::body_of(CONSUMER, &IDENTITY, call.json())?.clone();
    allow(&call, "create_consumer", Some(&input))?;
    let (secrets, secret) = (auth(&call)?.secret_box(), super::random_secret());
    let stored = secret.clone();
    let row = call
        .transact(move |cx, tx| {
            let mut row = resource::create_row(CONSUMER, cx, &input, tx.now)?;
            let id = row.get("id").and_then(Value::as_str).unwrap_or_default();
            let sealed = secrets.seal(&format!("consumer/{id}/secret"), stored.as_bytes());
            row.insert("sealed".into(), sealed.into());
            engine::insert(tx, CONSUMER, cx, row)
        })
        .await?;
    let mut reply = created(CONSUMER, &row, &call);
    if let ReplyBody::Json(body) = &mut reply.body {
        body["consumer"]["secret"] = secret.into();
    }
    Ok(reply)
}
