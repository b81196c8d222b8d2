//! What a request's body may look like, as data: Nova's JSON schemas with their microversions.
//!
//! Unknown properties are refused (Nova's `additionalProperties: False`), and the messages are those of Nova, so that clients find the
//! field that they got wrong.
use api::{Cx, Error, Result};
use serde_json::Value;

/// A value's form. Built as constants; see the tables beside each handler.
#[derive(Debug)]
pub(crate) enum Shape {
    Any,
    Null,
    /// A boolean, or one of the words that Nova takes for one.
    Bool,
    /// An integer, also in a string.
    Int {
        min: i64,
        max: i64,
    },
    /// A number, also in a string.
    Float,
    Text {
        min: usize,
        max: usize,
    },
    /// A text that a check admits; its name says what it must be.
    Checked {
        min: usize,
        max: usize,
        check: fn(&str) -> bool,
        what: &'static str,
    },
    Choice(&'static [&'static str]),
    List {
        of: &'static Shape,
        min: usize,
        max: usize,
        unique: bool,
    },
    Object(&'static [Prop]),
    /// As `Object`, and other properties are left alone.
    Open(&'static [Prop]),
    /// An object with free keys.
    Map {
        key: fn(&str) -> bool,
        of: &'static Shape,
    },
    OneOf(&'static [&'static Shape]),
}

/// A property of an object and the minor versions that know it.
#[derive(Debug)]
pub(crate) struct Prop {
    name: &'static str,
    shape: &'static Shape,
    required: bool,
    since: u16,
    until: u16,
}

pub(crate) const fn opt(name: &'static str, shape: &'static Shape) -> Prop {
    Prop { name, shape, required: false, since: 0, until: u16::MAX }
}
pub(crate) const fn req(name: &'static str, shape: &'static Shape) -> Prop {
    Prop { name, shape, required: true, since: 0, until: u16::MAX }
}
impl Prop {
    pub(crate) const fn since(mut self, minor: u16) -> Self {
        self.since = minor;
        self
    }
    pub(crate) const fn until(mut self, minor: u16) -> Self {
        self.until = minor;
        self
    }
    fn at(&self, minor: u16) -> bool {
        (self.since..=self.until).contains(&minor)
    }
}

pub(crate) const MAX_INT: i64 = 0x7fff_ffff;
pub(crate) const TEXT: Shape = Shape::Text { min: 0, max: 65_535 };
pub(crate) const NAME: Shape = Shape::Checked {
    min: 1,
    max: 255,
    check: is_name,
    what: "An invalid 'name' value was provided. The name must be: printable characters. Can not start or end with whitespace.",
};
pub(crate) const NAME_OR_NULL: Shape = Shape::OneOf(&[&Shape::Text { min: 1, max: 255 }, &Shape::Null]);
pub(crate) const DESCRIPTION: Shape =
    Shape::OneOf(&[&Shape::Checked { min: 0, max: 255, check: is_printable, what: "is not printable" }, &Shape::Null]);
pub(crate) const UUID: Shape = Shape::Checked { min: 0, max: 255, check: base::id::is_uuid, what: "is not a 'uuid'" };
pub(crate) const POSITIVE: Shape = Shape::Int { min: 1, max: MAX_INT };
pub(crate) const NOT_NEGATIVE: Shape = Shape::Int { min: 0, max: MAX_INT };
pub(crate) const METADATA: Shape = Shape::Map { key: is_metadata_key, of: &Shape::Text { min: 0, max: 255 } };
pub(crate) const TAG: Shape = Shape::Checked { min: 1, max: 60, check: is_tag, what: "does not match '^[^,/]*$'" };
pub(crate) const IP: Shape = Shape::Checked { min: 0, max: 64, check: is_ip, what: "is not a valid IP address" };
pub(crate) const IPV4: Shape = Shape::Checked { min: 0, max: 64, check: is_ipv4, what: "is not a 'ipv4'" };
pub(crate) const IPV6: Shape = Shape::Checked { min: 0, max: 64, check: is_ipv6, what: "is not a 'ipv6'" };
pub(crate) const DISK_CONFIG: Shape = Shape::Choice(&["AUTO", "MANUAL"]);
pub(crate) const BASE64: Shape = Shape::Checked { min: 0, max: 65_535, check: is_base64, what: "is not a 'base64'" };
pub(crate) const FQDN: Shape = Shape::Checked { min: 1, max: 255, check: is_fqdn, what: "does not match '^[a-zA-Z0-9-._]*$'" };
pub(crate) const HOSTNAME: Shape =
    Shape::Checked { min: 2, max: 63, check: is_hostname, what: "does not match '^[a-zA-Z0-9]+[a-zA-Z0-9-]*[a-zA-Z0-9]+$'" };
