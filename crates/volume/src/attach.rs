//! Attachments come and go: who may have a volume, and what its status is then.
//!
//! Nothing here plugs anything. An attachment with `wanted` makes the storage node export the volume and, where it names a server, that
//! server's node plug it; what they report is taken in by [`crate::settle`], which also removes an attachment whose export has ended.
use crate::{
    create::owned_volume,
    resources::{Attachment, Volume},
    timing,
};
use api::{Cx, Error, Result};
use resource::{Object, Resource as _, Tx};

/// Admits a new attachment and marks its volume.
pub(crate) fn admit(row: &mut Object<Attachment>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
    let mut volume = owned_volume(tx, cx, &row.volume_id)?;
    let others: Vec<Object<Attachment>> = of_volume(tx, &volume.id)?;
    check_free(&volume, &others, row, cx)?;
    // An attachment belongs with its volume, whoever asked for it.
    row.map.insert("project_id".into(), volume.project_id().into());
    row.epoch = row.epoch.max(1);
    if row.wanted {
        row.attach_status = "attaching".to_owned();
        let patience = if row.boot { timing::ATTACH_BOOT } else { timing::ATTACH };
        row.deadline = Some(tx.now.plus(patience).0);
    }
    if volume.status != "creating" {
        let with_it = others.iter().map(|a| &a.body).chain([&row.body]);
        volume.status = status_of(with_it, "available").to_owned();
    }
    volume.intent += 1;
    volume.save(tx)
}

/// All attachments of a volume; the transaction runs again when one comes or goes.
pub(crate) fn of_volume(tx: &mut Tx<'_>, volume: &str) -> Result<Vec<Object<Attachment>>> {
    tx.children(&Attachment::DEF.table, "volume_id", volume).iter().map(|r| Object::from_row(r)).collect()
}

fn check_free(volume: &Object<Volume>, others: &[Object<Attachment>], new: &Object<Attachment>, cx: &Cx) -> Result<()> {
    if others.iter().any(|a| a.user() == new.user() && !a.user().is_empty()) {
        return Err(Error::bad_request(format!(
            "Invalid volume: volume {} is already attached to instance {}; detach it first.",
            volume.id,
            new.user()
        )));
    }
    let free = match volume.status.as_str() {
        // A server that boots from it may be made in the same transaction.
        "creating" => new.boot || volume.request_id() == &*cx.request_id,
        "available" => others.is_empty() || volume.multiattach,
        "in-use" | "attaching" | "reserved" | "detaching" => volume.multiattach && !others.is_empty(),
        _ => false,
    };
    if !free || !volume.is_kept() {
        return Err(Error::bad_request(format!(
            "Invalid volume: Volume {} status must be available or downloading to reserve, but the current status is {}.",
            volume.id, volume.status
        )));
    }
    if others
        .iter()
        .any(|a| a.attach_mode != new.attach_mode && volume.admin_metadata.get("readonly").is_some_and(|r| r == "True"))
    {
        return Err(Error::bad_request(format!("Invalid volume: volume {} is read only for all who have it.", volume.id)));
    }
    Ok(())
}

/// The status of a volume whose attachments are these.
pub(crate) fn status_of<'a>(attachments: impl Iterator<Item = &'a Attachment>, none: &'a str) -> &'a str {
    let mut best = (0, none);
    for attachment in attachments {
        let one = match attachment.attach_status.as_str() {
            "attached" => (5, "in-use"),
            "attaching" => (4, "attaching"),
            "detaching" | "error_attaching" => (3, "detaching"),
            "error_detaching" => (2, "error_detaching"),
            _ => (1, "reserved"),
        };
        best = best.max(one);
    }
    best.1
}

/// What else changes when an attachment does.
pub(crate) fn change(row: &mut Object<Attachment>, old: &Object<Attachment>, cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
    match (old.wanted, row.wanted) {
        (true, false) => end(row, cx, tx),
        (false, true) if !matches!(old.attach_status.as_str(), "reserved" | "attaching") => Err(Error::bad_request(format!(
            "Attachment {} is {} and cannot be wanted again; make a new one.",
            row.id, old.attach_status
        ))),
        (false, true) => {
            row.attach_status = "attaching".to_owned();
            row.deadline = Some(tx.now.plus(timing::ATTACH).0);
            mark(tx, row)
        }
        _ if old.epoch != row.epoch => mark(tx, row),
        _ => Ok(()),
    }
}

/// Begins the end of an attachment: nobody wants it any more.
pub(crate) fn end(row: &mut Object<Attachment>, _cx: &Cx, tx: &mut Tx<'_>) -> Result<()> {
    row.wanted = false;
    if !matches!(row.attach_status.as_str(), "detaching" | "error_attaching") {
        row.attach_status = "detaching".to_owned();
        row.deadline = Some(tx.now.plus(timing::DETACH).0);
    }
    mark(tx, row)
}

/// The volume's status follows its attachments, of which `changed` is not written yet.
pub(crate) fn mark(tx: &mut Tx<'_>, changed: &Object<Attachment>) -> Result<()> {
    let Some(mut volume) = resource::load_any::<Volume>(tx, &changed.volume_id)? else { return Ok(()) };
    volume.intent += 1;
    if matches!(volume.status.as_str(), "available" | "in-use" | "attaching" | "detaching" | "reserved" | "error_detaching") {
        let others = of_volume(tx, &volume.id)?;
        let all = others.iter().filter(|a| a.id != changed.id).map(|a| &a.body).chain([&changed.body]);
        volume.status = status_of(all, "available").to_owned();
    }
    volume.save(tx)
}
