//! Block devices of a new server: what `block_device_mapping` and its second form ask for, checked in Nova's order and words.
//!
//! The root disk is a local copy of an image, or a volume: one that exists, or one that is made with the server. Further devices are
//! volumes. Local disks besides the root disk are not made here, and refused.
use crate::{
    common::{id_of, object, text},
    nodes::volumes::{ATTACHMENTS, VOLUMES},
    resources::{Server, server::ImageCopy},
    shape,
};
use api::{Cx, Error, Map, Result};
use resource::{Object, engine};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use store::Tx;

/// Where a volume comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Blank,
    Image(String),
    Snapshot(String),
    Volume(String),
}

/// A volume that a new server gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) source: Source,
    pub(crate) boot: bool,
    /// GiB; 0 where the source decides.
    pub(crate) size: i64,
    pub(crate) delete_on_termination: bool,
    pub(crate) tag: Option<String>,
    pub(crate) volume_type: Option<String>,
}

impl Device {
    pub(crate) fn is_existing_volume(&self) -> bool {
        matches!(self.source, Source::Volume(_))
    }
}

fn invalid(why: &str) -> Error {
    Error::bad_request(format!("Block Device Mapping is Invalid: {why}"))
}
fn sequence() -> Error {
    invalid("Boot sequence for the instance and image/block device mapping combination is not valid.")
}

/// A mapping as it was asked for, in either form.
#[derive(Default)]
struct Asked {
    source: String,
    local: bool,
    id: Option<String>,
    boot_index: Option<i64>,
    size: i64,
    delete_on_termination: bool,
    tag: Option<String>,
    volume_type: Option<String>,
}

/// The image, empty without one, and the volumes.
pub(super) fn read(server: &Map) -> Result<(String, Vec<Device>)> {
    let list = |key: &str| server.get(key).and_then(Value::as_array).filter(|l| !l.is_empty());
    let named = server.get("imageRef").and_then(Value::as_str).filter(|i| !i.is_empty()).map(|i| id_of(i).to_owned());
    let asked: Vec<Asked> = match (list("block_device_mapping"), list("block_device_mapping_v2")) {
        (Some(_), Some(_)) => {
            return Err(Error::bad_request("Using different block_device_mapping syntaxes is not allowed in the same request."));
        }
        (Some(old), None) => legacy(old, named.is_some())?,
        (None, Some(new)) => {
            new.iter().filter_map(Value::as_object).filter(|d| !removed(d)).map(modern).collect::<Result<_>>()?
        }
        (None, None) => Vec::new(),
    };
    if asked.is_empty() {
        return Ok((named.ok_or_else(|| Error::bad_request("Missing imageRef attribute"))?, Vec::new()));
    }
    resolve(named, asked)
}

fn removed(device: &Map) -> bool {
    device.get("no_device").is_some_and(|n| shape::as_bool(n).unwrap_or(!n.is_null()))
}

fn string(device: &Map, key: &str) -> Option<String> {
    device.get(key).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned)
}

fn modern(device: &Map) -> Result<Asked> {
    let source = match string(device, "source_type") {
        Some(source) => source,
        None if device.contains_key("volume_id") => "volume".to_owned(),
        None if device.contains_key("snapshot_id") => "snapshot".to_owned(),
        None if device.contains_key("image_id") => "image".to_owned(),
        None => return Err(invalid("Unrecognized legacy format.")),
    };
    let id = string(device, "uuid").or_else(|| string(device, &format!("{source}_id")));
    if id.is_none() && source != "blank" {
        return Err(invalid("Missing device UUID."));
    }
    let local = match string(device, "destination_type").as_deref() {
        Some(destination) => destination == "local",
        None => matches!(source.as_str(), "image" | "blank"),
    };
    if local && matches!(source.as_str(), "volume" | "snapshot") {
        return Err(invalid(&format!("Mapping {source} to local is not supported.")));
    }
    Ok(Asked {
        local,
        id,
        // A negative index, and none, means: never boot from it.
        boot_index: device.get("boot_index").and_then(shape::as_int).filter(|i| *i >= 0),
        size: device.get("volume_size").and_then(shape::as_int).unwrap_or(0),
        delete_on_termination: device.get("delete_on_termination").and_then(shape::as_bool).unwrap_or(false),
        tag: string(device, "tag"),
        volume_type: string(device, "volume_type"),
        source,
    })
}

/// The first form knows volumes only; without an image the device named as the first disk is booted from.
fn legacy(devices: &[Value], has_image: bool) -> Result<Vec<Asked>> {
    let mut out = Vec::new();
    for device in devices.iter().filter_map(Value::as_object).filter(|d| !removed(d)) {
        let (source, id) = match (string(device, "volume_id"), string(device, "snapshot_id")) {
            (Some(id), _) => ("volume", id),
            (None, Some(id)) => ("snapshot", id),
            (None, None) => return Err(invalid("Unrecognized legacy format.")),
        };
        let name = string(device, "device_name").unwrap_or_default();
        let is_first = matches!(name.trim_start_matches("/dev/"), "vda" | "sda" | "xvda");
        out.push(Asked {
            source: source.to_owned(),
            id: Some(id),
            boot_index: (!has_image && is_first).then_some(0),
            size: device.get("volume_size").and_then(shape::as_int).unwrap_or(0),
            delete_on_termination: device.get("delete_on_termination").and_then(shape::as_bool).unwrap_or(false),
            ..Asked::default()
        });
    }
    if !has_image
        && out.iter().all(|d| d.boot_index.is_none())
        && let Some(first) = out.first_mut()
    {
        first.boot_index = Some(0);
    }
    Ok(out)
}

