//! Namespaces themselves.
use super::{
    ITEMS, Kind, NAMESPACES, NOT_SENT, add, checked_name, items_of, namespace, own_namespace, sees, shape::check_writable, view,
};
use crate::{
    image::text,
    rest::{require, stamp},
};
use api::{Access, Call, Reply, Route};
use resource::{Error, Map, Result};
use serde_json::{Value, json};

pub(super) fn routes() -> Vec<Route> {
    const ALL: &str = "/v2/metadefs/namespaces";
    const ONE: &str = "/v2/metadefs/namespaces/{namespace}";
    vec![
        Route::new("GET", ALL, Access::Rule("get_metadef", "role:reader"), list),
        Route::new("POST", ALL, Access::Rule("modify_metadef", "role:admin"), create),
        Route::new("GET", ONE, Access::Rule("get_metadef", "role:reader"), show),
        Route::new("PUT", ONE, Access::Rule("modify_metadef", "role:admin"), update),
        Route::new("DELETE", ONE, Access::Rule("modify_metadef", "role:admin"), delete),
    ]
}

/// The namespace without what it holds.
fn base(row: &Map) -> Map {
    let mut out = Map::new();
    for name in ["namespace", "display_name", "description", "visibility", "protected", "owner"] {
        if let Some(value) = row.get(name).filter(|v| !v.is_null()) {
            out.insert(name.into(), value.clone());
        }
    }
    out.insert("created_at".into(), stamp(row, "created_at"));
    out.insert("updated_at".into(), stamp(row, "updated_at"));
    out.insert("self".into(), format!("/v2/metadefs/namespaces/{}", text(row, "namespace")).into());
    out.insert("schema".into(), "/v2/schemas/metadefs/namespace".into());
    out
}

fn associations(call: &Call, name: &str) -> Vec<Value> {
    items_of(call, name, Kind::ResourceType).iter().map(|r| view(r, Kind::ResourceType)).collect()
}

fn whole(call: &Call, row: &Map) -> Value {
    let name = text(row, "namespace");
    let mut out = base(row);
    let kinds = [("objects", Kind::Object), ("tags", Kind::Tag)];
    for (plural, kind) in kinds {
        let items: Vec<Value> = items_of(call, name, kind).iter().map(|r| view(r, kind)).collect();
        if !items.is_empty() {
            out.insert(plural.into(), items.into());
        }
    }
    let properties = items_of(call, name, Kind::Property);
    if !properties.is_empty() {
        out.insert("properties".into(), super::items::by_name(&properties));
    }
    let types = associations(call, name);
    if !types.is_empty() {
        out.insert("resource_type_associations".into(), types.into());
    }
    out.into()
}

async fn list(call: Call) -> Result<Reply> {
    let query = &call.cx.query;
    let reader = call.reader();
    let types: Vec<&str> = query.get("resource_types").into_iter().flat_map(|t| t.split(',')).collect();
    let has_type = |name: &str| {
        let rows = reader.find(&ITEMS, "namespace", name);
        rows.iter().any(|r| r.text("kind") == "resource_type" && types.contains(&r.text("name")))
    };
    let mut rows: Vec<Map> =
        reader.all(&NAMESPACES).filter_map(|r| r.value().as_object()).filter(|r| sees(r, &call.cx)).cloned().collect();
    rows.retain(|r| query.get("visibility").is_none_or(|v| text(r, "visibility") == v));
    if !types.is_empty() {
        rows.retain(|r| has_type(text(r, "namespace")));
    }
    drop(reader);
    let key = match query.get("sort_key") {
        None => "created_at",
        Some(key) if matches!(key, "namespace" | "created_at" | "updated_at") => key,
        Some(key) => return Err(Error::bad_request(format!("Namespaces cannot be sorted by {key}."))),
    };
    rows.sort_by(|a, b| match key {
        "namespace" => text(a, key).cmp(text(b, key)),
        key => a.get(key).and_then(Value::as_i64).cmp(&b.get(key).and_then(Value::as_i64)),
    });
    if query.get("sort_dir").unwrap_or("desc") == "desc" {
        rows.reverse();
    }
    if let Some(marker) = query.get("marker") {
        let at = rows.iter().position(|r| text(r, "namespace") == marker);
        let at = at.ok_or_else(|| Error::bad_request(format!("marker [{marker}] not found")))?;
        rows.drain(..=at);
    }
    let limit = query
        .get("limit")
        .map_or(Ok(25), str::parse::<usize>)
        .map_err(|_| Error::bad_request("limit param must be an integer"))?;
    let limit = limit.min(1000);
    let next = (rows.len() > limit && limit > 0).then(|| text(&rows[limit - 1], "namespace").to_owned());
    rows.truncate(limit);
    let shown: Vec<Value> = rows
        .iter()
        .map(|row| {
            let mut out = base(row);
            out.insert("resource_type_associations".into(), associations(&call, text(row, "namespace")).into());
            out.into()
        })
        .collect();
    let mut reply = crate::rest::listing("namespaces", shown, "/v2/metadefs/namespaces", "metadefs/namespaces");
    if let (Some(marker), api::ReplyBody::Json(Value::Object(body))) = (next, &mut reply.body) {
        body.insert("next".into(), format!("/v2/metadefs/namespaces?limit={limit}&marker={marker}").into());
    }
    Ok(reply)
}

async fn show(call: Call) -> Result<Reply> {
    let row = namespace(&call)?;
    let mut shown = whole(&call, &row);
    // Names of properties as an image or a flavor bears them.
    if let Some(kind) = call.cx.query.get("resource_type") {
        let prefix = associations(&call, text(&row, "namespace")).iter().find(|t| t["name"] == kind).map(|t| t["prefix"].clone());
        if let (Some(Value::String(prefix)), Some(Value::Object(properties))) = (prefix, shown.get_mut("properties")) {
            *properties =
                std::mem::take(properties).into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)).collect();
        }
    }
    Ok(Reply::ok(shown))
}

