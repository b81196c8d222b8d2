//! Changes by JSON patch: the part of RFC 6902 that Glance knows, in both of its spellings.
use crate::{
    attributes::{self, Attribute},
    image::{Image, text},
    protect::{self, Guard},
    quota,
    rest::{admitted, require, shown},
};
use api::{Access, Call, Reply, Route};
use resource::{Cx, Error, Map, Object, Result, Tx, engine};
use serde_json::Value;

pub(crate) fn routes() -> Vec<Route> {
    vec![Route::new("PATCH", "/v2/images/{id}", Access::Authenticated, patch)]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Add,
    Replace,
    Remove,
}

#[derive(Clone, Debug, PartialEq)]
struct Change {
    op: Op,
    name: String,
    value: Value,
}

/// Which spelling: `{"op": "add", "path": "/x"}`, or `{"add": "/x"}`, whose `add` does not replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    Standard,
    Old,
}

async fn patch(call: Call) -> Result<Reply> {
    let spelling = spelling(call.header("content-type").unwrap_or_default())?;
    let changes = changes(call.json(), spelling)?;
    let id = call.param("id").to_owned();
    let row = call
        .transact(move |cx, tx| {
            let image = admitted(tx, cx, &id, "modify_image")?;
            if changes.is_empty() {
                return Ok(image.map);
            }
            let changed = apply(&image.map, &changes, spelling, &Guard::of(cx))?;
            settle(tx, cx, &image, changed)
        })
        .await?;
    Ok(Reply::ok(shown(&call, &row)))
}

fn spelling(media: &str) -> Result<Spelling> {
    match media.split(';').next().unwrap_or_default().trim() {
        "application/openstack-images-v2.1-json-patch" => Ok(Spelling::Standard),
        "application/openstack-images-v2.0-json-patch" => Ok(Spelling::Old),
        _ => Err(Error::unsupported_media(
            "Unsupported Content-Type. Accepted are application/openstack-images-v2.1-json-patch and application/openstack-images-v2.0-json-patch.",
        )),
    }
}

fn changes(body: &Value, spelling: Spelling) -> Result<Vec<Change>> {
    let list = body.as_array().ok_or_else(|| Error::bad_request("Request body must be a JSON array of operation objects."))?;
    list.iter().map(|raw| change(raw, spelling)).collect()
}

fn change(raw: &Value, spelling: Spelling) -> Result<Change> {
    let raw = raw.as_object().ok_or_else(|| Error::bad_request("Operations must be JSON objects."))?;
    let (op, path) = match spelling {
        Spelling::Standard => (text(raw, "op"), raw.get("path")),
        Spelling::Old => {
            let mut named = raw.iter().filter(|(k, _)| matches!(k.as_str(), "add" | "replace" | "remove"));
            match (named.next(), named.next()) {
                (Some((op, path)), None) => (op.as_str(), Some(path)),
                (Some(_), Some(_)) => {
                    return Err(Error::bad_request(
                        "Operation objects must contain only one member named \"add\", \"remove\", or \"replace\".",
                    ));
                }
                (None, _) => {
                    return Err(Error::bad_request(
                        "Operation objects must contain exactly one member named \"add\", \"remove\", or \"replace\".",
                    ));
                }
            }
        }
    };
    let op = match op {
        "add" => Op::Add,
        "replace" => Op::Replace,
        "remove" => Op::Remove,
        "" => {
            return Err(Error::bad_request(
                "Unable to find 'op' in JSON Schema change. It must be one of the following: add, remove, replace.",
            ));
        }
        other => {
            return Err(Error::bad_request(format!(
                "Invalid operation: `{other}`. It must be one of the following: add, remove, replace."
            )));
        }
    };
    let pointer =
        path.and_then(Value::as_str).ok_or_else(|| Error::bad_request("Unable to find 'path' in JSON Schema change."))?;
    let name = attribute_name(pointer)?;
    attributes::settable(&name)?;
    let value = match op {
        Op::Remove => Value::Null,
        Op::Add | Op::Replace => raw.get("value").cloned().ok_or_else(|| {
            Error::bad_request(format!(
                "Operation \"{}\" requires a member named \"value\".",
                if op == Op::Add { "add" } else { "replace" }
            ))
        })?,
    };
    Ok(Change { op, name, value })
}

