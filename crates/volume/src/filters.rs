//! Filters of lists that are not plain fields: metadata, parts of names, times, and older names.
use crate::common::{int, object_at, text};
use api::Cx;
use base::Timestamp;
use resource::Map;
use serde_json::Value;

/// `{'key': 'value'}`, as clients write a dictionary into a query, or JSON.
pub(crate) fn dictionary(text: &str) -> Option<Map> {
    let json = serde_json::from_str(text).ok().or_else(|| serde_json::from_str(&text.replace('\'', "\"")).ok());
    match json {
        Some(Value::Object(map)) => Some(map),
        _ => None,
    }
}

fn has_all(row: &Map, field: &str, wanted: &str) -> bool {
    let Some(wanted) = dictionary(wanted) else { return false };
    let shown = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    wanted.iter().all(|(k, v)| object_at(row, field).and_then(|m| m.get(k)).is_some_and(|have| shown(have) == shown(v)))
}

/// `gt:2024-01-01T00:00:00,lt:…`
fn in_time(at: i64, wanted: &str) -> bool {
    wanted.split(',').all(|part| {
        let (operator, time) = part.split_once(':').unwrap_or(("", part));
        let Some(time) = Timestamp::parse(time) else { return false };
        match operator {
            "gt" => at > time.0,
            "gte" => at >= time.0,
            "lt" => at < time.0,
            "lte" => at <= time.0,
            "neq" => at != time.0,
            _ => at == time.0,
        }
    })
}

fn common(row: &Map, key: &str, values: &[&str]) -> Option<bool> {
    let any = |is: &dyn Fn(&str) -> bool| Some(values.iter().any(|v| is(v)));
    match key {
        "display_name" => any(&|v| text(row, "name") == v),
        "display_description" => any(&|v| text(row, "description") == v),
        "metadata" => any(&|v| has_all(row, "metadata", v)),
        "created_at" | "updated_at" => any(&|v| in_time(int(row, key), v)),
        // `name~=part` arrives as the key `name~`.
        key => {
            let field = key.strip_suffix('~')?;
            matches!(field, "name" | "description" | "status" | "display_name")
                .then(|| values.iter().any(|v| text(row, if field == "display_name" { "name" } else { field }).contains(v)))
        }
    }
}

pub(crate) fn volume(row: &Map, key: &str, values: &[&str]) -> Option<bool> {
    let any = |is: &dyn Fn(&str) -> bool| Some(values.iter().any(|v| is(v)));
    match key {
        "glance_metadata" | "image_metadata" => any(&|v| has_all(row, "volume_image_metadata", v)),
        "host" => any(&|v| crate::hosts::host_of(v) == text(row, "host")),
        "consumes_quota" => any(&|v| v.eq_ignore_ascii_case("true")),
        key => common(row, key, values),
    }
}

pub(crate) fn snapshot(row: &Map, key: &str, values: &[&str]) -> Option<bool> {
    match key {
        "consumes_quota" => Some(values.iter().any(|v| v.eq_ignore_ascii_case("true"))),
        key => common(row, key, values),
    }
}

pub(crate) fn attachment(row: &Map, key: &str, values: &[&str]) -> Option<bool> {
    let any = |is: &dyn Fn(&str) -> bool| Some(values.iter().any(|v| is(v)));
    let user = || Some(text(row, "consumer")).filter(|c| !c.is_empty()).unwrap_or_else(|| text(row, "instance"));
    match key {
        "instance_id" | "instance_uuid" | "server_id" => any(&|v| user() == v),
        "status" => any(&|v| text(row, "attach_status") == v),
        _ => None,
    }
}

/// `is_public` is for administrators: others see what they may use.
pub(crate) fn volume_type(row: &Map, key: &str, values: &[&str], cx: &Cx) -> Option<bool> {
    let any = |is: &dyn Fn(&str) -> bool| Some(values.iter().any(|v| is(v)));
    match key {
        "extra_specs" => any(&|v| has_all(row, "extra_specs", v)),
        "is_public" if !cx.is_admin() => Some(true),
        "is_public" => any(&|v| match v.to_ascii_lowercase().as_str() {
            "none" => true,
            "true" | "1" => row.get("is_public") == Some(&Value::Bool(true)),
            _ => row.get("is_public") == Some(&Value::Bool(false)),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn dictionaries_come_as_python_or_json() {
        let row = crate::common::map(json!({"metadata": {"Type": "work", "n": "1"}, "name": "disk one", "created_at": 0}));
        for (key, value, is) in [
            ("metadata", "{'Type': 'work'}", true),
            ("metadata", "{\"Type\": \"work\", \"n\": \"1\"}", true),
            ("metadata", "{'Type': 'play'}", false),
            ("metadata", "nonsense", false),
            ("name~", "sk o", true),
            ("display_name", "disk", false),
            ("created_at", "gte:1970-01-01T00:00:00,lt:1971-01-01T00:00:00", true),
            ("created_at", "gt:1970-01-01T00:00:00", false),
        ] {
            assert_eq!(volume(&row, key, &[value]), Some(is), "{key}={value}");
        }
        assert_eq!(volume(&row, "status", &["available"]), None, "a plain field");
    }
}
