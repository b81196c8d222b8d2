//! Dialects: the wire habits of each service. Errors become HTTP here and nowhere else.
mod block_storage;
mod compute;
mod identity;
mod image;
mod network;
mod placement;

pub use block_storage::{BLOCK_STORAGE, block_storage};
pub use compute::COMPUTE;
pub use identity::IDENTITY;
pub use image::IMAGE;
pub use network::NETWORK;
pub use placement::PLACEMENT;

use crate::ReplyBody;
use base::Timestamp;
use resource::{Cx, Error, ErrorKind, Found, Listing, Map, ResourceDef, Result};
use serde_json::{Value, json};

/// See the module. One constant per service.
pub struct Dialect {
    pub name: &'static str,
    /// `{"network": {...}}`, or the bare object.
    pub wrapped: bool,
    pub update_method: &'static str,
    pub created: u16,
    pub deleted: u16,
    /// Does a list body (`{"networks": [...]}`) create many at once?
    pub bulk: bool,
    /// Body of an error, beside its status.
    pub error: fn(&Error, u16, &str) -> (Value, &'static str),
    pub status: fn(ErrorKind) -> u16,
    /// Reads paging, order and filters from the query.
    pub listing: fn(&ResourceDef, &Cx) -> Result<Listing>,
    /// Adds links to a list's body.
    pub page: fn(&ResourceDef, &Cx, &Listing, &Found, &mut Map),
    /// Adds to one shown row what no table says: links, times, ids under other names.
    pub decorate: fn(&ResourceDef, &Map, &mut Map, &Cx),
    pub time: fn(Timestamp) -> String,
    /// Name of the policy rule of an action.
    pub rule: fn(&ResourceDef, &str) -> String,
}

/// Status codes that most services share; each dialect names its own exceptions.
pub(crate) fn common_status(kind: ErrorKind) -> u16 {
    match kind {
        ErrorKind::BadRequest => 400,
        ErrorKind::Unauthorized => 401,
        ErrorKind::Forbidden => 403,
        ErrorKind::NotFound => 404,
        ErrorKind::MethodNotAllowed => 405,
        ErrorKind::NotAcceptable => 406,
        ErrorKind::Conflict | ErrorKind::OverQuota => 409,
        ErrorKind::Gone => 410,
        ErrorKind::TooLarge => 413,
        ErrorKind::UnsupportedMedia => 415,
        ErrorKind::RangeNotSatisfiable => 416,
        ErrorKind::Unprocessable => 422,
        ErrorKind::Internal => 500,
        ErrorKind::NotImplemented => 501,
        ErrorKind::Unavailable => 503,
    }
}

/// The standard reason phrase, for bodies that carry it.
pub(crate) fn title(status: u16) -> &'static str {
    match status {
        300 => "Multiple Choices",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        409 => "Conflict",
        410 => "Gone",
        413 => "Request Entity Too Large",
        415 => "Unsupported Media Type",
        416 => "Requested Range Not Satisfiable",
        422 => "Unprocessable Entity",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}

/// Characters that an error's text has at most: much of it may be what the caller sent.
const LONGEST: usize = 2000;

/// Long texts lose their middle: the start says what it is about, the end what to do.
fn bounded(text: &str) -> std::borrow::Cow<'_, str> {
    let length = text.chars().count();
    if length <= LONGEST {
        return text.into();
    }
    let (start, end): (String, String) = (text.chars().take(LONGEST - 500).collect(), text.chars().skip(length - 500).collect());
    format!("{start} […] {end}").into()
}

/// The answer for an error, logged when it is ours.
pub(crate) fn error_reply(dialect: &Dialect, error: &Error, request_id: &str, identity: &str) -> crate::Reply {
    let error = &Error { message: bounded(&error.message).into_owned(), ..error.clone() };
    let status = (dialect.status)(error.kind);
    if status >= 500 {
        tracing::error!(request_id, status, error = %error.message, context = error.context.as_deref().unwrap_or(""), "The request failed");
    } else if let Some(context) = &error.context {
        tracing::info!(request_id, status, error = %error.message, context = %context, "The request was refused");
    }
    if error.kind == ErrorKind::Unauthorized && dialect.name != "identity" {
        // This is what keystonemiddleware answers in front of every other service.
        let body = json!({"error": {"code": 401, "title": "Unauthorized", "message": error.message}});
        return crate::Reply::json(401, body).header("www-authenticate", format!("Keystone uri=\"{identity}\""));
    }
    let (body, media) = (dialect.error)(error, status, request_id);
    let mut reply = crate::Reply::json(status, Value::Null).header("content-type", media);
    reply.body = match body {
        Value::String(text) => ReplyBody::Bytes(text.into()),
        body => ReplyBody::JsonText(body.to_string().into()),
    };
    if error.kind == ErrorKind::Unauthorized {
        reply = reply.header("www-authenticate", format!("Keystone uri=\"{identity}\""));
    }
    reply
}

