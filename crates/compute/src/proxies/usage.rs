//! Usage of projects over a time (Nova api-ref, `os-simple-tenant-usage`), from the servers there are and those deleted lately.
use super::{check_query, page};
use crate::{
    common::{DELETED, at, int, map, object, text},
    resources::Server,
};
use api::{Access, Call, Cx, Error, Map, Reply, Result, Route};
use base::Timestamp;
use resource::{Reader, Resource};
use serde_json::{Value, json};

/// What is reported, read once from the query.
#[derive(Clone, Copy, Debug)]
struct Period {
    start: Timestamp,
    stop: Timestamp,
}

fn parse(text: Option<&str>, none: Timestamp) -> Result<Timestamp> {
    match text.filter(|t| !t.is_empty()) {
        None => Ok(none),
        // A date alone is no point in time.
        Some(t) => Timestamp::parse(t)
            .filter(|_| t.contains(':') && !t.ends_with(['Z', 'z']))
            .ok_or_else(|| Error::bad_request("Invalid datetime string: Datetime is in invalid format")),
    }
}

impl Period {
    fn read(cx: &Cx, now: Timestamp) -> Result<Self> {
        let start = parse(cx.query.get("start"), now)?;
        // Nova takes the time twice, so that a report about nothing has a length.
        let stop = parse(cx.query.get("end"), Timestamp(now.0 + 1))?;
        if start >= stop {
            return Err(Error::bad_request("Invalid start time. The start time cannot occur after the end time."));
        }
        Ok(Self { start, stop: stop.min(Timestamp(now.0.max(start.0) + 1)) })
    }
    fn hours(&self, launched: i64, ended: Option<i64>) -> f64 {
        let stop = ended.map_or(self.stop.0, |e| e.min(self.stop.0));
        (stop - launched.max(self.start.0)).max(0) as f64 / 3_600_000_000.0
    }
}

fn number(row: &Map, key: &str) -> Option<i64> {
    row.get(key).and_then(Value::as_i64)
}

/// One server's part; `None` if it did not run in the period.
fn of_server(row: &Map, period: Period, now: Timestamp) -> Option<Map> {
    let launched = number(row, "launched_at").filter(|l| *l < period.stop.0)?;
    let ended = number(row, "terminated_at");
    if ended.is_some_and(|e| e <= period.start.0) {
        return None;
    }
    let flavor = row.get("flavor").and_then(Value::as_object)?;
    Some(map(json!({
        "instance_id": text(row, "id"), "name": text(row, "name"), "tenant_id": text(row, "project_id"),
        "hours": period.hours(launched, ended), "flavor": text(flavor, "name"), "memory_mb": int(flavor, "ram"),
        "local_gb": int(flavor, "disk") + int(flavor, "ephemeral"), "vcpus": int(flavor, "vcpus"),
        "started_at": Timestamp(launched).micros(), "ended_at": ended.map(|e| Timestamp(e).micros()),
        "state": if ended.is_some() { "terminated" } else { text(row, "vm_state") },
        "uptime": (ended.unwrap_or(now.0) - launched) / 1_000_000,
    })))
}

/// Servers that ran in the period, by project and id.
fn servers(reader: &Reader<'_>, project: Option<&str>, period: Period, now: Timestamp) -> Vec<Map> {
    let rows = reader.all(&Server::DEF.table).chain(reader.all(&DELETED));
    let fits = |row: &Map| project.is_none_or(|p| text(row, "project_id") == p);
    let mut list: Vec<Map> = rows.map(|r| object(r)).filter(|r| fits(r)).filter_map(|r| of_server(r, period, now)).collect();
    list.sort_by(|a, b| (text(a, "tenant_id"), text(a, "instance_id")).cmp(&(text(b, "tenant_id"), text(b, "instance_id"))));
    list
}

/// Sums by project, in order.
fn sums(servers: &[Map], period: Period, detailed: bool) -> Vec<Value> {
    let mut out: Vec<Map> = Vec::new();
    for server in servers {
        let project = text(server, "tenant_id");
        if out.last().is_none_or(|s| text(s, "tenant_id") != project) {
            let mut sum = map(json!({
                "tenant_id": project, "total_local_gb_usage": 0.0, "total_vcpus_usage": 0.0, "total_memory_mb_usage": 0.0, "total_hours": 0.0,
                "start": period.start.micros(), "stop": period.stop.micros(),
            }));
            if detailed {
                sum.insert("server_usages".into(), json!([]));
            }
            out.push(sum);
        }
        let Some(sum) = out.last_mut() else { continue };
        let hours = server.get("hours").and_then(Value::as_f64).unwrap_or(0.0);
        for (total, part) in
            [("total_local_gb_usage", "local_gb"), ("total_vcpus_usage", "vcpus"), ("total_memory_mb_usage", "memory_mb")]
        {
            add(sum, total, int(server, part) as f64 * hours);
        }
        add(sum, "total_hours", hours);
        if let Some(Value::Array(list)) = sum.get_mut("server_usages") {
            list.push(Value::Object(server.clone()));
        }
    }
    out.into_iter().map(Value::Object).collect()
}

