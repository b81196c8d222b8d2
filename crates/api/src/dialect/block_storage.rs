//! Cinder v3 (api-ref `block-storage/v3`).
use super::{Dialect, common_status, compute, field_filters, limit, next_query, stamp};
use base::Timestamp;
use resource::{Cx, Error, ErrorKind, Listing, Owner, ResourceDef, Result};
use serde_json::{Value, json};

/// Rows of one page at most (`osapi_max_limit`).
const MAX_LIMIT: usize = 1000;
/// Keys of the query that are no filters.
const RESERVED: [&str; 8] = ["limit", "marker", "offset", "sort", "sort_key", "sort_dir", "all_tenants", "with_count"];

/// Most of Cinder: what is made or deleted is accepted first and done later.
pub static BLOCK_STORAGE: Dialect = block_storage(202, 202);

/// The dialect with the statuses of a resource whose creation or deletion is done at once.
pub const fn block_storage(created: u16, deleted: u16) -> Dialect {
    Dialect {
        name: "volume",
        wrapped: true,
        update_method: "PUT",
        created,
        deleted,
        bulk: false,
        error: |e, status, _| {
            (json!({compute::key(status): {"code": status, "message": e.message}}), "application/json; charset=UTF-8")
        },
        status: |kind| match kind {
            ErrorKind::OverQuota => 413,
            kind => common_status(kind),
        },
        listing: |def, cx| {
            let mut filters = field_filters(def, cx, &RESERVED);
            if def.owner == Owner::Project && !(cx.is_admin() && cx.query.flag("all_tenants")) {
                filters.retain(|(key, _)| key != "project_id");
                filters.push(("project_id".into(), vec![cx.caller.project_id().unwrap_or_default().to_owned()]));
            }
            Ok(Listing {
                filters,
                sort: order(def, cx)?,
                marker: cx.query.get("marker").map(str::to_owned),
                limit: limit(cx, MAX_LIMIT, MAX_LIMIT)?,
                reverse: false,
            })
        },
        page: |def, cx, listing, found, body| {
            if listing.limit > 0
                && found.rows.len() == listing.limit
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
                let short = def.path.strip_prefix("/v3").unwrap_or(def.path);
                let links = json!([
                    {"rel": "self", "href": format!("{}{}/{id}", cx.public, def.path)},
                    {"rel": "bookmark", "href": format!("{}{short}/{id}", cx.public)},
                ]);
                out.insert("links".into(), links);
            }
            if def.stamps && cx.param("*brief") != "yes" {
                out.insert("created_at".into(), stamp(row, "created_at", Timestamp::micros));
                out.insert("updated_at".into(), stamp(row, "updated_at", Timestamp::micros));
            }
        },
        time: Timestamp::micros,
        rule: |def, action| match (def.name, action) {
            ("volume", "list") => "volume:get_all".to_owned(),
            ("volume", "show") => "volume:get".to_owned(),
            ("volume", action) => format!("volume:{action}"),
            ("attachment", action @ ("create" | "update" | "delete")) => format!("volume:attachment_{action}"),
            ("message", "list") => "message:get_all".to_owned(),
            ("message", "show") => "message:get".to_owned(),
            ("message", action) => format!("message:{action}"),
            (_, "list") => format!("volume:get_all_{}", def.plural),
            (name, "show") => format!("volume:get_{name}"),
            (name, action) => format!("volume:{action}_{name}"),
        },
    }
}

/// `sort=key:dir,…`, or the older `sort_key` and `sort_dir`; the newest first when nothing is asked.
fn order(def: &ResourceDef, cx: &Cx) -> Result<Vec<(String, bool)>> {
    let known =
        |key: &str| matches!(key, "id" | "created_at" | "updated_at" | "project_id") || def.field(key).is_some_and(|f| f.sort);
    let mut out = Vec::new();
    let mut add = |key: &str, direction: &str| {
        let key = match key.trim() {
            "display_name" => "name",
            key => key,
        };
        if !known(key) {
            return Err(Error::bad_request(format!("Sort key {key} is not a key that {} can be sorted by.", def.plural)));
        }
        match direction {
            "asc" => out.push((key.to_owned(), false)),
            "desc" => out.push((key.to_owned(), true)),
            other => return Err(Error::bad_request(format!("Invalid sort direction {other}: it must be asc or desc."))),
        }
        Ok(())
    };
    let keys = cx.query.get("sort_key");
    match cx.query.get("sort") {
        Some(_) if keys.is_some() || cx.query.get("sort_dir").is_some() => {
            return Err(Error::bad_request(
                "The \"sort_key\" and \"sort_dir\" parameters are deprecated and cannot be used with the \"sort\" parameter.",
            ));
        }
        Some(text) => {
            for part in text.split(',').filter(|p| !p.trim().is_empty()) {
                let (key, direction) = part.split_once(':').unwrap_or((part, "desc"));
                add(key, direction)?;
            }
        }
        None if keys.is_some() || cx.query.get("sort_dir").is_some() => {
            add(keys.unwrap_or("created_at"), cx.query.get("sort_dir").unwrap_or("desc"))?;
        }
        None => {}
    }
    if out.is_empty() {
        out.push(("created_at".into(), true));
    }
    Ok(out)
}
