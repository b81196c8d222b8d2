//! Attaching as services did it before attachments had an API of their own: marks on the volume, and a record of who has it.
use super::{change, needs};
use crate::{
    attach,
    attachments::record,
    common::{PLUGGED, SEEN},
    input::Input,
    resources::{Attachment, Volume, volume::Task},
    timing,
};
use api::{Call, Error, Reply, Result};
use resource::{Object, Resource as _, Tx, engine};
use serde_json::Value;

/// The status that the attachments make.
fn settled(tx: &mut Tx<'_>, volume: &Object<Volume>) -> Result<String> {
    let all = attach::of_volume(tx, &volume.id)?;
    Ok(attach::status_of(all.iter().map(|a| &a.body), "available").to_owned())
}

pub(super) async fn reserve(call: Call, id: String) -> Result<Reply> {
    change(&call, id, |_, tx, volume| {
        let shared = volume.multiattach && volume.status == "in-use";
        if !shared {
            needs(volume, &["available"], "reserve")?;
        }
        volume.status = "attaching".to_owned();
        volume.task = Some(Task::Reserve);
        volume.deadline = Some(tx.now.plus(timing::RESERVE).0);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

pub(super) async fn unreserve(call: Call, id: String) -> Result<Reply> {
    change(&call, id, |_, tx, volume| {
        needs(volume, &["attaching"], "unreserve")?;
        let status = settled(tx, volume)?;
        volume.finish(&status);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

pub(super) async fn begin_detaching(call: Call, id: String) -> Result<Reply> {
    change(&call, id, |_, _, volume| {
        needs(volume, &["in-use"], "detach")?;
        volume.status = "detaching".to_owned();
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

pub(super) async fn roll_detaching(call: Call, id: String) -> Result<Reply> {
    change(&call, id, |_, _, volume| {
        needs(volume, &["detaching"], "roll detaching back")?;
        volume.status = "in-use".to_owned();
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

pub(super) async fn attach(call: Call, id: String, body: Value) -> Result<Reply> {
    let input = Input::of(&body, "os-attach", &["instance_uuid", "host_name", "mountpoint", "mode"])?;
    let instance = input.uuid("instance_uuid")?.unwrap_or_default().to_owned();
    let host = input.text("host_name")?.map(str::to_owned);
    let mountpoint = input.required("mountpoint")?.to_owned();
    let mode = input.choice("mode", &["rw", "ro"])?.unwrap_or("rw").to_owned();
    if instance.is_empty() && host.is_none() {
        return Err(Error::bad_request(
            "Invalid request to attach volume to an invalid target: name an instance_uuid or a host_name.",
        ));
    }
    change(&call, id, move |cx, tx, volume| {
        let shared = volume.multiattach && volume.status == "in-use";
        if !shared {
            needs(volume, &["available", "attaching", "reserved"], "attach")?;
        }
        if attach::of_volume(tx, &volume.id)?.iter().any(|a| a.consumer.is_none() && !volume.multiattach) {
            return Err(Error::bad_request(format!("Invalid volume: volume {} is a server's already.", volume.id)));
        }
        record(tx, cx, volume, &instance, &mountpoint, host.as_deref(), &mode)?;
        volume.finish("in-use");
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

/// The attachments that are meant: the one that is named, or the only one.
fn meant(tx: &mut Tx<'_>, volume: &Object<Volume>, named: Option<&str>) -> Result<Vec<Object<Attachment>>> {
    let all = attach::of_volume(tx, &volume.id)?;
    match named {
        Some(id) => {
            let found: Vec<_> = all.into_iter().filter(|a| a.id == id).collect();
            if found.is_empty() {
                return Err(Error::bad_request(format!("Invalid volume: volume {} has no attachment {id}.", volume.id)));
            }
            Ok(found)
        }
        None if all.len() > 1 => Err(Error::bad_request(format!(
            "Invalid volume: volume {} has more than one attachment; name one by attachment_id.",
            volume.id
        ))),
        None => Ok(all),
    }
}

pub(super) async fn detach(call: Call, id: String, body: Value) -> Result<Reply> {
    let empty = Value::Object(api::Map::new());
    let body = if body.is_null() { empty } else { body };
    let named = Input::of(&body, "os-detach", &["attachment_id"])?.uuid("attachment_id")?.map(str::to_owned);
    change(&call, id, move |cx, tx, volume| {
        needs(volume, &["in-use", "detaching", "attaching", "available", "error", "error_detaching"], "detach")?;
        for mut a in meant(tx, volume, named.as_deref())? {
            if a.wanted || a.consumer.is_none() {
                // Somebody has it plugged: the end of that is reported.
                a.wanted = false;
                a.attach_status = "detaching".to_owned();
                a.deadline = Some(tx.now.plus(timing::DETACH).0);
                a.mark_deleting();
                a.save(tx)?;
                volume.intent += 1;
            } else {
                engine::tell(tx, &volume.id, &cx.request_id, &format!("{} does not have it any more", a.user()));
                engine::remove(tx, Attachment::DEF, &a.into_map()?);
            }
        }
        volume.admin_metadata.remove("attached_mode");
        let status = settled(tx, volume)?;
        volume.finish(&status);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

/// The administrator ends it without the consumer: the export is ended, which is the fence, and then the volume is free.
pub(super) async fn force_detach(call: Call, id: String, body: Value) -> Result<Reply> {
    let input = Input::of(&body, "os-force_detach", &["attachment_id", "connector"])?;
    let named = input.uuid("attachment_id")?.map(str::to_owned);
    change(&call, id, move |cx, tx, volume| {
        needs(volume, &["in-use", "detaching", "error_detaching", "error", "attaching"], "force detach")?;
        let seen = tx.get(&SEEN, &volume.id);
        let exports = seen.map(|s| s.field("exports").clone()).unwrap_or_default();
        let mut serves = false;
        for a in meant(tx, volume, named.as_deref())? {
            serves |= exports.as_array().is_some_and(|list| list.iter().any(|e| e["attachment_id"] == *a.id));
            if tx.get(&PLUGGED, &a.id).is_some() && a.consumer.is_none() && named.is_none() {
                return Err(Error::bad_request(format!(
                    "Invalid volume: server {} has volume {} plugged; name the attachment_id to take it away all the same.",
                    a.instance, volume.id
                )));
            }
            engine::tell(tx, &volume.id, &cx.request_id, &format!("It was taken away from {} by force", a.user()));
            engine::remove(tx, Attachment::DEF, &a.into_map()?);
        }
        volume.admin_metadata.remove("attached_mode");
        let status = settled(tx, volume)?;
        if serves {
            volume.finish("detaching");
            volume.wish(Some(Task::Revoke), tx.now, timing::DETACH);
        } else {
            volume.finish(&status);
        }
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}
