//! Security groups and addresses of a server's ports; until 2.43 also floating and fixed addresses.
use super::{Wish, wish};
use crate::{
    common::{by_index, elevated, map, object, text},
    resources::Server,
    server::{
        change, networks, records,
        state::{Needs, check_unlocked, vm},
        view::fixed_ips,
    },
    shape::{self, Shape, opt, req},
};
use api::{Call, Cx, Error, Map, Reply, Result};
use resource::{Object, engine};
use serde_json::{Value, json};
use store::Tx;

pub(super) const GROUP: Shape = Shape::Object(&[req("name", &shape::NAME)]);
pub(super) const ADD_FLOATING: Shape = Shape::Object(&[req("address", &shape::IP), opt("fixed_address", &shape::IP)]);
pub(super) const REMOVE_FLOATING: Shape = Shape::Object(&[req("address", &shape::IP)]);
pub(super) const ADD_FIXED: Shape = Shape::Object(&[req("networkId", &Shape::OneOf(&[&shape::TEXT, &shape::NOT_NEGATIVE]))]);
pub(super) const REMOVE_FIXED: Shape = Shape::Object(&[req("address", &shape::IP)]);

/// The server's ports as rows of the network service.
fn ports(tx: &mut Tx<'_>, cx: &Cx, server: &Object<Server>) -> Result<Vec<Map>> {
    let def = cx.registry.get("network/ports")?;
    Ok(server.nics.iter().filter_map(|n| tx.get(&def.table, &n.port_id).map(|r| object(&r).clone())).collect())
}

