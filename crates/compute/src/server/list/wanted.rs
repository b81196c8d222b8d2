//! What a list of servers is asked for: the query, understood once.
use crate::{
    common::{at, id_of},
    server::state,
};
use api::{Cx, Error, Result};
use serde_json::Value;

/// What everybody may filter by, with the version that brought it.
const OPEN: [(&str, u16); 29] = [
    ("reservation_id", 0),
    ("name", 0),
    ("status", 0),
    ("image", 0),
    ("flavor", 0),
    ("ip", 0),
    ("changes-since", 0),
    ("all_tenants", 0),
    ("ip6", 5),
    ("tags", 26),
    ("tags-any", 26),
    ("not-tags", 26),
    ("not-tags-any", 26),
    ("changes-before", 66),
    ("locked", 73),
    ("availability_zone", 83),
    ("config_drive", 83),
    ("key_name", 83),
    ("created_at", 83),
    ("launched_at", 83),
    ("terminated_at", 83),
    ("power_state", 83),
    ("task_state", 83),
    ("vm_state", 83),
    ("progress", 83),
    ("user_id", 83),
    ("hostname", 90),
    ("limit", 0),
    ("marker", 0),
];
/// What administrators may filter by besides.
const ADMIN: [&str; 30] = [
    "user_id",
    "project_id",
    "tenant_id",
    "launch_index",
    "image_ref",
    "kernel_id",
    "ramdisk_id",
    "hostname",
    "key_name",
    "power_state",
    "vm_state",
    "task_state",
    "host",
    "node",
    "launched_at",
    "terminated_at",
    "availability_zone",
    "display_name",
    "description",
    "display_description",
    "locked_by",
    "uuid",
    "root_device_name",
    "config_drive",
    "access_ip_v4",
    "access_ip_v6",
    "auto_disk_config",
    "progress",
    "deleted",
    "created_at",
];
const JOINED: [&str; 7] =
    ["block_device_mapping", "services", "metadata", "system_metadata", "info_cache", "security_groups", "pci_devices"];
/// Sort keys and the field that each means.
const SORTS: [(&str, &str); 28] = [
    ("created_at", "created_at"),
    ("updated_at", "updated_at"),
    ("display_name", "name"),
    ("uuid", "id"),
    ("vm_state", "vm_state"),
    ("task_state", "task_state"),
    ("host", "host"),
    ("node", "host"),
    ("hostname", "hostname"),
    ("key_name", "key_name"),
    ("launch_index", "launch_index"),
    ("launched_at", "launched_at"),
    ("terminated_at", "terminated_at"),
    ("project_id", "project_id"),
    ("user_id", "user_id"),
    ("power_state", "power_state"),
    ("image_ref", "image_id"),
    ("instance_type_id", "flavor"),
    ("availability_zone", "pinned_availability_zone"),
    ("config_drive", "config_drive"),
    ("display_description", "description"),
    ("access_ip_v4", "access_ipv4"),
    ("access_ip_v6", "access_ipv6"),
    ("auto_disk_config", "disk_config"),
    ("locked_by", "locked_by"),
    ("progress", "created_at"),
    ("kernel_id", "id"),
    ("ramdisk_id", "id"),
];
/// Accepted before 2.75 and without effect.
const IGNORED_SORTS: [&str; 22] = [
    "architecture",
    "cell_name",
    "cleaned",
    "default_ephemeral_device",
    "default_swap_device",
    "deleted",
    "deleted_at",
    "disable_terminate",
    "ephemeral_gb",
    "ephemeral_key_uuid",
    "id",
    "key_data",
    "launched_on",
    "locked",
    "memory_mb",
    "os_type",
    "reservation_id",
    "root_gb",
    "shutdown_terminate",
    "user_data",
    "vcpus",
    "vm_mode",
];

fn invalid_query(key: &str, value: &str, why: impl std::fmt::Display) -> Error {
    Error::bad_request(format!("Invalid input for query parameters {key}. Value: {value}. {why}"))
}

