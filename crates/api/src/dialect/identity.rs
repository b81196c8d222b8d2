//! Keystone v3 (api-ref `identity/v3`).
use super::{Dialect, common_status, field_filters, limit, next_query, title};
use base::Timestamp;
use resource::{ErrorKind, Listing};
use serde_json::json;

pub static IDENTITY: Dialect = Dialect {
    name: "identity",
    wrapped: true,
    update_method: "PATCH",
    created: 201,
    deleted: 204,
    bulk: false,
    error: |e, status, _| (json!({"error": {"code": status, "title": title(status), "message": e.message}}), "application/json"),
    status: |kind| match kind {
        ErrorKind::OverQuota => 403,
        kind => common_status(kind),
    },
    listing: |def, cx| {
        let mut filters = field_filters(def, cx, &["limit", "marker", "sort_key", "sort_dir"]);
        // A token for a domain lists that domain, also an administrator's.
        let of_domain = match def.plural {
            "users" | "groups" | "projects" => Some("domain_id"),
            "domains" => Some("id"),
            _ => None,
        };
        if let (Some(field), Some(own)) = (of_domain, cx.caller.domain_id()) {
            filters.push((field.to_owned(), vec![own.to_owned()]));
        }
        Ok(Listing {
            filters,
            sort: Vec::new(),
            marker: cx.query.get("marker").map(str::to_owned),
            limit: limit(cx, usize::MAX, usize::MAX)?,
            reverse: false,
        })
    },
    page: |def, cx, listing, found, body| {
        let here = format!("{}{}", cx.public, crate::crud::concrete_path(def.path, cx));
        let next = match found.rows.last() {
            Some(last) if found.more => json!(format!("{here}?{}", next_query(cx, last.id(), Some(listing.limit)))),
            _ => serde_json::Value::Null,
        };
        body.insert("links".into(), json!({"next": next, "self": here, "previous": null}));
        if cx.query.get("limit").is_some() && found.more {
            body.insert("truncated".into(), true.into());
        }
    },
    decorate: |def, row, out, cx| {
        let id = row.get("id").and_then(serde_json::Value::as_str).unwrap_or_default();
        let path = crate::crud::concrete_path(def.path, cx);
        out.insert("links".into(), json!({"self": format!("{}{path}/{id}", cx.public)}));
    },
    time: Timestamp::micros_z,
    rule: |def, action| match action {
        "list" => format!("identity:list_{}", def.plural),
        "show" => format!("identity:get_{}", def.name),
        action => format!("identity:{action}_{}", def.name),
    },
};
