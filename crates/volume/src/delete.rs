//! The end of a volume: what forbids it, and what goes with it.
//!
//! A volume that is being deleted stays visible until its node has reported that nothing of it is left; its quota is given back then.
//! Data goes only by the node's own hand, so a node that is away keeps the row waiting in `error_deleting`, not gone.
use crate::{
    groups, quota,
    resources::{Attachment, Snapshot, Volume, snapshot, volume::Task},
    timing,
    transfers::TRANSFERS,
};
use api::{Cx, Error, Result};
use resource::{Deletion, Object, Resource as _, Tx, engine};

/// How far a deletion goes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct How {
    /// With its snapshots.
    pub(crate) cascade: bool,
    /// Whatever its status.
    pub(crate) force: bool,
    /// With the group that it belongs to.
    pub(crate) with_group: bool,
}

const DELETABLE: [&str; 8] =
    ["available", "creating", "deleting", "error", "error_restoring", "error_extending", "error_deleting", "error_managing"];

fn refused(volume: &Object<Volume>) -> Error {
    Error::bad_request(format!(
        "Invalid volume: Volume status must be available or error or error_restoring or error_extending or error_managing and must not be migrating, attached, belong to a group, have snapshots, awaiting a transfer, or be disassociated from snapshots after volume transfer. It is {} now.",
        volume.status
    ))
}

/// Admits a deletion and begins it.
pub(crate) fn begin(volume: &mut Object<Volume>, cx: &Cx, tx: &mut Tx<'_>, how: How) -> Result<Deletion> {
    if !how.force && !DELETABLE.contains(&volume.status.as_str()) {
        return Err(refused(volume));
    }
    let attachments: Vec<Object<Attachment>> = children(tx, &volume.id)?;
    if attachments.iter().any(|a| !how.force || a.wanted || a.attach_status == "attached") {
        return Err(Error::bad_request(format!(
            "Invalid volume: Volume {} is attached or reserved by {}; detach it first.",
            volume.id,
            attachments.iter().map(|a| a.user()).collect::<Vec<_>>().join(", ")
        )));
    }
    if volume.group_id.is_some() && !how.force && !how.with_group {
        return Err(Error::bad_request(format!(
            "Invalid volume: Volume {} belongs to a group; remove it from the group or delete the group.",
            volume.id
        )));
    }
    let snapshots: Vec<Object<Snapshot>> = children(tx, &volume.id)?;
    if !how.cascade && !snapshots.is_empty() && volume.is_kept() {
        return Err(Error::bad_request(format!(
            "Invalid volume: Volume still has {} dependent snapshots; delete them first, or delete the volume with cascade.",
            snapshots.len()
        )));
    }
    check_copies(tx, &volume.id, "source_volid")?;
    for mut snapshot in snapshots {
        check_copies(tx, &snapshot.id, "snapshot_id")?;
        snapshot.keep = "deleted".to_owned();
        snapshot.status = "deleting".to_owned();
        snapshot.task = Some(snapshot::Task::Delete);
        // It goes with the volume, which has a deadline.
        snapshot.deadline = None;
        snapshot.mark_deleting();
        snapshot.save(tx)?;
    }
    for attachment in attachments {
        engine::remove(tx, Attachment::DEF, &attachment.into_map()?);
    }
    crate::uploads::give_up(tx, cx, &volume.id)?;
    for transfer in tx.find(&TRANSFERS, "volume_id", &volume.id) {
        tx.delete(&TRANSFERS, transfer.id());
    }
    if volume.status != "deleting" {
        volume.previous_status = Some(volume.status.clone());
    }
    volume.status = "deleting".to_owned();
    volume.keep = "deleted".to_owned();
    volume.wish(Some(Task::Delete), tx.now, timing::DELETE);
    if volume.host.is_empty() {
        // No node ever had it.
        end_of_rows(tx, volume)?;
        return Ok(Deletion::Now);
    }
    Ok(Deletion::Later)
}

fn children<T: resource::Resource>(tx: &mut Tx<'_>, volume: &str) -> Result<Vec<Object<T>>> {
    tx.children(&T::DEF.table, "volume_id", volume).iter().map(|r| Object::from_row(r)).collect()
}

/// A source stays until the copies that are being made of it are whole.
pub(crate) fn check_copies(tx: &mut Tx<'_>, id: &str, index: &str) -> Result<()> {
    let copies = tx.children(&Volume::DEF.table, index, id);
    let under_way = copies.iter().find(|v| v.field("task") == "create" && v.text("keep") == "present");
    under_way.map_or(Ok(()), |copy| {
        Err(Error::bad_request(format!("Volume {} is being made of {id}; wait until it is available.", copy.id())))
    })
}

/// Gives back what a volume that is gone had, beside its own row.
fn end_of_rows(tx: &mut Tx<'_>, volume: &Object<Volume>) -> Result<()> {
    let kind = volume.volume_type_id.clone().unwrap_or_default();
    for snapshot in resource::find::<Snapshot>(tx, "volume_id", &volume.id)? {
        remove_snapshot(tx, &snapshot)?;
    }
    for attachment in resource::find::<Attachment>(tx, "volume_id", &volume.id)? {
        engine::remove(tx, Attachment::DEF, &attachment.into_map()?);
    }
    quota::release(tx, volume.project_id(), &quota::volume(&kind, volume.shown_size().max(volume.size)));
    tx.delete(&crate::common::SEEN, &volume.id);
    Ok(())
}

/// Takes a volume away that its node no longer has.
pub(crate) fn remove(tx: &mut Tx<'_>, volume: Object<Volume>) -> Result<()> {
    let sets = groups::sets_of(tx, &volume.id);
    end_of_rows(tx, &volume)?;
    engine::remove(tx, Volume::DEF, &volume.clone().into_map()?);
    groups::settle_all(tx, &volume, sets)
}

/// Takes a snapshot away that its node no longer has.
pub(crate) fn remove_snapshot(tx: &mut Tx<'_>, snapshot: &Object<Snapshot>) -> Result<()> {
    let kind = snapshot.volume_type_id.clone().unwrap_or_default();
    quota::release(tx, snapshot.project_id(), &quota::snapshot(&kind, snapshot.volume_size));
    engine::remove(tx, Snapshot::DEF, &snapshot.clone().into_map()?);
    Ok(())
}
