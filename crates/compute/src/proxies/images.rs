//! `images`: until 2.35, their metadata until 2.38.
use crate::{
    common::{elevated, flag, foreign, foreign_all, id_of, int, map, object, seconds, text, touch},
    quota,
    server::view::link_pair,
    shape::{self, Shape, req},
};
use api::{Access, Call, Error, Map, Reply, Result, Route};
use resource::engine;
use serde_json::{Value, json};

fn status(row: &Map) -> &'static str {
    match text(row, "status") {
        "active" => "ACTIVE",
        "queued" | "saving" | "importing" | "uploading" => "SAVING",
        "deleted" | "pending_delete" => "DELETED",
        "killed" => "ERROR",
        _ => "UNKNOWN",
    }
}

fn properties(row: &Map) -> Map {
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
    let properties = properties(row);
    out.extend(map(json!({
        "status": status, "created": seconds(row, "created_at"), "updated": seconds(row, updated), "minDisk": int(row, "min_disk"),
        "minRam": int(row, "min_ram"), "progress": match status { "ACTIVE" => 100, "SAVING" => 50, _ => 0 },
        "OS-EXT-IMG-SIZE:size": int(row, "size"),
    })));
    if let Some(server) = properties.get("instance_uuid").and_then(Value::as_str) {
        out.insert("server".into(), json!({ "id": server, "links": link_pair(&call.cx, "servers", server) }));
    }
    out.insert("metadata".into(), properties.into());
    out
}

