//! Statuses follow what was seen: a volume's row, what its node reported, what servers' nodes have plugged, and the clock.
//!
//! [`settle`] looks at all of one volume in one transaction and moves each part that has something to wait for. It may run at any time
//! and any number of times: without news it changes nothing. A report counts for a wish when its revision is not older than the intent
//! that the wish raised.
use crate::{
    attach,
    common::{PLUGGED, SEEN, UPLOADS},
    delete, groups,
    resources::{
        Attachment, Snapshot, Volume, message,
        snapshot::Task as SnapshotTask,
        volume::{self, Task},
    },
    timing, uploads,
};
use api::{Cx, Result};
use assign::{VolumeReport, VolumeState};
use base::Timestamp;
use resource::{Object, Resource as _, Tx, engine};

/// What is known about one volume from outside.
struct Seen {
    report: Option<VolumeReport>,
}

impl Seen {
    /// What the node said, if it answers that intent.
    fn answer(&self, intent: u64) -> Option<&VolumeReport> {
        self.report.as_ref().filter(|r| r.revision >= intent)
    }
    fn state(&self, intent: u64) -> Option<VolumeState> {
        self.answer(intent).map(|r| r.state)
    }
    fn failed(&self, intent: u64) -> Option<&str> {
        let failed = self.answer(intent).filter(|r| r.state == VolumeState::Failed)?;
        Some(failed.cause.as_deref().unwrap_or("Its storage node gave no reason."))
    }
    fn is_exported(&self, attachment: &str) -> bool {
        self.report.as_ref().is_some_and(|r| r.exports.iter().any(|e| e.attachment_id == attachment))
    }
    /// Is there an export that none of these attachments names?
    fn serves_others(&self, attachments: &[Object<Attachment>]) -> bool {
        let is_named = |e: &assign::LiveExport| attachments.iter().any(|a| a.id == e.attachment_id);
        self.report.as_ref().is_some_and(|r| r.exports.iter().any(|e| !is_named(e)))
    }
    fn serves(&self, attachment: &Object<Attachment>) -> bool {
        let is = |e: &assign::LiveExport| e.attachment_id == attachment.id && e.epoch == attachment.epoch;
        self.report.as_ref().is_some_and(|r| r.exports.iter().any(is))
    }
}

/// Brings the rows of one volume up to what was seen. Gives the next deadline, if something waits.
pub(crate) fn settle(tx: &mut Tx<'_>, cx: &Cx, id: &str) -> Result<Option<Timestamp>> {
    let report = tx.get(&SEEN, id).and_then(|row| row.decode::<VolumeReport>().ok());
    let Some(mut volume) = resource::load_any::<Volume>(tx, id)? else {
        tx.delete(&SEEN, id);
        return Ok(None);
    };
    let seen = Seen { report };
    if !volume.is_kept() {
        return deletion(tx, volume, &seen);
    }
    let before = volume.clone().into_map()?;
    let sets = groups::sets_of(tx, id);
    let mut next = snapshots(tx, &mut volume, &seen)?;
    soonest(&mut next, attachments(tx, cx, &mut volume, &seen)?);
    task(tx, cx, &mut volume, &seen)?;
    soonest(&mut next, volume.deadline.filter(|_| volume.task.is_some()));
    if volume.clone().into_map()? != before {
        volume.save(tx)?;
    }
    groups::settle_all(tx, &volume, sets)?;
    Ok(next.map(Timestamp))
}

fn soonest(next: &mut Option<i64>, other: Option<i64>) {
    if let Some(t) = other {
        *next = Some(next.map_or(t, |n| n.min(t)));
    }
}

fn is_late(deadline: Option<i64>, now: Timestamp) -> bool {
    deadline.is_some_and(|d| d < now.0)
}

fn complain(tx: &mut Tx<'_>, volume: &Object<Volume>, event: message::Event, cause: &str) -> Result<()> {
    tracing::warn!(volume = volume.id, status = volume.status, cause, "A volume's task failed");
    engine::tell(tx, &volume.id, volume.request_id(), cause);
    message::leave(tx, volume.project_id(), volume.request_id(), "VOLUME", &volume.id, event, cause)
}

