//! Tags of a namespace: the name is all there is of one.
use super::{
    ITEMS, Kind, add, checked_name, item, items::delete_all, items_of, key, namespace, no_item, own_namespace,
    shape::check_writable, view,
};
use crate::{image::text, rest::listing};
use api::{Access, Call, Reply, Route};
use resource::{Error, Map, Result};
use serde_json::{Value, json};

const KIND: Kind = Kind::Tag;

pub(super) fn routes() -> Vec<Route> {
    const READ: Access = Access::Rule("get_metadef", "role:reader");
    const WRITE: Access = Access::Rule("modify_metadef", "role:admin");
    const ALL: &str = "/v2/metadefs/namespaces/{namespace}/tags";
    const ONE: &str = "/v2/metadefs/namespaces/{namespace}/tags/{name}";
    vec![
        Route::new("GET", ALL, READ, list),
        Route::new("POST", ALL, WRITE, create_many),
        Route::new("DELETE", ALL, WRITE, |call| delete_all(KIND, call)),
        Route::new("GET", ONE, READ, show),
        Route::new("POST", ONE, WRITE, create),
        Route::new("PUT", ONE, WRITE, rename),
        Route::new("DELETE", ONE, WRITE, delete),
    ]
}

async fn list(call: Call) -> Result<Reply> {
    let namespace = namespace(&call)?;
    let name = text(&namespace, "namespace");
    let rows = items_of(&call, name, KIND).iter().map(|r| view(r, KIND)).collect();
    Ok(listing("tags", rows, &format!("/v2/metadefs/namespaces/{name}/tags"), "metadefs/tags"))
}

async fn show(call: Call) -> Result<Reply> {
    let namespace = namespace(&call)?;
    let (namespace, name) = (text(&namespace, "namespace"), call.param("name"));
    let row = call.reader().get(&ITEMS, &key(namespace, KIND, name)).ok_or_else(|| no_item(namespace, KIND, name))?;
    Ok(Reply::ok(view(row.value(), KIND)))
}

/// Puts these tags in the place of all, or beside them with `X-Openstack-Append`.
async fn create_many(call: Call) -> Result<Reply> {
    let list = call
        .json()
        .get("tags")
        .and_then(Value::as_array)
        .ok_or_else(|| Error::bad_request("'tags' must be a list of objects."))?;
    let names = list.iter().map(|t| checked_name(&t["name"], 80)).collect::<Result<Vec<String>>>()?;
    let mut seen = std::collections::HashSet::new();
    if let Some(twice) = names.iter().find(|n| !seen.insert(n.as_str())) {
        return Err(Error::conflict(format!("The tag {twice} is given twice.")));
    }
    let append = call.header("x-openstack-append").is_some_and(|v| v.eq_ignore_ascii_case("true"));
    let namespace = call.param("namespace").to_owned();
    let shown = json!({"tags": names.iter().map(|n| json!({"name": n})).collect::<Vec<_>>()});
    call.transact(move |cx, tx| {
        own_namespace(tx, cx, &namespace)?;
        if !append {
            for row in tx.children(&ITEMS, "namespace", &namespace) {
                if row.text("kind") == KIND.name() {
                    tx.delete(&ITEMS, row.id());
                }
            }
        }
        names.iter().try_for_each(|name| add(tx, &namespace, KIND, name, &Map::new()).map(drop))
    })
    .await?;
    Ok(Reply::json(201, shown))
}

async fn create(call: Call) -> Result<Reply> {
    let (namespace, name) = (call.param("namespace").to_owned(), checked_name(&call.param("name").into(), 80)?);
    let row = call
        .transact(move |cx, tx| {
            own_namespace(tx, cx, &namespace)?;
            add(tx, &namespace, KIND, &name, &Map::new())
        })
        .await?;
    Ok(Reply::json(201, view(&row, KIND)))
}

async fn rename(call: Call) -> Result<Reply> {
    let (namespace, name) = (call.param("namespace").to_owned(), call.param("name").to_owned());
    check_writable(call.object()?, KIND.read_only())?;
    let new = checked_name(call.object()?.get("name").unwrap_or(&Value::Null), 80)?;
    let row = call
        .transact(move |cx, tx| {
            own_namespace(tx, cx, &namespace)?;
            let old = tx.get(&ITEMS, &key(&namespace, KIND, &name)).ok_or_else(|| no_item(&namespace, KIND, &name))?;
            let id = key(&namespace, KIND, &new);
            if new != name && tx.get(&ITEMS, &id).is_some() {
                return Err(Error::conflict(format!(
                    "A metadata definition tag with name={new} already exists in namespace={namespace}."
                )));
            }
            let row = item(&namespace, KIND, &new, &Map::new(), tx, Some(&old))?;
            tx.delete(&ITEMS, old.id());
            tx.put(&ITEMS, &id, row.clone());
            Ok(row)
        })
        .await?;
    Ok(Reply::ok(view(&row, KIND)))
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
