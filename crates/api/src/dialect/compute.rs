//! Nova v2.1 (api-ref `compute`).
use super::{Dialect, common_status, field_filters, limit, next_query, sort_keys, stamp};
use base::Timestamp;
use resource::{ErrorKind, Listing};
use serde_json::{Value, json};

/// Rows of one page at most (`[api] max_limit`).
const MAX_LIMIT: usize = 1000;

/// Name of an error's object. Cinder has the same.
pub(super) fn key(status: u16) -> &'static str {
    // nova/api/openstack/wsgi.py, Fault._fault_names
    match status {
        400 => "badRequest",
        401 => "unauthorized",
        403 => "forbidden",
        404 => "itemNotFound",
        405 => "badMethod",
        406 => "notAcceptable",
        409 => "conflictingRequest",
        413 => "overLimit",
        415 => "badMediaType",
        429 => "overLimit",
        501 => "notImplemented",
        503 => "serviceUnavailable",
        _ => "computeFault",
    }
}

pub static COMPUTE: Dialect = Dialect {
    name: "compute",
    wrapped: true,
    update_method: "PUT",
    created: 200,
    deleted: 204,
    bulk: false,
    error: |e, status, _| (json!({key(status): {"code": status, "message": e.message}}), "application/json; charset=UTF-8"),
    status: |kind| match kind {
        ErrorKind::OverQuota => 403,
        kind => common_status(kind),
    },
    listing: |def, cx| {
        Ok(Listing {
            filters: field_filters(def, cx, &["limit", "marker", "sort_key", "sort_dir"]),
            sort: sort_keys(def, cx, &["created_at", "updated_at", "id", "project_id"])?,
            marker: cx.query.get("marker").map(str::to_owned),
            limit: limit(cx, MAX_LIMIT, MAX_LIMIT)?,
            reverse: false,
        })
    },
    page: |def, cx, listing, found, body| {
        // A page that is full has a next link only where there is more, or where the caller asked for a size.
        let full = found.rows.len() == listing.limit && cx.query.get("limit").is_some();
        if (found.more || full)
            && let Some(last) = found.rows.last()
        {
            let detail = if def.detail && cx.param("*detail") == "yes" { "/detail" } else { "" };
            let path = crate::crud::concrete_path(def.path, cx);
            let limit = cx.query.get("limit").map(|_| listing.limit);
            let href = format!("{}{path}{detail}?{}", cx.public, next_query(cx, last.id(), limit));
            body.insert(format!("{}_links", def.plural), json!([{"rel": "next", "href": href}]));
        }
    },
    decorate: |def, row, out, cx| {
        let id = row.get("id").and_then(Value::as_str).unwrap_or_default();
        if def.detail {
            let short = def.path.strip_prefix("/v2.1").unwrap_or(def.path);
            let links = json!([
                {"rel": "self", "href": format!("{}{}/{id}", cx.public, def.path)},
                {"rel": "bookmark", "href": format!("{}{short}/{id}", cx.public)},
            ]);
            out.insert("links".into(), links);
        }
        if def.stamps && cx.param("*detail") != "no" {
            out.insert("created_at".into(), stamp(row, "created_at", Timestamp::micros));
            out.insert("updated_at".into(), stamp(row, "updated_at", Timestamp::micros));
        }
    },
    time: Timestamp::seconds_z,
    rule: |def, action| match action {
        "list" => format!("os_compute_api:{}:index", def.plural),
        action => format!("os_compute_api:{}:{action}", def.plural),
    },
};
