//! Lists: filters, order, markers and limits over rows in memory.
use crate::{Cx, Error, Kind, Map, Reader, ResourceDef, Result};
use serde_json::Value;
use std::{cmp::Ordering, sync::Arc};
use store::Row;

/// What a dialect read from the query.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Filters by field; values of one key are alternatives.
    pub filters: Vec<(String, Vec<String>)>,
    /// Keys in order; true is descending.
    pub sort: Vec<(String, bool)>,
    pub marker: Option<String>,
    pub limit: usize,
    /// Neutron's `page_reverse`: the page before the marker.
    pub reverse: bool,
}

/// A page.
#[derive(Debug)]
pub struct Found {
    pub rows: Vec<Arc<Row>>,
    /// Is there more behind the last row?
    pub more: bool,
}

fn map(row: &Row) -> &Map {
    static EMPTY: std::sync::LazyLock<Map> = std::sync::LazyLock::new(Map::new);
    row.value().as_object().unwrap_or(&EMPTY)
}

fn matches(kind: &Kind, value: &Value, wanted: &str) -> bool {
    match (kind, value) {
        (Kind::Optional(k), v) if !v.is_null() => matches(k, v, wanted),
        (_, Value::Null) => matches!(wanted, "" | "None" | "null"),
        (Kind::Bool | Kind::StrictBool, v) => Kind::Bool.check(&Value::String(wanted.to_owned())).is_ok_and(|w| w == *v),
        (Kind::Ip | Kind::Cidr | Kind::Mac, Value::String(s)) => match kind.check(&Value::String(wanted.to_owned())) {
            Ok(w) => w.as_str() == Some(s),
            Err(_) => s == wanted,
        },
        (_, Value::String(s)) => s == wanted,
        (_, Value::Number(n)) => n.to_string() == wanted,
        (Kind::List(k), Value::Array(list)) => list.iter().any(|v| matches(k, v, wanted)),
        _ => false,
    }
}

fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Less,
        (_, Value::Null) => Ordering::Greater,
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
        _ => a.to_string().cmp(&b.to_string()),
    }
}

fn passes(def: &ResourceDef, row: &Map, cx: &Cx, key: &str, values: &[String]) -> bool {
    let wanted: Vec<&str> = values.iter().map(String::as_str).collect();
    if let Some(verdict) = (def.hooks.filter)(row, key, &wanted, cx) {
        return verdict;
    }
    let null = Value::Null;
    let value = row.get(key).unwrap_or(&null);
    let kind = def.field(key).map_or(Kind::Any, |f| f.kind);
    wanted.iter().any(|w| matches(&kind, value, w))
}

/// Does an index find all rows that match? It knows neither null nor the other spellings of booleans and addresses.
fn indexed(kind: &Kind, wanted: &str) -> bool {
    match kind {
        Kind::Optional(k) => indexed(k, wanted) && !matches!(wanted, "" | "None" | "null"),
        Kind::List(k) => indexed(k, wanted),
        Kind::Text { .. } | Kind::Name { .. } | Kind::Choice(_) | Kind::Uuid => true,
        _ => false,
    }
}

/// Rows of the table that the caller may see, as the listing asks. `visible` says which.
pub fn list(def: &ResourceDef, cx: &Cx, reader: &Reader<'_>, listing: &Listing) -> Result<Found> {
    let plain =
        |k: &str, v: &str| def.field(k).map_or(k == "project_id" && !matches!(v, "" | "None" | "null"), |f| indexed(&f.kind, v));
    let usable = |k: &str, v: &str| {
        plain(k, v) && reader.has_index(&def.table, k) && (def.hooks.filter)(&Map::new(), k, &[v], cx).is_none()
    };
    let by_index =
        listing.filters.iter().find(|(k, v)| v.len() == 1 && usable(k, &v[0])).map(|(k, v)| reader.find(&def.table, k, &v[0]));
    let admit = |row: &Arc<Row>| {
        let m = map(row);
        (def.hooks.visible)(m, cx, reader) && listing.filters.iter().all(|(k, v)| passes(def, m, cx, k, v))
    };
    let mut rows: Vec<Arc<Row>> = match by_index {
        Some(candidates) => candidates.into_iter().filter(|r| admit(r)).collect(),
        None => reader.all(&def.table).filter(|r| admit(r)).cloned().collect(),
    };
    let null = Value::Null;
    rows.sort_by(|a, b| {
        for (key, descending) in &listing.sort {
            let o = order(map(a).get(key).unwrap_or(&null), map(b).get(key).unwrap_or(&null));
            let o = if *descending { o.reverse() } else { o };
            if o != Ordering::Equal {
                return o;
            }
        }
        a.key.cmp(&b.key)
    });
    if listing.reverse {
        rows.reverse();
    }
    if let Some(marker) = &listing.marker {
        match rows.iter().position(|r| r.id() == marker) {
            Some(at) => {
                rows.drain(..=at);
            }
            // A row that exists but does not pass the filters any more still marks a place only in its own order: refuse it.
            None => return Err(Error::bad_request(format!("marker [{marker}] not found")).code("MarkerNotFound")),
        }
    }
    let more = rows.len() > listing.limit;
    rows.truncate(listing.limit);
    if listing.reverse {
        rows.reverse();
    }
    Ok(Found { rows, more })
}
