//! `resize`, `confirmResize`, `revertResize`: another flavor on the same host. The room of both flavors is held until the user decides.
use super::{Wish, wish};
use crate::{
    common::{flag, is_shown, object},
    quota,
    resources::{
        Flavor, Server, flavor,
        server::{FlavorCopy, Resize},
    },
    server::{
        records,
        state::{Needs, check_unlocked, task, vm},
    },
    shape::{self, Shape, opt, req},
};
use api::{Call, Error, Reply, Result};
use assign::Power;
use resource::{Object, Resource};
use serde_json::Value;

pub(super) const RESIZE: Shape =
    Shape::Object(&[req("flavorRef", &shape::FLAVOR_REF), opt("OS-DCF:diskConfig", &shape::DISK_CONFIG)]);

/// What the new flavor needs beyond the old one.
fn growth(old: &FlavorCopy, new: &FlavorCopy) -> [(&'static str, i64); 2] {
    [("cores", (new.vcpus - old.vcpus).max(0)), ("ram", (new.ram - old.ram).max(0))]
}

pub(super) async fn resize(call: Call, server: Object<Server>, body: Value) -> Result<Reply> {
    let id = match &body["flavorRef"] {
        Value::String(s) => crate::common::id_of(s).to_owned(),
        v => v.to_string(),
    };
    let new = {
        let reader = call.reader();
        let row = reader.get(&Flavor::DEF.table, &id).filter(|r| is_shown(Flavor::DEF, &call.cx, &reader, object(r)));
        let row = row.filter(|r| !flag(object(r), "OS-FLV-DISABLED:disabled"));
        flavor::copy(&*row.ok_or_else(|| Error::bad_request(format!("Flavor {id} could not be found.")))?)
    };
    let config = body.get("OS-DCF:diskConfig").and_then(Value::as_str).map(str::to_owned);
    let needs = Needs::vm(&[vm::ACTIVE, vm::STOPPED]);
    let asked = Wish { method: "resize", action: "resize", event: "compute_prep_resize", needs, task: task::RESIZE_PREP };
    wish(&call, &server, asked, move |cx, tx, s| {
        let old = s.flavor.clone();
        if new.id == old.id {
            return Err(Error::bad_request("When resizing, instances must change flavor!"));
        }
        if new.disk == 0 && old.disk > 0 {
            return Err(Error::bad_request("Resize to zero disk flavor is not allowed."));
        }
        if new.disk < old.disk {
            return Err(Error::bad_request("Unable to resize disk down."));
        }
        if s.root.as_ref().is_some_and(|i| i.min_ram > new.ram) {
            return Err(Error::bad_request("Flavor's memory is too small for requested image."));
        }
        quota::charge(tx, cx, s.project_id(), &s.user_id.clone(), &growth(&old, &new))?;
        let both = records::larger(&records::resources_of(&old), &records::resources_of(&new));
        let node = s.node_id.clone().ok_or_else(|| Error::conflict(format!("Instance {} has no host.", s.id)))?;
        records::allocate(tx, s, &node, &both).map_err(|e| Error::bad_request(e.message))?;
        let migration = records::start_migration(tx, cx, s, "resize", &old, &new);
        let was_stopped = s.vm_state == vm::STOPPED;
        s.resize = Some(Resize { migration, old, was_stopped, old_disk_config: s.disk_config.clone() });
        s.flavor = new.clone();
        if let Some(config) = &config {
            s.disk_config.clone_from(config);
        }
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

pub(super) async fn confirm(call: Call, server: Object<Server>) -> Result<Reply> {
    check_unlocked(&server, &call.cx)?;
    let needs = Needs::vm(&[vm::RESIZED]);
    let asked = Wish { method: "confirm_resize", action: "confirmResize", event: "compute_confirm_resize", needs, task: "" };
    wish(&call, &server, asked, |_, tx, s| {
        let resize = s.resize.take().ok_or_else(|| Error::bad_request("Instance has not been resized."))?;
        records::note_migration(tx, &resize.migration, "confirmed");
        let user = s.user_id.clone();
        quota::release(tx, s.project_id(), &user, &growth(&s.flavor, &resize.old));
        if let Some(node) = s.node_id.clone() {
            let wanted = records::resources_of(&s.flavor);
            records::allocate(tx, s, &node, &wanted)?;
        }
        s.vm_state = if resize.was_stopped || s.power == Power::Stopped { vm::STOPPED } else { vm::ACTIVE }.to_owned();
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

pub(super) async fn revert(call: Call, server: Object<Server>) -> Result<Reply> {
    let needs = Needs::vm(&[vm::RESIZED]);
    let asked = Wish {
        method: "revert_resize",
        action: "revertResize",
        event: "compute_revert_resize",
        needs,
        task: task::RESIZE_REVERTING,
    };
    wish(&call, &server, asked, |_, tx, s| {
        let resize = s.resize.take().ok_or_else(|| Error::bad_request("Instance has not been resized."))?;
        records::note_migration(tx, &resize.migration, "reverted");
        let user = s.user_id.clone();
        quota::release(tx, s.project_id(), &user, &growth(&resize.old, &s.flavor));
        s.flavor = resize.old;
        s.disk_config = resize.old_disk_config;
        s.power = if resize.was_stopped { Power::Stopped } else { Power::Running };
        if let Some(node) = s.node_id.clone() {
            let wanted = records::resources_of(&s.flavor);
            records::allocate(tx, s, &node, &wanted)?;
        }
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}
