//! What the attributes of metadata definitions may be, as Glance's schemas say.
//!
//! They are shown as they came, so what does not fit is refused here: clients build forms of them.
use resource::{Error, Map, Result};
use serde_json::Value;
use std::collections::HashSet;

/// Attributes with what each may be.
pub(super) type Attributes = &'static [(&'static str, Shape)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A text of at most so many characters.
    Text(usize),
    Texts,
    /// Texts, at least one and each once.
    TextSet,
    Number,
    Count,
    Flag,
    List,
    Any,
    /// A regular expression, as Python has them.
    Pattern,
    /// The name of a JSON type.
    Type,
    /// What each element of a list may be.
    Items,
    /// Definitions of properties by name.
    Properties,
}

const LONG: usize = 65_535;
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

pub(super) const PROPERTY: Attributes = &[
    ("title", Shape::Text(LONG)),
    ("description", Shape::Text(LONG)),
    ("operators", Shape::Texts),
    ("type", Shape::Type),
    ("minimum", Shape::Number),
    ("maximum", Shape::Number),
    ("minLength", Shape::Count),
    ("maxLength", Shape::Count),
    ("pattern", Shape::Pattern),
    ("enum", Shape::List),
    ("readonly", Shape::Flag),
    ("default", Shape::Any),
    ("items", Shape::Items),
    ("uniqueItems", Shape::Flag),
    ("minItems", Shape::Count),
    ("maxItems", Shape::Count),
    ("additionalItems", Shape::Flag),
    ("required", Shape::TextSet),
];
pub(super) const PROPERTY_REQUIRED: &[&str] = &["type", "title"];
pub(super) const OBJECT: Attributes =
    &[("description", Shape::Text(LONG)), ("required", Shape::TextSet), ("properties", Shape::Properties)];
pub(super) const RESOURCE_TYPE: Attributes = &[("prefix", Shape::Text(80)), ("properties_target", Shape::Text(80))];

/// Refuses an attribute that is not known or cannot be this.
pub(super) fn check(known: Attributes, name: &str, value: &Value) -> Result<()> {
    let Some((_, shape)) = known.iter().find(|(n, _)| *n == name) else {
        return Err(Error::bad_request(format!("Additional properties are not allowed ('{name}' was unexpected).")));
    };
    if *shape == Shape::Properties {
        return properties(value);
    }
    if fits(*shape, value) {
        return Ok(());
    }
    Err(Error::bad_request(format!("'{name}' cannot have this value; see the schema of it under /v2/schemas/metadefs.")))
}

fn fits(shape: Shape, value: &Value) -> bool {
    let texts = || value.as_array().filter(|l| l.iter().all(Value::is_string));
    match shape {
        Shape::Text(max) => value.as_str().is_some_and(|s| s.chars().count() <= max),
        Shape::Pattern => value.as_str().is_some_and(is_pattern),
        Shape::Texts => texts().is_some(),
        Shape::TextSet => texts().is_some_and(|l| !l.is_empty() && l.iter().collect::<HashSet<_>>().len() == l.len()),
        Shape::Number => value.is_number(),
        Shape::Count => value.is_u64(),
        Shape::Flag => value.is_boolean(),
        Shape::List => value.is_array(),
        Shape::Any => true,
        Shape::Type => value.as_str().is_some_and(|s| TYPES.contains(&s)),
        Shape::Items => value.as_object().is_some_and(|items| {
            let each = |(name, value): (&String, &Value)| match name.as_str() {
                "type" => fits(Shape::Type, value),
                "enum" => value.is_array(),
                _ => true,
            };
            items.iter().all(each)
        }),
        Shape::Properties => properties(value).is_ok(),
    }
}

