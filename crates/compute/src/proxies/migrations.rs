//! Migrations (Nova api-ref, `os-migrations`), and the log of a usage audit that nobody runs here (`os-instance_usage_audit_log`).
use super::{check_query, page};
use crate::{
    common::{at, int, map, object, text},
    zones,
};
use api::{Access, Call, Cx, Error, Map, Reply, Result, Route};
use base::Timestamp;
use serde_json::{Value, json};
use store::{Index, Table};

/// Moves of servers between hosts, under way and done.
///
/// A row has `number`, `uuid`, `instance_uuid`, `project_id`, `user_id`, `status`, `migration_type` (`live-migration`, `migration`,
/// `resize`, `evacuation`), `source_compute`, `dest_compute`, and `created_at` and `updated_at` in microseconds.
pub(crate) static MIGRATIONS: Table = Table {
    name: "compute/migrations",
    indexes: &[Index { name: "instance_uuid", path: "/instance_uuid" }, Index { name: "status", path: "/status" }],
};

fn view(cx: &Cx, row: &Map) -> Map {
    let or_null = |key: &str| row.get(key).cloned().unwrap_or(Value::Null);
    let time = |key: &str| row.get(key).and_then(Value::as_i64).map(|t| Timestamp(t).micros());
    let mut out = map(json!({
        "id": int(row, "number"), "instance_uuid": text(row, "instance_uuid"), "status": or_null("status"),
        "source_compute": or_null("source_compute"), "source_node": or_null("source_compute"), "dest_compute": or_null("dest_compute"),
        "dest_node": or_null("dest_compute"), "dest_host": or_null("dest_host"), "old_instance_type_id": or_null("old_instance_type_id"),
        "new_instance_type_id": or_null("new_instance_type_id"), "created_at": time("created_at"), "updated_at": time("updated_at"),
    }));
    if at(cx, 23) {
        let kind = text(row, "migration_type");
        out.insert("migration_type".into(), kind.into());
        if kind == "live-migration" && matches!(text(row, "status"), "queued" | "preparing" | "running" | "post-migrating") {
            let path = format!("servers/{}/migrations/{}", text(row, "instance_uuid"), int(row, "number"));
            let links = json!([
                { "rel": "self", "href": format!("{}/v2.1/{path}", cx.public) },
                { "rel": "bookmark", "href": format!("{}/{path}", cx.public) },
            ]);
            out.insert("links".into(), links);
        }
    }
    if at(cx, 59) {
        out.insert("uuid".into(), text(row, "uuid").into());
    }
    if at(cx, 80) {
        out.insert("user_id".into(), or_null("user_id"));
        out.insert("project_id".into(), or_null("project_id"));
    }
    out
}

fn time(cx: &Cx, key: &str, since: u16) -> Result<Option<i64>> {
    let Some(text) = cx.query.get(key).filter(|_| at(cx, since)) else { return Ok(None) };
    let parsed = Timestamp::parse(text).map(|t| Some(t.0));
    parsed.ok_or_else(|| {
        Error::bad_request(format!("Invalid input for query parameters {key}. Value: {text}. '{text}' is not a 'date-time'"))
    })
}

