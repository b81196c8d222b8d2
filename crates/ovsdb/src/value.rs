//! OVSDB's JSON spelling of sets, maps and references (RFC 7047 section 5.1), both ways.
use serde_json::{Value, json};

/// A reference to a row that exists.
pub fn uuid(id: &str) -> Value {
    json!(["uuid", id])
}
/// A reference to a row inserted by the same transaction.
pub fn named(name: &str) -> Value {
    json!(["named-uuid", name])
}
pub fn set(atoms: impl IntoIterator<Item = Value>) -> Value {
    json!(["set", atoms.into_iter().collect::<Vec<_>>()])
}
pub fn strings<S: AsRef<str>>(atoms: impl IntoIterator<Item = S>) -> Value {
    set(atoms.into_iter().map(|s| Value::from(s.as_ref())))
}
pub fn map<K: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (K, V)>) -> Value {
    json!(["map", pairs.into_iter().map(|(k, v)| json!([k.as_ref(), v.as_ref()])).collect::<Vec<_>>()])
}

/// The id in a reference.
pub fn as_uuid(value: &Value) -> Option<&str> {
    match value.as_array()?.as_slice() {
        [tag, Value::String(id)] if tag == "uuid" => Some(id),
        _ => None,
    }
}
/// The atoms of a set; a set of one is written as its atom.
pub fn atoms(value: &Value) -> &[Value] {
    match value.as_array().map(Vec::as_slice) {
        Some([tag, Value::Array(items)]) if tag == "set" => items,
        _ => std::slice::from_ref(value),
    }
}
/// The pairs of a map of strings.
pub fn pairs(value: &Value) -> impl Iterator<Item = (&str, &str)> {
    let items = match value.as_array().map(Vec::as_slice) {
        Some([tag, Value::Array(items)]) if tag == "map" => items.as_slice(),
        _ => &[],
    };
    items.iter().filter_map(|pair| Some((pair.get(0)?.as_str()?, pair.get(1)?.as_str()?)))
}
/// The value of one key of a map of strings.
pub fn lookup<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    pairs(value).find(|(k, _)| *k == key).map(|(_, v)| v)
}
/// The ids in a set of references.
pub fn uuids(value: &Value) -> impl Iterator<Item = &str> {
    atoms(value).iter().filter_map(as_uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_none_one_and_more() {
        assert!(atoms(&json!(["set", []])).is_empty());
        assert_eq!(atoms(&json!("a")), [json!("a")]);
        assert_eq!(uuids(&json!(["uuid", "u1"])).collect::<Vec<_>>(), ["u1"]);
        assert_eq!(uuids(&set([uuid("u1"), uuid("u2")])).collect::<Vec<_>>(), ["u1", "u2"]);
        assert_eq!(lookup(&map([("k", "v")]), "k"), Some("v"));
    }
}
