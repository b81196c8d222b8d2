//! The real host: OVN central and chassis of one machine, and the node agent over QEMU.
use crate::config::{Config, State};
use assign::{Blobs, Uplink};
use chassis::{Chassis, Nat, Provider};
use ipnet::{IpNet, Ipv4Net};
use network::ovn::central::Central;
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

/// The host's address on the external network: the gateway of its subnet.
fn gateway(config: &Config) -> Ipv4Net {
    let own = config.external.hosts().next().unwrap_or(config.external.addr());
    Ipv4Net::new(own, config.external.prefix_len()).unwrap_or(config.external)
}

fn nat(state: &State, config: &Config) -> Nat {
    let names = Names::of(state);
    Nat { netns: None, bridge: names.bridge("ex"), gateway: gateway(config), tag: names.tag }
}

fn chassis_config(state: &State, config: &Config, nat: Option<Nat>) -> chassis::Config {
    let names = Names::of(state);
    chassis::Config {
        run_dir: state.ovn().join("chassis"),
        netns: None,
        system_id: config.name(),
        southbound: vec![central(state).sb()],
        // One host has no tunnels; any address of its own will do.
        encap_ip: IpAddr::from([127, 0, 0, 1]),
        integration_bridge: names.bridge("int"),
        provider: Some(Provider {
            bridge: names.bridge("ex"),
            physical_network: "public".into(),
            uplink: None,
            addresses: vec![IpNet::V4(gateway(config))],
            nat,
        }),
        datapath: None,
    }
}

fn node_config(state: &State, config: &Config) -> node::Config {
    let names = Names::of(state);
    let mut node = node::Config::new(state.node(), config.name());
    node.interface_prefix = names.interfaces();
    node.namespace_prefix = names.namespaces();
    node
}

/// What keeps the host's part running while it lives. The processes themselves go on without it.
pub(crate) struct Host {
    pub(crate) agent: Arc<node::Agent>,
    _chassis: chassis::Watch,
}

/// Starts (or finds again) the switch and the agent.
pub(crate) async fn start(
    state: &State,
    config: &Config,
    uplink: Arc<dyn Uplink>,
    blobs: Arc<dyn Blobs>,
) -> Result<Host, String> {
    let nat = nat(state, config);
    if !config.nat {
        nat.remove().await.map_err(|e| text(&e))?;
    }
    let chassis = chassis_config(state, config, config.nat.then_some(nat));
    let chassis = Arc::new(Chassis::ensure(chassis).await.map_err(|e| text(&e))?);
    tracing::info!(datapath = chassis.datapath().name(), "The switch of this host runs");
    let switch = Arc::new(node::OvnSwitch(chassis.clone()));
    let agent = node::start(node_config(state, config), uplink, blobs, switch).await.map_err(|e| text(&e))?;
    Ok(Host { agent, _chassis: Chassis::watch(chassis) })
}

/// Ends guests, switch and OVN of this cloud, for `down`.
pub(crate) async fn stop(state: &State, config: &Config) -> Result<(), String> {
    node::stop_all(&node_config(state, config)).await.map_err(|e| text(&e))?;
    chassis::remove(&chassis_config(state, config, Some(nat(state, config)))).await.map_err(|e| text(&e))?;
    central(state).stop().await.map_err(|e| text(&e))
}