async fn list(call: Call) -> Result<Reply> {
    let cx = &call.cx;
    let known = [
        "hidden",
        "host",
        "instance_uuid",
        "source_compute",
        "status",
        "migration_type",
        "limit",
        "marker",
        "changes-since",
        "changes-before",
        "user_id",
        "project_id",
    ];
    check_query(
        cx,
        59,
        if at(cx, 80) {
            &known
        } else if at(cx, 66) {
            &known[..10]
        } else {
            &known[..9]
        },
    )?;
    let project = cx.query.get("project_id").filter(|_| at(cx, 80));
    if project.is_none_or(|p| Some(p) != cx.caller.project_id()) {
        call.require("os_compute_api:os-migrations:index:all_projects", None)?;
    }
    let (since, before) = (time(cx, "changes-since", 59)?, time(cx, "changes-before", 66)?);
    if since.zip(before).is_some_and(|(s, b)| b < s) {
        return Err(Error::bad_request("The value of changes-since must be less than or equal to changes-before."));
    }
    let fits = |row: &Map| {
        let changed = row.get("updated_at").and_then(Value::as_i64).unwrap_or_else(|| int(row, "created_at"));
        let equal = |key: &str| cx.query.get(key).is_none_or(|v| text(row, key) == v);
        let host = cx.query.get("host").is_none_or(|h| text(row, "source_compute") == h || text(row, "dest_compute") == h);
        host && ["instance_uuid", "source_compute", "status", "migration_type"].into_iter().all(equal)
            && (!at(cx, 80) || (equal("user_id") && equal("project_id")))
            && since.is_none_or(|s| changed >= s)
            && before.is_none_or(|b| changed <= b)
    };
    let reader = call.reader();
    let mut rows: Vec<&Map> = reader.all(&MIGRATIONS).map(|r| object(r)).filter(|r| fits(r)).collect();
    rows.sort_by_key(|r| int(r, "number"));
    let mut link = None;
    if at(cx, 59) {
        // The newest first, since there are pages.
        rows.reverse();
        (rows, link) = page(cx, rows, "/v2.1/os-migrations", |r| text(r, "uuid"))?;
    }
    let list: Vec<Value> = rows.iter().map(|r| view(cx, r).into()).collect();
    let mut body = map(json!({ "migrations": list }));
    if let Some(link) = link {
        body.insert("migrations_links".into(), link);
    }
    Ok(Reply::ok(body.into()))
}

/// The month before the one that `at` is in: its first instant and its end, as `2026-11-01 00:00:00`.
fn last_month(at: Timestamp) -> (String, String) {
    let text = at.seconds_z();
    let mut parts = text.split('-');
    let mut part = || parts.next().and_then(|p| p.parse::<i32>().ok());
    let (year, month) = (part().unwrap_or(1970), part().unwrap_or(1));
    let first = |y: i32, m: i32| format!("{y:04}-{m:02}-01 00:00:00");
    let begin = if month == 1 { first(year - 1, 12) } else { first(year, month - 1) };
    (begin, first(year, month))
}

/// Audits are a nova-compute's periodic task, off by default: as in a cloud that leaves it off, none has run.
fn audit(call: &Call, before: Timestamp) -> Value {
    let (begin, end) = last_month(before);
    let hosts = zones::hosts(&call.reader());
    let done = if hosts.is_empty() { "ALL".to_owned() } else { format!("0 of {}", hosts.len()) };
    json!({
        "period_beginning": begin, "period_ending": end, "num_hosts": hosts.len(), "num_hosts_done": 0, "num_hosts_running": 0,
        "num_hosts_not_run": hosts.len(), "hosts_not_run": hosts, "total_instances": 0, "total_errors": 0,
        "overall_status": format!("{done} hosts done. 0 errors."), "log": {},
    })
}

async fn audits(call: Call) -> Result<Reply> {
    check_query(&call.cx, 102, &[])?;
    Ok(Reply::ok(json!({ "instance_usage_audit_logs": audit(&call, call.cloud.db.now()) })))
}

async fn audit_before(call: Call) -> Result<Reply> {
    check_query(&call.cx, 102, &[])?;
    let text = call.param("id");
    let before = Timestamp::parse(text).filter(|_| text.len() >= 19 && text.as_bytes().get(10) == Some(&b' '));
    let before = before.ok_or_else(|| Error::bad_request(format!("Invalid timestamp for date {text}")))?;
    Ok(Reply::ok(json!({ "instance_usage_audit_log": audit(&call, before) })))
}

pub(super) fn routes() -> Vec<Route> {
    let admin = |name| Access::Rule(name, "admin");
    let one = "/v2.1/os-instance_usage_audit_log/{id}";
    vec![
        Route::new("GET", "/v2.1/os-migrations", admin("os_compute_api:os-migrations:index"), list),
        Route::new("GET", "/v2.1/os-instance_usage_audit_log", admin("os_compute_api:os-instance-usage-audit-log:list"), audits),
        Route::new("GET", one, admin("os_compute_api:os-instance-usage-audit-log:show"), audit_before),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_period_is_the_last_whole_month() {
        let of = |text: &str| Timestamp::parse(text).map(last_month);
        let texts = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(of("2026-01-15T00:00:00"), texts("2025-12-01 00:00:00", "2026-01-01 00:00:00"));
        assert_eq!(of("2026-11-30T23:59:59"), texts("2026-10-01 00:00:00", "2026-11-01 00:00:00"));
    }
}
