//! Neutron v2.0 (api-ref `network/v2`).
use super::{Dialect, common_status, field_filters, next_query, sort_keys, stamp};
use base::Timestamp;
use resource::{Error, ErrorKind, Listing};
use serde_json::{Value, json};

/// Neutron has no limit of its own on pages unless it is configured (`pagination_max_limit`).
const MAX_LIMIT: usize = 1_000_000;
const RESERVED: [&str; 6] = ["fields", "limit", "marker", "page_reverse", "sort_key", "sort_dir"];

pub static NETWORK: Dialect = Dialect {
    name: "network",
    wrapped: true,
    update_method: "PUT",
    created: 201,
    deleted: 204,
    bulk: true,
    error: |e, status, _| {
        let code = e.code.as_deref().unwrap_or(match status {
            400 => "HTTPBadRequest",
            403 => "PolicyNotAuthorized",
            404 => "HTTPNotFound",
            409 => "HTTPConflict",
            503 => "ServiceUnavailable",
            501 => "NotImplemented",
            _ => "HTTPInternalServerError",
        });
        (json!({"NeutronError": {"type": code, "message": e.message, "detail": ""}}), "application/json")
    },
    status: |kind| match kind {
        ErrorKind::Unavailable => 503,
        kind => common_status(kind),
    },
    listing: |def, cx| {
        let limit = match cx.query.get("limit") {
            None => MAX_LIMIT,
            Some(text) => match text.parse::<i64>() {
                Ok(0) => MAX_LIMIT,
                Ok(n) if n > 0 => n as usize,
                _ => return Err(Error::bad_request(format!("'limit' must be an integer that is not negative, not '{text}'."))),
            },
        };
        Ok(Listing {
            filters: field_filters(def, cx, &RESERVED),
            sort: sort_keys(def, cx, &["id", "project_id", "created_at", "updated_at"])?,
            marker: cx.query.get("marker").map(str::to_owned),
            limit,
            reverse: cx.query.flag("page_reverse"),
        })
    },
    page: |def, cx, listing, found, body| {
        if cx.query.get("limit").is_none() && cx.query.get("marker").is_none() {
            return;
        }
        let here = format!("{}{}", cx.public, def.path);
        let mut links = Vec::new();
        let full = found.rows.len() == listing.limit;
        if let (true, Some(last)) = (full || listing.reverse, found.rows.last()) {
            let query = next_query(cx, last.id(), None).replace("page_reverse=True&", "").replace("page_reverse=true&", "");
            links.push(json!({"rel": "next", "href": format!("{here}?{query}")}));
        }
        if let (Some(first), true) = (found.rows.first(), listing.marker.is_some() || listing.reverse) {
            let query = next_query(cx, first.id(), None);
            let query = if cx.query.flag("page_reverse") { query } else { format!("{query}&page_reverse=True") };
            links.push(json!({"rel": "previous", "href": format!("{here}?{query}")}));
        }
        if !links.is_empty() {
            body.insert(format!("{}_links", def.plural), links.into());
        }
    },
    decorate: |def, row, out, _cx| {
        if let Some(p) = row.get("project_id") {
            out.insert("project_id".into(), p.clone());
            out.insert("tenant_id".into(), p.clone());
        }
        if def.stamps {
            let created = stamp(row, "created_at", Timestamp::seconds_z);
            let updated = stamp(row, "updated_at", Timestamp::seconds_z);
            out.insert("updated_at".into(), if updated.is_null() { created.clone() } else { updated });
            out.insert("created_at".into(), created);
            out.insert("revision_number".into(), row.get("revision").cloned().unwrap_or(Value::Null));
        }
    },
    time: Timestamp::seconds_z,
    rule: |def, action| match action {
        "list" => format!("get_{}", def.plural),
        "show" => format!("get_{}", def.name),
        action => format!("{action}_{}", def.name),
    },
};