fn resolve(named: Option<String>, asked: Vec<Asked>) -> Result<(String, Vec<Device>)> {
    let mut image = named.clone();
    let mut indexes: Vec<i64> = asked.iter().filter_map(|d| d.boot_index).collect();
    let local_root = asked.iter().find(|d| d.local && d.boot_index == Some(0));
    match (&named, local_root) {
        (Some(named), Some(root)) if root.id.as_ref() != Some(named) => return Err(sequence()),
        // The image is the root disk, unless a mapping says so itself.
        (Some(_), None) => indexes.push(0),
        (None, Some(root)) => image.clone_from(&root.id),
        _ => {}
    }
    indexes.sort_unstable();
    if indexes.is_empty() || indexes.iter().enumerate().any(|(i, index)| i64::try_from(i) != Ok(*index)) {
        return Err(sequence());
    }
    let mut devices = Vec::new();
    for device in asked {
        if device.local {
            if device.boot_index == Some(0) && device.source == "image" {
                continue;
            }
            return Err(invalid("You specified more local devices than the limit allows"));
        }
        let id = device.id.unwrap_or_default();
        let source = match device.source.as_str() {
            "image" if device.size == 0 => {
                return Err(invalid("Images with destination_type 'volume' need to have a non-zero size specified"));
            }
            "blank" if device.size == 0 => {
                return Err(invalid("Blank volumes (source: 'blank', dest: 'volume') need to have non-zero size"));
            }
            "image" => Source::Image(id),
            "blank" => Source::Blank,
            "snapshot" => Source::Snapshot(id),
            _ => Source::Volume(id),
        };
        devices.push(Device {
            boot: device.boot_index == Some(0),
            size: device.size,
            delete_on_termination: device.delete_on_termination,
            tag: device.tag,
            volume_type: device.volume_type,
            source,
        });
    }
    Ok((image.unwrap_or_default(), devices))
}

/// Does the device's source exist for the caller, and can a root disk be booted?
pub(super) fn check(cx: &Cx, reader: &resource::Reader<'_>, device: &Device) -> Result<()> {
    let (table, id, kind) = match &device.source {
        Source::Volume(id) => (VOLUMES.name, id, "volume"),
        Source::Snapshot(id) => ("volume/snapshots", id, "snapshot"),
        Source::Image(id) => ("image/images", id, "image"),
        Source::Blank => return Ok(()),
    };
    let row = crate::common::foreign(cx, reader, table, id)?;
    let row = row.ok_or_else(|| invalid(&format!("failed to get {kind} {id}.")))?;
    if device.boot && kind == "volume" && row.field("bootable") != true {
        return Err(Error::bad_request(format!("Block Device {id} is not bootable.")));
    }
    Ok(())
}

/// What the root disk's source says of itself: `hw_*` properties and least sizes.
pub(super) fn image_of(cx: &Cx, reader: &resource::Reader<'_>, device: &Device) -> Result<ImageCopy> {
    let volume = match &device.source {
        Source::Volume(id) => reader.get(&VOLUMES, id),
        Source::Snapshot(id) => {
            let snapshot = crate::common::foreign(cx, reader, "volume/snapshots", id)?;
            snapshot.and_then(|s| reader.get(&VOLUMES, s.text("volume_id")))
        }
        Source::Image(_) | Source::Blank => None,
    };
    let metadata = volume.as_ref().and_then(|v| object(v).get("volume_image_metadata")).and_then(Value::as_object);
    let properties: BTreeMap<String, String> =
        metadata.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect();
    Ok(ImageCopy { properties, ..ImageCopy::default() })
}

/// Makes what has to be made and attaches all of it, in the transaction that makes the server.
pub(super) fn plug(tx: &mut Tx<'_>, cx: &Cx, server: &Object<Server>, devices: &[Device]) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    let (volumes, attachments) = (cx.registry.get(VOLUMES.name)?, cx.registry.get(ATTACHMENTS.name)?);
    let mut letters = 'b'..='z';
    for device in devices {
        let mut wanted = Map::new();
        let mut put = |key: &str, value: Value| drop(wanted.insert(key.to_owned(), value));
        let volume = match &device.source {
            Source::Volume(id) => id.clone(),
            new => {
                put("name", "".into());
                put("description", "".into());
                match new {
                    Source::Image(id) => put("imageRef", id.as_str().into()),
                    Source::Snapshot(id) => put("snapshot_id", id.as_str().into()),
                    Source::Volume(_) | Source::Blank => {}
                }
                if device.size > 0 {
                    put("size", device.size.into());
                }
                if let Some(kind) = &device.volume_type {
                    put("volume_type", kind.as_str().into());
                }
                let made = engine::create(tx, volumes, cx, &wanted).map_err(refused)?;
                if text(&made, "status") == "error" {
                    return Err(invalid("No storage host has room for a volume of it; ask for a smaller one."));
                }
                text(&made, "id").to_owned()
            }
        };
        let letter = if device.boot { 'a' } else { letters.next().ok_or_else(|| invalid("too many devices"))? };
        let attachment = crate::common::map(json!({
            "volume_id": volume, "instance": server.id, "attach_mode": "rw", "mountpoint": format!("/dev/vd{letter}"), "wanted": true,
            "boot": device.boot, "delete_on_termination": device.delete_on_termination, "tag": device.tag,
        }));
        engine::create(tx, attachments, cx, &attachment).map_err(refused)?;
    }
    Ok(())
}

