//! This host's switch as its database describes it: who we are, our bridges, and the host's end of the provider bridge.
use crate::{Config, Datapath, Error, Provider, no_offload};
use base::id::{Mac, named};
use ovsdb::{Client, Endpoint, Replica, Tables, value};
use serde_json::{Value, json};
use std::time::Duration;
use supervise::ip;

pub(crate) const DATABASE: &str = "Open_vSwitch";
const WITHIN: Duration = Duration::from_secs(15);

/// The `Open_vSwitch` database, followed.
#[derive(Debug)]
pub(crate) struct Switch {
    client: Client,
    pub(crate) replica: Replica,
}

impl Switch {
    pub(crate) async fn connect(endpoint: Endpoint) -> Result<Self, Error> {
        let client = Client::new(vec![endpoint]);
        let tables: &[(&str, &[&str])] = &[
            ("Open_vSwitch", &["external_ids", "bridges", "cur_cfg", "next_cfg"]),
            ("Bridge", &["name", "ports", "datapath_type"]),
            ("Port", &["name", "interfaces"]),
            ("Interface", &["name", "external_ids", "ofport", "error"]),
        ];
        let replica = client.monitor(DATABASE, tables).await?;
        Ok(Self { client, replica })
    }

    /// Carries out `operations` and waits until the switch has taken them over.
    pub(crate) async fn change(&self, mut operations: Vec<Value>) -> Result<(), Error> {
        operations.push(json!({"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]}));
        operations.push(json!({"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["next_cfg"]}));
        let results = self.client.transact(DATABASE, operations).await?;
        let goal = results.last().and_then(|r| r["rows"][0]["next_cfg"].as_i64()).unwrap_or_default();
        let taken = |t: &Tables| (t.rows("Open_vSwitch").next()?.1.get("cur_cfg")?.as_i64()? >= goal).then_some(());
        Ok(self.replica.wait(WITHIN, "the switch to take the change over", taken).await?)
    }

    /// Writes who we are and where OVN is, if it is not written yet.
    pub(crate) async fn describe(&self, config: &Config, southbound: &[Endpoint], datapath: Datapath) -> Result<(), Error> {
        let southbound = southbound.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(",");
        let mappings = config.provider.iter().map(|p| format!("{}:{}", p.physical_network, p.bridge));
        let pairs = [
            ("system-id", config.system_id.clone()),
            ("hostname", config.system_id.clone()),
            ("ovn-remote", southbound),
            ("ovn-encap-type", "geneve".into()),
            ("ovn-encap-ip", config.encap_ip.to_string()),
            ("ovn-bridge", config.integration_bridge.clone()),
            ("ovn-bridge-datapath-type", datapath.name().into()),
            ("ovn-bridge-mappings", mappings.collect::<Vec<_>>().join(",")),
        ];
        let known = |t: &Tables| {
            let (_, row) = t.rows("Open_vSwitch").next()?;
            let ids = row.get("external_ids")?;
            Some(pairs.iter().all(|(k, v)| value::lookup(ids, k) == Some(v)))
        };
        let operation = match self.replica.read(known) {
            Some(true) => return Ok(()),
            Some(false) => {
                let keys = value::strings(pairs.iter().map(|(k, _)| k));
                let mutations = json!([["external_ids", "delete", keys], ["external_ids", "insert", value::map(pairs)]]);
                json!({"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": mutations})
            }
            None => json!({"op": "insert", "table": "Open_vSwitch", "row": {"external_ids": value::map(pairs)}}),
        };
        self.client.transact(DATABASE, vec![operation]).await?;
        Ok(())
    }
}

/// Makes our bridges and sets up the host's end of the provider bridge.
pub(crate) async fn ensure(switch: &Switch, config: &Config, datapath: Datapath) -> Result<(), Error> {
    // OVN would make it too, but ports may be plugged before it gets there.
    ensure_bridge(
        switch,
        &config.integration_bridge,
        datapath,
        stable_mac(config, &config.integration_bridge),
        &[("fail_mode", json!("secure"))],
    )
    .await?;
    let Some(provider) = &config.provider else { return Ok(()) };
    // Before there is a way to the host, what it lets through.
    if let Some(nat) = &provider.nat {
        nat.ensure().await?;
    }
    ensure_bridge(switch, &provider.bridge, datapath, stable_mac(config, &provider.bridge), &[]).await?;
    if let Some(uplink) = &provider.uplink {
        ensure_port(switch, &provider.bridge, uplink).await?;
        ip(config.netns.as_deref(), &format!("link set {uplink} up")).await?;
    }
    host_end(config, provider, datapath).await
}

pub(crate) async fn ensure_bridge(
    switch: &Switch,
    name: &str,
    datapath: Datapath,
    mac: Mac,
    more: &[(&str, Value)],
) -> Result<(), Error> {
    let there = switch.replica.read(|t| t.find("Bridge", "name", &Value::from(name)).is_some());
    if there {
        return Ok(());
    }
    // A fixed MAC: neighbours keep talking to the host after the switch was restarted and its device made anew.
    let mac = value::map([("hwaddr", mac.to_string())]);
    let mut bridge = json!({
        "name": name, "datapath_type": datapath.name(), "ports": value::named("p"), "other_config": mac,
        "external_ids": value::map([("drover", "1")]),
    });
    for (column, datum) in more {
        bridge[*column] = datum.clone();
    }
    let operations = vec![
        json!({"op": "insert", "table": "Interface", "uuid-name": "i", "row": {"name": name, "type": "internal"}}),
        json!({"op": "insert", "table": "Port", "uuid-name": "p", "row": {"name": name, "interfaces": value::named("i")}}),
        json!({"op": "insert", "table": "Bridge", "uuid-name": "b", "row": bridge}),
        json!({"op": "mutate", "table": "Open_vSwitch", "where": [],
               "mutations": [["bridges", "insert", value::set([value::named("b")])]]}),
    ];
    switch.change(operations).await
}

/// Makes a network card a port of the bridge.
pub(crate) async fn ensure_port(switch: &Switch, bridge: &str, uplink: &str) -> Result<(), Error> {
    if switch.replica.read(|t| t.find("Port", "name", &Value::from(uplink)).is_some()) {
        return Ok(());
    }
    let operations = vec![
        json!({"op": "insert", "table": "Interface", "uuid-name": "i", "row": {"name": uplink}}),
        json!({"op": "insert", "table": "Port", "uuid-name": "p", "row": {"name": uplink, "interfaces": value::named("i")}}),
        json!({"op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]],
               "mutations": [["ports", "insert", value::set([value::named("p")])]]}),
    ];
    switch.change(operations).await
}

/// The bridge's device is the host's own port on the provider network: bring it up and give it its addresses.
async fn host_end(config: &Config, provider: &Provider, datapath: Datapath) -> Result<(), Error> {
    let (netns, bridge) = (config.netns.as_deref(), &provider.bridge);
    ip(netns, &format!("link set {bridge} up")).await?;
    for address in &provider.addresses {
        ip(netns, &format!("address replace {address} dev {bridge}")).await?;
    }
    if datapath == Datapath::Netdev {
        no_offload(netns, bridge).await?;
        if let Some(uplink) = &provider.uplink {
            no_offload(netns, uplink).await?;
        }
    }
    Ok(())
}

/// The same locally administered MAC for the same bridge of the same host; hosts may be joined by their uplinks.
fn stable_mac(config: &Config, bridge: &str) -> Mac {
    let digits = named(&format!("bridge/{}/{bridge}", config.system_id)).replace('-', "");
    let octet = |i: usize| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap_or(0);
    Mac([0x02, octet(0), octet(1), octet(2), octet(3), octet(4)])
}