fn deletion(tx: &mut Tx<'_>, mut volume: Object<Volume>, seen: &Seen) -> Result<Option<Timestamp>> {
    let gone = seen.state(volume.intent) == Some(VolumeState::Gone);
    if gone || volume.host.is_empty() {
        delete::remove(tx, volume)?;
        return Ok(None);
    }
    if volume.task != Some(Task::Delete) {
        return Ok(None);
    }
    let cause = match seen.failed(volume.intent) {
        Some(cause) => cause.to_owned(),
        None if is_late(volume.deadline, tx.now) => {
            "Its storage node did not report its end in time; delete it again.".to_owned()
        }
        None => return Ok(volume.deadline.map(Timestamp)),
    };
    volume.finish("error_deleting");
    complain(tx, &volume, message::DELETE, &cause)?;
    volume.save(tx)?;
    groups::settle_all(tx, &volume, Vec::new())?;
    Ok(None)
}

fn snapshots(tx: &mut Tx<'_>, volume: &mut Object<Volume>, seen: &Seen) -> Result<Option<i64>> {
    let mut next = None;
    for mut snapshot in resource::find::<Snapshot>(tx, "volume_id", &volume.id)? {
        let Some(task) = snapshot.task else { continue };
        let there = seen.answer(snapshot.intent).map(|r| r.snapshots.contains(&snapshot.id));
        let failure = seen.failed(snapshot.intent).map(str::to_owned);
        let late = is_late(snapshot.deadline, tx.now).then(|| "Its storage node did not answer in time.".to_owned());
        match (task, there) {
            (SnapshotTask::Create, Some(true)) if seen.state(snapshot.intent) == Some(VolumeState::Ready) => {
                snapshot.finish("available");
                snapshot.progress = "100%".to_owned();
                snapshot.save(tx)?;
            }
            (SnapshotTask::Delete, Some(false)) => delete::remove_snapshot(tx, &snapshot)?,
            _ => {
                let Some(cause) = failure.or(late) else {
                    soonest(&mut next, snapshot.deadline);
                    continue;
                };
                let (status, event) = match task {
                    SnapshotTask::Create => ("error", message::SNAPSHOT_CREATE),
                    SnapshotTask::Delete => ("error_deleting", message::SNAPSHOT_DELETE),
                };
                if task == SnapshotTask::Create {
                    // What is left of it shall go; the volume's other work must not fail by it again.
                    snapshot.keep = "deleted".to_owned();
                    volume.intent += 1;
                }
                snapshot.finish(status);
                let (project, request) = (snapshot.project_id().to_owned(), snapshot.request_id().to_owned());
                engine::tell(tx, &snapshot.id, &request, &cause);
                message::leave(tx, &project, &request, "VOLUME_SNAPSHOT", &snapshot.id, event, &cause)?;
                snapshot.save(tx)?;
            }
        }
    }
    Ok(next)
}

/// What an attachment comes to.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Attached {
        host: String,
    },
    Ended,
    Failed,
    /// The guest keeps the device: it stays attached.
    RolledBack,
    Stuck,
}

fn turn(a: &Object<Attachment>, volume: &Object<Volume>, plugged: Option<String>, seen: &Seen, now: Timestamp) -> Option<Turn> {
    let ours = a.consumer.is_none();
    let late = is_late(a.deadline, now);
    match a.attach_status.as_str() {
        "attaching" if ours && a.wanted => match plugged {
            Some(host) if seen.serves(a) => Some(Turn::Attached { host }),
            // A volume that is still being made has a deadline of its own, and a server that boots from it waits.
            _ if volume.task == Some(Task::Create) || a.boot => (late && volume.task.is_none()).then_some(Turn::Failed),
            _ if late || seen.failed(volume.intent).is_some() => Some(Turn::Failed),
            _ => None,
        },
        "detaching" | "error_attaching" | "error_detaching" if !a.wanted => {
            if plugged.is_none() && !seen.is_exported(&a.id) {
                Some(Turn::Ended)
            } else if late && a.attach_status == "detaching" && ours && plugged.is_some() && !a.deleting() {
                Some(Turn::RolledBack)
            } else if late && a.attach_status != "error_detaching" {
                Some(Turn::Stuck)
            } else {
                None
            }
        }
        _ => None,
    }
}

