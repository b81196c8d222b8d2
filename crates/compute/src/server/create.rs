//! `POST /servers`: everything that a server needs is claimed in one transaction, or nothing is.
//!
//! What the caller may see (flavor, image, networks, groups) is looked up first; the transaction then counts quota, picks hosts, writes
//! allocations, makes ports and rows. Like Nova, a server for which no host has room is made all the same, in error, so that its owner
//! learns why.
use super::{
    devices, images,
    networks::{self, Wanted},
    plan, records,
    request::Request,
    state::task,
};
use crate::{
    common::{USER_DATA, flag, is_shown, object},
    quota,
    resources::{
        Flavor, Keypair, Server, flavor, keypair,
        server::{FlavorCopy, ImageCopy, KeyCopy},
    },
    scheduler::{self, Place},
};
use api::{Call, Cx, Error, Reply, Result};
use base64::Engine as _;
use resource::{Object, Resource, engine};
use serde_json::{Value, json};
use store::Tx;

/// Everything about a create that was looked up and found good.
#[derive(Clone)]
struct Order {
    request: Request,
    flavor: FlavorCopy,
    image: ImageCopy,
    key: Option<KeyCopy>,
    nics: Vec<Wanted>,
    groups: Option<Vec<String>>,
    reservation_id: String,
    project: String,
}

pub(crate) async fn create(call: Call) -> Result<Reply> {
    call.require("os_compute_api:servers:create", None)?;
    let request = Request::read(call.json(), &call.cx)?;
    let order = look_up(&call, request)?;
    let admin_pass = order.request.admin_pass.clone().unwrap_or_else(password);
    let shown_groups = call.json()["server"].get("security_groups").cloned().unwrap_or_else(|| json!([{ "name": "default" }]));
    let (reservation, wants_reservation) = (order.reservation_id.clone(), order.request.wants_reservation);
    let id = call.transact(move |cx, tx| place_all(tx, cx, &order)).await?;
    if wants_reservation {
        return Ok(Reply::json(202, json!({ "reservation_id": reservation })));
    }
    let links = super::view::links(&call.cx, &id);
    let location = format!("{}/v2.1/servers/{id}", call.cx.public);
    let disk_config = call.json()["server"].get("OS-DCF:diskConfig").cloned().unwrap_or_else(|| "MANUAL".into());
    let server = json!({ "id": id, "links": links, "OS-DCF:diskConfig": disk_config, "security_groups": shown_groups, "adminPass": admin_pass });
    Ok(Reply::json(202, json!({ "server": server })).header("location", location))
}

fn look_up(call: &Call, request: Request) -> Result<Order> {
    let cx = &call.cx;
    let project = cx.project()?;
    let reader = call.reader();
    let row = reader.get(&Flavor::DEF.table, &request.flavor).filter(|r| is_shown(Flavor::DEF, cx, &reader, object(r)));
    let row = row.filter(|r| !flag(object(r), "OS-FLV-DISABLED:disabled"));
    let flavor = flavor::copy(&*row.ok_or_else(|| Error::bad_request(format!("Flavor {} could not be found.", request.flavor)))?);
    for device in &request.devices {
        devices::check(cx, &reader, device)?;
    }
    let root = request.devices.iter().find(|d| d.boot);
    // A volume has a size of its own.
    let unbound = FlavorCopy { disk: 0, ..flavor.clone() };
    let image = match (root.map(|d| &d.source), &root) {
        (Some(devices::Source::Image(id)), _) => {
            images::usable(&images::find(cx, &reader, id, "Can not find requested image")?, &unbound)?
        }
        (_, Some(root)) => devices::image_of(cx, &reader, root)?,
        (_, None) => images::usable(&images::find(cx, &reader, &request.image, "Can not find requested image")?, &flavor)?,
    };
    let key = match &request.key_name {
        None => None,
        Some(name) => Some(key(&reader, cx, name)?),
    };
    if let Some(zone) = &request.zone
        && !crate::zones::names(&reader).contains(zone)
    {
        return Err(Error::bad_request("The requested availability zone is not available"));
    }
    if let Some(host) = &request.host
        && !crate::zones::hosts(&reader).contains(host)
    {
        return Err(Error::bad_request(format!("Compute host {host} could not be found.")));
    }
    if let Some(hostname) = &request.hostname
        && request.max_count > 1
    {
        return Err(Error::bad_request(format!("Unable to allocate a single hostname '{hostname}' to multiple instances.")));
    }
    let limit = quota::limits_of(&reader, cx, &project, Some(cx.caller.user_id()));
    quota::check_metadata(limit("metadata_items"), request.metadata.len())?;
    let nics = networks::resolve(cx, &reader, &request.networks, request.max_count)?;
    let groups = networks::groups(cx, &reader, &project, request.groups.as_deref())?;
    let reservation_id = format!("r-{}", &base::id::hex()[..8]);
    Ok(Order { request, flavor, image, key, nics, groups, reservation_id, project })
}

