//! Resource types, and which of them a namespace is for.
use super::{ITEMS, Kind, add, checked_name, items_of, key, namespace, no_item, own_namespace, shape::check_writable, view};
use crate::image::text;
use api::{Access, Call, Reply, Route};
use resource::Result;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const KIND: Kind = Kind::ResourceType;
/// Types that are known before any namespace names them.
const KNOWN: [&str; 6] = [
    "OS::Cinder::Volume",
    "OS::Glance::Image",
    "OS::Nova::Aggregate",
    "OS::Nova::Flavor",
    "OS::Nova::Server",
    "OS::Trove::Instance",
];
/// The known ones exist since always.
const EPOCH: &str = "2014-08-28T17:13:06Z";

pub(super) fn routes() -> Vec<Route> {
    const READ: Access = Access::Rule("get_metadef", "role:reader");
    const WRITE: Access = Access::Rule("modify_metadef", "role:admin");
    const ALL: &str = "/v2/metadefs/namespaces/{namespace}/resource_types";
    vec![
        Route::new("GET", "/v2/metadefs/resource_types", READ, types),
        Route::new("GET", ALL, READ, list),
        Route::new("POST", ALL, WRITE, create),
        Route::new("DELETE", "/v2/metadefs/namespaces/{namespace}/resource_types/{name}", WRITE, delete),
    ]
}

async fn types(call: Call) -> Result<Reply> {
    let mut all: BTreeMap<String, Value> =
        KNOWN.iter().map(|name| ((*name).to_owned(), json!({"name": name, "created_at": EPOCH, "updated_at": EPOCH}))).collect();
    for row in call.reader().all(&ITEMS).filter(|r| r.text("kind") == KIND.name()) {
        all.entry(row.text("name").to_owned()).or_insert_with(|| {
            let whole = view(row.value(), KIND);
            json!({"name": whole["name"], "created_at": whole["created_at"], "updated_at": whole["updated_at"]})
        });
    }
    Ok(Reply::ok(json!({"resource_types": all.into_values().collect::<Vec<_>>()})))
}

async fn list(call: Call) -> Result<Reply> {
    let namespace = namespace(&call)?;
    let rows: Vec<Value> = items_of(&call, text(&namespace, "namespace"), KIND).iter().map(|r| view(r, KIND)).collect();
    Ok(Reply::ok(json!({"resource_type_associations": rows})))
}

async fn create(call: Call) -> Result<Reply> {
    let body = call.object()?.clone();
    check_writable(&body, KIND.read_only())?;
    let (namespace, name) = (call.param("namespace").to_owned(), checked_name(body.get("name").unwrap_or(&Value::Null), 80)?);
    let row = call
        .transact(move |cx, tx| {
            own_namespace(tx, cx, &namespace)?;
            add(tx, &namespace, KIND, &name, &body)
        })
        .await?;
    Ok(Reply::json(201, view(&row, KIND)))
}

async fn delete(call: Call) -> Result<Reply> {
    let (namespace, name) = (call.param("namespace").to_owned(), call.param("name").to_owned());
    call.transact(move |cx, tx| {
        own_namespace(tx, cx, &namespace)?;
        let id = key(&namespace, KIND, &name);
        tx.get(&ITEMS, &id).ok_or_else(|| no_item(&namespace, KIND, &name))?;
        tx.delete(&ITEMS, &id);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}
