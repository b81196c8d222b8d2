//! Lists of servers: Nova's filters, order and pages.
use super::{state, view::Show};
use crate::{
    common::{DELETED, at, flag, id_of, int, object, text},
    resources::Server,
};
use api::{Call, Cx, Error, Map, Reply, ReplyBody, Result};
use resource::{Reader, Resource, Row};
use serde_json::{Value, json};
use std::{cmp::Ordering, sync::Arc};

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
enum Filter {
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

struct Wanted {
    filters: Vec<Filter>,
    sort: Vec<(&'static str, bool)>,
    limit: usize,
    limited: bool,
    marker: Option<String>,
    /// `None` is all projects.
    project: Option<String>,
    deleted: bool,
    live: bool,
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

fn wanted(cx: &Cx, detail: bool) -> Result<Option<Wanted>> {
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

struct Lister<'a> {
    cx: &'a Cx,
    reader: &'a Reader<'a>,
}

impl Lister<'_> {
    fn passes(&self, row: &Map, filter: &Filter, is_deleted: bool) -> bool {
        let field_text = |field: &str| match row.get(field) {
            Some(Value::String(s)) => s.clone(),
            Some(Value::Number(n)) => n.to_string(),
            Some(Value::Bool(b)) => b.to_string(),
            _ => String::new(),
        };
        match filter {
            Filter::Field(field, value) => field_text(field) == *value,
            Filter::Matches(field, regex) => row.get(*field).and_then(Value::as_str).is_some_and(|s| regex.is_match(s)),
            Filter::Status(list) => {
                let status = state::status(text(row, "vm_state"), row.get("task_state").and_then(Value::as_str));
                list.iter().any(|s| s.eq_ignore_ascii_case(status))
            }
            Filter::Image(id) => text(row, "image_id") == id,
            Filter::Flavor(id) => row.get("flavor").and_then(|f| f.get("id")).and_then(Value::as_str) == Some(id),
            Filter::Address(regex, six) => {
                self.addresses(text(row, "id")).iter().any(|a| a.contains(':') == *six && regex.is_match(a))
            }
            Filter::Tags { tags, all, not } => {
                let has = |t: &String| {
                    row.get("tags").and_then(Value::as_array).is_some_and(|l| l.iter().any(|v| v.as_str() == Some(t)))
                };
                let holds = if *all { tags.iter().all(has) } else { tags.iter().any(has) };
                holds != *not
            }
            Filter::Since(t) => changed(row) >= *t,
            Filter::Before(t) => changed(row) <= *t,
            Filter::Locked(locked) => row.get("locked_by").is_some_and(Value::is_string) == *locked,
            Filter::Bool(field, value) => flag(row, field) == *value,
            Filter::Zone(regex) => match row.get("host").and_then(Value::as_str) {
                Some(host) if !is_deleted => regex.is_match(&crate::zones::zone_of(self.reader, host)),
                _ => regex.is_match(text(row, "pinned_availability_zone")),
            },
        }
    }

    fn addresses(&self, server: &str) -> Vec<String> {
        let Ok(ports) = self.cx.registry.get("network/ports") else { return Vec::new() };
        let rows = crate::common::by_index(self.reader, &ports.table, "device_id", server);
        let mut out: Vec<String> = rows.iter().flat_map(|p| super::view::fixed_ips(object(p))).collect();
        if let Ok(floating) = self.cx.registry.get("network/floatingips") {
            for port in &rows {
                let fips = crate::common::by_index(self.reader, &floating.table, "port_id", port.id());
                out.extend(fips.iter().map(|f| f.text("floating_ip_address").to_owned()));
            }
        }
        out
    }

    fn find(&self, w: &Wanted) -> Result<(Vec<Arc<Row>>, bool)> {
        let keep = |row: &Arc<Row>, is_deleted: bool| w.filters.iter().all(|f| self.passes(object(row), f, is_deleted));
        let mut rows: Vec<Arc<Row>> = Vec::new();
        for (table, is_deleted, wanted) in [(&Server::DEF.table, false, w.live), (&DELETED, true, w.deleted)] {
            match &w.project {
                _ if !wanted => {}
                Some(p) => rows.extend(self.reader.find(table, "project_id", p).into_iter().filter(|r| keep(r, is_deleted))),
                None => rows.extend(self.reader.all(table).filter(|r| keep(r, is_deleted)).cloned()),
            }
        }
        sort(&mut rows, &w.sort);
        if let Some(marker) = &w.marker {
            match rows.iter().position(|r| r.id() == marker) {
                Some(at) => drop(rows.drain(..=at)),
                None => {
                    // A marker that the filters leave out still has a place in the order of creation.
                    let mine = |r: &Arc<Row>| w.project.as_ref().is_none_or(|p| r.text("project_id") == p);
                    let row = self.reader.get(&Server::DEF.table, marker).filter(mine);
                    let row = row.ok_or_else(|| Error::bad_request(format!("marker [{marker}] not found")))?;
                    let made = int(object(&row), "created_at");
                    rows.retain(|r| int(object(r), "created_at") < made);
                }
            }
        }
        let more = rows.len() > w.limit;
        rows.truncate(w.limit);
        Ok((rows, more))
    }
}

/// Each row is looked into once, not at each comparison.
fn sort(rows: &mut Vec<Arc<Row>>, by: &[(&'static str, bool)]) {
    let keys: Vec<Vec<Option<&Value>>> = rows.iter().map(|r| by.iter().map(|(f, _)| object(r).get(*f)).collect()).collect();
    let mut places: Vec<usize> = (0..rows.len()).collect();
    places.sort_by(|&a, &b| {
        let by_key = by.iter().zip(keys[a].iter().zip(&keys[b])).map(|((_, descending), (a, b))| {
            let o = order(*a, *b);
            if *descending { o.reverse() } else { o }
        });
        by_key.fold(Ordering::Equal, Ordering::then).then_with(|| rows[b].id().cmp(rows[a].id()))
    });
    *rows = places.into_iter().map(|i| rows[i].clone()).collect();
}

fn changed(row: &Map) -> i64 {
    int(row, "updated_at").max(int(row, "created_at"))
}

fn order(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    match (a, b) {
        (Some(Value::String(a)), Some(Value::String(b))) => a.cmp(b),
        (Some(Value::Number(a)), Some(Value::Number(b))) => a.as_i64().cmp(&b.as_i64()),
        (Some(Value::Bool(a)), Some(Value::Bool(b))) => a.cmp(b),
        (Some(Value::Object(a)), Some(Value::Object(b))) => text(a, "id").cmp(text(b, "id")),
        (None | Some(Value::Null), None | Some(Value::Null)) => Ordering::Equal,
        (None | Some(Value::Null), _) => Ordering::Less,
        (_, None | Some(Value::Null)) => Ordering::Greater,
        _ => Ordering::Equal,
    }
}

async fn list(call: Call, detail: bool) -> Result<Reply> {
    let cx = &call.cx;
    let Some(wanted) = wanted(cx, detail)? else { return Ok(Reply::ok(json!({ "servers": [] }))) };
    let reader = call.reader();
    let (rows, more) = Lister { cx, reader: &reader }.find(&wanted)?;
    let show = Show::new(cx, &reader).list();
    let links = ((more || (wanted.limited && rows.len() == wanted.limit)).then(|| rows.last()).flatten()).map(|last| {
        let path = if detail { "/v2.1/servers/detail" } else { "/v2.1/servers" };
        json!([{ "rel": "next", "href": next_link(cx, path, last.id()) }])
    });
    // A tree of a thousand servers would cost more than all else of this request.
    let mut text = b"{\"servers\":[".to_vec();
    for (i, row) in rows.iter().enumerate() {
        if i > 0 {
            text.push(b',');
        }
        if detail {
            show.write(object(row), &mut text);
        } else {
            text.extend_from_slice(Value::Object(show.brief(object(row))).to_string().as_bytes());
        }
    }
    text.push(b']');
    if let Some(links) = links {
        text.extend_from_slice(format!(",\"servers_links\":{links}").as_bytes());
    }
    text.push(b'}');
    Ok(Reply { body: ReplyBody::JsonText(text.into()), ..Reply::empty(200) })
}

/// The next page's address: the query as it was, with another marker.
pub(crate) fn next_link(cx: &Cx, path: &str, marker: &str) -> String {
    let encode = |s: &str| percent_encoding::utf8_percent_encode(s, percent_encoding::NON_ALPHANUMERIC).to_string();
    let mut parts: Vec<String> =
        cx.query.0.iter().filter(|(k, _)| k != "marker").map(|(k, v)| format!("{}={}", encode(k), encode(v))).collect();
    parts.push(format!("marker={}", encode(marker)));
    format!("{}{path}?{}", cx.public, parts.join("&"))
}

pub(crate) async fn brief(call: Call) -> Result<Reply> {
    list(call, false).await
}
pub(crate) async fn detailed(call: Call) -> Result<Reply> {
    list(call, true).await
}