pub(crate) const PASSWORD: Shape = Shape::Text { min: 0, max: 4096 };
pub(crate) const FLAVOR_REF: Shape =
    Shape::OneOf(&[&Shape::Text { min: 1, max: 255 }, &Shape::Int { min: i64::MIN, max: i64::MAX }]);

pub(crate) fn is_printable(text: &str) -> bool {
    text.chars().all(|c| !c.is_control())
}
pub(crate) fn is_name(text: &str) -> bool {
    is_printable(text) && text.trim() == text && !text.is_empty()
}
pub(crate) fn is_metadata_key(key: &str) -> bool {
    (1..=255).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_:. ".contains(&b))
}
pub(crate) fn is_tag(tag: &str) -> bool {
    !tag.contains([',', '/'])
}
pub(crate) fn is_ip(text: &str) -> bool {
    text.parse::<std::net::IpAddr>().is_ok()
}
fn is_ipv4(text: &str) -> bool {
    text.parse::<std::net::Ipv4Addr>().is_ok()
}
fn is_ipv6(text: &str) -> bool {
    text.parse::<std::net::Ipv6Addr>().is_ok()
}
pub(crate) fn is_base64(text: &str) -> bool {
    decode_base64(text).is_some()
}
pub(crate) fn is_fqdn(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}
fn is_hostname(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric();
    let bytes = text.as_bytes();
    bytes.iter().all(|b| plain(*b) || *b == b'-')
        && bytes.first().copied().is_some_and(plain)
        && bytes.last().copied().is_some_and(plain)
}

/// Base64 as clients write it: line breaks do no harm.
pub(crate) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    let plain: String = text.split_whitespace().collect();
    base64::engine::general_purpose::STANDARD.decode(plain).ok()
}

/// A boolean as Nova reads it.
pub(crate) fn as_bool(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(b) => Some(*b),
        Value::String(s) => match s.as_str() {
            "True" | "TRUE" | "true" | "1" | "ON" | "On" | "on" | "YES" | "Yes" | "yes" => Some(true),
            "False" | "FALSE" | "false" | "0" | "OFF" | "Off" | "off" | "NO" | "No" | "no" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// An integer, also in a string.
pub(crate) fn as_int(value: &Value) -> Option<i64> {
    match value {
        Value::String(s) if !s.is_empty() && s.bytes().enumerate().all(|(i, b)| b.is_ascii_digit() || (i == 0 && b == b'-')) => {
            s.parse().ok()
        }
        v => v.as_i64(),
    }
}

struct Wrong {
    field: String,
    value: String,
    what: String,
}

/// A value as Nova's messages show it, shortened.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(s) => s.clone(),
        v => v.to_string().replace('"', "'"),
    };
    if text.chars().count() > 300 { text.chars().take(300).chain(['…']).collect() } else { text }
}
fn quoted(value: &Value) -> String {
    match value {
        Value::String(_) => format!("'{}'", shown(value)),
        v => shown(v),
    }
}

impl Shape {
    /// Fails with 400 and Nova's message when the value does not fit at this version.
    pub(crate) fn check(&self, value: &Value, cx: &Cx) -> Result<()> {
        self.fit("", value, cx.version.1).map_err(|w| {
            Error::bad_request(if w.field.is_empty() {
                w.what
            } else {
                format!("Invalid input for field/attribute {}. Value: {}. {}", w.field, w.value, w.what)
            })
        })
    }

