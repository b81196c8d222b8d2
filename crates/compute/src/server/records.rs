//! What is kept of a server beside its row: instance actions, allocations, quota, user data, and what was deleted.
use crate::{
    common::{ACTIONS, ALLOCATIONS, DELETED, PROVIDERS, SNAPSHOTS, USER_DATA, elevated, next_number, object},
    proxies::MIGRATIONS,
    quota,
    resources::{
        Server,
        server::{FlavorCopy, Nic},
    },
    server::state::{task, vm},
};
use api::{Cx, Error, Map, Result};
use base::Timestamp;
use resource::{Object, Resource, engine};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use store::Tx;

/// Notes that a user asked for something; its event ends with [`finish_action`].
pub(crate) fn start_action(tx: &mut Tx<'_>, cx: &Cx, server: &mut Object<Server>, action: &str, event: &str) {
    let id = format!("{}:{}", server.id, cx.request_id);
    let open = json!([{ "event": event, "start_time": tx.now.0, "finish_time": null, "result": null, "host": server.host }]);
    let row = json!({
        "instance_uuid": server.id, "action": action, "request_id": &*cx.request_id, "user_id": cx.caller.user_id(),
        "project_id": server.project_id(), "start_time": tx.now.0, "updated_at": tx.now.0, "message": null,
        "events": if event.is_empty() { json!([]) } else { open },
    });
    tx.put(&ACTIONS, &id, row);
    server.action = (!event.is_empty()).then_some(id);
}

/// Notes that the server moves, or changes its size, for `os-migrations`; gives the row's id.
pub(crate) fn start_migration(
    tx: &mut Tx<'_>,
    cx: &Cx,
    server: &Object<Server>,
    kind: &str,
    from: &FlavorCopy,
    to: &FlavorCopy,
) -> String {
    let (id, number) = (base::id::uuid(), next_number(tx, "migrations"));
    let row = json!({
        "number": number, "uuid": id, "instance_uuid": server.id, "project_id": server.project_id(), "user_id": cx.caller.user_id(),
        "status": "migrating", "migration_type": kind, "source_compute": server.host, "dest_compute": server.host,
        "old_instance_type_id": from.id, "new_instance_type_id": to.id, "created_at": tx.now.0, "updated_at": null,
    });
    tx.put(&MIGRATIONS, &id, row);
    id
}

/// Notes how far a migration is: `finished`, `confirmed`, `reverted`, `error`.
pub(crate) fn note_migration(tx: &mut Tx<'_>, id: &str, status: &str) {
    if let Some(row) = tx.get(&MIGRATIONS, id) {
        let mut row = object(&row).clone();
        row.insert("status".into(), status.into());
        row.insert("updated_at".into(), tx.now.0.into());
        tx.put(&MIGRATIONS, id, row.into());
    }
}

/// Ends the event of the action under way.
pub(crate) fn finish_action(tx: &mut Tx<'_>, server: &mut Server, failed: Option<&str>) {
    if let Some(resize) = &server.resize {
        let id = resize.migration.clone();
        match server.vm_state.as_str() {
            vm::RESIZED => note_migration(tx, &id, "finished"),
            vm::ERROR => note_migration(tx, &id, "error"),
            _ => {}
        }
    }
    let Some(id) = server.action.take() else { return };
    let Some(row) = tx.get(&ACTIONS, &id) else { return };
    let mut row = object(&row).clone();
    if let Some(event) = row.get_mut("events").and_then(Value::as_array_mut).and_then(|l| l.last_mut()) {
        event["finish_time"] = tx.now.0.into();
        event["result"] = if failed.is_some() { "Error" } else { "Success" }.into();
        event["details"] = failed.map_or(Value::Null, Into::into);
    }
    if failed.is_some() {
        row.insert("message".into(), "Error".into());
    }
    row.insert("updated_at".into(), tx.now.0.into());
    tx.put(&ACTIONS, &id, row.into());
}

