//! Checks of bodies, in the words of JSON schema.
use crate::answer::invalid;
use api::Call;
use resource::{Error, Map, Result};
use serde_json::Value;

/// The body as an object that has these keys only, and all the required ones.
pub(crate) fn object<'a>(call: &'a Call, required: &[&str], optional: &[&str]) -> Result<&'a Map> {
    if call.json().is_null() {
        return Err(Error::bad_request("Malformed JSON: the request has no body."));
    }
    keys(call.json(), required, optional)
}

/// As [`object`], for something inside.
pub(crate) fn keys<'a>(value: &'a Value, required: &[&str], optional: &[&str]) -> Result<&'a Map> {
    let map = value.as_object().ok_or_else(|| invalid(format_args!("{value} is not of type 'object'")))?;
    if let Some(missing) = required.iter().find(|k| !map.contains_key(**k)) {
        return Err(invalid(format_args!("'{missing}' is a required property")));
    }
    if let Some(key) = map.keys().find(|k| !required.contains(&k.as_str()) && !optional.contains(&k.as_str())) {
        return Err(invalid(format_args!("Additional properties are not allowed ('{}' was unexpected)", clip_text(key))));
    }
    Ok(map)
}

pub(crate) fn clip_text(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

pub(crate) fn integer(value: &Value, min: i64, max: i64) -> Result<i64> {
    let n = value.as_i64().ok_or_else(|| invalid(format_args!("{value} is not of type 'integer'")))?;
    if n < min {
        return Err(invalid(format_args!("{n} is less than the minimum of {min}")));
    }
    if n > max {
        return Err(invalid(format_args!("{n} is greater than the maximum of {max}")));
    }
    Ok(n)
}

pub(crate) fn text(value: &Value, min: usize, max: usize) -> Result<String> {
    let s = value.as_str().ok_or_else(|| invalid(format_args!("{value} is not of type 'string'")))?;
    match s.chars().count() {
        n if n > max => Err(invalid(format_args!("'{}' is too long", clip_text(s)))),
        n if n < min => Err(invalid(format_args!("'{}' is too short", clip_text(s)))),
        _ => Ok(s.to_owned()),
    }
}

/// A UUID in either spelling, as one with dashes.
pub(crate) fn uuid(value: &Value) -> Result<String> {
    let s = value.as_str().ok_or_else(|| invalid(format_args!("{value} is not of type 'string'")))?;
    dashed(s).ok_or_else(|| invalid(format_args!("'{}' is not a 'uuid'", clip_text(s))))
}

/// None if it is no UUID.
pub(crate) fn dashed(text: &str) -> Option<String> {
    if !base::id::is_uuid(text) {
        return None;
    }
    let hex: String = text.to_ascii_lowercase().chars().filter(|c| *c != '-').collect();
    Some(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

/// `[A-Z0-9_]+`: resource classes, traits, types of consumers.
pub(crate) fn is_symbol(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

/// A custom resource class or trait.
pub(crate) fn is_custom(name: &str) -> bool {
    name.strip_prefix("CUSTOM_").is_some_and(is_symbol) && name.len() <= 255
}

/// Entries of an object whose keys are resource classes.
pub(crate) fn by_class(value: &Value) -> Result<impl Iterator<Item = (&String, &Value)>> {
    let map = value.as_object().ok_or_else(|| invalid(format_args!("{value} is not of type 'object'")))?;
    if let Some(key) = map.keys().find(|k| !is_symbol(k)) {
        return Err(invalid(format_args!("'{}' does not match any of the regexes: '^[A-Z0-9_]+$'", clip_text(key))));
    }
    Ok(map.iter())
}

/// A list of unique UUIDs.
pub(crate) fn uuids(value: &Value) -> Result<Vec<String>> {
    let list = value.as_array().ok_or_else(|| invalid(format_args!("{value} is not of type 'array'")))?;
    let mut out: Vec<String> = Vec::new();
    for item in list {
        let id = uuid(item)?;
        if out.contains(&id) {
            return Err(invalid(format_args!("{value} has non-unique elements")));
        }
        out.push(id);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_uuids() {
        assert!(is_custom("CUSTOM_GOLD_1") && !is_custom("CUSTOM_") && !is_custom("GOLD") && !is_custom("CUSTOM_gold"));
        let dashes = "893337e9-1e55-49f0-bcfe-6a2f16fbf2f7";
        assert_eq!(dashed(&dashes.replace('-', "").to_uppercase()).as_deref(), Some(dashes));
        assert_eq!(dashed("893337e9"), None);
    }
}