fn passes(row: &Map, key: &str, value: &str) -> Result<bool> {
    let property = |name: &str| properties(row).get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(match key {
        "name" => text(row, "name") == value,
        "status" => status(row).eq_ignore_ascii_case(value),
        "server" => property("instance_uuid") == id_of(value),
        "type" => property("image_type") == value,
        "minRam" => int(row, "min_ram") >= value.parse().unwrap_or(0),
        "minDisk" => int(row, "min_disk") >= value.parse().unwrap_or(0),
        "changes-since" => {
            let since = base::Timestamp::parse(value).ok_or_else(|| Error::bad_request(format!("Invalid changes-since value: {value}")))?;
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
    let mut rows = Vec::new();
    for row in foreign_all(cx, &reader, "image/images")? {
        let mut fits = true;
        for (key, value) in &cx.query.0 {
            fits = fits && passes(object(&row), key, value)?;
        }
        if fits {
            rows.push(row);
        }
    }
    rows.sort_by_key(|r| std::cmp::Reverse(int(object(r), "created_at")));
    let (rows, more) = crate::common::paged(cx, rows, 1000, |r| r.id())?;
    let list: Vec<Map> = rows.iter().map(|r| if detail { view(&call, object(r)) } else { brief(&call, object(r)) }).collect();
    let mut body = map(json!({ "images": list }));
    if let (true, Some(last)) = (more, rows.last()) {
        let path = if detail { "/v2.1/images/detail" } else { "/v2.1/images" };
        body.insert("images_links".into(), json!([{ "rel": "next", "href": crate::server::list::next_link(cx, path, last.id()) }]));
    }
    Ok(Reply::ok(body.into()))
}

fn find(call: &Call) -> Result<Map> {
    let row = foreign(&call.cx, &call.reader(), "image/images", call.param("id"))?;
    row.map(|r| object(&r).clone()).ok_or_else(|| Error::not_found("Image not found."))
}

async fn show(call: Call) -> Result<Reply> {
    let row = find(&call)?;
    Ok(Reply::ok(json!({ "image": view(&call, &row) })))
}

async fn delete(call: Call) -> Result<Reply> {
    let row = find(&call)?;
    check_mine(&call, &row)?;
    let id = text(&row, "id").to_owned();
    call.transact(move |cx, tx| engine::delete(tx, cx.registry.get("image/images")?, cx, &id)).await?;
    Ok(Reply::empty(204))
}

fn check_mine(call: &Call, row: &Map) -> Result<()> {
    if Some(text(row, "project_id")) == call.cx.caller.project_id() || call.cx.is_admin() {
        return Ok(());
    }
    Err(Error::forbidden("You are not allowed to change this image."))
}

// --- metadata ---

const METADATA: Shape = Shape::Object(&[req("metadata", &shape::METADATA)]);
const META: Shape = Shape::Object(&[req("meta", &shape::METADATA)]);

async fn metadata(call: Call) -> Result<Reply> {
    Ok(Reply::ok(json!({ "metadata": properties(&find(&call)?) })))
}

async fn metadata_item(call: Call) -> Result<Reply> {
    let all = properties(&find(&call)?);
    let key = call.param("key");
    match all.get(key) {
        Some(value) => Ok(Reply::ok(json!({ "meta": { key: value } }))),
        None => Err(Error::not_found("Metadata item was not found")),
    }
}

async fn change<F>(call: &Call, mut how: F) -> Result<Map>
where
    F: FnMut(&mut Map) -> Result<()> + Send + 'static,
{
    let row = find(call)?;
    check_mine(call, &row)?;
    if flag(&row, "protected") {
        return Err(Error::forbidden("The image is protected."));
    }
    let id = text(&row, "id").to_owned();
    call.transact(move |cx, tx| {
        let def = cx.registry.get("image/images")?;
        let old = engine::existing(tx, def, &id)?;
        let mut properties = properties(&old);
        how(&mut properties)?;
        let most = quota::limit(tx, cx, text(&old, "project_id"), "metadata_items");
        quota::check_metadata(most, properties.len())?;
        let mut row = old.clone();
        row.insert("properties".into(), properties.clone().into());
        touch(&mut row, tx.now, &cx.request_id);
        engine::replace(tx, def, &elevated(cx), &old, row)?;
        Ok(properties)
    })
    .await
}

async fn add_metadata(call: Call) -> Result<Reply> {
    find(&call)?;
    METADATA.check(call.json(), &call.cx)?;
    let new = call.inner("metadata")?.clone();
    let all = change(&call, move |m| {
        m.extend(new.clone());
        Ok(())
    })
    .await?;
    Ok(Reply::ok(json!({ "metadata": all })))
}

async fn replace_metadata(call: Call) -> Result<Reply> {
    find(&call)?;
    METADATA.check(call.json(), &call.cx)?;
    let new = call.inner("metadata")?.clone();
    let all = change(&call, move |m| {
        m.clone_from(&new);
        Ok(())
    })
    .await?;
    Ok(Reply::ok(json!({ "metadata": all })))
}

async fn set_metadata_item(call: Call) -> Result<Reply> {
    find(&call)?;
    META.check(call.json(), &call.cx)?;
    let new = call.inner("meta")?.clone();
    if new.len() != 1 || !new.contains_key(call.param("key")) {
        return Err(Error::bad_request("Request body and URI mismatch"));
    }
    let shown = new.clone();
    change(&call, move |m| {
        m.extend(new.clone());
        Ok(())
    })
    .await?;
    Ok(Reply::ok(json!({ "meta": shown })))
}

async fn delete_metadata_item(call: Call) -> Result<Reply> {
    let key = call.param("key").to_owned();
    change(&call, move |m| m.remove(&key).map(drop).ok_or_else(|| Error::not_found("Invalid metadata key: it is not there"))).await?;
    Ok(Reply::empty(204))
}

pub(crate) fn routes() -> Vec<Route> {
    // The image service decides by the row; its policy is asked when rows are looked up.
    let any = Access::Authenticated;
    vec![
        Route::new("GET", "/v2.1/images", any, |c| list(c, false)).until("2.35"),
        Route::new("DELETE", "/v2.1/images", any, crate::misc::missing),
        Route::new("GET", "/v2.1/images/detail", any, |c| list(c, true)).until("2.35"),
        Route::new("GET", "/v2.1/images/{id}", any, show).until("2.35"),
        Route::new("DELETE", "/v2.1/images/{id}", any, delete).until("2.35"),
        Route::new("GET", "/v2.1/images/{id}/metadata", any, metadata).until("2.38"),
        Route::new("POST", "/v2.1/images/{id}/metadata", any, add_metadata).until("2.38"),
        Route::new("PUT", "/v2.1/images/{id}/metadata", any, replace_metadata).until("2.38"),
        Route::new("GET", "/v2.1/images/{id}/metadata/{key}", any, metadata_item).until("2.38"),
        Route::new("PUT", "/v2.1/images/{id}/metadata/{key}", any, set_metadata_item).until("2.38"),
        Route::new("DELETE", "/v2.1/images/{id}/metadata/{key}", any, delete_metadata_item).until("2.38"),
    ]
}
