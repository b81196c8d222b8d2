//! Checks of bodies: as strict as upstream's JSON schemas, in the words of a JSON schema validator.
use api::{Error, Map, Result};
use serde_json::Value;

/// 400: the body is not what it must be.
pub(crate) fn invalid(detail: impl std::fmt::Display) -> Error {
    Error::bad_request(format!("JSON does not validate: {detail}"))
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(s) => format!("'{s}'"),
        other => other.to_string(),
    };
    if text.chars().count() > 200 { text.chars().take(200).chain("…".chars()).collect() } else { text }
}

fn not_a(value: &Value, kind: &str) -> Error {
    invalid(format!("{} is not of type '{kind}'", shown(value)))
}

/// An object with any keys.
pub(crate) fn any_object(value: &Value) -> Result<&Map> {
    value.as_object().ok_or_else(|| not_a(value, "object"))
}

/// An object with these keys and no others; the first `required` of them must be there.
pub(crate) fn object<'a>(value: &'a Value, keys: &[&str], required: usize) -> Result<&'a Map> {
    let map = any_object(value)?;
    if let Some(missing) = keys.iter().take(required).find(|k| !map.contains_key(**k)) {
        return Err(invalid(format!("'{missing}' is a required property")));
    }
    only(map, |key| keys.contains(&key))?;
    Ok(map)
}

/// No keys but those that suit.
pub(crate) fn only(map: &Map, suits: impl Fn(&str) -> bool) -> Result<()> {
    match map.keys().find(|k| !suits(k)) {
        Some(other) => {
            Err(invalid(format!("Additional properties are not allowed ({} was unexpected)", shown(&other.as_str().into()))))
        }
        None => Ok(()),
    }
}

pub(crate) fn list(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().ok_or_else(|| not_a(value, "array"))
}

/// A text of so many characters.
pub(crate) fn text(value: &Value, min: usize, max: usize) -> Result<&str> {
    let text = value.as_str().ok_or_else(|| not_a(value, "string"))?;
    match text.chars().count() {
        n if n < min => Err(invalid(format!("{} is too short: Failed validating 'minLength'", shown(value)))),
        n if n > max => Err(invalid(format!("{} is too long: Failed validating 'maxLength'", shown(value)))),
        _ => Ok(text),
    }
}

/// A text that matches what the pattern says.
pub(crate) fn matching<'a>(value: &'a Value, max: usize, pattern: &str, matches: impl Fn(&str) -> bool) -> Result<&'a str> {
    let found = text(value, 0, max)?;
    if matches(found) { Ok(found) } else { Err(invalid(format!("{} does not match '{pattern}'", shown(value)))) }
}

pub(crate) fn uuid(value: &Value) -> Result<&str> {
    let found = text(value, 0, usize::MAX)?;
    if base::id::is_uuid(found) { Ok(found) } else { Err(invalid(format!("{} is not a 'uuid'", shown(value)))) }
}

/// A whole number between these; `1.0` counts as one.
pub(crate) fn int(value: &Value, min: i64, max: i64) -> Result<i64> {
    let whole = |f: f64| (f.fract() == 0.0 && f.abs() < 9e15).then_some(f as i64);
    let number = value.as_i64().or_else(|| value.as_f64().and_then(whole));
    // Beyond 64 bits it is a number still, only too large or too small.
    let number = number.or_else(|| value.is_number().then(|| value.as_f64()).flatten().filter(|f| f.fract() == 0.0).map(|f| f as i64));
    match number {
        None => Err(not_a(value, "integer")),
        Some(n) if n < min => Err(invalid(format!("{} is less than the minimum of {min}", shown(value)))),
        Some(n) if n > max => Err(invalid(format!("{} is greater than the maximum of {max}", shown(value)))),
        Some(n) => Ok(n),
    }
}

pub(crate) fn number(value: &Value, max: f64) -> Result<f64> {
    match value.as_f64() {
        None => Err(not_a(value, "number")),
        Some(n) if n > max => Err(invalid(format!("{} is greater than the maximum of {max}", shown(value)))),
        Some(n) => Ok(n),
    }
}

/// Keys of 36 hex digits and dashes: how uuids are checked where they are keys.
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