/// What a flavor takes of a host: resource classes and amounts.
pub(crate) fn resources_of(flavor: &FlavorCopy) -> BTreeMap<String, i64> {
    let disk = flavor.disk + flavor.ephemeral + (flavor.swap + 1023) / 1024;
    let mut out: BTreeMap<String, i64> =
        [("VCPU", flavor.vcpus), ("MEMORY_MB", flavor.ram), ("DISK_GB", disk)].map(|(k, v)| (k.to_owned(), v)).into();
    for (key, value) in &flavor.extra_specs {
        if let (Some(class), Ok(amount)) = (key.strip_prefix("resources:"), value.parse()) {
            out.insert(class.to_owned(), amount);
        }
    }
    out.retain(|_, amount| *amount > 0);
    out
}

/// The larger of both for each class: what a server holds while a resize waits to be confirmed.
pub(crate) fn larger(a: &BTreeMap<String, i64>, b: &BTreeMap<String, i64>) -> BTreeMap<String, i64> {
    let mut out = a.clone();
    for (class, amount) in b {
        let held = out.entry(class.clone()).or_default();
        *held = (*held).max(*amount);
    }
    out
}

/// What servers may have of an inventory: its total without what is reserved, times the allocation ratio.
pub(crate) fn capacity(inventory: &Value) -> i64 {
    let number = |key: &str| inventory.get(key).and_then(Value::as_f64);
    let total = number("total").unwrap_or(0.0) - number("reserved").unwrap_or(0.0);
    (total * number("allocation_ratio").unwrap_or(1.0)) as i64
}

/// Room of one class that a provider has for others than `mine`.
pub(crate) fn free(provider: &Map, class: &str, mine: i64) -> i64 {
    let Some(inventory) = provider.get("inventories").and_then(|i| i.get(class)) else { return 0 };
    let used = provider.get("used").and_then(|u| u.get(class)).and_then(Value::as_i64).unwrap_or(0);
    capacity(inventory) - used + mine
}

fn amounts(value: Option<&Value>) -> BTreeMap<String, i64> {
    let object = value.and_then(Value::as_object);
    object.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_i64()?))).collect()
}

/// Makes the server's allocation on the provider what `wanted` says, and counts the provider's use, in this transaction. Fails with
/// 409 where it does not fit.
pub(crate) fn allocate(
    tx: &mut Tx<'_>,
    server: &Object<Server>,
    provider_id: &str,
    wanted: &BTreeMap<String, i64>,
) -> Result<()> {
    let held = held_by(tx, &server.id);
    let Some(provider) = tx.get(&PROVIDERS, provider_id) else {
        return Err(Error::conflict("No valid host was found. The host has no resource provider."));
    };
    let mine = held.get(provider_id).cloned().unwrap_or_default();
    let short =
        wanted.iter().find(|(class, amount)| free(object(&provider), class, mine.get(*class).copied().unwrap_or(0)) < **amount);
    if let Some((class, amount)) = short {
        return Err(Error::conflict(format!("No valid host was found. The host has no room for {amount} of {class}.")));
    }
    for (other, old) in &held {
        count(tx, other, old, &BTreeMap::new());
    }
    count(tx, provider_id, &BTreeMap::new(), wanted);
    let generation = tx.get(&ALLOCATIONS, &server.id).and_then(|r| r.field("consumer_generation").as_i64()).unwrap_or(0);
    tx.put(
        &ALLOCATIONS,
        &server.id,
        json!({
            "consumer_id": server.id, "project_id": server.project_id(), "user_id": server.user_id, "consumer_type": "INSTANCE",
            "consumer_generation": generation + 1, "allocations": { provider_id: wanted },
        }),
    );
    Ok(())
}

/// Gives back all that the server holds.
pub(crate) fn deallocate(tx: &mut Tx<'_>, server_id: &str) {
    for (provider, held) in held_by(tx, server_id) {
        count(tx, &provider, &held, &BTreeMap::new());
    }
    tx.delete(&ALLOCATIONS, server_id);
}

