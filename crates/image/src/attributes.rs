//! Attributes as clients send them: which may be set, which are the table's, and which are properties without a meaning here.
use crate::image::Image;
use resource::{Cx, Error, Map, Resource as _, Result};
use serde_json::Value;

/// Set by the service only.
const READ_ONLY: [&str; 14] = [
    "created_at",
    "updated_at",
    "status",
    "checksum",
    "size",
    "virtual_size",
    "direct_url",
    "self",
    "file",
    "schema",
    "id",
    "os_hash_algo",
    "os_hash_value",
    "stores",
];
/// Names that mean something inside.
const RESERVED: [&str; 6] = ["location", "deleted", "deleted_at", "properties", "members", "project_id"];
/// Attributes of the table that clients set.
const SETTABLE: [&str; 9] =
    ["name", "visibility", "disk_format", "container_format", "min_disk", "min_ram", "protected", "os_hidden", "tags"];
/// Properties that may be null, as in Glance's default property schema.
const NULLABLE: [&str; 2] = ["kernel_id", "ramdisk_id"];

const MAX_PROPERTIES: usize = 128;
const MAX_TAGS: usize = 128;
const MAX_VALUE: usize = 65_535;

/// What an attribute is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attribute {
    Owner,
    Field,
    Property,
}

/// What a client may set by that name.
pub(crate) fn settable(name: &str) -> Result<Attribute> {
    if READ_ONLY.contains(&name) {
        return Err(Error::forbidden(format!("Attribute '{name}' is read-only.")));
    }
    if RESERVED.contains(&name) || name.starts_with("os_glance_") {
        return Err(Error::forbidden(format!("Attribute '{name}' is reserved.")));
    }
    if name == "locations" {
        return Err(Error::forbidden("It's not allowed to add locations if locations are invisible."));
    }
    Ok(match name {
        "owner" => Attribute::Owner,
        name if SETTABLE.contains(&name) => Attribute::Field,
        _ => Attribute::Property,
    })
}

/// The stored form of a field's value.
pub(crate) fn field(name: &str, value: &Value) -> Result<Value> {
    let def = Image::DEF.field(name).ok_or_else(|| Error::internal(format!("no field {name}")))?;
    let stored = def.kind.check(value).map_err(|reason| Error::bad_request(format!("Invalid value '{name}': {reason}.")))?;
    if name == "tags" { tags(&stored) } else { Ok(stored) }
}

fn tags(list: &Value) -> Result<Value> {
    let mut seen: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    seen.sort_unstable();
    seen.dedup();
    tag_count(seen.len())?;
    Ok(seen.into())
}

/// Refuses more tags than an image may have.
pub(crate) fn tag_count(count: usize) -> Result<()> {
    if count > MAX_TAGS {
        return Err(Error::too_large(format!(
            "The limit has been exceeded on the number of allowed image tags. Attempted: {count}, Maximum: {MAX_TAGS}"
        )));
    }
    Ok(())
}

/// Refuses what is no property.
pub(crate) fn property(name: &str, value: &Value) -> Result<()> {
    if name.is_empty() || name.chars().count() > 255 || name.chars().any(char::is_control) {
        return Err(Error::bad_request(format!(
            "The name of a property must have 1 to 255 characters, and '{}' has not.",
            clip(name)
        )));
    }
    match value {
        Value::String(s) if s.len() <= MAX_VALUE => Ok(()),
        Value::String(_) => {
            Err(Error::bad_request(format!("The value of property '{name}' must have at most {MAX_VALUE} bytes.")))
        }
        Value::Null if NULLABLE.contains(&name) => Ok(()),
        _ => Err(Error::bad_request(format!("Invalid value of property '{name}': it must be a string."))),
    }
}

fn clip(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// Refuses more properties than an image may have.
pub(crate) fn property_count(properties: &Map) -> Result<()> {
    let count = properties.len();
    if count > MAX_PROPERTIES {
        return Err(Error::too_large(format!(
            "The limit has been exceeded on the number of allowed image properties. Attempted: {count}, Maximum: {MAX_PROPERTIES}"
        )));
    }
    Ok(())
}

/// A create's body as the table wants it, and the id that it asks for.
pub(crate) fn of_create(body: &Map) -> Result<(Map, Option<String>)> {
    let (mut input, mut properties, mut id) = (Map::new(), Map::new(), None);
    for (name, value) in body {
        if name == "id" {
            let given = value.as_str().filter(|s| s.len() == 36 && base::id::is_uuid(s));
            id = Some(
                given
                    .ok_or_else(|| Error::bad_request("Invalid value of 'id': it must be a UUID with dashes."))?
                    .to_ascii_lowercase(),
            );
            continue;
        }
        match settable(name)? {
            Attribute::Owner if value.is_null() => {}
            Attribute::Owner => {
                input.insert("project_id".into(), value.clone());
            }
            Attribute::Field => {
                input.insert(name.clone(), field(name, value)?);
            }
            Attribute::Property => {
                property(name, value)?;
                properties.insert(name.clone(), value.clone());
            }
        }
    }
    property_count(&properties)?;
    input.insert("properties".into(), properties.into());
    Ok((input, id))
}

/// 403 unless the caller may give an image this visibility.
pub(crate) fn check_visibility(cx: &Cx, visibility: &str, row: &Map) -> Result<()> {
    match visibility {
        "public" => crate::rest::require(cx, "publicize_image", Some(row)),
        "community" => crate::rest::require(cx, "communitize_image", Some(row)),
        _ => Ok(()),
    }
}
