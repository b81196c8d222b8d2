//! Volumes and images: an image made of a volume, and what a volume remembers of the image that it was made of.
use super::{change, needs};
use crate::{
    common::{UPLOADS, at, map, micros, text},
    input::{Input, specs},
    resources::{Volume, VolumeType, volume::Task},
    timing, uploads,
};
use api::{Call, Error, Map, Reply, Result};
use resource::{Object, Resource as _, engine};
use serde_json::{Value, json};

/// Formats that a node makes.
const FORMATS: [&str; 2] = ["raw", "qcow2"];

pub(super) async fn upload(call: Call, id: String, body: Value) -> Result<Reply> {
    let known: &[&str] = if at(&call.cx, 1) {
        &["image_name", "disk_format", "container_format", "force", "visibility", "protected"]
    } else {
        &["image_name", "disk_format", "container_format", "force"]
    };
    let input = Input::of(&body, "os-volume_upload_image", known)?;
    let name = input.required("image_name")?.to_owned();
    let format = input.text("disk_format")?.unwrap_or("raw").to_owned();
    if !FORMATS.contains(&format.as_str()) {
        return Err(Error::bad_request(format!(
            "Invalid disk_format '{format}': images of volumes are made as {} here.",
            FORMATS.join(" or ")
        )));
    }
    if let Some(container) = input.text("container_format")?.filter(|c| *c != "bare") {
        return Err(Error::bad_request(format!("Invalid container_format '{container}': images of volumes are bare here.")));
    }
    let force = input.flag("force")?.unwrap_or(false);
    let visibility = input.choice("visibility", &["public", "private", "shared", "community"])?.unwrap_or("private").to_owned();
    let protected = input.flag("protected")?.unwrap_or(false);
    if visibility == "public" && !call.cx.may("publicize_image", None) && !call.cx.is_admin() {
        return Err(Error::forbidden("Only an administrator may make a public image."));
    }
    let shown = visibility.clone();
    let (image, volume) = change(&call, id, move |cx, tx, volume| {
        let ok: &[&str] = if force { &["available", "in-use"] } else { &["available"] };
        needs(volume, ok, "upload")?;
        let row = map(json!({
            "name": name, "visibility": visibility, "container_format": "bare", "disk_format": format, "min_disk": volume.size,
            "protected": protected,
        }));
        let mut properties = Map::new();
        for (key, value) in &volume.volume_image_metadata {
            // What describes the other image's bytes does not describe these.
            if !OWN.contains(&key.as_str()) {
                properties.insert(key.clone(), value.as_str().into());
            }
        }
        let image = uploads::begin(tx, cx, &row, properties)?;
        let image_id = text(&image, "id").to_owned();
        volume.previous_status = Some(volume.status.clone());
        volume.status = "uploading".to_owned();
        volume.wish(Some(Task::Upload), tx.now, timing::UPLOAD);
        tx.put(&UPLOADS, &image_id, json!({ "volume_id": volume.id, "format": format, "request_id": &*cx.request_id }));
        engine::tell(tx, &volume.id, &cx.request_id, &format!("Image {image_id} shall be made of it"));
        Ok((image, volume.clone()))
    })
    .await?;
    Ok(Reply::json(202, json!({ "os-volume_upload_image": view(&call, &image, &volume, &shown, protected) })))
}

const OWN: [&str; 8] = ["image_id", "image_name", "checksum", "container_format", "disk_format", "min_disk", "min_ram", "size"];

fn view(call: &Call, image: &Map, volume: &Object<Volume>, visibility: &str, protected: bool) -> Map {
    let reader = call.reader();
    let kind = volume.volume_type_id.as_deref().and_then(|id| reader.get(&VolumeType::DEF.table, id));
    let kind = kind.as_ref().map(|k| {
        let row = crate::common::object(k);
        json!({
            "id": text(row, "id"), "name": text(row, "name"), "description": row.get("description"), "is_public": row.get("is_public"),
            "qos_specs_id": row.get("qos_specs_id"), "extra_specs": row.get("extra_specs"), "deleted": false, "deleted_at": null,
            "created_at": micros(row, "created_at"), "updated_at": micros(row, "updated_at"),
        })
    });
    let mut out = map(json!({
        "id": volume.id, "image_id": text(image, "id"), "image_name": text(image, "name"), "status": volume.status,
        "size": volume.size, "display_description": volume.description, "updated_at": micros(&volume.map, "updated_at"),
        "volume_type": kind, "disk_format": text(image, "disk_format"), "container_format": text(image, "container_format"),
    }));
    if at(&call.cx, 1) {
        out.insert("visibility".into(), visibility.into());
        out.insert("protected".into(), protected.into());
    }
    out
}

pub(super) async fn set_metadata(call: Call, id: String, body: Value) -> Result<Reply> {
    let input = Input::of(&body, "os-set_image_metadata", &["metadata"])?;
    let given = input.object("metadata")?.ok_or_else(|| Error::bad_request("The request body must hold metadata."))?;
    let more = specs(given)?;
    let all = change(&call, id, move |_, _, volume| {
        volume.volume_image_metadata.extend(more.clone());
        Ok(volume.volume_image_metadata.clone())
    })
    .await?;
    Ok(Reply::ok(json!({ "metadata": all })))
}

pub(super) async fn unset_metadata(call: Call, id: String, body: Value) -> Result<Reply> {
    let key = Input::of(&body, "os-unset_image_metadata", &["key"])?.required("key")?.to_owned();
    change(&call, id, move |_, _, volume| match volume.volume_image_metadata.remove(&key) {
        Some(_) => Ok(()),
        None => Err(Error::not_found(format!("Metadata {key} not found."))),
    })
    .await?;
    Ok(Reply::empty(200))
}

pub(super) fn show_metadata(volume: &Object<Volume>) -> Result<Reply> {
    Ok(Reply::ok(json!({ "metadata": volume.volume_image_metadata })))
}
