//! `POST /volumes/{id}/action`: one object whose one key names what to do.
mod attaching;
mod content;
mod image;
mod settings;

use crate::{
    common::{own, visible},
    resources::Volume,
};
use api::{Access, Call, Cx, Error, Reply, Result, Route};
use resource::{Object, Tx};
use serde_json::Value;

pub(crate) fn routes() -> Vec<Route> {
    vec![Route::new("POST", "/v3/volumes/{id}/action", Access::Authenticated, act)]
}

/// The action that a body names, and what it holds.
pub(crate) fn named(call: &Call) -> Result<(&str, &Value)> {
    let body = call.object()?;
    match (body.iter().next(), body.len()) {
        (Some((action, value)), 1) => Ok((action, value)),
        _ => Err(Error::bad_request("The request body must hold exactly one action.")),
    }
}

/// Rules of the actions: name and default.
pub(crate) const RULES: [(&str, &str); 21] = [
    ("volume_extension:volume_actions:reserve", "member"),
    ("volume_extension:volume_actions:unreserve", "member"),
    ("volume_extension:volume_actions:begin_detaching", "member"),
    ("volume_extension:volume_actions:roll_detaching", "member"),
    ("volume_extension:volume_actions:attach", "member"),
    ("volume_extension:volume_actions:detach", "member"),
    ("volume_extension:volume_admin_actions:force_detach", "admin"),
    ("volume_extension:volume_admin_actions:force_delete", "admin"),
    ("volume_extension:volume_admin_actions:reset_status", "admin"),
    ("volume_extension:volume_admin_actions:migrate_volume", "admin"),
    ("volume_extension:volume_actions:upload_image", "member"),
    ("volume_extension:volume_image_metadata:set", "member"),
    ("volume_extension:volume_image_metadata:remove", "member"),
    ("volume:extend", "member"),
    ("volume:retype", "member"),
    ("volume:revert_to_snapshot", "member"),
    ("volume:reimage", "member"),
    ("volume:update_readonly_flag", "member"),
    ("volume:set_bootable", "member"),
    ("volume_extension:volume_actions:initialize_connection", "member"),
    ("volume_extension:volume_unmanage", "admin"),
];

async fn act(call: Call) -> Result<Reply> {
    let volume: Object<Volume> = visible(&call, call.param("id"))?;
    let (action, body) = named(&call)?;
    let body = body.clone();
    let may = |rule: &str| call.require(rule, Some(&volume.map));
    let id = volume.id.clone();
    match action {
        "os-reserve" => may("volume_extension:volume_actions:reserve")?,
        "os-unreserve" => may("volume_extension:volume_actions:unreserve")?,
        "os-begin_detaching" => may("volume_extension:volume_actions:begin_detaching")?,
        "os-roll_detaching" => may("volume_extension:volume_actions:roll_detaching")?,
        "os-attach" => may("volume_extension:volume_actions:attach")?,
        "os-detach" => may("volume_extension:volume_actions:detach")?,
        "os-force_detach" => may("volume_extension:volume_admin_actions:force_detach")?,
        "os-force_delete" => may("volume_extension:volume_admin_actions:force_delete")?,
        "os-reset_status" => may("volume_extension:volume_admin_actions:reset_status")?,
        "os-migrate_volume" | "os-migrate_volume_completion" => may("volume_extension:volume_admin_actions:migrate_volume")?,
        "os-volume_upload_image" => may("volume_extension:volume_actions:upload_image")?,
        "os-set_image_metadata" => may("volume_extension:volume_image_metadata:set")?,
        "os-unset_image_metadata" => may("volume_extension:volume_image_metadata:remove")?,
        "os-show_image_metadata" => may("volume:get")?,
        "os-extend" => may("volume:extend")?,
        "os-retype" => may("volume:retype")?,
        "revert" => may("volume:revert_to_snapshot")?,
        "os-reimage" => may("volume:reimage")?,
        "os-update_readonly_flag" => may("volume:update_readonly_flag")?,
        "os-set_bootable" => may("volume:set_bootable")?,
        "os-initialize_connection" | "os-terminate_connection" => may("volume_extension:volume_actions:initialize_connection")?,
        "os-unmanage" => may("volume_extension:volume_unmanage")?,
        other => return Err(Error::bad_request(format!("There is no such action: {other}."))),
    }
    match action {
        "os-reserve" => attaching::reserve(call, id).await,
        "os-unreserve" => attaching::unreserve(call, id).await,
        "os-begin_detaching" => attaching::begin_detaching(call, id).await,
        "os-roll_detaching" => attaching::roll_detaching(call, id).await,
        "os-attach" => attaching::attach(call, id, body).await,
        "os-detach" => attaching::detach(call, id, body).await,
        "os-force_detach" => attaching::force_detach(call, id, body).await,
        "os-force_delete" => settings::force_delete(call, id).await,
        "os-reset_status" => settings::reset_status(call, id, body).await,
        "os-volume_upload_image" => image::upload(call, id, body).await,
        "os-set_image_metadata" => image::set_metadata(call, id, body).await,
        "os-unset_image_metadata" => image::unset_metadata(call, id, body).await,
        "os-show_image_metadata" => image::show_metadata(&volume),
        "os-extend" => content::extend(call, id, body).await,
        "os-retype" => content::retype(call, id, body).await,
        "revert" => content::revert(call, id, body).await,
        "os-reimage" => content::reimage(call, id, body).await,
        "os-update_readonly_flag" => settings::readonly(call, id, body).await,
        "os-set_bootable" => settings::bootable(call, id, body).await,
        "os-migrate_volume" | "os-migrate_volume_completion" => {
            Err(Error::bad_request("Volumes of this cloud stay on their host; copy the volume with source_volid instead."))
        }
        "os-unmanage" => Err(Error::bad_request("Volumes of this cloud cannot be given up; delete the volume instead.")),
        _ => Err(Error::bad_request(
            "Connections are made by attachments here: use /attachments with a connector (microversion 3.27 and later).",
        )),
    }
}

/// Changes the volume in one transaction.
async fn change<T: Send + 'static>(
    call: &Call,
    id: String,
    with: impl Fn(&Cx, &mut Tx<'_>, &mut Object<Volume>) -> Result<T> + Send + 'static,
) -> Result<T> {
    call.transact(move |cx, tx| {
        let mut volume: Object<Volume> = own(tx, cx, &id)?;
        let done = with(cx, tx, &mut volume)?;
        volume.map.insert("request_id".into(), (&*cx.request_id).into());
        volume.save(tx)?;
        Ok(done)
    })
    .await
}

/// 400 unless the volume has one of these statuses.
fn needs(volume: &Object<Volume>, statuses: &[&str], what: &str) -> Result<()> {
    if statuses.contains(&volume.status.as_str()) && volume.is_kept() {
        return Ok(());
    }
    Err(Error::bad_request(format!(
        "Invalid volume: Volume {} status must be {} to {what}, but the current status is {}.",
        volume.id,
        statuses.join(" or "),
        volume.status
    )))
}
