//! Images as servers use them: found through the image service's rows, with its own rules of who may see them.
use crate::{
    common::{foreign, int, object, text},
    resources::server::{FlavorCopy, ImageCopy},
};
use api::{Cx, Error, Map, Result};
use resource::Reader;
use serde_json::Value;
use std::collections::BTreeMap;

/// The image, if the caller may use it; `missing` is what to say otherwise.
pub(crate) fn find(cx: &Cx, reader: &Reader<'_>, id: &str, missing: &str) -> Result<Map> {
    match foreign(cx, reader, "image/images", id)? {
        Some(row) => Ok(object(&row).clone()),
        None => Err(Error::bad_request(missing)),
    }
}

fn properties(image: &Map) -> BTreeMap<String, String> {
    let all = image.get("properties").and_then(Value::as_object);
    all.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}

/// Checks that a server can boot from it, and copies what it needs.
pub(crate) fn usable(image: &Map, flavor: &FlavorCopy) -> Result<ImageCopy> {
    let id = text(image, "id");
    let status = text(image, "status");
    if status != "active" {
        return Err(Error::bad_request(format!("Image {id} is not active.")));
    }
    let blob = text(image, "os_hash_value");
    if blob.is_empty() {
        return Err(Error::bad_request(format!("Image {id} has no data; upload it first.")));
    }
    let (min_ram, min_disk) = (int(image, "min_ram"), int(image, "min_disk"));
    if min_ram > flavor.ram {
        return Err(Error::bad_request("Flavor's memory is too small for requested image."));
    }
    let size = int(image, "virtual_size").max(if text(image, "disk_format") == "raw" { int(image, "size") } else { 0 });
    if flavor.disk > 0 {
        let room = flavor.disk << 30;
        if size > room {
            return Err(Error::bad_request(format!(
                "Flavor's disk is too small for requested image. Flavor disk is {room} bytes, image is {size} bytes."
            )));
        }
        if min_disk > flavor.disk {
            return Err(Error::bad_request(format!(
                "Flavor's disk is smaller than the minimum size specified in image metadata. Flavor disk is {room} bytes, minimum size is {} bytes.",
                min_disk << 30
            )));
        }
    }
    Ok(ImageCopy {
        id: id.to_owned(),
        blob: blob.to_owned(),
        format: text(image, "disk_format").to_owned(),
        container_format: text(image, "container_format").to_owned(),
        min_disk,
        min_ram,
        properties: properties(image),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn images_must_be_active_and_fit() {
        let flavor = FlavorCopy { ram: 256, disk: 1, ..FlavorCopy::default() };
        let image = |status: &str, virtual_size: i64, min_ram: i64, min_disk: i64| {
            crate::common::map(
                json!({"id": "i", "status": status, "os_hash_value": "b", "disk_format": "qcow2", "virtual_size": virtual_size,
                "min_ram": min_ram, "min_disk": min_disk, "properties": {"hw_rng_model": "virtio"}}),
            )
        };
        let ok = usable(&image("active", 1 << 30, 256, 1), &flavor).expect("it fits");
        assert_eq!((ok.blob.as_str(), ok.properties["hw_rng_model"].as_str()), ("b", "virtio"));
        for (bad, why) in [
            (image("queued", 0, 0, 0), "not active"),
            (image("active", (1 << 30) + 1, 0, 0), "disk is too small"),
            (image("active", 0, 257, 0), "memory is too small"),
            (image("active", 0, 0, 2), "smaller than the minimum"),
        ] {
            let e = usable(&bad, &flavor).expect_err(why);
            assert!(e.message.contains(why), "{e}");
        }
        let unlimited = FlavorCopy { ram: 256, ..FlavorCopy::default() };
        assert!(usable(&image("active", 5 << 30, 0, 9), &unlimited).is_ok(), "a root disk of 0 takes the image's size");
    }
}
