//! Images through the old road (Nova api-ref, `images`, until 2.35): the image service's rows in Nova's shape.
use super::page;
use crate::{
    common::{flag, foreign, foreign_all, id_of, int, map, object, seconds, text},
    server::view::link_pair,
};
use api::{Access, Call, Cx, Error, Map, Reply, Result, Route};
use resource::engine;
use serde_json::{Value, json};
use std::sync::Arc;
use store::Row;

fn status(row: &Map) -> &'static str {
    match text(row, "status") {
        "active" => "ACTIVE",
        "queued" | "saving" | "importing" | "uploading" => "SAVING",
        "deleted" | "pending_delete" => "DELETED",
        "killed" => "ERROR",
        _ => "UNKNOWN",
    }
}

/// What Nova called an image's metadata.
pub(super) fn metadata(row: &Map) -> Map {
    row.get("properties").and_then(Value::as_object).cloned().unwrap_or_default()
}

fn links(call: &Call, id: &str) -> Value {
    let mut links = link_pair(&call.cx, "images", id);
    let href = format!("{}/image/images/{id}", call.cx.settings.public_endpoint.trim_end_matches('/'));
    if let Some(list) = links.as_array_mut() {
        list.push(json!({ "rel": "alternate", "type": "application/vnd.openstack.image", "href": href }));
    }
    links
}

fn brief(call: &Call, row: &Map) -> Map {
    let id = text(row, "id");
    map(json!({ "id": id, "name": row.get("name"), "links": links(call, id) }))
}

fn view(call: &Call, row: &Map) -> Map {
    let mut out = brief(call, row);
    let status = status(row);
    let updated = if row.get("updated_at").is_some_and(Value::is_i64) { "updated_at" } else { "created_at" };
    let properties = metadata(row);
    out.extend(map(json!({
        "status": status, "created": seconds(row, "created_at"), "updated": seconds(row, updated), "minDisk": int(row, "min_disk"),
        "minRam": int(row, "min_ram"), "progress": match status { "ACTIVE" => 100, "SAVING" => 50, _ => 0 },
        "OS-EXT-IMG-SIZE:size": row.get("size"),
    })));
    if let Some(server) = properties.get("instance_uuid").and_then(Value::as_str) {
        out.insert("server".into(), json!({ "id": server, "links": link_pair(&call.cx, "servers", server) }));
    }
    if let Some(auto) = properties.get("auto_disk_config").and_then(crate::shape::as_bool) {
        out.insert("OS-DCF:diskConfig".into(), if auto { "AUTO" } else { "MANUAL" }.into());
    }
    out.insert("metadata".into(), properties.into());
    out
}

/// Is it among those that the image service lists for the caller without being asked?
fn is_listed(cx: &Cx, row: &Map) -> bool {
    let mine = cx.caller.project_id().is_some_and(|p| text(row, "project_id") == p);
    let accepted = || {
        let members = row.get("members").and_then(Value::as_array);
        members.into_iter().flatten().any(|m| m["member_id"].as_str() == cx.caller.project_id() && m["status"] == "accepted")
    };
    let theirs = match text(row, "visibility") {
        "public" => true,
        "shared" => accepted(),
        _ => false,
    };
    !flag(row, "os_hidden") && (mine || theirs || cx.is_admin())
}

fn passes(row: &Map, key: &str, value: &str) -> Result<bool> {
    let property = |name: &str| metadata(row).get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(match key {
        "name" => text(row, "name") == value,
        "status" => status(row).eq_ignore_ascii_case(value),
        "server" => property("instance_uuid") == id_of(value),
        "type" => property("image_type") == value,
        "minRam" => int(row, "min_ram") >= value.parse().unwrap_or(0),
        "minDisk" => int(row, "min_disk") >= value.parse().unwrap_or(0),
        "changes-since" => {
            let since = base::Timestamp::parse(value)
                .ok_or_else(|| Error::bad_request(format!("Invalid changes-since value: {value}")))?;
            // Clients see whole seconds.
            int(row, "updated_at").max(int(row, "created_at")) >= since.0
        }
        key => match key.strip_prefix("property-") {
            Some(name) => property(name) == value,
            None => true,
        },
    })
}

