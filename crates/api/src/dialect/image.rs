//! Glance v2 (api-ref `image/v2`).
use super::{Dialect, common_status, field_filters, limit, next_query, sort_keys, stamp, title};
use base::Timestamp;
use resource::{Error, ErrorKind, Listing};
use serde_json::{Value, json};

pub static IMAGE: Dialect = Dialect {
    name: "image",
    wrapped: false,
    update_method: "PATCH",
    created: 201,
    deleted: 204,
    bulk: false,
    error: |e, status, _| {
        // Glance answers HTML; clients show the text between the tags.
        let (t, text) = (title(status), escape(&e.message));
        let html = format!(
            "<html>\n <head>\n  <title>{status} {t}</title>\n </head>\n <body>\n  <h1>{status} {t}</h1>\n  {text}<br /><br />\n\n\n </body>\n</html>"
        );
        (Value::String(html), "text/html; charset=UTF-8")
    },
    status: |kind| match kind {
        ErrorKind::OverQuota => 413,
        kind => common_status(kind),
    },
    listing: |def, cx| {
        let mut sort = sort_keys(def, cx, &["id", "created_at", "updated_at"])?;
        if let Some(text) = cx.query.get("sort") {
            if !sort.is_empty() {
                return Err(Error::bad_request("Old and new sorting syntax cannot be combined"));
            }
            for part in text.split(',') {
                let (key, dir) = part.split_once(':').unwrap_or((part, "desc"));
                if !matches!(dir, "asc" | "desc") {
                    return Err(Error::bad_request(format!("Invalid sort direction: {dir}")));
                }
                if !matches!(key, "id" | "created_at" | "updated_at") && !def.field(key).is_some_and(|f| f.sort) {
                    return Err(Error::bad_request(format!("Invalid sort key: {key}")));
                }
                sort.push((key.to_owned(), dir == "desc"));
            }
        }
        if sort.is_empty() {
            sort.push(("created_at".into(), true));
        }
        Ok(Listing {
            filters: field_filters(def, cx, &["limit", "marker", "sort_key", "sort_dir", "sort"]),
            sort,
            marker: cx.query.get("marker").filter(|m| !m.is_empty()).map(str::to_owned),
            limit: limit(cx, 25, 1000)?,
            reverse: false,
        })
    },
    page: |def, cx, listing, found, body| {
        let path = crate::crud::concrete_path(def.path, cx);
        let first = {
            let query: Vec<String> = cx.query.0.iter().filter(|(k, _)| k != "marker").map(|(k, v)| format!("{k}={v}")).collect();
            if query.is_empty() { path.clone() } else { format!("{path}?{}", query.join("&")) }
        };
        body.insert("first".into(), first.into());
        body.insert("schema".into(), format!("/v2/schemas/{}", def.plural).into());
        if found.more
            && let Some(last) = found.rows.last()
        {
            let limit = cx.query.get("limit").map(|_| listing.limit);
            body.insert("next".into(), format!("{path}?{}", next_query(cx, last.id(), limit)).into());
        }
    },
    decorate: |def, row, out, _cx| {
        if def.stamps {
            out.insert("created_at".into(), stamp(row, "created_at", Timestamp::seconds_z));
            let updated = stamp(row, "updated_at", Timestamp::seconds_z);
            let updated = if updated.is_null() { stamp(row, "created_at", Timestamp::seconds_z) } else { updated };
            out.insert("updated_at".into(), updated);
        }
        out.insert("schema".into(), json!(format!("/v2/schemas/{}", def.name)));
    },
    time: Timestamp::seconds_z,
    rule: |def, action| match action {
        "list" => format!("get_{}", def.plural),
        "show" => format!("get_{}", def.name),
        "create" => format!("add_{}", def.name),
        "update" => format!("modify_{}", def.name),
        action => format!("{action}_{}", def.name),
    },
};

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
