//! Lists of servers: Nova's filters, order and pages.
mod wanted;

use super::{state, view::Show};
use crate::{
    common::{DELETED, flag, int, object, text},
    resources::Server,
};
use api::{Call, Cx, Error, Map, Reply, ReplyBody, Result};
use resource::{Reader, Resource, Row};
use serde_json::{Value, json};
use std::{cmp::Ordering, sync::Arc};
use wanted::{Filter, Wanted, wanted};

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
        let mut after = None;
        if let Some(marker) = &w.marker {
            after = rows.iter().position(|r| r.id() == marker);
            if after.is_none() {
                // A marker that the filters leave out still has a place in the order of creation.
                let mine = |r: &Arc<Row>| w.project.as_ref().is_none_or(|p| r.text("project_id") == p);
                let row = self.reader.get(&Server::DEF.table, marker).filter(mine);
                let row = row.ok_or_else(|| Error::bad_request(format!("marker [{marker}] not found")))?;
                let made = int(object(&row), "created_at");
                rows.retain(|r| int(object(r), "created_at") < made);
            }
        }
        let mut rows = page(&rows, &w.sort, after, w.limit.saturating_add(1));
        let more = rows.len() > w.limit;
        rows.truncate(w.limit);
        Ok((rows, more))
    }
}

/// The first `most` of the rows in this order, of those that come after the one at `after`. Each row is looked into once, not at each
/// comparison, and only those of the page are sorted.
fn page(rows: &[Arc<Row>], by: &[(&'static str, bool)], after: Option<usize>, most: usize) -> Vec<Arc<Row>> {
    let keys: Vec<Option<&Value>> = rows.iter().flat_map(|r| by.iter().map(|(f, _)| object(r).get(*f))).collect();
    let key = |place: usize| &keys[place * by.len()..][..by.len()];
    let compare = |a: &usize, b: &usize| {
        let by_key = by.iter().zip(key(*a).iter().zip(key(*b))).map(|((_, descending), (a, b))| {
            let o = order(*a, *b);
            if *descending { o.reverse() } else { o }
        });
        by_key.fold(Ordering::Equal, Ordering::then).then_with(|| rows[*b].id().cmp(rows[*a].id()))
    };
    let mut places: Vec<usize> = (0..rows.len()).filter(|p| after.is_none_or(|after| compare(p, &after).is_gt())).collect();
    if places.len() > most {
        places.select_nth_unstable_by(most, compare);
        places.truncate(most);
    }
    places.sort_unstable_by(compare);
    places.into_iter().map(|p| rows[p].clone()).collect()
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
