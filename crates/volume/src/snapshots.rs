//! Snapshots: made and removed by the volume's node.
use crate::{
    create::{check_metadata, owned_volume},
    delete::check_copies,
    quota,
    resources::{Snapshot, Volume, snapshot::Task},
    timing,
};
use api::{Cx, Error, Result};
use resource::{Deletion, Object, Tx, engine};

/// Completes and admits a new snapshot.
pub(crate) fn admit(row: &mut Object<Snapshot>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
    check_metadata(&row.metadata)?;
    let mut volume = owned_volume(tx, cx, &row.volume_id)?;
    // The content is that of one instant, as after a loss of power, whether somebody writes or not.
    let in_use = volume.status == "in-use" && (row.force || cx.version.1 >= 66);
    if !(volume.status == "available" || in_use) || !volume.is_kept() {
        return Err(Error::bad_request(format!(
            "Invalid volume: Volume {} status must be available, but current status is: {}.",
            volume.id, volume.status
        )));
    }
    row.volume_size = volume.shown_size();
    row.volume_type_id = volume.volume_type_id.clone();
    row.user_id = cx.caller.user_id().to_owned();
    row.map.insert("project_id".into(), volume.project_id().into());
    let kind = volume.volume_type_id.clone().unwrap_or_default();
    let project = volume.project_id().to_owned();
    quota::charge(tx, cx, &project, &quota::snapshot(&kind, row.volume_size))?;
    volume.intent += 1;
    row.intent = volume.intent;
    row.status = "creating".to_owned();
    row.task = Some(Task::Create);
    row.deadline = Some(tx.now.plus(timing::SNAPSHOT).0);
    engine::tell(tx, &volume.id, &cx.request_id, &format!("Snapshot {} of it was asked for", row.id));
    volume.save(tx)
}

const DELETABLE: [&str; 4] = ["available", "error", "error_deleting", "deleting"];

/// Admits the deletion of a snapshot and begins it.
pub(crate) fn begin_delete(row: &mut Object<Snapshot>, _cx: &Cx, tx: &mut Tx<'_>, force: bool) -> Result<Deletion> {
    if !force && !DELETABLE.contains(&row.status.as_str()) {
        return Err(Error::bad_request(format!(
            "Invalid snapshot: Snapshot status must be available or error, but it is {}; wait until it is one of them.",
            row.status
        )));
    }
    if row.group_snapshot_id.is_some() && !force {
        return Err(Error::bad_request(format!(
            "Invalid snapshot: Snapshot {} belongs to a group snapshot; delete that one.",
            row.id
        )));
    }
    check_copies(tx, &row.id, "snapshot_id")?;
    row.status = "deleting".to_owned();
    row.keep = "deleted".to_owned();
    row.task = Some(Task::Delete);
    row.deadline = Some(tx.now.plus(timing::SNAPSHOT).0);
    match resource::load_any::<Volume>(tx, &row.volume_id)? {
        Some(mut volume) => {
            volume.intent += 1;
            row.intent = volume.intent;
            volume.save(tx)?;
            Ok(Deletion::Later)
        }
        // Its volume is gone, and so is its data.
        None => {
            let kind = row.volume_type_id.clone().unwrap_or_default();
            quota::release(tx, row.project_id(), &quota::snapshot(&kind, row.volume_size));
            Ok(Deletion::Now)
        }
    }
}
