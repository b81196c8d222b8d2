//! `os-simple-tenant-usage` and `os-instance_usage_audit_log`: what servers used in a time.
use crate::{
    common::{DELETED, at, int, map, object, text},
    resources::Server,
};
use api::{Access, Call, Cx, Error, Map, Reply, Result, Route};
use resource::{Reader, Resource};
use serde_json::{Value, json};
use std::collections::BTreeMap;

struct Period {
    start: base::Timestamp,
    end: base::Timestamp,
    now: base::Timestamp,
}

fn time(cx: &Cx, key: &str, none: base::Timestamp) -> Result<base::Timestamp> {
    match cx.query.get(key) {
        None => Ok(none),
        Some(text) => base::Timestamp::parse(text).ok_or_else(|| Error::bad_request(format!("Datetime is in invalid format: {text}"))),
    }
}

fn period(call: &Call) -> Result<Period> {
    let now = call.cloud.db.now();
    let month_ago = base::Timestamp(now.0 - 28 * 86_400 * 1_000_000);
    let (start, end) = (time(&call.cx, "start", month_ago)?, time(&call.cx, "end", now)?);
    if start.0 > end.0 {
        return Err(Error::bad_request("Invalid start time. The start time cannot occur after the end time."));
    }
    Ok(Period { start, end, now })
}

#[derive(Default)]
struct Usage {
    hours: f64,
    vcpus: f64,
    ram: f64,
    disk: f64,
    servers: Vec<Value>,
}

/// Adds one server's part in the period.
fn add(usage: &mut Usage, row: &Map, p: &Period) {
    let Some(launched) = row.get("launched_at").and_then(Value::as_i64) else { return };
    let ended = row.get("terminated_at").and_then(Value::as_i64);
    let until = ended.unwrap_or(p.end.0.min(p.now.0)).min(p.end.0);
    let from = launched.max(p.start.0);
    if until < from {
        return;
    }
    let hours = (until - from) as f64 / 3_600_000_000.0;
    let flavor = row.get("flavor").and_then(Value::as_object).cloned().unwrap_or_default();
    let (vcpus, ram) = (int(&flavor, "vcpus"), int(&flavor, "ram"));
    let disk = int(&flavor, "disk") + int(&flavor, "ephemeral");
    usage.hours += hours;
    usage.vcpus += hours * vcpus as f64;
    usage.ram += hours * ram as f64;
    usage.disk += hours * disk as f64;
    let state = if ended.is_some() { "terminated" } else { text(row, "vm_state") };
    let uptime = base::Timestamp(ended.unwrap_or(p.now.0)).since(base::Timestamp(launched)).as_secs();
    usage.servers.push(json!({
        "instance_id": row.get("id"), "name": row.get("name"), "hours": hours, "flavor": text(&flavor, "name"), "memory_mb": ram,
        "local_gb": disk, "vcpus": vcpus, "tenant_id": row.get("project_id"), "started_at": base::Timestamp(launched).micros(),
        "ended_at": ended.map(|t| base::Timestamp(t).micros()), "state": state, "uptime": uptime,
    }));
}

fn shown(project: &str, usage: Usage, p: &Period, detail: bool) -> Map {
    let mut out = map(json!({
        "tenant_id": project, "start": p.start.micros(), "stop": p.end.micros(), "total_hours": usage.hours,
        "total_vcpus_usage": usage.vcpus, "total_memory_mb_usage": usage.ram, "total_local_gb_usage": usage.disk,
    }));
    if detail {
        out.insert("server_usages".into(), usage.servers.into());
    }
    out
}

/// Servers, living and lately deleted, by project and in order of their ids; from 2.40 in pages.
fn collect(call: &Call, reader: &Reader<'_>, project: Option<&str>, p: &Period) -> Result<(BTreeMap<String, Usage>, Option<String>)> {
    let cx = &call.cx;
    let mut rows: Vec<_> = [&Server::DEF.table, &DELETED]
        .into_iter()
        .flat_map(|table| match project {
            Some(project) => reader.find(table, "project_id", project),
            None => reader.all(table).cloned().collect(),
        })
        .collect();
    rows.sort_by(|a, b| a.id().cmp(b.id()));
    let mut next = None;
    if at(cx, 40) {
        let (page, more) = crate::common::paged(cx, rows, 1000, |r| r.id())?;
        next = page.last().filter(|_| more).map(|r| r.id().to_owned());
        rows = page;
    }
    let mut out: BTreeMap<String, Usage> = BTreeMap::new();
    for row in rows {
        add(out.entry(row.text("project_id").to_owned()).or_default(), object(&row), p);
    }
    out.retain(|_, u| !u.servers.is_empty());
    Ok((out, next))
}

