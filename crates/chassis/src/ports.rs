//! Interfaces of guests on the integration bridge.
use crate::{Config, Datapath, Error, bridge::Switch, no_offload};
use ovsdb::{Tables, value};
use serde_json::{Value, json};
use std::time::Duration;

/// Which port of the cloud an interface is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// OVN's `iface-id`: the name of the logical switch port.
    pub port_id: String,
    pub mac: Option<String>,
    /// The server that it belongs to; only for people who look.
    pub owner: Option<String>,
}

/// An interface that is plugged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugged {
    pub interface: String,
    pub port_id: String,
    pub mac: Option<String>,
    /// The switch has it; false while its device is missing.
    pub working: bool,
}

pub(crate) async fn plug(
    switch: &Switch,
    config: &Config,
    datapath: Datapath,
    interface: &str,
    attachment: &Attachment,
) -> Result<(), Error> {
    if interface.is_empty() || interface.len() > 15 {
        return Err(Error::Name(interface.to_owned()));
    }
    let mac = attachment.mac.as_ref().map(|mac| ("attached-mac", mac.as_str()));
    let owner = attachment.owner.as_ref().map(|owner| ("vm-id", owner.as_str()));
    let ids: Vec<_> =
        [("iface-id", attachment.port_id.as_str()), ("iface-status", "active")].into_iter().chain(mac).chain(owner).collect();
    let wanted = value::map(ids.iter().copied());
    let current = switch.replica.read(|t| on_bridge(t, &config.integration_bridge, interface));
    if datapath == Datapath::Netdev {
        // A tap has no such feature to switch off; then nothing is left to do.
        let _ = no_offload(config.netns.as_deref(), interface).await;
    }
    let operations = match current {
        Place::Here { ids: now } if ids.iter().all(|(k, v)| now.iter().any(|(a, b)| a == k && b == v)) => Vec::new(),
        Place::Here { .. } => vec![json!({
            "op": "update", "table": "Interface", "where": [["name", "==", interface]], "row": {"external_ids": wanted},
        })],
        Place::Elsewhere => {
            let text = "it is on another bridge".to_owned();
            return Err(Error::Interface { interface: interface.to_owned(), text });
        }
        Place::Nowhere => vec![
            json!({"op": "insert", "table": "Interface", "uuid-name": "i", "row": {"name": interface, "external_ids": wanted}}),
            json!({"op": "insert", "table": "Port", "uuid-name": "p",
                   "row": {"name": interface, "interfaces": value::named("i")}}),
            json!({"op": "mutate", "table": "Bridge", "where": [["name", "==", config.integration_bridge]],
                   "mutations": [["ports", "insert", value::set([value::named("p")])]]}),
        ],
    };
    if !operations.is_empty() {
        switch.change(operations).await?;
    }
    works(switch, interface).await
}

/// Waits for the switch's verdict on the interface: a number, or an error.
async fn works(switch: &Switch, interface: &str) -> Result<(), Error> {
    const WITHIN: Duration = Duration::from_secs(10);
    let verdict = |t: &Tables| {
        let (_, row) = t.find("Interface", "name", &Value::from(interface))?;
        if number(row).is_some_and(|n| n > 0) {
            return Some(Ok(()));
        }
        let text = value::atoms(row.get("error")?).first()?.as_str()?.to_owned();
        Some(Err(Error::Interface { interface: interface.to_owned(), text }))
    };
    switch.replica.wait(WITHIN, "the switch to use the interface", verdict).await?
}

pub(crate) async fn unplug(switch: &Switch, bridge: &str, interface: &str) -> Result<(), Error> {
    let port = |t: &Tables| {
        let (id, _) = t.find("Port", "name", &Value::from(interface))?;
        let (_, row) = t.find("Bridge", "name", &Value::from(bridge))?;
        value::uuids(row.get("ports")?).any(|p| p == id).then(|| id.to_owned())
    };
    let Some(id) = switch.replica.read(port) else { return Ok(()) };
    let operation = json!({
        "op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]],
        "mutations": [["ports", "delete", value::set([value::uuid(&id)])]],
    });
    switch.change(vec![operation]).await
}

pub(crate) fn list(switch: &Switch, bridge: &str) -> Vec<Plugged> {
    let mut all: Vec<_> = switch.replica.read(|t| interfaces(t, bridge).into_iter().filter_map(plugged).collect());
    all.sort_by(|a, b| a.interface.cmp(&b.interface));
    all
}

fn plugged(row: &ovsdb::Row) -> Option<Plugged> {
    let ids = row.get("external_ids")?;
    Some(Plugged {
        interface: row.get("name")?.as_str()?.to_owned(),
        port_id: value::lookup(ids, "iface-id")?.to_owned(),
        mac: value::lookup(ids, "attached-mac").map(str::to_owned),
        working: number(row).is_some_and(|n| n > 0),
    })
}

fn number(row: &ovsdb::Row) -> Option<i64> {
    value::atoms(row.get("ofport")?).first()?.as_i64()
}

fn interfaces<'t>(tables: &'t Tables, bridge: &str) -> Vec<&'t ovsdb::Row> {
    let Some((_, bridge)) = tables.find("Bridge", "name", &Value::from(bridge)) else { return Vec::new() };
    let ports = bridge.get("ports").into_iter().flat_map(value::uuids);
    let ports = ports.filter_map(|id| tables.row("Port", id)?.get("interfaces"));
    ports.flat_map(value::uuids).filter_map(|id| tables.row("Interface", id)).collect()
}

/// Where an interface is now.
enum Place {
    Nowhere,
    Elsewhere,
    Here { ids: Vec<(String, String)> },
}

fn on_bridge(tables: &Tables, bridge: &str, interface: &str) -> Place {
    let name = Value::from(interface);
    let here = interfaces(tables, bridge).into_iter().find(|row| row.get("name") == Some(&name));
    match here {
        Some(row) => {
            let ids = row.get("external_ids").into_iter().flat_map(value::pairs);
            Place::Here { ids: ids.map(|(k, v)| (k.to_owned(), v.to_owned())).collect() }
        }
        None if tables.find("Port", "name", &name).is_some() => Place::Elsewhere,
        None => Place::Nowhere,
    }
}
