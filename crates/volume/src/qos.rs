//! `/qos-specs`: limits as users of types shall have them.
use crate::{
    common::{missing, visible},
    input::{Input, specs},
    listing,
    resources::{QosSpecs, VolumeType},
};
use api::{Access, Call, Error, Reply, Result, Route};
use resource::{Object, Resource as _, Tx, engine};
use serde_json::{Value, json};

pub(crate) fn routes() -> Vec<Route> {
    let admin = |name| Access::Rule(name, "admin");
    let manage = admin("volume_extension:qos_specs_manage");
    let read = admin("volume_extension:qos_specs_manage:get");
    vec![
        Route::new(
            "GET",
            "/v3/qos-specs",
            read,
            |call| async move { listing::reply(QosSpecs::DEF, &call, false, listing::plain) },
        ),
        Route::new("POST", "/v3/qos-specs", manage, create),
        Route::new("GET", "/v3/qos-specs/{id}", read, |call| async move { show(&call) }),
        Route::new("PUT", "/v3/qos-specs/{id}", manage, update),
        Route::new("DELETE", "/v3/qos-specs/{id}", manage, remove),
        Route::new("PUT", "/v3/qos-specs/{id}/delete_keys", manage, delete_keys),
        Route::new("GET", "/v3/qos-specs/{id}/associations", read, associations),
        Route::new("GET", "/v3/qos-specs/{id}/associate", manage, |call| link(call, true)),
        Route::new("GET", "/v3/qos-specs/{id}/disassociate", manage, |call| link(call, false)),
        Route::new("GET", "/v3/qos-specs/{id}/disassociate_all", manage, disassociate_all),
    ]
}

fn links(call: &Call, id: &str) -> Value {
    json!([
        {"rel": "self", "href": format!("{}/v3/qos-specs/{id}", call.cx.public)},
        {"rel": "bookmark", "href": format!("{}/qos-specs/{id}", call.cx.public)},
    ])
}

fn show(call: &Call) -> Result<Reply> {
    let found: Object<QosSpecs> = visible(call, call.param("id"))?;
    let mut body = listing::wrapped(QosSpecs::DEF, call, &found.map, listing::plain);
    body["links"] = links(call, &found.id);
    Ok(Reply::ok(body))
}

/// Everything in the body that is neither name nor consumer is a spec.
async fn create(call: Call) -> Result<Reply> {
    let mut given = call.inner("qos_specs")?.clone();
    let name = Input(&given).required("name")?.trim().to_owned();
    let consumer = Input(&given).choice("consumer", &["front-end", "back-end", "both"])?.unwrap_or("back-end").to_owned();
    given.shift_remove("name");
    given.shift_remove("consumer");
    // Clients also send them in an object of their own.
    if let Some(Value::Object(inner)) = given.shift_remove("specs") {
        given.extend(inner);
    }
    let input = crate::common::map(json!({ "name": name, "consumer": consumer, "specs": specs(&given)? }));
    let row = call.transact(move |cx, tx| engine::create(tx, QosSpecs::DEF, cx, &input)).await?;
    let mut body = listing::wrapped(QosSpecs::DEF, &call, &row, listing::plain);
    body["links"] = links(&call, crate::common::text(&row, "id"));
    Ok(Reply::ok(body))
}

async fn change(call: &Call, with: impl Fn(&mut Tx<'_>, &mut Object<QosSpecs>) -> Result<()> + Send + 'static) -> Result<()> {
    let found: Object<QosSpecs> = visible(call, call.param("id"))?;
    let id = found.id;
    call.transact(move |_, tx| {
        let mut row: Object<QosSpecs> = resource::load(tx, &id)?.ok_or_else(|| missing(QosSpecs::DEF, &id))?;
        with(tx, &mut row)?;
        row.save(tx)
    })
    .await
}

async fn update(call: Call) -> Result<Reply> {
    let mut given = call.inner("qos_specs")?.clone();
    let consumer = Input(&given).choice("consumer", &["front-end", "back-end", "both"])?.map(str::to_owned);
    given.shift_remove("consumer");
    let more = specs(&given)?;
    let shown = call.inner("qos_specs")?.clone();
    change(&call, move |_, row| {
        row.specs.extend(more.clone());
        if let Some(consumer) = &consumer {
            row.consumer.clone_from(consumer);
        }
        Ok(())
    })
    .await?;
    Ok(Reply::ok(json!({ "qos_specs": shown })))
}

async fn delete_keys(call: Call) -> Result<Reply> {
    let keys = call.object()?.get("keys").and_then(Value::as_array).cloned();
    let keys = keys.ok_or_else(|| Error::bad_request("The request body must hold a list 'keys'."))?;
    let keys: Vec<String> = keys.iter().filter_map(|k| k.as_str().map(str::to_owned)).collect();
    change(&call, move |_, row| {
        for key in &keys {
            if row.specs.remove(key).is_none() {
                return Err(Error::bad_request(format!("QoS Specs {} has no spec with key {key}.", row.id)));
            }
        }
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

async fn remove(call: Call) -> Result<Reply> {
    let found: Object<QosSpecs> = visible(&call, call.param("id"))?;
    let id = found.id;
    call.transact(move |cx, tx| engine::delete(tx, QosSpecs::DEF, cx, &id)).await?;
    Ok(Reply::empty(202))
}

async fn associations(call: Call) -> Result<Reply> {
    let found: Object<QosSpecs> = visible(&call, call.param("id"))?;
    let types = call.reader().find(&VolumeType::DEF.table, "qos_specs_id", &found.id);
    let list: Vec<Value> =
        types.iter().map(|t| json!({ "association_type": "volume_type", "name": t.text("name"), "id": t.id() })).collect();
    Ok(Reply::ok(json!({ "qos_associations": list })))
}

async fn link(call: Call, on: bool) -> Result<Reply> {
    let kind = call.cx.query.get("vol_type_id").unwrap_or_default().to_owned();
    if kind.is_empty() {
        return Err(Error::bad_request("Volume Type id must not be None: name it as vol_type_id."));
    }
    change(&call, move |tx, row| {
        let found: Option<Object<VolumeType>> = resource::load(tx, &kind)?;
        let mut found = found.ok_or_else(|| missing(VolumeType::DEF, &kind))?;
        if on && found.qos_specs_id.as_ref().is_some_and(|other| *other != row.id) {
            return Err(Error::bad_request(format!("Type {kind} is already associated with another qos specs.")));
        }
        found.qos_specs_id = on.then(|| row.id.clone());
        found.save(tx)
    })
    .await?;
    Ok(Reply::empty(202))
}

async fn disassociate_all(call: Call) -> Result<Reply> {
    change(&call, move |tx, row| {
        for mut kind in QosSpecs::types(tx, &row.id)? {
            kind.qos_specs_id = None;
            kind.save(tx)?;
        }
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}
