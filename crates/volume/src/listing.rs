//! Lists: filters, order and pages come from the table; offsets and counts are Cinder's own.
use crate::common::{at, missing, object};
use api::{Call, Cx, Error, Map, Reply, Result};
use resource::{Found, Listing, Reader, ResourceDef};
use serde_json::Value;

/// Adds to one shown row what only show and detailed lists have.
pub(crate) type Extend = fn(&Map, &mut Map, &Cx);

/// A page of rows, brief or whole.
pub(crate) fn reply(def: &'static ResourceDef, call: &Call, brief: bool, extend: Extend) -> Result<Reply> {
    let cx = &call.cx;
    let dialect = &api::dialect::BLOCK_STORAGE;
    let asked = (dialect.listing)(def, cx)?;
    let reader = call.reader();
    if let Some(marker) = &asked.marker
        && reader.get(&def.table, marker).is_none()
    {
        return Err(missing(def, marker));
    }
    let offset = offset(cx)?;
    let whole = Listing { limit: asked.limit.saturating_add(offset), ..asked.clone() };
    let mut found: Found = resource::list(def, cx, &reader, &whole)?;
    found.rows.drain(..offset.min(found.rows.len()));
    let rows: Vec<Value> = found.rows.iter().map(|r| one(def, object(r), cx, &reader, brief, extend).into()).collect();
    let mut body = Map::new();
    body.insert(def.plural.into(), rows.into());
    (dialect.page)(def, cx, &asked, &found, &mut body);
    if at(cx, 45) && cx.query.flag("with_count") {
        let all = Listing { marker: None, limit: usize::MAX, ..asked };
        body.insert("count".into(), resource::list(def, cx, &reader, &all)?.rows.len().into());
    }
    Ok(Reply::ok(body.into()))
}

/// One row as it is shown.
pub(crate) fn one(def: &ResourceDef, row: &Map, cx: &Cx, reader: &Reader<'_>, brief: bool, extend: Extend) -> Map {
    let mut out = api::view_row(def, &api::dialect::BLOCK_STORAGE, row, cx, reader, brief);
    if brief {
        out.retain(|key, _| matches!(key.as_str(), "id" | "links") || def.field(key).is_some_and(|f| f.brief));
    } else {
        extend(row, &mut out, cx);
    }
    out
}

/// One row in its object.
pub(crate) fn wrapped(def: &ResourceDef, call: &Call, row: &Map, extend: Extend) -> Value {
    let mut body = Map::new();
    body.insert(def.name.into(), one(def, row, &call.cx, &call.reader(), false, extend).into());
    body.into()
}

/// Nothing besides the table's view.
pub(crate) fn plain(_row: &Map, _out: &mut Map, _cx: &Cx) {}

fn offset(cx: &Cx) -> Result<usize> {
    match cx.query.get("offset") {
        None => Ok(0),
        Some(text) => text
            .parse::<u32>()
            .map(|n| n as usize)
            .map_err(|_| Error::bad_request(format!("offset '{text}' must be an integer that is not negative."))),
    }
}
