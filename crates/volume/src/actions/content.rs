//! What changes a volume's size, type or content.
use super::{change, needs};
use crate::{
    common::{foreign_in, object, own},
    create::{check_image, image_metadata, image_ref},
    input::Input,
    quota,
    resources::{
        Snapshot,
        volume::{MAX_SIZE, Task},
    },
    timing, types,
};
use api::{Call, Error, Reply, Result};
use assign::VolumeSource;
use resource::{Object, engine};
use serde_json::Value;

pub(super) async fn extend(call: Call, id: String, body: Value) -> Result<Reply> {
    let input = Input::of(&body, "os-extend", &["new_size"])?;
    let size = input.int("new_size", 1, MAX_SIZE)?;
    let size =
        size.ok_or_else(|| Error::bad_request("Invalid input for field/attribute new_size: it is a required property."))?;
    let size = u64::try_from(size).unwrap_or(0);
    let online = call.cx.version.1 >= 42;
    change(&call, id, move |cx, tx, volume| {
        needs(volume, if online { &["available", "in-use"] } else { &["available"] }, "extend")?;
        if size <= volume.size {
            return Err(Error::bad_request(format!(
                "Invalid input received: New size for extend must be greater than current size. (current: {}, extended: {size}).",
                volume.size
            )));
        }
        let project = volume.project_id().to_owned();
        quota::check_size(tx, cx, &project, size)?;
        let kind = volume.volume_type_id.clone().unwrap_or_default();
        quota::charge(tx, cx, &project, &quota::growth(&kind, size - volume.size))?;
        volume.grows_from = Some(volume.size);
        volume.size = size;
        volume.previous_status = Some(volume.status.clone());
        volume.status = "extending".to_owned();
        volume.wish(Some(Task::Extend), tx.now, timing::EXTEND);
        engine::tell(tx, &volume.id, &cx.request_id, &format!("It shall have {size} GiB"));
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

/// All types are of the one backend there is, so a retype moves no data: it is a change of the row and of what is counted.
pub(super) async fn retype(call: Call, id: String, body: Value) -> Result<Reply> {
    let input = Input::of(&body, "os-retype", &["new_type", "migration_policy"])?;
    let wanted = input.required("new_type")?.to_owned();
    input.choice("migration_policy", &["never", "on-demand"])?;
    change(&call, id, move |cx, tx, volume| {
        needs(volume, &["available", "in-use"], "retype")?;
        let kind = types::find(tx, cx, &wanted)?;
        let old = volume.volume_type_id.clone().unwrap_or_default();
        if kind.id == old {
            return Err(Error::bad_request(format!(
                "Retype needs volume to be of another type than {}, which it has.",
                kind.name
            )));
        }
        if kind.encryption.is_some() {
            return Err(Error::bad_request(format!(
                "Volume type {} asks for encryption, which this cloud does not do yet; choose a type without encryption.",
                kind.name
            )));
        }
        if volume.status == "in-use" && volume.multiattach != kind.allows_multiattach() {
            return Err(Error::bad_request(
                "Invalid volume: a volume in use keeps whether several may have it; detach it first.",
            ));
        }
        let project = volume.project_id().to_owned();
        // All volumes and GiB stay; what is counted by type moves.
        let typed = |kind: &str| quota::volume(kind, volume.size).into_iter().skip(2).collect::<quota::Deltas>();
        quota::release(tx, &project, &typed(&old));
        quota::charge(tx, cx, &project, &typed(&kind.id))?;
        volume.multiattach = kind.allows_multiattach();
        engine::tell(tx, &volume.id, &cx.request_id, &format!("It is of type {} now", kind.name));
        volume.volume_type_id = Some(kind.id.clone());
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

/// Back to the newest snapshot.
pub(super) async fn revert(call: Call, id: String, body: Value) -> Result<Reply> {
    if call.cx.version.1 < 40 {
        return Err(Error::bad_request("There is no such action before 3.40: revert."));
    }
    let wanted = Input::of(&body, "revert", &["snapshot_id"])?.required_uuid("snapshot_id")?.to_owned();
    change(&call, id, move |cx, tx, volume| {
        needs(volume, &["available"], "revert")?;
        let snapshot: Object<Snapshot> = own(tx, cx, &wanted)?;
        if snapshot.volume_id != volume.id {
            return Err(Error::bad_request(format!("Snapshot {wanted} is not one of volume {}.", volume.id)));
        }
        if snapshot.status != "available" {
            return Err(Error::bad_request(format!("Snapshot {wanted} is {}; it must be available.", snapshot.status)));
        }
        let newest = resource::find::<Snapshot>(tx, "volume_id", &volume.id)?.into_iter().max_by_key(Object::created_at);
        if newest.is_some_and(|n| n.id != wanted) {
            return Err(Error::bad_request(format!(
                "Invalid volume: Volume {} can only be reverted to its latest snapshot, which {wanted} is not.",
                volume.id
            )));
        }
        if snapshot.volume_size > volume.size {
            return Err(Error::bad_request("Invalid volume: the snapshot is larger than the volume; extend the volume first."));
        }
        volume.source = VolumeSource::Snapshot { volume_id: volume.id.clone(), snapshot_id: wanted.clone() };
        volume.generation += 1;
        volume.previous_status = Some(volume.status.clone());
        volume.status = "reverting".to_owned();
        volume.wish(Some(Task::Replace), tx.now, timing::REPLACE);
        engine::tell(tx, &volume.id, &cx.request_id, &format!("Its content shall be that of snapshot {wanted}"));
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

/// A new content from an image.
pub(super) async fn reimage(call: Call, id: String, body: Value) -> Result<Reply> {
    if call.cx.version.1 < 68 {
        return Err(Error::bad_request("There is no such action before 3.68: os-reimage."));
    }
    let input = Input::of(&body, "os-reimage", &["image_id", "reimage_reserved"])?;
    let wanted = input.required_uuid("image_id")?.to_owned();
    let reserved = input.flag("reimage_reserved")?.unwrap_or(false);
    change(&call, id, move |cx, tx, volume| {
        needs(volume, if reserved { &["available", "error", "reserved"] } else { &["available", "error"] }, "re-image")?;
        let refused = || Error::bad_request("Invalid image identifier or unable to access requested image.");
        let image = foreign_in(tx, cx, "image/images", &wanted)?.ok_or_else(refused)?;
        let image = object(&image);
        check_image(image, volume.size)?;
        volume.source = VolumeSource::Image(image_ref(image));
        volume.generation += 1;
        volume.bootable = true;
        volume.volume_image_metadata = image_metadata(image);
        volume.previous_status = Some(if volume.status == "error" { "available".to_owned() } else { volume.status.clone() });
        volume.status = "downloading".to_owned();
        volume.wish(Some(Task::Replace), tx.now, timing::REPLACE);
        engine::tell(tx, &volume.id, &cx.request_id, &format!("Its content shall be that of image {wanted}"));
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}
