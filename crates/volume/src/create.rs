//! What a new volume must be: one source, a size that holds it, a type that its project may use, quota, and a host with room.
//!
//! All of it is decided in the one transaction of the request. Without a host the volume is accepted and in error at once, as Cinder
//! does it: a user message says why.
use crate::{
    common::{self, foreign_in, int, object, own, text},
    groups, hosts, quota,
    resources::{Snapshot, Volume, VolumeType, message, volume::Task},
    timing, types,
};
use api::{Cx, Error, Map, Result};
use assign::{ImageRef, VolumeSource};
use resource::{Object, Resource as _, Tx, engine};
use std::collections::BTreeMap;

/// What the source gives the volume, beside its content.
#[derive(Default)]
struct Origin {
    /// GiB that it needs at least.
    size: u64,
    /// A source that lies on a host keeps its copies there.
    host: Option<String>,
    volume_type_id: Option<String>,
    bootable: bool,
    image_metadata: BTreeMap<String, String>,
    /// Sizes below are refused with these words.
    too_small: String,
}

/// Completes and admits a new volume.
pub(crate) fn admit(row: &mut Object<Volume>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
    check_metadata(&row.metadata)?;
    if row.user_id.is_empty() {
        row.user_id = cx.caller.user_id().to_owned();
    }
    let origin = origin(row, cx, tx)?;
    // An image has a least size, but it does not say how large a volume shall be.
    if row.size == 0 && row.image_ref.is_none() {
        row.size = origin.size;
    }
    if row.size == 0 {
        return Err(Error::bad_request("Invalid input received: the size of a volume that has no source must be given, in GiB."));
    }
    if row.size < origin.size {
        return Err(Error::bad_request(origin.too_small));
    }
    let kind = chosen_type(row, cx, tx, origin.volume_type_id.as_deref())?;
    if kind.encryption.is_some() {
        return Err(Error::bad_request(format!(
            "Volume type {} asks for encryption, which this cloud does not do yet; choose a type without encryption.",
            kind.name
        )));
    }
    row.volume_type = None;
    row.volume_type_id = Some(kind.id.clone());
    row.multiattach |= kind.allows_multiattach();
    row.bootable = origin.bootable;
    row.volume_image_metadata = origin.image_metadata;
    let zone = row.availability_zone.get_or_insert_with(|| hosts::ZONE.to_owned());
    if zone != hosts::ZONE {
        return Err(Error::bad_request(format!("Availability zone '{zone}' is invalid; choose one of os-availability-zone.")));
    }
    groups::admit_volume(row, cx, tx)?;
    let (project, size) = (row.project_id().to_owned(), row.size);
    quota::check_size(tx, cx, &project, size)?;
    quota::charge(tx, cx, &project, &quota::volume(&kind.id, size))?;
    let picked = match origin.host {
        Some(host) => Some(host),
        None => hosts::pick(tx, cx, &kind.extra_specs, size, &row.scheduler_hints),
    };
    let Some(host) = picked else {
        row.status = "error".to_owned();
        let cause = "No storage host has room for it or fits its type";
        engine::tell(tx, &row.id, &cx.request_id, cause);
        return message::leave(tx, &project, &cx.request_id, "VOLUME", &row.id, message::NO_HOST, "");
    };
    engine::tell(tx, &row.id, &cx.request_id, &format!("Its data will be kept on {host}"));
    row.host = host;
    row.status = "creating".to_owned();
    row.task = Some(Task::Create);
    row.deadline = Some(tx.now.plus(timing::CREATE).0);
    Ok(())
}

fn origin(row: &mut Object<Volume>, cx: &Cx, tx: &mut Tx<'_>) -> Result<Origin> {
    let given = [row.snapshot_id.is_some(), row.source_volid.is_some(), row.image_ref.is_some()];
    if given.iter().filter(|g| **g).count() > 1 {
        return Err(Error::bad_request(
            "Invalid input received: a volume has one source at most; give one of snapshot_id, source_volid and imageRef.",
        ));
    }
    if let Some(id) = row.snapshot_id.clone() {
        return of_snapshot(row, cx, tx, &id);
    }
    if let Some(id) = row.source_volid.clone() {
        return of_volume(row, cx, tx, &id);
    }
    match row.image_ref.clone() {
        Some(id) => of_image(row, cx, tx, &id),
        None => Ok(Origin::default()),
    }
}

fn of_snapshot(row: &mut Object<Volume>, cx: &Cx, tx: &mut Tx<'_>, id: &str) -> Result<Origin> {
    let snapshot: Object<Snapshot> = own(tx, cx, id)?;
    if snapshot.status != "available" {
        return Err(Error::bad_request(format!(
            "Invalid snapshot: Originating snapshot status must be one of 'available' values, but is {}.",
            snapshot.status
        )));
    }
    let base: Object<Volume> = own(tx, cx, &snapshot.volume_id)?;
    row.source = VolumeSource::Snapshot { volume_id: base.id.clone(), snapshot_id: snapshot.id.clone() };
    Ok(Origin {
        size: snapshot.volume_size,
        host: Some(base.host.clone()),
        volume_type_id: snapshot.volume_type_id.clone(),
        bootable: base.bootable,
        image_metadata: base.volume_image_metadata.clone(),
        too_small: format!(
            "Invalid input received: Volume size '{}'GB cannot be smaller than the snapshot size {}GB. They must be >= original snapshot size.",
            row.size, snapshot.volume_size
        ),
    })
}