fn check_query(call: &Call) -> Result<()> {
    let known = |k: &str| matches!(k, "start" | "end" | "detailed") || (at(&call.cx, 40) && matches!(k, "limit" | "marker"));
    match call.cx.query.keys().find(|k| !known(k)) {
        Some(key) if at(&call.cx, 75) => Err(Error::bad_request(format!("Additional properties are not allowed ('{key}' was unexpected)"))),
        _ => Ok(()),
    }
}

async fn list(call: Call) -> Result<Reply> {
    check_query(&call)?;
    let p = period(&call)?;
    let detail = call.cx.query.get("detailed") == Some("1");
    let reader = call.reader();
    let (all, next) = collect(&call, &reader, None, &p)?;
    let list: Vec<Map> = all.into_iter().map(|(project, usage)| shown(&project, usage, &p, detail)).collect();
    let mut body = map(json!({ "tenant_usages": list }));
    if let Some(next) = next {
        let href = crate::server::list::next_link(&call.cx, "/v2.1/os-simple-tenant-usage", &next);
        body.insert("tenant_usages_links".into(), json!([{ "rel": "next", "href": href }]));
    }
    Ok(Reply::ok(body.into()))
}

async fn show(call: Call) -> Result<Reply> {
    check_query(&call)?;
    let project = call.param("id").to_owned();
    if call.cx.caller.project_id() != Some(&project) && !call.cx.is_admin() {
        return Err(Error::forbidden("Policy doesn't allow os_compute_api:os-simple-tenant-usage:show to be performed."));
    }
    let p = period(&call)?;
    let reader = call.reader();
    let (mut all, next) = collect(&call, &reader, Some(&project), &p)?;
    let usage = all.remove(&project).map_or_else(Map::new, |u| shown(&project, u, &p, true));
    let mut body = map(json!({ "tenant_usage": usage }));
    if let Some(next) = next {
        let path = format!("/v2.1/os-simple-tenant-usage/{project}");
        body.insert("tenant_usage_links".into(), json!([{ "rel": "next", "href": crate::server::list::next_link(&call.cx, &path, &next) }]));
    }
    Ok(Reply::ok(body.into()))
}

/// Audits of usage run on nobody's schedule here: no host has run one.
fn audit(call: &Call, before: base::Timestamp) -> Value {
    let hosts = crate::zones::hosts(&call.reader());
    // Nova's default period is a month.
    let day = |t: base::Timestamp| t.micros().replace('T', " ").chars().take(10).collect::<String>();
    let month = |t: base::Timestamp| format!("{}-01 00:00:00", day(t).chars().take(7).collect::<String>());
    let beginning = base::Timestamp(before.0 - 28 * 86_400 * 1_000_000);
    json!({
        "hosts_not_run": hosts, "log": {}, "num_hosts": hosts.len(), "num_hosts_done": 0, "num_hosts_not_run": hosts.len(),
        "num_hosts_running": 0, "overall_status": format!("0 of {} hosts done. 0 errors.", hosts.len()),
        "period_beginning": month(beginning), "period_ending": month(before), "total_errors": 0, "total_instances": 0,
    })
}

async fn audits(call: Call) -> Result<Reply> {
    let now = call.cloud.db.now();
    Ok(Reply::ok(json!({ "instance_usage_audit_logs": audit(&call, now) })))
}

async fn audit_before(call: Call) -> Result<Reply> {
    let text = call.param("id").to_owned();
    let decoded = percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned();
    let before = base::Timestamp::parse(&decoded).filter(|_| decoded.contains(' '));
    let before = before.ok_or_else(|| Error::bad_request(format!("Invalid timestamp for date {text}")))?;
    Ok(Reply::ok(json!({ "instance_usage_audit_log": audit(&call, before) })))
}

pub(crate) fn routes() -> Vec<Route> {
    let admin = |name| Access::Rule(name, "admin");
    vec![
        Route::new("GET", "/v2.1/os-simple-tenant-usage", admin("os_compute_api:os-simple-tenant-usage:list"), list),
        Route::new("GET", "/v2.1/os-simple-tenant-usage/{id}", Access::Rule("os_compute_api:os-simple-tenant-usage:show", "reader"), show),
        Route::new("GET", "/v2.1/os-instance_usage_audit_log", admin("os_compute_api:os-instance-usage-audit-log:list"), audits),
        Route::new("GET", "/v2.1/os-instance_usage_audit_log/{id}", admin("os_compute_api:os-instance-usage-audit-log:show"), audit_before),
    ]
}