/// A limit from the query: at most `most`, `none` when it is missing.
pub(crate) fn limit(cx: &Cx, none: usize, most: usize) -> Result<usize> {
    match cx.query.get("limit") {
        None => Ok(none),
        Some(text) => match text.parse::<i64>() {
            Ok(n) if n >= 0 => Ok((n as usize).min(most)),
            _ => Err(Error::bad_request(format!("limit '{text}' must be an integer that is not negative."))),
        },
    }
}

/// Filters on fields that the table declares; other keys are left to the caller.
pub(crate) fn field_filters(def: &ResourceDef, cx: &Cx, reserved: &[&str]) -> Vec<(String, Vec<String>)> {
    let empty = Map::new();
    let mut out: Vec<(String, Vec<String>)> = Vec::new();
    for (key, value) in cx.query.0.iter().filter(|(k, _)| !reserved.contains(&k.as_str())) {
        let key = if key == "tenant_id" { "project_id" } else { key.as_str() };
        let known = matches!(key, "id" | "project_id")
            || def.field(key).is_some_and(|f| f.filter)
            || (def.hooks.filter)(&empty, key, &[value], cx).is_some();
        if !known {
            continue;
        }
        match out.iter_mut().find(|(k, _)| k == key) {
            Some((_, values)) => values.push(value.clone()),
            None => out.push((key.to_owned(), vec![value.clone()])),
        }
    }
    // Parameters of the path are fields of the row.
    for (key, value) in cx.params.iter().filter(|(k, _)| def.field(k).is_some()) {
        out.push((key.clone(), vec![value.clone()]));
    }
    out
}

/// `sort_key` and `sort_dir`, repeated in step.
pub(crate) fn sort_keys(def: &ResourceDef, cx: &Cx, also: &[&str]) -> Result<Vec<(String, bool)>> {
    let directions: Vec<&str> = cx.query.all("sort_dir").collect();
    cx.query
        .all("sort_key")
        .enumerate()
        .map(|(i, key)| {
            let key = if key == "tenant_id" { "project_id" } else { key };
            if !(also.contains(&key) || def.field(key).is_some_and(|f| f.sort)) {
                return Err(Error::bad_request(format!("{key} is not a key that {} can be sorted by.", def.plural)));
            }
            match directions.get(i).or(directions.last()) {
                None | Some(&"asc") => Ok((key.to_owned(), false)),
                Some(&"desc") => Ok((key.to_owned(), true)),
                Some(other) => Err(Error::bad_request(format!("sort_dir '{other}' must be asc or desc."))),
            }
        })
        .collect()
}

/// The query of the next page: everything as it was but the marker.
pub(crate) fn next_query(cx: &Cx, marker: &str, limit: Option<usize>) -> String {
    let encode = |s: &str| percent_encoding::utf8_percent_encode(s, percent_encoding::NON_ALPHANUMERIC).to_string();
    let mut parts: Vec<String> = cx
        .query
        .0
        .iter()
        .filter(|(k, _)| k != "marker" && !(k == "limit" && limit.is_some()))
        .map(|(k, v)| format!("{}={}", encode(k), encode(v)))
        .collect();
    if let Some(limit) = limit {
        parts.push(format!("limit={limit}"));
    }
    parts.push(format!("marker={}", encode(marker)));
    parts.join("&")
}

/// Stamps of a row as text.
pub(crate) fn stamp(row: &Map, field: &str, time: fn(Timestamp) -> String) -> Value {
    row.get(field).and_then(Value::as_i64).map_or(Value::Null, |t| time(Timestamp(t)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_keep_start_and_end() {
        assert_eq!(bounded("short"), "short");
        let long = format!("Name {} is too long; choose another.", "é".repeat(100_000));
        let cut = bounded(&long);
        assert!(cut.starts_with("Name é") && cut.ends_with("choose another.") && cut.chars().count() < LONGEST + 10);
    }
}
