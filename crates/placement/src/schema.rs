//! Checks of bodies: as strict as upstream's JSON schemas, in the words of a JSON schema validator.
use api::{Error, Map, Result};
use serde_json::Value;

/// What failed, as a validator says it: the detail, and the keyword of the schema.
pub(crate) fn failed(keyword: &str, detail: impl std::fmt::Display) -> String {
    format!("{detail}. Failed validating '{keyword}' in schema")
}

/// 400: the body is not what it must be.
fn invalid(keyword: &str, detail: impl std::fmt::Display) -> Error {
    Error::bad_request(format!("JSON does not validate: {}", failed(keyword, detail)))
}

/// Names the field in which the check failed.
pub(crate) fn within<T>(field: &str, checked: Result<T>) -> Result<T> {
    checked.map_err(|mut e| {
        e.message.push_str(&format!("['properties']['{field}']"));
        e
    })
}

/// Without a key that must be there.
pub(crate) fn missing(key: &str) -> Error {
    invalid("required", format!("'{key}' is a required property"))
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(s) => format!("'{s}'"),
        other => other.to_string(),
    };
    if text.chars().count() > 200 { text.chars().take(200).chain("…".chars()).collect() } else { text }
}

fn not_a(value: &Value, kind: &str) -> Error {
    invalid("type", format!("{} is not of type '{kind}'", shown(value)))
}

/// An object with any keys.
pub(crate) fn any_object(value: &Value) -> Result<&Map> {
    value.as_object().ok_or_else(|| not_a(value, "object"))
}

/// An object with these keys and no others; the first `required` of them must be there.
pub(crate) fn object<'a>(value: &'a Value, keys: &[&str], required: usize) -> Result<&'a Map> {
    let map = any_object(value)?;
    if let Some(missing) = keys.iter().take(required).find(|k| !map.contains_key(**k)) {
        return Err(self::missing(missing));
    }
    only(map, None, |key| keys.contains(&key))?;
    Ok(map)
}

/// No keys but those that suit: the named ones, or those that match a pattern.
pub(crate) fn only(map: &Map, pattern: Option<&str>, suits: impl Fn(&str) -> bool) -> Result<()> {
    match map.keys().find(|k| !suits(k)) {
        Some(other) => Err(invalid("additionalProperties", unexpected(other, pattern))),
        None => Ok(()),
    }
}

/// Words for a key that must not be there.
pub(crate) fn unexpected(key: &str, pattern: Option<&str>) -> String {
    let key = shown(&key.into());
    match pattern {
        Some(pattern) => format!("{key} does not match any of the regexes: '{pattern}'"),
        None => format!("Additional properties are not allowed ({key} was unexpected)"),
    }
}

/// At least one key.
pub(crate) fn some(map: &Map) -> Result<()> {
    if map.is_empty() { Err(invalid("minProperties", "{} does not have enough properties")) } else { Ok(()) }
}

/// A list with at least one element.
pub(crate) fn some_list(value: &Value) -> Result<&Vec<Value>> {
    let list = list(value)?;
    if list.is_empty() { Err(invalid("minItems", "[] is too short")) } else { Ok(list) }
}

/// No element twice.
pub(crate) fn unique(value: &Value) -> Error {
    invalid("uniqueItems", format!("{} has non-unique elements", shown(value)))
}

pub(crate) fn list(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().ok_or_else(|| not_a(value, "array"))
}

/// A text of so many characters.
pub(crate) fn text(value: &Value, min: usize, max: usize) -> Result<&str> {
    let text = value.as_str().ok_or_else(|| not_a(value, "string"))?;
    match text.chars().count() {
        n if n < min => Err(invalid("minLength", format!("{} is too short", shown(value)))),
        n if n > max => Err(invalid("maxLength", format!("{} is too long", shown(value)))),
        _ => Ok(text),
    }
}

/// A text that matches what the pattern says.
pub(crate) fn matching<'a>(value: &'a Value, max: usize, pattern: &str, matches: impl Fn(&str) -> bool) -> Result<&'a str> {
    let found = text(value, 0, max)?;
    if matches(found) { Ok(found) } else { Err(invalid("pattern", format!("{} does not match '{pattern}'", shown(value)))) }
}

pub(crate) fn uuid(value: &Value) -> Result<&str> {
    let found = text(value, 0, usize::MAX)?;
    if base::id::is_uuid(found) { Ok(found) } else { Err(invalid("format", format!("{} is not a 'uuid'", shown(value)))) }
}

/// A whole number between these; `1.0` counts as one.
pub(crate) fn int(value: &Value, min: i64, max: i64) -> Result<i64> {
    let whole = |f: f64| (f.fract() == 0.0 && f.abs() < 9e15).then_some(f as i64);
    let number = value.as_i64().or_else(|| value.as_f64().and_then(whole));
    // Beyond 64 bits it is a number still, only too large or too small.
    let number =
        number.or_else(|| value.is_number().then(|| value.as_f64()).flatten().filter(|f| f.fract() == 0.0).map(|f| f as i64));
    match number {
        None => Err(not_a(value, "integer")),
        Some(n) if n < min => Err(invalid("minimum", format!("{} is less than the minimum of {min}", shown(value)))),
        Some(n) if n > max => Err(invalid("maximum", format!("{} is greater than the maximum of {max}", shown(value)))),
        Some(n) => Ok(n),
    }
}

pub(crate) fn number(value: &Value, max: f64) -> Result<f64> {
    match value.as_f64() {
        None => Err(not_a(value, "number")),
        Some(n) if n > max => Err(invalid("maximum", format!("{} is greater than the maximum of {max}", shown(value)))),
        Some(n) => Ok(n),
    }
}

/// Keys of 36 hex digits and dashes: how uuids are checked where they are keys.
pub(crate) const UUID_KEY: &str = "^[0-9a-fA-F-]{36}$";
/// Names of resource classes, traits and types of consumers.
pub(crate) const SYMBOL: &str = "^[A-Z0-9_]+$";

pub(crate) fn is_uuid_key(key: &str) -> bool {
    key.len() == 36 && key.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn messages_name_what_is_wrong() {
        let told = |r: Result<&Map>| r.expect_err("invalid").message;
        assert!(told(object(&json!({}), &["name"], 1)).contains("'name' is a required property"));
        assert!(told(object(&json!({"name": 1, "cow": 2}), &["name"], 1)).contains("('cow' was unexpected)"));
        assert!(told(object(&json!([]), &["name"], 1)).contains("is not of type 'object'"));
        assert!(int(&json!(0), 1, 9).expect_err("small").message.contains("less than the minimum of 1"));
        assert!(int(&json!("1"), 1, 9).is_err() && int(&json!(1.5), 1, 9).is_err() && int(&json!(true), 0, 9).is_err());
        assert_eq!((int(&json!(2.0), 1, 9).ok(), int(&json!(1e30), 1, 9).is_err()), (Some(2), true));
        assert!(text(&json!("x".repeat(300)), 0, 200).expect_err("long").message.len() < 400);
    }
}