async fn list(call: Call, detail: bool) -> Result<Reply> {
    let cx = &call.cx;
    let reader = call.reader();
    let mut rows = foreign_all(cx, &reader, "image/images")?;
    rows.retain(|r| is_listed(cx, object(r)));
    for (key, value) in &cx.query.0 {
        let fit: Vec<bool> = rows.iter().map(|r| passes(object(r), key, value)).collect::<Result<_>>()?;
        let mut fit = fit.into_iter();
        rows.retain(|_| fit.next().unwrap_or(false));
    }
    rows.sort_by(|a, b| (int(object(b), "created_at"), b.id()).cmp(&(int(object(a), "created_at"), a.id())));
    let path = if detail { "/v2.1/images/detail" } else { "/v2.1/images" };
    let (rows, link) = page(cx, rows, path, |r| r.id())?;
    let list: Vec<Map> = rows.iter().map(|r| if detail { view(&call, object(r)) } else { brief(&call, object(r)) }).collect();
    let mut body = map(json!({ "images": list }));
    if let Some(link) = link {
        body.insert("images_links".into(), link);
    }
    Ok(Reply::ok(body.into()))
}

/// The image of the path, if the caller may see it.
pub(super) fn look(call: &Call) -> Result<Arc<Row>> {
    foreign(&call.cx, &call.reader(), "image/images", call.param("id"))?.ok_or_else(missing)
}

pub(super) fn missing() -> Error {
    Error::not_found("Image not found.")
}

/// `DELETE /images/`: the id is missing.
async fn lost(_: Call) -> Result<Reply> {
    Err(missing())
}

async fn show(call: Call) -> Result<Reply> {
    let row = look(&call)?;
    Ok(Reply::ok(json!({ "image": view(&call, object(&row)) })))
}

async fn delete(call: Call) -> Result<Reply> {
    let row = look(&call)?;
    // The image service's own rule: readers and members of a shared image may not.
    if !call.cx.may("delete_image", Some(object(&row))) || flag(object(&row), "protected") {
        return Err(Error::forbidden("You are not allowed to delete the image."));
    }
    let id = row.id().to_owned();
    call.transact(move |cx, tx| engine::delete(tx, cx.registry.get("image/images")?, cx, &id)).await?;
    Ok(Reply::empty(204))
}

pub(super) fn routes() -> Vec<Route> {
    // The image service's own rules; it decides by the row when rows are looked up.
    let (any, reads) = (Access::Authenticated, Access::Rule("get_images", "reader"));
    vec![
        Route::new("GET", "/v2.1/images", reads, |c| list(c, false)).until("2.35"),
        Route::new("DELETE", "/v2.1/images", any, lost),
        Route::new("GET", "/v2.1/images/detail", reads, |c| list(c, true)).until("2.35"),
        Route::new("GET", "/v2.1/images/{id}", reads, show).until("2.35"),
        Route::new("DELETE", "/v2.1/images/{id}", any, delete).until("2.35"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_know_novas_words() {
        let image = map(json!({
            "name": "a", "status": "active", "min_ram": 64, "created_at": 5_000_000, "updated_at": null,
            "properties": {"instance_uuid": "s", "image_type": "snapshot", "os": "linux"},
        }));
        let is = |key: &str, value: &str| passes(&image, key, value).expect("a filter");
        assert!(
            is("status", "ACTIVE") && !is("status", "SAVING") && is("server", "http://h/v2.1/servers/s") && is("server", "s")
        );
        assert!(is("type", "snapshot") && is("property-os", "linux") && !is("property-os", "other") && is("anything", "else"));
        assert!(is("changes-since", "1970-01-01T00:00:05Z") && !is("changes-since", "1970-01-01T00:00:06Z"));
        assert!(passes(&image, "changes-since", "yesterday").is_err());
    }
}
