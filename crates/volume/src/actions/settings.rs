//! What changes on the row alone: flags, and statuses that an administrator sets.
use super::change;
use crate::{attach, common::title, delete::How, input::Input, resources::Attachment, volumes::delete_as};
use api::{Call, Error, Reply, Result};
use resource::{Resource as _, engine};
use serde_json::Value;

pub(super) async fn readonly(call: Call, id: String, body: Value) -> Result<Reply> {
    let input = Input::of(&body, "os-update_readonly_flag", &["readonly"])?;
    let readonly = input.flag("readonly")?.ok_or_else(|| Error::bad_request("Must specify readonly in request."))?;
    change(&call, id, move |_, _, volume| {
        super::needs(volume, &["available"], "change its readonly flag")?;
        volume.admin_metadata.insert("readonly".to_owned(), title(readonly).to_owned());
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

pub(super) async fn bootable(call: Call, id: String, body: Value) -> Result<Reply> {
    let input = Input::of(&body, "os-set_bootable", &["bootable"])?;
    let bootable = input.flag("bootable")?.ok_or_else(|| Error::bad_request("Must specify bootable in request."))?;
    change(&call, id, move |_, _, volume| {
        volume.bootable = bootable;
        Ok(())
    })
    .await?;
    Ok(Reply::empty(200))
}

pub(super) async fn force_delete(call: Call, id: String) -> Result<Reply> {
    let how = How { force: true, ..How::default() };
    call.transact(move |cx, tx| delete_as(tx, cx, &id, how)).await?;
    Ok(Reply::empty(202))
}

/// Statuses that an administrator may set.
const STATUSES: [&str; 11] = [
    "creating",
    "available",
    "deleting",
    "error",
    "error_deleting",
    "attaching",
    "detaching",
    "in-use",
    "maintenance",
    "reserved",
    "error_extending",
];

/// The status is what the administrator says, and what the service worked on is forgotten.
pub(super) async fn reset_status(call: Call, id: String, body: Value) -> Result<Reply> {
    let input = Input::of(&body, "os-reset_status", &["status", "attach_status", "migration_status"])?;
    let status = input.choice("status", &STATUSES)?.map(str::to_owned);
    let attached = input.choice("attach_status", &["attaching", "attached", "detaching", "detached"])?.map(str::to_owned);
    let migration = input.choice("migration_status", &["migrating", "error", "success", "completing", "none", "starting"])?;
    let migration = migration.map(str::to_owned);
    if status.is_none() && attached.is_none() && migration.is_none() {
        return Err(Error::bad_request("Must specify 'status', 'attach_status' or 'migration_status' for update."));
    }
    change(&call, id, move |cx, tx, volume| {
        if let Some(status) = &status {
            volume.finish(status);
            crate::uploads::give_up(tx, cx, &volume.id)?;
            if let Some(size) = volume.grows_from.take() {
                // It keeps what it was promised: the node grows it all the same.
                volume.size = volume.size.max(size);
            }
            engine::tell(tx, &volume.id, &cx.request_id, &format!("An administrator set its status to {status}"));
        }
        if let Some(migration) = &migration {
            volume.migration_status = Some(migration.clone()).filter(|m| m != "none");
        }
        if attached.as_deref() == Some("detached") {
            for a in attach::of_volume(tx, &volume.id)?.into_iter().filter(|a| a.consumer.is_some() && !a.wanted) {
                engine::remove(tx, Attachment::DEF, &a.into_map()?);
            }
        }
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}
