//! Groups and their snapshots: rows that name volumes and snapshots, which are made and removed as any others.
//!
//! The copies of a group are those of its volumes, each of its own instant: `consistent_group_snapshot_enabled` is not offered.
use crate::{
    common::{own, text},
    delete::{self, How},
    quota,
    resources::{
        Group, GroupSnapshot, Snapshot, Volume,
        group::{Parts, follow},
    },
    snapshot_routes, volumes,
};
use api::{Cx, Error, Result};
use resource::{Object, Resource as _, Tx, engine};
use serde_json::json;

/// What a group counts.
pub(crate) fn one() -> quota::Deltas {
    vec![("groups".to_owned(), 1)]
}

pub(crate) fn volumes_of(tx: &mut Tx<'_>, group: &str) -> Result<Vec<Object<Volume>>> {
    tx.children(&Volume::DEF.table, "group_id", group).iter().map(|r| Object::from_row(r)).collect()
}

/// A new volume may name the group that it shall belong to.
pub(crate) fn admit_volume(volume: &Object<Volume>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
    let Some(id) = &volume.group_id else { return Ok(()) };
    let group: Object<Group> = own(tx, cx, id)?;
    check_member(&group, volume)?;
    // A group that is being made of another gets its volumes then.
    if group.status != "available" && !(group.status == "creating" && group.request_id() == &*cx.request_id) {
        return Err(Error::bad_request(format!("Invalid group: Group {id} is {}; it must be available.", group.status)));
    }
    Ok(())
}

fn check_member(group: &Object<Group>, volume: &Object<Volume>) -> Result<()> {
    let kind = volume.volume_type_id.as_deref().unwrap_or_default();
    if !group.volume_types.iter().any(|t| t == kind) {
        return Err(Error::bad_request(format!(
            "Invalid volume: volume {} is of type {kind}, which group {} does not have.",
            volume.id, group.id
        )));
    }
    if volume.project_id() != group.project_id() {
        return Err(Error::bad_request(format!("Invalid volume: volume {} is of another project.", volume.id)));
    }
    Ok(())
}

/// Makes the row of a new group; `working` when its volumes are being made.
pub(crate) fn make(tx: &mut Tx<'_>, cx: &Cx, body: Group) -> Result<Object<Group>> {
    let project = cx.project()?;
    quota::charge(tx, cx, &project, &one())?;
    let group = Object::new(base::id::uuid(), Some(&project), body, tx.now, &cx.request_id);
    tx.put(&Group::DEF.table, &group.id, group.clone().into_map()?.into());
    Ok(group)
}

/// Volumes come and go: `add` and `remove` are ids.
pub(crate) fn change(tx: &mut Tx<'_>, cx: &Cx, group: &Object<Group>, add: &[String], remove: &[String]) -> Result<()> {
    if group.status != "available" {
        return Err(Error::bad_request(format!("Invalid group: Group {} is {}; it must be available.", group.id, group.status)));
    }
    for id in remove {
        let mut volume: Object<Volume> = own(tx, cx, id)?;
        if volume.group_id.as_deref() != Some(group.id.as_str()) {
            return Err(Error::bad_request(format!("Invalid volume: volume {id} is not in group {}.", group.id)));
        }
        volume.group_id = None;
        volume.save(tx)?;
    }
    for id in add {
        let mut volume: Object<Volume> = own(tx, cx, id)?;
        check_member(group, &volume)?;
        if volume.group_id.is_some() || !matches!(volume.status.as_str(), "available" | "in-use") {
            return Err(Error::bad_request(format!(
                "Invalid volume: volume {id} is {} or belongs to a group already; it must be available or in-use and in none.",
                volume.status
            )));
        }
        volume.group_id = Some(group.id.clone());
        volume.save(tx)?;
    }
    Ok(())
}

/// Copies every volume of a group, or of a snapshot of one, into a new group.
pub(crate) fn copy(tx: &mut Tx<'_>, cx: &Cx, new: &Object<Group>) -> Result<()> {
    let sources: Vec<(&str, String, u64, Option<String>)> = match (&new.group_snapshot_id, &new.source_group_id) {
        (Some(id), _) => snapshots_of(tx, id)?
            .into_iter()
            .map(|s| ("snapshot_id", s.id.clone(), s.volume_size, s.volume_type_id.clone()))
            .collect(),
        (None, Some(id)) => {
            volumes_of(tx, id)?.into_iter().map(|v| ("source_volid", v.id.clone(), v.size, v.volume_type_id.clone())).collect()
        }
        (None, None) => Vec::new(),
    };
    if sources.is_empty() {
        return Err(Error::bad_request("Invalid group: what it shall be made of has no volumes."));
    }
    for (field, id, size, kind) in sources {
        let input = json!({ field: id, "size": size, "volume_type": kind, "group_id": new.id, "name": new.name });
        let input = crate::common::map(input).into_iter().filter(|(_, v)| !v.is_null()).collect();
        engine::create(tx, Volume::DEF, cx, &input)?;
    }
    Ok(())
}