fn attachments(tx: &mut Tx<'_>, cx: &Cx, volume: &mut Object<Volume>, seen: &Seen) -> Result<Option<i64>> {
    let mut next = None;
    let mut moved = false;
    let mut left: Vec<Object<Attachment>> = Vec::new();
    for mut a in attach::of_volume(tx, &volume.id)? {
        let plugged = tx.get(&PLUGGED, &a.id).map(|row| row.text("host").to_owned());
        let Some(turn) = turn(&a, volume, plugged, seen, tx.now) else {
            soonest(&mut next, a.deadline);
            left.push(a);
            continue;
        };
        moved = true;
        let request = a.request_id().to_owned();
        a.deadline = None;
        match turn {
            Turn::Attached { host } => {
                engine::tell(tx, &volume.id, &request, &format!("Server {} has it plugged", a.instance));
                a.attach_status = "attached".to_owned();
                a.attached_host = Some(host);
                a.attached_at = Some(tx.now.0);
            }
            Turn::Ended => {
                engine::tell(tx, &volume.id, &request, &format!("{} does not have it any more", a.user()));
                engine::remove(tx, Attachment::DEF, &a.clone().into_map()?);
                if ends_with_server(tx, &a) {
                    left.retain(|o| o.id != a.id);
                    volume.body.status = attach::status_of(left.iter().map(|a| &a.body), "available").to_owned();
                    if left.is_empty() {
                        begin_deletion(tx, cx, volume)?;
                        return Ok(volume.deadline);
                    }
                }
                continue;
            }
            Turn::Failed => {
                let cause = seen.failed(volume.intent).unwrap_or("The server did not have it plugged in time.").to_owned();
                complain(tx, volume, message::ATTACH, &cause)?;
                a.attach_status = "error_attaching".to_owned();
                // A server cannot boot without it: whoever made the server ends this one.
                if !a.boot {
                    a.wanted = false;
                    a.deadline = Some(tx.now.plus(timing::DETACH).0);
                    volume.intent += 1;
                }
            }
            Turn::RolledBack => {
                complain(tx, volume, message::DETACH, "The guest did not give the device up in time; it stays attached.")?;
                a.attach_status = "attached".to_owned();
                a.wanted = true;
                volume.intent += 1;
            }
            Turn::Stuck => {
                complain(tx, volume, message::DETACH, "The end of its export was not confirmed in time; it is still tried.")?;
                a.attach_status = "error_detaching".to_owned();
            }
        }
        soonest(&mut next, a.deadline);
        a.save(tx)?;
        left.push(a);
    }
    if moved && volume.task.is_none() && follows(&volume.status) {
        volume.body.status = attach::status_of(left.iter().map(|a| &a.body), "available").to_owned();
    }
    Ok(next)
}

/// Does the status come from the attachments, or did somebody else set it?
fn follows(status: &str) -> bool {
    matches!(status, "available" | "in-use" | "attaching" | "detaching" | "reserved" | "error_detaching" | "error_attaching")
}

/// Was the volume to be deleted with the server that had it, and is the server gone?
fn ends_with_server(tx: &mut Tx<'_>, a: &Object<Attachment>) -> bool {
    static SERVERS: store::Table = store::Table { name: "compute/servers", indexes: &[] };
    a.delete_on_termination
        && a.consumer.is_none()
        && tx.get(&SERVERS, &a.instance).is_none_or(|server| server.field("deleting").as_bool() == Some(true))
}

fn begin_deletion(tx: &mut Tx<'_>, cx: &Cx, volume: &mut Object<Volume>) -> Result<()> {
    let how = delete::How::default();
    match delete::begin(volume, cx, tx, how) {
        Ok(_) => {
            volume.mark_deleting();
            engine::tell(tx, &volume.id, &cx.request_id, "It goes with the server that had it");
            Ok(())
        }
        Err(refusal) => {
            // Something else needs it, such as a snapshot: it stays.
            engine::tell(tx, &volume.id, &cx.request_id, &refusal.message);
            Ok(())
        }
    }
}