pub(crate) fn key(reader: &resource::Reader<'_>, cx: &Cx, name: &str) -> Result<KeyCopy> {
    let row = reader.get(&Keypair::DEF.table, &keypair::key(cx.caller.user_id(), name));
    let row = row.ok_or_else(|| Error::bad_request("Invalid key_name provided."))?;
    Ok(KeyCopy { name: name.to_owned(), kind: row.text("type").to_owned(), public_key: row.text("public_key").to_owned() })
}

/// A password for the guest's administrator; it is shown once and kept nowhere.
pub(crate) fn password() -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(rand::random::<[u8; 12]>())
}

fn place_all(tx: &mut Tx<'_>, cx: &Cx, order: &Order) -> Result<String> {
    let user = cx.caller.user_id();
    let each = records::quota_of(&order.flavor);
    let fits = quota::headroom(tx, cx, &order.project, user, &each, order.request.max_count);
    // Fewer than wanted may do, down to the least number; charging that number fails with the quota's name.
    let count = fits.max(order.request.min_count);
    let all: Vec<(&str, i64)> = each.iter().map(|(n, a)| (*n, a * count)).collect();
    quota::charge(tx, cx, &order.project, user, &all)?;
    let group = scheduler::group(tx, cx, &order.request.hints)?;
    if let Some(group) = &group {
        check_group_quota(tx, cx, order, &group.id, count)?;
    }
    let mut spec = scheduler::spec(tx, &order.request, &order.flavor, group, &order.reservation_id);
    let rows = scheduler::Rows::read(tx);
    let mut hosts = rows.hosts();
    let mut first = None;
    for index in 0..count {
        let place = scheduler::pick(&hosts, &spec).map(scheduler::Host::place);
        if let Some(place) = &place {
            scheduler::note(&mut hosts, &mut spec, place);
        }
        let group = spec.group.as_ref().map(|g| g.id.clone());
        let id = place_one(tx, cx, order, index, place.as_ref(), group)?;
        first.get_or_insert(id);
    }
    first.ok_or_else(|| Error::internal("a create of no servers"))
}

fn check_group_quota(tx: &mut Tx<'_>, cx: &Cx, order: &Order, group: &str, count: i64) -> Result<()> {
    let most = quota::limit(tx, cx, &order.project, "server_group_members");
    let user = cx.caller.user_id();
    let members = tx.find(&Server::DEF.table, "group_id", group);
    let mine = members.iter().filter(|r| r.text("user_id") == user && !flag(object(r), "deleting")).count() as i64;
    if most >= 0 && mine + count > most {
        return Err(Error::over_quota("Quota exceeded, too many servers in group"));
    }
    Ok(())
}