/// What the block storage service refuses makes the whole request a bad one.
fn refused(e: Error) -> Error {
    match e.kind {
        api::ErrorKind::NotFound => invalid(&e.message),
        api::ErrorKind::OverQuota => Error::forbidden(e.message),
        _ => e,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(server: Value) -> Result<(String, Vec<Device>)> {
        read(&crate::common::map(server))
    }
    const ID: &str = "0a1b2c3d-0000-4000-8000-00000000000f";

    #[test]
    fn an_image_alone_and_beside_volumes() {
        assert_eq!(of(json!({ "imageRef": "i" })).unwrap(), ("i".into(), vec![]));
        let data = json!({ "source_type": "blank", "destination_type": "volume", "volume_size": 2 });
        let (image, devices) = of(json!({ "imageRef": "i", "block_device_mapping_v2": [data] })).unwrap();
        assert_eq!((image.as_str(), devices.len(), devices[0].boot, devices[0].size), ("i", 1, false, 2));
        let root = json!({ "source_type": "image", "destination_type": "local", "uuid": "i", "boot_index": 0 });
        assert_eq!(of(json!({ "block_device_mapping_v2": [root] })).unwrap(), ("i".into(), vec![]));
        assert!(of(json!({ "imageRef": "j", "block_device_mapping_v2": [root] })).is_err());
    }

    #[test]
    fn volumes_are_booted_from() {
        let volume = json!({ "source_type": "volume", "destination_type": "volume", "uuid": ID, "boot_index": "0" });
        let (image, devices) = of(json!({ "imageRef": "", "block_device_mapping_v2": [volume] })).unwrap();
        assert_eq!((image.as_str(), &devices[0].source, devices[0].boot), ("", &Source::Volume(ID.into()), true));
        let of_image =
            json!({ "source_type": "image", "destination_type": "volume", "uuid": ID, "boot_index": 0, "volume_size": 1 });
        let (image, devices) = of(json!({ "block_device_mapping_v2": [of_image] })).unwrap();
        assert_eq!((image.as_str(), &devices[0].source), ("", &Source::Image(ID.into())));
        let old = json!({ "device_name": "vda", "volume_id": ID, "delete_on_termination": "1" });
        let (_, devices) = of(json!({ "block_device_mapping": [old] })).unwrap();
        assert!(devices[0].boot && devices[0].delete_on_termination);
        let (_, devices) = of(json!({ "imageRef": "i", "block_device_mapping": [old] })).unwrap();
        assert!(!devices[0].boot);
    }

    #[test]
    fn what_nova_refuses() {
        let no = |server: Value, why: &str| {
            let e = of(server).expect_err(why);
            assert!(e.message.contains(why), "{}", e.message);
        };
        let v2 = |d: Value| json!({ "block_device_mapping_v2": [d] });
        no(json!({}), "Missing imageRef");
        no(v2(json!({ "source_type": "volume", "destination_type": "volume", "uuid": ID })), "Boot sequence");
        no(v2(json!({ "source_type": "volume", "destination_type": "volume", "uuid": ID, "boot_index": 1 })), "Boot sequence");
        no(v2(json!({ "source_type": "volume", "destination_type": "volume", "boot_index": 0 })), "Missing device UUID");
        no(v2(json!({ "source_type": "volume", "destination_type": "local", "uuid": ID, "boot_index": 0 })), "is not supported");
        no(v2(json!({ "source_type": "image", "destination_type": "volume", "uuid": ID, "boot_index": 0 })), "non-zero size");
        no(
            json!({ "imageRef": "i", "block_device_mapping_v2": [{ "source_type": "blank", "destination_type": "volume" }] }),
            "non-zero size",
        );
        no(
            json!({ "imageRef": "i", "block_device_mapping_v2": [{ "source_type": "blank", "destination_type": "local", "volume_size": 1 }] }),
            "more local devices",
        );
        let volume = json!({ "source_type": "volume", "destination_type": "volume", "uuid": ID, "boot_index": 0 });
        no(json!({ "imageRef": "i", "block_device_mapping_v2": [volume] }), "Boot sequence");
        no(
            json!({ "block_device_mapping": [{ "volume_id": ID }], "block_device_mapping_v2": [{}] }),
            "different block_device_mapping",
        );
    }
}
