//! Habits of this API on the wire: media types, microversions, links, and headers against caches.
use crate::PREFIX;
use api::{Call, Cx, Error, Reply, Result};
use base::Timestamp;
use serde_json::Value;
use time::{OffsetDateTime, format_description::FormatItem, macros::format_description};

const HTTP_DATE: &[FormatItem<'_>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");

/// Is the request at this minor version or later?
pub(crate) fn at(cx: &Cx, minor: u16) -> bool {
    cx.version.1 >= minor
}

/// 406 unless the caller takes JSON.
pub(crate) fn check_accept(call: &Call) -> Result<()> {
    let takes = |accept: &str| {
        accept.split(',').any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let refused = parts.any(|p| matches!(p, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
            matches!(media, "*/*" | "application/*" | "application/json") && !refused
        })
    };
    match call.header("accept") {
        Some(accept) if !accept.trim().is_empty() && !takes(accept) => {
            Err(Error::not_acceptable("Only application/json is provided"))
        }
        _ => Ok(()),
    }
}

/// The JSON body; 415 unless the caller says that it is JSON.
pub(crate) fn body(call: &Call) -> Result<&Value> {
    let media = call.header("content-type").unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    if media.eq_ignore_ascii_case("application/json") {
        return match call.json() {
            Value::Null => Err(Error::bad_request("Malformed JSON: the request has no body.")),
            body => Ok(body),
        };
    }
    let shown = if media.is_empty() { "None" } else { media };
    Err(Error::unsupported_media(format!("The media type {shown} is not supported, use application/json")))
}

/// From 1.15 on, answers say when what they show changed (by default: now) and are not to be kept.
pub(crate) fn uncached(call: &Call, reply: Reply, modified: Option<i64>) -> Reply {
    if !at(&call.cx, 15) {
        return reply;
    }
    let time = modified.map_or_else(|| call.cloud.db.now(), Timestamp);
    let date = OffsetDateTime::from_unix_timestamp(time.unix()).ok().and_then(|t| t.format(HTTP_DATE).ok()).unwrap_or_default();
    reply.header("last-modified", date).header("cache-control", "no-cache")
}

/// A path for links in bodies: without a host, so that it is right behind every proxy.
pub(crate) fn path(rest: &str) -> String {
    format!("{PREFIX}{rest}")
}

/// A whole URL, for `Location`.
pub(crate) fn location(cx: &Cx, rest: &str) -> String {
    format!("{}{rest}", cx.public)
}