    fn fit(&self, field: &str, value: &Value, minor: u16) -> Result<(), Wrong> {
        let wrong = |what: String| Err(Wrong { field: field.to_owned(), value: shown(value), what });
        let is_not = |kind: &str| wrong(format!("{} is not of type '{kind}'", quoted(value)));
        match self {
            Self::Any => Ok(()),
            Self::Null if value.is_null() => Ok(()),
            Self::Null => is_not("null"),
            Self::Bool if as_bool(value).is_some() => Ok(()),
            Self::Bool => {
                wrong(format!("{} is not one of [True, 'True', 'true', '1', False, 'False', 'false', '0']", quoted(value)))
            }
            Self::Int { min, max } => match as_int(value) {
                None => is_not("integer"),
                Some(n) if n < *min => wrong(format!("{n} is less than the minimum of {min}")),
                Some(n) if n > *max => wrong(format!("{n} is greater than the maximum of {max}")),
                Some(_) => Ok(()),
            },
            Self::Float => match value {
                Value::Number(_) => Ok(()),
                Value::String(s) if s.parse::<f64>().is_ok_and(f64::is_finite) => Ok(()),
                _ => is_not("number"),
            },
            Self::Text { min, max } | Self::Checked { min, max, .. } => {
                let Value::String(text) = value else { return is_not("string") };
                let length = text.chars().count();
                if length < *min {
                    return wrong(format!("'{text}' is too short"));
                }
                if length > *max {
                    return wrong(format!("{} is too long", quoted(value)));
                }
                match self {
                    Self::Checked { check, what, .. } if !check(text) => {
                        wrong(if what.starts_with("An ") { (*what).to_owned() } else { format!("{} {what}", quoted(value)) })
                    }
                    _ => Ok(()),
                }
            }
            Self::Choice(set) => match value.as_str() {
                Some(text) if set.contains(&text) => Ok(()),
                _ => wrong(format!("{} is not one of {set:?}", quoted(value))),
            },
            Self::List { of, min, max, unique } => {
                let Value::Array(list) = value else { return is_not("array") };
                if list.len() < *min {
                    return wrong(format!("{} is too short", shown(value)));
                }
                if list.len() > *max {
                    return wrong(format!("{} is too long", shown(value)));
                }
                if *unique && list.iter().enumerate().any(|(i, v)| list[..i].contains(v)) {
                    return wrong(format!("{} has non-unique elements", shown(value)));
                }
                list.iter().enumerate().try_for_each(|(i, v)| of.fit(&i.to_string(), v, minor))
            }
            Self::Object(props) | Self::Open(props) => {
                let Value::Object(map) = value else { return is_not("object") };
                for (name, v) in map {
                    match props.iter().find(|p| p.name == name && p.at(minor)) {
                        Some(p) => p.shape.fit(name, v, minor)?,
                        None if matches!(self, Self::Open(_)) => {}
                        None => return wrong(format!("Additional properties are not allowed ('{name}' was unexpected)")),
                    }
                }
                match props.iter().find(|p| p.at(minor) && p.required && !map.contains_key(p.name)) {
                    Some(p) => wrong(format!("'{}' is a required property", p.name)),
                    None => Ok(()),
                }
            }
            Self::Map { key, of } => {
                let Value::Object(map) = value else { return is_not("object") };
                for (name, v) in map {
                    if !key(name) {
                        return wrong(format!(
                            "Additional properties are not allowed ('{}' was unexpected)",
                            shown(&Value::String(name.clone()))
                        ));
                    }
                    of.fit(name, v, minor)?;
                }
                Ok(())
            }
            Self::OneOf(shapes) => {
                let mut first = None;
                for shape in *shapes {
                    match shape.fit(field, value, minor) {
                        Ok(()) => return Ok(()),
                        Err(w) => first = first.or(Some(w)),
                    }
                }
                Err(first.unwrap_or_else(|| Wrong {
                    field: field.to_owned(),
                    value: shown(value),
                    what: "is not valid".to_owned(),
                }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SHAPE: Shape = Shape::Object(&[
        req("name", &NAME),
        opt("tags", &Shape::List { of: &TAG, min: 0, max: 2, unique: true }).since(52),
        opt("old", &Shape::Bool).until(56),
        opt("networks", &Shape::Any).until(36),
        req("networks", &Shape::Any).since(37),
    ]);

    fn why(value: Value, minor: u16) -> String {
        SHAPE.fit("server", &value, minor).err().map(|w| format!("{}: {}", w.field, w.what)).unwrap_or_default()
    }

    #[test]
    fn unknown_missing_and_wrong_values_are_named() {
        assert_eq!(why(json!({"name": "a"}), 1), "");
        assert_eq!(why(json!({"name": "a", "x": 1}), 1), "server: Additional properties are not allowed ('x' was unexpected)");
        assert_eq!(why(json!({}), 1), "server: 'name' is a required property");
        assert_eq!(why(json!({"name": ""}), 1), "name: '' is too short");
        assert_eq!(why(json!({"name": 5}), 1), "name: 5 is not of type 'string'");
        assert!(why(json!({"name": " a"}), 1).contains("An invalid 'name' value"));
        assert!(why(json!({"name": "a".repeat(256)}), 1).contains("too long"));
    }

    #[test]
    fn properties_come_and_go_with_versions() {
        assert!(why(json!({"name": "a", "tags": []}), 51).contains("'tags' was unexpected"));
        assert_eq!(why(json!({"name": "a", "tags": ["x"], "networks": []}), 52), "");
        assert!(why(json!({"name": "a", "networks": [], "tags": ["x", "x"]}), 52).contains("non-unique"));
        assert!(why(json!({"name": "a", "networks": [], "tags": ["a/b"]}), 52).contains("does not match"));
        assert!(why(json!({"name": "a", "old": true, "networks": []}), 57).contains("'old' was unexpected"));
        assert!(why(json!({"name": "a"}), 37).contains("'networks' is a required"));
    }

    #[test]
    fn numbers_may_be_texts_but_not_others() {
        assert_eq!(as_int(&json!("12")), Some(12));
        assert_eq!(as_int(&json!("-1")), Some(-1));
        assert_eq!(as_int(&json!("")), None);
        assert_eq!(as_int(&json!("1.5")), None);
        assert_eq!(as_bool(&json!("Yes")), Some(true));
        assert_eq!(as_bool(&json!(1)), None);
    }
}
