//! Filters of the list of images (api-ref `image/v2`, "List images").
use crate::{
    image::{is_owner, membership, text},
    protect::{Guard, Op},
};
use base::Timestamp;
use resource::{Cx, Error, Map, Result};
use serde_json::Value;

/// Key of the filter that says which images the caller sees in a list at all: `[visibility or "", member status]`.
pub(crate) const SCOPE: &str = "*scope";

/// Fields that take `in:a,b`.
const LISTS: [&str; 5] = ["name", "id", "status", "disk_format", "container_format"];

/// Refuses filters that could not be understood, before rows are looked at.
pub(crate) fn check(cx: &Cx) -> Result<()> {
    for (key, value) in &cx.query.0 {
        match key.as_str() {
            "size_min" | "size_max" | "size" | "min_ram" | "min_disk" if value.parse::<u64>().is_err() => {
                return Err(Error::bad_request(format!(
                    "Unable to filter on {key}: '{value}' must be an integer that is not negative."
                )));
            }
            "created_at" | "updated_at" if comparison(value).is_none() => {
                return Err(Error::bad_request(format!(
                    "Unable to filter on {key}: '{value}' must be a time in ISO 8601, with gt:, gte:, lt:, lte:, eq: or neq: before it."
                )));
            }
            "protected" | "os_hidden" if truth(value).is_none() => {
                return Err(Error::bad_request(format!("Unable to filter on {key}: '{value}' must be true or false.")));
            }
            "visibility" if !matches!(value.as_str(), "public" | "private" | "shared" | "community" | "all") => {
                return Err(Error::bad_request(format!("Invalid visibility value: {value}")));
            }
            "member_status" if !matches!(value.as_str(), "pending" | "accepted" | "rejected" | "all") => {
                return Err(Error::bad_request(format!("Invalid status: {value}")));
            }
            key if LISTS.contains(&key) && value.strip_prefix("in:").is_some_and(|list| split_list(list).is_none()) => {
                return Err(Error::bad_request(format!("Unable to filter on {key}: the list '{value}' has an open quote.")));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The filters that hold when the query does not say otherwise.
pub(crate) fn implicit(cx: &Cx) -> Vec<(String, Vec<String>)> {
    let get = |key, default: &str| cx.query.get(key).unwrap_or(default).to_owned();
    let mut out = vec![(SCOPE.to_owned(), vec![get("visibility", ""), get("member_status", "accepted")])];
    if cx.query.get("os_hidden").is_none() {
        out.push(("os_hidden".into(), vec!["false".into()]));
    }
    out
}

pub(crate) fn passes(row: &Map, key: &str, values: &[&str], cx: &Cx) -> bool {
    let value = values.first().copied().unwrap_or_default();
    let number = |field: &str| row.get(field).and_then(Value::as_u64);
    match key {
        SCOPE => in_scope(row, cx, value, values.get(1).copied().unwrap_or("accepted")),
        // Said by the scope.
        "visibility" | "member_status" => true,
        "owner" | "project_id" => values.contains(&text(row, "project_id")),
        "os_hidden" | "protected" => row.get(key).and_then(Value::as_bool) == truth(value),
        "tag" => {
            let tags = row.get("tags").and_then(Value::as_array);
            values.iter().all(|wanted| tags.is_some_and(|tags| tags.iter().any(|t| t == wanted)))
        }
        "size_min" => number("size").is_some_and(|size| value.parse().is_ok_and(|min: u64| size >= min)),
        "size_max" => number("size").is_some_and(|size| value.parse().is_ok_and(|max: u64| size <= max)),
        "size" | "min_ram" | "min_disk" => number(key).map(|n| n.to_string()).as_deref() == Some(value),
        "created_at" | "updated_at" => values.iter().all(|v| at_time(row, key, v)),
        key if LISTS.contains(&key) => match value.strip_prefix("in:") {
            Some(list) => split_list(list).is_some_and(|list| list.iter().any(|v| v == text(row, key))),
            None => values.contains(&text(row, key)),
        },
        "checksum" | "os_hash_algo" | "os_hash_value" => values.contains(&text(row, key)),
        // What one may not read is not found by its value either.
        key if !Guard::of(cx).allows(key, Op::Read) => false,
        key => row.get("properties").and_then(|p| p.get(key)).and_then(Value::as_str).is_some_and(|v| values.contains(&v)),
    }
}

/// Without a word about it: one's own, the public ones, and those shared with the project that it accepted.
fn in_scope(row: &Map, cx: &Cx, visibility: &str, member_status: &str) -> bool {
    let own = is_owner(row, cx);
    let shared = || membership(row, cx).is_some_and(|status| member_status == "all" || status == member_status);
    let is = text(row, "visibility");
    match visibility {
        "all" => own || matches!(is, "public" | "community") || shared() || cx.is_admin(),
        "" => own || is == "public" || (is == "shared" && shared()) || (is != "community" && cx.is_admin()),
        wanted => is == wanted && (own || matches!(is, "public" | "community") || shared() || cx.is_admin()),
    }
}

fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" | "t" => Some(true),
        "false" | "0" | "no" | "off" | "f" => Some(false),
        _ => None,
    }
}

/// `gt:2026-01-01T00:00:00Z`; without an operator it means equal.
fn comparison(text: &str) -> Option<(&str, Timestamp)> {
    let known = |op: &&str| matches!(*op, "gt" | "gte" | "lt" | "lte" | "eq" | "neq");
    let (op, time) = match text.split_once(':') {
        Some((op, time)) if known(&op) => (op, time),
        _ => ("eq", text),
    };
    Timestamp::parse(time).map(|t| (op, t))
}

fn at_time(row: &Map, key: &str, wanted: &str) -> bool {
    let Some((op, wanted)) = comparison(wanted) else { return false };
    let stamp =
        row.get(key).and_then(Value::as_i64).or_else(|| row.get("created_at").and_then(Value::as_i64)).unwrap_or_default();
    // What is shown has whole seconds, so those are compared.
    let (is, wanted) = (Timestamp(stamp).unix(), wanted.unix());
    match op {
        "gt" => is > wanted,
        "gte" => is >= wanted,
        "lt" => is < wanted,
        "lte" => is <= wanted,
        "neq" => is != wanted,
        _ => is == wanted,
    }
}

/// Values separated by commas; one that holds a comma is in double quotes. None when a quote stays open.
fn split_list(text: &str) -> Option<Vec<String>> {
    let mut out = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(String::new()),
            c => {
                if let Some(last) = out.last_mut() {
                    last.push(c);
                }
            }
        }
    }
    (!quoted).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_split_outside_of_quotes() {
        assert_eq!(split_list("a,b"), Some(vec!["a".into(), "b".into()]));
        assert_eq!(split_list("\"a,b\",c"), Some(vec!["a,b".into(), "c".into()]));
        assert_eq!(split_list("\"a,b"), None);
    }

    #[test]
    fn times_are_compared_by_the_second() {
        let row = serde_json::json!({"created_at": 1_500_000, "updated_at": null});
        let row = row.as_object().unwrap();
        for (filter, passes) in [
            ("1970-01-01T00:00:01Z", true),
            ("gt:1970-01-01T00:00:01Z", false),
            ("gte:1970-01-01T00:00:01Z", true),
            ("lt:1970-01-01T00:00:02Z", true),
            ("neq:1970-01-01T00:00:01Z", false),
        ] {
            assert_eq!(at_time(row, "updated_at", filter), passes, "{filter}");
        }
        assert!(comparison("gt:yesterday").is_none());
    }
}