fn of_volume(row: &mut Object<Volume>, cx: &Cx, tx: &mut Tx<'_>, id: &str) -> Result<Origin> {
    let base: Object<Volume> = own(tx, cx, id)?;
    if !matches!(base.status.as_str(), "available" | "in-use") || !base.is_kept() {
        return Err(Error::bad_request(format!(
            "Invalid volume: unable to clone volume {id} while its status is {}; wait until it is available or in-use.",
            base.status
        )));
    }
    row.source = VolumeSource::Volume { volume_id: base.id.clone() };
    Ok(Origin {
        size: base.size,
        host: Some(base.host.clone()),
        volume_type_id: base.volume_type_id.clone(),
        bootable: base.bootable,
        image_metadata: base.volume_image_metadata.clone(),
        too_small: format!(
            "Invalid input received: Volume size '{}'GB cannot be smaller than original volume size {}GB. They must be >= original volume size.",
            row.size, base.size
        ),
    })
}

/// GiB that a number of bytes needs.
fn gib(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or(0).div_ceil(1 << 30)
}

/// What an image is made of, as a node wants to know it.
pub(crate) fn image_ref(image: &Map) -> ImageRef {
    ImageRef {
        image_id: text(image, "id").to_owned(),
        blob: text(image, "os_hash_value").to_owned(),
        format: text(image, "disk_format").to_owned(),
    }
}

/// Checks that an image can be written to a volume of that size.
pub(crate) fn check_image(image: &Map, size: u64) -> Result<()> {
    let id = text(image, "id");
    let status = text(image, "status");
    if status != "active" || text(image, "os_hash_value").is_empty() {
        return Err(Error::bad_request(format!(
            "Invalid input received: Image {id} is unacceptable: Image status {status} is not active."
        )));
    }
    let raw = if text(image, "disk_format") == "raw" { int(image, "size") } else { 0 };
    let least = gib(int(image, "virtual_size").max(raw));
    if size > 0 && least > size {
        return Err(Error::bad_request(format!(
            "Invalid input received: Size of specified image {least}GB is larger than volume size {size}GB."
        )));
    }
    let min_disk = u64::try_from(int(image, "min_disk")).unwrap_or(0);
    if size > 0 && min_disk > size {
        return Err(Error::bad_request(format!(
            "Invalid input received: Volume size {size}GB cannot be smaller than the image minDisk size {min_disk}GB."
        )));
    }
    Ok(())
}

/// What a volume remembers of its image.
pub(crate) fn image_metadata(image: &Map) -> BTreeMap<String, String> {
    let properties = image.get("properties").and_then(serde_json::Value::as_object);
    let mut out: BTreeMap<String, String> =
        properties.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect();
    for (name, field) in [
        ("image_id", "id"),
        ("image_name", "name"),
        ("checksum", "checksum"),
        ("container_format", "container_format"),
        ("disk_format", "disk_format"),
    ] {
        out.insert(name.to_owned(), text(image, field).to_owned());
    }
    for field in ["min_disk", "min_ram", "size"] {
        out.insert(field.to_owned(), int(image, field).to_string());
    }
    out
}

fn of_image(row: &mut Object<Volume>, cx: &Cx, tx: &mut Tx<'_>, id: &str) -> Result<Origin> {
    let refused = || Error::bad_request("Invalid image identifier or unable to access requested image.");
    let image = foreign_in(tx, cx, "image/images", id)?.ok_or_else(refused)?;
    let image = object(&image);
    check_image(image, row.size)?;
    row.source = VolumeSource::Image(image_ref(image));
    Ok(Origin { bootable: true, image_metadata: image_metadata(image), ..Origin::default() })
}

/// The type that was named, that of the source, the project's own default, or the cloud's.
fn chosen_type(row: &Object<Volume>, cx: &Cx, tx: &mut Tx<'_>, of_source: Option<&str>) -> Result<Object<VolumeType>> {
    if let Some(wanted) = &row.volume_type {
        return types::find(tx, cx, wanted);
    }
    if let Some(id) = of_source
        && let Some(kind) = resource::load::<VolumeType>(tx, id)?
    {
        return Ok(kind);
    }
    types::default_of(tx, cx, row.project_id())
}

/// Keys and values of metadata have 255 characters at most.
pub(crate) fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<()> {
    for (key, value) in metadata {
        if key.is_empty() || key.chars().count() > 255 {
            return Err(Error::bad_request("Metadata property key must have 1 to 255 characters."));
        }
        if value.chars().count() > 255 {
            return Err(Error::bad_request(format!("Metadata property value of {key} has more than 255 characters.")));
        }
    }
    Ok(())
}

/// The caller's volume, for those who make something of it.
pub(crate) fn owned_volume(tx: &mut Tx<'_>, cx: &Cx, id: &str) -> Result<Object<Volume>> {
    own(tx, cx, id).map_err(|_| common::missing(Volume::DEF, id))
}