fn task(tx: &mut Tx<'_>, cx: &Cx, volume: &mut Object<Volume>, seen: &Seen) -> Result<()> {
    let Some(task) = volume.task else { return Ok(()) };
    let ready = seen.answer(volume.intent).filter(|r| r.state == VolumeState::Ready);
    let failure = seen.failed(volume.intent).map(str::to_owned);
    let late = is_late(volume.deadline, tx.now).then(|| "Its storage node did not answer in time.".to_owned());
    let back = volume.previous_status.clone().unwrap_or_else(|| "available".to_owned());
    match task {
        Task::Create if ready.is_some() => {
            let waiting = attach::of_volume(tx, &volume.id)?;
            engine::tell(tx, &volume.id, volume.request_id(), "Its data is there");
            volume.finish(attach::status_of(waiting.iter().map(|a| &a.body), "available"));
        }
        Task::Extend if ready.is_some_and(|r| r.size_gib >= volume.size) => {
            volume.grows_from = None;
            // It may have been detached meanwhile.
            let now = attach::of_volume(tx, &volume.id)?;
            volume.finish(attach::status_of(now.iter().map(|a| &a.body), "available"));
        }
        Task::Replace if ready.is_some_and(|r| r.generation >= volume.generation) => volume.finish(&back),
        Task::Upload => return upload(tx, cx, volume, seen, late),
        Task::Reserve if late.is_some() => {
            let waiting = attach::of_volume(tx, &volume.id)?;
            volume.finish(attach::status_of(waiting.iter().map(|a| &a.body), "available"));
        }
        Task::Revoke => {
            let waiting = attach::of_volume(tx, &volume.id)?;
            if late.is_some() || !seen.serves_others(&waiting) {
                volume.finish(attach::status_of(waiting.iter().map(|a| &a.body), "available"));
            }
        }
        Task::Create | Task::Extend | Task::Replace => {
            if let Some(cause) = failure.or(late) {
                fail(tx, volume, task, &cause)?;
            }
        }
        Task::Delete | Task::Reserve => {}
    }
    Ok(())
}

fn fail(tx: &mut Tx<'_>, volume: &mut Object<Volume>, task: Task, cause: &str) -> Result<()> {
    let (status, event) = match task {
        Task::Extend => ("error_extending", message::EXTEND),
        Task::Replace => ("error", message::REPLACE),
        _ => ("error", message::CREATE),
    };
    if let Some(size) = volume.grows_from.take() {
        let kind = volume.volume_type_id.clone().unwrap_or_default();
        let more = crate::quota::growth(&kind, volume.size.saturating_sub(size));
        crate::quota::release(tx, volume.project_id(), &more);
        volume.size = size;
    }
    volume.finish(status);
    complain(tx, volume, event, cause)
}

fn upload(tx: &mut Tx<'_>, cx: &Cx, volume: &mut Object<Volume>, seen: &Seen, late: Option<String>) -> Result<()> {
    let wanted = tx.find(&UPLOADS, "volume_id", &volume.id);
    let mut waiting = false;
    for row in wanted {
        let image = row.id().to_owned();
        let result = seen.answer(volume.intent).and_then(|r| r.uploads.get(&image)).cloned();
        let result = match (result, &late, seen.failed(volume.intent)) {
            (Some(result), _, _) => result,
            (None, _, Some(cause)) => Err(cause.to_owned()),
            (None, Some(cause), None) => Err(cause.clone()),
            (None, None, None) => {
                waiting = true;
                continue;
            }
        };
        tx.delete(&UPLOADS, &image);
        volume.intent += 1;
        match result {
            Ok(blob) => uploads::fill(tx, cx, &image, &blob)?,
            Err(cause) => {
                uploads::abandon(tx, cx, &image)?;
                complain(tx, volume, message::UPLOAD, &cause)?;
            }
        }
    }
    if !waiting {
        // It may have been attached or detached meanwhile.
        let now = attach::of_volume(tx, &volume.id)?;
        volume.finish(attach::status_of(now.iter().map(|a| &a.body), "available"));
    }
    Ok(())
}

/// The volume that a changed row is about.
pub(crate) fn volume_of(tx: &mut Tx<'_>, table: &str, id: &str) -> Option<String> {
    let by = |tx: &mut Tx<'_>, table: &store::Table| tx.get(table, id).map(|r| r.text("volume_id").to_owned());
    match table {
        t if t == volume::Volume::DEF.table.name || t == SEEN.name => Some(id.to_owned()),
        t if t == PLUGGED.name || t == Attachment::DEF.table.name => by(tx, &Attachment::DEF.table),
        t if t == Snapshot::DEF.table.name => by(tx, &Snapshot::DEF.table),
        _ => None,
    }
}
