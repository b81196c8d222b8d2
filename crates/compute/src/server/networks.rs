//! Interfaces of servers: which networks and ports were meant, and the ports that are made or taken for them.
use super::request::{self, Networks};
use crate::{
    common::{by_index, elevated, flag, foreign, foreign_all, is_shown, map, object, text},
    resources::{Server, server::Nic},
};
use api::{Cx, Error, ErrorKind, Map, Result};
use resource::{Object, Reader, engine};
use serde_json::{Value, json};
use store::Tx;

/// An interface that can be made: everything about it was looked up and may be used by the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    New { network: String, fixed_ip: Option<String>, tag: Option<String> },
    Given { port: String, tag: Option<String> },
}

fn network(cx: &Cx, reader: &Reader<'_>, id: &str) -> Result<std::sync::Arc<resource::Row>> {
    foreign(cx, reader, "network/networks", id)?.ok_or_else(|| Error::bad_request(format!("Network {id} could not be found.")))
}

/// May the caller plug a server into it?
fn check_attachable(cx: &Cx, network: &Map) -> Result<()> {
    let is_mine = cx.caller.project_id() == Some(text(network, "project_id"));
    if flag(network, "router:external")
        && !flag(network, "shared")
        && !is_mine
        && !cx.may("network:attach_external_network", None)
    {
        return Err(Error::forbidden(format!(
            "It is not allowed to create an interface on external network {}",
            text(network, "id")
        )));
    }
    Ok(())
}

fn has_subnet(cx: &Cx, reader: &Reader<'_>, network: &str) -> Result<bool> {
    let subnets = cx.registry.get("network/subnets")?;
    Ok(!by_index(reader, &subnets.table, "network_id", network).is_empty())
}

/// Networks that a server without a wish goes to: the project's own and the shared ones.
fn available(cx: &Cx, reader: &Reader<'_>) -> Result<Vec<String>> {
    let project = cx.caller.project_id().unwrap_or_default();
    let all = foreign_all(cx, reader, "network/networks")?;
    let fits = |n: &Map| (text(n, "project_id") == project || flag(n, "shared")) && !flag(n, "router:external");
    Ok(all.iter().filter(|r| fits(object(r))).map(|r| r.id().to_owned()).collect())
}

/// Looks up what was asked for, as the caller may see it.
pub(crate) fn resolve(cx: &Cx, reader: &Reader<'_>, asked: &Networks, count: i64) -> Result<Vec<Wanted>> {
    let list = match asked {
        Networks::None => return Ok(Vec::new()),
        Networks::Default | Networks::Auto => {
            let mut found = available(cx, reader)?;
            if *asked == Networks::Default {
                found.retain(|n| has_subnet(cx, reader, n).unwrap_or(false));
            }
            return match found.as_slice() {
                [] if *asked == Networks::Auto => {
                    Err(Error::bad_request("Unable to automatically allocate a network for the project; create one first."))
                }
                [] => Ok(Vec::new()),
                [one] => Ok(vec![Wanted::New { network: one.clone(), fixed_ip: None, tag: None }]),
                _ => Err(Error::conflict("Multiple possible networks found, use a Network ID to be more specific.")),
            };
        }
        Networks::List(list) => list,
    };
    if count > 1 && list.iter().any(|n| n.port.is_some()) {
        return Err(Error::bad_request(
            "Failed to launch multiple servers with one port: a port can be used once. Leave the port out.",
        ));
    }
    if count > 1 && list.iter().any(|n| n.fixed_ip.is_some()) {
        return Err(Error::bad_request("Invalid request for fixed IP and multiple servers: an address can be used once."));
    }
    list.iter().map(|nic| one(cx, reader, nic)).collect()
}

pub(crate) fn one(cx: &Cx, reader: &Reader<'_>, nic: &request::Nic) -> Result<Wanted> {
    if let Some(id) = &nic.port {
        let ports = cx.registry.get("network/ports")?;
        let row = reader.get(&ports.table, id).filter(|r| is_shown(ports, cx, reader, object(r)));
        let row = row.ok_or_else(|| Error::bad_request(format!("Port id {id} could not be found.")))?;
        let port = object(&row);
        check_free(port)?;
        if super::view::fixed_ips(port).is_empty() && has_subnet(cx, reader, text(port, "network_id"))? {
            return Err(Error::bad_request(format!("Port {id} requires a FixedIP in order to be used.")));
        }
        return Ok(Wanted::Given { port: id.clone(), tag: nic.tag.clone() });
    }
    let id = nic.network.clone().unwrap_or_default();
    let row = network(cx, reader, &id)?;
    check_attachable(cx, object(&row))?;
    if !has_subnet(cx, reader, &id)? {
        return Err(Error::bad_request(format!("Network {id} requires a subnet in order to boot instances on.")));
    }
    Ok(Wanted::New { network: id, fixed_ip: nic.fixed_ip.clone(), tag: nic.tag.clone() })
}

