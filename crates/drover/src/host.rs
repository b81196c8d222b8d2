//! The real host: its chassis, the node agent over QEMU, and OVN's central part where the machine is a cloud by itself.
use crate::{
    config::{Config, State},
    node_role,
    real_node::{Network, Outside},
};
use assign::{Blobs, Uplink};
use chassis::{Chassis, Nat, Provider, Tls, Underlay};
use ipnet::{IpNet, Ipv4Net};
use network::ovn::central::Central;
use ovsdb::Endpoint;
use pki::Files;
use std::{net::IpAddr, sync::Arc};

/// Names of interfaces, bridges and namespaces are shared by all that runs on a machine; each cloud has its own.
pub(crate) struct Names {
    tag: String,
}

impl Names {
    pub(crate) fn of(state: &State) -> Self {
        let id = base::id::named(&state.dir().display().to_string());
        Self { tag: id.chars().filter(char::is_ascii_alphanumeric).take(3).collect() }
    }
    fn bridge(&self, kind: &str) -> String {
        format!("dv{}-{kind}", self.tag)
    }
    fn interfaces(&self) -> String {
        format!("d{}", self.tag)
    }
    pub(crate) fn namespaces(&self) -> String {
        format!("drover-{}-", self.tag)
    }
}

fn text(e: &dyn std::error::Error) -> String {
    base::chain(e)
}

pub(crate) fn central(state: &State) -> Central {
    Central::new(state.ovn().join("central"))
}

/// The name by which OVN and the compute service know this host.
pub(crate) fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .map(|n| n.trim().to_owned())
        .filter(|n| !n.is_empty())
        .unwrap_or_else(|| "localhost".into())
}

/// The physical network that users' external networks are on.
const PROVIDER: &str = "public";

/// The host's address on the external network: the gateway of its subnet.
fn gateway(external: Ipv4Net) -> Ipv4Net {
    let own = external.hosts().next().unwrap_or(external.addr());
    Ipv4Net::new(own, external.prefix_len()).unwrap_or(external)
}

fn nat(state: &State, external: Ipv4Net) -> Nat {
    let names = Names::of(state);
    Nat { netns: None, bridge: names.bridge("ex"), gateway: gateway(external), tag: names.tag }
}

/// How this machine is on the provider network.
fn outside(config: &Config) -> Option<Outside> {
    match &config.node {
        Some(host) => host.network.as_ref().and_then(|n| n.outside.clone()),
        None => Some(Outside::Here { external: config.external, nat: config.nat }),
    }
}

fn provider(state: &State, config: &Config) -> Option<Provider> {
    let provider = |uplink, addresses, nat| Provider {
        bridge: Names::of(state).bridge("ex"),
        physical_network: PROVIDER.into(),
        uplink,
        addresses,
        nat,
    };
    Some(match outside(config)? {
        Outside::Uplink(interface) => provider(Some(interface), Vec::new(), None),
        Outside::Here { external, nat: with_nat } => {
            provider(None, vec![IpNet::V4(gateway(external))], with_nat.then(|| nat(state, external)))
        }
    })
}

/// The chassis of a machine that is a cloud by itself.
fn own_chassis(state: &State, config: &Config) -> chassis::Config {
    let names = Names::of(state);
    chassis::Config {
        run_dir: state.ovn().join("chassis"),
        netns: None,
        system_id: config.name(),
        southbound: vec![central(state).sb()],
        tls: None,
        // One host has no tunnels; any address of its own will do.
        encap_ip: IpAddr::from([127, 0, 0, 1]),
        underlay: None,
        integration_bridge: names.bridge("int"),
        provider: provider(state, config),
        datapath: None,
    }
}

/// The chassis of a host of a cluster.
fn node_chassis(state: &State, config: &Config, network: &Network, southbound: Vec<Endpoint>) -> chassis::Config {
    let Files { ca, certificate, key } = Files::of(&state.pki());
    let underlay = Underlay { bridge: Names::of(state).bridge("tun"), interface: network.tunnel_interface.clone() };
    chassis::Config {
        southbound,
        tls: Some(Tls { ca, certificate, key }),
        encap_ip: network.tunnel_address,
        underlay: Some(underlay),
        ..own_chassis(state, config)
    }
}

fn chassis_config(state: &State, config: &Config) -> chassis::Config {
    match config.node.as_ref().and_then(|host| host.network.as_ref()) {
        Some(network) => node_chassis(state, config, network, Vec::new()),
        None => own_chassis(state, config),
    }
}

fn node_config(state: &State, config: &Config) -> node::Config {
    let names = Names::of(state);
    let mut node = node::Config::new(state.node(), config.name());
    node.interface_prefix = names.interfaces();
    node.namespace_prefix = names.namespaces();
    node.physical_networks = outside(config).map(|_| PROVIDER.to_owned()).into_iter().collect();
    if let Some(host) = &config.node {
        node.host_ip = host.address.to_string();
    }
    node
}

/// What keeps the host's part running while it lives. The processes themselves go on without it.
pub(crate) struct Host {
    pub(crate) agent: Arc<node::Agent>,
    pub(crate) chassis: Arc<Chassis>,
    _watch: chassis::Watch,
}

/// Starts (or finds again) the switch and the agent of a machine that is a cloud by itself.
pub(crate) async fn start(
    state: &State,
    config: &Config,
    uplink: Arc<dyn Uplink>,
    blobs: Arc<dyn Blobs>,
) -> Result<Host, String> {
    start_with(own_chassis(state, config), state, config, uplink, blobs).await
}

/// The same on a host of a cluster, whose southbound databases are there.
pub(crate) async fn start_node(
    state: &State,
    config: &Config,
    host: &node_role::Host,
    southbound: Vec<Endpoint>,
    uplink: Arc<dyn Uplink>,
    blobs: Arc<dyn Blobs>,
) -> Result<Host, String> {
    let network = host.network.as_ref().ok_or("This host is simulated.")?;
    start_with(node_chassis(state, config, network, southbound), state, config, uplink, blobs).await
}

async fn start_with(
    chassis: chassis::Config,
    state: &State,
    config: &Config,
    uplink: Arc<dyn Uplink>,
    blobs: Arc<dyn Blobs>,
) -> Result<Host, String> {
    // From a start with other options.
    if chassis.provider.as_ref().is_none_or(|p| p.nat.is_none()) {
        nat(state, config.external).remove().await.map_err(|e| text(&e))?;
    }
    let chassis = Arc::new(Chassis::ensure(chassis).await.map_err(|e| text(&e))?);
    tracing::info!(datapath = chassis.datapath().name(), "The switch of this host runs");
    let switch = Arc::new(node::OvnSwitch(chassis.clone()));
    let agent = node::start(node_config(state, config), uplink, blobs, switch).await.map_err(|e| text(&e))?;
    Ok(Host { agent, _watch: Chassis::watch(chassis.clone()), chassis })
}

/// Ends guests, switch and OVN of this machine, for `down`.
pub(crate) async fn stop(state: &State, config: &Config) -> Result<(), String> {
    node::stop_all(&node_config(state, config)).await.map_err(|e| text(&e))?;
    let mut chassis = chassis_config(state, config);
    // It may be there from a start with other options.
    if let Some(provider) = &mut chassis.provider {
        provider.nat = Some(nat(state, config.external));
    }
    chassis::remove(&chassis).await.map_err(|e| text(&e))?;
    if config.node.is_none() {
        central(state).stop().await.map_err(|e| text(&e))?;
    }
    Ok(())
}