/// What a body may say of the namespace itself, checked.
fn fields(body: &Map) -> Result<Map> {
    check_writable(body, NOT_SENT)?;
    let mut out = Map::new();
    for (name, value) in body {
        let text_of = |max: usize| value.as_str().is_some_and(|s| s.chars().count() <= max);
        let fits = match name.as_str() {
            "namespace" => {
                checked_name(value, 80)?;
                true
            }
            "display_name" => text_of(80),
            "description" => text_of(500),
            "visibility" => matches!(value.as_str(), Some("public" | "private")),
            "protected" => value.is_boolean(),
            "owner" => text_of(255),
            "objects" | "properties" | "tags" | "resource_type_associations" => continue,
            unknown => {
                return Err(Error::bad_request(format!("Additional properties are not allowed ('{unknown}' was unexpected).")));
            }
        };
        if !fits {
            return Err(Error::bad_request(format!("Invalid value of '{name}': {value}.")));
        }
        out.insert(name.clone(), value.clone());
    }
    Ok(out)
}

/// What a new namespace holds from the start.
fn contents(body: &Map) -> Result<Vec<(Kind, String, Map)>> {
    let mut out = Vec::new();
    for (plural, kind) in [("objects", Kind::Object), ("tags", Kind::Tag), ("resource_type_associations", Kind::ResourceType)] {
        let list =
            body.get(plural).map(|v| v.as_array().ok_or_else(|| Error::bad_request(format!("'{plural}' must be a list."))));
        for item in list.transpose()?.into_iter().flatten() {
            let item = item.as_object().ok_or_else(|| Error::bad_request(format!("'{plural}' must hold objects.")))?;
            out.push((kind, checked_name(item.get("name").unwrap_or(&Value::Null), 80)?, item.clone()));
        }
    }
    let properties =
        body.get("properties").map(|v| v.as_object().ok_or_else(|| Error::bad_request("'properties' must be an object.")));
    for (name, property) in properties.transpose()?.into_iter().flatten() {
        let property = property.as_object().ok_or_else(|| Error::bad_request("'properties' must hold objects."))?;
        out.push((Kind::Property, checked_name(&name.as_str().into(), 80)?, property.clone()));
    }
    Ok(out)
}

async fn create(call: Call) -> Result<Reply> {
    let body = call.object()?;
    let name = checked_name(body.get("namespace").unwrap_or(&Value::Null), 80)?;
    let (fields, contents) = (fields(body)?, contents(body)?);
    let row = call
        .transact(move |cx, tx| {
            if tx.get(&NAMESPACES, &name).is_some() {
                return Err(Error::conflict(format!("The metadata definition namespace={name} already exists.")));
            }
            let mut row = fields.clone();
            row.entry("visibility").or_insert_with(|| "private".into());
            row.entry("protected").or_insert_with(|| false.into());
            let owner = row.entry("owner").or_insert_with(|| cx.caller.project_id().into()).clone();
            row.insert("project_id".into(), owner);
            row.insert("v".into(), 1.into());
            row.insert("created_at".into(), tx.now.0.into());
            row.insert("updated_at".into(), tx.now.0.into());
            tx.put(&NAMESPACES, &name, row.clone().into());
            for (kind, item, body) in &contents {
                add(tx, &name, *kind, item, body)?;
            }
            Ok(row)
        })
        .await?;
    let location = format!("{}/v2/metadefs/namespaces/{}", call.cx.public, text(&row, "namespace"));
    Ok(Reply::json(201, whole(&call, &row)).header("location", location))
}

async fn update(call: Call) -> Result<Reply> {
    require(&call.cx, "modify_metadef", None)?;
    let name = call.param("namespace").to_owned();
    let fields = fields(call.object()?)?;
    let row = call
        .transact(move |cx, tx| {
            let mut row = own_namespace(tx, cx, &name)?;
            row.extend(fields.clone());
            if let Some(owner) = fields.get("owner") {
                row.insert("project_id".into(), owner.clone());
            }
            row.insert("updated_at".into(), tx.now.0.into());
            let new = text(&row, "namespace").to_owned();
            if new != name {
                if tx.get(&NAMESPACES, &new).is_some() {
                    return Err(Error::conflict(format!("The metadata definition namespace={new} already exists.")));
                }
                for item in tx.children(&ITEMS, "namespace", &name) {
                    let mut moved = item.value().clone();
                    moved["namespace"] = json!(new);
                    let rest = item.id().strip_prefix(&format!("{name}/")).unwrap_or_default().to_owned();
                    tx.delete(&ITEMS, item.id());
                    tx.put(&ITEMS, &format!("{new}/{rest}"), moved);
                }
                tx.delete(&NAMESPACES, &name);
            }
            tx.put(&NAMESPACES, &new, row.clone().into());
            Ok(row)
        })
        .await?;
    Ok(Reply::ok(whole(&call, &row)))
}

async fn delete(call: Call) -> Result<Reply> {
    let name = call.param("namespace").to_owned();
    call.transact(move |cx, tx| {
        let row = own_namespace(tx, cx, &name)?;
        if row.get("protected") == Some(&Value::Bool(true)) {
            return Err(Error::forbidden(format!("Metadata definition namespace {name} is protected and cannot be deleted.")));
        }
        for item in tx.children(&ITEMS, "namespace", &name) {
            tx.delete(&ITEMS, item.id());
        }
        tx.delete(&NAMESPACES, &name);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}