fn check_free(port: &Map) -> Result<()> {
    if text(port, "device_id").is_empty() {
        return Ok(());
    }
    Err(Error::conflict(format!("Port {} is still in use.", text(port, "id"))))
}

/// Ids of security groups by name or id. `None` leaves the choice to the network service: its default group.
pub(crate) fn groups(cx: &Cx, reader: &Reader<'_>, project: &str, names: Option<&[String]>) -> Result<Option<Vec<String>>> {
    let Some(names) = names.filter(|n| !n.is_empty() && *n != ["default"]) else { return Ok(None) };
    names.iter().map(|n| group(cx, reader, project, n)).collect::<Result<Vec<_>>>().map(Some)
}

/// One security group of the project.
pub(crate) fn group(cx: &Cx, reader: &Reader<'_>, project: &str, name: &str) -> Result<String> {
    let def = cx.registry.get("network/security_groups")?;
    let mine = by_index(reader, &def.table, "project_id", project);
    if let Some(row) = mine.iter().find(|r| r.id() == name) {
        return Ok(row.id().to_owned());
    }
    let mut found = mine.iter().filter(|r| r.text("name") == name);
    match (found.next(), found.next()) {
        (Some(row), None) => Ok(row.id().to_owned()),
        (Some(_), Some(_)) => {
            Err(Error::conflict(format!("Multiple security groups found matching '{name}'. Use an ID to be more specific.")))
        }
        (None, _) => Err(Error::bad_request(format!("Security group {name} not found."))),
    }
}

/// Errors of the network service in Nova's words.
fn translated(e: Error) -> Error {
    match e.kind {
        ErrorKind::OverQuota => Error::forbidden("Maximum number of ports exceeded"),
        ErrorKind::NotFound => Error::bad_request(e.message),
        ErrorKind::Conflict
            if e.code.as_deref().is_some_and(|c| c.contains("IpAddress") && c.contains("llocated") || c.contains("InUse")) =>
        {
            Error::bad_request(format!("Fixed IP address is already in use. {}", e.message))
        }
        _ => e,
    }
}

/// Makes the port, or takes the given one, for the server on its host.
pub(crate) fn plug(tx: &mut Tx<'_>, cx: &Cx, server: &Object<Server>, wanted: &Wanted, groups: Option<&[String]>) -> Result<Nic> {
    let ports = cx.registry.get("network/ports")?;
    let cx = elevated(cx);
    let mut binding = map(json!({ "device_id": server.id, "device_owner": format!("compute:{}", zone_label(server)) }));
    if let Some(host) = &server.host
        && ports.field("binding:host_id").is_some()
    {
        binding.insert("binding:host_id".into(), host.as_str().into());
    }
    match wanted {
        Wanted::Given { port, tag } => {
            let row = tx.get(&ports.table, port).filter(|r| r.field("deleting") != &Value::Bool(true));
            let row = row.ok_or_else(|| Error::bad_request(format!("Port id {port} could not be found.")))?;
            check_free(object(&row))?;
            engine::update(tx, ports, &cx, port, &binding).map_err(translated)?;
            Ok(Nic { port_id: port.clone(), tag: tag.clone(), ours: false })
        }
        Wanted::New { network, fixed_ip, tag } => {
            let mut input = binding;
            input.insert("network_id".into(), network.as_str().into());
            input.insert("project_id".into(), server.project_id().into());
            if let Some(address) = fixed_ip {
                input.insert("fixed_ips".into(), json!([{ "ip_address": address }]));
            }
            if let Some(groups) = groups {
                input.insert("security_groups".into(), json!(groups));
            }
            let row = engine::create(tx, ports, &cx, &input).map_err(translated)?;
            Ok(Nic { port_id: text(&row, "id").to_owned(), tag: tag.clone(), ours: true })
        }
    }
}

/// The owner's zone in `device_owner`.
fn zone_label(server: &Object<Server>) -> &str {
    server.pinned_availability_zone.as_deref().unwrap_or(crate::zones::DEFAULT)
}

/// Binds the server's ports to another host.
pub(crate) fn rebind(tx: &mut Tx<'_>, cx: &Cx, server: &Object<Server>) -> Result<()> {
    let ports = cx.registry.get("network/ports")?;
    if ports.field("binding:host_id").is_none() {
        return Ok(());
    }
    let cx = elevated(cx);
    let input = map(json!({ "binding:host_id": server.host.clone().unwrap_or_default() }));
    for nic in &server.nics {
        if tx.get(&ports.table, &nic.port_id).is_some() {
            engine::update(tx, ports, &cx, &nic.port_id, &input)?;
        }
    }
    Ok(())
}