/// Is it a regular expression? Nobody here matches with it, so what our engine lacks (looking around, references back) counts by its form.
fn is_pattern(text: &str) -> bool {
    let mut known = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let around = ["(?=", "(?!", "(?<=", "(?<!"].into_iter().find(|a| rest.starts_with(a));
        let escaped = rest.strip_prefix('\\').and_then(|r| r.chars().next());
        let (taken, like) = match (around, escaped) {
            (Some(around), _) => (around.len(), "(?:"),
            (None, Some('1'..='9')) => (2, "(?:)"),
            (None, Some('Z')) => (2, r"\z"),
            (None, Some(escaped)) => (1 + escaped.len_utf8(), &rest[..1 + escaped.len_utf8()]),
            (None, None) => (c.len_utf8(), &rest[..c.len_utf8()]),
        };
        known.push_str(like);
        rest = &rest[taken..];
    }
    regex::Regex::new(&known).is_ok()
}

/// Definitions of properties by name, each whole.
fn properties(value: &Value) -> Result<()> {
    let all = value.as_object().ok_or_else(|| Error::bad_request("'properties' must be an object of definitions by name."))?;
    for (name, definition) in all {
        let definition =
            definition.as_object().ok_or_else(|| Error::bad_request(format!("The property '{name}' must be an object.")))?;
        check_required(PROPERTY_REQUIRED, definition)?;
        for (attribute, value) in definition {
            // The name may be said twice.
            if attribute != "name" || !fits(Shape::Text(80), value) {
                check(PROPERTY, attribute, value)?;
            }
        }
    }
    Ok(())
}

pub(super) fn check_required(required: &[&str], given: &Map) -> Result<()> {
    match required.iter().find(|r| !given.contains_key(**r)) {
        Some(missing) => Err(Error::bad_request(format!("'{missing}' is a required property"))),
        None => Ok(()),
    }
}

/// Refuses what only the service sets, where a body is about the thing alone.
pub(super) fn check_writable(body: &Map, read_only: &[&str]) -> Result<()> {
    match read_only.iter().find(|name| body.contains_key(**name)) {
        Some(name) => Err(Error::forbidden(format!("Attribute '{name}' is read-only."))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pattern_is_what_python_takes_for_one() {
        for good in ["", r"^\d+$", r"^(?=.*\d)(?!\s).{7,}$", r"(a)\1", r"\\1", r"\(?=", r"(?<=ä)b", r"\Aa\Z"] {
            assert!(is_pattern(good), "{good}");
        }
        for bad in ["(", "*", "(?=a", r"a\"] {
            assert!(!is_pattern(bad), "{bad}");
        }
    }

    #[test]
    fn definitions_are_checked_to_their_leaves() {
        let good = json!({"type": "array", "title": "t", "items": {"type": "string", "enum": ["a"]}, "minItems": 0, "default": null,
            "required": ["a"], "operators": ["<in>"], "maximum": 1.5, "uniqueItems": false});
        for (name, value) in good.as_object().unwrap() {
            assert!(check(PROPERTY, name, value).is_ok(), "{name}");
        }
        assert!(check(OBJECT, "properties", &json!({"a": good, "b": {"name": "b", "type": "string", "title": ""}})).is_ok());
        for (name, value) in [
            ("type", json!("text")),
            ("type", json!({})),
            ("title", json!(1)),
            ("minItems", json!(-1)),
            ("maximum", json!("1")),
            ("items", json!({"type": "text"})),
            ("items", json!({"enum": 1})),
            ("enum", json!("a")),
            ("required", json!(["a", "a"])),
            ("required", json!([1])),
            ("required", json!([])),
            ("readonly", json!("true")),
            ("pattern", json!("a)(")),
            ("pattern", json!("[a")),
            ("pattern", json!("\\")),
            ("other", json!(1)),
        ] {
            assert!(check(PROPERTY, name, &value).is_err(), "{name}: {value}");
            if name != "other" {
                let mut bad = good.clone();
                bad[name] = value;
                assert!(check(OBJECT, "properties", &json!({ "a": bad })).is_err(), "{bad}");
            }
        }
        assert!(check(OBJECT, "properties", &json!({"a": {"type": "string"}})).is_err(), "without a title");
        assert!(check(OBJECT, "properties", &json!({"a": []})).is_err());
        assert!(check(OBJECT, "properties", &json!([])).is_err());
        assert!(check(RESOURCE_TYPE, "prefix", &json!("x".repeat(81))).is_err());
    }
}