async fn change_groups(call: Call, server: Object<Server>, name: &str, add: bool) -> Result<Reply> {
    check_unlocked(&server, &call.cx)?;
    let group = networks::group(&call.cx, &call.reader(), server.project_id(), name);
    let group = group.map_err(|e| if e.kind == api::ErrorKind::BadRequest { Error::not_found(e.message) } else { e })?;
    let name = name.to_owned();
    change(&call, &server.id, move |cx, tx, server| {
        Needs { vm: None, tasks: None, launched: false }.check(server, "security_group")?;
        let def = cx.registry.get("network/ports")?;
        let mut found = false;
        for port in ports(tx, cx, server)? {
            let mut groups = crate::server::request::strings(port.get("security_groups"));
            let had = groups.contains(&group);
            found |= had;
            if had == add {
                continue;
            }
            groups.retain(|g| *g != group);
            if add {
                groups.push(group.clone());
            }
            let input = map(json!({ "security_groups": groups }));
            engine::update(tx, def, &elevated(cx), text(&port, "id"), &input)?;
        }
        if !add && !found {
            return Err(Error::not_found(format!("Security group {name} not associated with the instance {}", server.id)));
        }
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

pub(super) async fn add_group(call: Call, server: Object<Server>, body: Value) -> Result<Reply> {
    change_groups(call, server, body["name"].as_str().unwrap_or_default(), true).await
}
pub(super) async fn remove_group(call: Call, server: Object<Server>, body: Value) -> Result<Reply> {
    change_groups(call, server, body["name"].as_str().unwrap_or_default(), false).await
}

/// The floating address, if the caller may see it.
fn floating(call: &Call, address: &str) -> Result<Map> {
    let reader = call.reader();
    let def = call.cx.registry.get("network/floatingips")?;
    let found = by_index(&reader, &def.table, "floating_ip_address", address);
    let found = found.iter().find(|r| crate::common::is_shown(def, &call.cx, &reader, object(r)));
    found.map(|r| object(r).clone()).ok_or_else(|| Error::not_found("floating IP not found"))
}

pub(super) async fn add_floating(call: Call, server: Object<Server>, body: Value) -> Result<Reply> {
    let address = body["address"].as_str().unwrap_or_default();
    let wanted = body["fixed_address"].as_str().map(str::to_owned);
    let row = floating(&call, address)?;
    let id = text(&row, "id").to_owned();
    change(&call, &server.id, move |cx, tx, server| {
        let fits = |a: &String| wanted.as_ref().map_or(!a.contains(':'), |w| w == a);
        let port = ports(tx, cx, server)?.into_iter().find_map(|p| {
            let fixed = fixed_ips(&p).into_iter().find(fits)?;
            Some((text(&p, "id").to_owned(), fixed))
        });
        let Some((port, fixed)) = port else {
            return Err(Error::bad_request(match &wanted {
                Some(_) => "Specified fixed address not assigned to instance".to_owned(),
                None => "No fixed IPs associated to instance".to_owned(),
            }));
        };
        let def = cx.registry.get("network/floatingips")?;
        let input = map(json!({ "port_id": port, "fixed_ip_address": fixed }));
        engine::update(tx, def, cx, &id, &input).map_err(|e| Error::bad_request(e.message))?;
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

pub(super) async fn remove_floating(call: Call, server: Object<Server>, body: Value) -> Result<Reply> {
    let row = floating(&call, body["address"].as_str().unwrap_or_default())?;
    let id = text(&row, "id").to_owned();
    let port = text(&row, "port_id").to_owned();
    if !server.nics.iter().any(|n| n.port_id == port) {
        return Err(Error::conflict(format!(
            "Floating IP {} is not associated with instance {}.",
            text(&row, "floating_ip_address"),
            server.id
        )));
    }
    change(&call, &server.id, move |cx, tx, _| {
        let def = cx.registry.get("network/floatingips")?;
        engine::update(tx, def, cx, &id, &map(json!({ "port_id": null })))?;
        Ok(())
    })
    .await?;
    Ok(Reply::empty(202))
}

const FIXED: &[&str] = &[vm::ACTIVE, vm::PAUSED, vm::SUSPENDED, vm::STOPPED];

pub(super) async fn add_fixed(call: Call, server: Object<Server>, body: Value) -> Result<Reply> {
    let network = body["networkId"].as_str().unwrap_or_default().to_owned();
    let subnet = {
        let def = call.cx.registry.get("network/subnets")?;
        by_index(&call.reader(), &def.table, "network_id", &network).first().map(|r| r.id().to_owned())
    };
    let subnet = subnet.ok_or_else(|| Error::bad_request(format!("Network not found for {network}.")))?;
    let asked =
        Wish { method: "add_fixed_ip", action: "addFixedIp", event: "compute_add_fixed_ip", needs: Needs::vm(FIXED), task: "" };
    wish(&call, &server, asked, move |cx, tx, s| {
        let port = ports(tx, cx, s)?.into_iter().find(|p| text(p, "network_id") == network);
        let port = port.ok_or_else(|| Error::bad_request(format!("Network not found for {network}.")))?;
        let mut fixed = port.get("fixed_ips").and_then(Value::as_array).cloned().unwrap_or_default();
        fixed.push(json!({ "subnet_id": subnet }));
        set_fixed(tx, cx, s, &port, fixed)
    })
    .await?;
    Ok(Reply::empty(202))
}

pub(super) async fn remove_fixed(call: Call, server: Object<Server>, body: Value) -> Result<Reply> {
    let address = body["address"].as_str().unwrap_or_default().to_owned();
    let asked = Wish {
        method: "remove_fixed_ip",
        action: "removeFixedIp",
        event: "compute_remove_fixed_ip",
        needs: Needs::vm(FIXED),
        task: "",
    };
    wish(&call, &server, asked, move |cx, tx, s| {
        let port = ports(tx, cx, s)?.into_iter().find(|p| fixed_ips(p).contains(&address));
        let port =
            port.ok_or_else(|| Error::bad_request(format!("Fixed IP not found for address {address} on instance {}.", s.id)))?;
        let mut fixed = port.get("fixed_ips").and_then(Value::as_array).cloned().unwrap_or_default();
        fixed.retain(|f| f["ip_address"].as_str() != Some(&address));
        set_fixed(tx, cx, s, &port, fixed)
    })
    .await?;
    Ok(Reply::empty(202))
}

fn set_fixed(tx: &mut Tx<'_>, cx: &Cx, server: &mut Object<Server>, port: &Map, fixed: Vec<Value>) -> Result<()> {
    let def = cx.registry.get("network/ports")?;
    engine::update(tx, def, &elevated(cx), text(port, "id"), &map(json!({ "fixed_ips": fixed })))?;
    server.intent += 1;
    records::finish_action(tx, &mut server.body, None);
    Ok(())
}