/// The attribute that a JSON pointer names. Only whole attributes can be changed.
fn attribute_name(pointer: &str) -> Result<String> {
    let bad = |why: &str| Error::bad_request(format!("Invalid JSON pointer '{pointer}': {why}."));
    let rest = pointer.strip_prefix('/').ok_or_else(|| bad("it must begin with \"/\""))?;
    if rest.is_empty() || rest.ends_with('/') || rest.contains("//") {
        return Err(bad("it has an empty part"));
    }
    let name = rest.replace("~1", "/").replace("~0", "~");
    // What stays of a "~" was no escape.
    if rest.replace("~1", "").replace("~0", "").contains('~') {
        return Err(bad("\"~\" must be written as \"~0\""));
    }
    let root = rest.split('/').next().unwrap_or_default();
    if rest.contains('/') {
        // Says first that an attribute may not be touched at all.
        attributes::settable(root)?;
        return Err(bad("it must name a whole attribute of the image"));
    }
    Ok(name)
}

/// The row after the changes. Pure.
fn apply(row: &Map, changes: &[Change], spelling: Spelling, guard: &Guard<'_>) -> Result<Map> {
    let mut row = row.clone();
    let mut properties = row.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let missing = |name: &str| Error::conflict(format!("Property {name} does not exist."));
    for Change { op, name, value } in changes {
        match (attributes::settable(name)?, op) {
            (Attribute::Owner | Attribute::Field, Op::Remove) => {
                return Err(Error::forbidden(format!("Property {name} may not be removed.")));
            }
            (Attribute::Owner, _) => {
                let owner = value.as_str().filter(|s| (1..=255).contains(&s.len()));
                let owner = owner.ok_or_else(|| Error::bad_request("Invalid value 'owner': it must be the id of a project."))?;
                row.insert("project_id".into(), owner.into());
            }
            (Attribute::Field, _) => {
                let fixed = matches!(name.as_str(), "disk_format" | "container_format") && text(&row, "status") != "queued";
                let value = attributes::field(name, value)?;
                if fixed && row.get(name) != Some(&value) {
                    return Err(Error::forbidden(format!("Attribute {name} can be only replaced for a queued image.")));
                }
                row.insert(name.clone(), value);
            }
            (Attribute::Property, Op::Remove) => {
                if properties.contains_key(name) && guard.allows(name, protect::Op::Read) {
                    guard.require(name, protect::Op::Delete)?;
                } else {
                    return Err(missing(name));
                }
                properties.shift_remove(name).ok_or_else(|| missing(name))?;
            }
            (Attribute::Property, op) => {
                let there = properties.contains_key(name) && guard.allows(name, protect::Op::Read);
                if *op == Op::Replace && !there {
                    return Err(missing(name));
                }
                if *op == Op::Add && there && spelling == Spelling::Old {
                    return Err(Error::conflict(format!("Property {name} already present.")));
                }
                guard.require(name, if there { protect::Op::Update } else { protect::Op::Create })?;
                attributes::property(name, value)?;
                properties.insert(name.clone(), value.clone());
            }
        }
    }
    attributes::property_count(&properties)?;
    row.insert("properties".into(), properties.into());
    Ok(row)
}

