//! Metadata definitions: namespaces of properties, objects and tags that dashboards offer (api-ref `image/v2/metadefs`).
//!
//! A namespace is a row; what it holds are rows of one table, `<namespace>/<kind>/<name>`, that go with it.
mod items;
mod namespaces;
mod resource_types;
mod shape;
mod tags;

use crate::{
    image::is_owner,
    rest::{require, stamp},
};
use api::{Call, Route};
use resource::{Cx, Error, Map, Result, Tx};
use serde_json::{Value, json};
use store::{Index, Row, Table};

pub(crate) static NAMESPACES: Table = Table { name: "image/metadef_namespaces", indexes: &[] };
pub(crate) static ITEMS: Table =
    Table { name: "image/metadef_items", indexes: &[Index { name: "namespace", path: "/namespace" }] };

pub(crate) fn routes() -> Vec<Route> {
    [namespaces::routes(), items::routes(), tags::routes(), resource_types::routes()].into_iter().flatten().collect()
}

/// What a namespace holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Property,
    Object,
    Tag,
    ResourceType,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Property => "property",
            Self::Object => "object",
            Self::Tag => "tag",
            Self::ResourceType => "resource_type",
        }
    }
    /// What a client may say of one, besides its name.
    fn attributes(self) -> shape::Attributes {
        match self {
            Self::Property => shape::PROPERTY,
            Self::Object => shape::OBJECT,
            Self::Tag => &[],
            Self::ResourceType => shape::RESOURCE_TYPE,
        }
    }
    fn required(self) -> &'static [&'static str] {
        match self {
            Self::Property => shape::PROPERTY_REQUIRED,
            Self::Object | Self::Tag | Self::ResourceType => &[],
        }
    }
    /// What only the service sets; a client that sends it is told.
    fn read_only(self) -> &'static [&'static str] {
        match self {
            Self::Object => NOT_SENT,
            Self::Property | Self::Tag | Self::ResourceType => &["created_at", "updated_at"],
        }
    }
}

/// What only the service sets of a namespace and of an object.
const NOT_SENT: &[&str] = &["self", "schema", "created_at", "updated_at"];

fn sees(row: &Map, cx: &Cx) -> bool {
    crate::image::text(row, "visibility") == "public" || is_owner(row, cx) || cx.is_admin()
}

fn no_namespace(name: &str) -> Error {
    Error::not_found(format!("Metadata definition namespace={name} was not found."))
}

/// The namespace of the path, or 404.
fn namespace(call: &Call) -> Result<Map> {
    require(&call.cx, "get_metadef", None)?;
    let name = call.param("namespace");
    let row = call.reader().get(&NAMESPACES, name);
    row.and_then(|r| r.value().as_object().filter(|m| sees(m, &call.cx)).cloned()).ok_or_else(|| no_namespace(name))
}

/// As [`namespace`], to be changed.
fn own_namespace(tx: &mut Tx<'_>, cx: &Cx, name: &str) -> Result<Map> {
    let row = tx.get(&NAMESPACES, name);
    let row = row.and_then(|r| r.value().as_object().filter(|m| sees(m, cx)).cloned()).ok_or_else(|| no_namespace(name))?;
    require(cx, "modify_metadef", Some(&row))?;
    Ok(row)
}

fn key(namespace: &str, kind: Kind, name: &str) -> String {
    format!("{namespace}/{}/{name}", kind.name())
}

fn no_item(namespace: &str, kind: Kind, name: &str) -> Error {
    let what = kind.name();
    Error::not_found(format!("Metadata definition {what} {name} was not found in namespace={namespace}."))
}

/// A name that can stand in a path and in a key.
fn checked_name(value: &Value, max: usize) -> Result<String> {
    let fits = |s: &&str| (1..=max).contains(&s.chars().count()) && !s.contains('/') && !s.chars().any(char::is_control);
    let name = value.as_str().filter(fits);
    name.map(str::to_owned)
        .ok_or_else(|| Error::bad_request(format!("A name is a string of 1 to {max} characters without a slash.")))
}

/// The stored form of an item from a body.
fn item(namespace: &str, kind: Kind, name: &str, body: &Map, tx: &Tx<'_>, old: Option<&Row>) -> Result<Value> {
    let mut content = Map::new();
    for (attribute, value) in body {
        // What a namespace brings with it may say these; nobody listens.
        if attribute != "name" && !NOT_SENT.contains(&attribute.as_str()) {
            shape::check(kind.attributes(), attribute, value)?;
            content.insert(attribute.clone(), value.clone());
        }
    }
    shape::check_required(kind.required(), &content)?;
    let created = old.map_or(Value::from(tx.now.0), |r| r.field("created_at").clone());
    Ok(json!({
        "v": 1, "namespace": namespace, "kind": kind.name(), "name": name, "content": content,
        "created_at": created, "updated_at": tx.now.0,
    }))
}

/// An item as its kind is shown.
fn view(row: &Value, kind: Kind) -> Value {
    let Some(map) = row.as_object() else { return Value::Null };
    let (namespace, name) = (crate::image::text(map, "namespace"), crate::image::text(map, "name"));
    let mut out = Map::new();
    out.insert("name".into(), name.into());
    if let Some(content) = map.get("content").and_then(Value::as_object) {
        out.extend(content.clone());
    }
    if kind != Kind::Property {
        out.insert("created_at".into(), stamp(map, "created_at"));
        out.insert("updated_at".into(), stamp(map, "updated_at"));
    }
    if kind == Kind::Object {
        out.entry("properties").or_insert_with(|| Map::new().into());
        out.entry("required").or_insert_with(|| json!([]));
        out.insert("self".into(), format!("/v2/metadefs/namespaces/{namespace}/objects/{name}").into());
        out.insert("schema".into(), "/v2/schemas/metadefs/object".into());
    }
    out.into()
}

/// Items of a kind, in order of their names.
fn items_of(call: &Call, namespace: &str, kind: Kind) -> Vec<Value> {
    let mut rows = call.reader().find(&ITEMS, "namespace", namespace);
    rows.retain(|r| r.text("kind") == kind.name());
    rows.sort_by(|a, b| a.text("name").cmp(b.text("name")));
    rows.iter().map(|r| r.value().clone()).collect()
}

/// Makes an item; 409 if there is one.
fn add(tx: &mut Tx<'_>, namespace: &str, kind: Kind, name: &str, body: &Map) -> Result<Value> {
    let id = key(namespace, kind, name);
    if tx.get(&ITEMS, &id).is_some() {
        let what = kind.name();
        return Err(Error::conflict(format!(
            "A metadata definition {what} with name={name} already exists in namespace={namespace}."
        )));
    }
    let row = item(namespace, kind, name, body, tx, None)?;
    tx.put(&ITEMS, &id, row.clone());
    Ok(row)
}
