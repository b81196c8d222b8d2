//! The namespace of one network's metadata service, and a listening socket in it.
use crate::{Error, command::Tool, nic};
use assign::MetadataNetwork;
use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
};

const INNER: &str = "meta0";
const SERVICE: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const RUN: &str = "/run/netns";

/// Names of what a network needs; they follow from its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) namespace: String,
    /// The end that is plugged into the switch.
    pub(super) outer: String,
}

impl Place {
    pub(super) fn new(namespace_prefix: &str, interface_prefix: &str, network_id: &str) -> Self {
        let short = nic::short(network_id);
        Self { namespace: format!("{namespace_prefix}{short}"), outer: format!("{interface_prefix}m{short}") }
    }
    /// All that exist on this host, half-made ones too.
    pub(super) fn all(namespace_prefix: &str, interface_prefix: &str) -> Vec<Self> {
        let interface_prefix = format!("{interface_prefix}m");
        let namespaces = fs::read_dir(RUN).into_iter().flatten().flatten();
        let of_namespaces = namespaces.filter_map(|e| Some(e.file_name().to_str()?.strip_prefix(namespace_prefix)?.to_owned()));
        let interfaces = nic::with_prefix(&interface_prefix);
        let of_interfaces = interfaces.iter().filter_map(|n| Some(n.strip_prefix(&interface_prefix)?.to_owned()));
        let shorts: std::collections::BTreeSet<String> = of_namespaces.chain(of_interfaces).collect();
        let place = |s| Self { namespace: format!("{namespace_prefix}{s}"), outer: format!("{interface_prefix}{s}") };
        shorts.into_iter().map(place).collect()
    }
    fn path(&self) -> PathBuf {
        Path::new(RUN).join(&self.namespace)
    }

    /// Makes the namespace, its interface and its addresses so.
    pub(super) async fn ensure(&self, network: &MetadataNetwork, offloads: bool) -> Result<(), Error> {
        let Self { namespace, outer } = self;
        if !self.path().exists() {
            Tool::new("ip").args(["netns", "add", namespace]).run().await?;
        }
        if !nic::exists(outer) {
            let add = ["link", "add", outer, "type", "veth", "peer", "name", INNER, "netns", namespace];
            Tool::new("ip").args(add).run().await?;
            nic::silence(outer);
        }
        let mtu = network.mtu.to_string();
        Tool::new("ip").args(["link", "set", "dev", outer.as_str(), "mtu", &mtu, "up"]).run().await?;
        let present = Tool::new("ip").args(["-n", namespace, "-j", "address", "show", "dev", INNER]).run().await?;
        let wanted: Vec<String> = network.addresses.iter().cloned().chain([format!("{SERVICE}/32")]).collect();
        let batch = commands(&present, &wanted, &network.mac, &mtu);
        Tool::new("ip").args(["-n", namespace, "-batch", "-"]).input(batch).run().await?;
        if !offloads {
            // The userspace datapath forwards packets as they are: half a checksum would never be finished.
            Tool::new("ip").args(["netns", "exec", namespace, "ethtool", "-K", INNER, "tx", "off"]).run().await?;
        }
        Ok(())
    }

    /// Opens the service's socket inside the namespace: on a thread of its own, because a thread that entered one does not come back.
    pub(super) async fn listen(&self) -> Result<tokio::net::TcpListener, Error> {
        let path = self.path();
        let open = move || -> io::Result<TcpListener> {
            nix::sched::setns(File::open(path)?, nix::sched::CloneFlags::CLONE_NEWNET)?;
            let listener = TcpListener::bind((SERVICE, 80))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let (done, opened) = tokio::sync::oneshot::channel();
        let failed = || Error::io(format!("listening in namespace {}", self.namespace));
        std::thread::Builder::new().name("metadata-socket".into()).spawn(move || drop(done.send(open()))).map_err(failed())?;
        let listener = opened.await.map_err(io::Error::other).flatten().map_err(failed())?;
        tokio::net::TcpListener::from_std(listener).map_err(failed())
    }

    pub(super) async fn remove(&self) -> Result<(), Error> {
        if nic::exists(&self.outer) {
            nic::delete(&self.outer).await?;
        }
        if self.path().exists() {
            Tool::new("ip").args(["netns", "delete", &self.namespace]).run().await?;
        }
        Ok(())
    }
}

/// Commands for `ip -batch` that lead from the present addresses to the wanted ones.
fn commands(present: &str, wanted: &[String], mac: &str, mtu: &str) -> String {
    let present: serde_json::Value = serde_json::from_str(present).unwrap_or_default();
    let addresses = present[0]["addr_info"].as_array().cloned().unwrap_or_default();
    let mut out = format!("link set dev lo up\nlink set dev {INNER} address {mac} mtu {mtu} up\n");
    for a in addresses.iter().filter(|a| a["scope"] != "link") {
        let text = format!("{}/{}", a["local"].as_str().unwrap_or_default(), a["prefixlen"]);
        // Addresses that routers announced come and go by themselves.
        if !wanted.contains(&text) && a["dynamic"] != true {
            out.push_str(&format!("address delete {text} dev {INNER}\n"));
        }
    }
    for a in wanted {
        let nodad = if a.contains(':') { " nodad" } else { "" };
        out.push_str(&format!("address replace {a} dev {INNER}{nodad}\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_the_network() {
        let present = r#"[{"addr_info":[{"local":"10.0.0.2","prefixlen":24,"scope":"global"},
            {"local":"10.0.9.2","prefixlen":24,"scope":"global"},{"local":"fe80::1","prefixlen":64,"scope":"link"}]}]"#;
        let wanted = ["10.0.0.2/24".to_owned(), "fd00::2/64".to_owned()];
        assert_eq!(
            commands(present, &wanted, "fa:16:3e:00:00:01", "1442"),
            "link set dev lo up\nlink set dev meta0 address fa:16:3e:00:00:01 mtu 1442 up\naddress delete 10.0.9.2/24 dev meta0\n\
             address replace 10.0.0.2/24 dev meta0\naddress replace fd00::2/64 dev meta0 nodad\n"
        );
    }
}