/// What only the caller's rights and other rows can say about the changed row; then writes it.
fn settle(tx: &mut Tx<'_>, cx: &Cx, old: &Object<Image>, changed: Map) -> Result<Map> {
    let (before, after) = (text(&old.map, "visibility"), text(&changed, "visibility"));
    if before != after {
        attributes::check_visibility(cx, after, &changed)?;
    }
    let owner = text(&changed, "project_id").to_owned();
    if old.project_id() != owner {
        require(cx, "admin", None)
            .map_err(|_| Error::forbidden("Only an administrator may give an image to another project."))?;
        quota::check(tx, cx, &owner, &[(quota::COUNT, 1)])?;
        engine::release(tx, old.project_id(), "image", &[("image_count_total", 1)]);
        engine::reserve(tx, cx, &owner, "image", &[("image_count_total", 1)])?;
    }
    let image: Object<Image> = Object::from_map(changed)?;
    image.save(tx)?;
    match resource::load::<Image>(tx, &image.id)? {
        Some(saved) => Ok(saved.map),
        None => Err(Error::internal("an image is gone right after it was saved")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use resource::ErrorKind;
    use serde_json::json;

    fn patched(row: &Value, body: &Value, spelling: Spelling) -> Result<Map> {
        apply(row.as_object().unwrap(), &changes(body, spelling)?, spelling, &Guard::open())
    }

    #[test]
    fn both_spellings_change_fields_and_properties() {
        let row = json!({"status": "queued", "name": "a", "properties": {"x": "1"}});
        let new = patched(
            &row,
            &json!([{"op": "replace", "path": "/name", "value": "b"}, {"op": "add", "path": "/x", "value": "2"}]),
            Spelling::Standard,
        )
        .unwrap();
        assert_eq!((new["name"].clone(), new["properties"].clone()), (json!("b"), json!({"x": "2"})));
        let new =
            patched(&row, &json!([{"replace": "/tags", "value": ["b", "a", "b"]}, {"remove": "/x"}]), Spelling::Old).unwrap();
        assert_eq!((new["tags"].clone(), new["properties"].clone()), (json!(["a", "b"]), json!({})));
    }

    #[test]
    fn refusals_have_their_kinds() {
        let row = json!({"status": "active", "disk_format": "raw", "properties": {"x": "1"}});
        let kind = |body: Value, spelling| patched(&row, &body, spelling).unwrap_err().kind;
        let std =
            |op: &str, path: &str, value: Value| kind(json!([{"op": op, "path": path, "value": value}]), Spelling::Standard);
        assert_eq!(std("replace", "/status", json!("active")), ErrorKind::Forbidden);
        assert_eq!(std("add", "/os_glance_x", json!("y")), ErrorKind::Forbidden);
        assert_eq!(std("add", "/locations/-", json!({})), ErrorKind::Forbidden);
        assert_eq!(std("replace", "/disk_format", json!("qcow2")), ErrorKind::Forbidden);
        assert_eq!(std("remove", "/name", Value::Null), ErrorKind::Forbidden);
        assert_eq!(std("replace", "/y", json!("1")), ErrorKind::Conflict);
        assert_eq!(std("remove", "/y", Value::Null), ErrorKind::Conflict);
        assert_eq!(std("add", "/x/y", json!("1")), ErrorKind::BadRequest);
        assert_eq!(std("add", "x", json!("1")), ErrorKind::BadRequest);
        assert_eq!(std("add", "/a~b", json!("1")), ErrorKind::BadRequest);
        assert_eq!(std("move", "/x", json!("1")), ErrorKind::BadRequest);
        assert_eq!(std("add", "/n", json!(1)), ErrorKind::BadRequest);
        assert_eq!(kind(json!([{"add": "/x", "value": "2"}]), Spelling::Old), ErrorKind::Conflict);
        assert_eq!(kind(json!([{"op": "add", "path": "/n"}]), Spelling::Standard), ErrorKind::BadRequest);
        assert_eq!(kind(json!({}), Spelling::Old), ErrorKind::BadRequest);
    }

    #[test]
    fn names_are_unescaped() {
        assert_eq!(attribute_name("/a~1b~0c").unwrap(), "a/b~c");
    }
}