/// The host name that a guest gets from the server's name.
pub(crate) fn hostname(name: &str, id: &str) -> String {
    let plain: String = name
        .chars()
        .filter_map(|c| match c {
            ' ' | '_' => Some('-'),
            c if c.is_ascii_alphanumeric() || c == '-' || c == '.' => Some(c.to_ascii_lowercase()),
            _ => None,
        })
        .take(63)
        .collect();
    let plain = plain.trim_matches(|c| c == '.' || c == '-').replace('.', "-");
    if plain.is_empty() { format!("server-{id}") } else { plain }
}

fn place_one(
    tx: &mut Tx<'_>,
    cx: &Cx,
    order: &Order,
    index: i64,
    place: Option<&Place>,
    group: Option<String>,
) -> Result<String> {
    let request = &order.request;
    let id = base::id::uuid();
    let name = if request.max_count > 1 { format!("{}-{}", request.name, index + 1) } else { request.name.clone() };
    let boot_volume = request.devices.iter().any(|d| d.boot);
    let body = Server {
        hostname: request.hostname.clone().unwrap_or_else(|| hostname(&name, &id)),
        description: request.description.clone(),
        user_id: cx.caller.user_id().to_owned(),
        key_name: request.key_name.clone(),
        key: order.key.clone(),
        image_id: if boot_volume { String::new() } else { order.image.id.clone() },
        root: Some(order.image.clone()),
        boot_volume,
        // Generations count the node's own disks.
        generation: u64::from(!boot_volume),
        flavor: order.flavor.clone(),
        metadata: request.metadata.clone(),
        tags: request.tags.clone(),
        access_ipv4: request.access_ipv4.clone(),
        access_ipv6: request.access_ipv6.clone(),
        config_drive: request.config_drive,
        disk_config: request.disk_config.clone().unwrap_or_else(|| "MANUAL".to_owned()),
        pinned_availability_zone: request.zone.clone(),
        reservation_id: order.reservation_id.clone(),
        launch_index: u32::try_from(index).unwrap_or_default(),
        epoch: 1,
        node_id: place.map(|p| p.node_id.clone()),
        host: place.map(|p| p.host.clone()),
        scheduler_hints: request.hints.clone(),
        group_id: group,
        seed: base64::engine::general_purpose::STANDARD.encode(rand::random::<[u8; 48]>()),
        name,
        ..Server::default()
    };
    let mut server = Object::new(id.clone(), Some(&order.project), body, tx.now, &cx.request_id);
    records::start_action(tx, cx, &mut server, "create", "compute__do_build_and_run_instance");
    let who = cx.caller.user_id();
    match place {
        Some(place) => {
            records::allocate(tx, &server, &place.node_id, &records::resources_of(&order.flavor))?;
            for nic in &order.nics {
                let nic = networks::plug(tx, cx, &server, nic, order.groups.as_deref())?;
                server.nics.push(nic);
            }
            devices::plug(tx, cx, &server, &request.devices)?;
            records::begin(&mut server.body, cx, task::SPAWNING, tx.now);
            engine::tell(
                tx,
                &id,
                &cx.request_id,
                &format!("User {who} asked for server {}; host {} was chosen", server.name, place.host),
            );
        }
        None => {
            let cause = "No valid host was found. There are not enough hosts available.";
            engine::tell(tx, &id, &cx.request_id, &format!("User {who} asked for server {}; no host fits", server.name));
            plan::fail(&mut server.body, cause, tx.now);
            records::finish_action(tx, &mut server.body, Some(cause));
        }
    }
    if let Some(data) = &request.user_data {
        tx.put(&USER_DATA, &id, json!({ "data": data }));
    }
    tx.put(&Server::DEF.table, &id, Value::Object(server.into_map()?));
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_made_of_names() {
        for (name, want) in
            [("My Server_1", "my-server-1"), ("web.example.org", "web-example-org"), ("--x--", "x"), ("日本", "server-id")]
        {
            assert_eq!(hostname(name, "id"), want);
        }
        assert_eq!(password().len(), 16);
    }
}
