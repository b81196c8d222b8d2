//! Bodies of requests that no table describes: which keys they may have, and what the values must be.
use api::{Error, Map, Result};
use serde_json::Value;
use std::collections::BTreeMap;

/// An object of a body; every question names its key in the answer when it is wrong.
pub(crate) struct Input<'a>(pub(crate) &'a Map);

fn wrong(key: &str, why: &str) -> Error {
    Error::bad_request(format!("Invalid input for field/attribute {key}: {why}."))
}

impl<'a> Input<'a> {
    /// The object, or a refusal that names the key that is not known.
    pub(crate) fn new(map: &'a Map, known: &[&str]) -> Result<Self> {
        match map.keys().find(|k| !known.contains(&k.as_str())) {
            Some(key) => Err(Error::bad_request(format!("Additional properties are not allowed ('{key}' was unexpected)"))),
            None => Ok(Self(map)),
        }
    }
    /// As [`Self::new`], of a value that must be an object.
    pub(crate) fn of(value: &'a Value, what: &str, known: &[&str]) -> Result<Self> {
        Self::new(value.as_object().ok_or_else(|| wrong(what, "it must be an object"))?, known)
    }
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }
    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(s)) if s.chars().count() <= 255 && !s.contains('\0') => Ok(Some(s)),
            Some(Value::String(_)) => Err(wrong(key, "it must have at most 255 characters")),
            Some(_) => Err(wrong(key, "it must be a string")),
        }
    }
    pub(crate) fn required(&self, key: &str) -> Result<&'a str> {
        let given = self.text(key)?.filter(|s| !s.trim().is_empty());
        given.ok_or_else(|| wrong(key, "it is a required property"))
    }
    pub(crate) fn uuid(&self, key: &str) -> Result<Option<&'a str>> {
        match self.text(key)? {
            Some(id) if !base::id::is_uuid(id) => Err(wrong(key, "it must be a UUID")),
            given => Ok(given),
        }
    }
    pub(crate) fn required_uuid(&self, key: &str) -> Result<&'a str> {
        self.uuid(key)?.ok_or_else(|| wrong(key, "it is a required property"))
    }
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>> {
        let given = self.get(key).map(|v| resource::Kind::Bool.check(v));
        given.transpose().map(|v| v.and_then(|v| v.as_bool())).map_err(|why| wrong(key, &why))
    }
    pub(crate) fn int(&self, key: &str, min: i64, max: i64) -> Result<Option<i64>> {
        let given = self.get(key).map(|v| resource::Kind::Int { min, max }.check(v));
        given.transpose().map(|v| v.and_then(|v| v.as_i64())).map_err(|why| wrong(key, &why))
    }
    pub(crate) fn choice(&self, key: &str, of: &[&str]) -> Result<Option<&'a str>> {
        match self.text(key)? {
            Some(word) if !of.contains(&word) => Err(wrong(key, &format!("'{word}' is not one of {}", of.join(", ")))),
            given => Ok(given),
        }
    }
    pub(crate) fn object(&self, key: &str) -> Result<Option<&'a Map>> {
        self.get(key).map(|v| v.as_object().ok_or_else(|| wrong(key, "it must be an object"))).transpose()
    }
    pub(crate) fn ids(&self, key: &str) -> Result<Vec<String>> {
        let Some(text) = self.get(key) else { return Ok(Vec::new()) };
        let parts: Vec<&str> = match text {
            Value::String(s) => s.split(',').map(str::trim).filter(|s| !s.is_empty()).collect(),
            Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
            _ => return Err(wrong(key, "it must be ids with commas between them")),
        };
        match parts.iter().find(|p| !base::id::is_uuid(p)) {
            Some(bad) => Err(wrong(key, &format!("'{bad}' is not a UUID"))),
            None => Ok(parts.into_iter().map(str::to_owned).collect()),
        }
    }
}

/// An object of texts, with keys that specs may have.
pub(crate) fn specs(map: &Map) -> Result<BTreeMap<String, String>> {
    map.iter()
        .map(|(key, value)| {
            let fits = (1..=255).contains(&key.chars().count())
                && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_.: ".contains(c));
            if !fits {
                return Err(Error::bad_request(format!(
                    "Key names can only contain alphanumeric characters, underscores, periods, colons and hyphens: '{key}' does not fit."
                )));
            }
            let text = match value {
                Value::String(s) => s.clone(),
                Value::Bool(b) => crate::common::title(*b).to_owned(),
                Value::Number(n) => n.to_string(),
                _ => return Err(wrong(key, "it must be a string")),
            };
            match text.chars().count() {
                0..=255 => Ok((key.clone(), text)),
                _ => Err(wrong(key, "it must have at most 255 characters")),
            }
        })
        .collect()
}
