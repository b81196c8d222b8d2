//! `shelve`, `shelveOffload`, `unshelve`: the server becomes an image and leaves its host, until it is wanted again.
use super::{
    Wish,
    image::{self, Making},
    wish,
};
use crate::{
    common::object,
    resources::Server,
    scheduler,
    server::{
        images, networks, records,
        state::{Needs, task, vm},
    },
    shape::{self, Shape, opt},
};
use api::{Call, Cx, Error, Reply, Result};
use assign::Power;
use resource::Object;
use serde_json::Value;
use store::Tx;

pub(super) const UNSHELVE: Shape = Shape::OneOf(&[
    &Shape::Null,
    &Shape::Object(&[opt("availability_zone", &shape::NAME_OR_NULL).since(77), opt("host", &shape::FQDN).since(91)]),
]);

pub(super) async fn shelve(call: Call, server: Object<Server>) -> Result<Reply> {
    let needs = Needs::vm(&[vm::ACTIVE, vm::STOPPED, vm::PAUSED, vm::SUSPENDED]);
    let asked = Wish { method: "shelve", action: "shelve", event: "compute_shelve_instance", needs, task: task::SHELVING };
    if server.boot_volume {
        // Its disk stays where it is, so that there is nothing to keep an image of.
        let asked = Wish { task: task::OFFLOADING, ..asked };
        wish(&call, &server, asked, |_, _, s| {
            s.was_stopped = s.vm_state == vm::STOPPED;
            s.power = Power::Stopped;
            Ok(())
        })
        .await?;
        return Ok(Reply::empty(202));
    }
    wish(&call, &server, asked, |cx, tx, s| {
        let making = Making {
            name: format!("{}-shelved", s.name).chars().take(255).collect(),
            kind: "shelve",
            backup_type: String::new(),
            rotation: 0,
            metadata: Default::default(),
        };
        let image = image::begin(tx, cx, s, &making)?;
        s.shelved_image = Some(image);
        s.was_stopped = s.vm_state == vm::STOPPED;
        s.power = Power::Stopped;
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

pub(super) async fn offload(call: Call, server: Object<Server>) -> Result<Reply> {
    let needs = Needs::vm(&[vm::SHELVED]);
    let asked = Wish {
        method: "shelve_offload",
        action: "shelveOffload",
        event: "compute_shelve_offload_instance",
        needs,
        task: task::OFFLOADING,
    };
    wish(&call, &server, asked, |_, _, _| Ok(())).await?;
    Ok(Reply::empty(202))
}

/// Chooses a host for a server that has none, claims the room and binds its ports there. The epoch grows.
pub(super) fn place(
    tx: &mut Tx<'_>,
    cx: &Cx,
    server: &mut Object<Server>,
    zone: Option<&str>,
    host: Option<&str>,
    avoid: &[String],
) -> Result<()> {
    let mut spec = scheduler::spec_of(tx, server);
    spec.zone = zone.map(str::to_owned).or(spec.zone);
    spec.host = host.map(str::to_owned);
    spec.avoid = avoid.to_vec();
    let rows = scheduler::Rows::read(tx);
    let found = scheduler::pick(&rows.hosts(), &spec).map(scheduler::Host::place);
    let Some(found) = found else {
        return Err(Error::bad_request("No valid host was found. There are not enough hosts available."));
    };
    records::allocate(tx, server, &found.node_id, &spec.resources)?;
    server.node_id = Some(found.node_id);
    server.host = Some(found.host);
    server.epoch += 1;
    server.reboot = assign::Reboot::default();
    crate::nodes::volumes::move_all(tx, cx, &server.id, server.epoch)?;
    networks::rebind(tx, cx, server)
}

pub(super) async fn unshelve(call: Call, server: Object<Server>, body: Value) -> Result<Reply> {
    let zone = body.get("availability_zone").cloned();
    let host = body.get("host").and_then(Value::as_str).map(str::to_owned);
    if host.is_some() {
        call.require("os_compute_api:os-shelve:unshelve_to_host", Some(&server.map))?;
    }
    if zone.is_some() && server.vm_state != vm::OFFLOADED {
        return Err(Error::conflict(format!("The server {} is not offloaded; its zone cannot be chosen.", server.id)));
    }
    if let Some(Value::String(zone)) = &zone
        && !crate::zones::names(&call.reader()).contains(zone)
    {
        return Err(Error::bad_request("The requested availability zone is not available"));
    }
    if let Some(host) = &host
        && !crate::zones::hosts(&call.reader()).contains(host)
    {
        return Err(Error::bad_request(format!("Compute host {host} could not be found.")));
    }
    let needs = Needs::vm(&[vm::SHELVED, vm::OFFLOADED]);
    let asked =
        Wish { method: "unshelve", action: "unshelve", event: "compute_unshelve_instance", needs, task: task::UNSHELVING };
    wish(&call, &server, asked, move |cx, tx, s| {
        if let Some(zone) = &zone {
            s.pinned_availability_zone = zone.as_str().map(str::to_owned);
        }
        s.power = Power::Running;
        if s.vm_state == vm::SHELVED && s.node_id.is_some() {
            return Ok(());
        }
        if !s.boot_volume {
            let image = s.shelved_image.clone().unwrap_or_default();
            let table = &cx.registry.get("image/images")?.table;
            let row = tx.get(table, &image);
            let row =
                row.ok_or_else(|| Error::bad_request(format!("Image {image} of the shelved server could not be found.")))?;
            s.root = Some(images::usable(object(&row), &s.flavor)?);
        }
        let zone = s.pinned_availability_zone.clone();
        place(tx, cx, s, zone.as_deref(), host.as_deref(), &[])
    })
    .await?;
    Ok(Reply::empty(202))
}
