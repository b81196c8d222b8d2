//! What a field may hold on the wire, and the check of it.
use serde_json::Value;
use std::{collections::BTreeMap, net::IpAddr};

/// The type of a field, as data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Bool,
    /// Not a text that reads like a boolean (Keystone).
    StrictBool,
    /// Also accepts a number in a string, as OpenStack does.
    Int {
        min: i64,
        max: i64,
    },
    Number,
    /// Length in characters.
    Text {
        min: usize,
        max: usize,
    },
    /// A text of at least one character that is not a space (Keystone's names).
    Name {
        max: usize,
    },
    Choice(&'static [&'static str]),
    Uuid,
    Ip,
    Cidr,
    Mac,
    /// ISO 8601 on the wire, microseconds in the row.
    Time,
    List(&'static Kind),
    /// An object whose values are texts.
    TextMap,
    Object,
    Any,
    Optional(&'static Kind),
}

impl Kind {
    /// Narrows the bounds, of the value of numbers and of the length of texts.
    pub const fn within(self, min: Option<i64>, max: Option<i64>) -> Self {
        const fn or(v: Option<i64>, other: i64) -> i64 {
            match v {
                Some(v) => v,
                None => other,
            }
        }
        match self {
            Self::Int { min: lo, max: hi } => Self::Int { min: or(min, lo), max: or(max, hi) },
            Self::Text { min: lo, max: hi } => Self::Text { min: or(min, lo as i64) as usize, max: or(max, hi as i64) as usize },
            Self::Optional(Self::Text { min: lo, max: hi }) => {
                // A bounded text behind an Option: the few sizes that the tables use.
                let (lo, hi) = (or(min, *lo as i64), or(max, *hi as i64));
                match (lo, hi) {
                    (0, 255) => Self::Optional(&Self::Text { min: 0, max: 255 }),
                    (1, 255) => Self::Optional(&Self::Text { min: 1, max: 255 }),
                    (0, 64) => Self::Optional(&Self::Text { min: 0, max: 64 }),
                    (0, 65535) => Self::Optional(&Self::Text { min: 0, max: 65535 }),
                    _ => panic!("give this field a `kind` of its own"),
                }
            }
            other => other,
        }
    }

    /// For messages: `'x' is not a boolean`.
    pub fn wants(&self) -> String {
        match self {
            Self::Bool | Self::StrictBool => "a boolean".into(),
            Self::Int { min, max } if *min == i64::MIN && *max == i64::MAX => "an integer".into(),
            Self::Int { min, max } => format!("an integer between {min} and {max}"),
            Self::Number => "a number".into(),
            Self::Text { min: 0, max } => format!("a string of at most {max} characters"),
            Self::Text { min, max } => format!("a string of {min} to {max} characters"),
            Self::Name { max } => format!("a string of 1 to {max} characters that are not all spaces"),
            Self::Choice(set) => format!("one of {}", set.join(", ")),
            Self::Uuid => "a valid UUID".into(),
            Self::Ip => "a valid IP address".into(),
            Self::Cidr => "a valid IP network in CIDR notation".into(),
            Self::Mac => "a valid MAC address".into(),
            Self::Time => "a valid ISO 8601 date and time".into(),
            Self::List(k) => format!("a list of which each item is {}", k.wants()),
            Self::TextMap => "an object of strings".into(),
            Self::Object => "an object".into(),
            Self::Any => "anything".into(),
            Self::Optional(k) => format!("{} or null", k.wants()),
        }
    }

    /// Checks a value from outside and gives its stored form, or the reason why not (`'x' is not a boolean`).
    pub fn check(&self, v: &Value) -> Result<Value, String> {
        let no = || {
            let mut shown = v.to_string().replace('"', "'");
            if shown.len() > 200 {
                let cut = (0..=200).rev().find(|i| shown.is_char_boundary(*i)).unwrap_or(0);
                shown.truncate(cut);
                shown.push('…');
            }
            format!("{shown} is not {}", self.wants())
        };
        let same = |ok: bool| if ok { Ok(v.clone()) } else { Err(no()) };
        match (self, v) {
            (Self::Any, v) => Ok(v.clone()),
            (Self::Optional(_), Value::Null) => Ok(Value::Null),
            (Self::Optional(k), v) => k.check(v).map_err(|_| no()),
            (Self::Bool | Self::StrictBool, Value::Bool(_)) => Ok(v.clone()),
            (Self::Bool, Value::String(s)) => match s.to_ascii_lowercase().as_str() {
                "true" | "1" | "on" | "yes" | "t" | "y" => Ok(Value::Bool(true)),
                "false" | "0" | "off" | "no" | "f" | "n" => Ok(Value::Bool(false)),
                _ => Err(no()),
            },
            (Self::Bool, Value::Number(n)) if n.as_i64() == Some(0) => Ok(Value::Bool(false)),
            (Self::Bool, Value::Number(n)) if n.as_i64() == Some(1) => Ok(Value::Bool(true)),
            (Self::Int { min, max }, v) => {
                let n = v.as_i64().or_else(|| v.as_str().and_then(|s| s.trim().parse().ok())).ok_or_else(no)?;
                if (*min..=*max).contains(&n) { Ok(n.into()) } else { Err(no()) }
            }
            (Self::Number, Value::Number(_)) => Ok(v.clone()),
            (Self::Text { min, max }, Value::String(s)) => same(!s.contains('\0') && (*min..=*max).contains(&s.chars().count())),
            (Self::Name { max }, Value::String(s)) => {
                same(!s.contains('\0') && s.chars().count() <= *max && s.chars().any(|c| !c.is_whitespace()))
            }
            (Self::Choice(set), Value::String(s)) => same(set.contains(&s.as_str())),
            (Self::Uuid, Value::String(s)) => same(base::id::is_uuid(s)),
            (Self::Ip, Value::String(s)) => s.parse::<IpAddr>().map(|a| a.to_string().into()).map_err(|_| no()),
            (Self::Cidr, Value::String(s)) => s.parse::<ipnet::IpNet>().map(|n| n.trunc().to_string().into()).map_err(|_| no()),
            (Self::Mac, Value::String(s)) => base::id::Mac::parse(s).map(|m| m.to_string().into()).ok_or_else(no),
            (Self::Time, Value::String(s)) => base::Timestamp::parse(s).map(|t| t.0.into()).ok_or_else(no),
            (Self::List(k), Value::Array(list)) => {
                list.iter().map(|v| k.check(v)).collect::<Result<Vec<_>, _>>().map(Value::Array)
            }
            (Self::TextMap, Value::Object(map)) => same(map.values().all(Value::is_string)),
            (Self::Object, Value::Object(_)) => Ok(v.clone()),
            _ => Err(no()),
        }
    }

    pub fn is_optional(&self) -> bool {
        matches!(self, Self::Optional(_))
    }
}

/// The kind of a Rust type.
pub trait FieldType {
    const KIND: Kind;
}
macro_rules! kinds {
    ($($ty:ty => $kind:expr),+ $(,)?) => {$(impl FieldType for $ty { const KIND: Kind = $kind; })+};
}
kinds! {
    bool => Kind::Bool,
    u8 => Kind::Int { min: 0, max: u8::MAX as i64 },
    u16 => Kind::Int { min: 0, max: u16::MAX as i64 },
    u32 => Kind::Int { min: 0, max: u32::MAX as i64 },
    u64 => Kind::Int { min: 0, max: i64::MAX },
    i32 => Kind::Int { min: i32::MIN as i64, max: i32::MAX as i64 },
    i64 => Kind::Int { min: i64::MIN, max: i64::MAX },
    f64 => Kind::Number,
    String => Kind::Text { min: 0, max: 255 },
    IpAddr => Kind::Ip,
    ipnet::IpNet => Kind::Cidr,
    base::Timestamp => Kind::Time,
    serde_json::Value => Kind::Any,
    serde_json::Map<String, Value> => Kind::Object,
    BTreeMap<String, String> => Kind::TextMap,
}
impl<T: FieldType> FieldType for Vec<T> {
    const KIND: Kind = Kind::List(&T::KIND);
}
impl<T: FieldType> FieldType for Option<T> {
    const KIND: Kind = Kind::Optional(&T::KIND);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_checked_and_normalised() {
        assert_eq!(Kind::Bool.check(&json!("True")), Ok(json!(true)));
        assert_eq!(Kind::Int { min: 0, max: 9 }.check(&json!("7")), Ok(json!(7)));
        assert!(Kind::Int { min: 0, max: 9 }.check(&json!(7.5)).is_err());
        assert_eq!(Kind::Cidr.check(&json!("10.0.0.7/24")), Ok(json!("10.0.0.0/24")));
        assert_eq!(Kind::Mac.check(&json!("FA:16:3E:00:00:01")), Ok(json!("fa:16:3e:00:00:01")));
        assert!(Kind::Text { min: 1, max: 3 }.check(&json!("äöüß")).is_err());
        assert!(Kind::Text { min: 0, max: 9 }.check(&json!("a\u{0}b")).is_err());
        assert!(Kind::Name { max: 3 }.check(&json!(" ä ")).is_ok());
        for bad in ["", " ", "\u{c}", "\u{2003}", "four", "a\u{0}"] {
            assert!(Kind::Name { max: 3 }.check(&json!(bad)).is_err(), "{bad:?}");
        }
        assert_eq!(<Option<Vec<u16>>>::KIND.check(&json!(null)), Ok(json!(null)));
        let e = <Vec<u16>>::KIND.check(&json!([1, "x"])).expect_err("not a number");
        assert!(e.contains("'x' is not an integer"), "{e}");
    }

    #[test]
    fn messages_are_bounded() {
        let e = Kind::Bool.check(&json!("ä".repeat(10_000))).expect_err("not a boolean");
        assert!(e.len() < 400);
    }
}