fn held_by(tx: &mut Tx<'_>, server_id: &str) -> BTreeMap<String, BTreeMap<String, i64>> {
    let Some(row) = tx.get(&ALLOCATIONS, server_id) else { return BTreeMap::new() };
    let all = row.field("allocations").as_object().cloned().unwrap_or_default();
    all.iter().map(|(provider, held)| (provider.clone(), amounts(held.get("resources").or(Some(held))))).collect()
}

fn count(tx: &mut Tx<'_>, provider_id: &str, minus: &BTreeMap<String, i64>, plus: &BTreeMap<String, i64>) {
    let Some(row) = tx.get(&PROVIDERS, provider_id) else { return };
    let mut row = object(&row).clone();
    let mut used = amounts(row.get("used"));
    for (class, amount) in minus {
        *used.entry(class.clone()).or_default() -= amount;
    }
    for (class, amount) in plus {
        *used.entry(class.clone()).or_default() += amount;
    }
    used.retain(|_, n| *n > 0);
    let generation = row.get("generation").and_then(Value::as_i64).unwrap_or(0);
    row.insert("generation".into(), (generation + 1).into());
    row.insert("used".into(), json!(used));
    tx.put(&PROVIDERS, provider_id, row.into());
}

/// What one server counts against quotas.
pub(crate) fn quota_of(flavor: &FlavorCopy) -> [(&'static str, i64); 3] {
    [("instances", 1), ("cores", flavor.vcpus), ("ram", flavor.ram)]
}

/// Lets go of a port: one that was made for the server is deleted, another one is free again.
pub(crate) fn release_port(tx: &mut Tx<'_>, cx: &Cx, nic: &Nic) -> Result<()> {
    let ports = cx.registry.get("network/ports")?;
    let cx = elevated(cx);
    if tx.get(&ports.table, &nic.port_id).is_none_or(|r| r.field("deleting") == &Value::Bool(true)) {
        return Ok(());
    }
    if nic.ours {
        engine::delete(tx, ports, &cx, &nic.port_id)?;
    } else {
        let mut input = Map::new();
        for field in ["device_id", "device_owner", "binding:host_id"] {
            if ports.field(field).is_some() {
                input.insert(field.into(), "".into());
            }
        }
        engine::update(tx, ports, &cx, &nic.port_id, &input)?;
    }
    Ok(())
}

/// Takes the server away for good: ports, attachments, allocation, quota, user data, images under way, consoles, row. Its last form is kept for a
/// day, for `changes-since` and its instance actions.
pub(crate) fn remove(tx: &mut Tx<'_>, cx: &Cx, mut server: Object<Server>) -> Result<()> {
    for nic in &server.nics.clone() {
        release_port(tx, cx, nic)?;
    }
    crate::nodes::volumes::end_all(tx, cx, &server.id, true)?;
    deallocate(tx, &server.id);
    let held = server.resize.as_ref().map_or(0, |r| (r.old.vcpus - server.flavor.vcpus).max(0));
    let held_ram = server.resize.as_ref().map_or(0, |r| (r.old.ram - server.flavor.ram).max(0));
    let mut counted = quota_of(&server.flavor);
    counted[1].1 += held;
    counted[2].1 += held_ram;
    quota::release(tx, server.project_id(), &server.user_id, &counted);
    tx.delete(&USER_DATA, &server.id);
    for row in tx.find(&SNAPSHOTS, "server_id", &server.id) {
        abandon_snapshot(tx, cx, row.id())?;
    }
    if let Some(image) = server.shelved_image.take() {
        drop_image(tx, cx, &image)?;
    }
    for row in tx.find(&crate::common::CONSOLES, "server_id", &server.id) {
        tx.delete(&crate::common::CONSOLES, row.id());
    }
    server.terminated_at = Some(tx.now.0);
    finish_action(tx, &mut server.body, None);
    server.vm_state = vm::DELETED.to_owned();
    server.task_state = None;
    server.seed = String::new();
    let id = server.id.clone();
    let mut map = server.into_map()?;
    engine::remove(tx, Server::DEF, &map);
    map.insert("deleted".into(), true.into());
    map.insert("deleted_at".into(), tx.now.0.into());
    map.insert("updated_at".into(), tx.now.0.into());
    map.remove("nics");
    tx.put(&DELETED, &id, map.into());
    Ok(())
}

/// Ends the making of an image that is not wanted any more, and removes what there is of it.
pub(crate) fn abandon_snapshot(tx: &mut Tx<'_>, cx: &Cx, image_id: &str) -> Result<()> {
    tx.delete(&SNAPSHOTS, image_id);
    drop_image(tx, cx, image_id)
}

/// Deletes an image, if it is there.
pub(crate) fn drop_image(tx: &mut Tx<'_>, cx: &Cx, image_id: &str) -> Result<()> {
    let images = cx.registry.get("image/images")?;
    if tx.get(&images.table, image_id).is_some_and(|r| r.field("deleting") != &Value::Bool(true)) {
        engine::delete(tx, images, &elevated(cx), image_id)?;
    }
    Ok(())
}

/// Begins or ends a task: its name and how long it may take.
pub(crate) fn begin(server: &mut Server, cx: &Cx, name: &str, now: Timestamp) {
    server.task_state = Some(name.to_owned());
    server.deadline = Some(now.plus(super::plan::allowance(name, build_timeout(cx))).0);
}

fn build_timeout(cx: &Cx) -> std::time::Duration {
    cx.state.get::<crate::Config>().unwrap_or_default().build_timeout
}

/// Marks the server as being deleted. The node's end is awaited where it has one; otherwise it goes at once.
pub(crate) fn begin_deletion(tx: &mut Tx<'_>, cx: &Cx, mut server: Object<Server>) -> Result<()> {
    start_action(tx, cx, &mut server, "delete", "compute_terminate_instance");
    crate::nodes::volumes::end_all(tx, cx, &server.id, false)?;
    if server.node_id.is_none() {
        return remove(tx, cx, server);
    }
    begin(&mut server.body, cx, task::DELETING, tx.now);
    engine::tell(tx, &server.id, &cx.request_id, &format!("User {} asked to delete it", cx.caller.user_id()));
    let id = server.id.clone();
    let request = cx.request_id.clone();
    let mut map = server.into_map()?;
    map.insert("deleting".into(), true.into());
    crate::common::touch(&mut map, tx.now, &request);
    tx.put(&Server::DEF.table, &id, map.into());
    Ok(())
}

/// Writes the server back after a change.
pub(crate) fn save(tx: &mut Tx<'_>, server: Object<Server>, request_id: &str) -> Result<Map> {
    let id = server.id.clone();
    let mut map = server.into_map()?;
    crate::common::touch(&mut map, tx.now, request_id);
    tx.put(&Server::DEF.table, &id, Value::Object(map.clone()));
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flavors_take_resources_and_extra_specs_change_them() {
        let mut flavor = FlavorCopy { vcpus: 2, ram: 512, disk: 0, ephemeral: 1, swap: 100, ..FlavorCopy::default() };
        assert_eq!(json!(resources_of(&flavor)), json!({"DISK_GB": 2, "MEMORY_MB": 512, "VCPU": 2}));
        flavor.extra_specs.insert("resources:VCPU".into(), "0".into());
        flavor.extra_specs.insert("resources:CUSTOM_GOLD".into(), "1".into());
        assert_eq!(json!(resources_of(&flavor)), json!({"CUSTOM_GOLD": 1, "DISK_GB": 2, "MEMORY_MB": 512}));
    }

    #[test]
    fn room_counts_ratio_reserve_and_what_one_holds_already() {
        let provider = crate::common::map(json!({
            "inventories": {"VCPU": {"total": 2, "reserved": 1, "allocation_ratio": 4.0}}, "used": {"VCPU": 3},
        }));
        assert_eq!((free(&provider, "VCPU", 0), free(&provider, "VCPU", 2), free(&provider, "DISK_GB", 0)), (1, 3, 0));
    }
}