fn add(sum: &mut Map, key: &str, more: f64) {
    let now = sum.get(key).and_then(Value::as_f64).unwrap_or(0.0);
    sum.insert(key.to_owned(), (now + more).into());
}

/// The page of servers that the answer counts, and its link.
fn counted(call: &Call, project: Option<&str>, path: &str, period: Period) -> Result<(Vec<Map>, Option<Value>)> {
    let reader = call.reader();
    let all = servers(&reader, project, period, call.cloud.db.now());
    if at(&call.cx, 40) { page(&call.cx, all, path, |s| text(s, "instance_id")) } else { Ok((all, None)) }
}

async fn list(call: Call) -> Result<Reply> {
    let cx = &call.cx;
    check_query(cx, 75, &["start", "end", "detailed", "limit", "marker"])?;
    let period = Period::read(cx, call.cloud.db.now())?;
    let (servers, link) = counted(&call, None, "/v2.1/os-simple-tenant-usage", period)?;
    let detailed = cx.query.get("detailed") == Some("1");
    let mut body = map(json!({ "tenant_usages": sums(&servers, period, detailed) }));
    if let Some(link) = link {
        body.insert("tenant_usages_links".into(), link);
    }
    Ok(Reply::ok(body.into()))
}

async fn show(call: Call) -> Result<Reply> {
    let cx = &call.cx;
    let project = call.param("id");
    call.require("os_compute_api:os-simple-tenant-usage:show", Some(&map(json!({ "project_id": project }))))?;
    check_query(cx, 75, &["start", "end", "limit", "marker"])?;
    let period = Period::read(cx, call.cloud.db.now())?;
    let (servers, link) = counted(&call, Some(project), &format!("/v2.1/os-simple-tenant-usage/{project}"), period)?;
    let usage = sums(&servers, period, true).into_iter().next().unwrap_or_else(|| json!({}));
    let mut body = map(json!({ "tenant_usage": usage }));
    if let Some(link) = link {
        body.insert("tenant_usage_links".into(), link);
    }
    Ok(Reply::ok(body.into()))
}

pub(super) fn routes() -> Vec<Route> {
    let list_rule = Access::Rule("os_compute_api:os-simple-tenant-usage:list", "admin");
    vec![
        Route::new("GET", "/v2.1/os-simple-tenant-usage", list_rule, list),
        Route::new("GET", "/v2.1/os-simple-tenant-usage/{id}", Access::Authenticated, show),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn row(project: &str, id: &str, launched: i64, ended: Option<i64>) -> Map {
        map(
            json!({"id": id, "name": id, "project_id": project, "vm_state": "active", "launched_at": launched, "terminated_at": ended,
            "flavor": {"name": "f", "vcpus": 2, "ram": 512, "disk": 1, "ephemeral": 0}}),
        )
    }

    #[test]
    fn servers_count_for_the_time_that_they_ran_in_the_period() {
        let period = Period { start: Timestamp(10 * HOUR), stop: Timestamp(20 * HOUR) };
        let now = Timestamp(30 * HOUR);
        let hours = |launched, ended| of_server(&row("p", "i", launched, ended), period, now).and_then(|m| m["hours"].as_f64());
        assert_eq!(hours(5 * HOUR, None), Some(10.0));
        assert_eq!(hours(15 * HOUR, Some(16 * HOUR)), Some(1.0));
        assert_eq!(hours(HOUR, Some(2 * HOUR)), None);
        assert_eq!(hours(25 * HOUR, None), None);
        let rows = [row("a", "1", 5 * HOUR, None), row("a", "2", 19 * HOUR, None), row("b", "3", 19 * HOUR, None)];
        let parts: Vec<Map> = rows.iter().filter_map(|r| of_server(r, period, now)).collect();
        let sums = sums(&parts, period, true);
        assert_eq!(sums.len(), 2);
        assert_eq!((&sums[0]["total_hours"], &sums[0]["total_vcpus_usage"]), (&json!(11.0), &json!(22.0)));
        assert_eq!(sums[0]["server_usages"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn times_are_points_in_time() {
        let now = Timestamp(5);
        assert_eq!(parse(None, now).ok(), Some(now));
        assert!(parse(Some("2026-11-22T14:36:37"), now).is_ok() && parse(Some("2026-11-22 14:36:37.000001"), now).is_ok());
        assert!(parse(Some("2026-11-22"), now).is_err() && parse(Some("yesterday"), now).is_err());
    }
}
