//! A real host of a cluster: its switch, its guests, and the way to OVN's databases on the controllers.
use crate::{
    config::{Config, State},
    host,
    node_role::Host,
};
use base::retry::Backoff;
use clap::Args;
use ipnet::Ipv4Net;
use link::{RemoteBlobs, Upstream};
use network::ovn::cluster;
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
};
use tokio::{sync::watch, time::sleep};

const AGAIN: Backoff = Backoff::new(std::time::Duration::from_millis(500), std::time::Duration::from_secs(10));

/// Flags of a real host's network. What is given is kept.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct NetworkFlags {
    /// Address that other hosts send tunnels to; an interface of this host has it [default: the host's address]. Since 0.1.
    #[arg(long, value_name = "ADDR", conflicts_with = "simulate")]
    tunnel_address: Option<IpAddr>,
    /// Network card that is on the provider network `public`, without an address of this host: routers may have their gateways here. Since 0.1.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["external", "simulate"])]
    uplink: Option<String>,
    /// This host itself is what lies beyond routers' gateways: it takes the first address of this network. For clouds in which one host
    /// has a way out; with several, give each an --uplink. Since 0.1.
    #[arg(long, value_name = "CIDR", conflicts_with = "simulate")]
    external: Option<Ipv4Net>,
    /// With --external: leave this machine's firewall and forwarding alone. Since 0.1.
    #[arg(long, requires = "external")]
    no_nat: bool,
}

/// A real host's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Network {
    /// Other hosts send tunnels here.
    pub(crate) tunnel_address: IpAddr,
    /// The interface that has it.
    pub(crate) tunnel_interface: String,
    pub(crate) outside: Option<Outside>,
}

/// A host's way to the provider network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outside {
    /// Through a network card.
    Uplink(String),
    /// It is the host itself.
    Here { external: Ipv4Net, nat: bool },
}

/// Whether the host can run guests.
#[derive(Clone, Debug)]
pub(crate) enum Guests {
    /// It is starting.
    Wait,
    Run,
    /// Not yet, for this cause.
    Fail(String),
}

/// The programs that a real host needs, and Debian's packages of them.
const PROGRAMS: [(&str, &str); 7] = [
    ("ovsdb-server", "openvswitch-switch"),
    ("ovs-vswitchd", "openvswitch-switch"),
    ("ovn-controller", "ovn-host"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-img", "qemu-utils"),
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
];

/// Says what to install, before a token is spent.
pub(crate) fn check_programs() -> Result<(), String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<_> = std::env::split_paths(&path).chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(Into::into)).collect();
    let mut missing: Vec<&str> = Vec::new();
    for (program, package) in PROGRAMS {
        if !dirs.iter().any(|dir| dir.join(program).is_file()) && !missing.contains(&package) {
            missing.push(package);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "Programs that a host needs are missing; install them with: apt-get install {}. For a host without guests of its own: --simulate.",
        missing.join(" ")
    ))
}

impl Network {
    /// What was kept, changed by what was given.
    pub(crate) async fn configure(kept: Option<&Self>, flags: &NetworkFlags, host: IpAddr) -> Result<Self, String> {
        let address = flags.tunnel_address.or(kept.map(|k| k.tunnel_address)).unwrap_or(host);
        let interface = match kept.filter(|k| k.tunnel_address == address) {
            // The switch may have its address by now.
            Some(kept) => kept.tunnel_interface.clone(),
            None => interface_of(address).await?,
        };
        let outside = match (&flags.uplink, flags.external) {
            (Some(uplink), _) => {
                if !Path::new("/sys/class/net").join(uplink).exists() {
                    return Err(format!("This machine has no interface {uplink}; look at: ip link"));
                }
                Some(Outside::Uplink(uplink.clone()))
            }
            (None, Some(external)) if external.prefix_len() > 28 => {
                return Err(format!("External network {external} is too small; give at least a /28."));
            }
            (None, Some(external)) => Some(Outside::Here { external, nat: !flags.no_nat }),
            (None, None) => kept.and_then(|k| k.outside.clone()),
        };
        Ok(Self { tunnel_address: address, tunnel_interface: interface, outside })
    }
}

