//! All of Nova's API that is not about one server: flavors, key pairs, groups, hosts and what operators see of them, and the old
//! roads to images and networks that clients still take at microversions up to 2.38.
mod aggregates;
mod availability;
mod events;
mod extensions;
mod extra_specs;
mod flavor_access;
mod flavors;
mod floating_ips;
mod gone;
mod hosts;
mod hypervisors;
mod image_metadata;
mod images;
mod keypairs;
mod migrations;
mod networks;
pub(crate) mod security_groups;
mod server_groups;
mod services;
mod ssh;
#[cfg(test)]
mod tests;
mod usage;
mod versions;
mod volumes;

pub(crate) use migrations::MIGRATIONS;
pub(crate) use versions::{MICROVERSIONS, legacy};

use crate::{common, server::list::next_link};
use api::{Cx, Error, Result, Route};
use serde_json::{Value, json};

/// Rules besides those of routes: what depends on the row, or on what is asked.
const RULES: [(&str, &str); 8] = [
    ("os_compute_api:os-keypairs:index", "admin_or_self"),
    ("os_compute_api:os-keypairs:show", "admin_or_self"),
    ("os_compute_api:os-keypairs:create", "admin_or_self"),
    ("os_compute_api:os-keypairs:delete", "admin_or_self"),
    ("os_compute_api:os-server-groups:index:all_projects", "admin"),
    ("os_compute_api:os-simple-tenant-usage:show", "role:admin or (role:reader and project_id:%(project_id)s)"),
    ("os_compute_api:os-migrations:index:all_projects", "admin"),
    ("os_compute_api:limits:other_project", "admin"),
];

/// Named rules that the handlers here ask for besides those of their routes.
pub(crate) fn rules() -> Vec<(&'static str, &'static str)> {
    RULES.into_iter().chain(flavor_access::RULES).chain(server_groups::RULES).collect()
}

/// Rows of one page at most (`[api] max_limit`).
const MAX_LIMIT: usize = 1000;

pub(crate) fn routes() -> Vec<Route> {
    [
        versions::routes(),
        extensions::routes(),
        flavors::routes(),
        extra_specs::routes(),
        flavor_access::routes(),
        keypairs::routes(),
        server_groups::routes(),
        aggregates::routes(),
        availability::routes(),
        services::routes(),
        hypervisors::routes(),
        hosts::routes(),
        crate::quota::routes(),
        usage::routes(),
        migrations::routes(),
        events::routes(),
        images::routes(),
        image_metadata::routes(),
        networks::routes(),
        security_groups::routes(),
        floating_ips::routes(),
        volumes::routes(),
        gone::routes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Refuses query parameters that are not known, from the minor version on that does so.
fn check_query(cx: &Cx, since: u16, known: &[&str]) -> Result<()> {
    match cx.query.keys().find(|k| !known.contains(k)) {
        Some(key) if common::at(cx, since) => Err(Error::bad_request(format!(
            "Invalid input for query parameters {key}. Additional properties are not allowed ('{key}' was unexpected)"
        ))),
        _ => Ok(()),
    }
}

/// 404 outside of these minor versions: for methods that came or went while their path stayed.
fn only(cx: &Cx, from: u16, to: u16) -> Result<()> {
    if (from..=to).contains(&cx.version.1) {
        return Ok(());
    }
    Err(Error::not_found(format!("API version '{}' is not supported on this method.", cx.version)))
}

/// One page, and the link to the next one where there may be one.
fn page<T>(cx: &Cx, items: Vec<T>, path: &str, id: impl Fn(&T) -> &str) -> Result<(Vec<T>, Option<Value>)> {
    let asked = cx.query.get("limit").and_then(|l| l.parse::<usize>().ok()).filter(|l| *l > 0);
    let (items, more) = common::paged(cx, items, MAX_LIMIT, &id)?;
    let full = more || asked.is_some_and(|l| items.len() == l.min(MAX_LIMIT));
    let link = items.last().filter(|_| full).map(|last| json!([{ "rel": "next", "href": next_link(cx, path, id(last)) }]));
    Ok((items, link))
}

/// `limit` and `offset` of lists that have no marker.
pub(crate) fn limited<T>(cx: &Cx, items: Vec<T>) -> Result<Vec<T>> {
    let number = |key: &str, none: usize| match cx.query.get(key) {
        None => Ok(none),
        Some(text) => text.parse::<u64>().map(|n| n as usize).map_err(|_| {
            Error::bad_request(format!(
                "Invalid input for query parameters {key}. Value: {text}. '{text}' does not match '^[0-9]*$'"
            ))
        }),
    };
    let limit = match number("limit", MAX_LIMIT)? {
        0 => MAX_LIMIT,
        n => n.min(MAX_LIMIT),
    };
    Ok(items.into_iter().skip(number("offset", 0)?).take(limit).collect())
}

/// A project that exists, for bodies that name one.
fn check_project(cx: &Cx, reader: &resource::Reader<'_>, id: &str) -> Result<()> {
    let projects = cx.registry.get("identity/projects")?;
    match reader.get(&projects.table, id) {
        Some(_) => Ok(()),
        None => Err(Error::bad_request(format!("Project ID {id} is not a valid project."))),
    }
}
