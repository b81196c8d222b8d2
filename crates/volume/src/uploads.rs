//! Images that are made of volumes: the image service's rows, filled when the node has stored the bytes.
use crate::common::{UPLOADS, elevated, map, object, text, touch};
use api::{Cx, Result};
use assign::BlobInfo;
use resource::{Map, Tx, engine};
use serde_json::json;

/// Makes the image's row, waiting for its data.
pub(crate) fn begin(tx: &mut Tx<'_>, cx: &Cx, input: &Map, properties: Map) -> Result<Map> {
    let images = cx.registry.get("image/images")?;
    let mut row = engine::create(tx, images, &elevated(cx), input)?;
    row.insert("properties".into(), properties.into());
    row.insert("status".into(), "saving".into());
    tx.put(&images.table, text(&row, "id"), row.clone().into());
    Ok(row)
}

/// Fills the image's row with what the node stored. An image that was deleted meanwhile stays deleted.
pub(crate) fn fill(tx: &mut Tx<'_>, cx: &Cx, id: &str, blob: &BlobInfo) -> Result<()> {
    let images = cx.registry.get("image/images")?;
    let Some(row) = tx.get(&images.table, id) else { return Ok(()) };
    let mut row = object(&row).clone();
    row.extend(map(json!({
        "status": "active", "size": blob.size, "virtual_size": blob.virtual_size, "checksum": blob.checksum, "os_hash_algo": "sha512",
        "os_hash_value": blob.blob, "disk_format": blob.format,
    })));
    touch(&mut row, tx.now, &cx.request_id);
    tx.put(&images.table, id, row.into());
    Ok(())
}

/// The image will not come: its row says so.
pub(crate) fn abandon(tx: &mut Tx<'_>, cx: &Cx, id: &str) -> Result<()> {
    let images = cx.registry.get("image/images")?;
    let Some(row) = tx.get(&images.table, id) else { return Ok(()) };
    let mut row = object(&row).clone();
    row.insert("status".into(), "killed".into());
    touch(&mut row, tx.now, &cx.request_id);
    tx.put(&images.table, id, row.into());
    Ok(())
}

/// Nothing waits for images of the volume any more.
pub(crate) fn give_up(tx: &mut Tx<'_>, cx: &Cx, volume: &str) -> Result<()> {
    for row in tx.find(&UPLOADS, "volume_id", volume) {
        tx.delete(&UPLOADS, row.id());
        abandon(tx, cx, row.id())?;
    }
    Ok(())
}
