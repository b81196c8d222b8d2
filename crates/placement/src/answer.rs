//! What answers have in common.
use api::{Access, Call, Reply};
use base::{Timestamp, Version};
use resource::Error;
use serde_json::Value;
use time::{OffsetDateTime, format_description::FormatItem, macros::format_description};

pub(crate) const CONCURRENT_UPDATE: &str = "placement.concurrent_update";
pub(crate) const DUPLICATE_NAME: &str = "placement.duplicate_name";
pub(crate) const INVENTORY_IN_USE: &str = "placement.inventory.inuse";
pub(crate) const PROVIDER_IN_USE: &str = "placement.resource_provider.inuse";
pub(crate) const PROVIDER_HAS_CHILDREN: &str = "placement.resource_provider.cannot_delete_parent";
pub(crate) const PROVIDER_NOT_FOUND: &str = "placement.resource_provider.not_found";
pub(crate) const DUPLICATE_KEY: &str = "placement.query.duplicate_key";
pub(crate) const BAD_VALUE: &str = "placement.query.bad_value";
pub(crate) const MISSING_VALUE: &str = "placement.query.missing_value";

/// Who may use this service, unless a rule says otherwise.
pub(crate) const fn service(rule: &'static str) -> Access {
    Access::Rule(rule, "service")
}

/// Is the request's microversion at least this?
pub(crate) fn since(call: &Call, version: &'static str) -> bool {
    call.cx.version >= Version::of(version)
}

fn http_date(at: Timestamp) -> String {
    const FORM: &[FormatItem<'_>] =
        format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
    let time = OffsetDateTime::from_unix_timestamp(at.unix()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(FORM).unwrap_or_default()
}

/// From 1.15, answers say when what they show was changed last; `None` is now.
pub(crate) fn dated(call: &Call, reply: Reply, at: Option<Timestamp>) -> Reply {
    if !since(call, "1.15") {
        return reply;
    }
    let at = at.unwrap_or_else(|| call.cloud.db.now());
    reply.header("last-modified", http_date(at)).header("cache-control", "no-cache")
}

pub(crate) fn ok(call: &Call, body: Value, at: Option<Timestamp>) -> Reply {
    dated(call, Reply::ok(body), at)
}

/// The path of something as it is shown in links.
pub(crate) fn href(path: &str) -> String {
    format!("/placement{path}")
}

/// The same for `Location`.
pub(crate) fn location(call: &Call, path: &str) -> String {
    format!("{}{path}", call.cx.public)
}

/// The error of a body or query that is not as the schema says.
pub(crate) fn invalid(what: impl std::fmt::Display) -> Error {
    Error::bad_request(format!("JSON does not validate: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_http() {
        assert_eq!(http_date(Timestamp::from_unix(784_111_777)), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