/// Begins the end of a group, with its volumes.
pub(crate) fn delete(tx: &mut Tx<'_>, cx: &Cx, mut group: Object<Group>, with_volumes: bool) -> Result<()> {
    if !matches!(group.status.as_str(), "available" | "error" | "error_deleting" | "deleting") {
        return Err(Error::bad_request(format!(
            "Invalid group: Group {} is {}; it must be available or error.",
            group.id, group.status
        )));
    }
    if !tx.children(&GroupSnapshot::DEF.table, "group_id", &group.id).is_empty() {
        return Err(Error::bad_request(format!("Invalid group: Group {} has snapshots; delete them first.", group.id)));
    }
    let members = volumes_of(tx, &group.id)?;
    if members.is_empty() {
        return remove(tx, group);
    }
    if !with_volumes {
        return Err(Error::bad_request(format!(
            "Invalid group: Group {} still has volumes; say delete-volumes to delete them too.",
            group.id
        )));
    }
    for volume in members {
        volumes::delete_as(tx, cx, &volume.id, How { with_group: true, ..How::default() })?;
    }
    if volumes_of(tx, &group.id)?.is_empty() {
        return remove(tx, group);
    }
    group.status = "deleting".to_owned();
    group.working = true;
    group.save(tx)
}

fn remove(tx: &mut Tx<'_>, group: Object<Group>) -> Result<()> {
    quota::release(tx, group.project_id(), &one());
    engine::remove(tx, Group::DEF, &group.into_map()?);
    Ok(())
}

/// The group's status follows its volumes.
pub(crate) fn settle(tx: &mut Tx<'_>, id: &str) -> Result<()> {
    let mut parts = Parts::default();
    for volume in volumes_of(tx, id)? {
        parts.count += 1;
        parts.busy |= volume.task.is_some();
        parts.failed |= volume.status.starts_with("error");
    }
    match follow::<Group>(tx, id, parts)? {
        Some(group) => remove(tx, group),
        None => Ok(()),
    }
}

pub(crate) fn snapshots_of(tx: &mut Tx<'_>, id: &str) -> Result<Vec<Object<Snapshot>>> {
    tx.children(&Snapshot::DEF.table, "group_snapshot_id", id).iter().map(|r| Object::from_row(r)).collect()
}

/// A snapshot of every volume of the group.
pub(crate) fn snapshot(tx: &mut Tx<'_>, cx: &Cx, group: &Object<Group>, body: GroupSnapshot) -> Result<Object<GroupSnapshot>> {
    let members = volumes_of(tx, &group.id)?;
    if members.is_empty() || group.status != "available" {
        return Err(Error::bad_request(format!(
            "Invalid group: Group {} is {} and has {} volumes; it must be available and have some.",
            group.id,
            group.status,
            members.len()
        )));
    }
    let made = Object::new(base::id::uuid(), Some(group.project_id()), body, tx.now, &cx.request_id);
    for volume in members {
        let input = crate::common::map(json!({ "volume_id": volume.id, "name": made.name, "force": true }));
        let mut row = resource::create_row(Snapshot::DEF, cx, &input, tx.now)?;
        row.insert("group_snapshot_id".into(), made.id.as_str().into());
        engine::insert(tx, Snapshot::DEF, cx, row)?;
    }
    tx.put(&GroupSnapshot::DEF.table, &made.id, made.clone().into_map()?.into());
    Ok(made)
}

/// Begins the end of a group's snapshot, with its snapshots.
pub(crate) fn delete_snapshot(tx: &mut Tx<'_>, cx: &Cx, mut set: Object<GroupSnapshot>) -> Result<()> {
    if !matches!(set.status.as_str(), "available" | "error" | "error_deleting" | "deleting") {
        return Err(Error::bad_request(format!(
            "Invalid group snapshot: {} is {}; it must be available or error.",
            set.id, set.status
        )));
    }
    for snapshot in snapshots_of(tx, &set.id)? {
        delete::check_copies(tx, &snapshot.id, "snapshot_id")?;
        snapshot_routes::delete_as(tx, cx, &snapshot.id, true)?;
    }
    if snapshots_of(tx, &set.id)?.is_empty() {
        engine::remove(tx, GroupSnapshot::DEF, &set.into_map()?);
        return Ok(());
    }
    set.status = "deleting".to_owned();
    set.working = true;
    set.save(tx)
}

/// The status of a group's snapshot follows its snapshots.
pub(crate) fn settle_snapshot(tx: &mut Tx<'_>, id: &str) -> Result<()> {
    let mut parts = Parts::default();
    for snapshot in snapshots_of(tx, id)? {
        parts.count += 1;
        parts.busy |= snapshot.task.is_some();
        parts.failed |= snapshot.status.starts_with("error");
    }
    if let Some(set) = follow::<GroupSnapshot>(tx, id, parts)? {
        engine::remove(tx, GroupSnapshot::DEF, &set.into_map()?);
    }
    Ok(())
}

/// Sets that the volume and its snapshots belong to.
pub(crate) fn settle_all(tx: &mut Tx<'_>, volume: &Object<Volume>, sets: Vec<String>) -> Result<()> {
    if let Some(group) = volume.group_id.clone() {
        settle(tx, &group)?;
    }
    for set in sets {
        settle_snapshot(tx, &set)?;
    }
    Ok(())
}

/// Sets that snapshots of the volume belong to.
pub(crate) fn sets_of(tx: &mut Tx<'_>, volume: &str) -> Vec<String> {
    let mut sets: Vec<String> = tx
        .find(&Snapshot::DEF.table, "volume_id", volume)
        .iter()
        .map(|r| text(crate::common::object(r), "group_snapshot_id").to_owned())
        .filter(|s| !s.is_empty())
        .collect();
    sets.dedup();
    sets
}
