//! The way of tunnels out of this host, where the switch forwards by itself.
//!
//! The userspace datapath sends tunnels through a bridge of its own alone. So the interface that has the tunnels' address becomes a port of
//! one, and the bridge's device takes over its addresses and routes; what they were is kept in a file, as the device forgets them with each end of the
//! switch. The kernel's datapath needs nothing of this.
use crate::{
    Config, Datapath, Error,
    bridge::{Switch, ensure_bridge, ensure_port},
    no_offload,
};
use base::id::Mac;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use supervise::ip;

/// Which interface, and the bridge that takes it in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underlay {
    pub bridge: String,
    pub interface: String,
}

/// What an interface had.
#[derive(Debug, PartialEq, Eq)]
struct Had {
    /// With their prefix lengths.
    addresses: Vec<String>,
    /// As `ip route` takes them, without the device.
    routes: Vec<String>,
}

impl Had {
    async fn now(netns: Option<&str>, interface: &str) -> Result<Self, Error> {
        let list = async |line: String| ip(netns, &line).await.map(|text| serde_json::from_str(&text).unwrap_or_default());
        let addresses: Value = list(format!("-j address show dev {interface} scope global")).await?;
        let routes: Value = list(format!("-j route show dev {interface}")).await?;
        Ok(Self::of(&addresses, &routes))
    }

    /// From what `ip -j` prints.
    fn of(addresses: &Value, routes: &Value) -> Self {
        let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let infos = all(addresses).into_iter().flat_map(|link| all(&link["addr_info"]));
        let address = |info: Value| Some(format!("{}/{}", info["local"].as_str()?, info["prefixlen"].as_u64()?));
        let route = |route: Value| {
            let mut line = route["dst"].as_str()?.to_owned();
            if let Some(via) = route["gateway"].as_str() {
                line.push_str(&format!(" via {via}"));
            }
            if let Some(metric) = route["metric"].as_u64() {
                line.push_str(&format!(" metric {metric}"));
            }
            Some(line)
        };
        // Those of the kernel come with the addresses.
        let given = all(routes).into_iter().filter(|r| r["protocol"] != "kernel");
        Self { addresses: infos.filter_map(address).collect(), routes: given.filter_map(route).collect() }
    }

    fn read(path: &Path) -> Option<Self> {
        let kept: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        let texts = |of: &Value| of.as_array().into_iter().flatten().filter_map(|t| t.as_str().map(str::to_owned)).collect();
        Some(Self { addresses: texts(&kept["addresses"]), routes: texts(&kept["routes"]) })
    }

    fn write(&self, path: &Path) -> Result<(), Error> {
        let next = path.with_extension("next");
        let text = json!({ "addresses": self.addresses, "routes": self.routes }).to_string();
        let written = std::fs::write(&next, text).and_then(|()| std::fs::rename(&next, path));
        written.map_err(|source| Error::File { path: path.into(), source })
    }

    async fn put(&self, netns: Option<&str>, device: &str) -> Result<(), Error> {
        for address in &self.addresses {
            ip(netns, &format!("address replace {address} dev {device}")).await?;
        }
        for route in &self.routes {
            ip(netns, &format!("route replace {route} dev {device}")).await?;
        }
        Ok(())
    }
}

fn file(config: &Config) -> PathBuf {
    config.run_dir.join("underlay.json")
}

/// Takes the interface in, or finds that it is.
pub(crate) async fn ensure(switch: &Switch, config: &Config, datapath: Datapath) -> Result<(), Error> {
    let Some(Underlay { bridge, interface }) = config.underlay.as_ref().filter(|_| datapath == Datapath::Netdev) else {
        return Ok(());
    };
    let netns = config.netns.as_deref();
    let now = Had::now(netns, interface).await?;
    let had = if now.addresses.is_empty() {
        Had::read(&file(config)).ok_or_else(|| {
            let text = "it has no address for tunnels".to_owned();
            Error::Interface { interface: interface.clone(), text }
        })?
    } else {
        now.write(&file(config))?;
        now
    };
    // The bridge's MAC is the interface's: neighbours need not learn another one.
    ensure_bridge(switch, bridge, datapath, mac(netns, interface).await?, &[]).await?;
    ensure_port(switch, bridge, interface).await?;
    no_offload(netns, interface).await?;
    no_offload(netns, bridge).await?;
    ip(netns, &format!("address flush dev {interface} scope global")).await?;
    ip(netns, &format!("link set {interface} up")).await?;
    ip(netns, &format!("link set {bridge} up")).await?;
    had.put(netns, bridge).await
}

/// Gives the interface back what it had. The bridge is gone by then.
pub(crate) async fn give_back(config: &Config) -> Result<(), Error> {
    let Some(underlay) = &config.underlay else { return Ok(()) };
    let Some(had) = Had::read(&file(config)) else { return Ok(()) };
    had.put(config.netns.as_deref(), &underlay.interface).await?;
    std::fs::remove_file(file(config)).map_err(|source| Error::File { path: file(config), source })
}

async fn mac(netns: Option<&str>, interface: &str) -> Result<Mac, Error> {
    let links: Value = serde_json::from_str(&ip(netns, &format!("-j link show dev {interface}")).await?).unwrap_or_default();
    let mac = links[0]["address"].as_str().and_then(Mac::parse);
    mac.ok_or_else(|| Error::Interface { interface: interface.into(), text: "it has no MAC address".into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_interface_has_is_kept_and_read_again() {
        let addresses = json!([{"ifname": "eth0", "addr_info": [
            {"family": "inet", "local": "10.77.0.11", "prefixlen": 24, "scope": "global"},
            {"family": "inet6", "local": "fd00::b", "prefixlen": 64, "scope": "global"}]}]);
        let routes = json!([
            {"dst": "default", "gateway": "10.77.0.1", "protocol": "dhcp", "metric": 100},
            {"dst": "10.9.0.0/16", "gateway": "10.77.0.9", "protocol": "static"},
            {"dst": "10.77.0.0/24", "protocol": "kernel", "scope": "link", "prefsrc": "10.77.0.11"}]);
        let had = Had::of(&addresses, &routes);
        assert_eq!(had.addresses, ["10.77.0.11/24", "fd00::b/64"]);
        assert_eq!(had.routes, ["default via 10.77.0.1 metric 100", "10.9.0.0/16 via 10.77.0.9"]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("underlay.json");
        had.write(&path).unwrap();
        assert_eq!(Had::read(&path), Some(had));
        assert_eq!(Had::read(&dir.path().join("nothing")), None);
    }
}
