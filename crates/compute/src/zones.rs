//! Availability zones: names that aggregates give to their hosts.
use crate::{
    common::{object, text},
    resources::{Aggregate, Node},
    server::request::strings,
};
use resource::{Reader, Resource};
use std::collections::BTreeMap;

/// Zone of hosts that no aggregate names one for.
pub(crate) const DEFAULT: &str = "nova";
/// Zone of the services that are no hosts.
pub(crate) const INTERNAL: &str = "internal";

pub(crate) fn zone_of(reader: &Reader<'_>, host: &str) -> String {
    let named = reader.all(&Aggregate::DEF.table).find_map(|row| {
        let zone = row.field("availability_zone").as_str()?;
        strings(row.value().get("hosts")).iter().any(|h| h == host).then(|| zone.to_owned())
    });
    named.unwrap_or_else(|| DEFAULT.to_owned())
}

/// Hosts by zone.
pub(crate) fn all(reader: &Reader<'_>) -> BTreeMap<String, Vec<(String, bool, bool, i64)>> {
    let mut out: BTreeMap<String, Vec<(String, bool, bool, i64)>> = BTreeMap::new();
    for row in reader.all(&Node::DEF.table) {
        let node = object(row);
        let host = text(node, "host");
        let up = text(node, "state") == "up" && !crate::common::flag(node, "forced_down");
        let enabled = !crate::common::flag(node, "disabled");
        out.entry(zone_of(reader, host)).or_default().push((host.to_owned(), up, enabled, crate::common::int(node, "last_seen")));
    }
    out
}

pub(crate) fn names(reader: &Reader<'_>) -> Vec<String> {
    let mut out: Vec<String> = all(reader).into_keys().collect();
    if out.is_empty() {
        out.push(DEFAULT.to_owned());
    }
    out
}

pub(crate) fn hosts(reader: &Reader<'_>) -> Vec<String> {
    reader.all(&Node::DEF.table).map(|r| r.text("host").to_owned()).collect()
}