/// The interface that has an address.
async fn interface_of(address: IpAddr) -> Result<String, String> {
    let text = supervise::ip(None, "-j address show").await.map_err(|e| base::chain(&e))?;
    let links: serde_json::Value = serde_json::from_str(&text).map_err(|e| format!("`ip -j address` gave no JSON: {e}."))?;
    let has = |link: &serde_json::Value| {
        link["addr_info"].as_array().into_iter().flatten().any(|info| info["local"].as_str() == Some(&address.to_string()))
    };
    let link = links.as_array().into_iter().flatten().find(|link| has(link));
    let name = link.and_then(|link| link["ifname"].as_str());
    name.map(str::to_owned).ok_or_else(|| {
        format!("No interface of this machine has the address {address}; give the one for tunnels with --tunnel-address.")
    })
}

/// Where the controllers' southbound databases are, by their lines.
pub(crate) fn southbound(lines: &[String]) -> Vec<ovsdb::Endpoint> {
    let mut addresses: Vec<IpAddr> = lines.iter().filter_map(|line| line.parse::<SocketAddr>().ok()).map(|at| at.ip()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.into_iter().map(cluster::southbound).collect()
}

/// Runs the host: tries until its switch and its agent run, then follows the controllers. `running` tells whether they do.
pub(crate) async fn run(state: &State, config: &Config, of: &Host, upstream: Arc<Upstream>, running: watch::Sender<Guests>) {
    let mut attempt = 0;
    let host = loop {
        let blobs = Arc::new(RemoteBlobs(upstream.clone()));
        let lines = upstream.controllers().borrow().clone();
        match host::start_node(state, config, of, southbound(&lines), upstream.clone(), blobs).await {
            Ok(host) => break host,
            Err(cause) => {
                tracing::error!(cause, "The host cannot run guests yet; trying again");
                running.send_replace(Guests::Fail(cause));
                sleep(AGAIN.jittered(attempt)).await;
                attempt += 1;
            }
        }
    };
    let agent: Arc<dyn assign::Agent> = host.agent.clone();
    upstream.serve(&agent);
    running.send_replace(Guests::Run);
    let mut controllers = upstream.controllers();
    let mut attempt = 0;
    loop {
        let lines = controllers.borrow_and_update().clone();
        match host.chassis.follow(southbound(&lines)).await {
            Ok(()) => {
                attempt = 0;
                // The sender is in `upstream`: it cannot be closed.
                controllers.changed().await.ok();
            }
            Err(e) => {
                tracing::warn!(error = base::chain(&e), "OVN on this host does not know where its controllers are; trying again");
                sleep(AGAIN.jittered(attempt)).await;
                attempt += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chassis_go_to_every_controller_once() {
        let lines = ["10.0.0.2:8775", "10.0.0.1:8775", "[fd00::1]:8775", "10.0.0.1:8775", "nonsense"].map(str::to_owned);
        let text: Vec<_> = southbound(&lines).iter().map(ToString::to_string).collect();
        assert_eq!(text, ["ssl:10.0.0.1:6642", "ssl:10.0.0.2:6642", "ssl:[fd00::1]:6642"]);
    }

    #[tokio::test]
    async fn what_was_given_is_kept() {
        let host = IpAddr::from([127, 0, 0, 1]);
        let external = NetworkFlags { external: Some("172.24.4.0/24".parse().unwrap()), ..NetworkFlags::default() };
        let first = Network::configure(None, &external, host).await.unwrap();
        assert_eq!(first.tunnel_interface, "lo");
        assert!(matches!(&first.outside, Some(Outside::Here { nat: true, .. })));
        assert_eq!(Network::configure(Some(&first), &NetworkFlags::default(), host).await.unwrap(), first);
        let wrong = NetworkFlags { tunnel_address: Some([192, 0, 2, 77].into()), ..NetworkFlags::default() };
        assert!(Network::configure(None, &wrong, host).await.unwrap_err().contains("--tunnel-address"));
        let wrong = NetworkFlags { uplink: Some("nowhere0".into()), ..NetworkFlags::default() };
        assert!(Network::configure(None, &wrong, host).await.unwrap_err().contains("nowhere0"));
    }
}
