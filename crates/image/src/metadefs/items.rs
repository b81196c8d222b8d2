//! Properties and objects of a namespace.
use super::{
    ITEMS, Kind, add, checked_name, item, items_of, key, namespace, no_item, own_namespace, shape::check_writable, view,
};
use crate::{image::text, rest::listing};
use api::{Access, Call, Reply, Route};
use resource::{Error, Map, Result};
use serde_json::Value;

pub(super) fn routes() -> Vec<Route> {
    const READ: Access = Access::Rule("get_metadef", "role:reader");
    const WRITE: Access = Access::Rule("modify_metadef", "role:admin");
    let mut routes = Vec::new();
    for (kind, all, one) in [
        (
            Kind::Property,
            "/v2/metadefs/namespaces/{namespace}/properties",
            "/v2/metadefs/namespaces/{namespace}/properties/{name}",
        ),
        (Kind::Object, "/v2/metadefs/namespaces/{namespace}/objects", "/v2/metadefs/namespaces/{namespace}/objects/{name}"),
    ] {
        routes.extend([
            Route::new("GET", all, READ, move |call| list(kind, call)),
            Route::new("POST", all, WRITE, move |call| create(kind, call)),
            Route::new("DELETE", all, WRITE, move |call| delete_all(kind, call)),
            Route::new("GET", one, READ, move |call| show(kind, call)),
            Route::new("PUT", one, WRITE, move |call| update(kind, call)),
            Route::new("DELETE", one, WRITE, move |call| delete(kind, call)),
        ]);
    }
    routes
}

/// Properties are shown as an object by name.
pub(super) fn by_name(rows: &[Value]) -> Value {
    let one = |row: &Value| {
        let mut shown = view(row, Kind::Property);
        if let Some(map) = shown.as_object_mut() {
            map.shift_remove("name");
        }
        (row["name"].as_str().unwrap_or_default().to_owned(), shown)
    };
    rows.iter().map(one).collect::<Map>().into()
}

async fn list(kind: Kind, call: Call) -> Result<Reply> {
    let namespace = namespace(&call)?;
    let name = text(&namespace, "namespace");
    let rows = items_of(&call, name, kind);
    if kind == Kind::Property {
        let mut body = Map::new();
        body.insert("properties".into(), by_name(&rows));
        return Ok(Reply::ok(body.into()));
    }
    let path = format!("/v2/metadefs/namespaces/{name}/objects");
    Ok(listing("objects", rows.iter().map(|r| view(r, kind)).collect(), &path, "metadefs/objects"))
}

async fn show(kind: Kind, call: Call) -> Result<Reply> {
    let namespace = namespace(&call)?;
    let (namespace, name) = (text(&namespace, "namespace"), call.param("name"));
    let row = call.reader().get(&ITEMS, &key(namespace, kind, name)).ok_or_else(|| no_item(namespace, kind, name))?;
    Ok(Reply::ok(view(row.value(), kind)))
}

async fn create(kind: Kind, call: Call) -> Result<Reply> {
    let body = call.object()?.clone();
    check_writable(&body, kind.read_only())?;
    let (namespace, name) = (call.param("namespace").to_owned(), checked_name(body.get("name").unwrap_or(&Value::Null), 80)?);
    let row = call
        .transact(move |cx, tx| {
            own_namespace(tx, cx, &namespace)?;
            add(tx, &namespace, kind, &name, &body)
        })
        .await?;
    Ok(Reply::json(201, view(&row, kind)))
}

async fn update(kind: Kind, call: Call) -> Result<Reply> {
    let body = call.object()?.clone();
    check_writable(&body, kind.read_only())?;
    let new = checked_name(body.get("name").unwrap_or(&Value::Null), 80)?;
    let (namespace, name) = (call.param("namespace").to_owned(), call.param("name").to_owned());
    let row = call
        .transact(move |cx, tx| {
            own_namespace(tx, cx, &namespace)?;
            let old = tx.get(&ITEMS, &key(&namespace, kind, &name)).ok_or_else(|| no_item(&namespace, kind, &name))?;
            if new != name {
                let what = kind.name();
                if tx.get(&ITEMS, &key(&namespace, kind, &new)).is_some() {
                    return Err(Error::conflict(format!(
                        "A metadata definition {what} with name={new} already exists in namespace={namespace}."
                    )));
                }
                tx.delete(&ITEMS, old.id());
            }
            let row = item(&namespace, kind, &new, &body, tx, Some(&old))?;
            tx.put(&ITEMS, &key(&namespace, kind, &new), row.clone());
            Ok(row)
        })
        .await?;
    Ok(Reply::ok(view(&row, kind)))
}

async fn delete(kind: Kind, call: Call) -> Result<Reply> {
    let (namespace, name) = (call.param("namespace").to_owned(), call.param("name").to_owned());
    call.transact(move |cx, tx| {
        own_namespace(tx, cx, &namespace)?;
        let id = key(&namespace, kind, &name);
        tx.get(&ITEMS, &id).ok_or_else(|| no_item(&namespace, kind, &name))?;
        tx.delete(&ITEMS, &id);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

pub(super) async fn delete_all(kind: Kind, call: Call) -> Result<Reply> {
    let namespace = call.param("namespace").to_owned();
    call.transact(move |cx, tx| {
        own_namespace(tx, cx, &namespace)?;
        for row in tx.children(&ITEMS, "namespace", &namespace) {
            if row.text("kind") == kind.name() {
                tx.delete(&ITEMS, row.id());
            }
        }
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}