/// A filter that was understood.
pub(super) enum Filter {
    Field(&'static str, String),
    Matches(&'static str, regex::Regex),
    Status(Vec<String>),
    Image(String),
    Flavor(String),
    Address(regex::Regex, bool),
    Tags { tags: Vec<String>, all: bool, not: bool },
    Since(i64),
    Before(i64),
    Locked(bool),
    Bool(&'static str, bool),
    Zone(regex::Regex),
}

pub(super) struct Wanted {
    pub(super) filters: Vec<Filter>,
    pub(super) sort: Vec<(&'static str, bool)>,
    pub(super) limit: usize,
    pub(super) limited: bool,
    pub(super) marker: Option<String>,
    /// `None` is all projects.
    pub(super) project: Option<String>,
    pub(super) deleted: bool,
    pub(super) live: bool,
}

fn regex_of(value: &str) -> Result<regex::Regex> {
    regex::RegexBuilder::new(value)
        .size_limit(1 << 18)
        .build()
        .or_else(|_| regex::Regex::new(&regex::escape(value)))
        .map_err(|e| Error::bad_request(format!("The filter '{value}' is not a usable expression: {e}.")))
}

fn time(key: &str, value: &str) -> Result<i64> {
    base::Timestamp::parse(value).map(|t| t.0).ok_or_else(|| invalid_query(key, value, format!("'{value}' is not a 'date-time'")))
}

fn truth(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "" | "1" | "t" | "true" | "on" | "y" | "yes")
}

pub(super) fn wanted(cx: &Cx, detail: bool) -> Result<Option<Wanted>> {
    let admin = cx.may("os_compute_api:servers:allow_all_filters", None);
    let mut w = Wanted {
        filters: Vec::new(),
        sort: Vec::new(),
        limit: 1000,
        limited: false,
        marker: None,
        project: Some(cx.caller.project_id().unwrap_or_default().to_owned()),
        deleted: false,
        live: true,
    };
    let known_since = |key: &str| OPEN.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
    let mut all_tenants = false;
    let mut named_project = None;
    for (key, value) in &cx.query.0 {
        let key = key.as_str();
        let is_paging = matches!(key, "limit" | "marker" | "sort_key" | "sort_dir");
        let is_known = is_paging
            || known_since(key).is_some_and(|v| at(cx, v))
            || ADMIN.contains(&key)
            || key == "soft_deleted"
            || JOINED.contains(&key);
        if !is_known && at(cx, 75) {
            return Err(Error::bad_request(format!("Additional properties are not allowed ('{key}' was unexpected)")));
        }
        if !is_paging && !admin && known_since(key).is_none_or(|v| !at(cx, v)) {
            continue;
        }
        if JOINED.contains(&key) || key.starts_with('_') {
            return Err(Error::bad_request(format!("Invalid filter field: {key}.")));
        }
        match key {
            "limit" => {
                w.limited = true;
                w.limit = value
                    .parse::<u64>()
                    .map(|n| (n as usize).min(1000))
                    .map_err(|_| invalid_query(key, value, format!("'{value}' does not match '^[0-9]*$'")))?;
            }
            "marker" => w.marker = Some(value.clone()),
            "sort_key" | "sort_dir" => {}
            "all_tenants" => {
                all_tenants = match value.to_ascii_lowercase().as_str() {
                    "" | "1" | "t" | "true" | "on" | "y" | "yes" => true,
                    "0" | "f" | "false" | "off" | "n" | "no" => false,
                    _ => {
                        return Err(Error::bad_request(format!(
                            "Unrecognized value '{value}', acceptable values are: '0', '1', 'f', 'false', 'n', 'no', 'off', 'on', 't', 'true', 'y', 'yes'"
                        )));
                    }
                };
            }
            "project_id" | "tenant_id" => named_project = Some(value.clone()),
            "status" => match w.filters.iter_mut().find_map(|f| match f {
                Filter::Status(list) => Some(list),
                _ => None,
            }) {
                Some(list) => list.push(value.clone()),
                None => w.filters.push(Filter::Status(vec![value.clone()])),
            },
            "deleted" => {
                w.deleted = truth(value) && !value.is_empty();
                w.live = !w.deleted;
            }
            "changes-since" => {
                w.filters.push(Filter::Since(time(key, value)?));
                w.deleted = true;
            }
            "changes-before" => {
                w.filters.push(Filter::Before(time(key, value)?));
                w.deleted = true;
            }
            "tags" | "tags-any" | "not-tags" | "not-tags-any" => w.filters.push(Filter::Tags {
                tags: value.split(',').map(str::to_owned).collect(),
                all: !key.ends_with("-any"),
                not: key.starts_with("not"),
            }),
            "locked" => w.filters.push(Filter::Locked(match crate::shape::as_bool(&Value::String(value.clone())) {
                Some(b) => b,
                None => return Err(invalid_query(key, value, "It is not a boolean.")),
            })),
            "config_drive" => w.filters.push(Filter::Bool("config_drive", truth(value))),
            "image" | "image_ref" => w.filters.push(Filter::Image(id_of(value).to_owned())),
            "flavor" => w.filters.push(Filter::Flavor(id_of(value).to_owned())),
            "ip" | "ip6" => w.filters.push(Filter::Address(regex_of(value)?, key == "ip6")),
            "name" | "display_name" => w.filters.push(Filter::Matches("name", regex_of(value)?)),
            "description" | "display_description" => w.filters.push(Filter::Matches("description", regex_of(value)?)),
            "hostname" => w.filters.push(Filter::Matches("hostname", regex_of(value)?)),
            "key_name" => w.filters.push(Filter::Matches("key_name", regex_of(value)?)),
            "locked_by" => w.filters.push(Filter::Matches("locked_by", regex_of(value)?)),
            "node" => w.filters.push(Filter::Matches("host", regex_of(value)?)),
            "access_ip_v4" => w.filters.push(Filter::Matches("access_ipv4", regex_of(value)?)),
            "access_ip_v6" => w.filters.push(Filter::Matches("access_ipv6", regex_of(value)?)),
            "availability_zone" => w.filters.push(Filter::Zone(regex_of(value)?)),
            "reservation_id" => w.filters.push(Filter::Field("reservation_id", value.clone())),
            "user_id" => w.filters.push(Filter::Field("user_id", value.clone())),
            "uuid" => w.filters.push(Filter::Field("id", value.clone())),
            "host" => w.filters.push(Filter::Field("host", value.clone())),
            "vm_state" => w.filters.push(Filter::Field("vm_state", value.clone())),
            "task_state" => w.filters.push(Filter::Field("task_state", value.clone())),
            "power_state" => w.filters.push(Filter::Field("power_state", power_number(value))),
            "launch_index" => w.filters.push(Filter::Field("launch_index", value.clone())),
            _ => {}
        }
    }
    if all_tenants {
        let rule =
            if detail { "os_compute_api:servers:detail:get_all_tenants" } else { "os_compute_api:servers:index:get_all_tenants" };
        if !cx.may(rule, None) {
            return Err(Error::forbidden(format!("Policy doesn't allow {rule} to be performed.")));
        }
        w.project = named_project;
    }
    for filter in &w.filters {
        if let Filter::Status(list) = filter {
            if list.iter().any(|s| s.eq_ignore_ascii_case("deleted")) {
                if !cx.is_admin() {
                    return Err(Error::forbidden("Only administrators may list deleted instances"));
                }
                w.deleted = true;
            } else if !list.iter().any(|s| state::is_status(s)) {
                if at(cx, 38) {
                    return Err(Error::bad_request("Invalid status value"));
                }
                return Ok(None);
            }
        }
    }
    let times = |f: &Filter| match f {
        Filter::Since(t) => (Some(*t), None),
        Filter::Before(t) => (None, Some(*t)),
        _ => (None, None),
    };
    let since = w.filters.iter().filter_map(|f| times(f).0).max();
    let before = w.filters.iter().filter_map(|f| times(f).1).min();
    if since.zip(before).is_some_and(|(s, b)| b < s) {
        return Err(Error::bad_request("The value of changes-since must be less than or equal to changes-before."));
    }
    w.sort = sorts(cx)?;
    Ok(Some(w))
}

fn power_number(value: &str) -> String {
    match value.to_ascii_uppercase().as_str() {
        "NOSTATE" => "0",
        "RUNNING" => "1",
        "PAUSED" => "3",
        "SHUTDOWN" => "4",
        "CRASHED" => "6",
        "SUSPENDED" => "7",
        _ => value,
    }
    .to_owned()
}

fn sorts(cx: &Cx) -> Result<Vec<(&'static str, bool)>> {
    let directions: Vec<&str> = cx.query.all("sort_dir").collect();
    let mut out = Vec::new();
    for (i, key) in cx.query.all("sort_key").enumerate() {
        let key = key.trim();
        if matches!(key, "host" | "node") && !cx.is_admin() {
            return Err(Error::forbidden(format!("Only administrators can sort servers by {key}")));
        }
        let direction = directions.get(i).or(directions.last()).copied().unwrap_or("desc");
        if !matches!(direction, "asc" | "desc") {
            return Err(Error::bad_request(format!("Unknown sort direction '{direction}', must be 'desc' or 'asc'")));
        }
        match SORTS.iter().find(|(k, _)| *k == key) {
            Some((_, field)) => out.push((*field, direction == "desc")),
            None if key == "locked" && at(cx, 73) => out.push(("locked_by", direction == "desc")),
            None if IGNORED_SORTS.contains(&key) && !at(cx, 75) => {}
            None => return Err(invalid_query("sort_key", key, "It is not a key that servers can be sorted by.")),
        }
    }
    if out.is_empty() {
        out.push(("created_at", true));
    }
    Ok(out)
}
